"""Losses of samples: one row each, in the table ``LOSSES``.

``expression`` defines the loss in the vocabulary of a number system; it never mentions a derivative.
``value_and_cotangent`` is the hand-written floating-point rule that sweeps compile.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from difflab.number_systems import Array, NumberSystem
from difflab.primitives.rounded import SLACK, Rounded, shares


ROOM = 4
"""Numbers of every sample that rules have room for."""


@dataclass(frozen=True)
class Loss:
    """One loss.

    Attributes
    ----------
    name : the word for it in networks and study files.
    expression : ``(m, z, y) -> losses`` over the number system ``m``; z, y : (batch, n_outputs).
    value_and_cotangent : ``(z, y, z_bar, losses, room)``; fills ``losses``, (batch,), and ``z_bar`` with d loss / d z,
        for samples as columns, (n_outputs, batch): so loops over samples can be vectorised, however few outputs there
        are. ``room``, (ROOM, batch), is for numbers on the way.
    cotangent_tangent : ``(z, y, z_dot, z_bar_dot, room)``; fills ``z_bar_dot`` with the Hessian of the loss of each
        sample with respect to z, times ``z_dot``; samples are columns too.
    rounded : ``(z, y) -> (losses, cotangents)`` for a batch: what ``value_and_cotangent`` makes of numbers with errors,
        operation by operation; (batch,) and (batch, n_outputs).
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
    value_and_cotangent: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]
    cotangent_tangent: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]
    rounded: Callable[[Rounded, Rounded], tuple[Rounded, Rounded]]
    value_operations: Callable[[int], int]
    cotangent_operations: Callable[[int], int]
    accepts_classes: bool
    source: str
    outputs: tuple[float, float] = (-math.inf, math.inf)
    targets: tuple[float, float] = (-math.inf, math.inf)
    smoothing_classes: Callable[[int], int] | None = None


def squared_error(m: NumberSystem, z: Array, y: Array) -> Array:
    return m.sum(m.square(z - y) / 2)


def squared_error_sweep(z: np.ndarray, y: np.ndarray, z_bar: np.ndarray, losses: np.ndarray, room: np.ndarray) -> None:
    losses[:] = 0.0
    for k in range(z.shape[0]):
        for i in range(losses.size):
            difference = z[k, i] - y[k, i]
            z_bar[k, i] = difference
            losses[i] += 0.5 * difference * difference


def squared_error_curvature(
    z: np.ndarray, y: np.ndarray, z_dot: np.ndarray, z_bar_dot: np.ndarray, room: np.ndarray
) -> None:
    for k in range(z.shape[0]):
        for i in range(z.shape[1]):
            z_bar_dot[k, i] = z_dot[k, i]


def squared_error_rounded(z: Rounded, y: Rounded) -> tuple[Rounded, Rounded]:
    difference = z - y
    return (difference * difference).scaled(0.5).sum(), difference


def mean_squared_error(m: NumberSystem, z: Array, y: Array) -> Array:
    return m.sum(m.square(z - y) / z.shape[-1])


def mean_squared_error_sweep(
    z: np.ndarray, y: np.ndarray, z_bar: np.ndarray, losses: np.ndarray, room: np.ndarray
) -> None:
    n = z.shape[0]
    losses[:] = 0.0
    for k in range(n):
        for i in range(losses.size):
            difference = z[k, i] - y[k, i]
            z_bar[k, i] = 2.0 * difference / n
            losses[i] += difference * difference
    for i in range(losses.size):
        losses[i] /= n


def mean_squared_error_curvature(
    z: np.ndarray, y: np.ndarray, z_dot: np.ndarray, z_bar_dot: np.ndarray, room: np.ndarray
) -> None:
    n = z.shape[0]
    for k in range(n):
        for i in range(z.shape[1]):
            z_bar_dot[k, i] = 2.0 * z_dot[k, i] / n


def mean_squared_error_rounded(z: Rounded, y: Rounded) -> tuple[Rounded, Rounded]:
    difference, n = z - y, float(z.shape[1])
    return (difference * difference).sum() / n, difference.scaled(2.0) / n


def softmax_cross_entropy(m: NumberSystem, z: Array, y: Array) -> Array:
    """Sum over k of y_k (log sum_j exp z_j - z_k), with the logarithm written once."""
    z = z - m.shift(z)
    return m.log(m.sum(m.exp(z))) * m.sum(y) - m.sum(y * z)


