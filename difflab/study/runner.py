"""Running cells: one process each, under limits, in order; finished ones are never run again."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from difflab.study import provenance
from difflab.study.cells import Cell, cells, key, label
from difflab.study.declaration import Study, build_backend
from difflab.study.store import Store
from difflab.study.worker import Request


PREPARATION_LIMITS = 900.0, 16_000_000_000
"""Seconds and bytes for certifying a task or compiling kernels, whatever limits the study sets for its cells."""

Row = dict[str, Any]
Listener = Callable[[str, int, int, Row | None], None]
"""Called with a label, how many cells are done of how many, and the row if one has just been finished."""


class Busy(RuntimeError):
    """Another process is running the same study in the same place."""


def run(study: Study, directory: Path, listen: Listener = lambda *_: None) -> list[Row]:
    """Run every cell that has no row yet.

    Parameters
    ----------
    study : the declaration
    directory : where store and references lie; made if need be
    listen : told before and after every cell

    Returns
    -------
    rows of all cells in the order of the declaration

    Raises
    ------
    Busy
        If another process is running it.
    KeyboardInterrupt
        After the running cell has been stopped; finished rows are in the store.
    """
    store = Store(directory / "store.sqlite")
    grid = cells(study)
    with _alone(directory), tempfile.TemporaryDirectory(prefix="difflab-") as cache:
        workers = _Workers(directory, cache, provenance.commit())
        finished = store.rows()
        for cell in grid:
            if key(cell) in finished:
                continue
            done = sum(key(other) in finished for other in grid)
            listen(label(cell), done, len(grid), None)
            row, environment = workers.run(cell)
            store.add(key(cell), msgspec.to_builtins(cell), row, (provenance.identity(environment), environment))
            finished[key(cell)] = row
            listen(label(cell), done + 1, len(grid), row)
    return [finished[key(cell)] for cell in grid]


def finished_rows(study: Study, directory: Path) -> list[Row]:
    """The rows of the cells that are finished, in the order of the declaration."""
    path = directory / "store.sqlite"
    rows = Store(path).rows() if path.exists() else {}
    return [rows[key(cell)] for cell in cells(study) if key(cell) in rows]


def environments(study: Study, directory: Path) -> list[dict[str, Any]]:
    """The distinct environments in which the finished cells were measured."""
    return Store(directory / "store.sqlite").environments([key(cell) for cell in cells(study)])


def forget(study: Study, directory: Path) -> None:
    """Drop the rows of this study's cells, so that they are measured again."""
    Store(directory / "store.sqlite").forget([key(cell) for cell in cells(study)])


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    with (directory / "store.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Busy(f"{directory} must be run by one process at a time, got a second; wait for the first") from error
        yield


@dataclass
class _Workers:
    """Processes for one run, which share references and a kernel cache of their own.

    A cache of their own makes the first back-end that needs a kernel compile it, so that the time is measured in every
    run and never depends on what ran before.
    """

    directory: Path
    cache: str
    commit: str
    compile_rows: dict[str, Row] = field(default_factory=dict)

    def run(self, cell: Cell) -> tuple[Row, dict[str, Any]]:
        """The row of a cell and the environment it was measured in."""
        path = self.directory / "references" / f"{key(cell.task)}.npz"
        row, environment = self._prepared(cell, path) or self._ask(
            Request(cell.limit_bytes, str(path), cell=cell), cell.limit_seconds
        )
        row = _names(cell) | row | self.compile_rows.get(repr(cell.backend), {})
        return row, environment | {"commit": self.commit}

    def _prepared(self, cell: Cell, path: Path) -> tuple[Row, dict[str, Any]] | None:
        """Compile kernels and certify the task where that is still to do; an answer only if it fails."""
        if build_backend(cell.backend).compiles_once and repr(cell.backend) not in self.compile_rows:
            row, environment = self._ask(Request(PREPARATION_LIMITS[1], backend=cell.backend), PREPARATION_LIMITS[0])
            if row.pop("status") != "ok":
                return {"status": "crashed", "reason": f"no kernels: {row['reason']}"}, environment
            self.compile_rows[repr(cell.backend)] = row
        if not path.exists():
            row, environment = self._ask(Request(PREPARATION_LIMITS[1], str(path), cell.task), PREPARATION_LIMITS[0])
            if row["status"] != "ok":
                return {"status": "undecided", "reason": f"no reference: {row['reason']}"}, environment
        return None

    def _ask(self, request: Request, limit_seconds: float) -> tuple[Row, dict[str, Any]]:
        """Have a fresh process answer a request; it is killed with all its children beyond the limit."""
        process = subprocess.Popen(
            [sys.executable, "-m", "difflab.study.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=provenance.worker_environment() | {"XDG_CACHE_HOME": self.cache},
            start_new_session=True,
        )
        try:
            output, errors = process.communicate(msgspec.json.encode(request), timeout=limit_seconds)
        except subprocess.TimeoutExpired:
            _kill(process)
            return {"status": "timeout", "reason": f"more than {limit_seconds:g} s"}, provenance.environment()
        except BaseException:
            _kill(process)
            raise
        try:
            answer = json.loads(output)
            return answer["row"], answer["environment"]
        except (ValueError, KeyError):
            return {"status": "crashed", "reason": _last_words(process.returncode, errors)}, provenance.environment()


def _names(cell: Cell) -> Row:
    """What a row says even if its worker could not answer."""
    net = cell.task.network.build()
    return {
        "network": "-".join(map(str, net.widths)),
        "parameters": net.n_params,
        "hidden": cell.task.network.hidden,
        "loss": net.loss,
        "data": cell.task.network.data,
        "batch": cell.task.batch,
        "seed": cell.task.seed,
        "method": repr(build_backend(cell.backend)),
    }


def _kill(process: subprocess.Popen) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _last_words(returncode: int, errors: bytes) -> str:
    if returncode < 0:
        return f"killed by signal {signal.Signals(-returncode).name}"
    lines = errors.decode(errors="replace").strip().splitlines()
    return f"exit code {returncode}: {lines[-1] if lines else 'no output'}"
