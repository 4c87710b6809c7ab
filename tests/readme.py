"""The generated parts of the README: run this file to bring them up to date."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
from pathlib import Path

import numpy as np

import difflab as dl
from difflab.initialisation import INITIALISATIONS
from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.losses import LOSSES
from difflab.study import columns, csv_rows, forecasts, names, tables
from difflab.study.reading import read_study
from difflab.study.report import machine
from difflab.study.timing import MOST_WAITED


ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def part(text: str, name: str) -> str:
    """What stands between the two comments that name a generated part."""
    return re.search(rf"<!-- {name} -->\n(.*?)<!-- end of {name} -->", text, re.DOTALL)[1]


def code_blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def example_output() -> str:
    """What the first Python block of the README prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code_blocks(README.read_text(), "python")[0], {})  # noqa: S102
    return printed.getvalue()


LEFT_OUT = ("ulp p99", "error ÷ bound, max", "bound ÷ error, median", "÷ loss")
"""Columns of the table of the headline study that the first page can do without."""

OF_CERTIFIED = ("network", "parameters", "gradient s", "÷ backprop", "loaded MB", "peak MB", "rounded", "enclosed",
                "kink", "certificate s", "detects")  # fmt: skip
NOT_MEASURED = "Not measured yet.\n"


def recorded(study: str, name: str, committed: bool) -> str | None:
    """What a study left in a file, as it was committed, or else as it lies here.

    A study that was run here since must not make the README wrong.
    """
    path = f"results/{study}/{name}"
    shown = subprocess.run(["git", "show", f"HEAD:{path}"], cwd=ROOT, capture_output=True, text=True)
    if committed and shown.returncode == 0:
        return shown.stdout
    return (ROOT / path).read_text() if (ROOT / path).exists() else None


def recorded_rows(study: str, committed: bool = True) -> list[dict]:
    text = recorded(study, "rows.csv", committed)
    return [] if text is None else csv_rows.from_csv(io.StringIO(text))


def recorded_machine(study: str, committed: bool) -> str:
    return machine(json.loads(recorded(study, "provenance.json", committed)))


def headline_table(committed: bool = True) -> str:
    """The table of the headline study, from its rows, without columns that the first page can do without."""
    study, rows = read_study(ROOT / "studies/headline.toml"), recorded_rows("headline", committed)
    return tables.markdown(study.question, study.measures, rows, recorded_machine("headline", committed), LEFT_OUT)


def agreement_table(committed: bool = True) -> str:
    """Where two methods of the study of truth agree and neither is right."""
    if not (rows := recorded_rows("truth", committed)):
        return NOT_MEASURED
    return "\n".join([*tables.agreements(rows), "", recorded_machine("truth", committed), ""])


def certified_table(committed: bool = True) -> str:
    """The rows of the certified back-end in the study of what it costs."""
    rows = [row for row in recorded_rows("certified", committed) if row["method"] == "Certified()"]
    if not rows:
        return NOT_MEASURED
    shown = [column for column in tables.COLUMNS if column.title in OF_CERTIFIED]
    return "\n".join([*columns.lines_of(shown, rows), "", recorded_machine("certified", committed), ""])


def peers_table(committed: bool = True) -> str:
    """Of every cell of the study of peers, the fastest other method."""
    if not (rows := recorded_rows("peers", committed)):
        return NOT_MEASURED
    return "\n".join([*tables.fastest_others(rows), "", recorded_machine("peers", committed), ""])


AIMS = {
    ("4-8-8-3", 1): 10.0,
    ("4-8-8-3", 32): 6.0,
    ("64-32-32-10", 128): 2.0,
    ("64-" + 16 * "32-" + "10", 128): 2.0,
    ("784-256-128-10", 256): 1.2,
    ("784-1024-1024-10", 1024): 1.05,
}
"""How many times faster than the fastest other method Backprop should be, by network and batch."""

LOWER_AIM = ("784-256-128-10", "float32", 1), 1.05
"""Where another method is near what BLAS leaves over."""


def aim(row: dict) -> float:
    where, lower = LOWER_AIM
    return lower if (row["network"], row["dtype"], row["threads"]) == where else AIMS[row["network"], row["batch"]]


