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

from difflab import datasets
from difflab import reference as references
from difflab.errors import means_out_of_memory
from difflab.network_files import TERMS, Network, as_table
from difflab.study import provenance
from difflab.study.cells import Cell, cells, certified_task, key, label, resolved
from difflab.study.declaration import PLACE, Study, build_backend
from difflab.study.measures import contest, speed, swell
from difflab.study.store import Store
from difflab.study.worker import OF_TASKS, Request


PREPARATION_LIMITS = 900.0, 16_000_000_000
"""Seconds and bytes for certifying a task or compiling kernels, whatever limits the study sets for its cells."""

Row = dict[str, Any]
Listener = Callable[[str, int, int, Row | None], None]
"""Called with a label, how many cells are done of how many, and the row if one has just been finished."""


class Busy(RuntimeError):
    """Another process is running the same study in the same place."""


def run(study: Study, directory: Path, listen: Listener = lambda *_: None, again: bool = False) -> list[Row]:
    """Run every cell that has no row yet, or every cell.

    A cell whose preparation failed, because no reference could be made or no kernel compiled, gets a row in the answer
    but none in the store: it is tried again next time.

    Parameters
    ----------
    study : the declaration
    directory : where store and references lie; made if need be
    listen : told before and after every cell
    again : replace the rows there are, each when its new one has arrived

    Returns
    -------
    rows of all cells in the order of the declaration

    Raises
    ------
    MissingExtra
        If the data cannot be loaded here.
    Busy
        If another process is running it.
    KeyboardInterrupt
        After the running cell has been stopped; finished rows are in the store.
    """
    datasets.require()
    store = Store(directory / "store.sqlite")
    grid = cells(study)
    with _alone(directory), _own_cache() as cache:
        workers = _Workers(directory, cache, provenance.commit())
        finished = {} if again else store.rows()
        for cell in grid:
            if key(cell) in finished:
                continue
            done = sum(key(other) in finished for other in grid)
            listen(label(cell), done, len(grid), None)
            finished[key(cell)] = row = workers.run(cell)
            if not row.pop("unprepared", False):
                environment = workers.environment
                store.add(key(cell), msgspec.to_builtins(cell), row, (provenance.identity(environment), environment))
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


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    with (directory / "store.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Busy(f"{directory} must be run by one process at a time, got a second; wait for the first") from error
        yield


@contextmanager
def _own_cache() -> Iterator[str]:
    """Where code that is compiled in one run is kept, and what its workers write for a while.

    A folder of its own makes the first back-end that needs a kernel compile it, so that the time is measured in every
    run and never depends on what ran before.
    """
    with tempfile.TemporaryDirectory(prefix="difflab-") as folder:
        yield folder


@dataclass
class _Workers:
    """Processes for one run, which share references and a cache of kernels.

    ``environment`` is that of the last worker that could report its own.
    """

    directory: Path
    cache: str
    commit: str
    compile_rows: dict[str, Row] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)

    def run(self, cell: Cell) -> Row:
        """The row of a cell; ``unprepared`` in it says that the cell itself has not been run."""
        path = self.directory / "references" / f"{key(certified_task(cell))}.npz"
        row = self._failure_to_prepare(cell, path)
        if row is None:
            row = self._ask(Request(os.getpid(), cell.limit_bytes, str(path), cell=cell), cell.limit_seconds)
        return _names(cell) | row | self.compile_rows.get(_compilation(cell.backend, cell), {})

    def _caches(self) -> dict[str, str]:
        """Where code that is compiled in this run is kept, by the lab and by PyTorch."""
        return {"XDG_CACHE_HOME": self.cache, "TORCHINDUCTOR_CACHE_DIR": f"{self.cache}/torch"}

    def _failure_to_prepare(self, cell: Cell, path: Path) -> Row | None:
        """Compile kernels, certify the task and make what its methods share, where that is still to do."""
        seconds, limit_bytes = PREPARATION_LIMITS
        for backend in _compiled_for(cell):
            if (compiled := _compilation(backend, cell)) not in self.compile_rows:
                measure = "speed" if "speed" in cell.measures else ""
                request = Request(os.getpid(), limit_bytes, task=cell.task, measure=measure, backend=backend)
                row = self._ask(request, seconds)
                if row.pop("status") != "ok":
                    return {"status": "crashed", "reason": f"no kernels: {row['reason']}", "unprepared": True}
                self.compile_rows[compiled] = row
        for what, measure in _parts_to_make(cell, path):
            row = self._ask(Request(os.getpid(), limit_bytes, str(path), certified_task(cell), measure), seconds)
            if row["status"] != "ok":
                return {"status": "undecided", "reason": f"no {what}: {row['reason']}", "unprepared": True}
        return None

    def _ask(self, request: Request, limit_seconds: float) -> Row:
        """Have a fresh process answer a request; beyond the limit it is killed with all its children and files."""
        with tempfile.TemporaryDirectory(dir=self.cache, ignore_cleanup_errors=True) as folder:
            process = subprocess.Popen(
                [sys.executable, "-m", "difflab.study.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=provenance.worker_environment(_threads(request)) | AT_REST | self._caches() | {"TMPDIR": folder},
                start_new_session=True,
            )
            try:
                output, errors = process.communicate(msgspec.json.encode(request), timeout=limit_seconds)
            except subprocess.TimeoutExpired:
                _kill(process)
                return {"status": "timeout", "reason": f"more than {limit_seconds:g} s"}
            except BaseException:
                _kill(process)
                raise
        try:
            answer = json.loads(output)
            self.environment = answer["environment"] | {"commit": self.commit}
            return answer["row"]
        except (ValueError, KeyError):
            words = _last_words(process.returncode, errors)
            return {"status": "memory" if means_out_of_memory(words) else "crashed", "reason": words}


AT_REST = {"OPENBLAS_THREAD_TIMEOUT": "4", "KMP_BLOCKTIME": "0"}
"""Threads of OpenBLAS spin for some 20 ms after every product, and those of MKL for 200, on the cores of whoever's turn
it is next in a process; so they wait for 2**4 cycles alone, or not at all."""


def _threads(request: Request) -> int:
    """Of the back-end that is asked for; certifying takes one."""
    declared = request.backend or (request.cell.backend if request.cell else {})
    return declared.get("threads", 1)


def _compilation(backend: dict[str, Any], cell: Cell) -> str:
    """What is compiled once: a back-end for a task."""
    return f"{backend!r} {key(cell.task)}"


def _compiled_for(cell: Cell) -> list[dict[str, Any]]:
    """Declarations of the back-ends whose kernels a cell runs: its own, and backprop where it is held against that."""
    own = build_backend(cell.backend)
    if own.unsupported(cell.task.network.build()):
        return []
    if "contest" in cell.measures:
        return [contest.rival(own)] if contest.unfit(own) is None else []
    takes_backprop = "agreement" in cell.measures or ("speed" in cell.measures and speed.takes_backprop(own))
    return [cell.backend] * own.keeps_code + [resolved({"name": "backprop"})] * takes_backprop


def _parts_to_make(cell: Cell, path: Path) -> Iterator[tuple[str, str]]:
    """What a task lacks, in words, and the measure it is for; the reference comes first, and is for all."""
    is_there = _is_reference(path)
    if not is_there:
        yield "reference", ""
    for name, measure in OF_TASKS.items():
        if name in cell.measures and not (is_there and measure.path(path).exists()):
            yield f"figures for {name}", name


def _is_reference(path: Path) -> bool:
    """Whether the file is there and whole; a damaged one is made anew."""
    try:
        references.read(path)
    except (FileNotFoundError, references.InvalidReference):
        return False
    return True


def _names(cell: Cell) -> Row:
    """What is known of a cell before it runs."""
    network, backend = cell.task.network, build_backend(cell.backend)
    net = network.build()
    names = {
        "network": net.label,
        "parameters": net.n_params,
        "hidden": network.hidden,
        "output": network.output,
        "layers": _layers_as_text(network),
        **{term: getattr(network, term) for term in (*TERMS, "init", "data", *PLACE)},
        "batch": cell.task.batch,
        "own_batch": network.batch,
        "seed": cell.task.seed,
        "method": repr(backend),
    }
    of_network = swell.of_network(net) if "swell" in cell.measures else {}
    ahead = backend.forecast(net, cell.task.batch) if {"swell", "forecast"} & set(cell.measures) else {}
    if "forecast" in cell.measures:
        ahead |= {"limit_seconds": cell.limit_seconds, "limit_bytes": cell.limit_bytes}
    return names | of_network | ahead


def _layers_as_text(network: Network) -> str | None:
    """What is declared in full is recorded in full: labels of networks leave out much that differs."""
    if network.layers is None:
        return None
    return json.dumps(as_table(network.build())["layers"])


def _kill(process: subprocess.Popen) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _last_words(returncode: int, errors: bytes) -> str:
    if returncode < 0:
        return f"killed by signal {signal.Signals(-returncode).name}"
    lines = errors.decode(errors="replace").strip().splitlines()
    return f"exit code {returncode}: {lines[-1] if lines else 'no output'}"
