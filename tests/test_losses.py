"""Every row of LOSSES against proven enclosures: random, saturated, tied and confident logits, soft labels."""

import numpy as np
import pytest
from flint import arb

from difflab.number_systems import BALLS, SERIES, ball_precision, coefficient
from difflab.primitives.losses import LOSSES, Loss


losses = pytest.mark.parametrize("row", LOSSES.values(), ids=lambda row: row.name)

BITS = 6000
"""Enough to see 1 - p of a class whose logit leads by 2000: exp(-2000) is 2**-2886."""

EPS = 2.0**-52
TINY = 5e-324

CROSS_ENTROPY = LOSSES["softmax_cross_entropy"]


def one_hot(k: int, n: int) -> np.ndarray:
    return np.eye(n)[k]


def truth(row: Loss, z: np.ndarray, y: np.ndarray) -> tuple[arb, list[arb]]:
    """Balls of the loss and of its derivative along each logit, from the defining expression."""
    logits, targets = BALLS.array(z)[None], BALLS.array(y)[None]
    slopes = []
    for k in range(z.size):
        line = SERIES.line(logits, one_hot(k, z.size)[None].astype(int))
        slopes.append(coefficient(row.expression(SERIES, line, targets), 1)[0])
    return row.expression(BALLS, logits, targets)[0], slopes


def swept(row: Loss, z: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    z_bar = np.full(z.size, np.nan)
    return row.value_and_cotangent(z, y, z_bar), z_bar


def rounding(z: np.ndarray) -> float:
    """Relative error of a sum of exponentials: each argument is off by eps/2 of itself, each sum by eps/2."""
    return (np.ptp(z) + 2 * z.size + 8) * EPS


def assert_close(got: float, exact: arb, bound: float) -> None:
    assert abs(float(arb(float(got)) - exact)) <= bound


def assert_sweep_is_right(row: Loss, z: np.ndarray, y: np.ndarray, magnitudes: np.ndarray | None = None) -> None:
    """Every figure is right to its own rounding, or to that of the ``magnitudes`` it is the difference of."""
    loss, z_bar = swept(row, z, y)
    with ball_precision(BITS):
        exact_loss, exact = truth(row, z, y)
        assert_close(loss, exact_loss, rounding(z) * abs(float(exact_loss)) + TINY)
        for k in range(z.size):
            size = abs(float(exact[k])) if magnitudes is None else magnitudes[k]
            # The subnormal terms of the sum are each off by half of the smallest number.
            assert_close(z_bar[k], exact[k], rounding(z) * size + z.size * TINY)


@losses
def test_classes_at_random_logits_are_right_to_the_last_bits(row):
    rng = np.random.default_rng(0)
    for _ in range(60):
        n = rng.integers(2, 9)
        assert_sweep_is_right(row, rng.normal(size=n) * 10 ** rng.uniform(-2, 2), one_hot(rng.integers(n), n))


@losses
@pytest.mark.parametrize("label", [0, 1, 2])
def test_saturated_logits_neither_overflow_nor_lose_the_small_cotangents(row, label):
    for z in ([1000.0, -1000.0, 0.0], [-1000.0, 1000.0, 300.0], [1000.0, 999.0, 1000.0], [-1000.0, -1300.0, -1690.0]):
        assert_sweep_is_right(row, np.array(z), one_hot(label, 3))


@losses
@pytest.mark.parametrize("height", [0.0, -3.0, 1000.0])
def test_tied_logits_are_right(row, height):
    assert_sweep_is_right(row, np.full(4, height), one_hot(2, 4))
    assert_sweep_is_right(row, np.array([height, height - 1, height]), one_hot(2, 3))


@pytest.mark.parametrize("lead", [1.0, 20.0, 36.0, 37.0, 40.0, 100.0, 600.0])
def test_cotangent_of_a_winning_class_keeps_its_digits(lead):
    """There p rounds to 1, and p - 1 would be 0."""
    z = np.array([0.0, lead, -1.0])
    loss, z_bar = swept(CROSS_ENTROPY, z, one_hot(1, 3))
    missing = (np.exp(-lead) + np.exp(-lead - 1)) / (1 + np.exp(-lead) + np.exp(-lead - 1))
    assert abs(z_bar[1] + missing) <= 2 * rounding(z) * missing
    assert_sweep_is_right(CROSS_ENTROPY, z, one_hot(1, 3))


def test_soft_labels_are_right_to_the_size_of_what_is_subtracted():
    rng = np.random.default_rng(1)
    for _ in range(60):
        n = rng.integers(2, 7)
        z, y = rng.normal(size=n) * 5, rng.dirichlet(np.ones(n))
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        assert_sweep_is_right(CROSS_ENTROPY, z, y, magnitudes=p + y)


def test_labels_that_do_not_sum_to_one_are_right():
    z, y = np.array([0.3, -1.2, 2.0]), np.array([0.5, 2.0, 0.25])
    p = np.exp(z) / np.exp(z).sum()
    assert_sweep_is_right(CROSS_ENTROPY, z, y, magnitudes=y.sum() * p + y)


def test_zero_labels_give_zero():
    loss, z_bar = swept(CROSS_ENTROPY, np.array([1.0, 2.0]), np.zeros(2))
    assert loss == 0.0
    assert not z_bar.any()


@pytest.mark.parametrize("z", [-1000.0, 0.0, 0.1, 1000.0])
def test_one_class_alone_loses_nothing_and_asks_for_nothing(z):
    loss, z_bar = swept(CROSS_ENTROPY, np.array([z]), np.ones(1))
    assert loss == 0.0
    assert z_bar[0] == 0.0


def test_one_output_of_a_squared_error_is_a_difference():
    loss, z_bar = swept(LOSSES["squared_error"], np.array([3.0]), np.array([1.0]))
    assert (loss, z_bar[0]) == (2.0, 2.0)


@losses
def test_arguments_are_left_alone(row):
    z, y = np.array([1.0, -2.0, 0.5]), one_hot(0, 3)
    swept(row, z, y)
    assert z.tolist() == [1.0, -2.0, 0.5]
    assert y.tolist() == [1.0, 0.0, 0.0]


@losses
def test_expression_over_floats_is_the_loss_of_the_sweep(row):
    from difflab.number_systems import FLOAT64

    rng = np.random.default_rng(2)
    for _ in range(20):
        z, y = rng.normal(size=5), rng.dirichlet(np.ones(5))
        expected, _ = swept(row, z, y)
        # log(sum) of the expression is off by eps of its own size, which the sweep's log1p is not.
        bound = rounding(z) * (abs(expected) + np.log(5) + 1)
        assert abs(row.expression(FLOAT64, z[None], y[None])[0] - expected) <= bound
