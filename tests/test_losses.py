"""Every row of LOSSES against proven enclosures, at every kind of output and target that the row accepts."""

import math
from dataclasses import replace

import numpy as np
import pytest
from entered import entered
from flint import arb

from difflab.kernels.target import compiled_rule
from difflab.number_systems import BALLS, COMPLEX128, FLOAT64, SERIES, Symbols, ball_precision, coefficient
from difflab.primitives.losses import LOSSES, ROOM, Loss
from difflab.primitives.rounded import EXACT


losses = pytest.mark.parametrize("row", LOSSES.values(), ids=lambda row: row.name)

BITS = 6000
"""Enough to see 1 - p of a class whose logit leads by 2000: exp(-2000) is 2**-2886."""

EPS = 2.0**-52
TINY = 5e-324

CROSS_ENTROPY = LOSSES["softmax_cross_entropy"]
SIGMOID = LOSSES["sigmoid_cross_entropy"]
BINARY = LOSSES["binary_cross_entropy"]
DIVERGENCE = LOSSES["kl_divergence"]

ON_LOGITS = [row for row in LOSSES.values() if row.outputs == (-math.inf, math.inf)]
ON_PROBABILITIES = [BINARY, DIVERGENCE]
LABELLED = [row for row in LOSSES.values() if row.smoothing_classes]
on_logits = pytest.mark.parametrize("row", ON_LOGITS, ids=lambda row: row.name)
on_probabilities = pytest.mark.parametrize("row", ON_PROBABILITIES, ids=lambda row: row.name)
labelled = pytest.mark.parametrize("row", LABELLED, ids=lambda row: row.name)


def one_hot(k: int, n: int) -> np.ndarray:
    return np.eye(n)[k]


# --- truth and bounds


