"""The process that runs one cell under its limits: a request on standard input, one JSON answer on standard output."""

from __future__ import annotations

import dataclasses
import json
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np

from difflab import reference as references
from difflab.backends import Backend, Refused
from difflab.child import answers, end_with
from difflab.derivation import forecasting
from difflab.errors import LimitExceeded, Undecided, means_out_of_memory
from difflab.memory import peak_bytes
from difflab.network import MLP
from difflab.peers import Handwritten, calls, handwritten
from difflab.reference import Reference
from difflab.study import provenance
from difflab.study.cells import OF_TIME, Cell, Task, cast, problem
from difflab.study.declaration import build_backend
from difflab.study.measures import (
    accuracy,
    agreement,
    certificate,
    condition,
    contest,
    derivation,
    error_estimates,
    roofline,
    speed,
    swell,
)
from difflab.study.measures.subject import Subject


OF_TASKS: dict[str, ModuleType] = {"condition": condition, "agreement": agreement}
"""Measures with a part that is the same for all methods of a task, kept in a file beside its reference."""

TINY = MLP.dense([1, 2])
"""A network whose derivatives cost nothing, to load libraries and kernels by."""


class Request(msgspec.Struct, frozen=True):
    """What to do: make the reference of ``task`` at ``path``, or run ``cell`` against it.

    With a ``backend``, compile what it needs for ``task`` and ``measure``; with a ``measure`` alone, make what all
    methods of ``task`` share for it. ``runner`` is the process that asks, without which the answer is of no use.
    """

    runner: int
    limit_bytes: int
    path: str = ""
    task: Task | None = None
    measure: str = ""
    cell: Cell | None = None
    backend: dict[str, Any] | None = None


def make_reference(task: Task, path: Path) -> dict[str, Any]:
    """Certify the gradient of a task and write it with its problem."""
    references.write(references.reference_gradient(*problem(task)), path)
    return {"status": "ok"}


def make_part(measure: str, task: Task, path: Path) -> dict[str, Any]:
    """Make what all methods of a task share for a measure, from the reference at ``path``."""
    OF_TASKS[measure].prepare(references.read(path), task.seed, OF_TASKS[measure].path(path))
    return {"status": "ok"}


def compile_kernels(backend: dict[str, Any], task: Task, measure: str = "") -> dict[str, Any]:
    """Have the back-end compile what it keeps on disk, as far as a measure of a task needs it."""
    chosen = build_backend(backend)
    seconds = _load(chosen)
    net, *arguments = problem(task)
    started = time.perf_counter()
    prepared = chosen.prepare(net)
    theta, x, y = cast(tuple(arguments), prepared.dtypes[0])
    prepared.value(theta, x, y, allow_nonfinite=True)
    prepared.value_and_gradient(theta, x, y, allow_nonfinite=True)
    with suppress(FloatingPointError):
        calls(prepared, theta, x, y)
        if measure == "speed":
            speed.second_order(prepared, (theta, x, y), task.seed)
    return {"status": "ok", "kernel_compile_seconds": seconds + time.perf_counter() - started}


def run_cell(cell: Cell, path: Path) -> dict[str, Any]:
    """The columns of a cell that take running it."""
    backend, reference = build_backend(cell.backend), references.read(path)
    if "contest" in cell.measures:
        return contest.run(cell, reference)
    if reason := backend.unsupported(reference.net) or backend.refusal(reference.net):
        return {"status": "refused", "reason": reason}
    if "forecast" not in cell.measures:
        ahead = backend.forecast(reference.net, cell.task.batch)
        if reason := forecasting.beyond(ahead, cell.limit_seconds, cell.limit_bytes):
            return {"status": "refused", "reason": reason}
    row: dict[str, Any] = {"load_seconds": _load(backend), "loaded_bytes": peak_bytes()}
    subject = _subject(cell, backend, reference, row)
    row |= {"peak_bytes": peak_bytes(), "primal_calls": subject.prepared.facts["primal_calls"]}
    row |= _judged(cell, subject)
    subject = _whole(cell, subject, row)
    for name, measure in MEASURES.items():
        if name in cell.measures and not (name in OF_TIME and row["status"] not in ("ok", "kink")):
            row |= measure(subject, path)
    return row


MEASURES: dict[str, Callable[[Subject, Path], dict[str, Any]]] = {
    "error_estimates": lambda subject, path: error_estimates.measure(subject),
    "condition": lambda subject, path: condition.measure(condition.path(path)),
    "agreement": lambda subject, path: agreement.measure(subject, agreement.path(path)),
    "swell": lambda subject, path: swell.measure(subject),
    "derivation": lambda subject, path: derivation.measure(subject),
    "speed": lambda subject, path: speed.measure(subject),
    "roofline": lambda subject, path: roofline.measure(subject),
    "certificate": lambda subject, path: certificate.measure(subject),
}
"""Columns of each measure beside accuracy, from the subject and where its reference lies."""