def set_largest(z: np.ndarray, largest: np.ndarray, top: np.ndarray) -> None:
    """Of every sample, the largest logit and the place of the first that is as large.

    A loop copies the first row: copying it whole would have Numba compile, for seconds, how to say that shapes differ.
    """
    for i in range(z.shape[1]):
        largest[i] = z[0, i]
        top[i] = 0.0
    place = 1.0
    for k in range(1, z.shape[0]):
        for i in range(z.shape[1]):
            is_larger = z[k, i] > largest[i]
            top[i] = place if is_larger else top[i]
            largest[i] = z[k, i] if is_larger else largest[i]
        place += 1.0


def exponentials(numbers: np.ndarray) -> None:
    """In place."""
    all_of_them = numbers.reshape(numbers.size)
    for k in range(all_of_them.size):
        all_of_them[k] = math.exp(all_of_them[k])


def logarithms(numbers: np.ndarray) -> None:
    """Of 1 + each, in place."""
    for i in range(numbers.size):
        numbers[i] = math.log1p(numbers[i])


def softmax_cross_entropy_sweep(
    z: np.ndarray, y: np.ndarray, z_bar: np.ndarray, losses: np.ndarray, room: np.ndarray
) -> None:
    """The largest logit is kept out of the sum, so that neither loss nor cotangent cancels when it wins clearly."""
    n, batch = z.shape
    largest, top, weight, rest = room[0], room[1], room[2], room[3]
    set_largest(z, largest, top)
    losses[:] = 0.0
    weight[:] = 0.0
    rest[:] = 0.0
    for k in range(n):
        for i in range(batch):
            z_bar[k, i] = z[k, i] - largest[i]
            weight[i] += y[k, i]
            losses[i] += y[k, i] * z_bar[k, i]
    exponentials(z_bar)
    place = 0.0
    for k in range(n):
        for i in range(batch):
            rest[i] += 0.0 if place == top[i] else z_bar[k, i]
        place += 1.0
    place = 0.0
    for k in range(n):
        for i in range(batch):
            total = 1.0 + rest[i]
            of_top = (weight[i] - y[k, i]) - y[k, i] * rest[i]
            of_others = weight[i] * z_bar[k, i] - y[k, i] * total
            z_bar[k, i] = (of_top if place == top[i] else of_others) / total
        place += 1.0
    logarithms(rest)
    for i in range(batch):
        losses[i] = weight[i] * rest[i] - losses[i]


def softmax_cross_entropy_curvature(
    z: np.ndarray, y: np.ndarray, z_dot: np.ndarray, z_bar_dot: np.ndarray, room: np.ndarray
) -> None:
    """By weight p_k (lead_k - sum_j p_j lead_j), where leads over that of the largest logit do not cancel."""
    n, batch = z.shape
    largest, top, total, mean = room[0], room[1], room[2], room[3]
    set_largest(z, largest, top)
    for k in range(n):
        for i in range(batch):
            z_bar_dot[k, i] = z[k, i] - largest[i]
    exponentials(z_bar_dot)
    weight, lead_of_top = largest, top
    for i in range(batch):
        lead_of_top[i] = z_dot[int(top[i]), i]
    total[:] = 0.0
    weight[:] = 0.0
    mean[:] = 0.0
    for k in range(n):
        for i in range(batch):
            total[i] += z_bar_dot[k, i]
            weight[i] += y[k, i]
            mean[i] += z_bar_dot[k, i] * (z_dot[k, i] - lead_of_top[i])
    for i in range(batch):
        mean[i] /= total[i]
    for k in range(n):
        for i in range(batch):
            share = z_bar_dot[k, i] / total[i]
            z_bar_dot[k, i] = weight[i] * share * ((z_dot[k, i] - lead_of_top[i]) - mean[i])


def softmax_cross_entropy_rounded(z: Rounded, y: Rounded) -> tuple[Rounded, Rounded]:
    """Loss and cotangent are the same whichever logit is kept out; where several may be the largest, at worst."""
    top = z.middle.argmax(axis=1)
    losses, z_bar = softmax_cross_entropy_against(z, y, top)
    is_open = z.may_be_largest() & (np.arange(z.shape[1]) != top[:, None])
    for k in np.flatnonzero(is_open.any(axis=0)):
        other_losses, other_bar = softmax_cross_entropy_against(z, y, np.where(is_open[:, k], k, top))
        losses = losses.or_perhaps(is_open[:, k], other_losses)
        z_bar = z_bar.or_perhaps(is_open[:, k, None], other_bar)
    return losses, z_bar