def nearest_others(rows: list[dict]) -> list[dict]:
    """Of each network with its activation, dtype and threads, the row of the fastest other method."""
    found: dict[tuple, dict] = {}
    for row in rows:
        if row.get("ratio") is not None and not row["method"].startswith("Backprop("):
            key = row["network"], row["batch"], row["hidden"], row["dtype"], row["threads"]
            found[key] = min(found.get(key, row), row, key=lambda each: each["ratio"])
    return list(found.values())


def aims_table(committed: bool = True) -> str:
    """What was aimed at beside what was reached, network by network, and how many cells waited for others."""
    if not (rows := nearest_others(recorded_rows("peers", committed))):
        return NOT_MEASURED
    lines = []
    for network, batch in AIMS:
        mine = [row for row in rows if (row["network"], row["batch"]) == (network, batch)]
        ratios = [columns.number(row["ratio"]) for row in sorted(mine, key=lambda row: row["ratio"])]
        reached = sum(row["ratio"] >= aim(row) for row in mine)
        aims = " or ".join(f"{each:g}" for each in sorted({aim(row) for row in mine}))
        name = names.layer_words({"network": network})[0]
        lines.append([f"{name} batch {batch}", aims, ratios[0], ratios[-1], f"{reached} of {len(mine)}"])
    waited = sum(bool(row["contended"]) for row in rows)
    share = f"{100 * MOST_WAITED:g} %"
    said = f"In {waited} of these {len(rows)} contests one of the two waited for more than {share} of its turns.\n"
    return markdown(["network", "aim", "least", "largest", "reached"], lines) + "\n" + said


MEDIANS_BEFORE = {"4-3-10": 2.31, "16-8-10": 1.82, "4-8-10": 1.97, "64-32-10": 1.78, "64-256-256-10": 2.13}
"""Of the errors in ulp of float64 Backprop in ``results/headline`` at 53e6e17, before its kernels were fused ones."""

ASKED = ("exp", "expm1", "log", "log1p", "tanh", "sigmoid", "softplus", "erf")
"""Functions of which 2 ulp were asked, of tanh 2.5 in float64."""

LARGEST = "784-1024-1024-10"


def campaign(name: str) -> dict:
    """What a campaign left."""
    return json.loads((ROOT / "results" / "campaigns" / f"{name}.json").read_bytes())


def beyond_what_was_asked(functions: dict[str, dict]) -> list[str]:
    """Functions with larger errors, by precision."""
    return [
        f"{name} in {precision} with {found['error_ulp']:.3g} ulp"
        for precision, of in functions.items()
        for name, found in of.items()
        if name in ASKED and found["error_ulp"] > (2.5 if (name, precision) == ("tanh", "float64") else 2.0)
    ]


def other_aims_table(committed: bool = True) -> str:
    """What else was aimed at, and what became of it."""
    speed = [row for row in recorded_rows("speed", committed) or [] if row["method"].startswith("Backprop(")]
    headline = [row for row in recorded_rows("headline", committed) or [] if row["method"] == "Backprop('float64')"]
    if not speed or not headline:
        return NOT_MEASURED
    speed = [row for row in speed if row["status"] == "ok"]
    costs, functions = campaign("costs")["figures"], campaign("vector_math")["figures"]
    calls = {
        kind: [call[f"{kind}_microseconds"] - call["nothing_microseconds"] for call in costs["call"].values()]
        for kind in ("bound", "checked")
    }
    errors = [found["error_ulp"] for of in functions.values() for name, found in of.items() if name in ASKED]
    medians = {row["network"]: row["error_ulp_median"] for row in headline if row["network"] in MEDIANS_BEFORE}
    worse = [name for name, median in medians.items() if round(median, 2) > MEDIANS_BEFORE[name]]
    rows = [
        (
            f"share of the roofline, {names.layer_words({'network': LARGEST})[0]} batch 1024, %",
            "90 or more",
            [100 * row["roofline_fraction"] for row in speed if row["network"] == LARGEST and row.get("hvp_seconds")],
        ),
        ("gradient ÷ own loss", "3 or less", [row["gradient_seconds"] / row["primal_seconds"] for row in speed]),
        (
            "Hessian-vector product ÷ gradient",
            "4 or less",
            [row["hvp_seconds"] / row["called_gradient_seconds"] for row in speed if row.get("hvp_seconds")],
        ),
        ("a bound call of next to no arithmetic, µs", "1 or less", calls["bound"]),
        ("a call with its arguments, of as much, µs", "1 or less", calls["checked"]),
        ("second process to its first gradient, s", "1 or less", [costs["second_process"]["first_gradient_seconds"]]),
        (f"largest errors of {', '.join(ASKED)}, ulp", "2 or less", errors),
        ("functions, ns an element", "1 or less", [found["nanoseconds"] for found in costs["functions"].values()]),
        ("the C library's ÷ these", "3 or more", [found["ratio"] for found in costs["functions"].values()]),
    ]
    lines = [[what, aimed, _from_to(figures)] for what, aimed, figures in rows]
    said = ", ".join(f"{name} from {MEDIANS_BEFORE[name]:g} to {medians[name]:.3g}" for name in worse) or "none"
    of = f"Of {len(medians)} median errors in ulp of the study `headline`, those larger than before: {said}.\n"
    beyond = ", ".join(beyond_what_was_asked(functions)) or "none"
    larger = f"Larger errors than 2 ulp, or for tanh in float64 2.5: {beyond}.\n"
    machines = {
        "Share of the roofline, gradients and Hessian-vector products": recorded_machine("speed", committed),
        "Medians": recorded_machine("headline", committed),
        "Calls, start and times of functions, by themselves": machine_of("costs"),
        "Errors of functions": machine_of("vector_math"),
    }
    said = [f"{what}: {where[0].lower()}{where[1:]}" for what, where in machines.items()]
    return markdown(["what", "aim", "reached"], lines) + "\n" + larger + of + "\n" + "\n\n".join(said) + "\n"


