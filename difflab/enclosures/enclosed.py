"""Arrays of balls as floating-point numbers: nearest floats, what they leave, and bounds that hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from difflab.number_systems import BALLS, Array, Series


ROUNDED, ENCLOSED, KINK = "rounded", "enclosed", "kink"
"""Entry statuses: the nearest float64 is proven; only an interval is; a kink has a say in the derivative.

A rational derivative half-way between two floats stays enclosed between them at any precision."""

_ROUNDING = 1 + 2.0**-50
"""Covers a few roundings of a sum or product of floats that are not negative."""
_SMALLEST = 2.0**-1074


@dataclass(frozen=True)
class Enclosed:
    """Numbers that are known to lie where it says; all arrays have the same shape.

    Attributes
    ----------
    nearest : float64, nearest to the true numbers where ``status`` is ``"rounded"``.
    residual, radius : float64; a true number is within ``radius`` of the exact sum ``nearest + residual``.
    lower, upper : float64 bounds of the true numbers; at a kink, of all one-sided ones.
    status : of ``"rounded"``, ``"enclosed"`` or ``"kink"``.
    bits : working precision that was needed.
    """

    nearest: np.ndarray
    residual: np.ndarray
    radius: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    status: np.ndarray
    bits: int

    def mapped(self, function: Callable[[np.ndarray], np.ndarray]) -> Enclosed:
        """The same with a function applied to every array."""
        return Enclosed(**{name: function(getattr(self, name)) for name in ARRAYS}, bits=self.bits)

    @property
    def is_final(self) -> bool:
        """Whether more precision would tell no more."""
        return bool((self.status != ENCLOSED).all())


ARRAYS = ("nearest", "residual", "radius", "lower", "upper", "status")
"""Fields with an entry for each number."""


def nothing_known(shape: tuple[int, ...]) -> Enclosed:
    """What can be said of derivatives at numbers that are not finite."""
    unknown, everything = np.full(shape, np.nan), np.full(shape, np.inf)
    return Enclosed(unknown, unknown, everything, -everything, everything, np.full(shape, ENCLOSED), 0)


def enclosed(balls: Array, bits: int) -> Enclosed:
    """What floating point may say of an array of balls, at the working precision they have."""
    flat = balls.ravel()
    nearest = _floats(flat)
    rest = flat - BALLS.array(nearest)
    residual, radius = np.where(np.isinf(nearest), 0.0, _floats(rest)), _radii(rest)
    with np.errstate(over="ignore", invalid="ignore"):
        to_next, to_last = (np.abs(np.nextafter(nearest, way) - nearest) for way in (np.inf, -np.inf))
        above, below = residual + radius, residual - radius
        is_unique = (2 * above * _ROUNDING < to_next) & (-2 * below * _ROUNDING < to_last)
        lower = np.where(below >= 0, nearest, np.nextafter(nearest, -np.inf))
        upper = np.where(above <= 0, nearest, np.nextafter(nearest, np.inf))
    is_unique &= np.isfinite(to_next + to_last)
    for i in np.flatnonzero(~is_unique):
        lower[i], upper[i], is_unique[i] = _exactly(flat[i])
    status = np.where(is_unique, ROUNDED, ENCLOSED)
    found = Enclosed(nearest, residual, radius, lower, upper, status, bits)
    return found.mapped(lambda array: array.reshape(balls.shape))


def _floats(balls: Array) -> np.ndarray:
    """The floats nearest to the middles."""
    return np.fromiter(map(float, balls), np.float64, len(balls))


def _radii(rest: Array) -> np.ndarray:
    """Upper bounds of the distance between what balls hold and the float nearest to their middles."""
    radius = np.fromiter((float(ball.rad()) for ball in rest), np.float64, len(rest))
    nearest = np.abs(_floats(rest))
    with np.errstate(over="ignore"):
        bound = (radius + nearest * 2.0**-53) * _ROUNDING + _SMALLEST
    is_exact = (nearest == 0) & (radius == 0)
    for i in np.flatnonzero(is_exact):
        bound[i] = 0.0 if rest[i].is_zero() else _SMALLEST
    return np.where(np.isnan(bound) | np.isnan(nearest), np.inf, bound)


def _exactly(ball: Any) -> tuple[float, float, bool]:
    """Float bounds of a ball, and whether all of it rounds to one float; slow, and right in every corner."""
    ends = ball.lower(), ball.upper()
    return outward(ends[0], -np.inf), outward(ends[1], np.inf), float(ends[0]) == float(ends[1])


def rounds_uniquely(ball: Any) -> bool:
    return float(ball.lower()) == float(ball.upper())


def outward(end: Any, direction: float) -> float:
    """The nearest float64 that is not inside of an interval's end."""
    from flint import arb

    rounded = float(end)
    if np.isnan(rounded):
        return direction
    inside = arb(rounded) > end if direction < 0 else arb(rounded) < end
    return float(np.nextafter(rounded, direction)) if inside else rounded


def with_kinks(derive: Callable[[Series], Array], bits: int) -> Enclosed:
    """Enclosures of what ``derive`` finds by power series; where it met a tie, with the hull of both sides."""
    series = Series()
    found = enclosed(derive(series), bits)
    if not series.met_tie:
        return found
    hull = enclosed(derive(Series("both")), bits)
    at_kink = (found.status == ROUNDED) & (hull.status != ROUNDED)
    status = np.where(at_kink, KINK, found.status)
    return Enclosed(found.nearest, found.residual, found.radius, hull.lower, hull.upper, status, bits)
