"""Symbolic cells that explode: limits of time and memory hold, every cell has a row, and who runs them goes on.

A few in every run of the tests; the campaign has 200 and leaves a record in ``results/campaigns/explosive.json``::

    export DIFFLAB_EXPLOSIVE=200 DIFFLAB_CAMPAIGN_RESULTS=results/campaigns
    python -m pytest tests/test_explosive.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any

import campaigns
import psutil
import pytest

from difflab.study.cells import resolved
from difflab.study.declaration import PlacedNetwork, Study
from difflab.study.runner import run


CELLS = campaigns.size("DIFFLAB_EXPLOSIVE", 3)
LATE_SECONDS = 1.0
"""By which a cell may outlast its limit: to be killed takes time, and so it does to start."""

TOO_LARGE = 1.1
"""Times the limit that the processes of a cell may hold at most."""

EXPECTED = {"time": {"timeout", "ok", "refused"}, "memory": {"memory", "ok", "timeout"}}
"""What may become of cells by the limit that they are to meet; refused are those of more than 10**18 operations."""

LIMITS = {"time": (3.0, 1_500_000_000), "memory": (40.0, 450_000_000)}
"""Seconds, and bytes of address space, of which Python and the libraries take some 250 million."""

TIME_FOR_EACH_MEMORY = 7
"""Cells."""

SAMPLE_SECONDS = 0.02
SHAPES = [(depth, width) for depth in (9, 3, 5, 7, 4, 8, 6) for width in (8, 3, 6, 4)]
BACKENDS = [
    {"name": "symbolic", "sharing": sharing, "evaluation": evaluation, "max_ops": 10**18}
    for sharing, evaluation in product(("after", "none"), ("numpy", "c"))
] + [{"name": "symbolic", "sharing": "during", "order": "forward", "evaluation": way} for way in ("numpy", "c")]


Explosive = tuple[PlacedNetwork, dict, str]
"""A network, how it is differentiated, and the limit that it is to meet."""


def grid(count: int) -> list[Explosive]:
    """So many cells, those of memory among those of time."""
    of_time, of_memory = beyond_time(), beyond_memory()
    order = islice(cycle(["memory"] + ["time"] * TIME_FOR_EACH_MEMORY), count)
    return [next(of_memory if kind == "memory" else of_time) for kind in order]


def beyond_time() -> Iterator[Explosive]:
    """Networks whose derivatives as trees have more operations than can be written down."""
    networks = [
        PlacedNetwork(widths=[4, *[width] * depth, 10], hidden=hidden, data="digits-2x2")
        for hidden, (depth, width) in product(("tanh", "softplus"), SHAPES)
    ]
    return ((*cell, "time") for cell in product(networks, BACKENDS))


def beyond_memory() -> Iterator[Explosive]:
    """Networks whose derivatives, shared, are soon derived, and then too many lines for a compiler of C."""
    for width, hidden in product(range(64, 32, -1), ("tanh", "softplus")):
        network = PlacedNetwork(widths=[64, width, 10], hidden=hidden, data="digits-8x8")
        yield network, {"name": "symbolic", "sharing": "during", "evaluation": "c", "max_ops": 10**18}, "memory"


class Watch:
    """The most memory that this process's children, and theirs, hold together while it is open."""

    def __enter__(self) -> Watch:
        self.most_bytes, self._is_over = 0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _look(self) -> None:
        this = psutil.Process()
        while not self._is_over.wait(SAMPLE_SECONDS):
            held = 0
            for one in this.children(recursive=True):
                with suppress(psutil.Error):
                    held += one.memory_info().rss
            self.most_bytes = max(self.most_bytes, held)


def explode(count: int, directory: Path) -> dict[str, Any]:
    """Run so many cells; what became of those of each kind, and the most that their processes held."""
    found = {kind: {"statuses": Counter(), "late_seconds": [], "bytes": []} for kind in LIMITS}
    for network, backend, kind in grid(count):
        limits = LIMITS[kind]
        cell = Study("Does it end?", ["swell", "forecast"], [network], [resolved(backend)], 4, 0, *limits)
        _certify(network, directory)
        started = time.monotonic()
        with Watch() as watch:
            (row,) = run(cell, directory, again=True)
        found[kind]["late_seconds"].append(time.monotonic() - started - limits[0])
        found[kind]["statuses"][row["status"]] += 1
        found[kind]["bytes"].append(watch.most_bytes)
    return {
        kind: {
            "cells": len(of_kind["bytes"]),
            "limit_seconds": LIMITS[kind][0],
            "limit_bytes": LIMITS[kind][1],
            "most_seconds": round(LIMITS[kind][0] + max(of_kind["late_seconds"]), 2),
            "most_bytes": max(of_kind["bytes"]),
            "statuses": dict(of_kind["statuses"]),
        }
        for kind, of_kind in found.items()
    }


@pytest.mark.timeout(60 + 25 * CELLS)
def test_explosive_cells_end_within_their_limits_with_a_row_each(tmp_path):
    """In a process of its own, whose children are those of these cells alone."""
    done = subprocess.run([sys.executable, __file__, str(CELLS), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    campaigns.record("explosive", found)
    assert sum(of_kind["cells"] for of_kind in found.values()) == CELLS
    for kind, of_kind in found.items():
        assert sum(of_kind["statuses"].values()) == of_kind["cells"] > 0
        assert set(of_kind["statuses"]) <= EXPECTED[kind]
        assert of_kind["most_seconds"] <= of_kind["limit_seconds"] + LATE_SECONDS
        assert of_kind["most_bytes"] <= TOO_LARGE * of_kind["limit_bytes"]
    assert found["time"]["statuses"]["timeout"] > 0
    assert found["memory"]["statuses"]["memory"] > 0


def _certify(network: PlacedNetwork, directory: Path) -> None:
    """Have the reference of a network made, which is no part of its cells."""
    run(Study("?", ["swell"], [network], [resolved({"name": "certified"})], 4), directory)


if __name__ == "__main__":
    print(json.dumps(explode(int(sys.argv[1]), Path(sys.argv[2]))))
