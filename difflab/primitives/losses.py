"""Losses of one sample: one row each, in the table ``LOSSES``.

``expression`` defines the loss in the vocabulary of a number system; it never mentions a derivative.
``value_and_cotangent`` is the hand-written floating-point rule that the reverse sweep compiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from difflab.number_systems import Array, NumberSystem


@dataclass(frozen=True)
class Loss:
    """One loss.

    Attributes
    ----------
    name : the word for it in networks and study files.
    expression : ``(m, z, y) -> losses`` over the number system ``m``; z, y : (batch, n_outputs).
    value_and_cotangent : ``(z, y, z_bar) -> loss`` for one sample in float64; fills ``z_bar`` with d loss / d z.
    max_curvature : largest sum of magnitudes in a row of the second derivative.
    is_difference : ``y -> whether`` the cotangent is formed as a difference of numbers of the order of y.
    value_operations, cotangent_operations : operations of the two parts of ``value_and_cotangent``, from n_outputs.
    accepts_classes : whether targets may be class indices, standing for one-hot rows.
    source : where the formula is from.
    """

    name: str
    expression: Callable[[NumberSystem, Array, Array], Array]
    value_and_cotangent: Callable[[np.ndarray, np.ndarray, np.ndarray], float]
    max_curvature: float
    is_difference: Callable[[np.ndarray], bool]
    value_operations: Callable[[int], int]
    cotangent_operations: Callable[[int], int]
    accepts_classes: bool
    source: str


def squared_error(m: NumberSystem, z: Array, y: Array) -> Array:
    return m.sum(m.square(z - y) / 2)


def squared_error_sweep(z: np.ndarray, y: np.ndarray, z_bar: np.ndarray) -> float:
    loss = 0.0
    for k in range(z.size):
        difference = z[k] - y[k]
        z_bar[k] = difference
        loss += 0.5 * difference * difference
    return loss


def softmax_cross_entropy(m: NumberSystem, z: Array, y: Array) -> Array:
    """Sum over k of y_k (log sum_j exp z_j - z_k), with the logarithm written once."""
    z = z - m.shift(z)
    return m.log(m.sum(m.exp(z))) * m.sum(y) - m.sum(y * z)


def softmax_cross_entropy_sweep(z: np.ndarray, y: np.ndarray, z_bar: np.ndarray) -> float:
    """The largest logit is kept out of the sum, so that neither loss nor cotangent cancels when it wins clearly."""
    top = 0
    for k in range(1, z.size):
        if z[k] > z[top]:
            top = k
    rest = 0.0
    weight = 0.0
    dot = 0.0
    for k in range(z.size):
        shifted = z[k] - z[top]
        weight += y[k]
        dot += y[k] * shifted
        if k != top:
            e = math.exp(shifted)
            z_bar[k] = e
            rest += e
    total = 1.0 + rest
    for k in range(z.size):
        if k != top:
            z_bar[k] = (weight * z_bar[k] - y[k] * total) / total
    z_bar[top] = ((weight - y[top]) - y[top] * rest) / total
    return weight * math.log1p(rest) - dot


_ROWS = (
    Loss(
        "squared_error",
        expression=squared_error,
        value_and_cotangent=squared_error_sweep,
        max_curvature=1.0,
        is_difference=lambda y: False,
        value_operations=lambda k: 4 * k,
        cotangent_operations=lambda k: 0,
        accepts_classes=False,
        source="one half of the sum of squares: Rumelhart, Hinton, Williams 1986; lecture notes 001 and 004",
    ),
    Loss(
        "softmax_cross_entropy",
        expression=softmax_cross_entropy,
        value_and_cotangent=softmax_cross_entropy_sweep,
        max_curvature=0.5,
        is_difference=lambda y: not np.isin(y, (0.0, 1.0)).all(),
        value_operations=lambda k: 6 * k + 1,
        cotangent_operations=lambda k: 4 * k + 1,
        accepts_classes=True,
        source="Bridle 1990; softmax and delta = y - t: lecture notes 003 (Dudar 2018)",
    ),
)

LOSSES = {row.name: row for row in _ROWS}
