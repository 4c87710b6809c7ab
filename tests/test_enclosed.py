"""What floats say of a ball, beside what exact fractions say of all its points."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from operator import itemgetter
from typing import Any

import numpy as np
import pytest
from flint import arb

from difflab.enclosures import enclosed as module
from difflab.enclosures.enclosed import (
    ENCLOSED,
    KINK,
    ROUNDED,
    Enclosed,
    enclosed,
    nothing_known,
    outward,
    rounds_uniquely,
    with_kinks,
)
from difflab.enclosures.precision import FIRST_BITS
from difflab.number_systems import BALLS, Series, ball_precision, coefficient


SMALLEST, LARGEST = 2.0**-1074, float(np.finfo(float).max)
BITS = 3000
"""Enough for any sum of two floats."""


def ball(middle: Fraction | float, radius: Fraction | float = 0) -> arb:
    """Around a dyadic number, which it holds exactly; the radius is rounded up to 30 bits."""
    with ball_precision(BITS):
        return arb(_dyadic(middle), _dyadic(radius))


def _dyadic(number: Fraction | float) -> arb:
    number = Fraction(number)
    return arb((number.numerator, 1 - number.denominator.bit_length()))


def fraction(exact: arb) -> Fraction:
    mantissa, exponent = (int(part) for part in exact.man_exp())
    return Fraction(mantissa) * Fraction(2) ** exponent


def ends(of: arb) -> tuple[Fraction, Fraction]:
    return fraction(of.mid()) - fraction(of.rad()), fraction(of.mid()) + fraction(of.rad())


def rounded_outward(of: arb) -> tuple[Fraction, Fraction]:
    """The ends as they are known at the working precision, in which no ball need be exact."""
    low, high = ends(of)
    return low - abs(low) / 2 ** (FIRST_BITS - 1), high + abs(high) / 2 ** (FIRST_BITS - 1)


def nearest_float(number: Fraction) -> float:
    """Python's quotient of integers is the nearest float, the even one of two."""
    try:
        return number.numerator / number.denominator
    except OverflowError:
        return np.inf if number > 0 else -np.inf


def floats(*balls: arb) -> Enclosed:
    array = np.empty(len(balls), object)
    array[:] = balls
    with ball_precision(FIRST_BITS):
        return enclosed(array, FIRST_BITS)


def points(of: arb, rng: np.random.Generator) -> list[Fraction]:
    """Both ends, the middle, and some between."""
    low, high = ends(of)
    return [low, high, *(low + (high - low) * Fraction(t) for t in (0.5, *rng.random(3)))]


def complaints(balls: list[arb], found: Enclosed) -> set[str]:
    """What is said of the balls and is not so, in exact arithmetic."""
    rng = np.random.default_rng(0)
    entries = (found.mapped(itemgetter(i)) for i in range(len(balls)))
    return {wrong for of, entry in zip(balls, entries, strict=True) for wrong in _complaints(of, entry, rng)}


def _complaints(of: arb, found: Any, rng: np.random.Generator) -> Iterator[str]:
    inside = points(of, rng)
    if min(inside) < _or(found.lower, min(inside)) or found.lower == np.inf:
        yield "lower"
    if max(inside) > _or(found.upper, max(inside)) or found.upper == -np.inf:
        yield "upper"
    rounded, nearly = ({nearest_float(end) for end in ends_of(of)} for ends_of in (ends, rounded_outward))
    if found.status != (ROUNDED if len(rounded) == 1 else ENCLOSED) and (len(nearly) == 1 or len(rounded) == 2):
        yield "status"
    if found.status == ROUNDED and {float(found.nearest)} != rounded:
        yield "nearest"
    if np.isinf(found.nearest) and np.isfinite(found.radius):
        yield "radius"
    elif np.isfinite(found.radius):
        stated = Fraction(float(found.nearest)) + Fraction(float(found.residual))
        if any(abs(point - stated) > Fraction(float(found.radius)) for point in inside):
            yield "radius"


