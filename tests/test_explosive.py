"""Symbolic cells that explode: limits of time and memory hold, every cell has a row, and who runs them goes on.

A few in every run of the tests; the campaign has 200 and leaves a record in ``results/campaigns/explosive.json``::

    export DIFFLAB_EXPLOSIVE=200 DIFFLAB_CAMPAIGN_RESULTS=results/campaigns
    python -m pytest tests/test_explosive.py
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections import Counter
from itertools import islice, product
from pathlib import Path
from typing import Any

import campaigns
import pytest

from difflab.study.cells import resolved
from difflab.study.declaration import PlacedNetwork, Study
from difflab.study.runner import run


CELLS = campaigns.size("DIFFLAB_EXPLOSIVE", 3)
LIMIT_SECONDS, LIMIT_BYTES = 3.0, 1_500_000_000
LATE_SECONDS = 1.0
"""By which a cell may outlast its limit: to be killed takes time, and so it does to start."""

TOO_LARGE = 1.1
"""Times the limit that a process may have held at most."""

STATUSES = {"ok", "timeout", "memory", "refused"}
SHAPES = [(depth, width) for depth in (9, 3, 5, 7, 4, 8, 6) for width in (8, 3, 6, 4)]
BACKENDS = [
    {"name": "symbolic", "sharing": sharing, "evaluation": evaluation, "max_ops": 10**18}
    for sharing, evaluation in product(("after", "none"), ("numpy", "c"))
] + [{"name": "symbolic", "sharing": "during", "order": "forward", "evaluation": way} for way in ("numpy", "c")]


def grid(count: int) -> list[tuple[PlacedNetwork, dict]]:
    """So many cells: networks whose derivatives as trees have more operations than can be written down."""
    networks = [
        PlacedNetwork(widths=[4, *[width] * depth, 10], hidden=hidden, data="digits-2x2")
        for hidden, (depth, width) in product(("tanh", "softplus"), SHAPES)
    ]
    return list(islice(product(networks, BACKENDS), count))


def explode(count: int, directory: Path) -> dict[str, Any]:
    """Run so many cells; what became of them, and the most that any process of these held."""
    rows, seconds = [], []
    for network, backend in grid(count):
        cell = Study("Does it end?", ["swell"], [network], [resolved(backend)], 4, 0, LIMIT_SECONDS, LIMIT_BYTES)
        _certify(network, directory)
        started = time.monotonic()
        rows += run(cell, directory, again=True)
        seconds.append(time.monotonic() - started)
    return {
        "cells": len(rows),
        "limit_seconds": LIMIT_SECONDS,
        "limit_bytes": LIMIT_BYTES,
        "most_seconds": round(max(seconds), 2),
        "most_bytes_of_a_process": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
        "statuses": dict(Counter(row["status"] for row in rows)),
    }


@pytest.mark.timeout(60 + 12 * CELLS)
def test_explosive_cells_end_within_their_limits_with_a_row_each(tmp_path):
    """In a process of its own, whose children are those of these cells alone."""
    done = subprocess.run([sys.executable, __file__, str(CELLS), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    campaigns.record("explosive", found)
    assert found["cells"] == sum(found["statuses"].values()) == CELLS
    assert set(found["statuses"]) <= STATUSES
    assert found["most_seconds"] <= LIMIT_SECONDS + LATE_SECONDS
    assert found["most_bytes_of_a_process"] <= TOO_LARGE * LIMIT_BYTES


def _certify(network: PlacedNetwork, directory: Path) -> None:
    """Have the reference of a network made, which is no part of its cells."""
    run(Study("?", ["swell"], [network], [resolved({"name": "certified"})], 4), directory)


if __name__ == "__main__":
    print(json.dumps(explode(int(sys.argv[1]), Path(sys.argv[2]))))
