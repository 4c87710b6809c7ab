"""Every row of ACTIVATIONS against proven enclosures, SymPy's derivative, its known values and its kinks."""

import math

import numpy as np
import pytest
import sympy
from flint import arb

from difflab.number_systems import (
    BALLS,
    SERIES,
    SERIES_AHEAD,
    Symbols,
    ball_precision,
    coefficient,
)
from difflab.primitives.activations import ACTIVATIONS, Activation


kinked = pytest.mark.parametrize("row", [row for row in ACTIVATIONS.values() if row.kinks], ids=lambda row: row.name)
rows = pytest.mark.parametrize("row", ACTIVATIONS.values(), ids=lambda row: row.name)

BITS = 256
EXTREMES = [sign * size for size in (5e-324, 1e-308, 0.0, 354.9, 709.9, 745.2, 1e4, 1e308, 1.7e308) for sign in (-1, 1)]


def points_in(domain: tuple[float, float]) -> np.ndarray:
    """Some 25 000 points: even, log-even from 1e-300 on, neighbours of 0 and of powers of two, the ends."""
    rng = np.random.default_rng(0)
    low, high = max(domain[0], -700.0), min(domain[1], 700.0)
    sizes = np.concatenate([10.0 ** rng.uniform(-300, 2.8, 4000), 2.0 ** np.arange(-1000, 9)])
    neighbours = np.concatenate([sizes, np.nextafter(sizes, 0), np.nextafter(sizes, np.inf)])
    even = np.concatenate([rng.uniform(low, high, 5000), rng.uniform(-40, 40, 5000), rng.normal(size=5000)])
    points = np.concatenate([even, neighbours, -neighbours, [low, high, 0.0]])
    return points[(points >= low) & (points <= high)]


def errors_ulp(got: list[float], truth: np.ndarray) -> np.ndarray:
    """Errors in ulp of the exact result."""
    nearest = truth.astype(np.float64)
    return np.abs((np.frompyfunc(arb, 1, 1)(got) - truth).astype(np.float64)) / np.spacing(np.abs(nearest))


def worst_value_ulp(row: Activation, points: np.ndarray) -> float:
    with ball_precision(BITS):
        truth = row.expression(BALLS, BALLS.array(points))
        return float(errors_ulp([row.value(z) for z in points.tolist()], truth).max())


def slopes(row: Activation, points: np.ndarray, series: object = SERIES) -> np.ndarray:
    """Balls of the derivative, from power series of the defining expression."""
    ones = np.ones(len(points), object)
    return coefficient(row.expression(series, series.line(BALLS.array(points), ones)), 1)


def worst_derivative_ulp(row: Activation, points: np.ndarray) -> float:
    points = points[~np.isin(points, row.kinks)]
    with ball_precision(BITS):
        return float(errors_ulp([row.derivative(z) for z in points.tolist()], slopes(row, points)).max())


@rows
def test_at_least_twenty_thousand_points_are_tried(row):
    assert len(points_in(row.domain)) >= 20_000


@rows
def test_truth_is_sharper_than_a_millionth_ulp(row):
    points = points_in(row.domain)
    with ball_precision(BITS):
        balls = np.concatenate([row.expression(BALLS, BALLS.array(points)), slopes(row, points)])
        assert all(ball.rad() <= abs(ball.mid()) * 2.0**-73 for ball in balls if not ball.is_zero())


@rows
def test_value_is_within_its_bound(row):
    assert worst_value_ulp(row, points_in(row.domain)) <= row.value_ulp


@rows
def test_derivative_is_within_its_bound(row):
    assert worst_derivative_ulp(row, points_in(row.domain)) <= row.derivative_ulp


@rows
def test_known_values_are_met(row):
    for z, value, derivative in row.known_values:
        # The argument itself is rounded, which moves value and derivative by up to 1 ulp more.
        assert abs(row.value(z) - value) <= (row.value_ulp + 1) * math.ulp(value)
        assert abs(row.derivative(z) - derivative) <= (row.derivative_ulp + 1) * math.ulp(derivative)


@rows
def test_sympy_derives_the_hand_rule_from_the_expression(row):
    z = sympy.Symbol("z", real=True)
    derived = sympy.diff(row.expression(Symbols(), np.array([z], object))[0], z)
    for point in np.random.default_rng(1).uniform(-30, 30, 40).tolist():
        exact = derived.subs(z, sympy.Rational(point)).evalf(40, maxn=400)
        error = abs(sympy.Rational(row.derivative(point)) - exact)
        assert error <= row.derivative_ulp * math.ulp(float(exact))


@kinked
def test_rule_takes_the_left_slope_at_a_kink(row):
    for kink in row.kinks:
        assert row.derivative(kink) == row.derivative(math.nextafter(kink, -math.inf))
        assert row.derivative(kink) != row.derivative(math.nextafter(kink, math.inf))


@kinked
def test_series_take_the_left_slope_or_the_right_one_at_a_kink(row):
    for kink in row.kinks:
        left, right = (slopes(row, np.array([kink]), series)[0] for series in (SERIES, SERIES_AHEAD))
        assert left == row.derivative(kink)
        assert right == row.derivative(math.nextafter(kink, math.inf))


@rows
def test_rules_are_finite_at_every_finite_argument(row):
    for z in EXTREMES:
        assert math.isfinite(row.value(z)), z
        assert math.isfinite(row.derivative(z)), z


@rows
def test_rules_do_not_swallow_nan(row):
    # relu is a comparison, and takes NaN to 0, as the identity's slope is 1 everywhere.
    if row.name not in ("identity", "relu"):
        assert math.isnan(row.value(math.nan))
        assert math.isnan(row.derivative(math.nan))


@rows
def test_second_derivatives_keep_to_the_curvature_of_the_row(row):
    """Checked on differences of the exact derivative over a fine grid."""
    z = np.linspace(-30, 30, 4001)
    with ball_precision(200):
        exact = np.array([float(s) for s in slopes(row, z)])
    curvature = np.abs(np.diff(exact) / np.diff(z))
    away = np.ones(len(z) - 1, bool)
    for kink in row.kinks:
        away &= (z[:-1] > kink) | (z[1:] < kink)
    smallest = np.minimum(exact[1:], exact[:-1])[away]
    within_a_step = 1 + row.relative_curvature * (z[1] - z[0]) if math.isfinite(row.relative_curvature) else 1.0
    assert (curvature[away] <= row.max_curvature * (1 + 1e-9)).all()
    if math.isfinite(row.relative_curvature):
        assert (curvature[away] <= row.relative_curvature * smallest * within_a_step + 1e-12).all()
