"""Products of matrices: within the rounding of exact ones, in order to the bit, and nowhere out of their place."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from itertools import product
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

import llvmlite.binding
import numba
import numpy as np
import pytest
from entered import entered
from numba import types
from test_sweeps import child

from difflab import blas_libraries
from difflab.kernels import processor, products
from difflab.kernels.products import DEPTH, HEIGHT, HEIGHTS, WIDTHS, scratch_size


DTYPES = ("float64", "float32")
CANARIES = 64
"""Numbers on both sides of every array that nothing may touch."""

CANARY = 1234.5


class Shape(NamedTuple):
    rows: int
    columns: int
    terms: int


STARTS = ("zeros", "itself", "one row", "a column", "rows elsewhere")
"""What a product is added to; where it is a column, there is one, which may lie as close as its entries."""

TURNS = list(product((False, True), repeat=2))
MAKERS: dict[str, Callable[[int], Any]] = {
    "in order": lambda item: products.in_order(item, False).py_func,
    "in order, fused": lambda item: products.in_order(item, True).py_func,
    "by BLAS": lambda item: products.by_blas(item, "scipy").py_func,
    "by MKL": lambda item: products.by_blas(item, "mkl").py_func,
    "in plain Python": lambda item: products.in_plain_python(),
}
OWN = ("in order", "in order, fused")
NEEDS_MKL = pytest.mark.skipif(blas_libraries.missing("mkl") is not None, reason="needs the extra [mkl]")


each_maker = pytest.mark.parametrize(
    "maker", [pytest.param(maker, marks=NEEDS_MKL if maker == "by MKL" else ()) for maker in MAKERS]
)


@cache
def compiled(maker: str, dtype: str) -> Any:
    made = MAKERS[maker](np.dtype(dtype).itemsize)
    return in_python(made) if maker == "in plain Python" else machine_code(made, dtype)


def in_python(function: Any) -> Any:
    """With what turns addresses into arrays as Python can call it."""
    names = function.__globals__ | {name: entered(getattr(products, name)) for name in ("array", "matrix")}
    return FunctionType(function.__code__, names, closure=function.__closure__)


def machine_code(function: Any, dtype: str) -> Any:
    number = {"float64": types.float64, "float32": types.float32}[dtype]
    return numba.njit(types.void(*[types.int64] * 11, number), error_model="numpy")(function)


class Bordered:
    """An array between canaries."""

    def __init__(self, numbers: np.ndarray) -> None:
        flat = np.ascontiguousarray(numbers).ravel()
        self.whole = np.full(flat.size + 2 * CANARIES, CANARY, flat.dtype)
        self.inner = self.whole[CANARIES : CANARIES + flat.size].reshape(numbers.shape)
        self.inner[...] = numbers

    @property
    def address(self) -> int:
        return self.inner.ctypes.data

    def is_kept(self) -> bool:
        ends = self.whole[:CANARIES], self.whole[CANARIES + self.inner.size :]
        return all((end == CANARY).all() for end in ends)


class Given(NamedTuple):
    """Two factors, as (rows, terms) and (terms, columns), and what their product is added to."""

    left: np.ndarray
    right: np.ndarray
    before: np.ndarray
    start: str

    @property
    def shape(self) -> Shape:
        return Shape(*self.before.shape, self.left.shape[1])


def given(shape: Shape, dtype: str, start: str = "zeros", seed: int = 0) -> Given:
    rng = np.random.default_rng([seed, *shape])
    rows, columns, terms = shape
    left, right = (rng.normal(size=size).astype(dtype) for size in ((rows, terms), (terms, columns)))
    before = rng.normal(size=(rows, columns)).astype(dtype)
    if start == "zeros":
        before[...] = 0
    if start == "one row":
        before[...] = before[0]
    return Given(left, right, before, start)


def made(maker: str, g: Given, turns: tuple[bool, bool] = (False, False)) -> np.ndarray:
    """The product; nothing else may change, and as much room as is stated must do."""
    rows, columns, terms = g.shape
    dtype, item = g.left.dtype, g.left.itemsize
    left, right = (Bordered(a.T if turned else a) for a, turned in zip((g.left, g.right), turns, strict=True))
    out = Bordered(g.before if g.start == "itself" else np.full(g.before.shape, np.nan, dtype))
    beside = Bordered(g.before[:1] if g.start == "one row" else g.before)
    scratch = Bordered(np.full(scratch_size(columns, terms, item), np.nan, dtype))
    start = {"zeros": 0, "itself": out.address}.get(g.start, beside.address)
    start_row = 0 if g.start in ("zeros", "one row") else columns * item
    kept = [a.whole.tobytes() for a in (left, right, beside)]
    turned = [int(turn) for turn in turns]
    addresses = out.address, start, start_row, left.address, turned[0], right.address, turned[1]
    compiled(maker, dtype.name)(*addresses, rows, columns, terms, scratch.address, dtype.type(0))
    assert out.is_kept()
    assert scratch.is_kept()
    assert [a.whole.tobytes() for a in (left, right, beside)] == kept
    return out.inner.copy()


# --- what they must be


def in_sequence(g: Given) -> np.ndarray:
    """Term after term from zero, ``DEPTH`` at a time, and such sums added; all products and sums rounded once."""
    total, n = g.before.copy(), g.left.shape[1]
    for begin in range(0, n, DEPTH):
        part = np.zeros_like(total)
        for k in range(begin, min(begin + DEPTH, n)):
            part += g.left[:, k, None] * g.right[k]
        total += part
    return total


def magnitudes(g: Given) -> np.ndarray:
    return np.abs(g.left).astype(float) @ np.abs(g.right).astype(float) + np.abs(g.before)


def bound(g: Given) -> np.ndarray:
    """(n + 1) u of the sum of magnitudes, in any order, fused or not; twice u squared for what that leaves out."""
    n, u = g.left.shape[1], float(np.finfo(g.left.dtype).eps) / 2
    return (n + 1) * u / (1 - (n + 1) * u) * magnitudes(g) * (1 + 1e-6)


def exact(g: Given) -> np.ndarray:
    """In longdouble, whose own rounding is a two-thousandth of the bound for float64."""
    return g.before + g.left.astype(np.longdouble) @ g.right.astype(np.longdouble)


def rational(numbers: np.ndarray) -> np.ndarray:
    return np.frompyfunc(lambda number: Fraction(float(number)), 1, 1)(numbers)


def assert_right(maker: str, g: Given, turns: tuple[bool, bool] = (False, False)) -> None:
    found = made(maker, g, turns)
    assert (np.abs(found - exact(g)) <= bound(g)).all(), (maker, g.shape, g.start, turns)
    if maker == "in order":
        assert found.tobytes() == in_sequence(g).tobytes(), (g.shape, g.start, turns)


def test_longdouble_is_longer():
    assert np.finfo(np.longdouble).eps <= np.finfo(np.float64).eps / 1000


@pytest.mark.parametrize("dtype", DTYPES)
@each_maker
def test_it_is_within_the_bound_of_a_product_of_rational_numbers(maker, dtype):
    g = given(Shape(9, 11, 13), dtype, "itself")
    error = np.abs(rational(made(maker, g)) - rational(g.before) - rational(g.left) @ rational(g.right))
    assert (error.astype(float) <= bound(g)).all()


@pytest.mark.parametrize("item", WIDTHS)
def test_what_is_reproducible_is_in_order_and_not_fused(item):
    assert products.product(item, True, "scipy") is products.in_order(item, False).py_func


# --- shapes


WIDEST = max(WIDTHS[4])
REMAINDERS = [
    Shape(rows, columns, 3)
    for rows in range(1, 2 * HEIGHTS[0] + 1)
    for columns in range(1, 2 * WIDEST + 1, 1 + (rows > HEIGHTS[0]))
]
"""Every number of rows and columns that is left over beside whole tiles, and beside none."""

LARGE = [
    Shape(HEIGHT + 1, 17, DEPTH + 1),
    Shape(2 * HEIGHT + 5, 3, 5),
    Shape(1, 1, 2 * DEPTH + 3),
    Shape(7, 33, 3 * DEPTH),
    Shape(HEIGHT, 16, DEPTH),
    Shape(300, 8, 2),
    Shape(5, 300, DEPTH - 1),
    Shape(2, 2100, 3),
    Shape(13, 128, 600),
    Shape(300, 1, 300),
    Shape(1, 300, 300),
    Shape(23, 33, 6 * DEPTH),
]
"""Beyond and exactly at what is gone through at a time, with factors that are packed and that are not."""


def drawn_shapes(n: int) -> list[Shape]:
    rng = np.random.default_rng(0)
    return [Shape(*map(int, np.ceil(300 ** rng.uniform(0, 1, 3)))) for _ in range(n)]


def cases(shapes: list[Shape]) -> list[tuple[Shape, str, tuple[bool, bool]]]:
    """Each shape with one start and one way to turn factors, all of them by turns."""
    kinds = list(product(STARTS, TURNS))
    return [(shape, *kinds[i % len(kinds)]) for i, shape in enumerate(shapes)]


each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def fits(maker: str, start: str, shape: Shape) -> bool:
    """Rows elsewhere are for own loops."""
    return start != "rows elsewhere" or maker in OWN


def start_of(shape: Shape, start: str) -> Shape:
    """Of a column, only one with one entry per row makes sense."""
    return shape._replace(columns=1) if start == "a column" else shape


@each_maker
@each_dtype
def test_every_remainder_of_tiles_is_right(maker, dtype):
    for i, shape in enumerate(REMAINDERS):
        assert_right(maker, given(shape, dtype, ("zeros", "itself")[i % 2]), TURNS[i // 2 % 4])


LESSER = {
    "neither wide vectors nor masks": {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": ""},
    "masks without wide vectors": {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+avx,+avx2"},
}
REMAINDER_CHECK = """
import test_products
from difflab.kernels import products

