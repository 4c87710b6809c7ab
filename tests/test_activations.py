"""Every row of ACTIVATIONS against proven enclosures, SymPy's derivative, its known values and its kinks."""

import math

import flint
import numpy as np
import pytest
import sympy
from entered import entered
from flint import arb, arb_series

from difflab.kernels.target import compiled_rule
from difflab.number_systems import (
    BALLS,
    SERIES,
    SERIES_AHEAD,
    Symbols,
    ball_precision,
    coefficient,
)
from difflab.primitives.activations import ACTIVATIONS


PARAMETERS = {"slope": (0.01, 0.25, -0.7, 3.3), "alpha": (1.0, 0.3, 2.5), "beta": (1.0, 0.3, 1.702, 7.1, -1.3)}

CASES = [(row, (p,)) for row in ACTIVATIONS.values() if row.parameter for p in PARAMETERS[row.parameter]]
CASES += [(row, ()) for row in ACTIVATIONS.values() if not row.parameter]


def over(cases):
    return pytest.mark.parametrize(("row", "p"), cases, ids=lambda part: getattr(part, "name", None) or str(part))


every_case = over(CASES)
kinked_cases = over([(row, p) for row, p in CASES if row.kinks])
rows = pytest.mark.parametrize("row", ACTIVATIONS.values(), ids=lambda row: row.name)

BITS = 256
MORE_BITS = 2600
"""Enough for what vanishes like z**2 at 1e-300."""
EXTREMES = [
    sign * size for size in (5e-324, 1e-308, 0.0, 354.9, 709.9, 745.2, 1e4, 1e154, 1e308, 1.7e308) for sign in (-1, 1)
]
LANDMARKS = (
    -1.2784645427610738,  # root of silu'
    2.3993572805154675,  # root of silu''
    -0.7517915246935645,  # root of gelu'
    -0.7517915246935645 - 0.25,
    -0.7517915246935645 + 0.25,
    1.4142135623730951,  # root of gelu''
    37.5,
)


def start_of(row):
    return (row.start,) if row.parameter else ()


def is_in(domain, z):
    return (z >= domain[0]) & (z <= domain[1])


def points_in(domain, p=(), seed=0):
    """Some 25 000 points: even, log-even over all floats, neighbours of 0, of powers of two and of landmarks, the ends.

    With a parameter p, all of them divided by p besides.
    """
    rng = np.random.default_rng(seed)
    sizes = np.concatenate([10.0 ** rng.uniform(-300, 2.8, 3000), 2.0 ** np.arange(-1000, 9)])
    huge = 10.0 ** rng.uniform(-306, 306, 1000)
    close = np.repeat(LANDMARKS, 200) * (1 + rng.choice([-1, 1], 1400) * 10.0 ** rng.uniform(-16, -1, 1400))
    near = np.concatenate([sizes, np.nextafter(sizes, 0), np.nextafter(sizes, np.inf), huge, close, LANDMARKS])
    even = np.concatenate([rng.uniform(-708, 708, 4000), rng.uniform(-40, 40, 5000), rng.normal(size=5000)])
    points = np.concatenate([even, near, -near, np.array(domain)[np.isfinite(domain)], [0.0]])
    if p and abs(p[0]) != 1:
        points = np.concatenate([rng.choice(points, 3000), rng.choice(points, 3000) / p, np.array([*LANDMARKS, 0]) / p])
    products = points * (p or 1.0)
    return points[is_in(domain, points) & is_in(domain, products) & np.isfinite(points) & np.isfinite(products)]


def is_sharp(ball):
    """Whether a ball determines its float64 to a millionth of an ulp."""
    return ball.is_zero() or ball.rad() * 2.0**73 <= max(abs(float(ball)), 2.0**-1022)


def balls_of(truth, row, points, p):
    """Balls of one of the functions below, those that come out wide once more with more bits."""
    with ball_precision(BITS):
        balls = truth(row, points, p)
    wide = ~np.frompyfunc(is_sharp, 1, 1)(balls).astype(bool)
    with ball_precision(MORE_BITS):
        balls[wide] = truth(row, points[wide], p)
    return balls


