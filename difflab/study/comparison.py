"""Is one faster than the other? From pairs of times that were taken in turn, without supposing a distribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, inf

import numpy as np


CONFIDENCE = 0.99
"""Of the interval of a ratio."""
RESOLUTION = 0.02
"""Differences up to this are not claimed: two processes that run the same code differ by as much for good, by where
their memory happens to lie."""


@dataclass(frozen=True)
class Comparison:
    """How many times longer one takes than the other.

    Attributes
    ----------
    ratio : median over the rounds.
    low, high : of an interval that holds the true median at the stated confidence, if rounds are independent.
    """

    ratio: float
    low: float
    high: float

    @property
    def differs(self) -> bool:
        """Whether there is a difference worth a claim: the interval excludes 1 by more than the resolution."""
        return self.low > 1 + RESOLUTION or self.high < 1 / (1 + RESOLUTION)


def compared(over: Sequence[float], under: Sequence[float], confidence: float = CONFIDENCE) -> Comparison:
    """Compare two contenders by the ratio of their times in every round [sign test: Dixon, Mood 1946].

    Parameters
    ----------
    over, under : seconds of the two in the same rounds
    confidence : of the interval, which is without bounds where there are too few rounds for it
    """
    ratios = np.sort(np.divide(over, under))
    left_out = _left_out(len(ratios), (1 - confidence) / 2)
    bounds = (0.0, inf) if left_out == 0 else (ratios[left_out - 1], ratios[-left_out])
    return Comparison(float(np.median(ratios)), *map(float, bounds))


def _left_out(n: int, tail: float) -> int:
    """How many ratios from either end the median lies beyond with probability ``tail`` at most."""
    mass, rank = 0.0, 0
    while (mass := mass + comb(n, rank) / 2**n) <= tail:
        rank += 1
    return rank
