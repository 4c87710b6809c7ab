"""A contest: contenders in processes of their own take turns in random order, and only the one whose turn it is runs.

The others are stopped, so that no pool of threads spins on the cores of the one that is timed.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np

from difflab import child
from difflab.study.contender import Assignment
from difflab.study.declaration import PlacedNetwork
from difflab.study.provenance import worker_environment
from difflab.study.timing import MAX_ROUNDS


COMMAND = (sys.executable, "-m", "difflab.study.contender")
MIN_ROUNDS = 21
"""The interval of a ratio then leaves out the four least and the four largest; with 8 it is all of them, and with fewer
it has no bounds."""
Problem = tuple[np.ndarray, np.ndarray, np.ndarray]
Gradients = dict[str, np.ndarray]


class Failed(RuntimeError):
    """A contender that gave no answer; ``status`` is one of a row."""

    def __init__(self, who: str, status: str, reason: str) -> None:
        self.who, self.status, self.reason = who, status, reason
        super().__init__(f"{who}: {status}, {reason}")


@dataclass(frozen=True)
class Entry:
    """Who takes part: a name, the declaration of a back-end, and the command that runs it."""

    name: str
    backend: dict[str, Any]
    command: Sequence[str] = COMMAND


@dataclass(frozen=True)
class Ground:
    """What all contenders of a contest have in common.

    Attributes
    ----------
    network : what is differentiated.
    own : theta, x and y of the whole batch, in the dtype of all contenders.
    certified : the same of fewer samples where the gradient is certified there, else None.
    threads : of every contender; it is bound to as many cores.
    """

    network: PlacedNetwork
    own: Problem
    certified: Problem | None = None
    threads: int = 1


@dataclass
class Record:
    """What a contender left behind: seconds of every round by kind of call, and figures of the process."""

    figures: dict[str, Any]
    turns: list[dict[str, float]] = field(default_factory=list)

    def seconds(self, kind: str) -> list[float]:
        """Of one call, round by round."""
        return [turn[kind] for turn in self.turns]

    def share(self, what: str) -> float:
        """Of ``"cpu"`` or ``"waited"``, per second of its turns."""
        return sum(self.seconds(what)) / sum(self.seconds("wall"))


def hold(
    entries: Sequence[Entry],
    ground: Ground,
    judge: Callable[[Gradients, Gradients], None],
    rng: np.random.Generator,
    budget_seconds: float,
    limit_seconds: float,
) -> dict[str, Record]:
    """Hold a contest.

    Parameters
    ----------
    judge : gets the gradients of all contenders of the whole batch, and those where it is certified, before anything
        is timed; raises if one is wrong
    rng : decides the order in which contenders are started, and that of every round
    budget_seconds : rounds stop being added beyond it, though there are ``MIN_ROUNDS`` at least
    limit_seconds : for everything

    Raises
    ------
    Failed
        If a contender crashes, or the limit is reached.
    """
    deadline = time.monotonic() + limit_seconds
    in_turn = [entries[i] for i in rng.permutation(len(entries))]
    with tempfile.TemporaryDirectory(prefix="difflab-") as folder, _processes(in_turn, ground, Path(folder)) as runners:
        for runner in runners.values():
            runner.deadline = deadline
        records = {name: Record(runner.ask("differentiate", f"{name} own")) for name, runner in runners.items()}
        if ground.certified is not None:
            for name, runner in runners.items():
                runner.ask("certify", f"{name} certified")
        own = _gradients(runners, Path(folder), "own")
        judge(own, own if ground.certified is None else _gradients(runners, Path(folder), "certified"))
        cost = sum(runner.ask("calibrate")["turn_seconds"] for runner in runners.values())
        rounds = min(MAX_ROUNDS, max(MIN_ROUNDS, int(budget_seconds / cost)))
        for order in orders([entry.name for entry in entries], rounds, rng):
            for name in order:
                records[name].turns.append(runners[name].ask("turn"))
        for name, runner in runners.items():
            records[name].figures |= runner.ask("finish")
        return records


def orders(names: Sequence[str], rounds: int, rng: np.random.Generator) -> Iterator[list[str]]:
    """The order of every round, at random, and every other time backwards: all go first equally often, or last."""
    order: list[str] = []
    for number in range(rounds):
        order = order[::-1] if number % 2 else [names[i] for i in rng.permutation(len(names))]
        yield order


def cores(threads: int) -> list[int]:
    """The last cores that this process may use: the first ones tend to serve interrupts."""
    return sorted(os.sched_getaffinity(0))[-threads:]


def _begin(bound_to: list[int]) -> None:
    """In the child before anything is loaded: threads that libraries start on import are bound with it.

    It ends with the referee even if it is stopped before it has begun.
    """
    os.sched_setaffinity(0, bound_to)
    child.end_with_parent()


def _gradients(names: Iterable[str], folder: Path, which: str) -> Gradients:
    return {name: np.load(folder / f"{name} {which}.npy", allow_pickle=False) for name in names}


@contextmanager
def _processes(entries: Sequence[Entry], ground: Ground, folder: Path) -> Iterator[dict[str, _Runner]]:
    """A process for each contender, stopped; all are killed in the end."""
    for which, problem in (("own", ground.own), ("certified", ground.certified)):
        if problem is not None:
            theta, x, y = problem
            np.savez(folder / f"{which}.npz", theta=theta, x=x, y=y)
    runners: dict[str, _Runner] = {}
    try:
        for entry in entries:
            runners[entry.name] = _Runner(entry, ground, folder)
        yield runners
    finally:
        for runner in runners.values():
            runner.kill()


class _Runner:
    """A process that answers, and is stopped whenever it has."""

    deadline = float("inf")

    def __init__(self, entry: Entry, ground: Ground, folder: Path) -> None:
        self._name = entry.name
        self._errors: IO[bytes] = tempfile.TemporaryFile()
        bound_to = cores(ground.threads)
        self._process = subprocess.Popen(
            entry.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            env=worker_environment(ground.threads),
            preexec_fn=lambda: _begin(bound_to),  # noqa: PLW1509
        )
        assignment = Assignment(os.getpid(), entry.backend, ground.network, str(folder))
        self._write(msgspec.json.encode(assignment))
        self._signal(signal.SIGSTOP)

    def ask(self, *request: str) -> dict[str, Any]:
        """Let it run until it has answered."""
        self._signal(signal.SIGCONT)
        self._write(json.dumps(request).encode())
        answer = json.loads(self._line())
        self._signal(signal.SIGSTOP)
        if "error" in answer:
            status = "memory" if answer["error"].startswith("MemoryError") else "crashed"
            raise Failed(self._name, status, answer["error"])
        return answer

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _write(self, line: bytes) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(line + b"\n")

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        found = b""
        while not found.endswith(b"\n"):
            left = self.deadline - time.monotonic()
            if not select.select([self._process.stdout], [], [], max(0.0, left) if left < 1e9 else None)[0]:
                raise Failed(self._name, "timeout", "no answer within the limit")
            read = os.read(self._process.stdout.fileno(), 65536)
            if not read:
                raise Failed(self._name, "crashed", self._last_words())
            found += read
        return found

    def _last_words(self) -> str:
        code = self._process.wait()
        if code < 0:
            return f"killed by signal {signal.Signals(-code).name}"
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"exit code {code}: {lines[-1] if lines else 'no output'}"
