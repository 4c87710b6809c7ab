"""Arb balls, and truncated power series of them: proven enclosures of values and derivatives."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Any

import numpy as np

from difflab.number_systems.vocabulary import Array, Exact, elementwise


class _Arb(Exact):
    """What balls and series of balls share: formulas that neither overflow nor cancel in what is used of them."""

    sqrt = elementwise(operator.methodcaller("sqrt"))
    exp = elementwise(operator.methodcaller("exp"))
    log = elementwise(operator.methodcaller("log"))
    sin = elementwise(operator.methodcaller("sin"))
    cos = elementwise(operator.methodcaller("cos"))
    erfc = elementwise(operator.methodcaller("erfc"))
    xlogx = elementwise(lambda z: 0 * z if _constant_term(z).is_zero() else z * z.log())

    def square(self, z: Array) -> Array:
        """A product: the power of a ball around 0 with a radius far below the precision is not a number in Arb."""
        return z * z

    def shift(self, z: Array) -> Array:
        """The largest midpoint of each row, which is an exact number."""
        middles = np.frompyfunc(lambda entry: _constant_term(entry).mid(), 1, 1)(z)
        return _fold(max, middles)[..., None]


def _fold(function: Callable[[Any, Any], Any], z: Array) -> Array:
    """Combine the entries of the last axis from the first to the last."""
    return np.frompyfunc(lambda *row: reduce(function, row), z.shape[-1], 1)(*np.moveaxis(z, -1, 0))


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

    A ball that touches a kink of ``positive_part`` or ``maximum`` gives the hull of both branches.
    """

    def array(self, values: Array) -> Array:
        from flint import arb

        return np.frompyfunc(arb, 1, 1)(np.asarray(values, np.float64))

    def matmul(self, a: Array, b: Array) -> Array:
        """Products through ``arb_mat``, whose cost per term is a small part of a Python operator's."""
        from flint import arb_mat

        (rows, inner), columns = a.shape, b.shape[1]
        product = arb_mat(rows, inner, a.ravel().tolist()) * arb_mat(inner, columns, b.ravel().tolist())
        return _as_array(product.entries(), (rows, columns))

    expm1 = elementwise(operator.methodcaller("expm1"))
    tanh = elementwise(operator.methodcaller("tanh"))
    expit = elementwise(_expit)
    log1pexp = elementwise(lambda z: z + (-z).exp().log1p() if z > 0 else z.exp().log1p())
    positive_part = elementwise(lambda z: z.max(0))
    negative_part = elementwise(lambda z: z.min(0))

    def maximum(self, z: Array) -> Array:
        return _fold(lambda a, b: a.max(b), z)


def _as_array(numbers: list[Any], shape: tuple[int, ...]) -> Array:
    array = np.empty(len(numbers), object)
    array[:] = numbers
    return array.reshape(shape)


class Series(_Arb):
    """Power series of Arb, cut off at the order that :func:`ball_precision` sets: f(z + t) carries f'(z) in balls.

    The first-order coefficients do not cancel; the values may, and are taken from :class:`Balls`.

    Parameters
    ----------
    at_kink : the slope exactly at a kink: ``"left"``, the lab's convention; ``"both"``, the hull of the left and the
        right one; or ``"ahead"``, the one on the side to which the series moves with t > 0. Around a kink it is
        always the hull.

    Attributes
    ----------
    met_tie : whether an exact kink was met since this system was made.
    met_both_sides : whether a ball was met that reaches over both sides of a kink.
    """

    def __init__(self, at_kink: str = "left") -> None:
        self.at_kink = at_kink
        self.met_tie = False
        self.met_both_sides = False

    def array(self, values: Array) -> Array:
        return self.line(values, np.frompyfunc(lambda _: 0, 1, 1)(values))

    def line(self, values: Array, tangents: Array) -> Array:
        """The series ``values + t * tangents``, always in an array: NumPy takes a lone series for a list."""
        from flint import arb_series

        return np.frompyfunc(lambda v, v_dot: arb_series([v, v_dot]), 2, 1)(np.atleast_1d(values), tangents)

    def matmul(self, a: Array, b: Array) -> Array:
        """Products of polynomials in t, coefficient by coefficient through ``arb_mat``."""
        from flint import ctx

        lines, columns = ([_coefficients(z, k) for k in range(ctx.cap)] for z in (a, b))
        products = (
            sum((lines[j] * columns[k - j] for j in range(1, k + 1)), start=lines[0] * columns[k])
            for k in range(ctx.cap)
        )
        return self._of_coefficients([p.entries() for p in products], (a.shape[0], b.shape[1]))

    def _of_coefficients(self, coefficients: list[list[Any]], shape: tuple[int, ...]) -> Array:
        from flint import arb_series

        return _as_array([arb_series(list(entry)) for entry in zip(*coefficients, strict=True)], shape)

    expm1 = elementwise(lambda z: z.exp() - 1)
    tanh = elementwise(lambda z: 2 * _expit(2 * z) - 1)
    expit = elementwise(_expit)
    log1pexp = elementwise(lambda z: z + (1 + (-z).exp()).log() if z[0] > 0 else (1 + z.exp()).log())

    def positive_part(self, z: Array) -> Array:
        zero = self._zero()
        return np.frompyfunc(lambda entry: self._larger(zero, entry), 1, 1)(z)

    def negative_part(self, z: Array) -> Array:
        zero = self._zero()
        return np.frompyfunc(lambda entry: -self._larger(-entry, zero), 1, 1)(z)

    def _zero(self) -> Any:
        from flint import arb_series

        return arb_series([0, 0])

    def maximum(self, z: Array) -> Array:
        return _fold(self._larger, z)

    def _larger(self, a: Any, b: Any) -> Any:
        """The larger of two series; ``a`` at a tie, unless both slopes are asked for or the one ahead."""
        from flint import arb_series, ctx

        lead = b[0] - a[0]
        self.met_tie |= bool(lead.is_zero())
        if lead > 0:
            return b
        if lead.is_zero() and self.at_kink == "ahead":
            return arb_series([a[0], a[1].max(b[1])])
        if lead < 0 or (lead.is_zero() and self.at_kink == "left"):
            return a
        self.met_both_sides = True
        return arb_series([a[0].max(b[0]), *(a[k].union(b[k]) for k in range(1, ctx.cap))])


def coefficient(series: Array, degree: int) -> Array:
    """The coefficient of ``t**degree`` of each series, as balls."""
    return np.frompyfunc(operator.itemgetter(degree), 1, 1)(series)


def _coefficients(series: Array, degree: int) -> Any:
    """The same as a matrix of Arb; the array may hold plain balls too."""
    from flint import arb_mat

    if not series.size or hasattr(series.flat[0], "coeffs"):
        return arb_mat(*series.shape, coefficient(series, degree).ravel().tolist())
    return arb_mat(*series.shape, series.ravel().tolist() if degree == 0 else [0] * series.size)


@contextmanager
def ball_precision(bits: int | None = None, order: int = 1) -> Iterator[None]:
    """Set the working precision of balls, unless it is to stay, and the order at which their series are cut off.

    python-flint's context is global to the process: not for use from several threads.
    """
    from flint import ctx

    before = ctx.prec, ctx.cap
    ctx.prec, ctx.cap = bits or ctx.prec, order + 1
    try:
        yield
    finally:
        ctx.prec, ctx.cap = before