def _or(bound: float, otherwise: Fraction) -> Fraction:
    return Fraction(float(bound)) if np.isfinite(bound) else otherwise


# --- corners

CORNERS: dict[str, tuple[arb, str]] = {
    "zero": (ball(0), ROUNDED),
    "one": (ball(1), ROUNDED),
    "minus one": (ball(-1), ROUNDED),
    "an ulp and a bit around one": (ball(1, 2.0**-52 + 2.0**-70), ENCLOSED),
    "a quarter of an ulp around one": (ball(1, 2.0**-54 - 2.0**-80), ROUNDED),
    "a third of an ulp around one, whose lower neighbour is half as far": (ball(1, 2.0**-54 + 2.0**-56), ENCLOSED),
    "a third of an ulp above one": (ball(1 + Fraction(2) ** -54, 2.0**-56), ROUNDED),
    "a third of an ulp around minus one": (ball(-1, 2.0**-54 + 2.0**-56), ENCLOSED),
    "exactly half-way, to even below": (ball(1 + Fraction(2) ** -53), ROUNDED),
    "exactly half-way, to even above": (ball(1 + 3 * Fraction(2) ** -53), ROUNDED),
    "around half-way": (ball(1 + Fraction(2) ** -53, 2.0**-200), ENCLOSED),
    "just above half-way": (ball(1 + Fraction(2) ** -53 + Fraction(2) ** -120, 2.0**-150), ROUNDED),
    "half-way below a power of two": (ball(1 - Fraction(2) ** -54), ROUNDED),
    "the smallest number": (ball(SMALLEST), ROUNDED),
    "half of the smallest, to zero": (ball(Fraction(SMALLEST) / 2), ROUNDED),
    "a little more than half of the smallest": (ball(Fraction(SMALLEST) * Fraction(17, 32)), ROUNDED),
    "minus a little more than half of the smallest": (ball(-Fraction(SMALLEST) * Fraction(17, 32)), ROUNDED),
    "far below the smallest": (ball(Fraction(2) ** -5000), ROUNDED),
    "minus far below the smallest": (ball(-(Fraction(2) ** -5000)), ROUNDED),
    "around far below the smallest": (ball(Fraction(2) ** -5000, Fraction(2) ** -5010), ROUNDED),
    "around zero, far below the smallest": (ball(0, Fraction(2) ** -5000), ROUNDED),
    "around zero, by the smallest": (ball(0, SMALLEST), ENCLOSED),
    "around zero, by one": (ball(0, 1), ENCLOSED),
    "from far below zero to above": (ball(-1, 1e300), ENCLOSED),
    "a subnormal number and a bit": (ball(Fraction(SMALLEST) * Fraction(321, 64), Fraction(2) ** -1100), ROUNDED),
    "half-way between subnormal numbers": (ball(Fraction(SMALLEST) * Fraction(5, 2)), ROUNDED),
    "around half-way between them": (ball(Fraction(SMALLEST) * Fraction(5, 2), Fraction(2) ** -1200), ENCLOSED),
    "the smallest normal number, and a bit less": (ball(Fraction(2) ** -1022, Fraction(2) ** -1076), ROUNDED),
    "a float and a residual below every float": (ball(1 + Fraction(2) ** -2000), ROUNDED),
    "the largest number": (ball(LARGEST), ROUNDED),
    "the largest number and a third of an ulp": (ball(LARGEST + Fraction(2) ** 969), ROUNDED),
    "minus the largest number and a third of an ulp": (ball(-LARGEST - Fraction(2) ** 969), ROUNDED),
    "an ulp around the largest number": (ball(LARGEST, 2.0**971), ENCLOSED),
    "half an ulp beyond the largest": (ball(Fraction(LARGEST) + Fraction(2) ** 970), ROUNDED),
    "around half an ulp beyond the largest": (ball(Fraction(LARGEST) + Fraction(2) ** 970, 2.0**900), ENCLOSED),
    "beyond every float": (ball(Fraction(2) ** 5000), ROUNDED),
    "minus beyond every float": (ball(-(Fraction(2) ** 5000)), ROUNDED),
    "around zero, beyond every float": (ball(0, Fraction(2) ** 5000), ENCLOSED),
    "from one to beyond every float": (ball(Fraction(2) ** 5000, Fraction(2) ** 5000 - 1), ENCLOSED),
}
each_corner = pytest.mark.parametrize("corner", CORNERS)