print(products.IS_WIDE, products.HAS_MASKS)
test_products.test_every_remainder_of_tiles_is_right("in order", "float64")
test_products.test_every_start_and_turn_is_right("in order", "float32")
"""


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="NumPy has no tiles")
@pytest.mark.parametrize("lesser", LESSER)
def test_tiles_of_lesser_processors_are_right(lesser):
    tests, has_masks = Path(__file__).parent, lesser.startswith("masks")
    if has_masks and not llvmlite.binding.get_host_cpu_features().get("avx2"):
        pytest.skip("this processor has no masks")
    said = child(REMAINDER_CHECK, tests, tests.parent, **LESSER[lesser])
    assert said == f"False {has_masks}\n"


WIDE_CHECK = """
from difflab.kernels import processor

processor.VECTOR, has = 64, processor.has
processor.has = lambda *names: "avx512vl" in names or has(*names)

import test_products
from difflab.kernels import products

print(products.IS_WIDE, products.HAS_MASKS)
test_products.test_every_remainder_of_tiles_is_right("in order", "float64")
test_products.test_every_start_and_turn_is_right("in order", "float32")
for shape in test_products.LARGE:
    test_products.test_what_is_larger_than_is_gone_through_at_a_time_is_right("in order", "float64", shape)
"""


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="NumPy has no tiles")
def test_tiles_of_wide_vectors_are_right_wherever_they_are_made():
    """Narrower instructions make them too."""
    tests = Path(__file__).parent
    assert child(WIDE_CHECK, tests, tests.parent, DIFFLAB_NO_CACHE="1") == "True True\n"


def test_features_are_those_that_code_is_compiled_for(monkeypatch):
    monkeypatch.setattr(numba.config, "CPU_FEATURES", "-sse4.2,+avx2,-avx512f")
    assert processor.has("avx2")
    assert processor.has("avx512f", "avx2")
    assert not processor.has("avx512f", "avx512vl")
    monkeypatch.setattr(numba.config, "CPU_FEATURES", None)
    assert processor.has("avx2") == bool(llvmlite.binding.get_host_cpu_features().get("avx2"))


@each_maker
@each_dtype
def test_every_start_and_turn_is_right(maker, dtype):
    for start, turns in product(STARTS, TURNS):
        for shape in (Shape(7, 19, 5), Shape(1, 1, 1), Shape(13, 1, 300), Shape(1, 40, 300), Shape(100, 70, 260)):
            if fits(maker, start, shape):
                assert_right(maker, given(start_of(shape, start), dtype, start), turns)


@each_maker
@each_dtype
@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_what_is_larger_than_is_gone_through_at_a_time_is_right(maker, dtype, shape):
    for turns in TURNS:
        assert_right(maker, given(shape, dtype, "one row"), turns)


@each_maker
@each_dtype
def test_random_shapes_are_right(maker, dtype):
    for shape, start, turns in cases(drawn_shapes(60)):
        if fits(maker, start, shape):
            assert_right(maker, given(start_of(shape, start), dtype, start), turns)


@each_dtype
def test_products_are_by_own_loops_up_to_their_limits_and_by_blas_beyond(monkeypatch, dtype):
    """Each kind of product has a limit of its own; what makes one is seen by its bits."""
    limits = products.OwnTerms(forward=9 * 20 * 30, of_weights=9 * 20 * 40, of_inputs=9 * 20 * 50)
    monkeypatch.setattr(products, "own_terms", lambda item, library: limits)
    monkeypatch.setattr(products, "by_blas", lambda item, library: filling_with_sevens)
    own = compiled("in order, fused", dtype)
    faster = machine_code(products.product.__wrapped__(np.dtype(dtype).itemsize, False, "scipy"), dtype)
    monkeypatch.setitem(globals(), "compiled", lambda maker, dtype: {"own": own, "faster": faster}[maker])
    for turns in TURNS:
        limit = limits.of_weights if turns[0] else limits.forward if turns[1] else limits.of_inputs
        for shape in (Shape(9, 20, limit // 180), Shape(limit, 1, 1)):
            g, beyond = given(shape, dtype), given(shape._replace(rows=shape.rows + 1), dtype)
            assert made("faster", g, turns).tobytes() == made("own", g, turns).tobytes(), (shape, turns)
            assert (made("faster", beyond, turns) == 7).all(), (shape, turns)


@numba.njit(inline="always")
def filling_with_sevens(out, start, start_row, left, turned, right, right_turned, rows, columns, terms, scratch, zero):
    numbers = products.array(out, rows * columns, zero)
    for i in range(numbers.size):
        numbers[i] = 7


# --- numbers that are not finite, and those that are hardly there


@each_maker
@each_dtype
def test_nan_and_infinity_stay_in_their_rows_and_columns(maker, dtype):
    g = given(Shape(9, 21, 12), dtype, "itself")
    g.left[3, 2], g.right[4, 17], g.before[8, 20] = np.nan, np.inf, np.inf
    with np.errstate(all="ignore"):
        found, expected = made(maker, g), in_sequence(g)
    assert (np.isnan(found) == np.isnan(expected)).all()
    assert (np.isinf(found) == np.isinf(expected)).all()


@each_dtype
def test_subnormal_products_are_not_flushed(dtype):
    g = given(Shape(7, 19, 5), dtype)
    tiny = float(np.finfo(dtype).smallest_normal) ** 0.5
    small = Given(*((a * tiny).astype(dtype) for a in g[:2]), g.before, g.start)
    found = made("in order", small)
    assert found.tobytes() == in_sequence(small).tobytes()
    assert ((np.abs(found) < np.finfo(dtype).smallest_normal) & (found != 0)).any()


@each_dtype
def test_a_negative_zero_is_lost_where_zeros_are_added_to(dtype):
    """As in a sequence that starts from zeros; the same on every processor."""
    g = Given(np.full((1, 1), -0.0, dtype), np.ones((1, 1), dtype), np.zeros((1, 1), dtype), "zeros")
    assert not np.signbit(made("in order", g)).any()


# --- in strict order


def test_another_order_has_other_bits():
    """So that equal bits say something."""
    g = given(Shape(20, 20, 100), "float32")
    backwards = Given(g.left[:, ::-1], g.right[::-1], g.before, g.start)
    assert in_sequence(g).tobytes() != in_sequence(backwards).tobytes()
    assert in_sequence(g).tobytes() != (g.left @ g.right).tobytes()


@each_dtype
def test_bits_of_an_entry_do_not_depend_on_what_is_beside_it(dtype):
    """One row of a batch has the bits that it has in any other batch, fused or not."""
    g = given(Shape(97, 37, 300), dtype, "one row")
    for maker in OWN:
        whole = made(maker, g)
        for i in (0, 5, 50, 96):
            alone = Given(g.left[i : i + 1], g.right, g.before[i : i + 1], g.start)
            assert (made(maker, alone) == whole[i]).all(), maker
        for j in (0, 7, 20, 36):
            alone = Given(g.left, g.right[:, j : j + 1], g.before[:, j : j + 1], "itself")
            assert (made(maker, alone)[:, 0] == whole[:, j]).all(), maker


# --- faults that must be caught


def planted(fault: Callable[[np.ndarray], None]) -> Callable[..., np.ndarray]:
    def wrong(maker: str, g: Given, turns: tuple[bool, bool] = (False, False)) -> np.ndarray:
        found = MADE(maker, g, turns)
        fault(found)
        return found

    return wrong


MADE = made
FAULTS: dict[str, Callable[[np.ndarray], None]] = {
    "last entry a few roundings off": lambda found: found.__setitem__((-1, -1), found[-1, -1] * (1 + 1e-4)),
    "last column left out": lambda found: found.__setitem__((slice(None), -1), 0),
    "two rows swapped": lambda found: found.__setitem__(slice(None), found[::-1].copy()),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("maker", ["in order", "by BLAS"])
def test_a_wrong_product_is_caught(monkeypatch, maker, fault):
    g = given(Shape(7, 19, 30), "float32")
    assert_right(maker, g)
    monkeypatch.setitem(globals(), "made", planted(FAULTS[fault]))
    with pytest.raises(AssertionError):
        assert_right(maker, g)


@pytest.mark.parametrize("offset", [-1, 0])
def test_a_number_beside_the_result_is_caught(monkeypatch, offset):
    sound = compiled("in order", "float64")
    monkeypatch.setitem(globals(), "compiled", lambda maker, dtype: overrunning(sound, offset))
    with pytest.raises(AssertionError):
        made("in order", given(Shape(3, 5, 2), "float64"))


def overrunning(sound: Any, offset: int) -> Callable[..., None]:
    """A product that writes one number before or behind its result."""

    def wrong(out: int, *others: Any) -> None:
        sound(out, *others)
        rows, columns = others[6:8]
        place = out + 8 * (rows * columns if offset == 0 else -1)
        ctypes.c_double.from_address(place).value = 1.0

    return wrong
