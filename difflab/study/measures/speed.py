"""Speed: seconds of a gradient beside its own primal and beside hand-written NumPy, taking turns."""

from __future__ import annotations

from typing import Any

import numpy as np

from difflab.study import handwritten
from difflab.study.measures.subject import Subject
from difflab.study.timing import contest


BUDGET_SECONDS = 0.7
CONTENDED_BELOW = 0.9
"""Share of wall time below which the machine was busy with something else."""


def measure(subject: Subject) -> dict[str, Any]:
    """Columns of time; every contender is single-threaded in this process."""
    prepared, arguments = subject.prepared, (subject.theta, subject.x, subject.y)
    out = np.empty_like(subject.gradient)
    contenders = {
        "gradient": lambda: prepared.value_and_gradient(*arguments, out=out),
        "primal": lambda: prepared.value(*arguments),
    }
    if handwritten.applies(prepared.net):
        contenders["handwritten"] = lambda: handwritten.backprop(prepared.net, *arguments)
    found = contest(contenders, np.random.default_rng(subject.seed), BUDGET_SECONDS)
    columns: dict[str, Any] = {"cpu_share": found.cpu_share, "contended": found.cpu_share < CONTENDED_BELOW}
    for name, timing in found.timings.items():
        columns[f"{name}_seconds"] = timing.seconds
        columns[f"{name}_spread"] = timing.spread
    return columns