def softmax_cross_entropy_against(z: Rounded, y: Rounded, top: np.ndarray) -> tuple[Rounded, Rounded]:
    """With the logit of every sample that is kept out; for the arithmetic no other is larger.

    Of cotangents, roundings and errors that are passed on are found apart. These are passed on as by weight p - y, for
    the logit that is kept out as by weight / (1 + rest) - y. No two cotangents are further apart than the weights are
    large, a few times.
    """
    losses, z_bar = in_terms_of_rest(z, y, top)
    _, made = in_terms_of_rest(z.settled, y.settled, top)
    labels, rest = y.unrounded, tails_of(z.unrounded, top)[1].sum()[:, None]
    weight = labels.sum()[:, None]
    of_top = weight.over(1 + rest, least=1.0) - of_row(labels, top)
    passed_on = of_top.or_else(is_at(top, z), weight * shares(z.unrounded) - labels)
    z_bar = replace(z_bar, error=(made.error + passed_on.error) * SLACK)
    return losses, z_bar.within(4 * (y.reach.sum(axis=1, keepdims=True) + y.reach))


def in_terms_of_rest(z: Rounded, y: Rounded, top: np.ndarray) -> tuple[Rounded, Rounded]:
    """The total in both terms of (weight e - y total) / total is one number, its error in weight e / total alone."""
    shifted, e = tails_of(z, top)
    rest, weight, dot = e.sum()[:, None], y.sum()[:, None], (y * shifted).sum()
    total, y_top = 1 + rest, of_row(y, top)
    of_top = ((weight - y_top) - y_top * rest).over(total, least=1.0)
    of_others = weight * e.over(total, least=1.0) - y.rounded(~(y.is_zero | y.is_one))
    z_bar = of_top.or_else(is_at(top, z), of_others)
    return (weight * rest.log1p(least=0.0))[:, 0] - dot, z_bar.rounded(~z_bar.is_zero)


def tails_of(z: Rounded, top: np.ndarray) -> tuple[Rounded, Rounded]:
    """How far logits are below one of each row, and their exponentials; zeros for that one."""
    shifted = (z - of_row(z, top)).only(~is_at(top, z))
    return shifted, decaying(shifted).only(~is_at(top, z))


def is_at(places: np.ndarray, numbers: Rounded) -> np.ndarray:
    return np.arange(numbers.shape[1]) == places[:, None]


def decaying(exponents: Rounded) -> Rounded:
    """Exponentials, where the arithmetic's exponents are not positive."""
    largest = np.maximum(1 + exponents.arithmetic.growth(3), np.exp(exponents.middle + exponents.doubt) * SLACK)
    return exponents.exp().within(largest)


def of_row(numbers: Rounded, places: np.ndarray) -> Rounded:
    """One entry of each row, (batch, 1)."""
    return numbers[np.arange(len(places)), places][:, None]


def sigmoid_cross_entropy(m: NumberSystem, z: Array, y: Array) -> Array:
    return m.sum(y * m.log1pexp(-z) + (1 - y) * m.log1pexp(z))


def sigmoid_cross_entropy_sweep(
    z: np.ndarray, y: np.ndarray, z_bar: np.ndarray, losses: np.ndarray, room: np.ndarray
) -> None:
    """Written in the weights of the label that z speaks against and of the one it agrees with."""
    losses[:] = 0.0
    for k in range(z.shape[0]):
        for i in range(losses.size):
            size = abs(z[k, i])
            tail = math.exp(-size)
            rest = 1.0 - y[k, i]
            against, agreeing = (rest, y[k, i]) if z[k, i] >= 0 else (y[k, i], rest)
            slope = (against - agreeing * tail) / (1.0 + tail)
            z_bar[k, i] = slope if z[k, i] >= 0 else -slope
            losses[i] += math.log1p(tail) + against * size


def sigmoid_cross_entropy_curvature(
    z: np.ndarray, y: np.ndarray, z_dot: np.ndarray, z_bar_dot: np.ndarray, room: np.ndarray
) -> None:
    for k in range(z.shape[0]):
        for i in range(z.shape[1]):
            tail = math.exp(-abs(z[k, i]))
            z_bar_dot[k, i] = tail / (1.0 + tail) / (1.0 + tail) * z_dot[k, i]