@each_corner
def test_in_every_corner_what_is_said_holds(corner):
    of, status = CORNERS[corner]
    found = floats(of)
    assert complaints([of], found) == set()
    assert found.status.tolist() == [status]


@each_corner
def test_bounds_are_of_the_ball_or_one_float_beyond(corner):
    of, _ = CORNERS[corner]
    found = floats(of)
    below, above = (nearest_float(end) for end in ends(of))
    with np.errstate(over="ignore"):
        assert found.lower[0] >= two_floats_from(below, -np.inf)
        assert found.upper[0] <= two_floats_from(above, np.inf)


def two_floats_from(number: float, way: float) -> float:
    return float(np.nextafter(np.nextafter(number, way), way))


@pytest.mark.parametrize("exact", [0.0, -0.0, 1.0, -1 / 3, SMALLEST, -SMALLEST, LARGEST, -LARGEST])
def test_a_float_is_enclosed_in_itself(exact):
    found = floats(ball(exact))
    assert found.nearest.tolist() == found.lower.tolist() == found.upper.tolist() == [exact]
    assert (found.residual, found.radius) == (0, 0)


def test_beyond_the_largest_float_there_is_no_radius_and_no_other_bound():
    found = floats(ball(Fraction(2) ** 2000), ball(-(Fraction(2) ** 2000)))
    assert found.nearest.tolist() == [np.inf, -np.inf]
    assert found.radius.tolist() == [np.inf, np.inf]
    assert found.lower.tolist() == [LARGEST, -np.inf]
    assert found.upper.tolist() == [np.inf, -LARGEST]


UNBOUNDED = {
    "no number": arb("nan"),
    "any number": arb(0, "inf"),
    "around one, by any amount": arb(1, "inf"),
}


@pytest.mark.parametrize("case", UNBOUNDED)
def test_of_what_is_not_finite_nothing_finite_is_said(case):
    found = floats(UNBOUNDED[case])
    assert not np.isfinite(found.radius).any()
    assert (found.lower[0], found.upper[0], found.status[0]) == (-np.inf, np.inf, ENCLOSED)


def test_nothing_known_is_what_it_says():
    found = nothing_known((2, 3))
    assert np.isnan([found.nearest, found.residual]).all()
    assert (found.lower == -np.inf).all()
    assert (found.upper == np.inf).all()
    assert (found.radius == np.inf).all()
    assert set(found.status.ravel()) == {ENCLOSED}
    assert not found.is_final


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (2, 0), (2, 3, 4)])
def test_every_array_has_the_shape_of_the_balls(shape):
    found = enclosed(BALLS.array(np.full(shape, 0.25)) if shape else np.array(arb(0.25), object), FIRST_BITS)
    assert {getattr(found, name).shape for name in module.ARRAYS} == {shape}
    assert (found.nearest == 0.25).all()


# --- a sweep over random balls

N_BALLS = 4000


def random_ball(rng: np.random.Generator) -> arb:
    """Of any size and width; many are close to a float, or to the middle of two."""
    exponent = int(rng.choice([-1074, -1022, 0, 1023]) + rng.integers(-80, 81))
    exponent = min(exponent, 1023) if rng.integers(4) else exponent
    bits = int(rng.choice([1, 2, 20, 53, 54, 55, 100]))
    mantissa = int(rng.integers(2**20)) << 80 if bits == 20 else int.from_bytes(rng.bytes(16), "big") >> (128 - bits)
    middle = Fraction(mantissa | 1) * Fraction(2) ** (exponent - bits) * int(rng.choice([-1, 1]))
    if rng.integers(3) == 0:
        middle += middle * Fraction(2) ** -int(rng.integers(50, 200)) * int(rng.choice([-1, 1]))
    size = abs(middle) * Fraction(2) ** -int(
        rng.choice([rng.integers(-4, 10), rng.integers(50, 60), rng.integers(200)])
    )
    return ball(middle, 0 if rng.integers(5) == 0 else size * Fraction(rng.uniform(0.5, 1)))


