"""Speed: seconds of a gradient beside its own primal and beside yardsticks, taking turns."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np

from difflab.backends import Backprop, Certified, Prepared, Symbolic
from difflab.backends.backprop import PreparedBackprop, no_second_derivative
from difflab.peers import Handwritten, calls, handwritten
from difflab.study import accounts
from difflab.study.measures.subject import Subject
from difflab.study.timing import MOST_WAITED, contest


Arguments = tuple[np.ndarray, np.ndarray, np.ndarray]

BUDGET_SECONDS = 0.7
CONTENDED_BELOW = 0.9
"""Share of wall time below which the machine was busy with something else."""


def measure(subject: Subject) -> dict[str, Any]:
    """Columns of time; a method's own calls have the threads that it is declared with, and BLAS in yardsticks too."""
    prepared, arguments = subject.prepared, (subject.theta, subject.x, subject.y)
    contenders: dict[str, Callable[[], object]] = {
        **calls(prepared, *arguments),
        **second_order(prepared, arguments, subject.seed),
    }
    waited, started = accounts.waited_seconds(), perf_counter()
    found = contest(contenders | _yardsticks(subject), np.random.default_rng(subject.seed), BUDGET_SECONDS)
    waited_share = max(0.0, accounts.waited_seconds() - waited) / (perf_counter() - started)
    is_contended = found.cpu_share < CONTENDED_BELOW or waited_share > MOST_WAITED
    columns: dict[str, Any] = {"cpu_share": found.cpu_share, "waited_share": waited_share, "contended": is_contended}
    for name, timing in found.timings.items():
        columns[f"{name}_seconds"] = timing.seconds
        columns[f"{name}_spread"] = timing.spread
    return columns


def second_order(prepared: Prepared, arguments: Arguments, seed: int) -> dict[str, Callable[[], object]]:
    """A Hessian-vector product of compiled backprop, where the network has one, and a gradient that is called as it is.

    Both look at their arguments and make the array that they return.
    """
    if not isinstance(prepared, PreparedBackprop) or no_second_derivative(prepared.net):
        return {}
    theta, _, _ = arguments
    along = np.random.default_rng(seed).standard_normal(len(theta)).astype(theta.dtype)
    try:
        prepared.hvp(*arguments, along)
    except FloatingPointError:
        return {}
    return {
        "hvp": lambda: prepared.hvp(*arguments, along),
        "called_gradient": lambda: prepared.value_and_gradient(*arguments),
    }


def _yardsticks(subject: Subject) -> dict[str, Callable[[], object]]:
    """NumPy by hand where it is written, backprop beside what is certified or derived; all on the same numbers."""
    net, arguments = subject.prepared.net, (subject.theta, subject.x, subject.y)
    found: dict[str, Callable[[], object]] = {}
    if Handwritten().unsupported(net) is None:
        found["handwritten"] = lambda: handwritten.backprop(net, *arguments)
    if takes_backprop(subject.prepared.backend):
        backprop, out = Backprop().prepare(net), np.empty_like(subject.gradient)
        found["backprop"] = lambda: backprop.value_and_gradient(*arguments, out=out)
    return found


def takes_backprop(backend: object) -> bool:
    """Whether compiled backprop takes turns: with what is certified, and with what has to pay off beside it."""
    return isinstance(backend, Certified | Symbolic)