def sigmoid_cross_entropy_rounded(z: Rounded, y: Rounded) -> tuple[Rounded, Rounded]:
    """Both sides of 0 have formulas of the same numbers; where the side is open, at worst."""
    side = np.where(z.middle >= 0, 1.0, -1.0)
    losses, z_bar = sigmoid_cross_entropy_on(side, z, y)
    is_open = (np.abs(z.middle) <= z.around) & (z.around > 0)
    if is_open.any():
        other_losses, other_bar = sigmoid_cross_entropy_on(-side, z, y)
        losses, z_bar = losses.or_perhaps(is_open, other_losses), z_bar.or_perhaps(is_open, other_bar)
    return losses.sum(), z_bar


def sigmoid_cross_entropy_on(side: np.ndarray, z: Rounded, y: Rounded) -> tuple[Rounded, Rounded]:
    """The terms of the loss and the cotangent, for an arithmetic that finds z on that side of 0.

    Of cotangents, errors are passed on as by against - tail / (1 + tail), apart from roundings.
    """
    losses, z_bar = in_terms_of_tail(side, z, y)
    _, made = in_terms_of_tail(side, z.settled, y.settled)
    one = z.arithmetic.exact(np.ones(z.shape))
    passed_on = y.error + one.over(1 + decaying(-z.unrounded.scaled(side)), least=1.0).error
    z_bar = replace(z_bar, error=(made.error + passed_on) * SLACK)
    return losses, z_bar.within(4 * (1 + y.reach))


def in_terms_of_tail(side: np.ndarray, z: Rounded, y: Rounded) -> tuple[Rounded, Rounded]:
    size, rest = z.scaled(side), 1 - y
    tail = decaying(-size)
    against, agreeing = rest.or_else(side > 0, y), y.or_else(side > 0, rest)
    slope = against - agreeing * tail
    slope = slope.over(1 + tail, least=1.0).rounded(~slope.is_zero)
    return tail.log1p(least=0.0) + against * size, slope.scaled(side)


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


def binary_cross_entropy_sweep(
    z: np.ndarray, y: np.ndarray, z_bar: np.ndarray, losses: np.ndarray, room: np.ndarray
) -> None:
    losses[:] = 0.0
    for k in range(z.shape[0]):
        for i in range(losses.size):
            of_zero = weighted(1.0 - y[k, i], logarithm_of_rest(z[k, i]))
            losses[i] -= weighted(y[k, i], logarithm(z[k, i])) + of_zero
            z_bar[k, i] = binary_cross_entropy_slope(z[k, i], y[k, i])


def binary_cross_entropy_curvature(
    z: np.ndarray, y: np.ndarray, z_dot: np.ndarray, z_bar_dot: np.ndarray, room: np.ndarray
) -> None:
    """y / z**2 + (1 - y) / (1 - z)**2, times the tangent; a weight of 0 silences what is infinite."""
    for k in range(z.shape[0]):
        for i in range(z.shape[1]):
            of_one = quotient(quotient(y[k, i], z[k, i]), z[k, i])
            of_zero = quotient(quotient(1.0 - y[k, i], 1.0 - z[k, i]), 1.0 - z[k, i])
            z_bar_dot[k, i] = (of_one + of_zero) * z_dot[k, i]


def binary_cross_entropy_rounded(z: Rounded, y: Rounded) -> tuple[Rounded, Rounded]:
    """Labels that are 0 or 1, or may be rounded to them, have formulas of their own."""
    rest = 1 - y
    terms = (y * z.log()).only(~y.is_zero) + (rest * (-z).log1p()).only(~rest.is_zero)
    slope = binary_cross_entropy_slope_rounded(z, y)
    for label, of_label in ((0.0, 1 / (1 - z)), (1.0, -(1 / z))):
        apart = np.abs(y.middle - label)
        slope = of_label.or_else((apart == 0) & (y.around == 0), slope)
        slope = slope.or_perhaps((apart <= y.around) & (y.around > 0), of_label, is_same=False)
    return -terms.sum(), slope


def binary_cross_entropy_slope_rounded(z: Rounded, y: Rounded) -> Rounded:
    """(z - y) / (z (1 - z)): errors passed on as by (1 - y) / (1 - z) - y / z, and four roundings."""
    outputs, labels, by = z.unrounded, y.unrounded, z.arithmetic
    slope = replace((1 - labels) / (1 - outputs) - labels / outputs, arithmetic=by)
    underflow = by.smallest / np.fmax(z.middle - z.around * SLACK, 0.0)
    return slope.worse(by.growth(6) + 2 * underflow).rounded(underflows=True)


