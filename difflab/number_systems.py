"""Number systems: what the one primal runs on.

A number system is a small vocabulary over arrays whose rows are samples.
Formulas are written in that vocabulary once, and mean the same in all of them::

    array(values)    the exact image of floating-point values
    matmul(a, b)     matrix product
    sum(z)           sum over the last axis
    exp, log, tanh   the elementary functions
    expit(z)         1 / (1 + exp(-z))
    log1pexp(z)      log(1 + exp(z))
    positive_part(z) z where z > 0, else 0
    shift(z)         per row, a constant worth subtracting before exp; 0 where nothing overflows
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Any, Protocol

import numpy as np


Array = Any
"""A NumPy array of the number system's numbers (object arrays for all but the floating-point systems)."""


class NumberSystem(Protocol):
    """The vocabulary in which primals are written."""

    def array(self, values: Array) -> Array: ...
    def matmul(self, a: Array, b: Array) -> Array: ...
    def sum(self, z: Array) -> Array: ...
    def exp(self, z: Array) -> Array: ...
    def log(self, z: Array) -> Array: ...
    def tanh(self, z: Array) -> Array: ...
    def expit(self, z: Array) -> Array: ...
    def log1pexp(self, z: Array) -> Array: ...
    def positive_part(self, z: Array) -> Array: ...
    def shift(self, z: Array) -> Array: ...


class Floats:
    """NumPy's real or complex floating-point numbers of one dtype."""

    def __init__(self, dtype: str) -> None:
        self.dtype = np.dtype(dtype)

    def array(self, values: Array) -> Array:
        return np.asarray(values, self.dtype)

    matmul = staticmethod(np.matmul)
    exp = staticmethod(np.exp)
    log = staticmethod(np.log)
    tanh = staticmethod(np.tanh)

    def sum(self, z: Array) -> Array:
        return z.sum(axis=-1)

    def expit(self, z: Array) -> Array:
        tail = np.exp(_decaying(z))
        return np.where(z.real >= 0, 1, tail) / (1 + tail)

    def log1pexp(self, z: Array) -> Array:
        return self.positive_part(z) + _log1p(np.exp(_decaying(z)))

    def positive_part(self, z: Array) -> Array:
        return np.where(z.real <= 0, 0, z)

    def shift(self, z: Array) -> Array:
        return z.real.max(axis=-1, keepdims=True)


def _decaying(z: Array) -> Array:
    """Plus or minus z, whichever has a real part that is not positive, so that exp cannot overflow."""
    return np.where(z.real >= 0, -z, z)


def _log1p(z: Array) -> Array:
    """NumPy's own forms |1 + z| for complex z, which loses a small real part."""
    if not np.iscomplexobj(z):
        return np.log1p(z)
    return np.log1p(2 * z.real + np.abs(z) ** 2) / 2 + 1j * np.arctan2(z.imag, 1 + z.real)


def _elementwise(function: Callable[[Any], Any]) -> Any:
    return np.frompyfunc(function, 1, 1)


class _Exact:
    """What the systems over object arrays share."""

    def array(self, values: Array) -> Array:
        return np.asarray(values, object)

    def matmul(self, a: Array, b: Array) -> Array:
        return np.matmul(a, b)

    def sum(self, z: Array) -> Array:
        return z.sum(axis=-1)

    def shift(self, z: Array) -> Array:
        return 0


class Symbols(_Exact):
    """SymPy expressions."""

    def __init__(self) -> None:
        import sympy

        def over(function: Callable[[Any], Any]) -> Callable[[Array], Array]:
            return np.frompyfunc(function, 1, 1)

        self.exp = over(sympy.exp)
        self.log = over(sympy.log)
        self.tanh = over(sympy.tanh)
        self.expit = over(lambda z: 1 / (1 + sympy.exp(-z)))
        self.log1pexp = over(lambda z: sympy.log(1 + sympy.exp(z)))
        self.positive_part = over(lambda z: sympy.Piecewise((0, z <= 0), (z, True)))
        self._add = sympy.Add

    def matmul(self, a: Array, b: Array) -> Array:
        return self.sum(a[:, None, :] * b.T[None, :, :])

    def sum(self, z: Array) -> Array:
        """One n-ary sum: adding term by term would sort the growing sum again each time."""
        flat = np.empty(z.shape[:-1], object)
        for index in np.ndindex(flat.shape):
            flat[index] = self._add(*z[index])
        return flat if flat.shape else flat.item()


class _Arb(_Exact):
    """What balls and series of balls share: formulas that neither overflow nor cancel in what is used of them."""

    exp = _elementwise(operator.methodcaller("exp"))
    log = _elementwise(operator.methodcaller("log"))

    def shift(self, z: Array) -> Array:
        """The largest midpoint of each row, which is an exact number."""
        middles = np.frompyfunc(lambda entry: _constant_term(entry).mid(), 1, 1)(z)
        return np.frompyfunc(lambda *row: max(row), z.shape[-1], 1)(*np.moveaxis(middles, -1, 0))[..., None]


def _constant_term(number: Any) -> Any:
    """The ball itself, or the value of a series."""
    return number[0] if hasattr(number, "coeffs") else number


def _expit(z: Any) -> Any:
    if _constant_term(z) < 0:
        tail = z.exp()
        return tail / (1 + tail)
    return 1 / (1 + (-z).exp())