def errors_ulp(got, truth):
    """Errors in ulp of the exact result; where that is subnormal, in the smallest positive float."""
    nearest = truth.astype(np.float64)
    with ball_precision(MORE_BITS):
        return np.abs((np.frompyfunc(arb, 1, 1)(got) - truth).astype(np.float64)) / np.spacing(np.abs(nearest))


def same(p, points, system):
    return [system.array(np.full(len(points), value)) for value in p]


def exact_value(row, points, p):
    return row.expression(BALLS, BALLS.array(points), *same(p, points, BALLS))


def exact_derivative(row, points, p, series=SERIES):
    """From power series of the defining expression."""
    z = series.line(BALLS.array(points), np.ones(len(points), object))
    return coefficient(row.expression(series, z, *same(p, points, series)), 1)


def exact_parameter_derivative(row, points, p):
    (line,) = (SERIES.line(balls, np.ones(len(points), object)) for balls in same(p, points, BALLS))
    return coefficient(row.expression(SERIES, SERIES.array(BALLS.array(points)), line), 1)


def exact_second_derivative(row, points, p):
    """From the coefficient of t**2, with one more term of the series kept."""
    flint.ctx.cap = 3
    z = np.frompyfunc(lambda ball: arb_series([ball, 1, 0]), 1, 1)(BALLS.array(points))
    return 2 * coefficient(row.expression(SERIES, z, *same(p, points, SERIES)), 2)


def exact_mixed_derivative(row, points, p):
    """By polarisation: half of the terms of second order along (1, 1) less those along (1, -1)."""
    flint.ctx.cap = 3
    z, (q,) = SERIES.line(BALLS.array(points), np.ones(len(points), object)), same(p, points, BALLS)
    lines = (SERIES.line(q, np.full(len(points), sign, object)) for sign in (1, -1))
    ahead, back = (coefficient(row.expression(SERIES, z, line), 2) for line in lines)
    return (ahead - back) / 2


def exact_parameter_second_derivative(row, points, p):
    flint.ctx.cap = 3
    (line,) = (SERIES.line(balls, np.ones(len(points), object)) for balls in same(p, points, BALLS))
    return 2 * coefficient(row.expression(SERIES, SERIES.array(BALLS.array(points)), line), 2)


def smooth_points(row, p):
    points = points_in(row.domain, p)
    return points[~np.isin(points, row.kinks)]


def curved_points(row, p):
    """Softsign's second derivative jumps at 0."""
    points = smooth_points(row, p)
    return points[points != 0] if row.name == "softsign" else points


@rows
def test_every_column_is_filled(row):
    assert row.source
    assert row.second_derivative
    assert len(row.known_values) >= 2
    assert bool(row.parameter) == (row.expression.__code__.co_argcount == 3)
    assert row.is_learnable == (row.parameter_derivative is not None)
    assert row.is_learnable == (row.mixed_derivative is not None)
    assert row.is_learnable == (row.parameter_second_derivative is not None)
    assert row.start == 0 or row.parameter
    assert row.range[0] < row.range[1]


@rows
def test_at_least_twenty_thousand_points_are_tried(row):
    assert len(points_in(row.domain, start_of(row) if row.start == 1 else ())) >= 20_000


@every_case
def test_truth_is_sharper_than_a_millionth_ulp(row, p):
    points = smooth_points(row, p)[::7]
    of_parameter = [exact_parameter_derivative, exact_mixed_derivative, exact_parameter_second_derivative]
    truths = [exact_value, exact_derivative] + of_parameter * row.is_learnable
    assert all(is_sharp(ball) for truth in truths for ball in balls_of(truth, row, points, p))
    assert all(is_sharp(ball) for ball in balls_of(exact_second_derivative, row, curved_points(row, p)[::7], p))


CHECKS = {
    "value": (exact_value, lambda row, p: points_in(row.domain, p)),
    "derivative": (exact_derivative, smooth_points),
    "second_derivative": (exact_second_derivative, curved_points),
    "parameter_derivative": (exact_parameter_derivative, smooth_points),
    "mixed_derivative": (exact_mixed_derivative, smooth_points),
    "parameter_second_derivative": (exact_parameter_second_derivative, smooth_points),
}
"""The truth of each rule, and where it is held against it."""


