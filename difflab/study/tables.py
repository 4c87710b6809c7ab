"""Recorded rows as tables: Markdown, LaTeX, CSV, and columns for a terminal."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from difflab.layers import AnyLayer
from difflab.network_files import TERMS, USUAL, layer_table
from difflab.study.comparison import CONFIDENCE, RESOLUTION, Comparison
from difflab.study.declaration import PLACE, PlacedNetwork
from difflab.summary import in_short


Row = dict[str, Any]
MISSING = "—"
MOST_IN_A_ROW = 8
"""Equal widths that are written out one by one."""
TEXTS = (
    "network",
    "method",
    "status",
    "worst entry",
    "agrees with",
    "entry",
    "dtype",
    "fastest other",
    "claim",
    "over",
    "networks",
)
"""Titles of columns that hold words."""


@dataclass(frozen=True)
class Column:
    """One column of a table: its title, its text from a row, and the measures it belongs to, none for all."""

    title: str
    text: Callable[[Row], str]
    measures: tuple[str, ...] = ()
    narrow: bool = True
    """Whether it has a place in a terminal."""

    @property
    def is_text(self) -> bool:
        return self.title in TEXTS


def _number(name: str, digits: int = 2) -> Callable[[Row], str]:
    return lambda row: number(row.get(name), digits)


def number(value: Any, digits: int = 2) -> str:
    """Short text of a figure: plain between 0.01 and 9999, else scientific."""
    if value is None:
        return MISSING
    if isinstance(value, int):
        return str(value) if value < 100_000 else _scientific(float(value), digits)
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if 999.5 <= abs(value) < 9999.5:
        return f"{value:.0f}"
    if 0.01 <= abs(value) < 999.5:
        return f"{value:.{digits + 1}g}"
    return _scientific(value, digits)


def _scientific(value: float, digits: int) -> str:
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _ratio(over: str, under: str) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        if row.get(over) is None or not row.get(under):
            return MISSING
        return number(row[over] / row[under])

    return text


def _percent(part: str, whole: str) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        if row.get(part) is None or not row.get(whole):
            return MISSING
        return number(100 * row[part] / row[whole])

    return text


def _inverse(name: str) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        if row.get(name) is None:
            return MISSING
        return number(1 / row[name] if row[name] else math.inf)

    return text


def _count(name: str) -> Callable[[Row], str]:
    """To the last digit."""
    return lambda row: MISSING if row.get(name) is None else str(row[name])


def _kilo(name: str) -> Callable[[Row], str]:
    return lambda row: MISSING if row.get(name) is None else number(row[name] / 1e3)


def _mega(name: str) -> Callable[[Row], str]:
    return lambda row: MISSING if row.get(name) is None else number(row[name] / 1e6)


def _giga(name: str) -> Callable[[Row], str]:
    return lambda row: MISSING if row.get(name) is None else number(row[name] / 1e9)


def _hundredfold(name: str) -> Callable[[Row], str]:
    return lambda row: MISSING if row.get(name) is None else number(100 * row[name])


def _times_backprop(row: Row) -> str:
    """As measured in rounds where there were such."""
    return number(row["ratio"]) if row.get("ratio") is not None else _ratio("gradient_seconds", "backprop_seconds")(row)


def _interval(row: Row) -> str:
    return MISSING if row.get("ratio") is None else f"{number(row['ratio_low'])} … {number(row['ratio_high'])}"


def error_per_condition(row: Row) -> float | None:
    """The relative error in units of what a rounding of every parameter and input would make of it."""
    if row.get("error_relative") is None or not row.get("condition"):
        return None
    return row["error_relative"] / (row["condition"] * unit_roundoff(row))


def unit_roundoff(row: Row) -> float:
    """Half of the distance from 1 to the next number of the arithmetic that a row was computed in."""
    return float(np.finfo(row.get("dtype", "float64")).eps) / 2


def _words(name: str) -> Callable[[Row], str]:
    return lambda row: str(row.get(name) or MISSING)


DEFAULTS = {field.name: field.default for field in msgspec.structs.fields(PlacedNetwork)} | USUAL
TERMS_IN_NAMES = ("output", *TERMS, "init", *PLACE)
NAMED = ("l1", "l2", "label_smoothing", *PLACE)
"""Terms whose figures say nothing without their names."""


def network_name(row: Row) -> str:
    """Widths and hidden activation, or all layers; output activation, loss and so on where they are not the usual."""
    return " ".join([*layer_words(row), *term_words(row)])


def layer_words(row: Row) -> list[str]:
    """A network by its widths and hidden activation, or by all its layers."""
    if row.get("layers"):
        return [in_short(row["network"].split("-")[0], _layers(row))]
    return [_without_long_runs(row["network"]), *([row["hidden"]] if row.get("hidden") else [])]


def _without_long_runs(label: str) -> str:
    """Widths, where many equal ones in a row are counted: 64-(32×16)-10."""
    runs = [(width, len(list(run))) for width, run in itertools.groupby(label.split("-"))]
    return "-".join(f"({width}×{n})" if n > MOST_IN_A_ROW else "-".join([width] * n) for width, n in runs)


def _layers(row: Row) -> list[dict[str, Any]]:
    """The layers as they were recorded, checked, since rows may come from a file."""
    try:
        layers = msgspec.json.decode(row["layers"], type=list[AnyLayer])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"layers of {row['network']} must be a list of layers, got: {error}; run it again") from error
    return [layer_table(layer) for layer in layers]


def made_of(row: Row) -> list[str]:
    """What the hidden layers are made of, whatever their number and widths."""
    if row.get("layers"):
        return list(dict.fromkeys(_ingredients(_layers(row))))
    return [str(row["hidden"])] if row.get("hidden") else []


def _ingredients(layers: list[dict[str, Any]]) -> Iterator[str]:
    for layer in layers:
        yield from [] if layer["kind"] == "dense" else [layer["kind"]]
        yield from [layer["activation"]] if "activation" in layer else []
        yield from _ingredients(layer.get("layers", []))


def term_words(row: Row) -> list[str]:
    """What is not as usual, beside the layers."""
    said = {name: row[name] for name in TERMS_IN_NAMES if row.get(name) not in (None, DEFAULTS[name])}
    words = [f"{name} {value:g}" if name in NAMED else str(value) for name, value in said.items()]
    return [*words, *([f"batch {row['own_batch']}"] if row.get("own_batch") else [])]


COLUMNS = (
    Column("network", lambda row: network_name(row), narrow=False),
    Column("parameters", _number("parameters"), narrow=False),
    Column("method", _words("method")),
    Column("status", _words("status")),
    Column("rel. error", _number("error_relative"), ("accuracy",)),
    Column("ulp median", _number("error_ulp_median"), ("accuracy",)),
    Column("ulp p99", _number("error_ulp_p99"), ("accuracy",)),
    Column("ulp max", _number("error_ulp_max"), ("accuracy",)),
    Column("worst entry", _words("worst_entry"), ("accuracy",), narrow=False),
    Column("condition", _number("condition"), ("condition",)),
    Column("error ÷ κu", lambda row: number(error_per_condition(row)), ("condition",)),
    Column("error ÷ bound, max", _number("error_per_bound_max"), ("accuracy",), narrow=False),
    Column("bound ÷ error, median", _number("bound_per_error_median"), ("accuracy",), narrow=False),
    Column("falsely agreeing", _number("falsely_agreeing_entries"), ("agreement",)),
    Column("prepare s", _number("prepare_seconds"), ("speed",)),
    Column("gradient s", _number("gradient_seconds"), ("speed", "contest")),
    Column("÷ primal", _ratio("gradient_seconds", "primal_seconds"), ("speed", "contest")),
    Column("hvp ÷ gradient", _ratio("hvp_seconds", "gradient_seconds"), ("speed",), narrow=False),
    Column("÷ NumPy", _ratio("gradient_seconds", "handwritten_seconds"), ("speed",)),
    Column("backprop s", _number("backprop_seconds"), ("contest",), narrow=False),
    Column("÷ backprop", lambda row: _times_backprop(row), ("certificate", "contest")),
    Column("interval", lambda row: _interval(row), ("contest",)),
    Column("first call s", _number("first_call_seconds"), ("contest",), narrow=False),
    Column("process MB", _mega("peak_bytes"), ("contest",), narrow=False),
    Column("loaded MB", _mega("loaded_bytes"), ("certificate",), narrow=False),
    Column("peak MB", _mega("peak_bytes"), ("certificate",)),
    Column("rounded", _count("rounded_entries"), ("certificate",)),
    Column("enclosed", _count("enclosed_entries"), ("certificate",)),
    Column("kink", _count("kink_entries"), ("certificate",)),
    Column("certificate s", _number("certificate_seconds"), ("certificate",)),
    Column("detects", _number("certificate_detects"), ("certificate",)),
    Column("of floor %", _hundredfold("floor_fraction"), ("roofline",)),
    Column("of roofline %", _hundredfold("roofline_fraction"), ("roofline",)),
    Column("BLAS GFLOP/s", _giga("gemm_flops_per_second"), ("roofline",)),
    Column("memory GB/s", _giga("bandwidth_bytes_per_second"), ("roofline",), narrow=False),
    Column("entries", _number("judged_entries"), ("error_estimates",), narrow=False),
    Column("understated %", _percent("understated_entries", "judged_entries"), ("error_estimates",)),
    Column("true ÷ reported, worst", _inverse("reported_to_true_min"), ("error_estimates",)),
    Column("reported ÷ true, median", _number("reported_to_true_median"), ("error_estimates",)),
    Column("true rel. error, median", _number("true_error_relative_median"), ("error_estimates",)),
    Column("silent %", _percent("silent_entries", "parameters"), ("error_estimates",)),
    Column("flagged %", _percent("flagged_entries", "parameters"), ("error_estimates",)),
    Column(
        "of converged %",
        _percent("converged_understated_entries", "converged_entries"),
        ("error_estimates",),
    ),
    Column("primal calls", _number("primal_calls"), ("speed", "error_estimates")),
    Column("loss ops, tree", _number("loss_tree_ops"), ("swell",), narrow=False),
    Column("gradient ops, tree", _number("gradient_tree_ops"), ("swell",)),
    Column("gradient ops", _number("gradient_ops"), ("swell",)),
    Column("own loss ops", _number("own_loss_ops"), ("derivation",), narrow=False),
    Column("÷ own loss", _ratio("gradient_ops", "own_loss_ops"), ("derivation",)),
    Column("derive s", _number("derive_seconds"), ("derivation",)),
    Column("share s", _number("cse_seconds"), ("derivation",), narrow=False),
    Column("compile s", _number("compile_seconds"), ("derivation",)),
    Column("source kB", _kilo("source_bytes"), ("derivation",), narrow=False),
)

LEGEND = {
    "rel. error": (
        "rel. error: norm of the error divided by the norm of the certified gradient; ulp: error of one entry in units "
        "in the last place of the method's own dtype; worst entry: the one furthest off in ulp; status ok: within the "
        "error that the method predicts for itself, or, where that exceeds the gradient, half of the digits right. All "
        "methods get the same numbers, which are float32 numbers. The certified gradient is the truth itself and is "
        "not judged."
    ),
    "ulp p99": "ulp p99: 99 of 100 entries are no further off.",
    "condition": (
        "condition, κ: relative errors of u in all parameters and inputs, each of either sign, move the gradient by "
        "about κu as a share of its norm, whatever the method [estimated from certified derivatives along a few "
        "random directions: Gudmundsson, Kenney, Laub 1997], not estimated where a kink has a say; error ÷ κu: the "
        "relative error in units of that, u being the unit roundoff of the method's own dtype; up to about 1, the "
        "error is no more than that of an exact method whose parameters and inputs had been rounded."
    ),
    "error ÷ bound, max": (
        "error ÷ bound: of an entry, the bound being the error that the method predicts of it; above 1 the prediction "
        "fails; bound ÷ error: how loose it is, over entries that have an error."
    ),
    "falsely agreeing": (
        "falsely agreeing: entries of a float64 gradient that another method has within 4 ulp, while both are at least "
        "1000 ulp from the truth; held against Symbolic, Handwritten, central and complex differences and Backprop, "
        "where these can. In the table of them: the entry at which agreement misleads most."
    ),
    "prepare s": (
        "prepare s: once per network, libraries and kernels being loaded; gradient s: median of one gradient of the "
        "batch, taking turns in random order with the method's own loss (÷ primal), with its Hessian-vector product "
        "(hvp ÷ gradient) and with backprop written by hand in NumPy (÷ NumPy), whose BLAS has as many threads; primal "
        "calls: runs of the loss for one gradient. Time limits are per cell and include starting a process."
    ),
    "certificate s": (
        "÷ backprop: by the time of Backprop('float64') on the same numbers, taking turns with it; loaded, peak: the "
        "most memory that the process held before and after its first gradient; rounded: entries of which no float64 "
        "is nearer to the derivative; enclosed: those of which only an interval is known; kink: those with a "
        "derivative to either side; certificate: all that the other routes to the gradient take; detects: the least "
        "relative error in any one entry that they are sure to notice."
    ),
    "interval": (
        "Each method and Backprop of the same dtype and threads have a process of their own, bound to as many cores as "
        "threads; both gradients are verified before they are timed; only the one whose turn it is runs, in random "
        "order. gradient s: median of one gradient of the batch, the arguments being in the library's own arrays, "
        "Backprop with all its checks; ÷ primal: by the median of its own loss alone; ÷ backprop: median over the "
        "rounds of the method's time by that of Backprop, above 1 where Backprop is faster; interval: holds that "
        f"median at {100 * CONFIDENCE:g} % [sign test], and a difference is claimed if it excludes 1 by more than "
        f"{100 * RESOLUTION:g} %; first call s: to prepare and differentiate once, the method's own library "
        "being loaded and its code compiled then, Python, NumPy and the kernels of Backprop being there from before; "
        "process: the most memory that the process held."
    ),
    "of roofline %": (
        "of floor: what the products of matrices of this gradient take, each by SciPy's BLAS alone into an array that "
        "is there, as a share of the gradient; not given where calling BLAS from Python takes a tenth of it; of "
        "roofline: the same at the best rate of BLAS, for these products or for square ones of size 256, 512, 1024 or "
        "2048, or, if that takes longer, samples, parameters and gradient passing once between memory and processor; "
        "all take turns in one process. On several threads BLAS may be slower at small products than on one, and a "
        "share of the floor above 100."
    ),
    "loss ops, tree": (
        "operations for one sample, where a sum or product of n terms counts n - 1, a power or function 1, a sign "
        "nothing; tree: the expression written out; gradient ops: loss and gradient as the method computes them, for "
        "Symbolic after common subexpressions."
    ),
    "÷ own loss": (
        "own loss ops: operations of the loss alone as the method computes it; ÷ own loss: operations of loss and "
        "gradient by these, 5 at most where sharing is kept [Baur, Strassen 1983]; derive, share, compile: seconds to "
        "differentiate, to find common subexpressions, and to turn expressions into a Python function on NumPy arrays; "
        "source: of that function."
    ),
    "understated %": (
        "entries: those of the gradient of which the method reports an error that the certified truth can be held "
        "against; understated: the error it reports is smaller than the true one; true ÷ reported, worst: inf where "
        "an error is reported to be 0 and is not; reported ÷ true: below 1 where understated; true rel. error: of an "
        "entry, divided by the entry; silent: entries of which it reports no error, or one of NaN or infinity, as "
        "where a library raises; flagged: entries that the library says have not converged; of converged: understated "
        "ones of those that it does not flag. Libraries run as they are set by default, on the loss as a function of "
        "one parameter after the other. None of them promises a bound: SciPy reports the change by its last step, "
        "numdifftools a difference of its extrapolations, jacobi a standard deviation; those of FiniteDifference are "
        "meant as bounds where no kink is within a step. A study of nothing else calls no row wrong: errors beyond "
        "those reported are its finding."
    ),
}
"""What columns mean, by the title of one that is there whenever the others are."""

PLACES = "scale: what all parameters are multiplied by; x_shift, y_shift: what is added to all inputs, to all targets."
"""What is said where a network is not differentiated at the usual place."""


def columns(measures: Sequence[str], narrow: bool = False, without: Collection[str] = ()) -> list[Column]:
    """The columns that these measures fill, all of them or those with a place in a terminal; some titles left out."""
    filled = [c for c in COLUMNS if not c.measures or set(c.measures) & set(measures)]
    return [c for c in filled if (c.narrow or not narrow) and c.title not in without]


def legend(shown: Sequence[Column], rows: list[Row]) -> list[str]:
    """What the columns that are shown mean."""
    titles = {column.title for column in shown}
    said = [text for title, text in LEGEND.items() if title in titles]
    moved = any(row.get(name) not in (None, DEFAULTS[name]) for row in rows for name in PLACE)
    return said + [PLACES] * moved


def notes(rows: list[Row]) -> list[str]:
    """What the rows say beside their figures: why a cell has none, and when kernels were compiled."""
    said = [
        f"{network_name(row)} {row['method']}: {row['status']}, {row['reason']}" for row in rows if row.get("reason")
    ]
    compiled: dict[str, float] = {}
    for row in rows:
        if row.get("kernel_compile_seconds"):
            compiled[row["method"]] = max(row["kernel_compile_seconds"], compiled.get(row["method"], 0.0))
    said += [f"{method}: kernels compiled before cells ran, in {number(s)} s" for method, s in compiled.items()]
    said += [
        f"{network_name(row)} {row['method']}: raised errors at {row['raised']}" for row in rows if row.get("raised")
    ]
    libraries = {row["method"]: row["library"] for row in rows if row.get("library")}
    said += [f"{method}: {library}" for method, library in libraries.items()]
    busy = [f"{network_name(row)} {row['method']}" for row in rows if row.get("contended")]
    return said + ([f"timed on a contended machine: {'; '.join(busy)}"] if busy else [])


def markdown(
    question: str, measures: Sequence[str], rows: list[Row], machine: str, without: Collection[str] = ()
) -> str:  # fmt: skip
    """The table as a Markdown page; columns ``without`` some titles."""
    shown = columns(measures, without=without)
    lines = [f"**{html.escape(question, quote=False)}**", "", *lines_of(shown, rows)]
    lines += ["", *(f"* {note}" for note in notes(rows))]
    if "agreement" in measures:
        lines += ["", *agreements(rows)]
    if "contest" in measures:
        lines += ["", *fastest_others(rows)]
    lines += ["", *legend(shown, rows), "", machine, ""]
    return "\n".join(lines)


AGREEMENT = (
    Column("network", lambda row: network_name(row)),
    Column("method", _words("method")),
    Column("agrees with", _words("agrees_with")),
    Column("to within ulp", _number("agreement_ulp")),
    Column("both off by ulp", _number("agreement_error_ulp")),
    Column("entry", _words("agreement_entry")),
    Column("of which both say", _number("agreement_got", 3)),
    Column("the truth is", _number("agreement_truth", 3)),
)


def agreements(rows: list[Row]) -> list[str]:
    """Where two methods agree and neither is right, as lines of Markdown; every two methods of a network once."""
    misled, seen = [], set()
    for row in rows:
        pair = network_name(row), frozenset((row["method"], row.get("agrees_with")))
        if row.get("falsely_agreeing_entries") and pair not in seen:
            seen.add(pair)
            misled.append(row)
    if not misled:
        return ["No two methods agree where neither is right."]
    return lines_of(AGREEMENT, misled)


FASTEST = (
    Column("network", lambda row: network_name(row)),
    Column("dtype", _words("dtype")),
    Column("threads", _count("threads")),
    Column("fastest other", _words("method")),
    Column("gradient s", _number("gradient_seconds")),
    Column("backprop s", _number("backprop_seconds")),
    Column("÷ backprop", _times_backprop),
    Column("interval", _interval),
    Column("waited %", _hundredfold("waited_share")),
    Column("claim", lambda row: claim(row)),
    Column("without a time", _words("failed")),
)


def fastest_others(rows: list[Row]) -> list[str]:
    """Of each network, dtype and number of threads, the method that comes nearest to Backprop, as lines of Markdown."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row.get("threads") is not None and not row["method"].startswith("Backprop("):
            groups.setdefault((network_name(row), row["dtype"], row["threads"]), []).append(row)
    found = [_fastest(group) for group in groups.values() if any(row.get("ratio") is not None for row in group)]
    return lines_of(FASTEST, found) if found else ["No other method could be timed."]


def _fastest(group: list[Row]) -> Row:
    """The row of the fastest of some methods, with the names of those that took part and were not timed."""
    timed = [row for row in group if row.get("ratio") is not None]
    failed = [f"{row['method']} {row['status']}" for row in group if row.get("ratio") is None]
    return min(timed, key=lambda row: row["ratio"]) | {"failed": ", ".join(failed) or None}


def claim(row: Row) -> str:
    """What a contest lets be said of Backprop."""
    found = Comparison(row["ratio"], row["ratio_low"], row["ratio_high"])
    if not found.differs:
        return "no difference"
    return "Backprop is faster" if found.ratio > 1 else "Backprop is slower"


def lines_of(shown: Sequence[Column], rows: list[Row]) -> list[str]:
    """Rows in columns, as lines of Markdown."""
    lines = [[column.title for column in shown], ["---" if column.is_text else "---:" for column in shown]]
    return [_pipes(line) for line in (*lines, *([column.text(row) for column in shown] for row in rows))]


def _pipes(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {
        "÷": r"$\div$",
        "×": r"$\times$",
        "→": r"$\to$",
        "—": "---",
        "~": r"\textasciitilde{}",
        "\\": r"\textbackslash{}",
    }
)


def latex(measures: Sequence[str], rows: list[Row]) -> str:
    """The table in LaTeX, for the booktabs package."""
    shown = columns(measures)
    aligned = "".join("l" if column.is_text else "r" for column in shown)
    lines = [rf"\begin{{tabular}}{{{aligned}}}", r"\toprule", _ampersands([c.title for c in shown]), r"\midrule"]
    lines += [_ampersands([column.text(row) for column in shown]) for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _ampersands(cells: list[str]) -> str:
    return " & ".join(cell.translate(_LATEX) for cell in cells) + r" \\"


def csv(rows: list[Row]) -> str:
    """Every recorded figure, exactly; a text that a spreadsheet would run is quoted."""
    frame = pd.DataFrame([{name: _inert(value) for name, value in row.items()} for row in rows])
    return frame.to_csv(index=False, lineterminator="\n")


def _inert(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def from_csv(path: Any) -> list[Row]:
    """Rows that :func:`csv` wrote; what is missing there is missing here."""
    frame = pd.read_csv(path, dtype={"network": str, "layers": str})
    if not {"network", "parameters", "method", "status"} <= set(frame.columns):
        raise ValueError(f"{path} must hold recorded rows, got columns {list(frame.columns)[:5]}")
    rows = []
    for record in frame.to_dict("records"):
        present = {
            str(name): value for name, value in record.items() if not (isinstance(value, float) and value != value)
        }
        rows.append({name: _whole(name, value) for name, value in present.items()})
    return rows


COUNTS = ("parameters", "batch", "own_batch", "seed", "threads", "rounds")


def _whole(name: str, value: Any) -> Any:
    """Counts that shared a column with gaps come back as floats."""
    counts = name.endswith(("_ops", "_calls", "_bytes", "_bits", "_entries")) or name in COUNTS
    return int(value) if counts and isinstance(value, float | str) else value