class Balls(_Arb):
    """Real balls of Arb (python-flint) at the working precision: proven enclosures [Johansson 2017].

    A ball that touches the kink of ``positive_part`` gives the hull of both branches.
    """

    def array(self, values: Array) -> Array:
        from flint import arb

        return np.frompyfunc(arb, 1, 1)(np.asarray(values, np.float64))

    def matmul(self, a: Array, b: Array) -> Array:
        """Products through ``arb_mat``, whose cost per term is a small part of a Python operator's."""
        from flint import arb_mat

        (rows, inner), columns = a.shape, b.shape[1]
        product = arb_mat(rows, inner, a.ravel().tolist()) * arb_mat(inner, columns, b.ravel().tolist())
        entries = np.empty(rows * columns, object)
        entries[:] = product.entries()
        return entries.reshape(rows, columns)

    tanh = _elementwise(operator.methodcaller("tanh"))
    expit = _elementwise(_expit)
    log1pexp = _elementwise(lambda z: z + (-z).exp().log1p() if z > 0 else z.exp().log1p())
    positive_part = _elementwise(lambda z: z.max(0))


class Series(_Arb):
    """Power series of Arb truncated after the first-order term: f(z + t) carries f'(z) in ball arithmetic.

    The first-order coefficients do not cancel; the values may, and are taken from :class:`Balls`.

    Parameters
    ----------
    at_kink : the slope exactly at a kink: ``"left"``; ``"both"``, the hull of the left and the right one; or
        ``"ahead"``, the one on the side to which the series moves with t > 0. Around a kink it is always the hull.
    """

    def __init__(self, at_kink: str = "left") -> None:
        self.at_kink = at_kink

    def array(self, values: Array) -> Array:
        return self.line(values, np.frompyfunc(lambda _: 0, 1, 1)(values))

    def line(self, values: Array, tangents: Array) -> Array:
        """The series ``values + t * tangents``."""
        from flint import arb_series

        return np.frompyfunc(lambda v, v_dot: arb_series([v, v_dot]), 2, 1)(values, tangents)

    tanh = _elementwise(lambda z: 2 * _expit(2 * z) - 1)
    expit = _elementwise(_expit)
    log1pexp = _elementwise(lambda z: z + (1 + (-z).exp()).log() if z[0] > 0 else (1 + z.exp()).log())

    def positive_part(self, z: Array) -> Array:
        return np.frompyfunc(self._positive_part, 1, 1)(z)

    def _positive_part(self, z: Any) -> Any:
        from flint import arb, arb_series

        value, slope = z[0], z[1]
        if value > 0:
            return z
        if value.is_zero() and self.at_kink == "ahead":
            return arb_series([0, slope.max(0)])
        if value < 0 or (value <= 0 and self.at_kink == "left"):
            return arb_series([0, 0])
        return arb_series([value.max(0), slope * arb(0.5, 0.5)])


def coefficient(series: Array, degree: int) -> Array:
    """The coefficient of ``t**degree`` of each series, as balls."""
    return np.frompyfunc(operator.itemgetter(degree), 1, 1)(series)


@contextmanager
def ball_precision(bits: int) -> Iterator[None]:
    """Set the working precision of balls and keep first-order series.

    python-flint's context is global to the process: not for use from several threads.
    """
    from flint import ctx

    before = ctx.prec, ctx.cap
    ctx.prec, ctx.cap = bits, 2
    try:
        yield
    finally:
        ctx.prec, ctx.cap = before


class TreeSize:
    """The operation count of an expression written out as a tree, without writing it out.

    A sum or product of n terms counts n - 1, a power or a function 1, a sign nothing: the convention of
    :func:`difflab.expressions.tree_operations`. Integers are exact at any size.
    """

    __slots__ = ("operations",)

    def __init__(self, operations: int = 0) -> None:
        self.operations = operations

    def _join(self, other: object) -> TreeSize:
        return TreeSize(self.operations + 1 + (other.operations if isinstance(other, TreeSize) else 0))

    __add__ = __radd__ = __rsub__ = __mul__ = __rmul__ = __pow__ = __rtruediv__ = _join

    def __sub__(self, other: object) -> TreeSize:
        return self if isinstance(other, int) and other == 0 else self._join(other)

    def __truediv__(self, other: object) -> TreeSize:
        """A product with a power, or with a rational number."""
        return TreeSize(self._join(other).operations + (not isinstance(other, int)))

    def __neg__(self) -> TreeSize:
        return self


class TreeSizes(_Exact):
    """Sizes of expression trees as numbers."""

    def array(self, values: Array) -> Array:
        return np.full(np.shape(values), TreeSize())

    def matmul(self, a: Array, b: Array) -> Array:
        """The sizes of the sums of products, without forming a product."""
        inner = a.shape[1]
        sizes = _operations(a).sum(axis=1)[:, None] + _operations(b).sum(axis=0) + inner + (inner - 1)
        return np.frompyfunc(TreeSize, 1, 1)(sizes)

    def sum(self, z: Array) -> Array:
        return reduce(operator.add, np.moveaxis(z, -1, 0))

    exp = _elementwise(lambda z: TreeSize(z.operations + 1))
    log = tanh = positive_part = exp
    expit = log1pexp = _elementwise(lambda z: TreeSize(z.operations + 3))


_operations = _elementwise(operator.attrgetter("operations"))


FLOAT64 = Floats("float64")
FLOAT32 = Floats("float32")
COMPLEX128 = Floats("complex128")
BALLS = Balls()
SERIES = Series()
SERIES_BOTH_SIDES = Series("both")
SERIES_AHEAD = Series("ahead")
TREE_SIZES = TreeSizes()