def worst_ulp(name, row, p, *rules, stride=1):
    """The largest error of each rule, infinite for NaN."""
    truth, places = CHECKS[name]
    points = places(row, p)[::stride]
    exact = balls_of(truth, row, points, p)
    errors = [errors_ulp([rule(z, *p) for z in points.tolist()], exact) for rule in rules]
    return [float(np.where(np.isnan(each), np.inf, each).max()) for each in errors]


MIXED_ULP = {"prelu": (0.0, 0.0), "swish": (9.0, 8.0)}
"""Bounds of mixed derivatives and of second ones with respect to the parameter, which rows do not state."""


def bound_ulp(row, name):
    if name in ("mixed_derivative", "parameter_second_derivative"):
        return MIXED_ULP[row.name][name != "mixed_derivative"]
    return getattr(row, f"{name}_ulp")


def rules_of(row):
    return {name: rule for name in CHECKS if (rule := getattr(row, name))}


@rows
def test_rules_and_compiled_rules_are_within_their_bounds_and_these_are_not_loose(row):
    for name, rule in rules_of(row).items():
        builds = rule, *(entered(compiled_rule(rule, fused=fused)) for fused in (False, True))
        found = [worst_ulp(name, row, p, *builds) for other, p in CASES if other is row]
        plain, largest = max(each[0] for each in found), max(map(max, found))
        assert largest <= bound_ulp(row, name) <= 3 * plain, (name, found)


def off_by_a_thousandth(rule):
    return lambda z, *p: 1.001 * rule(z, *p)


@every_case
def test_checks_catch_a_rule_that_is_off_by_a_thousandth(row, p):
    for name, rule in rules_of(row).items():
        if rule(-0.3, *p) != 0 or rule(0.3, *p) != 0:
            assert worst_ulp(name, row, p, off_by_a_thousandth(rule), stride=7)[0] > 1e12, name


def normal_cdf(z):
    return math.erfc(-z / math.sqrt(2)) / 2


def normal_density(z):
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def sigmoid(z):
    return 1 / (1 + math.exp(-z)) if z > -709 else 0.0


CANCELLING = [
    ("tanh", "derivative", lambda z: 1 - math.tanh(z) ** 2),
    ("sigmoid", "derivative", lambda z: sigmoid(z) * (1 - sigmoid(z))),
    ("softplus", "value", lambda z: math.log(1 + math.exp(min(z, 700)))),
    ("elu", "value", lambda z, alpha: z if z > 0 else alpha * (math.exp(z) - 1)),
    ("silu", "derivative", lambda z, beta: sigmoid(beta * z) * (1 + beta * z * (1 - sigmoid(beta * z)))),
    ("silu", "second_derivative", lambda z, beta: beta * sigmoid(z) * sigmoid(-z) * (2 - z * math.tanh(z / 2))),
    ("gelu", "value", lambda z: z * normal_cdf(z)),
    ("gelu", "derivative", lambda z: normal_cdf(z) + z * normal_density(z)),
    ("gelu", "second_derivative", lambda z: (2 - z * z) * normal_density(z)),
    ("softsign", "derivative", lambda z: (1 - abs(z / (1 + abs(z)))) ** 2),
]


@pytest.mark.parametrize(("name", "column", "rule"), CANCELLING)
def test_checks_catch_the_textbook_formula_that_cancels(name, column, rule):
    row = ACTIVATIONS[name]
    assert worst_ulp(column, row, start_of(row), rule)[0] > 3 * getattr(row, f"{column}_ulp")


def test_checks_catch_a_product_whose_rounding_error_is_dropped():
    row = ACTIVATIONS["silu"]
    assert worst_ulp("value", row, (7.1,), lambda z, beta: row.value(beta * z, 1.0) / beta)[0] > 3 * row.value_ulp


@rows
def test_known_values_are_met(row):
    for z, value, derivative in row.known_values:
        # The argument itself is rounded, which moves value and derivative by up to 1 ulp more.
        assert abs(row.value(z, *start_of(row)) - value) <= (row.value_ulp + 1) * math.ulp(value)
        assert abs(row.derivative(z, *start_of(row)) - derivative) <= (row.derivative_ulp + 1) * math.ulp(derivative)