def machine_of(name: str) -> str:
    """Where a campaign was recorded."""
    record = campaign(name)
    return machine([record["environment"] | record])


def _from_to(figures: list[float]) -> str:
    """The least and the largest."""
    return f"{columns.number(min(figures))} … {columns.number(max(figures))}" if figures else columns.MISSING


def swell_table(committed: bool = True) -> str:
    """Of every method in the study of expression swell: operations, and seconds to derive and compile."""
    if not (rows := recorded_rows("expression_swell", committed)):
        return NOT_MEASURED
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        counted = [row for row in mine if row.get("own_loss_ops") and row.get("gradient_ops")]
        if not counted:
            continue
        stopped = sum(row["status"] in ("timeout", "memory") for row in mine)
        trees = [row for row in counted if row.get("gradient_tree_ops")]
        figures = [
            [row["gradient_ops"] / row["loss_ops"] for row in counted],
            [row["gradient_ops"] / row["own_loss_ops"] for row in counted],
            [row["gradient_tree_ops"] / row["loss_ops"] for row in trees],
            [forecasts.seconds_to_prepare(row) for row in counted],
        ]
        lines.append([f"`{method}`", f"{len(counted)} of {len(mine)}", *map(_from_to, figures), str(stopped)])
    header = ["method", "networks", "operations ÷ loss", "÷ own loss", "as a tree ÷ loss", "seconds", "stopped"]
    return markdown(header, lines) + "\n" + recorded_machine("expression_swell", committed) + "\n"


def forecasts_kept(committed: bool = True) -> str:
    """How many intervals of forecasts held what the study of forecasts measured."""
    if not (rows := recorded_rows("forecast", committed)):
        return NOT_MEASURED
    (time, of_time), (memory, of_memory) = (forecasts.share_kept(rows, figure) for figure in forecasts.FIGURES)
    held = f"{time} of {of_time} intervals of time held, and {memory} of {of_memory} of memory"
    return f"Of networks that they were not fitted to, {held}; 19 of 20 are meant to.\n"


def operation_examples() -> dict[str, dl.MLP]:
    """The smallest network that has each operation."""
    two = dl.Dense(2)
    return {
        "affine": dl.MLP(2, [two]),
        "activation": dl.MLP(2, [dl.Dense(2, "swish"), two]),
        "add": dl.MLP(2, [dl.Residual([dl.Dense(2, "tanh")]), two]),
        "multiply": dl.MLP(2, [dl.Dense(4), dl.Multiply(2)]),
        "maxout": dl.MLP(2, [dl.Maxout(2), two]),
        "softmax": dl.MLP(2, [two, dl.Softmax(), two]),
        "batch_norm": dl.MLP(2, [two, dl.BatchNorm(), two]),
        "batch_norm_inference": dl.MLP(2, [two, dl.BatchNorm((0.5, 0.0), (1.0, 2.0)), two]),
        "dropout": dl.MLP(2, [two, dl.Dropout(0.5, seed=1), two]),
        "label_smoothing": dl.MLP(2, [two], label_smoothing=0.25),
        "loss": dl.MLP(2, [two], loss="mean_squared_error"),
        "penalty": dl.MLP(2, [two], l1=0.1, l2=0.2),
    }