@pytest.fixture(scope="module")
def random_balls() -> list[arb]:
    rng = np.random.default_rng(0)
    return [random_ball(rng) for _ in range(N_BALLS)]


@pytest.fixture(scope="module")
def found(random_balls) -> Enclosed:
    return floats(*random_balls)


def test_what_is_said_of_random_balls_holds_for_all_their_points(random_balls, found):
    assert complaints(random_balls, found) == set()


def test_random_balls_are_of_every_kind(random_balls, found):
    exact = np.array([of.rad() == 0 for of in random_balls])
    subnormal, beyond = np.abs(found.nearest) < 2.0**-1022, np.isinf(found.nearest)
    for some in (exact, found.status == ROUNDED, found.status == ENCLOSED, subnormal, beyond, found.lower == 0):
        assert 0.01 * N_BALLS < np.count_nonzero(some) < 0.9 * N_BALLS


def test_radii_are_little_more_than_what_is_left(random_balls, found):
    """A rounding of the residual, one of the working precision, and what rounds up to the smallest float."""
    for of, nearest, residual, radius in zip(random_balls, found.nearest, found.residual, found.radius, strict=True):
        if np.isfinite(radius):
            left = fraction(of.rad()) * (1 + Fraction(2) ** -28) + abs(fraction(of.mid()) - Fraction(nearest)) / 2**52
            assert Fraction(radius) <= left + 2 * Fraction(SMALLEST), (of, nearest, residual)


def test_bounds_of_random_balls_are_one_float_beyond_at_most(random_balls, found):
    below, above = (np.array([nearest_float(ends(of)[side]) for of in random_balls]) for side in (0, 1))
    with np.errstate(over="ignore"):
        assert (found.lower >= np.nextafter(np.nextafter(below, -np.inf), -np.inf)).all()
        assert (found.upper <= np.nextafter(np.nextafter(above, np.inf), np.inf)).all()


