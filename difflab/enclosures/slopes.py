"""Derivatives of one operation along directions: coefficients of the power series of its primal."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np

from difflab.number_systems import BALLS, SERIES, Array, NumberSystem, Series, ball_precision, coefficient


Primal = Callable[[Series, list[Array]], Array]
Along = Callable[[int, Array], Array]
"""``(place, axis) -> slopes``: the derivative along ``axis``, in which the array at that place moves."""


class Slopes(Protocol):
    """A way to differentiate an operation, and the numbers it gives slopes in."""

    system: NumberSystem

    def of(self, primal: Primal, arrays: list[Array]) -> Along:
        """Slopes of ``primal`` at ``arrays``, which hold numbers of ``system``."""
        ...


class FirstSlopes:
    """Slopes at balls, as balls."""

    system: NumberSystem = BALLS

    def __init__(self, series: Series) -> None:
        self.series = series

    def of(self, primal: Primal, arrays: list[Array]) -> Along:
        return partial(self._along, primal, arrays, [self.series.array(array) for array in arrays])

    def _along(self, primal: Primal, arrays: list[Array], still: list[Array], place: int, axis: Array) -> Array:
        moved = [*still]
        moved[place] = self.series.line(arrays[place], axis)
        return coefficient(primal(self.series, moved), 1)


class MovingSlopes:
    """Slopes at points that move: numbers are series in s, and so are slopes, whose change comes by polarisation.

    With e the axis and u the velocity of the point, the second-order terms along e + u and e - u differ by
    2 e^T H u, and their first-order terms have the slope along e for their mean.
    """

    system: NumberSystem = SERIES

    def __init__(self, series: Series) -> None:
        self.series = series

    def of(self, primal: Primal, arrays: list[Array]) -> Along:
        points = [(coefficient(array, 0), coefficient(array, 1)) for array in arrays]
        return partial(self._along, primal, points)

    def _along(self, primal: Primal, points: list[tuple[Array, Array]], place: int, axis: Array) -> Array:
        with ball_precision(order=2):
            ahead, back = (primal(self.series, self._lines(points, place, axis, sign)) for sign in (1, -1))
        slopes = (coefficient(ahead, 1) + coefficient(back, 1)) / 2
        return self.series.line(slopes, (coefficient(ahead, 2) - coefficient(back, 2)) / 2)

    def _lines(self, points: list[tuple[Array, Array]], place: int, axis: Array, sign: int) -> list[Array]:
        steps = [sign * velocity for _, velocity in points]
        steps[place] = steps[place] + axis
        return [self.series.line(point, step) for (point, _), step in zip(points, steps, strict=True)]


def ones(like: Array) -> Array:
    return np.full(like.shape, 1, object)
