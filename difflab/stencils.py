"""Finite-difference stencils: points, exact weights, step sizes, and the two errors they predict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np


Steps = float | np.ndarray
"""One step or many."""


@dataclass(frozen=True)
class Stencil:
    """An approximation of f'(x) by a weighted sum of f(x + offset * h), divided by h.

    Parameters
    ----------
    offsets : distinct integers, the points in units of the step h

    Notes
    -----
    Weights solve the Vandermonde system ``sum_j w_j offset_j**k = [k = 1]`` in rational arithmetic, so they are
    exact for any points [Fornberg 1988].
    """

    offsets: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.offsets) < 2 or len(set(self.offsets)) < len(self.offsets):
            raise ValueError(f"a stencil needs two or more distinct offsets, got {self.offsets}")

    @cached_property
    def weights(self) -> tuple[Fraction, ...]:
        powers = range(len(self.offsets))
        return _solve(
            [[Fraction(offset) ** k for offset in self.offsets] for k in powers],
            [Fraction(int(k == 1)) for k in powers],
        )

    def _moment(self, k: int) -> Fraction:
        return sum((w * Fraction(o) ** k for w, o in zip(self.weights, self.offsets, strict=True)), Fraction(0))

    @cached_property
    def order(self) -> int:
        """The power of h in the truncation error."""
        return next(k for k in range(2, 3 * len(self.offsets)) if self._moment(k)) - 1

    def truncation_error(self, step: Steps, derivative_bound: Steps = 1.0) -> Any:
        """Leading term of |approximation - f'(x)| in exact arithmetic.

        ``derivative_bound`` bounds the derivative of order ``order + 1``.
        """
        k = self.order + 1
        return float(abs(self._moment(k))) / math.factorial(k) * derivative_bound * step**self.order

    def rounding_error(self, step: Steps, value_error: float) -> Any:
        """Bound on the error made by values of f that are each off by at most ``value_error``."""
        return float(sum(abs(w) for w in self.weights)) * value_error / step

    def best_step(self, value_error: float, derivative_bound: float = 1.0) -> float:
        """The power of two nearest to the step that minimises the sum of both errors.

        A power of two makes x + h exact for most x.
        """
        p = self.order
        rounding = self.rounding_error(1.0, value_error)
        truncation = self.truncation_error(1.0, derivative_bound)
        return 2.0 ** round(math.log2((rounding / (p * truncation)) ** (1 / (p + 1))))


def _solve(matrix: list[list[Fraction]], right: list[Fraction]) -> tuple[Fraction, ...]:
    """Solve a regular linear system exactly, by Gauss-Jordan elimination."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for i in range(len(rows)):
        pivot = next(j for j in range(i, len(rows)) if rows[j][i])
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [value / rows[i][i] for value in rows[i]]
        for j, row in enumerate(rows):
            if j != i and row[i]:
                rows[j] = [a - row[i] * b for a, b in zip(row, rows[i], strict=True)]
    return tuple(row[-1] for row in rows)


FORWARD = Stencil((0, 1))
CENTRAL = Stencil((-1, 1))
