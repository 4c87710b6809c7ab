"""Kernels read nothing beside their arguments: the memory there cannot be touched."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numba
import numpy as np
import pytest
import test_modes
import test_products
from entered import entered

import difflab as dl
from difflab.kernels.products import scratch_size
from difflab.kernels.transposition import transpose


pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="memory is guarded as Linux does it"),
    pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="NumPy reads for what nothing compiles"),
]

PAGE = mmap.PAGESIZE
PROT_NONE = 0


class Guarded:
    """Room between two pages that cannot be touched, where an array can lie at either end."""

    def __init__(self, pages: int) -> None:
        self.size, self._memory = pages * PAGE, mmap.mmap(-1, (pages + 2) * PAGE)
        self.begin = ctypes.addressof(ctypes.c_char.from_buffer(self._memory)) + PAGE
        for page in (self.begin - PAGE, self.begin + self.size):
            assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(page), PAGE, PROT_NONE) == 0

    def holding(self, numbers: np.ndarray, at_end: bool) -> np.ndarray:
        assert numbers.nbytes <= self.size
        place = self.begin + (self.size - numbers.nbytes if at_end else 0)
        held = np.frombuffer((ctypes.c_char * numbers.nbytes).from_address(place), numbers.dtype).reshape(numbers.shape)
        held[...] = numbers
        return held


def each_end(rooms: list[Guarded], *arrays: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Made one after the other: each is gone when the next one is asked for."""
    return ([room.holding(a, end) for room, a in zip(rooms, arrays, strict=True)] for end in (False, True))


def make_products(maker: str, dtype: str, beside: int = 0) -> None:
    """For a planted fault, there are further terms beside the factors."""
    make, rooms = test_products.compiled(maker, dtype), [Guarded(600) for _ in range(5)]
    for shape, _, turns in test_products.cases([*test_products.REMAINDERS[::3], *test_products.LARGE]):
        rows, columns, terms = shape.rows, shape.columns, shape.terms + beside
        given = test_products.given(shape, dtype, "one row")
        left, right = (np.ascontiguousarray(a.T if turn else a) for a, turn in zip(given[:2], turns, strict=True))
        arrays = (
            left,
            right,
            given.before[:1],
            np.zeros(scratch_size(columns, terms, given.before.itemsize), dtype),
            np.zeros_like(given.before),
        )
        for a, b, start, scratch, made in each_end(rooms, *arrays):
            at = made.ctypes.data, start.ctypes.data, 0, a.ctypes.data, int(turns[0]), b.ctypes.data, int(turns[1])
            make(*at, rows, columns, terms, scratch.ctypes.data, a.dtype.type(0))
            if not beside:
                assert (np.abs(made - test_products.exact(given)) <= test_products.bound(given)).all()


def transpose_matrices(dtype: str, beside: int = 0) -> None:
    """For a planted fault, there are further rows beside the matrix."""
    turn, rooms, number = entered(transpose), [Guarded(60), Guarded(60)], np.dtype(dtype).type(0)
    for rows, columns in product((1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33, 128), repeat=2):
        matrix = np.arange(rows * columns, dtype=dtype).reshape(rows, columns)
        for given, out in each_end(rooms, matrix, np.zeros((columns, rows + beside), dtype)):
            turn(out.ctypes.data, given.ctypes.data, rows + beside, columns, given.itemsize, number)
            assert (out[:, :rows] == matrix.T).all()


def make_gradients(dtype: str) -> None:
    rooms = [Guarded(40) for _ in range(4)]
    for (kind, net), batch in product(test_modes.NETS.items(), (1, 2, 33, 128)):
        prepared, arguments = dl.Backprop(dtype).prepare(net), test_modes.problem(kind, batch, dtype)
        expected = prepared.value_and_gradient(*arguments)[1].tobytes()
        for *given, out in each_end(rooms, *arguments, np.zeros_like(arguments[0])):
            prepared.value_and_gradient(*given, out=out)
            assert out.tobytes() == expected


def ended(call: str) -> int:
    """How a process ends that makes such a call."""
    tests = Path(__file__).parent
    given = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (tests, tests.parent)))}
    script = f"import test_beside\ntest_beside.{call}\n"
    done = subprocess.run([sys.executable, "-c", script], env=given, capture_output=True, text=True)
    assert not done.stderr or done.returncode < 0, done.stderr
    return done.returncode


@pytest.mark.parametrize(
    "call",
    [
        "make_products('in order', 'float64')",
        "make_products('in order', 'float32')",
        "transpose_matrices('float64')",
        "transpose_matrices('float32')",
        "make_gradients('float64')",
        "make_gradients('float32')",
    ],
)
def test_nothing_beside_the_arguments_is_read(call):
    assert ended(call) == 0


@pytest.mark.parametrize("call", ["make_products('in order', 'float64', 1)", "transpose_matrices('float64', 1)"])
def test_what_reads_beside_its_arguments_is_caught(call):
    assert ended(call) == -signal.SIGSEGV
