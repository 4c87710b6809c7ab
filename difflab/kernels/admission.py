"""Whether arguments are as a plan expects them: looked at in whole vectors, as every call does it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import types
from numba.extending import overload

from difflab.kernels.flags import CALLED
from difflab.kernels.layout import (
    IS_CLASSES,
    ITEM,
    LIMITS,
    LOSS_SUMS,
    N_INPUTS,
    N_OUTPUTS,
    N_PARAMS,
    ONLY_BATCH,
    SHARE_BEGIN,
    SHARE_END,
    THETA,
    THETA_DOT,
    TOTAL,
    X,
    Y,
    address_of,
    array,
    reals,
    words,
)
from difflab.kernels.target import compiled
from difflab.kernels.vector_math import FLOAT32, FLOAT64, Precision


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
def fits(plan, theta, x, y):
    """Whether shapes and places are right."""
    batch = x.shape[0]
    have_places = are_aligned(theta) and are_aligned(x) and are_aligned(y)
    is_number_right = batch > 0 and (plan[ONLY_BATCH] == 0 or batch == plan[ONLY_BATCH])
    wide = 1 if y.ndim == 1 else plan[N_OUTPUTS]
    are_sizes_right = theta.size == plan[N_PARAMS] and x.shape[1] == plan[N_INPUTS] and y.size == batch * wide
    return have_places and is_number_right and are_sizes_right and y.shape[0] == batch


@compiled
def are_sound(plan, zero):
    """Whether what is at a plan's addresses is finite, of theta and its direction its share, and targets in range."""
    begin, size = plan[SHARE_BEGIN] * plan[ITEM], plan[SHARE_END] - plan[SHARE_BEGIN]
    if not are_finite(array(plan[THETA] + begin, size, zero)):
        return False
    if plan[THETA_DOT] != 0 and not are_finite(array(plan[THETA_DOT] + begin, size, zero)):
        return False
    if not are_finite(array(plan[X], plan[TOTAL] * plan[N_INPUTS], zero)):
        return False
    if plan[IS_CLASSES] != 0:
        return are_within(words(plan[Y], plan[TOTAL]), 0, plan[N_OUTPUTS] - 1)
    limits = reals(plan[LOSS_SUMS] + 8 * LIMITS, 2)
    targets = array(plan[Y], plan[TOTAL] * plan[N_OUTPUTS], zero)
    return are_within(targets, targets.dtype.type(limits[0]), targets.dtype.type(limits[1]))