def exact_slopes(row: Loss, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Balls of the derivative along each output, from the defining expression."""
    axes = np.eye(outputs.size, dtype=int)
    lines = (SERIES.line(outputs[None], axis[None]) for axis in axes)
    return np.array([coefficient(row.expression(SERIES, line, targets[None]), 1)[0] for line in lines])


def truth(row: Loss, z: np.ndarray, y: np.ndarray) -> tuple[arb, np.ndarray]:
    """Balls of the loss and of its derivative along each output."""
    outputs, targets = BALLS.array(z), BALLS.array(y)
    return row.expression(BALLS, outputs[None], targets[None])[0], exact_slopes(row, outputs, targets)


def swept(row: Loss, z: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    z_bar, losses = np.full((z.size, 1), np.nan), np.full(1, np.nan)
    row.value_and_cotangent(z[:, None], y[:, None], z_bar, losses, room())
    return losses[0], z_bar[:, 0]


def room() -> np.ndarray:
    return np.full((ROOM, 1), np.nan)


def rounding(row: Loss, z: np.ndarray) -> float:
    """Of a sum of n terms, of which those of softmax are exponentials with arguments off by eps/2 of themselves."""
    spread = np.ptp(z) + z.size if row is CROSS_ENTROPY else 0
    return (spread + z.size + 8) * EPS / 2


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max())
    return e / e.sum()


def cancelled(y: np.ndarray) -> float:
    """The weight of targets that cancels in their sum: 0 for targets of one sign."""
    return float(np.abs(y).sum() - abs(y.sum()))


def value_size(row: Loss, z: np.ndarray, y: np.ndarray) -> float:
    """What the loss is a difference of, besides itself."""
    if row is CROSS_ENTROPY:
        return cancelled(y) * (np.ptp(z) + np.log(z.size))
    return divergence_size(z, y) if row is DIVERGENCE else 0.0


def divergence_size(z: np.ndarray, y: np.ndarray) -> float:
    """The terms have both signs, and those far from z = y are two logarithms each."""
    some, far = y > 0, np.abs(y - z) >= 0.5 * z
    logs = np.where(far, np.abs(np.log(np.where(some, y, 1))) + np.abs(np.log(np.where(some, z, 1))), 0)
    return float((y * logs + np.abs(y - z)).sum())


def is_difference(row: Loss, y: np.ndarray) -> bool:
    """Whether cotangents are formed as differences of numbers of the order of y: of several labels, hard or soft."""
    if row is CROSS_ENTROPY:
        return np.count_nonzero(y) > 1
    return row is SIGMOID and not np.isin(y, (0.0, 1.0)).all()


def slope_sizes(row: Loss, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What the cotangents are differences of, besides themselves: soft labels are subtracted."""
    if not is_difference(row, y):
        return np.zeros(z.size)
    return np.abs(y) + (softmax(z) * cancelled(y) if row is CROSS_ENTROPY else 0.0)


def assert_close(got: float, exact: arb, bound: float) -> None:
    assert abs(float(arb(float(got)) - exact)) <= bound


def assert_sweep_is_right(row: Loss, z: np.ndarray, y: np.ndarray) -> None:
    """Every figure is right to its own rounding, or to that of what it is the difference of."""
    known = LOSSES[row.name]
    loss, z_bar = swept(row, z, y)
    # The subnormal terms of a sum are each off by half of the smallest number.
    relative, least = rounding(known, z), z.size * TINY
    with ball_precision(BITS):
        exact_loss, exact = truth(row, z, y)
        assert_close(loss, exact_loss, relative * (abs(float(exact_loss)) + value_size(known, z, y)) + least)
        for got, slope, size in zip(z_bar, exact, slope_sizes(known, z, y), strict=True):
            assert_close(got, slope, relative * (abs(float(slope)) + 2 * size) + least)


# --- arguments that a row accepts


def inside(z: np.ndarray) -> np.ndarray:
    return np.clip(z, TINY, 1 - EPS / 2)


def random_outputs(row: Loss, rng: np.random.Generator, n: int) -> np.ndarray:
    """Logits of sizes 0.01 to 100, or the probabilities that they are the logits of."""
    logits = rng.normal(size=n) * 10 ** rng.uniform(-2, 2)
    return inside(1 / (1 + np.exp(-logits))) if row in ON_PROBABILITIES else logits


def hard_targets(row: Loss, rng: np.random.Generator, n: int) -> np.ndarray:
    """A class, or where classes are not exclusive any set of them."""
    if row in (SIGMOID, BINARY):
        return rng.integers(0, 2, n).astype(float)
    return one_hot(rng.integers(n), n)


def soft_targets(row: Loss, rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.dirichlet(np.ones(n)) if row.accepts_classes else rng.uniform(size=n)


def any_targets(row: Loss, rng: np.random.Generator, n: int) -> np.ndarray:
    """Over the whole interval of targets."""
    spread = rng.normal(size=n) * 10 ** rng.uniform(-3, 3)
    return np.clip(spread, *row.targets)


KINDS = {"hard": hard_targets, "soft": soft_targets, "any": any_targets}
kinds = pytest.mark.parametrize("targets", KINDS.values(), ids=KINDS)


# --- values and cotangents


@losses
@kinds
def test_random_outputs_are_right_to_the_last_bits(row, targets):
    rng = np.random.default_rng(0)
    for _ in range(60):
        n = int(rng.integers(2, 9))
        assert_sweep_is_right(row, random_outputs(row, rng, n), targets(row, rng, n))


@labelled
def test_smoothed_labels_are_right(row):
    rng = np.random.default_rng(1)
    for smoothing in (1e-3, 0.1, 0.9, 1.0):
        classes = row.smoothing_classes(5)
        y = hard_targets(row, rng, 5) * (1 - smoothing) + smoothing / classes
        assert_sweep_is_right(row, random_outputs(row, rng, 5), y)


@on_logits
@pytest.mark.parametrize("label", [0, 1, 2])
def test_saturated_logits_neither_overflow_nor_lose_the_small_cotangents(row, label):
    for z in ([1000.0, -1000.0, 0.0], [-1000.0, 1000.0, 300.0], [1000.0, 999.0, 1000.0], [-1000.0, -1300.0, -1690.0]):
        assert_sweep_is_right(row, np.array(z), one_hot(label, 3))


@on_probabilities
@pytest.mark.parametrize("label", [0, 1, 2])
def test_saturated_probabilities_keep_the_digits_of_loss_and_cotangent(row, label):
    least, most = 2.3e-308, 1 - EPS / 2
    for z in ([least, most, 0.5], [most, 1e-200, EPS], [1e-16, 1 - 1e-15, 1e-300], [EPS / 2, 0.5, most]):
        assert_sweep_is_right(row, np.array(z), one_hot(label, 3))


@on_logits
@pytest.mark.parametrize("height", [0.0, -3.0, 1000.0])
def test_tied_logits_are_right(row, height):
    assert_sweep_is_right(row, np.full(4, height), one_hot(2, 4))
    assert_sweep_is_right(row, np.array([height, height - 1, height]), one_hot(2, 3))


@on_probabilities
@pytest.mark.parametrize("height", [1e-300, 1e-9, 0.25, 0.5, 1 - EPS])
def test_tied_probabilities_are_right(row, height):
    for y in (one_hot(2, 4), np.full(4, 0.25), np.array([0.0, 1.0, 0.5, height])):
        assert_sweep_is_right(row, np.full(4, height), y)


@on_probabilities
@pytest.mark.parametrize("distance", [0.0, 1e-15, 1e-9, 1e-3, 0.3, 0.49, 0.51])
def test_outputs_next_to_their_targets_lose_no_digits(row, distance):
    y = np.array([1e-12, 0.2, 0.5, 0.6])
    assert_sweep_is_right(row, y * (1 + distance), y)
    assert_sweep_is_right(row, y * (1 - distance), y)


def test_a_subnormal_probability_is_no_reason_to_overflow():
    with np.errstate(over="ignore"):
        loss, z_bar = swept(DIVERGENCE, np.array([TINY, 0.5]), np.array([1.0, 0.0]))
    assert z_bar[0] == -math.inf
    assert abs(loss - 1074 * math.log(2)) <= 8 * EPS * loss
    assert_sweep_is_right(DIVERGENCE, np.array([TINY, 0.5]), np.array([1e-20, 0.0]))


@pytest.mark.parametrize("lead", [1.0, 20.0, 36.0, 37.0, 40.0, 100.0, 600.0])
def test_cotangent_of_a_winning_class_keeps_its_digits(lead):
    """There p rounds to 1, and p - 1 would be 0."""
    z = np.array([0.0, lead, -1.0])
    loss, z_bar = swept(CROSS_ENTROPY, z, one_hot(1, 3))
    missing = (np.exp(-lead) + np.exp(-lead - 1)) / (1 + np.exp(-lead) + np.exp(-lead - 1))
    assert abs(z_bar[1] + missing) <= 2 * rounding(CROSS_ENTROPY, z) * missing
    assert_sweep_is_right(CROSS_ENTROPY, z, one_hot(1, 3))


@pytest.mark.parametrize("lead", [1.0, 37.0, 100.0, 600.0])
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_cotangent_of_a_confident_label_keeps_its_digits(lead, label):
    z = np.array([lead if label else -lead])
    loss, z_bar = swept(SIGMOID, z, np.array([label]))
    assert loss == pytest.approx(math.log1p(math.exp(-lead)), rel=4 * EPS)
    assert abs(z_bar[0]) == pytest.approx(math.exp(-lead) / (1 + math.exp(-lead)), rel=4 * EPS)
    assert_sweep_is_right(SIGMOID, z, np.array([label]))


@pytest.mark.parametrize("z", [-1e308, -800.0, 800.0, 1e308])
def test_no_logit_overflows(z):
    for label in (0.0, 1.0):
        loss, z_bar = swept(SIGMOID, np.array([z]), np.array([label]))
        is_wrong = (z > 0) != bool(label)
        assert loss == (abs(z) if is_wrong else 0.0)
        assert z_bar[0] == (math.copysign(1.0, z) if is_wrong else 0.0)


def test_labels_that_do_not_sum_to_one_are_right():
    """Two hard labels are a difference too: of twice the softmax and 1."""
    for y in ([0.5, 2.0, 0.25], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.7, 0.0]):
        for z in ([0.3, -1.2, 2.0], [1e-6, 0.0, -40.0]):
            assert_sweep_is_right(CROSS_ENTROPY, np.array(z), np.array(y))


def test_zero_labels_give_zero():
    loss, z_bar = swept(CROSS_ENTROPY, np.array([1.0, 2.0]), np.zeros(2))
    assert loss == 0.0
    assert not z_bar.any()


@pytest.mark.parametrize("z", [-1000.0, 0.0, 0.1, 1000.0])
def test_one_class_alone_loses_nothing_and_asks_for_nothing(z):
    loss, z_bar = swept(CROSS_ENTROPY, np.array([z]), np.ones(1))
    assert loss == 0.0
    assert z_bar[0] == 0.0


KNOWN = [
    ("squared_error", [3.0], [1.0], 2.0, [2.0]),
    ("mean_squared_error", [3.0, 0.0], [1.0, 1.0], 2.5, [2.0, -1.0]),
    ("softmax_cross_entropy", [0.0, 0.0], [1.0, 0.0], math.log(2), [-0.5, 0.5]),
    ("sigmoid_cross_entropy", [0.0, 0.0], [1.0, 0.25], 2 * math.log(2), [-0.5, 0.25]),
    ("binary_cross_entropy", [0.5, 0.25], [1.0, 0.0], math.log(8 / 3), [-2.0, 4 / 3]),
    ("kl_divergence", [0.25, 0.5], [0.5, 0.5], math.log(2) / 2, [-2.0, -1.0]),
]


@pytest.mark.parametrize(("name", "z", "y", "loss", "z_bar"), KNOWN)
def test_known_values_are_met(name, z, y, loss, z_bar):
    got, slopes = swept(LOSSES[name], np.array(z), np.array(y))
    assert got == pytest.approx(loss, rel=4 * EPS)
    assert slopes == pytest.approx(z_bar, rel=4 * EPS)


def test_every_row_has_known_values():
    assert {name for name, *_ in KNOWN} == set(LOSSES)


# --- the ends of the intervals

INF = math.inf
ENDS = [
    (BINARY, 1.0, 1.0, 0.0, -1.0),
    (BINARY, 0.0, 0.0, 0.0, 1.0),
    (BINARY, 0.0, 1.0, INF, -INF),
    (BINARY, 1.0, 0.0, INF, INF),
    (BINARY, 0.0, 0.5, INF, -INF),
    (BINARY, 1.0, 0.5, INF, INF),
    (DIVERGENCE, 0.0, 0.0, 0.0, 0.0),
    (DIVERGENCE, 1.0, 1.0, 0.0, -1.0),
    (DIVERGENCE, 1.0, 0.0, 0.0, 0.0),
    (DIVERGENCE, 0.0, 1.0, INF, -INF),
    (DIVERGENCE, 0.0, 0.25, INF, -INF),
]
ends = pytest.mark.parametrize(("row", "z", "y", "loss", "slope"), ENDS)
finite_ends = pytest.mark.parametrize(("row", "z", "y", "loss", "slope"), [end for end in ENDS if end[3] < INF])


@ends
def test_a_weight_of_zero_silences_the_infinity_at_an_end(row, z, y, loss, slope):
    got, z_bar = swept(row, np.array([z]), np.array([y]))
    assert (got, z_bar[0]) == (loss, slope)


@finite_ends
def test_expression_has_the_loss_of_the_rule_at_an_end(row, z, y, loss, slope):
    for m in (FLOAT64, BALLS, Symbols()):
        assert float(row.expression(m, m.array([[z]]), m.array([[y]]))[0]) == loss
    assert exact_slopes(row, BALLS.array([z]), BALLS.array([y]))[0] == slope


@ends
def test_other_outputs_are_right_beside_an_end(row, z, y, loss, slope):
    got, z_bar = swept(row, np.array([z, 0.5]), np.array([y, 0.25]))
    alone, alone_bar = swept(row, np.array([0.5]), np.array([0.25]))
    assert got == loss + alone
    assert z_bar.tolist() == [slope, alone_bar[0]]


@losses
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_nan_stays_nan(row, label):
    loss, z_bar = swept(row, np.array([np.nan, 0.5]), np.array([label, 0.5]))
    assert math.isnan(loss)
    assert math.isnan(z_bar[0])


@on_probabilities
def test_outputs_beyond_the_interval_raise_nothing(row):
    for z in (-0.5, 1.5):
        for y in (0.0, 0.5, 1.0):
            swept(row, np.array([z]), np.array([y]))


# --- what else a row says


@losses
def test_arguments_are_left_alone(row):
    z, y = np.array([0.5, 0.25, 0.75]), one_hot(0, 3)
    swept(row, z, y)
    passed_on(row, z, y)
    assert z.tolist() == [0.5, 0.25, 0.75]
    assert y.tolist() == [1.0, 0.0, 0.0]


@losses
@kinds
def test_expression_over_floats_is_the_loss_of_the_sweep(row, targets):
    rng = np.random.default_rng(2)
    for _ in range(20):
        z, y = random_outputs(row, rng, 5), targets(row, rng, 5)
        expected, _ = swept(row, z, y)
        # log and 1 - z of the expression are off by eps of their arguments, which the sweep's log1p is not.
        size = abs(expected) + value_size(row, z, y) + (np.abs(y).sum() + 5) * np.log(5)
        assert abs(row.expression(FLOAT64, z[None], y[None])[0] - expected) <= 4 * rounding(row, z) * size


@losses
def test_complex_steps_along_the_expression_give_the_cotangent(row):
    rng = np.random.default_rng(3)
    for _ in range(20):
        z, y = random_outputs(row, rng, 4).clip(-20, 20), soft_targets(row, rng, 4)
        _, z_bar = swept(row, z, y)
        for k in range(4):
            step = COMPLEX128.array(z + 1j * 1e-100 * one_hot(k, 4))
            slope = row.expression(COMPLEX128, step[None], y[None])[0].imag / 1e-100
            assert abs(slope - z_bar[k]) <= 1e-13 * (abs(z_bar[k]) + 1)


@losses
@kinds
def test_compiled_rule_is_the_plain_one(row, targets):
    compiled = replace(row, value_and_cotangent=entered(compiled_rule(row.value_and_cotangent)))
    rng = np.random.default_rng(4)
    for _ in range(50):
        z, y = random_outputs(row, rng, 5), targets(row, rng, 5)
        loss, z_bar = swept(row, z, y)
        compiled_loss, compiled_bar = swept(compiled, z, y)
        assert compiled_loss == pytest.approx(loss, rel=4 * EPS, abs=2 * EPS * value_size(row, z, y))
        assert np.abs(compiled_bar - z_bar).max() <= 4 * EPS * (np.abs(z_bar) + slope_sizes(row, z, y)).max()


@ends
def test_compiled_rule_has_the_ends_of_the_plain_one(row, z, y, loss, slope):
    compiled = replace(row, value_and_cotangent=entered(compiled_rule(row.value_and_cotangent)))
    got, z_bar = swept(compiled, np.array([z]), np.array([y]))
    assert (got, z_bar[0]) == (loss, slope)


def exact_curvature(row: Loss, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Row sums of magnitudes of the second derivative: differences of the exact cotangents, far below any rounding."""
    outputs, targets = BALLS.array(z), BALLS.array(y)
    sums = np.zeros(z.size, object)
    for axis in np.eye(z.size, dtype=int):
        step = axis * outputs.max() * arb(2) ** -1400
        ahead, behind = (exact_slopes(row, outputs + side * step, targets) for side in (1, -1))
        sums += np.abs((ahead - behind) / (2 * step.sum()))
    return sums


# --- tangents of cotangents


def curved(row: Loss, z: np.ndarray, y: np.ndarray, z_dot: np.ndarray) -> np.ndarray:
    z_bar_dot = np.full((z.size, 1), np.nan)
    row.cotangent_tangent(z[:, None], y[:, None], z_dot[:, None], z_bar_dot, room())
    return z_bar_dot[:, 0]


def exact_hessian(row: Loss, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Balls, by polarisation: a^T H b = (f(a + b) - f(a - b)) / 2, with f the coefficient of second order."""
    outputs, targets, axes = BALLS.array(z), BALLS.array(y)[None], np.eye(z.size, dtype=int)

    def second_order(axis: np.ndarray) -> arb:
        return coefficient(row.expression(SERIES, SERIES.line(outputs[None], BALLS.array(axis)[None]), targets), 2)[0]

    return np.array([[(second_order(a + b) - second_order(a - b)) / 2 for b in axes] for a in axes])


def assert_curvature_is_right(row: Loss, z: np.ndarray, y: np.ndarray, z_dot: np.ndarray) -> None:
    """Every figure is right to the rounding of the sum of magnitudes |H| |z_dot|; labels of both signs cancel besides.

    Twice that, as leads over the largest logit have the tangent of that logit in them.
    """
    known = LOSSES[row.name]
    found = curved(row, z, y, z_dot)
    weight = np.abs(y).sum() / abs(y.sum()) if known is CROSS_ENTROPY and y.any() else 1.0
    least = TINY * (1 + z.size * np.abs(z_dot).max() * (1 + np.abs(y).sum()))
    with ball_precision(BITS, order=2):
        hessian = exact_hessian(known, z, y)
        exact, sizes = hessian @ BALLS.array(z_dot), np.abs(hessian) @ BALLS.array(np.abs(z_dot))
        for got, number, size in zip(found, exact, sizes, strict=True):
            assert_close(got, number, 2 * rounding(known, z) * weight * float(size) + least)


@losses
@kinds
def test_tangents_of_cotangents_are_right_to_the_last_bits(row, targets):
    rng = np.random.default_rng(7)
    for _ in range(8):
        n = int(rng.integers(2, 6))
        assert_curvature_is_right(row, random_outputs(row, rng, n), targets(row, rng, n), rng.normal(size=n))


@on_logits
@pytest.mark.parametrize("label", [0, 1, 2])
def test_curvature_of_saturated_and_of_tied_logits_keeps_its_digits(row, label):
    z_dot = np.array([0.3, -1.0, 2.0])
    for z in ([40.0, 0.0, -3.0], [700.0, 10.0, 0.0], [-1000.0, 1000.0, 300.0], [2.0, 2.0, 2.0], [1e3, 999.0, 1e3]):
        assert_curvature_is_right(row, np.array(z), one_hot(label, 3), z_dot)
        assert_curvature_is_right(row, np.array(z), one_hot(label, 3), np.ones(3))


@on_probabilities
@pytest.mark.parametrize("label", [0, 1, 2])
def test_curvature_of_saturated_probabilities_keeps_its_digits(row, label):
    for z in ([1e-150, 1 - EPS / 2, 0.5], [1 - EPS / 2, 1e-100, EPS], [1e-16, 1 - 1e-15, 1e-30]):
        assert_curvature_is_right(row, np.array(z), one_hot(label, 3), np.array([0.3, -1.0, 2.0]))


CURVED_ENDS = [
    (BINARY, 1.0, 1.0, 1.0),
    (BINARY, 0.0, 0.0, 1.0),
    (BINARY, 0.0, 1.0, math.inf),
    (BINARY, 1.0, 0.0, math.inf),
    (BINARY, 0.0, 0.5, math.inf),
    (DIVERGENCE, 0.0, 0.0, 0.0),
    (DIVERGENCE, 1.0, 1.0, 1.0),
    (DIVERGENCE, 0.0, 0.25, math.inf),
]


@pytest.mark.parametrize(("row", "z", "y", "curvature"), CURVED_ENDS)
def test_a_weight_of_zero_silences_an_infinite_curvature(row, z, y, curvature):
    found = curved(row, np.array([z, 0.5]), np.array([y, 0.25]), np.ones(2))
    assert found[0] == curvature
    assert found[1] == curved(row, np.array([0.5]), np.array([0.25]), np.ones(1))[0]


@losses
@kinds
def test_compiled_curvature_is_the_plain_one(row, targets):
    compiled = replace(row, cotangent_tangent=entered(compiled_rule(row.cotangent_tangent)))
    rng = np.random.default_rng(8)
    for _ in range(4):
        assert_curvature_is_right(compiled, random_outputs(row, rng, 4), targets(row, rng, 4), rng.normal(size=4))


@losses
def test_curvature_is_the_difference_of_cotangents(row):
    """The rule of one beside the rule of the other; a central difference is right to some 1e-9."""
    rng, step = np.random.default_rng(9), 1e-5
    for _ in range(20):
        logits, z_dot = rng.normal(size=4), rng.normal(size=4)
        z, y = 1 / (1 + np.exp(-logits)) if row in ON_PROBABILITIES else logits, soft_targets(row, rng, 4)
        ahead, behind = (swept(row, z + side * step * z_dot, y)[1] for side in (1, -1))
        assert np.abs((ahead - behind) / (2 * step) - curved(row, z, y, z_dot)).max() <= 1e-4


def with_curvature(row: Loss, change: object) -> Loss:
    def rule(z: np.ndarray, y: np.ndarray, z_dot: np.ndarray, z_bar_dot: np.ndarray, room: np.ndarray) -> None:
        row.cotangent_tangent(z, y, z_dot, z_bar_dot, room)
        z_bar_dot[:, 0] = change(z[:, 0], y[:, 0], z_dot[:, 0], z_bar_dot[:, 0])

    return replace(row, cotangent_tangent=rule)


def softmax_jacobian(z: np.ndarray, y: np.ndarray, z_dot: np.ndarray, _: np.ndarray) -> np.ndarray:
    """Textbook: p (z_dot - p z_dot), which cancels when one class wins."""
    p = softmax(z)
    return y.sum() * p * (z_dot - p @ z_dot)


CURVATURE_FAULTS = {
    "off by a millionth": (SIGMOID, lambda z, y, z_dot, made: made * (1 + 1e-6)),
    "sigmoid times 1 - sigmoid": (SIGMOID, lambda z, y, z_dot, _: (s := 1 / (1 + np.exp(-z))) * (1 - s) * z_dot),
    "the diagonal alone": (CROSS_ENTROPY, lambda z, y, z_dot, _: softmax(z) * (1 - softmax(z)) * z_dot),
    "a softmax that cancels": (CROSS_ENTROPY, softmax_jacobian),
    "the other label's": (BINARY, lambda z, y, z_dot, _: (y / (1 - z) ** 2 + (1 - y) / z**2) * z_dot),
    "without the half": (LOSSES["squared_error"], lambda z, y, z_dot, made: made / 2),
    "divided by one more": (LOSSES["mean_squared_error"], lambda z, y, z_dot, made: made * 3 / 4),
    "a cotangent": (DIVERGENCE, lambda z, y, z_dot, _: -y / z * z_dot),
}


@pytest.mark.parametrize(("row", "change"), CURVATURE_FAULTS.values(), ids=CURVATURE_FAULTS)
def test_a_planted_curvature_is_caught(row, change):
    z = np.array([0.7, 0.01, 0.2]) if row in ON_PROBABILITIES else np.array([40.0, 0.5, -1.0])
    y, z_dot = np.array([0.25, 0.75, 0.0]), np.array([0.3, -1.0, 2.0])
    assert_curvature_is_right(row, z, y, z_dot)
    with pytest.raises(AssertionError):
        assert_curvature_is_right(with_curvature(row, change), z, y, z_dot)


STEP = 2.0**-400


def passed_on(row: Loss, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What errors of ``STEP`` in all outputs do to cotangents where nothing rounds, in units of ``STEP``."""
    outputs = replace(EXACT.exact(z[None]), error=np.full((1, z.size), STEP))
    with np.errstate(all="ignore"):
        return row.rounded(outputs, EXACT.exact(y[None]))[1].error[0] / STEP


LOOSENESS = 2.0
"""Of errors of logits that have half of the weight, beside the curvature p (1 - p); for all other losses it is 1."""


@losses
@kinds
def test_errors_that_are_passed_on_are_those_of_the_curvature(row, targets):
    rng = np.random.default_rng(5)
    for _ in range(8):
        z, y = random_outputs(row, rng, 4), targets(row, rng, 4)
        with ball_precision(BITS):
            exact = exact_curvature(row, z, y).astype(float)
        found = passed_on(row, z, y)
        assert (exact * (1 - 1e-6) <= found).all()
        assert (found <= LOOSENESS * exact + TINY / STEP).all()


@ends
def test_errors_at_an_end_are_infinite_where_the_loss_is(row, z, y, loss, slope):
    assert np.isinf(passed_on(row, np.array([z]), np.array([y]))[0]) == np.isinf(loss)


@losses
def test_intervals_and_smoothing_belong_together(row):
    assert row.outputs == ((0.0, 1.0) if row in ON_PROBABILITIES else (-INF, INF))
    if row.smoothing_classes:
        assert row.smoothing_classes(7) == (7 if row.accepts_classes else 2)
    else:
        assert row.targets == (-INF, INF)


# --- the checks above catch what is planted


def with_slopes(row: Loss, slopes: object) -> Loss:
    """The row with another rule for the cotangent."""

    def rule(z: np.ndarray, y: np.ndarray, z_bar: np.ndarray, losses: np.ndarray, room: np.ndarray) -> None:
        row.value_and_cotangent(z, y, z_bar, losses, room)
        z_bar[:, 0] = slopes(z[:, 0], y[:, 0], z_bar[:, 0])

    return replace(row, value_and_cotangent=rule)


def with_value(row: Loss, value: object) -> Loss:
    """The row with another rule for the loss."""

    def rule(z: np.ndarray, y: np.ndarray, z_bar: np.ndarray, losses: np.ndarray, room: np.ndarray) -> None:
        row.value_and_cotangent(z, y, z_bar, losses, room)
        losses[0] = value(z[:, 0], y[:, 0], losses[0])

    return replace(row, value_and_cotangent=rule)


FAULTS = {
    "a sigmoid minus its label": (with_slopes(SIGMOID, lambda z, y, _: 1 / (1 + np.exp(-z)) - y), [40.0], [1.0]),
    "a softmax minus its label": (
        with_slopes(CROSS_ENTROPY, lambda z, y, _: softmax(z) - y),
        [40.0, 0.0],
        [1.0, 0.0],
    ),
    "two quotients that cancel": (
        with_slopes(BINARY, lambda z, y, _: (1 - y) / (1 - z) - y / z),
        [0.3000001],
        [0.3],
    ),
    "a logarithm of 1 - z": (with_value(BINARY, lambda z, y, _: -np.log(1 - z).sum()), [1e-12], [0.0]),
    "two logarithms that cancel": (
        with_value(DIVERGENCE, lambda z, y, _: (y * np.log(y) - y * np.log(z)).sum()),
        [0.3000001],
        [0.3],
    ),
    "a soft plus that cancels": (
        with_value(SIGMOID, lambda z, y, _: (np.log1p(np.exp(z)) - y * z).sum()),
        [40.0],
        [1.0],
    ),
    "the other label's cotangent": (with_slopes(SIGMOID, lambda z, y, z_bar: z_bar + 2 * y - 1), [0.3], [1.0]),
}


@pytest.mark.parametrize(("row", "z", "y"), FAULTS.values(), ids=FAULTS)
def test_a_planted_cancellation_is_caught(row, z, y):
    assert_sweep_is_right(LOSSES[row.name], np.array(z), np.array(y))
    with pytest.raises(AssertionError):
        assert_sweep_is_right(row, np.array(z), np.array(y))


@losses
@kinds
@pytest.mark.parametrize("k", [0, 2])
def test_a_cotangent_off_by_a_thousandth_is_caught(row, targets, k):
    rng = np.random.default_rng(6)
    z = np.array([0.2, 0.3, 0.4])
    y = targets(row, rng, 3) * 0.9 + 0.05
    assert_sweep_is_right(row, z, y)
    with pytest.raises(AssertionError):
        assert_sweep_is_right(with_slopes(row, lambda z, y, z_bar: z_bar * (1 + 1e-3 * one_hot(k, 3))), z, y)


@losses
def test_a_loss_off_by_a_millionth_is_caught(row):
    z, y = np.array([0.2, 0.3, 0.4]), one_hot(1, 3)
    with pytest.raises(AssertionError):
        assert_sweep_is_right(with_value(row, lambda z, y, loss: loss * (1 + 1e-6)), z, y)
