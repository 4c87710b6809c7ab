"""Formats of floating point, by their parameters, beside what NumPy and ml_dtypes know of the same formats."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from difflab.number_systems import FORMATS


TYPES = {name: np.dtype(getattr(ml_dtypes, name, name)) for name in FORMATS}
each_format = pytest.mark.parametrize("name", FORMATS)


def numbers(name: str) -> np.ndarray:
    """Of all sizes, in the format itself: powers of two and their neighbours, subnormal ones, 0, the largest."""
    made = FORMATS[name]
    exponents = np.arange(np.log2(made.smallest), 1 - made.least_exponent)
    spread = np.random.default_rng(0).uniform(1, 2, len(exponents)) * 2.0**exponents
    with np.errstate(over="ignore"):
        found = np.concatenate([[0.0], 2.0**exponents, spread, [made.largest]]).astype(TYPES[name])
        found = np.concatenate([found, np.nextafter(found, TYPES[name].type(0)), -found])
    assert np.isfinite(found).all()
    return found


@each_format
def test_parameters_are_those_of_the_type(name):
    made, info = FORMATS[name], ml_dtypes.finfo(TYPES[name])
    assert made.name == name
    assert made.precision == info.nmant + 1
    assert made.least_exponent == info.minexp
    assert made.unit_roundoff == float(info.eps) / 2
    assert made.largest == float(info.max)
    assert made.smallest_normal == float(info.smallest_normal)
    assert made.smallest == float(info.smallest_subnormal)


@each_format
def test_an_ulp_is_the_distance_to_the_next_larger_number_of_the_format(name):
    held = np.abs(numbers(name))
    held = held[held < TYPES[name].type(FORMATS[name].largest)]
    above = np.nextafter(held, TYPES[name].type(np.inf))
    assert (FORMATS[name].ulp(held) == above.astype(np.float64) - held.astype(np.float64)).all()


@each_format
def test_an_ulp_is_the_spacing_that_numpy_knows(name):
    held = np.abs(numbers(name))
    held = held[held < TYPES[name].type(FORMATS[name].largest)]
    assert (FORMATS[name].ulp(held) == np.spacing(held).astype(np.float64)).all()


@each_format
def test_an_ulp_has_no_sign_and_is_float64(name):
    held = numbers(name)
    assert (FORMATS[name].ulp(held) == FORMATS[name].ulp(-held)).all()
    assert FORMATS[name].ulp(held).dtype == np.float64


@each_format
def test_between_two_numbers_of_a_format_an_ulp_is_their_distance(name):
    made = FORMATS[name]
    held = np.abs(numbers(name)).astype(np.float64)
    held = held[held < made.largest]
    between = held + 0.75 * made.ulp(held)
    is_between = (between > held) & (between < held + made.ulp(held))
    assert is_between.all() or name == "float64"
    assert (made.ulp(between[is_between]) == made.ulp(held[is_between])).all()


@each_format
def test_zero_and_what_is_below_every_number_have_the_smallest_ulp(name):
    made = FORMATS[name]
    assert (
        made.ulp(np.array([0.0, -0.0, made.smallest, made.smallest / 4, made.smallest_normal])).tolist()
        == [made.smallest] * 5
    )


@each_format
def test_the_largest_number_has_a_finite_ulp_and_what_is_beyond_has_none(name):
    made = FORMATS[name]
    with np.errstate(over="ignore"):
        beyond = np.nextafter(made.largest, np.inf)
    assert made.ulp(np.array([made.largest])) == made.largest - float(np.nextafter(*largest_and_0(name)))
    assert made.ulp(np.array([beyond, np.inf, -np.inf])).tolist() == [np.inf] * 3


def largest_and_0(name: str) -> np.ndarray:
    return np.array([FORMATS[name].largest, 0.0], TYPES[name])


@each_format
def test_an_ulp_of_no_number_is_none(name):
    """Infinite, so that no error is small beside it."""
    assert np.isinf(FORMATS[name].ulp(np.array([np.nan]))).all()


@each_format
def test_rounding_to_nearest_is_within_the_unit_roundoff_but_for_subnormal_numbers(name):
    made, rng = FORMATS[name], np.random.default_rng(1)
    exact = rng.uniform(1, 2, 5000) * 2.0 ** rng.integers(made.least_exponent, 1 - made.least_exponent, 5000)
    exact = exact[exact < made.largest]
    errors = np.abs(exact.astype(TYPES[name]).astype(np.float64) - exact)
    assert (errors <= made.unit_roundoff * exact).all()
    assert (errors <= made.ulp(exact) / 2).all()
    assert name == "float64" or (errors > made.unit_roundoff * exact / 4).any()
