"""The process of one contender: it differentiates when asked, and times itself when it is its turn.

A line of JSON on standard input says what to do, a line on standard output answers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import msgspec
import numpy as np
from threadpoolctl import threadpool_info

from difflab import child
from difflab.backends.contract import Prepared
from difflab.memory import peak_bytes
from difflab.peers import calls, gradient_of
from difflab.study import accounts
from difflab.study.declaration import PlacedNetwork, build_backend
from difflab.study.timing import repeats, sample


WARM_UP = 4
"""A turn begins with a quarter as many calls as are timed: other processes have had the caches since the last."""


class Assignment(msgspec.Struct, frozen=True):
    """Who asks, what is to be differentiated and how, and where arrays are exchanged.

    ``own`` and ``certified`` in the folder hold theta, x and y of the whole batch, and of the samples that are
    certified where those are fewer.
    """

    referee: int
    backend: dict[str, Any]
    network: PlacedNetwork
    folder: str


class Contender:
    """What a process does for the referee; its public methods are what can be asked."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._prepared: Prepared | None = None
        self._calls: dict[str, Any] = {}
        self._repeats: dict[str, int] = {}

    def _arguments(self, which: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        with np.load(Path(self._assignment.folder) / f"{which}.npz", allow_pickle=False) as found:
            return found["theta"], found["x"], found["y"]

    def differentiate(self, answer_to: str) -> dict[str, Any]:
        """Prepare, differentiate at the whole batch, and hold the arguments for all further calls.

        ``answer_to`` names the file for the gradient, which is that of the call that will be timed.
        """
        own = self._arguments("own")
        started = perf_counter()
        self._prepared = build_backend(self._assignment.backend).prepare(self._assignment.network.build())
        prepared = perf_counter()
        self._prepared.value_and_gradient(*own, allow_nonfinite=True)
        finished = perf_counter()
        self._calls = calls(self._prepared, *own)
        self._save(answer_to, self._calls["gradient"]())
        return {"prepare_seconds": prepared - started, "first_call_seconds": finished - started} | self._facts()

    def certify(self, answer_to: str) -> dict[str, Any]:
        """Differentiate where the gradient is certified."""
        assert self._prepared is not None
        self._save(answer_to, calls(self._prepared, *self._arguments("certified"))["gradient"]())
        return {}

    def calibrate(self) -> dict[str, Any]:
        """Seconds of a turn, after finding how many calls make a sample."""
        found = {name: repeats(call) for name, call in self._calls.items()}
        self._repeats = {name: n for name, (n, _) in found.items()}
        return {"turn_seconds": sum(n * (1 + 1 / WARM_UP) * seconds for n, seconds in found.values())}

    def turn(self) -> dict[str, Any]:
        """Seconds of one call of each kind, and of processor and waiting in all."""
        wall, cpu, waited = perf_counter(), process_time(), accounts.waited_seconds()
        found = {name: self._sample(name) for name in self._calls}
        return found | {
            "wall": perf_counter() - wall,
            "cpu": process_time() - cpu,
            "waited": max(0.0, accounts.waited_seconds() - waited),
        }

    def finish(self) -> dict[str, Any]:
        """The most memory held."""
        return {"peak_bytes": peak_bytes()}

    def _sample(self, name: str) -> float:
        call, n = self._calls[name], self._repeats[name]
        sample(call, max(1, n // WARM_UP))
        return sample(call, n)

    def _save(self, name: str, found: Any) -> None:
        assert self._prepared is not None
        gradient = gradient_of(self._prepared, found)
        np.save(Path(self._assignment.folder) / f"{name}.npy", gradient, allow_pickle=False)

    def _facts(self) -> dict[str, Any]:
        assert self._prepared is not None
        pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
        texts = [f"{p['internal_api']} {p['version']} {p.get('architecture')} {p['num_threads']} thr" for p in pools]
        return {"library": self._prepared.facts.get("library"), "blas": "; ".join(sorted(set(texts)))}


def main() -> None:
    """Answer one line after the other until there are no more."""
    channel = child.answers()
    assignment = msgspec.json.decode(sys.stdin.readline(), type=Assignment)
    child.end_with(assignment.referee)
    contender = Contender(assignment)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        try:
            answer = getattr(contender, name)(*arguments)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        channel.write(json.dumps(answer) + "\n")
        channel.flush()


if __name__ == "__main__":
    main()