def _judged(cell: Cell, subject: Subject) -> dict[str, Any]:
    """The status, with the figures it comes from.

    A study of nothing but error estimates counts errors beyond them: there, that is no verdict on a row.
    """
    if cell.measures == ["error_estimates"]:
        return {"status": accuracy.reference_status(subject.reference)}
    return accuracy.measure(subject)


def _load(backend: Backend) -> float:
    """Seconds until the back-end has differentiated a tiny network: libraries imported, kernels at hand."""
    started = time.perf_counter()
    prepared = backend.prepare(TINY)
    theta, x, y = (np.zeros(shape, prepared.dtypes[0]) for shape in ((4,), (1, 1), (1, 2)))
    prepared.value_and_gradient(theta, x, y, allow_nonfinite=True)
    return time.perf_counter() - started


def _subject(cell: Cell, backend: Backend, reference: Reference, row: dict[str, Any]) -> Subject:
    """Prepare and evaluate once, noting both times in the row."""
    started = time.perf_counter()
    prepared = backend.prepare(reference.net)
    row["prepare_seconds"] = time.perf_counter() - started
    theta, x, y = cast((reference.theta, reference.x, reference.y), prepared.dtypes[0])
    started = time.perf_counter()
    value, gradient = prepared.value_and_gradient(theta, x, y, allow_nonfinite=True)
    row["first_call_seconds"] = time.perf_counter() - started
    return Subject(prepared, reference, theta, x, y, value, gradient, cell.task.seed)


def _whole(cell: Cell, subject: Subject, row: dict[str, Any]) -> Subject:
    """The subject at the whole batch of its cell, where only the first samples of that were certified.

    There it has to agree with what is written by hand, if it is, to half of the digits.
    """
    few, batch = len(subject.x), cell.task.batch
    if few == batch:
        return subject
    theta, x, y = cast(problem(cell.task)[1:], subject.prepared.dtypes[0])
    value, gradient = subject.prepared.value_and_gradient(theta, x, y, allow_nonfinite=True)
    row["verified_by"] = f"certified at batch {few}"
    if Handwritten().unsupported(subject.prepared.net) is None:
        row["verified_by"] += f", agreement with Handwritten at batch {batch}"
        distance = accuracy.disagreement(gradient, handwritten.backprop(subject.prepared.net, theta, x, y)[1])
        if distance is not None:
            row |= {"status": "wrong", "reason": f"at batch {batch} {distance:.2g} from what is written by hand"}
    return dataclasses.replace(subject, theta=theta, x=x, y=y, value=value, gradient=gradient)


def answer(request: Request) -> dict[str, Any]:
    """Do what is asked; whatever goes wrong becomes a status."""
    try:
        row = _row(request, Path(request.path))
    except Refused as error:
        row = {"status": "refused", "reason": error.reason}
    except LimitExceeded as error:
        row = {"status": error.status, "reason": str(error)}
    except Undecided as error:
        row = {"status": "undecided", "reason": str(error)}
    except Exception as error:
        row = {"status": "crashed", "reason": f"{type(error).__name__}: {error}"}
        if _is_of_memory(error):
            row = {"status": "memory", "reason": f"more than {request.limit_bytes:.3g} bytes"}
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    return {"row": row, "environment": provenance.environment()}


def _is_of_memory(error: BaseException | None) -> bool:
    """Whether memory is what an error comes from: libraries say that others are missing when these had no room."""
    if error is None or isinstance(error, MemoryError):
        return error is not None
    return means_out_of_memory(str(error)) or _is_of_memory(error.__cause__ or error.__context__)


def _row(request: Request, path: Path) -> dict[str, Any]:
    if request.task and request.backend:
        return compile_kernels(request.backend, request.task, request.measure)
    if request.task and request.measure:
        return make_part(request.measure, request.task, path)
    if request.task:
        return make_reference(request.task, path)
    assert request.cell
    return run_cell(request.cell, path)


def main() -> None:
    """Answer the one request on standard input; prints of other code go to standard error."""
    channel = answers()
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    end_with(request.runner)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = request.limit_bytes if hard == resource.RLIM_INFINITY else min(request.limit_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    json.dump(answer(request), channel)
    channel.flush()


if __name__ == "__main__":
    main()
