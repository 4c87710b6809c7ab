"""Numbers as an arithmetic has them, with rigorous bounds of their errors: running error analysis [Higham 2002, 3.3].

A number is carried as a float64 near the true one, and two bounds: of what that float64 is off, and of what an
arithmetic that rounds every operation may make of the number. Every operation below adds to the propagated errors of
its operands, products of errors included, one rounding of the largest magnitude that its result may have, and the
smallest positive number of the format where it may underflow. No term is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from difflab.number_systems import FORMATS


DOUBLE = FORMATS["float64"]
LIBRARY_ULP = 1.5
"""Of exp, log and log1p in the arithmetic: what tests hold of the vector mathematics, and more than the GNU C Library
states [manual, 19.7]."""

OWN_LIBRARY_ULP = 4.0
"""Of the same in NumPy, by which numbers near the true ones are found."""

RULE_ROUNDINGS = 8
"""Of a textbook formula, as an estimate."""

SLACK = 1 + 2.0**-30
"""Covers the roundings of the bounds themselves: sums and products of at most 2**22 numbers that are not negative."""

LARGEST_EXPONENT = 1023
"""Of float64."""

OF_ZERO, UNKNOWN = 10_000, -1_000_000
"""Instead of the exponent of a last bit."""


@dataclass(frozen=True)
class Arithmetic:
    """What is known of an arithmetic: every result is the nearest number of a format, or nearer to the exact one.

    Attributes
    ----------
    unit : bound on the relative error of an operation.
    stored : likewise of storing what was found in float64.
    smallest : bound on the error of an underflow.
    largest : what overflows beyond.
    precision, least_quantum : bits of a number, and the exponent of the smallest one.
    has_rules : whether rules of activations run in it, where they may.
    textbook : whether formulas are those of the book, like 1 - a**2 or p - y, whose errors are absolute.
    own_unit, own_smallest : unit roundoff of float64, in which middles and scalar rules are evaluated, and twice its
        smallest number; both 0 where errors are only to be passed on.
    """

    unit: float
    stored: float
    smallest: float
    largest: float
    precision: int = DOUBLE.precision
    least_quantum: int = DOUBLE.least_exponent + 1 - DOUBLE.precision
    textbook: bool = False
    has_rules: bool = False
    own_unit: float = DOUBLE.unit_roundoff
    own_smallest: float = 2 * DOUBLE.smallest

    def exact(self, numbers: Any) -> Rounded:
        """Numbers that the arithmetic holds exactly."""
        numbers = np.asarray(numbers, np.float64)
        return Rounded(self, numbers, np.zeros(numbers.shape), np.zeros(numbers.shape))

    def constant(self, numbers: Any) -> Rounded:
        """Numbers of float64 that the arithmetic may have to round."""
        exact = self.exact(numbers)
        is_held = self.holds(exact.size, exact.quantum) | (self.stored == 0)
        return replace(exact, error=np.where(is_held, 0.0, self.stored * exact.size + self.smallest))

    def growth(self, roundings: Any) -> Any:
        """The relative error after so many roundings, one after the other: (1 + u)**n - 1 [Higham 2002, 3.1]."""
        return np.expm1(roundings * math.log1p(self.unit))

    def holds(self, magnitude: np.ndarray, quantum: np.ndarray) -> np.ndarray:
        """Where whole multiples of 2**quantum up to a magnitude are numbers of the format, so that nothing rounds."""
        largest = np.ldexp(1.0, np.minimum(self.precision + quantum, LARGEST_EXPONENT))
        return (magnitude * SLACK <= largest) & (quantum >= self.least_quantum)

    def own_growth(self, roundings: Any) -> Any:
        return np.expm1(roundings * math.log1p(self.own_unit))


def arithmetic_of(dtype: str, textbook: bool = False) -> Arithmetic:
    """The arithmetic of a format; what is narrower than float64 may be rounded to that first."""
    made = FORMATS[dtype]
    stored = 0.0 if made == DOUBLE else made.unit_roundoff
    unit = made.unit_roundoff + (DOUBLE.unit_roundoff * 2 if stored else 0.0)
    least_quantum = made.least_exponent + 1 - made.precision
    has_rules = dtype == "float32" and not textbook
    return Arithmetic(unit, stored, 4 * made.smallest, made.largest, made.precision, least_quantum, textbook, has_rules)


EXACT = Arithmetic(0.0, 0.0, 0.0, math.inf, own_unit=0.0, own_smallest=0.0)
"""Without any rounding: errors are passed on, and nothing else."""


@dataclass(frozen=True, eq=False)
class Rounded:
    """An array of numbers as an arithmetic has them.

    Attributes
    ----------
    middle : float64, near the true numbers.
    doubt : bound on the distance of the true numbers from ``middle``.
    error : bound on the distance of the arithmetic's numbers from the true ones.
    """

    arithmetic: Arithmetic
    middle: np.ndarray
    doubt: np.ndarray
    error: np.ndarray

    __array_ufunc__ = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.middle.shape

    @property
    def size(self) -> np.ndarray:
        """The largest magnitude that the true numbers may have."""
        return np.abs(self.middle) + self.doubt

    @property
    def reach(self) -> np.ndarray:
        """The largest magnitude that the arithmetic's numbers may have."""
        return self.size + self.error

    @property
    def is_zero(self) -> np.ndarray:
        """Where the arithmetic has a zero for a zero."""
        return self.reach == 0

    @property
    def is_one(self) -> np.ndarray:
        """Where a factor changes nothing but a sign."""
        return (np.abs(self.middle) == 1) & (self.doubt == 0) & (self.error == 0)

    @property
    def quantum(self) -> np.ndarray:
        """The exponent of the last bit of what is exact."""
        mantissa, exponent = np.frexp(np.abs(self.middle))
        bits = np.ldexp(np.where(np.isfinite(mantissa), mantissa, 0.0), DOUBLE.precision).astype(np.int64)
        last = np.frexp((bits & -bits).astype(np.float64))[1] - 1
        quantum = np.where(bits > 0, exponent - DOUBLE.precision + last, OF_ZERO)
        return np.where((self.around == 0) & np.isfinite(self.middle), quantum, UNKNOWN)

    @property
    def around(self) -> np.ndarray:
        """The largest distance of true and arithmetic's numbers from ``middle``."""
        return self.doubt + self.error

    def moved(self, move: Callable[[np.ndarray], np.ndarray]) -> Rounded:
        """The same numbers in another order or shape."""
        return Rounded(self.arithmetic, move(self.middle), move(self.doubt), move(self.error))

    def __getitem__(self, places: Any) -> Rounded:
        return self.moved(lambda a: a[places])

    def __iter__(self) -> Iterator[Rounded]:
        return (self[place] for place in range(len(self.middle)))

    @property
    def T(self) -> Rounded:  # noqa: N802
        return self.moved(np.transpose)

    def reshape(self, *shape: int) -> Rounded:
        return self.moved(lambda a: a.reshape(*shape))

    def only(self, where: np.ndarray) -> Rounded:
        """The numbers at some places, and zeros elsewhere."""
        return self.moved(lambda a: np.where(where, a, 0.0))

    def or_else(self, where: np.ndarray, other: Rounded) -> Rounded:
        """These numbers at some places, others elsewhere."""
        pairs = ((self.middle, other.middle), (self.doubt, other.doubt), (self.error, other.error))
        return Rounded(self.arithmetic, *(np.where(where, a, b) for a, b in pairs))

    def or_perhaps(self, where: np.ndarray, other: Rounded, is_same: bool = True) -> Rounded:
        """The same true numbers, where the arithmetic may have taken another way to them, or to other numbers."""
        apart = 0.0 if is_same else np.abs(self.middle - other.middle) + self.doubt + other.doubt
        worst = np.maximum(self.error, other.error + apart)
        return replace(self, error=np.where(where, np.where(np.isnan(worst), np.inf, worst), self.error))

    def within(self, limit: Any) -> Rounded:
        """The same where true and arithmetic's numbers are known to be at most ``limit`` apart."""
        return replace(self, error=np.fmin(self.error, limit))

    def rounded(
        self, rounds: Any = True, underflows: bool = True, library_ulp: float = 0.0, own_library_ulp: float = 0.0
    ) -> Rounded:
        """The same after one more rounding at the places in ``rounds``."""
        by, own, doubt, error = self.arithmetic, np.abs(self.middle), self.doubt, self.error
        if rounds is not False:
            own_error = by.own_unit * (1 + 2 * own_library_ulp) * own + underflows * by.own_smallest
            doubt = doubt + (own_error if rounds is True else np.where(rounds, own_error, 0.0))
            rounding = by.unit * (1 + 2 * library_ulp) * (own + doubt + error) + underflows * by.smallest
            error = error + (rounding if rounds is True else np.where(rounds, rounding, 0.0))
        doubt, error = doubt * SLACK, error * SLACK
        fits = own + doubt + error <= by.largest
        return Rounded(by, self.middle, np.where(np.isnan(doubt), np.inf, doubt), np.where(fits, error, np.inf))

    def worse(self, relative: float) -> Rounded:
        """The same with a relative error more."""
        return replace(self, error=(self.error + relative * self.reach) * SLACK)

    @property
    def unrounded(self) -> Rounded:
        """The same in an arithmetic that passes on errors and makes none."""
        return replace(self, arithmetic=replace(self.arithmetic, unit=0.0, stored=0.0, smallest=0.0))

    @property
    def settled(self) -> Rounded:
        """The arithmetic's numbers as the true ones, so that all further errors are of roundings."""
        return replace(self, doubt=self.around, error=np.zeros(self.shape))

    def blurred(self, magnitude: Any) -> Rounded:
        """The same after roundings of numbers of some magnitude, if formulas are those of the book."""
        if not self.arithmetic.textbook:
            return self
        return replace(self, error=self.error + self.arithmetic.unit * magnitude)

    def _like(self, other: Any) -> Rounded:
        return other if isinstance(other, Rounded) else self.arithmetic.exact(other)

    def __neg__(self) -> Rounded:
        return replace(self, middle=-self.middle)

    def __add__(self, other: Any) -> Rounded:
        """A sum with zero is exact, and none underflows."""
        other, by = self._like(other), self.arithmetic
        summed = Rounded(by, self.middle + other.middle, self.doubt + other.doubt, self.error + other.error)
        rounds = ~(self.is_zero | other.is_zero)
        if _meet(self, other):
            rounds &= ~by.holds(np.abs(summed.middle), np.minimum(self.quantum, other.quantum))
        return summed.rounded(rounds, underflows=False)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Rounded:
        return self + -self._like(other)

    def __rsub__(self, other: Any) -> Rounded:
        return self._like(other) - self

    def __mul__(self, other: Any) -> Rounded:
        other = self._like(other)
        doubt = np.abs(self.middle) * other.doubt + self.doubt * (np.abs(other.middle) + other.doubt)
        error = self.size * other.error + self.error * other.reach
        product = Rounded(self.arithmetic, self.middle * other.middle, doubt, error)
        rounds = ~(self.is_zero | other.is_zero | self.is_one | other.is_one)
        if _meet(self, other):
            rounds &= ~self.arithmetic.holds(np.abs(product.middle), self.quantum + other.quantum)
        return product.rounded(rounds)

    __rmul__ = __mul__

    def scaled(self, powers_of_two: Any) -> Rounded:
        """A product without rounding."""
        products = self.moved(lambda a: a * powers_of_two)
        quantum = self.quantum + np.frexp(powers_of_two)[1] - 1
        is_exact = (np.abs(powers_of_two) >= 1) | self.arithmetic.holds(np.abs(products.middle), quantum)
        own_tiny, tiny = (
            np.where(is_exact | self.is_zero, 0.0, least)
            for least in (self.arithmetic.own_smallest, self.arithmetic.smallest)
        )
        doubt, error = np.abs(products.doubt) + own_tiny, np.abs(products.error) + tiny
        return replace(products, doubt=doubt, error=error).rounded(False)

    def __truediv__(self, other: Any) -> Rounded:
        other = self._like(other)
        if not other.around.any() and (np.frexp(np.abs(other.middle))[0] == 0.5).all():
            return self * self.arithmetic.exact(1 / other.middle)
        return self.over(other).rounded(~self.is_zero)

    def __rtruediv__(self, other: Any) -> Rounded:
        return self._like(other) / self

    def over(self, other: Any, least: Any = 0.0) -> Rounded:
        """Quotients before they are rounded; all divisors, the arithmetic's too, are at least ``least``.

        x'/y' - x/y = (x' - x - (x/y) (y' - y)) / y'.
        """
        other = self._like(other)
        true_least = np.fmax(np.abs(other.middle) - other.doubt * SLACK, least)
        got_least = np.fmax(np.abs(other.middle) - other.around * SLACK, least)
        middle = self.middle / other.middle
        own_error = self.arithmetic.own_unit * np.abs(middle) + self.arithmetic.own_smallest
        doubt = (self.doubt + (np.abs(middle) + own_error) * other.doubt) / np.fmax(true_least, 0.0) + own_error
        error = (self.error + (np.abs(middle) + doubt) * other.error) / np.fmax(got_least, 0.0)
        doubt, error = (np.where(np.isnan(a), np.inf, a) for a in (doubt, error))
        return Rounded(self.arithmetic, middle, doubt, error).only(~self.is_zero)

    def __abs__(self) -> Rounded:
        return replace(self, middle=np.abs(self.middle))

    def sqrt(self) -> Rounded:
        """|sqrt a - sqrt b| is at most |a - b| / sqrt a, and at most sqrt |a - b|."""
        least = np.sqrt(np.fmax(self.middle - self.doubt * SLACK, 0.0))
        doubt, error = (np.fmin(a / least, np.sqrt(a)) for a in (self.doubt, self.error))
        return Rounded(self.arithmetic, np.sqrt(self.middle), doubt, error).rounded(~self.is_zero)

    def exp(self) -> Rounded:
        middle = np.exp(self.middle)
        own_error = self.arithmetic.own_unit * (1 + 2 * OWN_LIBRARY_ULP) * middle + self.arithmetic.own_smallest
        doubt = (middle + own_error) * np.expm1(self.doubt)
        error = (middle + own_error + doubt) * np.expm1(self.error)
        return Rounded(self.arithmetic, middle, doubt, error)._of_library()

    def log(self) -> Rounded:
        return self._logarithm(np.log, 0.0, self.middle - self.around * SLACK)

    def log1p(self, least: float = -1.0) -> Rounded:
        """Of numbers that are at least ``least``, the arithmetic's too."""
        return self._logarithm(np.log1p, least, 1 + np.fmax(self.middle - self.around * SLACK, least))

    def _logarithm(self, function: Callable[[np.ndarray], np.ndarray], least: float, argument: np.ndarray) -> Rounded:
        """Errors are divided by the least argument."""
        divisor = np.where(argument > 0, argument / SLACK, 0.0)
        doubt, error = (np.where(a > 0, a / divisor, 0.0) for a in (self.doubt, self.error))
        return Rounded(self.arithmetic, function(self.middle), doubt, error)._of_library()

    def _of_library(self) -> Rounded:
        return self.rounded(library_ulp=LIBRARY_ULP, own_library_ulp=OWN_LIBRARY_ULP)

    def may_be_largest(self) -> np.ndarray:
        """Which entries of the last axis may be the largest for the arithmetic or in truth; the first at a tie."""
        least = (self.middle - self.around * SLACK).max(axis=-1, keepdims=True)
        may_be = ~(self.middle + self.around * SLACK < least)
        is_known = ~(may_be & (self.around > 0)).any(axis=-1, keepdims=True)
        first = np.arange(self.shape[-1]) == self.middle.argmax(axis=-1)[..., None]
        return np.where(is_known, first, may_be)

    def summands(self, axis: int) -> Sum:
        """Their sum along an axis, in any order."""
        roundings = np.maximum(np.count_nonzero(self.reach, axis=axis) - 1.0, 0.0)
        own_error = self.arithmetic.own_growth(roundings) * np.abs(self.middle).sum(axis=axis)
        doubt = (self.doubt.sum(axis=axis) + own_error) * SLACK
        summed = Rounded(self.arithmetic, self.middle.sum(axis=axis), doubt, self.error.sum(axis=axis))
        return Sum(summed, self.reach.sum(axis=axis), roundings, self.quantum.min(axis=axis, initial=OF_ZERO))

    def sum(self, axis: int = -1) -> Rounded:
        return self.summands(axis).rounded()


