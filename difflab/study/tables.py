"""Recorded rows as tables: Markdown, LaTeX, and columns for a terminal."""

from __future__ import annotations

import html
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from difflab.study.columns import (
    MISSING,
    Column,
    count,
    figure,
    giga,
    hundredfold,
    inverse,
    kilo,
    lines_of,
    mega,
    number,
    percent,
    ratio,
    words,
)
from difflab.study.comparison import CONFIDENCE, RESOLUTION, Comparison
from difflab.study.declaration import PLACE
from difflab.study.names import DEFAULTS, network_name


Row = dict[str, Any]


def _times_backprop(row: Row) -> str:
    """As measured in rounds where there were such."""
    return number(row["ratio"]) if row.get("ratio") is not None else ratio("gradient_seconds", "backprop_seconds")(row)


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


COLUMNS = (
    Column("network", lambda row: network_name(row), narrow=False),
    Column("parameters", figure("parameters"), narrow=False),
    Column("method", words("method")),
    Column("status", words("status")),
    Column("rel. error", figure("error_relative"), ("accuracy",)),
    Column("ulp median", figure("error_ulp_median"), ("accuracy",)),
    Column("ulp p99", figure("error_ulp_p99"), ("accuracy",)),
    Column("ulp max", figure("error_ulp_max"), ("accuracy",)),
    Column("worst entry", words("worst_entry"), ("accuracy",), narrow=False),
    Column("condition", figure("condition"), ("condition",)),
    Column("error ÷ κu", lambda row: number(error_per_condition(row)), ("condition",)),
    Column("error ÷ bound, max", figure("error_per_bound_max"), ("accuracy",), narrow=False),
    Column("bound ÷ error, median", figure("bound_per_error_median"), ("accuracy",), narrow=False),
    Column("falsely agreeing", figure("falsely_agreeing_entries"), ("agreement",)),
    Column("prepare s", figure("prepare_seconds"), ("speed",)),
    Column("gradient s", figure("gradient_seconds"), ("speed", "contest")),
    Column("÷ primal", ratio("gradient_seconds", "primal_seconds"), ("speed", "contest")),
    Column("hvp ÷ gradient", ratio("hvp_seconds", "called_gradient_seconds"), ("speed",), narrow=False),
    Column("÷ NumPy", ratio("gradient_seconds", "handwritten_seconds"), ("speed",)),
    Column("backprop s", figure("backprop_seconds"), ("contest",), narrow=False),
    Column("÷ backprop", lambda row: _times_backprop(row), ("certificate", "contest")),
    Column("interval", lambda row: _interval(row), ("contest",)),
    Column("first call s", figure("first_call_seconds"), ("contest",), narrow=False),
    Column("process MB", mega("peak_bytes"), ("contest",), narrow=False),
    Column("loaded MB", mega("loaded_bytes"), ("certificate",), narrow=False),
    Column("peak MB", mega("peak_bytes"), ("certificate",)),
    Column("rounded", count("rounded_entries"), ("certificate",)),
    Column("enclosed", count("enclosed_entries"), ("certificate",)),
    Column("kink", count("kink_entries"), ("certificate",)),
    Column("certificate s", figure("certificate_seconds"), ("certificate",)),
    Column("detects", figure("certificate_detects"), ("certificate",)),
    Column("of floor %", hundredfold("floor_fraction"), ("roofline",)),
    Column("of roofline %", hundredfold("roofline_fraction"), ("roofline",)),
    Column("BLAS GFLOP/s", giga("gemm_flops_per_second"), ("roofline",)),
    Column("memory GB/s", giga("bandwidth_bytes_per_second"), ("roofline",), narrow=False),
    Column("entries", figure("judged_entries"), ("error_estimates",), narrow=False),
    Column("understated %", percent("understated_entries", "judged_entries"), ("error_estimates",)),
    Column("true ÷ reported, worst", inverse("reported_to_true_min"), ("error_estimates",)),
    Column("reported ÷ true, median", figure("reported_to_true_median"), ("error_estimates",)),
    Column("true rel. error, median", figure("true_error_relative_median"), ("error_estimates",)),
    Column("silent %", percent("silent_entries", "parameters"), ("error_estimates",)),
    Column("flagged %", percent("flagged_entries", "parameters"), ("error_estimates",)),
    Column(
        "of converged %",
        percent("converged_understated_entries", "converged_entries"),
        ("error_estimates",),
    ),
    Column("primal calls", figure("primal_calls"), ("speed", "error_estimates")),
    Column("loss ops, tree", figure("loss_tree_ops"), ("swell",), narrow=False),
    Column("gradient ops, tree", figure("gradient_tree_ops"), ("swell",)),
    Column("gradient ops", figure("gradient_ops"), ("swell", "derivation")),
    Column("graph nodes", figure("graph_nodes"), ("derivation",), narrow=False),
    Column("graph ops", figure("graph_ops"), ("derivation",), narrow=False),
    Column("by SymPy's count", figure("gradient_sympy_ops"), ("derivation",), narrow=False),
    Column("own loss ops", figure("own_loss_ops"), ("derivation",), narrow=False),
    Column("÷ loss", ratio("gradient_ops", "loss_ops"), ("swell",)),
    Column("÷ own loss", ratio("gradient_ops", "own_loss_ops"), ("derivation",)),
    Column("derive s", figure("derive_seconds"), ("derivation",)),
    Column("simplify s", figure("simplify_seconds"), ("derivation",), narrow=False),
    Column("share s", figure("cse_seconds"), ("derivation",), narrow=False),
    Column("print s", figure("codegen_seconds"), ("derivation",), narrow=False),
    Column("compile s", figure("compile_seconds"), ("derivation",)),
    Column("source kB", kilo("source_bytes"), ("derivation",), narrow=False),
    Column("code kB", kilo("code_bytes"), ("derivation",), narrow=False),
    Column("derive MB", mega("derive_peak_bytes"), ("derivation",), narrow=False),
    Column("all MB", mega("peak_bytes"), ("derivation",), narrow=False),
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
        "(hvp ÷ gradient, both called with arguments) and with backprop written by hand in NumPy (÷ NumPy), whose BLAS "
        "has as many threads; primal calls: runs of the loss for one gradient. Time limits are per cell and include "
        "starting a process."
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
        f"median at {100 * CONFIDENCE:g} % [sign test] for these two processes, others of the same code being up to "
        f"{100 * RESOLUTION:g} % apart, and a difference is claimed if it excludes 1 by more than "
        f"{100 * RESOLUTION:g} %; first call s: to prepare and differentiate once, the method's own library "
        "being loaded and its code compiled then, Python, NumPy and the kernels of Backprop being there from before; "
        "process: the most memory that the process held."
    ),
    "of roofline %": (
        "of floor: what the products of matrices of this gradient take, each by BLAS alone (MKL where backprop has it, "
        "else SciPy's) into an array that is there, as a share of the gradient; not given where calling BLAS from "
        "Python takes a tenth of it; of roofline: the same at the best rate of BLAS, for these products or for square "
        "ones of size 256, 512, 1024 or 2048, or, if that takes longer, samples, parameters and gradient passing once "
        "between memory and processor; all take turns in one process. On several threads BLAS may be slower at small "
        "products than on one, and a share of the floor above 100; its threads rest between calls, to leave the cores "
        "to what is timed next."
    ),
    "loss ops, tree": (
        "operations for one sample, where a sum or product of n terms counts n - 1, a quotient, a power or a function "
        "1, signs and choices nothing; tree: the expression written out; gradient ops: loss and gradient as the method "
        "computes them, with what they share; ÷ loss: by the operations of the loss of the network as its program "
        "computes it."
    ),
    "÷ own loss": (
        "own loss ops: operations of the loss alone as the method computes it; ÷ own loss: operations of loss and "
        "gradient by these, 5 at most where sharing is kept [Baur, Strassen 1983]; graph: the derived expressions with "
        "equal subexpressions as one node, before anything more is found in common; by SymPy's count: gradient ops by "
        "count_ops, in which signs and choices count; derive, simplify, share, print, "
        "compile: seconds to differentiate, to simplify every derivative, to find common subexpressions, to write code "
        "and to load or compile it; source, code: bytes of the function for loss and gradient, and of what it is "
        "compiled to; derive MB, all MB: the most memory that the process had held after differentiating, and in all. "
        "Of peers: CasADi's instructions and the primitives of a jaxpr, by the same convention."
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
    Column("method", words("method")),
    Column("agrees with", words("agrees_with")),
    Column("to within ulp", figure("agreement_ulp")),
    Column("both off by ulp", figure("agreement_error_ulp")),
    Column("entry", words("agreement_entry")),
    Column("of which both say", figure("agreement_got", 3)),
    Column("the truth is", figure("agreement_truth", 3)),
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
    Column("dtype", words("dtype")),
    Column("threads", count("threads")),
    Column("fastest other", words("method")),
    Column("gradient s", figure("gradient_seconds")),
    Column("backprop s", figure("backprop_seconds")),
    Column("÷ backprop", _times_backprop),
    Column("interval", _interval),
    Column("waited %", hundredfold("waited_share")),
    Column("claim", lambda row: claim(row)),
    Column("without a time", words("failed")),
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
