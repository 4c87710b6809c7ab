"""What single parts of Backprop cost, beside what they could: a campaign, with ``results/campaigns/costs.json``::

    DIFFLAB_COSTS=1 DIFFLAB_CAMPAIGN_RESULTS=results/campaigns python -m pytest tests/test_costs.py

The campaign asserts nothing about seconds; what is said of them is held against the record. Functions are timed in
compiled loops over numbers that lie in the cache, beside the same loops with the functions of the C library, taking
turns; a call where there is next to nothing to compute, beside one of nothing; a first gradient in a process that
starts with code that is kept.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import campaigns
import numpy as np
import pytest
from test_vector_math import BUILDS, NAMES, PRECISIONS, compiled, domain, over

import difflab as dl
from difflab.primitives.activations import ACTIVATIONS
from difflab.study.timing import contest


N = 4096
"""Numbers of an array, which the nearest cache holds."""
PROCESSES = 7
FIRST_GRADIENT = """
import time
started = time.perf_counter()
import numpy as np
numpy_is_there = time.perf_counter()
import difflab as dl
prepared = dl.Backprop().prepare(dl.MLP.dense([4, 8, 8, 3], hidden="tanh"))
prepared.value_and_gradient(np.full(prepared.net.n_params, 0.1), np.ones((1, 4)), np.array([1]))
print(time.perf_counter() - started, numpy_is_there - started)
"""


def plain(name: str):
    """The function as Numba has it, an element at a time."""
    import numba

    if name in ACTIVATIONS:
        return numba.njit(ACTIVATIONS[name].value)
    return getattr(math, name)


def of_function(name: str, build: str) -> dict[str, float]:
    low, high = domain(name, BUILDS[build])
    x = np.random.default_rng(0).uniform(max(low, -20.0), min(high, 20.0), N).astype(BUILDS[build].real)
    out, ours, theirs = np.empty_like(x), compiled(name, build).loop, over(plain(name)).loop
    contenders = {"ours": lambda: ours(x, out), "library": lambda: theirs(x, out)}
    found = contest(contenders, np.random.default_rng(0), 0.5).timings
    seconds, library_seconds = found["ours"].seconds, found["library"].seconds
    return {
        "nanoseconds": round(1e9 * seconds / N, 3),
        "library_nanoseconds": round(1e9 * library_seconds / N, 3),
        "ratio": round(library_seconds / seconds, 2),
    }


def of_call(dtype: str) -> dict[str, float]:
    """A gradient of one sample of the least network there is, through all checks, and bound to its arrays."""
    net = dl.MLP.dense([1, 1], loss="squared_error")
    theta, x, y, out = (np.ones(shape, dtype) for shape in (2, (1, 1), (1, 1), 2))
    prepared = dl.Backprop(dtype).prepare(net)
    bound = prepared.bound_to(theta, x, y, out)
    contenders = {
        "checked": lambda: prepared.value_and_gradient(theta, x, y, out),
        "bound": bound.value_and_gradient,
        "nothing": lambda: None,
    }
    found = contest(contenders, np.random.default_rng(0), 1.0).timings
    return {f"{name}_microseconds": round(1e6 * timing.seconds, 3) for name, timing in found.items()}


def of_start() -> dict[str, float]:
    """Medians over processes, of which the first, which may compile, is left out."""
    command = [sys.executable, "-c", FIRST_GRADIENT]
    lines = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(1 + PROCESSES)]
    whole, numpy_alone = np.median([list(map(float, line.split())) for line in lines[1:]], axis=0)
    return {"first_gradient_seconds": round(whole, 3), "of_them_to_import_numpy": round(numpy_alone, 3)}


@pytest.mark.skipif(os.environ.get("DIFFLAB_COSTS") != "1", reason="a campaign: set DIFFLAB_COSTS=1")
def test_costs():
    figures = {
        "functions": {" ".join(case): of_function(*case) for case in product(NAMES, BUILDS)},
        "call": {dtype: of_call(dtype) for dtype in PRECISIONS},
        "second_process": of_start(),
    }
    assert all(math.isfinite(found["ratio"]) for found in figures["functions"].values())
    campaigns.record("costs", figures)


# --- what the record says


@cache
def recorded() -> dict[str, Any]:
    return json.loads((Path(__file__).parents[1] / "results/campaigns/costs.json").read_text())["figures"]


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_a_recorded_bound_call_takes_a_microsecond_beyond_next_to_no_arithmetic(dtype):
    call = recorded()["call"][dtype]
    assert call["bound_microseconds"] - call["nothing_microseconds"] <= 1.0


def test_every_recorded_function_is_at_least_twice_as_fast_as_the_library():
    assert min(found["ratio"] for found in recorded()["functions"].values()) >= 2
