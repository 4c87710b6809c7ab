"""Loops of two vectors at a time: every number once, and code that is told so."""

import re

import numba
import numpy as np
import pytest

from difflab.kernels import loops, vector_math
from difflab.kernels.flags import ENTERED
from difflab.kernels.loops import each, with_widest_vectors
from difflab.kernels.products import IS_WIDE
from difflab.kernels.target import within


compiled_only = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled")
DTYPES = ("float64", "float32")


@within
def doubled(i, x, out, by):
    out[i] = x[i] * by


def run(x, out, by):
    each(doubled, x.size, (x, out, by))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_number_is_reached_once_and_none_beyond(dtype):
    loop = numba.njit(**ENTERED)(run)
    for size in range(70):
        x, out = np.arange(100, dtype=dtype), np.full(100, -1, dtype)
        loop(x[:size], out[:size], x.dtype.type(2))
        assert (out[:size] == 2 * x[:size]).all()
        assert (out[size:] == -1).all()


def divisions(vectors: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Divisions of whole vectors in a loop over tanh."""
    monkeypatch.setattr(loops, "VECTORS", vectors)
    tanh = vector_math.float64.tanh

    @within
    def body(i, x, out):
        out[i] = tanh(x[i])

    def loop(x, out):
        each(body, x.size, (x, out))

    kernel = numba.njit("void(float64[::1], float64[::1])", **ENTERED)(loop)
    (text,) = kernel.inspect_asm().values()
    return len(re.findall(r"\tv?divpd\b|\tfdiv\s+v\d+\.2d", text))


@compiled_only
def test_two_vectors_are_under_way_and_without_the_hint_one(monkeypatch):
    assert divisions(2, monkeypatch) >= 2 * divisions(1, monkeypatch) > 0


def plain_loop(x, out):
    for i in range(x.size):
        out[i] = x[i] * x[i]


def plain_loop_with_widest_vectors(x, out):
    with_widest_vectors()
    for i in range(x.size):
        out[i] = x[i] * x[i]


@compiled_only
@pytest.mark.skipif(not IS_WIDE, reason="the processor has no vectors of 512 bits")
def test_vectors_are_as_wide_as_the_processors_where_it_is_said():
    """Where LLVM takes half by itself, it is the saying that does it."""

    def uses_512_bits(function):
        kernel = numba.njit("void(float64[::1], float64[::1])", **ENTERED)(function)
        return "zmm" in "".join(kernel.inspect_asm().values())

    assert uses_512_bits(plain_loop_with_widest_vectors)
    if uses_512_bits(plain_loop):
        pytest.skip("LLVM takes whole vectors of this processor by itself")
