"""Forecasts of what deriving and compiling takes: laws by size, fitted to a recorded study, with how far off they were.

A network's sizes are known before anything is derived: operations of the gradient as a tree, or of the loss.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

from difflab.derivation.costs import FITTED, PROCESSOR


@dataclass(frozen=True)
class CostLaw:
    """A figure that grows as ``factor * size**exponent``, fitted to logarithms by least squares.

    Attributes
    ----------
    quantile : standard deviation of what the logarithms left over, times the quantile of Student's t for 95 %.
    count, centre, scatter : cases it was fitted to, the mean of the logarithms of their sizes, and the sum of squares
        of these about it.
    """

    factor: float
    exponent: float
    quantile: float
    count: int
    centre: float
    scatter: float

    def at(self, size: float) -> tuple[float, float, float]:
        """The figure at a size, and an interval that is to hold 19 of 20 further cases, wider away from the centre.

        A gradient of no operations, as without parameters, is forecast as one of a single operation.
        """
        of_size = math.log(max(size, 1))
        logarithm = math.log(self.factor) + self.exponent * of_size
        away = (of_size - self.centre) ** 2 / self.scatter
        spread = self.quantile * math.sqrt(1 + 1 / self.count + away)
        return _exp(logarithm), _exp(logarithm - spread), _exp(logarithm + spread)


def _exp(logarithm: float) -> float:
    """Infinity beyond all floats: sizes are whole numbers without bounds."""
    return math.exp(logarithm) if logarithm < MOST_LOGARITHM else math.inf


MOST_LOGARITHM = math.log(sys.float_info.max)


@dataclass(frozen=True)
class Cost:
    """Laws of the seconds, and of the bytes beyond those of loaded libraries, that deriving and compiling take.

    ``extra_bytes`` is None where too few of the recorded networks took more memory than comes and goes by itself.
    """

    seconds: CostLaw
    extra_bytes: CostLaw | None = None


COSTS = {label: Cost(**{name: CostLaw(*law) for name, law in laws.items()}) for label, laws in FITTED.items()}
"""By the label of the back-end, on the machine of that record."""

FIGURES = ("seconds", "extra_bytes")


def forecast(label: str, size: float) -> dict[str, float]:
    """Columns of a forecast: seconds and bytes with their intervals; none where nothing was ever fitted."""
    if label not in COSTS:
        return {}
    columns: dict[str, float] = {}
    for figure in FIGURES:
        if (law := getattr(COSTS[label], figure)) is not None:
            columns |= dict(zip(columns_of(figure), law.at(size), strict=True))
    return columns


def columns_of(figure: str) -> tuple[str, str, str]:
    """Names of the columns of a forecast and its interval."""
    return f"forecast_{figure}", f"forecast_{figure}_low", f"forecast_{figure}_high"


def beyond(columns: dict[str, Any], limit_seconds: float | None, limit_bytes: int | None) -> str | None:
    """The sentence about a forecast that is beyond a limit even at the low end of its interval, or None."""
    for figure, limit, unit in (("seconds", limit_seconds, "s"), ("extra_bytes", limit_bytes, "bytes")):
        _, low, high = (columns.get(name) for name in columns_of(figure))
        if limit is not None and low is not None and low > limit:
            spans = f"forecast {low:.2g} to {high:.2g} {unit} to derive and compile, limit {limit:.3g} {unit}"
            return f"{spans}, by what it took on {PROCESSOR}"
    return None
