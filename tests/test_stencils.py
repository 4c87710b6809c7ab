"""Stencils: exact weights, orders, truncation constants, and the two errors they predict, met on exp."""

import math
from fractions import Fraction

import pytest

from difflab.stencils import CENTRAL, FORWARD, Stencil


EPS = 2.0**-52

FIVE_POINT = Stencil((-2, -1, 0, 1, 2))
FOUR_POINT = Stencil((-2, -1, 1, 2))
BACKWARD = Stencil((-1, 0))
ONE_SIDED = Stencil((0, 1, 2))
SEVEN_POINT = Stencil((-3, -2, -1, 0, 1, 2, 3))

WEIGHTS = {
    FORWARD: "-1 1",
    BACKWARD: "-1 1",
    CENTRAL: "-1/2 1/2",
    ONE_SIDED: "-3/2 2 -1/2",
    FIVE_POINT: "1/12 -2/3 0 2/3 -1/12",
    FOUR_POINT: "1/12 -2/3 2/3 -1/12",
    SEVEN_POINT: "-1/60 3/20 -3/4 0 3/4 -3/20 1/60",
}
ORDERS = {FORWARD: 1, BACKWARD: 1, CENTRAL: 2, ONE_SIDED: 2, FIVE_POINT: 4, FOUR_POINT: 4, SEVEN_POINT: 6}
TRUNCATION = {
    FORWARD: "1/2",
    BACKWARD: "1/2",
    CENTRAL: "1/6",
    ONE_SIDED: "1/3",
    FIVE_POINT: "1/30",
    FOUR_POINT: "1/30",
    SEVEN_POINT: "1/140",
}

stencils = pytest.mark.parametrize("stencil", WEIGHTS, ids=lambda stencil: str(stencil.offsets))


def slope_of_exp(stencil: Stencil, step: float) -> float:
    total = sum(float(w) * math.exp(1 + o * step) for w, o in zip(stencil.weights, stencil.offsets, strict=True))
    return total / step


def measured_error(stencil: Stencil, step: float) -> float:
    return abs(slope_of_exp(stencil, step) - math.e)


def value_error() -> float:
    """exp and the sum are each off by at most one ulp of some e**1.5."""
    return 2 * math.ulp(math.exp(1.5))


def predicted_error(stencil: Stencil, step: float) -> float:
    reach = max(map(abs, stencil.offsets)) * step
    return stencil.truncation_error(step, math.exp(1 + reach)) + stencil.rounding_error(step, value_error())


@stencils
def test_weights_are_the_exact_fractions_of_the_tables(stencil):
    assert stencil.weights == tuple(map(Fraction, WEIGHTS[stencil].split()))


@stencils
def test_order_is_that_of_the_tables(stencil):
    assert stencil.order == ORDERS[stencil]


@stencils
def test_truncation_constant_is_that_of_the_tables(stencil):
    # Two roundings: of the moment and of its quotient.
    assert abs(stencil.truncation_error(1.0) - float(Fraction(TRUNCATION[stencil]))) <= EPS


@stencils
def test_polynomials_up_to_the_order_are_differentiated_exactly(stencil):
    for degree in range(stencil.order + 1):
        points = zip(stencil.weights, stencil.offsets, strict=True)
        at_two = sum(w * (2 + Fraction(o, 3)) ** degree for w, o in points) / Fraction(1, 3)
        assert at_two == (degree * Fraction(2) ** (degree - 1) if degree else 0)


@stencils
def test_truncation_grows_with_its_power_of_the_step_and_its_bound(stencil):
    expected = 3 * stencil.truncation_error(1.0) / 2**stencil.order
    # Three products, each rounded once.
    assert abs(stencil.truncation_error(0.5, 3.0) - expected) <= 3 * math.ulp(expected)


@stencils
def test_rounding_grows_as_the_step_shrinks(stencil):
    assert stencil.rounding_error(0.25, 1.0) == 4 * float(sum(abs(w) for w in stencil.weights))


@stencils
def test_measured_error_stays_below_the_predicted_one_at_every_step(stencil):
    for exponent in range(-40, -2):
        assert measured_error(stencil, 2.0**exponent) <= predicted_error(stencil, 2.0**exponent), exponent


@stencils
def test_truncation_error_is_the_measured_one_where_it_rules(stencil):
    step = 2.0**-4 if stencil.order > 2 else 2.0**-10
    ratio = measured_error(stencil, step) / stencil.truncation_error(step, math.e)
    # The next term of the series is at most some 2 * reach * step of the leading one.
    assert abs(ratio - 1) <= 2 * max(map(abs, stencil.offsets)) * step


@stencils
def test_best_step_is_near_the_minimum_of_the_measured_error(stencil):
    best = stencil.best_step(math.ulp(math.e), math.e)
    # One measured error can be small by luck; the largest among eight close steps cannot.
    measured = {k: max(measured_error(stencil, best * 2.0**k * (1 + j / 16)) for j in range(8)) for k in range(-12, 7)}
    ulp_of_slope = math.ulp(math.e)
    assert measured[0] <= 6 * min(measured.values()) + ulp_of_slope


@stencils
def test_best_step_is_a_power_of_two(stencil):
    assert math.frexp(stencil.best_step(EPS))[0] == 0.5


@stencils
def test_best_step_minimises_the_predicted_sum_as_far_as_a_power_of_two_can(stencil):
    def total(step):
        return stencil.truncation_error(step) + stencil.rounding_error(step, EPS)

    best, p = stencil.best_step(EPS), stencil.order
    # With the best step r = 1, the sum goes as r**p / p + 1 / r; the nearest power of two has r up to sqrt 2.
    farthest = max(r**p / p + 1 / r for r in (math.sqrt(0.5), math.sqrt(2.0))) / (1 / p + 1)
    assert total(best) <= farthest * min(total(best * 2.0 ** (k / 8)) for k in range(-16, 17))