@dataclass(frozen=True, eq=False)
class Sum:
    """Sums whose terms may be added in any order, with others or alone.

    Attributes
    ----------
    exact : what exact sums of the arithmetic's terms are.
    magnitude : bounds on the sums of the magnitudes of terms.
    roundings : how many at most a term goes through.
    quantum : an exponent such that all terms are exact, and whole multiples of that power of 2.
    """

    exact: Rounded
    magnitude: np.ndarray
    roundings: np.ndarray
    quantum: np.ndarray

    def __add__(self, other: Sum) -> Sum:
        joined = (self.magnitude > 0) & (other.magnitude > 0)
        a, b = self.exact, other.exact
        middle = a.middle + b.middle
        own_error = np.where(joined, a.arithmetic.own_unit * np.abs(middle), 0.0)
        exact = Rounded(a.arithmetic, middle, (a.doubt + b.doubt + own_error) * SLACK, a.error + b.error)
        roundings, quantum = self.roundings + other.roundings + joined, np.minimum(self.quantum, other.quantum)
        return Sum(exact, self.magnitude + other.magnitude, roundings, quantum)

    def rounded(self) -> Rounded:
        """The sum, each term off by as many roundings as it may go through [Higham 2002, 3.1 and 4.2]."""
        by, is_exact = self.exact.arithmetic, self.exact.arithmetic.holds(self.magnitude, self.quantum)
        grown = np.where(is_exact, 0.0, self.exact.error + by.growth(self.roundings) * self.magnitude)
        error = np.where(self.magnitude + grown <= by.largest, grown, np.inf)
        return replace(self.exact, doubt=np.where(is_exact, 0.0, self.exact.doubt), error=error).rounded(False)

    def reshape(self, *shape: int) -> Sum:
        others = (a.reshape(*shape) for a in (self.magnitude, self.roundings, self.quantum))
        return Sum(self.exact.reshape(*shape), *others)