SUPPORTED = {
    "Symbolic": dl.Symbolic(),
    "FiniteDifference real": dl.FiniteDifference(),
    "FiniteDifference complex": dl.FiniteDifference("complex"),
    "Backprop float64": dl.Backprop(),
    "Backprop float32": dl.Backprop("float32"),
    "Certified": dl.Certified(),
}


def support(net: dl.MLP, backend: dl.Backend) -> str:
    """What a back-end makes of three samples: ``yes`` if its gradient is as near to the truth as it says."""
    if reason := backend.unsupported(net):
        return reason
    prepared, rng = backend.prepare(net), np.random.default_rng(0)
    numbers = rng.normal(size=net.n_params), rng.normal(size=(3, 2)), rng.dirichlet((1, 1), size=3)
    arguments = [a.astype(prepared.dtypes[0]) for a in numbers]
    _, gradient = prepared.value_and_gradient(*arguments)
    truth = dl.reference_gradient(net, *arguments)
    error = np.abs(gradient - truth.gradient)
    kept = isinstance(backend, dl.Certified) or (error <= prepared.predicted_error(*arguments)).all()
    coupled = isinstance(backend, dl.Symbolic) and net.program.couples_samples
    return ("yes, a whole batch while small" if coupled else "yes") if kept else "wrong"


def support_table() -> str:
    rows = [[f"`{name}`", *(support(net, b) for b in SUPPORTED.values())] for name, net in operation_examples().items()]
    return markdown(["operation", *SUPPORTED], rows)


def activation_table() -> str:
    rows = []
    for row in ACTIVATIONS.values():
        learnable = ", learnable" if row.is_learnable else ""
        parameter = f"{row.parameter} = {row.start:g}{learnable}" if row.parameter else "—"
        kinks = ", ".join(f"{kink:g}" for kink in row.kinks) or "—"
        bounds = f"{row.value_ulp:g}, {row.derivative_ulp:g}"
        rows.append([f"`{row.name}`", parameter, kinks, bounds, row.source])
    return markdown(["activation", "parameter", "kinks", "ulp of value, slope", "source"], rows)


def loss_table() -> str:
    rows = []
    for row in LOSSES.values():
        low, high = row.targets
        targets = "any" if np.isinf(low) else f"{low:g} or more" if np.isinf(high) else f"{low:g} to {high:g}"
        classes = " or classes" if row.accepts_classes else ""
        rows.append(
            [f"`{row.name}`", "probabilities" if row.outputs == (0, 1) else "any", targets + classes, row.source]
        )
    return markdown(["loss", "outputs", "targets", "source"], rows)


def initialisation_table() -> str:
    rows = []
    for row in INITIALISATIONS.values():
        shape = "uniform" if row.is_uniform else "normal"
        rows.append([f"`{row.name}`", shape, f"{row.deviation(64, 32):.4g}", row.source])
    return markdown(["initialisation", "distribution", "deviation from 64 to 32", "source"], rows)


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def with_parts(text: str, parts: dict[str, str]) -> str:
    for name, content in parts.items():
        text = text.replace(f"<!-- {name} -->\n{part(text, name)}", f"<!-- {name} -->\n{content}")
    return text


if __name__ == "__main__":
    parts = {
        "example output": f"```text\n{example_output()}```\n",
        "headline table": headline_table(committed=False),
        "agreement table": agreement_table(committed=False),
        "certified table": certified_table(committed=False),
        "peers table": peers_table(committed=False),
        "aims table": aims_table(committed=False),
        "other aims table": other_aims_table(committed=False),
        "swell table": swell_table(committed=False),
        "forecasts kept": forecasts_kept(committed=False),
        "support table": support_table(),
        "activation table": activation_table(),
        "loss table": loss_table(),
        "initialisation table": initialisation_table(),
    }
    README.write_text(with_parts(README.read_text(), parts))