def kl_divergence(m: NumberSystem, z: Array, y: Array) -> Array:
    return m.sum(m.xlogx(y) - log_of_weighted(m, y, z))


def divergence(y: float, z: float) -> float:
    """y log(y / z), which must not cancel near z = y."""
    surplus = y - z
    if abs(surplus) < 0.5 * z:
        return y * math.log1p(surplus / z)
    return weighted(y, logarithm(y)) - weighted(y, logarithm(z))


def kl_divergence_sweep(z: np.ndarray, y: np.ndarray, z_bar: np.ndarray, losses: np.ndarray, room: np.ndarray) -> None:
    losses[:] = 0.0
    for k in range(z.shape[0]):
        for i in range(losses.size):
            losses[i] += divergence(y[k, i], z[k, i])
            z_bar[k, i] = -quotient(y[k, i], z[k, i])


def kl_divergence_curvature(
    z: np.ndarray, y: np.ndarray, z_dot: np.ndarray, z_bar_dot: np.ndarray, room: np.ndarray
) -> None:
    for k in range(z.shape[0]):
        for i in range(z.shape[1]):
            z_bar_dot[k, i] = quotient(quotient(y[k, i], z[k, i]), z[k, i]) * z_dot[k, i]


def kl_divergence_rounded(z: Rounded, y: Rounded) -> tuple[Rounded, Rounded]:
    """Both ways to the logarithm of y / z lead to the same number; where it is open which is taken, at worst."""
    surplus, half = z - y, z.scaled(0.5)
    near = y * (-(surplus / z)).log1p()
    far = y * y.log() - y * z.log()
    ahead = np.abs(surplus.middle) - half.middle
    is_open = np.abs(ahead) <= 2 * (surplus.around + half.around)
    divergence = near.or_else(ahead < 0, far)
    divergence = divergence.or_perhaps(is_open, near).or_perhaps(is_open, far).only(~y.is_zero)
    return divergence.sum(), -(y / z)


ROWS = (
    Loss(
        "squared_error",
        expression=squared_error,
        value_and_cotangent=squared_error_sweep,
        cotangent_tangent=squared_error_curvature,
        rounded=squared_error_rounded,
        value_operations=lambda k: 4 * k,
        cotangent_operations=lambda k: 0,
        accepts_classes=False,
        source="one half of the sum of squares: Rumelhart, Hinton, Williams 1986; lecture notes 001 and 004",
    ),
    Loss(
        "mean_squared_error",
        expression=mean_squared_error,
        value_and_cotangent=mean_squared_error_sweep,
        cotangent_tangent=mean_squared_error_curvature,
        rounded=mean_squared_error_rounded,
        value_operations=lambda k: 3 * k + 1,
        cotangent_operations=lambda k: 2 * k,
        accepts_classes=False,
        source="lecture notes 002 (Winovich 2018), slide 40",
    ),
    Loss(
        "softmax_cross_entropy",
        expression=softmax_cross_entropy,
        value_and_cotangent=softmax_cross_entropy_sweep,
        cotangent_tangent=softmax_cross_entropy_curvature,
        rounded=softmax_cross_entropy_rounded,
        value_operations=lambda k: 6 * k + 3,
        cotangent_operations=lambda k: 8 * k,
        accepts_classes=True,
        source="Bridle 1990; softmax and delta = y - t: lecture notes 003 (Dudar 2018)",
        smoothing_classes=lambda k: k,
    ),
    Loss(
        "sigmoid_cross_entropy",
        expression=sigmoid_cross_entropy,
        value_and_cotangent=sigmoid_cross_entropy_sweep,
        cotangent_tangent=sigmoid_cross_entropy_curvature,
        rounded=sigmoid_cross_entropy_rounded,
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
        cotangent_tangent=binary_cross_entropy_curvature,
        rounded=binary_cross_entropy_rounded,
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
        cotangent_tangent=kl_divergence_curvature,
        rounded=kl_divergence_rounded,
        value_operations=lambda k: 8 * k,
        cotangent_operations=lambda k: k,
        accepts_classes=True,
        source="Kullback, Leibler 1951; lecture notes 001",
        outputs=(0.0, 1.0),
        targets=(0.0, math.inf),
        smoothing_classes=lambda k: k,
    ),
)

LOSSES = {row.name: row for row in ROWS}