def _meet(a: Rounded, b: Rounded) -> bool:
    """Whether exact numbers meet exact numbers."""
    return bool(((a.around == 0) & (b.around == 0)).any())


def term(number: Rounded) -> Sum:
    """A number that others may be added to."""
    return Sum(number, number.reach, np.zeros(number.shape), number.quantum)


def product(a: Rounded, b: Rounded) -> Sum:
    """The product of two matrices: every entry a sum of products in any order, with or without fused operations."""
    by, sizes = a.arithmetic, np.abs(a.middle)
    terms = (~a.is_zero).astype(np.float64) @ (~b.is_zero).astype(np.float64)
    own_error = by.own_growth(terms) * (sizes @ np.abs(b.middle)) + terms * by.own_smallest
    doubt = sizes @ b.doubt + a.doubt @ b.size + own_error
    error = a.size @ b.error + a.error @ b.reach + terms * by.smallest
    doubt, error = (np.where(terms > 0, bound, 0.0) for bound in (doubt, error))
    magnitude = np.where(terms > 0, a.reach @ b.reach + terms * by.smallest, 0.0)
    quantum = a.quantum.min(axis=1)[:, None] + b.quantum.min(axis=0)
    return Sum(Rounded(by, a.middle @ b.middle, doubt * SLACK, error * SLACK), magnitude * SLACK, terms, quantum)


