"""Contest: a method against compiled backprop of the same dtype and threads, each in a process of its own.

Both gradients are held against the certified one before anything is timed. Where the whole batch is too much to
certify, the first samples are, and at the whole batch both methods have to agree to half of the digits.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from difflab.backends import Backend, Backprop
from difflab.discrepancy import relative_in_norm
from difflab.enclosures.rounding import rounding_errors
from difflab.peers import Whole
from difflab.reference import Reference
from difflab.study import referee
from difflab.study.cells import Cell, cast, problem, resolved
from difflab.study.comparison import compared
from difflab.study.declaration import build_backend
from difflab.study.measures.accuracy import disagreement, half_of_the_digits, reference_status
from difflab.study.referee import Entry, Failed, Gradients, Ground, Record
from difflab.study.timing import MOST_WAITED, summary


BUDGET_SECONDS = 1.0
SHARE_OF_LIMIT = 0.9
"""Of the limit of a cell, after which the contest itself says who did not answer."""
METHOD, BACKPROP = "method", "backprop"


class Wrong(ValueError):
    """A gradient that is not what it has to be."""


@dataclass(frozen=True)
class Judge:
    """Whether gradients are right.

    Attributes
    ----------
    reference : what is certified.
    dtype : of the arithmetic of both contenders.
    """

    reference: Reference
    dtype: str

    def __call__(self, own: Gradients, certified: Gradients) -> None:
        """Raise ``Wrong`` unless all is well."""
        for name, gradient in certified.items():
            error, allowed = self.error(gradient), self.allowed(name)
            if not error <= allowed:
                raise Wrong(f"{name}: relative error {error:.2g} against the certified gradient, at most {allowed:.2g}")
        if own is not certified:
            self._agree(own)

    def error(self, gradient: np.ndarray) -> float:
        """Relative in norm."""
        return relative_in_norm(gradient - self.reference.gradient, self.reference.gradient)

    def allowed(self, name: str) -> float:
        """By rounding, and half of the digits in any case."""
        r = self.reference
        bound = rounding_errors(r.net, r.theta, r.x, r.y, self.dtype, textbook=name != BACKPROP).gradient
        predicted = relative_in_norm(np.where(np.isnan(bound), np.inf, bound), r.gradient)
        return min(predicted, half_of_the_digits(np.empty(0, self.dtype)))

    def _agree(self, own: Gradients) -> None:
        distance = disagreement(own[METHOD], own[BACKPROP])
        if distance is not None:
            allowed = half_of_the_digits(own[BACKPROP])
            raise Wrong(f"{METHOD}: at the whole batch {distance:.2g} from {BACKPROP}, at most {allowed:.2g}")


def run(cell: Cell, reference: Reference, command: tuple[str, ...] = referee.COMMAND) -> dict[str, Any]:
    """The row of a cell; ``command`` runs the method's process."""
    backend = build_backend(cell.backend)
    if reason := unfit(backend) or backend.unsupported(reference.net) or backend.refusal(reference.net):
        return {"status": "refused", "reason": reason}
    dtype, threads = getattr(backend, "dtype", "float64"), getattr(backend, "threads", 1)
    is_whole = len(reference.x) == cell.task.batch
    own, certified = cast(problem(cell.task)[1:], dtype), cast((reference.theta, reference.x, reference.y), dtype)
    entries = Entry(METHOD, cell.backend, command), Entry(BACKPROP, rival(backend))
    row = {"dtype": dtype, "threads": threads, "verified_by": _verified_by(reference, cell.task.batch)}
    judge = Judge(reference, dtype)
    try:
        records = referee.hold(
            entries,
            Ground(cell.task.network, own, None if is_whole else certified, threads),
            judge,
            drawn_for(cell),
            BUDGET_SECONDS,
            SHARE_OF_LIMIT * cell.limit_seconds,
        )
    except Wrong as error:
        return row | {"status": "wrong", "reason": str(error)}
    except Failed as error:
        return row | {"status": error.status, "reason": f"{error.who}: {error.reason}"}
    return row | {"status": reference_status(reference)} | columns(records)


def drawn_for(cell: Cell) -> np.random.Generator:
    """Random numbers of this cell alone, from its seed: else every cell would have the same order."""
    declaration = hashlib.sha256(msgspec.json.encode(cell, order="deterministic")).digest()
    return np.random.default_rng([cell.task.seed, *declaration])


def unfit(backend: Backend) -> str | None:
    """Why a back-end cannot take part here, or None."""
    if not isinstance(backend, Backprop | Whole):
        return "only back-ends that differentiate by all parameters at once take part in a contest"
    threads, there = getattr(backend, "threads", 1), len(os.sched_getaffinity(0))
    return f"needs a core for each of {threads} threads, got {there}" if threads > there else None


def columns(records: dict[str, Record]) -> dict[str, Any]:
    """What a contest says of the method, beside backprop."""
    method, backprop = records[METHOD], records[BACKPROP]
    found = compared(method.seconds("gradient"), backprop.seconds("gradient"))
    waited = max(record.share("waited") for record in records.values())
    timings = {
        "gradient": summary(method.seconds("gradient")),
        "primal": summary(method.seconds("primal")),
        "backprop": summary(backprop.seconds("gradient")),
        "backprop_primal": summary(backprop.seconds("primal")),
    }
    return {
        **{f"{name}_seconds": timing.seconds for name, timing in timings.items()},
        **{f"{name}_spread": timing.spread for name, timing in timings.items()},
        "ratio": found.ratio,
        "ratio_low": found.low,
        "ratio_high": found.high,
        "rounds": len(method.turns),
        "cpu_share": method.share("cpu"),
        "waited_share": waited,
        "contended": waited > MOST_WAITED,
        **{name: value for name, value in method.figures.items() if value is not None},
        **{f"backprop_{name}": backprop.figures[name] for name in ("first_call_seconds", "peak_bytes", "blas")},
    }


def rival(backend: Backend) -> dict[str, Any]:
    """The declaration of backprop with the same arithmetic and threads as a back-end."""
    options = {name: getattr(backend, name) for name in ("dtype", "threads") if hasattr(backend, name)}
    return resolved({"name": "backprop"} | {name: value for name, value in options.items() if value != 1})


def _verified_by(reference: Reference, batch: int) -> str:
    if len(reference.x) == batch:
        return "certified"
    return f"certified at batch {len(reference.x)}, agreement with Backprop at batch {batch}"
