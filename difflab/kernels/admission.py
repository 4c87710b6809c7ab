"""Whether arguments are as a plan expects them: looked at in whole vectors, as every call does it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import types
from numba.extending import overload

from difflab.kernels.flags import CALLED
from difflab.kernels.layout import LOSS_SUMS, N_INPUTS, N_OUTPUTS, N_PARAMS, ONLY_BATCH, address_of, reals
from difflab.kernels.target import compiled
from difflab.kernels.vector_math import FLOAT32, FLOAT64, Precision


LIMITS = 3
"""Behind the losses of a plan: between which two numbers targets must be."""


def _finiteness(p: Precision) -> Callable[[np.ndarray], bool]:
    """By the largest pattern of bits, the sign left out: those of infinity and of all NaN are the last."""
    real, integer = p.real, p.integer
    infinity = integer((2 * p.bias + 1) << p.mantissa_bits)
    sign_off = integer(np.iinfo(integer).max)

    @compiled
    def are_finite(numbers):
        most = integer(0)
        for i in range(numbers.size):
            most = max(most, integer(real(numbers[i]).view(integer) & sign_off))
        return most < infinity

    return are_finite


_double, _single = _finiteness(FLOAT64), _finiteness(FLOAT32)


def are_finite(numbers: np.ndarray) -> bool:
    """Whether none of float64 or float32 numbers is infinite or NaN."""
    return bool((_single if numbers.dtype == np.float32 else _double)(numbers))


@overload(are_finite, jit_options={**CALLED})
def _choose(numbers):
    if numbers.dtype == types.float32:
        return lambda numbers: _single(numbers)
    return lambda numbers: _double(numbers)


@compiled
def are_aligned(numbers):
    """Whether each number lies at a multiple of its size: Numba's types do not always tell."""
    return address_of(numbers) & (numbers.itemsize - 1) == 0


@compiled
def are_apart(a, b):
    begin, end = address_of(a), address_of(a) + a.size * a.itemsize
    return end <= address_of(b) or address_of(b) + b.size * b.itemsize <= begin


@compiled
def are_within(numbers, low, high):
    """Without a way out of the loop, so that it is vectorised; NaN is not."""
    outside = 0
    for k in range(numbers.size):
        outside |= not (low <= numbers[k] <= high)
    return outside == 0


@compiled
def admits(plan, theta, x, y):
    """Whether shapes and places are right, numbers finite, and targets in their range."""
    batch = x.shape[0]
    have_places = are_aligned(theta) and are_aligned(x) and are_aligned(y)
    fits = (
        have_places
        and theta.size == plan[N_PARAMS]
        and batch > 0
        and x.shape[1] == plan[N_INPUTS]
        and y.shape[0] == batch
    )
    if not fits or (plan[ONLY_BATCH] != 0 and batch != plan[ONLY_BATCH]):
        return False
    if not (are_finite(theta) and are_finite(x.reshape(x.size))):
        return False
    if y.ndim == 1:
        return are_within(y, 0, plan[N_OUTPUTS] - 1)
    limits = reals(plan[LOSS_SUMS] + 8 * LIMITS, 2)
    low, high = x.dtype.type(limits[0]), x.dtype.type(limits[1])
    return y.shape[1] == plan[N_OUTPUTS] and are_within(y.reshape(y.size), low, high)
