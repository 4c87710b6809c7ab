"""What is looked at before a sweep: numbers that are not finite, and targets out of their range, wherever they are."""

import numpy as np
import pytest
from entered import entered

from difflab.kernels import admission
from difflab.kernels.admission import are_within


DTYPES = ("float64", "float32")
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def are_finite(numbers: np.ndarray) -> bool:
    return entered({"float64": admission._double, "float32": admission._single}[numbers.dtype.name])(numbers)


@dtypes
@pytest.mark.parametrize("broken", [np.nan, -np.nan, np.inf, -np.inf])
def test_one_number_that_is_not_finite_is_found_wherever_it_is(dtype, broken):
    for size in range(1, 40):
        for place in range(size):
            numbers = np.full(size, -1.0, dtype)
            numbers[place] = broken
            assert not are_finite(numbers)


@dtypes
def test_all_finite_numbers_are(dtype):
    info = np.finfo(dtype)
    ends = np.array([info.max, info.min, info.smallest_subnormal, -info.smallest_subnormal, info.tiny, 0, -0.0], dtype)
    assert are_finite(np.tile(ends, 9))
    assert are_finite(np.empty(0, dtype))


@dtypes
def test_a_number_out_of_range_is_found_wherever_it_is(dtype):
    within, low, high = entered(are_within), np.dtype(dtype).type(0), np.dtype(dtype).type(1)
    for size in range(1, 40):
        numbers = np.linspace(0, 1, size).astype(dtype)
        assert within(numbers, low, high)
        for place in range(size):
            for wrong in (np.nextafter(low, -high), np.nextafter(high, 2 * high), np.nan):
                changed = numbers.copy()
                changed[place] = wrong
                assert not within(changed, low, high)
