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
from difflab.primitives.activations import sigmoid_derivative


@dataclass(frozen=True)
class Loss:
    """One loss.

    Attributes
    ----------
    name : the word for it in networks and study files.
    expression : ``(m, z, y) -> losses`` over the number system ``m``; z, y : (batch, n_outputs).
    value_and_cotangent : ``(z, y, z_bar) -> loss`` for one sample in float64; fills ``z_bar`` with d loss / d z.
    cotangent_error : ``(z, y, error) -> (n_outputs,)`` for one sample: how far errors of z, bounded by ``error``, move
        the cotangent, to first order: the magnitudes of the second derivative times ``error``.
    is_difference : ``y -> whether`` the cotangent is formed as a difference of numbers of the order of y.
    value_operations, cotangent_operations : operations of the two parts of ``value_and_cotangent``, from n_outputs.
    accepts_classes : whether targets may be class indices, standing for one-hot rows.
    source : where the formula is from.
    outputs, targets : the intervals in which z and y must lie; at an end of ``outputs`` loss and cotangent may be
        infinite.
    smoothing_classes : the number C of classes that share the weight s of smoothed labels y (1 - s) + s / C, from
        n_outputs [Szegedy et al. 2016; lecture notes 001]; None where targets are no labels.
    """

    name: str
    expression: Callable[[NumberSystem, Array, Array], Array]
    value_and_cotangent: Callable[[np.ndarray, np.ndarray, np.ndarray], float]
    cotangent_error: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    is_difference: Callable[[np.ndarray], bool]
    value_operations: Callable[[int], int]
    cotangent_operations: Callable[[int], int]
    accepts_classes: bool
    source: str
    outputs: tuple[float, float] = (-math.inf, math.inf)
    targets: tuple[float, float] = (-math.inf, math.inf)
    smoothing_classes: Callable[[int], int] | None = None


def squared_error(m: NumberSystem, z: Array, y: Array) -> Array:
    return m.sum(m.square(z - y) / 2)


def squared_error_sweep(z: np.ndarray, y: np.ndarray, z_bar: np.ndarray) -> float:
    loss = 0.0
    for k in range(z.size):
        difference = z[k] - y[k]
        z_bar[k] = difference
        loss += 0.5 * difference * difference
    return loss


def squared_error_cotangent_error(z: np.ndarray, y: np.ndarray, error: np.ndarray) -> np.ndarray:
    return error


def mean_squared_error(m: NumberSystem, z: Array, y: Array) -> Array:
    return m.sum(m.square(z - y) / z.shape[-1])


def mean_squared_error_sweep(z: np.ndarray, y: np.ndarray, z_bar: np.ndarray) -> float:
    total = 0.0
    for k in range(z.size):
        difference = z[k] - y[k]
        z_bar[k] = 2.0 * difference / z.size
        total += difference * difference
    return total / z.size


def mean_squared_error_cotangent_error(z: np.ndarray, y: np.ndarray, error: np.ndarray) -> np.ndarray:
    return 2.0 / z.size * error


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


def softmax_cross_entropy_cotangent_error(z: np.ndarray, y: np.ndarray, error: np.ndarray) -> np.ndarray:
    """p times p of all others, each with the errors of both, with 1 - p as a sum, which does not cancel."""
    e = np.exp(z - z.max())
    p, others = e / e.sum(), 1.0 - np.eye(z.size)
    return abs(y.sum()) * p * ((p @ others) * error + (p * error) @ others)


def sigmoid_cross_entropy(m: NumberSystem, z: Array, y: Array) -> Array:
    return m.sum(y * m.log1pexp(-z) + (1 - y) * m.log1pexp(z))


def sigmoid_cross_entropy_sweep(z: np.ndarray, y: np.ndarray, z_bar: np.ndarray) -> float:
    """Written in the weights of the label that z speaks against and of the one it agrees with."""
    loss = 0.0
    for k in range(z.size):
        tail = math.exp(-abs(z[k]))
        rest = 1.0 - y[k]
        against, agreeing = (rest, y[k]) if z[k] >= 0 else (y[k], rest)
        slope = (against - agreeing * tail) / (1.0 + tail)
        z_bar[k] = slope if z[k] >= 0 else -slope
        loss += math.log1p(tail) + against * abs(z[k])
    return loss


def sigmoid_cross_entropy_cotangent_error(z: np.ndarray, y: np.ndarray, error: np.ndarray) -> np.ndarray:
    return np.array([sigmoid_derivative(z_k) for z_k in z]) * error


def log_of_weighted(m: NumberSystem, weight: Array, z: Array) -> Array:
    """``weight`` log z, and 0 for a weight of exactly 0, even at z = 0."""
    return weight * m.log(np.where(weight == 0, 0 * z + 1, z))


def binary_cross_entropy(m: NumberSystem, z: Array, y: Array) -> Array:
    return m.sum(-log_of_weighted(m, y, z) - log_of_weighted(m, 1 - y, 1 - z))


def logarithm(z: float) -> float:
    """With the infinity of IEEE arithmetic at 0, where Python's raises."""
    if z > 0:
        return math.log(z)
    return -math.inf if z == 0 else math.nan


def logarithm_of_rest(z: float) -> float:
    """log(1 - z)."""
    if z < 1:
        return math.log1p(-z)
    return -math.inf if z == 1 else math.nan


def weighted(weight: float, z: float) -> float:
    """A weight of 0 silences an infinity, but no NaN."""
    return 0.0 if weight == 0 and abs(z) == math.inf else weight * z


def quotient(a: float, b: float) -> float:
    """With the infinities of IEEE arithmetic at b = 0, where Python raises, and 0 / 0 = 0."""
    if b == 0:
        return 0.0 if a == 0 else math.copysign(math.inf, a)
    return a / b