def shares(z: Rounded) -> Rounded:
    """Softmax of each row: exponentials of z, shifted by the largest, over their sum.

    The shares do not depend on the shift, which is taken for an exact number: a logit as the arithmetic has it.

    Each is off by a factor, p'_k / p_k = exp(d_k) / sum_j p_j exp(d_j), whose logarithm is at most |d_k| +
    log sum_j p_j exp |d_j|.
    """
    by = z.arithmetic
    top = z.middle.max(axis=1, keepdims=True)
    high, low = ((z.middle + sign * z.around).max(axis=1, keepdims=True) for sign in (1, -1))
    shifted = np.abs(z.middle - top) + z.around + np.maximum(high - top, top - low)
    tails = np.exp(z.middle - top)
    middle = tails / tails.sum(axis=1, keepdims=True)
    own_factor = by.own_unit * (np.abs(z.middle - top) + 2 * OWN_LIBRARY_ULP + 1)
    doubt = middle * _relative(middle, z.doubt + own_factor, by.own_growth(z.shape[1] + 1)) + by.own_smallest
    factor = -np.log1p(-by.unit * (2 * LIBRARY_ULP + 1)) + by.unit * shifted
    quotient = -(z.shape[1] + 1) * np.log1p(-by.unit) + z.shape[1] * by.smallest
    size = middle + doubt
    error = np.fmin(size * _relative(size, z.error + factor, quotient), 1 + by.growth(2)) + by.smallest
    return Rounded(by, middle, doubt, error).rounded(False)


def _relative(p: np.ndarray, factors: np.ndarray, quotient: float) -> np.ndarray:
    """By how much shares p change with such logarithms of the factors of their terms, and of the quotient itself."""
    common = np.log1p((p * np.expm1(factors)).sum(axis=1, keepdims=True))
    return np.expm1((factors + common + quotient) * SLACK)
