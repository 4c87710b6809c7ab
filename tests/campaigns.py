"""Campaigns: checks of many random cases, too long for every run of the tests, and the records they leave.

With ``DIFFLAB_CAMPAIGN_RESULTS=DIR`` in the environment, ``record("enclosures", {...})`` writes DIR/enclosures.json:
figures, commit and environment, and nothing about whose machine it was.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import naive
import numpy as np

import difflab as dl
from difflab.files import write_atomically
from difflab.study import provenance


RESULTS = "DIFFLAB_CAMPAIGN_RESULTS"
BLOCK = 25
"""Cases that a process takes at a time."""

SCALES = -3.0, 3.0
"""Of weights, in powers of ten."""

Made = TypeVar("Made")
Problem = tuple[dl.MLP, np.ndarray, np.ndarray, np.ndarray]


def problem(seed: int) -> Problem:
    """A network of depth 1 to 4 and widths 1 to 6, dense or of any layers, with parameters, samples and targets.

    Weights are of any scale, saturated and dead units among them; of some problems many are zero, of some all numbers
    are -1, 0 or 1, so that there are kinks, and of some every weight has a scale of its own.
    """
    rng = np.random.default_rng([7, seed])
    net = naive.random_network(rng) if seed % 2 else naive.random_mixed_network(rng, most_layers=4, most_units=6)
    _, x, y = naive.random_problem(net, rng, batch=int(rng.integers(1, 4)))
    theta = rng.normal(size=net.n_params) * 10 ** rng.uniform(*SCALES)
    kind = rng.integers(8)
    if kind == 0:
        theta, x = (rng.integers(-1, 2, a.shape).astype(float) for a in (theta, x))
    if kind == 1:
        theta *= rng.integers(2, size=theta.shape)
    if kind == 2:
        theta *= 10 ** rng.uniform(*SCALES, theta.shape)
    return net, theta, x, y


def size(variable: str, default: int) -> int:
    """How many cases the environment asks for."""
    return int(os.environ.get(variable, default))


def in_blocks(work: Callable[[Sequence[int]], Made], seeds: Sequence[int], processes: int) -> Iterator[Made]:
    """What ``work`` makes of the seeds, block by block, in as many processes; in this one alone if it is one."""
    blocks = [seeds[first : first + BLOCK] for first in range(0, len(seeds), BLOCK)]
    if processes == 1:
        yield from map(work, blocks)
        return
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(work, blocks)


def record(name: str, figures: dict[str, Any]) -> Path | None:
    """Write what a campaign found to NAME.json in the folder that the environment names, if it names one."""
    folder = os.environ.get(RESULTS)
    if not folder:
        return None
    path = Path(folder) / f"{name}.json"
    stamp = {"campaign": name, "date": time.strftime("%Y-%m-%d", time.gmtime()), "commit": provenance.commit()}
    content = stamp | {"figures": figures, "environment": provenance.environment()}
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())
    return path
