"""Seconds to derive with sharing: beside ``sympy.diff`` for one parameter after the other, and by operations.

By default it tells that both are timed; the campaign tells by how much they differ, and leaves a record in
``results/campaigns/deriving.json``::

    export DIFFLAB_DERIVING=5 DIFFLAB_CAMPAIGN_RESULTS=results/campaigns
    python -m pytest tests/test_deriving.py
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import campaigns
import pytest
from sympy.core.cache import clear_cache

import difflab as dl
from difflab.counting import primal_operations
from difflab.derivation.expressions import derive_sample
from difflab.derivation.sharing import Way
from difflab.study.growth import power_law


ROUNDS = campaigns.size("DIFFLAB_DERIVING", 1)
IS_CAMPAIGN = ROUNDS > 1
WIDTHS = (2, 4, 8, 16, 32, 64) if IS_CAMPAIGN else (2, 4)
COMPARED = [4, 8, 8, 3] if IS_CAMPAIGN else [2, 2, 2]
AT_LEAST_TIMES, AT_MOST_EXPONENT = 20, 1.15


def seconds(derive: Callable[[], object]) -> float:
    """With nothing remembered from before."""
    clear_cache()
    gc.collect()
    started = time.perf_counter()
    derive()
    return time.perf_counter() - started


@pytest.mark.timeout(60 + 600 * ROUNDS)
def test_deriving_with_sharing_is_fast_and_linear():
    net = dl.MLP.dense(COMPARED, hidden="tanh")
    both: dict[str, list[float]] = {"none": [], "during": []}
    for _ in range(ROUNDS):
        for sharing, found in both.items():
            found.append(seconds(lambda sharing=sharing: derive_sample(net, Way(sharing))))
    points = []
    for width in WIDTHS:
        grown = dl.MLP.dense([4, width, width, 3], hidden="tanh")
        least = min(seconds(lambda grown=grown: derive_sample(grown, Way("during"))) for _ in range(ROUNDS))
        points.append((primal_operations(grown.program), least))
    exponent, low, high = power_law(points)
    ratio = sorted(none / during for none, during in zip(*both.values(), strict=True))
    assert ratio[len(ratio) // 2] > 1
    figures = {
        "network": str(net),
        "seconds_per_parameter_each_by_sympy_diff": both["none"],
        "seconds_with_sharing": both["during"],
        "ratios": ratio,
        "operations_and_seconds": points,
        "exponent": exponent,
        "exponent_interval": [low, high],
    }
    campaigns.record("deriving", figures)
    if IS_CAMPAIGN:
        assert ratio[len(ratio) // 2] >= AT_LEAST_TIMES, figures
        assert exponent <= AT_MOST_EXPONENT, figures