def up(a: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.nextafter(a, np.inf)


def down(a: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.nextafter(a, -np.inf)


PLANTED: dict[str, tuple[Callable[[Enclosed], dict], set[str]]] = {
    "a lower bound that is a float too high": (lambda f: {"lower": up(f.lower)}, {"lower"}),
    "an upper bound that is a float too low": (lambda f: {"upper": down(f.upper)}, {"upper"}),
    "a radius of what the ball has": (lambda f: {"radius": f.radius * (1 - 2.0**-40)}, {"radius"}),
    "no radius": (lambda f: {"radius": 0 * f.residual}, {"radius"}),
    "no residual": (lambda f: {"residual": 0 * f.residual}, {"radius"}),
    "everything rounded": (lambda f: {"status": np.full(len(f.status), ROUNDED)}, {"status", "nearest"}),
    "nothing rounded": (lambda f: {"status": np.full(len(f.status), ENCLOSED)}, {"status"}),
    "the float above": (lambda f: {"nearest": up(f.nearest), "residual": f.residual}, {"nearest", "radius"}),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_wrong_statement_is_noticed(fault, random_balls, found):
    plant, noticed = PLANTED[fault]
    with np.errstate(invalid="ignore"):
        assert complaints(random_balls, replace(found, **plant(found))) >= noticed


BREAK_THE_CODE: dict[str, Callable[[Any], Any]] = {
    "radii without the rounding of the residual": lambda patch: patch.setattr(
        module, "_radii", lambda rest: np.array([float(r.rad()) for r in rest])
    ),
    "no room for subnormal numbers": lambda patch: patch.setattr(module, "_SMALLEST", 0.0),
    "bounds rounded to nearest": lambda patch: patch.setattr(module, "outward", lambda end, direction: float(end)),
    "an ulp to both sides of a power of two": lambda patch: patch.setattr(
        module, "_exactly", lambda of: (-np.inf, np.inf, False)
    ),
}


@pytest.mark.parametrize("fault", BREAK_THE_CODE)
def test_wrong_code_is_noticed(fault, random_balls, monkeypatch):
    BREAK_THE_CODE[fault](monkeypatch)
    with np.errstate(all="ignore"):
        assert complaints(random_balls, floats(*random_balls))


# --- ends of intervals


@pytest.mark.parametrize("number", [0.0, 1.0, -1.0, SMALLEST, -SMALLEST, LARGEST, 2.0**-1022])
def test_an_end_that_is_a_float_stays(number):
    assert outward(ball(number), -np.inf) == outward(ball(number), np.inf) == number


def test_an_end_between_floats_goes_outward():
    third = ball(Fraction(2**200 // 3, 2**200))
    assert outward(third, -np.inf) < fraction(third) < outward(third, np.inf)
    assert outward(third, np.inf) == np.nextafter(outward(third, -np.inf), np.inf)


def test_an_end_below_every_float_goes_to_zero_or_to_the_smallest():
    tiny = ball(Fraction(2) ** -3000)
    assert (outward(tiny, -np.inf), outward(tiny, np.inf)) == (0.0, SMALLEST)
    assert (outward(-tiny, -np.inf), outward(-tiny, np.inf)) == (-SMALLEST, 0.0)


def test_an_end_that_is_no_number_is_infinite():
    assert (outward(arb("nan"), -np.inf), outward(arb("nan"), np.inf)) == (-np.inf, np.inf)


def test_a_ball_rounds_uniquely_if_both_its_ends_do_so():
    with ball_precision(FIRST_BITS):
        assert rounds_uniquely(ball(1, 2.0**-55))
        assert not rounds_uniquely(ball(1, 2.0**-52))
        assert not rounds_uniquely(arb("nan"))


# --- kinks

RADIUS_ROUNDING = 2.0**-29
"""Radii of Arb have 30 bits."""


def slope_of_relu(at: float) -> Callable[[Series], np.ndarray]:
    def derive(series: Series) -> np.ndarray:
        line = series.line(BALLS.array(np.array([at, 1.0])), np.ones(2, int))
        return coefficient(series.positive_part(line), 1)

    return derive


@contextmanager
def counted(derive: Callable) -> Iterator[list]:
    calls: list[str] = []
    yield [lambda series: calls.append(series.at_kink) or derive(series), calls]


def test_an_entry_at_a_kink_has_the_left_slope_and_bounds_of_both():
    with ball_precision(FIRST_BITS):
        found = with_kinks(slope_of_relu(0.0), FIRST_BITS)
    assert found.status.tolist() == [KINK, ROUNDED]
    assert (found.nearest.tolist(), found.radius.tolist()) == ([0.0, 1.0], [0.0, 0.0])
    assert (found.lower[1], found.upper[1]) == (1.0, 1.0)
    assert -RADIUS_ROUNDING <= found.lower[0] <= 0
    assert 1 <= found.upper[0] <= 1 + RADIUS_ROUNDING
    assert found.is_final


@pytest.mark.parametrize(("at", "systems"), [(0.0, ["left", "both"]), (0.5, ["left"]), (-0.5, ["left"])])
def test_both_sides_are_only_asked_for_where_there_is_a_tie(at, systems):
    with counted(slope_of_relu(at)) as (derive, calls), ball_precision(FIRST_BITS):
        with_kinks(derive, FIRST_BITS)
    assert calls == systems


def test_what_no_precision_can_tell_from_a_kink_stays_enclosed_between_both_sides():
    def derive(series: Series) -> np.ndarray:
        line = series.line(np.array([arb(1).tanh() - arb(1).tanh()], object), np.ones(1, int))
        return coefficient(series.positive_part(line), 1)

    with ball_precision(FIRST_BITS):
        found = with_kinks(derive, FIRST_BITS)
    assert found.status.tolist() == [ENCLOSED]
    assert found.lower[0] <= 0
    assert found.upper[0] >= 1
    assert not found.is_final