def sympy_derivatives(row, p):
    """SymPy's counterparts of the derivative rules, and the symbol they are in."""
    z, q = sympy.symbols("z p", real=True)
    (a,) = row.expression(Symbols(), np.array([z], object), *[np.array([q], object) for _ in p])
    derived = {"derivative": a.diff(z), "second_derivative": a.diff(z, 2), "parameter_derivative": a.diff(q)}
    derived |= {"mixed_derivative": a.diff(z, q), "parameter_second_derivative": a.diff(q, 2)}
    return {name: f.subs(q, sympy.Rational(*p)) if p else f for name, f in derived.items()}, z


@every_case
def test_sympy_derives_the_hand_rules_from_the_expression(row, p):
    derived, z = sympy_derivatives(row, p)
    rules = rules_of(row)
    for name in derived.keys() & rules.keys():
        for point in np.random.default_rng(1).uniform(-30, 30, 40).tolist():
            exact = derived[name].subs(z, sympy.Rational(point)).evalf(40, maxn=400)
            error = abs(sympy.Rational(rules[name](point, *p)) - exact)
            assert error <= bound_ulp(row, name) * math.ulp(float(exact)), name


@kinked_cases
def test_rule_takes_the_left_slope_at_a_kink(row, p):
    for kink in row.kinks:
        assert row.derivative(kink, *p) == row.derivative(math.nextafter(kink, -math.inf), *p)
        if p != (1.0,):
            assert row.derivative(kink, *p) != row.derivative(math.nextafter(kink, math.inf), *p)


@kinked_cases
def test_series_take_the_left_slope_or_the_right_one_at_a_kink(row, p):
    for kink in row.kinks:
        with ball_precision(BITS):
            left, right = (exact_derivative(row, np.array([kink]), p, series)[0] for series in (SERIES, SERIES_AHEAD))
        assert left == row.derivative(kink, *p)
        assert right == row.derivative(math.nextafter(kink, math.inf), *p)


@every_case
def test_second_derivative_takes_the_limit_from_the_left(row, p):
    for kink in {0.0, *row.kinks}:
        before = math.nextafter(kink, -math.inf)
        assert row.second_derivative(kink, *p) == pytest.approx(row.second_derivative(before, *p), abs=1e-300)


@every_case
def test_rules_come_to_their_limits_at_extreme_arguments(row, p):
    """Neither overflow nor NaN, unless the exact result is beyond all floats."""
    points = np.array(EXTREMES)
    for name, rule in rules_of(row).items():
        bound = bound_ulp(row, name)
        for z, ball in zip(points.tolist(), balls_of(CHECKS[name][0], row, points, p), strict=True):
            exact = float(ball)
            if math.isfinite(exact) and (z != 0 or name != "second_derivative"):
                assert abs(rule(z, *p) - exact) <= bound * math.ulp(exact) + 1e-300, (name, z)


@pytest.mark.parametrize("beta", [0.0, 5e-324, 1e-300, 1e-5, 1e300, 1.7e308])
@pytest.mark.parametrize("sign", [-1, 1])
def test_silu_is_finite_at_every_finite_beta(beta, sign):
    row = ACTIVATIONS["silu"]
    for z in EXTREMES:
        assert math.isfinite(row.value(z, sign * beta))
        assert math.isfinite(row.derivative(z, sign * beta))
        assert math.isfinite(row.second_derivative(z, sign * beta))


@every_case
def test_values_are_within_the_range(row, p):
    values = [row.value(z, *p) for z in points_in(row.domain, p).tolist()]
    assert row.range[0] <= min(values)
    assert max(values) <= row.range[1]


@rows
def test_rules_do_not_swallow_nan(row):
    # Slopes of linear pieces are constants.
    constants = () if "relu" not in row.name and row.name not in ("identity", "prelu") else ("derivative",)
    for name, rule in rules_of(row).items():
        if not constants or name in ("value", "parameter_derivative"):
            assert math.isnan(rule(math.nan, *start_of(row))), name