def binary_cross_entropy_slope(z: float, y: float) -> float:
    """(1 - y) / (1 - z) - y / z, which would cancel near z = y."""
    if y == 0:
        return quotient(1.0, 1.0 - z)
    if y == 1:
        return -quotient(1.0, z)
    return quotient(z - y, z * (1.0 - z))


def binary_cross_entropy_sweep(z: np.ndarray, y: np.ndarray, z_bar: np.ndarray) -> float:
    loss = 0.0
    for k in range(z.size):
        loss -= weighted(y[k], logarithm(z[k])) + weighted(1.0 - y[k], logarithm_of_rest(z[k]))
        z_bar[k] = binary_cross_entropy_slope(z[k], y[k])
    return loss


def slope_errors_of_logarithms(weights: np.ndarray, z: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Of -weight / z, as a product of quotients: z**2 may underflow."""
    pairs = zip(weights, z, error, strict=True)
    return np.array([quotient(w, z_k) * quotient(e, z_k) if w else 0.0 for w, z_k, e in pairs])


def binary_cross_entropy_cotangent_error(z: np.ndarray, y: np.ndarray, error: np.ndarray) -> np.ndarray:
    return slope_errors_of_logarithms(y, z, error) + slope_errors_of_logarithms(1.0 - y, 1.0 - z, error)


def kl_divergence(m: NumberSystem, z: Array, y: Array) -> Array:
    return m.sum(m.xlogx(y) - log_of_weighted(m, y, z))


def divergence(y: float, z: float) -> float:
    """y log(y / z), which must not cancel near z = y."""
    surplus = y - z
    if abs(surplus) < 0.5 * z:
        return y * math.log1p(surplus / z)
    return weighted(y, logarithm(y)) - weighted(y, logarithm(z))


def kl_divergence_sweep(z: np.ndarray, y: np.ndarray, z_bar: np.ndarray) -> float:
    loss = 0.0
    for k in range(z.size):
        loss += divergence(y[k], z[k])
        z_bar[k] = -quotient(y[k], z[k])
    return loss


def kl_divergence_cotangent_error(z: np.ndarray, y: np.ndarray, error: np.ndarray) -> np.ndarray:
    return slope_errors_of_logarithms(y, z, error)


def has_soft_labels(y: np.ndarray) -> bool:
    return not np.isin(y, (0.0, 1.0)).all()


def has_shared_weight(y: np.ndarray) -> bool:
    """Whether a sample has more than one label, hard or soft."""
    return bool((np.count_nonzero(y, axis=-1) > 1).any())


_ROWS = (
    Loss(
        "squared_error",
        expression=squared_error,
        value_and_cotangent=squared_error_sweep,
        cotangent_error=squared_error_cotangent_error,
        is_difference=lambda y: False,
        value_operations=lambda k: 4 * k,
        cotangent_operations=lambda k: 0,
        accepts_classes=False,
        source="one half of the sum of squares: Rumelhart, Hinton, Williams 1986; lecture notes 001 and 004",
    ),
    Loss(
        "mean_squared_error",
        expression=mean_squared_error,
        value_and_cotangent=mean_squared_error_sweep,
        cotangent_error=mean_squared_error_cotangent_error,
        is_difference=lambda y: False,
        value_operations=lambda k: 3 * k + 1,
        cotangent_operations=lambda k: 2 * k,
        accepts_classes=False,
        source="lecture notes 002 (Winovich 2018), slide 40",
    ),
    Loss(
        "softmax_cross_entropy",
        expression=softmax_cross_entropy,
        value_and_cotangent=softmax_cross_entropy_sweep,
        cotangent_error=softmax_cross_entropy_cotangent_error,
        is_difference=has_shared_weight,
        value_operations=lambda k: 6 * k + 1,
        cotangent_operations=lambda k: 4 * k + 1,
        accepts_classes=True,
        source="Bridle 1990; softmax and delta = y - t: lecture notes 003 (Dudar 2018)",
        smoothing_classes=lambda k: k,
    ),
    Loss(
        "sigmoid_cross_entropy",
        expression=sigmoid_cross_entropy,
        value_and_cotangent=sigmoid_cross_entropy_sweep,
        cotangent_error=sigmoid_cross_entropy_cotangent_error,
        is_difference=has_soft_labels,
        value_operations=lambda k: 6 * k,
        cotangent_operations=lambda k: 4 * k,
        accepts_classes=False,
        source="labels that are not mutually exclusive: lecture notes 002 (Winovich 2018), slide 40",
        targets=(0.0, 1.0),
        smoothing_classes=lambda k: 2,
    ),
    Loss(
        "binary_cross_entropy",
        expression=binary_cross_entropy,
        value_and_cotangent=binary_cross_entropy_sweep,
        cotangent_error=binary_cross_entropy_cotangent_error,
        is_difference=lambda y: False,
        value_operations=lambda k: 7 * k,
        cotangent_operations=lambda k: 4 * k,
        accepts_classes=False,
        source="divergence of a binary classifier: lecture notes 001",
        outputs=(0.0, 1.0),
        targets=(0.0, 1.0),
        smoothing_classes=lambda k: 2,
    ),
    Loss(
        "kl_divergence",
        expression=kl_divergence,
        value_and_cotangent=kl_divergence_sweep,
        cotangent_error=kl_divergence_cotangent_error,
        is_difference=lambda y: False,
        value_operations=lambda k: 8 * k,
        cotangent_operations=lambda k: k,
        accepts_classes=True,
        source="Kullback, Leibler 1951; lecture notes 001",
        outputs=(0.0, 1.0),
        targets=(0.0, math.inf),
        smoothing_classes=lambda k: k,
    ),
)

LOSSES = {row.name: row for row in _ROWS}
