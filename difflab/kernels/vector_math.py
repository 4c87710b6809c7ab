"""Elementary functions without branches, tables or calls, so that LLVM turns loops over them into SIMD code.

Each is written once and built for float64 and for float32, in whose own arithmetic it then runs: additions,
multiplications, divisions, shifts and selections, each rounded by itself. So one processor gives the same bits as
another, and as plain Python. Built once more as fused, they round a product and the sum it goes into once where the
processor can, which takes it less time. ``WORST_ULP`` says how far from the truth either may be.

The polynomials are minimax: found by Remez's algorithm with 50 digits, for the interval and the error that is told
beside each, and then rounded coefficient by coefficient.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
from numba.extending import intrinsic

from difflab.kernels import llvm
from difflab.kernels.flags import CALLED


WORST_ULP: dict[str, tuple[float, float]] = {
    "exp": (1.0, 1.0),
    "expm1": (1.5, 1.5),
    "log": (1.0, 1.0),
    "log1p": (1.5, 1.5),
    "tanh": (2.0, 2.0),
    "erf": (2.0, 2.0),
    "erfc": (6.0, 5.0),
}
"""Of every function, the largest error in ulp, in float64 and in float32."""


class Precision(NamedTuple):
    """What the functions need to know of a floating-point format.

    Attributes
    ----------
    real, integer : types of the same width
    mantissa_bits, bias : the layout of ``real``
    exp_range : outside of it exp is 0 or inf
    ln2 : ln 2 as a sum; the first part times any exponent is exact
    erf_end, erfc_end : beyond them erf is 1, erfc is 0
    split_bits : of the mantissa, dropped for a number whose square is exact
    expm1, log, erf, erf_tail, erfc : coefficients of polynomials, constant first
    """

    real: type
    integer: type
    mantissa_bits: int
    bias: int
    exp_range: tuple[float, float]
    ln2: tuple[float, float]
    erf_end: float
    erfc_end: float
    split_bits: int
    expm1: tuple[float, ...]
    log: tuple[float, ...]
    erf: tuple[float, ...]
    erf_tail: tuple[float, ...]
    erfc: tuple[float, ...]


class Functions(NamedTuple):
    """The functions of one precision: scalars of that precision to scalars of that precision."""

    exp: Callable[[Any], Any]
    expm1: Callable[[Any], Any]
    log: Callable[[Any], Any]
    log1p: Callable[[Any], Any]
    tanh: Callable[[Any], Any]
    erf: Callable[[Any], Any]
    erfc: Callable[[Any], Any]


FLOAT64 = Precision(
    real=np.float64,
    integer=np.int64,
    mantissa_bits=52,
    bias=1023,
    exp_range=(-746.0, 710.0),
    ln2=(float.fromhex("0x1.62e42fefa3800p-1"), 5.497923018708371e-14),
    erf_end=6.0,
    erfc_end=28.0,
    split_bits=27,
    # (expm1(r) - r)/r² for |r| <= ln(2)/2, error of expm1(r)/r below 2^-55.6
    expm1=(
        0.5000000000000006,
        0.16666666666666685,
        0.04166666666657333,
        0.008333333333314395,
        0.0013888888932483683,
        0.00019841269903455487,
        2.4801504311694993e-05,
        2.755722757981384e-06,
        2.7626382631130755e-07,
        2.5114589335708097e-08,
    ),
    # (2 atanh(s)/s - 2)/s² in s² for |s| <= (√2 - 1)/(√2 + 1), error of 2 atanh(s)/s below 2^-58.5
    log=(
        0.6666666666666735,
        0.3999999999941111,
        0.28571428743259447,
        0.22222198476207,
        0.18183569733592944,
        0.15313903279673388,
        0.14797508546957278,
    ),
    # erf(x)/x - 1 in x² for |x| <= 0.92, error below 2^-59.8
    erf=(
        0.1283791670955126,
        -0.37612638903183715,
        0.11283791670953132,
        -0.026866170644689123,
        0.005223977620374005,
        -0.0008548326680369757,
        0.00012055318238218163,
        -1.4925232314348431e-05,
        1.6454176486437887e-06,
        -1.6265598098971817e-07,
        1.3993056846222752e-08,
        -8.35942461104711e-10,
    ),
    # exp(x²) erfc(x) in 1/(x + 2) for 0.92 <= x <= 5.95, error of erfc(x) below 2^-59.0
    erf_tail=(
        -1.418976349881281e-06,
        0.5642999699781656,
        1.1248657701593001,
        2.038512101856315,
        2.065333254998189,
        8.888344396591112,
        -36.791447803670536,
        147.5096363423444,
        -479.2102157511565,
        943.1250282028791,
        -1096.2038336649491,
        710.2410362146892,
        -200.65570166318332,
    ),
    # (x + 2) exp(x²) erfc(x) in (x - 2)/(x + 2) for 0.64 <= x <= 27.3, relative error below 2^-59.6
    erfc=(
        1.021582705242023,
        -0.6871606844138106,
        0.27947209255605526,
        -0.03644223150687075,
        -0.02151066188954613,
        0.006479185067280828,
        0.003090612061941083,
        -0.0008372960513087933,
        -0.0006630735685216148,
        3.437130008993554e-05,
        0.00014447158054861175,
        3.414967275962872e-05,
        -2.1702858642559895e-05,
        -1.6121363504791098e-05,
        -1.0933735404212644e-06,
        3.6241426949593807e-06,
        1.9131078699260383e-06,
        1.1384046583380265e-07,
        -4.6425898357963753e-07,
        -5.831833029166032e-07,
        3.6229409996094356e-08,
        3.331713388503136e-07,
        -1.119569112884037e-07,
    ),
)

FLOAT32 = Precision(
    real=np.float32,
    integer=np.int32,
    mantissa_bits=23,
    bias=127,
    exp_range=(-104.5, 89.0),
    ln2=(float.fromhex("0x1.62e4000000000p-1"), 1.4286068e-06),
    erf_end=4.0,
    erfc_end=11.0,
    split_bits=12,
    # as above, with an error below 2^-26.2
    expm1=(0.5, 0.16666543, 0.04166628, 0.008366612, 0.001394648),
    # as above, with an error below 2^-29.2
    log=(0.66666776, 0.39977497, 0.2987306),
    # as above, with an error below 2^-31.2
    erf=(0.12837917, -0.37612635, 0.11283703, -0.0268598, 0.005201961, -0.0008152631, 8.4099214e-05),
    # as above for 0.92 <= x <= 3.95, with an error below 2^-33.2
    erf_tail=(0.0017120881, 0.52132064, 1.5739083, -0.46976814, 10.107889, -7.331477),
    # as above for 0.64 <= x <= 10.1, with an error below 2^-29.5
    erfc=(
        1.0215827,
        -0.6871607,
        0.27947208,
        -0.036443364,
        -0.021510106,
        0.0064941305,
        0.0030790144,
        -0.0009118702,
        -0.0005907666,
        0.00016736067,
    ),
)


def _inlined(function: Callable) -> Callable:
    """Compile to be a part of every loop that calls it; without the JIT, keep quiet about inf and NaN."""
    if not numba.config.DISABLE_JIT:
        return numba.njit(forceinline=True, **CALLED)(function)

    @functools.wraps(function)
    def quiet(*arguments: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(*arguments)

    return quiet


def _select(condition: Any, chosen: Any, otherwise: Any) -> Any:
    """One of two numbers, both computed: branches would keep LLVM from merging what two functions share."""
    return chosen if condition else otherwise


if not numba.config.DISABLE_JIT:

    @intrinsic
    def _select(context: Any, condition: Any, chosen: Any, otherwise: Any) -> Any:  # noqa: F811
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.select(*arguments)

        return chosen(numba.types.boolean, chosen, chosen), generate


@_inlined
def _multiply_add(a: Any, b: Any, c: Any) -> Any:
    """a b + c, each operation rounded."""
    return a * b + c


_fused_multiply_add = _multiply_add

if not numba.config.DISABLE_JIT:

    @intrinsic
    def _fused_multiply_add(context: Any, a: Any, b: Any, c: Any) -> Any:  # noqa: F811
        """The same, rounded once where the processor can."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return llvm.multiply_add(builder, *arguments)

        return a(a, a, a), generate


def _functions(p: Precision, multiply_add: Callable[[Any, Any, Any], Any] = _multiply_add) -> Functions:
    """The functions of one precision. All constants have its type: one of another would widen the arithmetic."""
    real, integer, mantissa, bias = p.real, p.integer, p.mantissa_bits, p.bias
    zero, half, one, two, four, inf, nan = map(real, (0, 0.5, 1, 2, 4, math.inf, math.nan))
    minus_quarter, minus_two = map(real, (-0.25, -2))
    erf_break, erfc_break, erf_end, erfc_end = map(real, (0.92, 0.65, p.erf_end, p.erfc_end))
    expm1_poly, log_poly, erf_poly = (tuple(map(real, row)) for row in (p.expm1, p.log, p.erf))
    erf_tail_poly, erfc_poly = (tuple(map(real, row)) for row in (p.erf_tail, p.erfc))

    # to multiply and divide by powers of 2
    exp_low, exp_high = map(real, p.exp_range)
    log2_e, ln2_high, ln2_low = map(real, (1 / math.log(2), *p.ln2))
    minus_ln2_high, minus_ln2_low = -ln2_high, -ln2_low
    to_integer = real(1.5 * 2**mantissa + 2 * bias)
    one_exponent, two_exponents, two_exponents_bits = map(integer, (bias, 2 * bias, 2 * bias << mantissa))

    # to take numbers apart
    smallest_normal, subnormal_scale = real(2.0 ** (1 - bias)), real(2.0 ** (mantissa + 2))
    subnormal_exponent, large = real(mantissa + 2), real(2.0 ** (mantissa + 8))
    above_root_half = integer((bias << mantissa) - int(real(math.sqrt(0.5)).view(integer)))
    integer_bits, integer_zero = real(2.0**mantissa).view(integer), real(2.0**mantissa + bias)
    upper_half = integer(-1 << p.split_bits)

    @_inlined
    def bits(x: Any) -> Any:
        return real(x).view(integer)

    @_inlined
    def number(pattern: Any) -> Any:
        return integer(pattern).view(real)

    @_inlined
    def polynomial(x: Any, coefficients: Any) -> Any:
        """Even and odd powers apart: two chains of operations, each half as long as Horner's."""
        n = len(coefficients)
        square = x * x
        ahead, behind = coefficients[n - 1], coefficients[n - 2]
        for i in range(n - 3, 0, -2):
            ahead = multiply_add(ahead, square, coefficients[i])
            behind = multiply_add(behind, square, coefficients[i - 1])
        if n % 2:
            return multiply_add(x, behind, multiply_add(ahead, square, coefficients[0]))
        return multiply_add(x, ahead, behind)

    @_inlined
    def reduced(x: Any, tail: Any) -> Any:
        """x - tail = k ln 2 + r: expm1(r) as a sum, and two powers of 2 with product 2^k, the second as bits.

        ``shifted`` is k + 2 bias in its lowest bits.
        """
        x = _select(x < exp_low, exp_low, x)
        x = _select(x > exp_high, exp_high, x)
        shifted = multiply_add(x - tail, log2_e, to_integer)
        k = shifted - to_integer
        high = multiply_add(k, minus_ln2_high, x)
        low = multiply_add(k, minus_ln2_low, -tail)
        r = high + low
        rest = multiply_add(r * r, polynomial(r, expm1_poly), low)
        exponent = bits(shifted)
        first = integer(exponent >> 1)
        second = integer(exponent - first)
        return high, rest, number(first << mantissa), integer(second << mantissa)

    @_inlined
    def exp(x: Any) -> Any:
        """e^x within 1 ulp.

        Notes
        -----
        Reduction by Cody and Waite (1980), with the nearest multiple of ln 2 found by adding a large number; e^x is
        2^k (1 + expm1(r)). The factor 2^k is multiplied in two halves, so that results may be subnormal.
        """
        high, rest, first, second_bits = reduced(real(x), zero)
        return multiply_add(first, high + rest, first) * number(second_bits)

    @_inlined
    def expm1(x: Any) -> Any:
        """e^x - 1 within 1.5 ulp.

        Notes
        -----
        2^k expm1(r) + (2^k - 1), all of it times 2^-k/2 until the end. Shares its reduction and polynomial with ``exp``
        where a loop needs both of one argument.
        """
        x = real(x)
        high, rest, first, second_bits = reduced(x, zero)
        reciprocal = number(two_exponents_bits - second_bits)
        scaled = multiply_add(first, rest, multiply_add(first, high, first - reciprocal))
        return np.copysign(scaled * number(second_bits), x)

    @_inlined
    def split(x: Any) -> Any:
        """x = 2^k m with m in [√½, √2), x normal and positive: k as a biased integer, k, m."""
        pattern = bits(x)
        biased = integer(integer(pattern + above_root_half) >> mantissa)
        k = number(biased | integer_bits) - integer_zero
        m = number(pattern - integer(integer(biased - one_exponent) << mantissa))
        return biased, k, m

    @_inlined
    def log_of(k: Any, f: Any) -> Any:
        """k ln 2 + log(1 + f), f in [√½ - 1, √2 - 1]."""
        s = f / (two + f)
        z = s * s
        h = half * f * f
        rest = multiply_add(s, multiply_add(z, polynomial(z, log_poly), h), k * ln2_low)
        return multiply_add(k, ln2_high, f - (h - rest))

    @_inlined
    def log(x: Any) -> Any:
        """log x within 1 ulp.

        Notes
        -----
        x = 2^k (1 + f), and log(1 + f) = f - (f²/2 - s (f²/2 + s² R(s²))) with s = f/(2 + f), the form of fdlibm.
        """
        x = real(x)
        subnormal = x < smallest_normal
        _, k, m = split(_select(subnormal, x * subnormal_scale, x))
        y = log_of(k - _select(subnormal, subnormal_exponent, zero), m - one)
        y = _select(x == inf, x, y)
        return _select(x > zero, y, _select(x == zero, -inf, nan))

    @_inlined
    def log1p(x: Any) -> Any:
        """log(1 + x) within 1.5 ulp.

        Notes
        -----
        log of 1 + x; what that sum loses to rounding, an idea of fdlibm, is added to the reduced argument.
        """
        x = real(x)
        u = one + x
        lost = _select(x > one, one - (u - x), x - (u - one))
        biased, k, m = split(u)
        scale = number(integer(two_exponents - biased) << mantissa)
        scale = _select(x < large, scale, zero)
        y = np.copysign(log_of(k, multiply_add(lost, scale, m - one)), x)
        y = _select(x == inf, x, y)
        return _select(u > zero, y, _select(u == zero, -inf, nan))

    @_inlined
    def tanh(x: Any) -> Any:
        """tanh x within 2 ulp.

        Notes
        -----
        h + h 2h/(1 + e) with e = exp(-2 |x|) and h = (1 - e)/2, which is -expm1(-2 |x|)/2. The two terms of h are added
        to the other one by one: what their sum loses to rounding is lost from its small share alone. A loop that needs
        exp(-2 |x|) or expm1(-2 |x|) as well shares their reduction and polynomial.
        """
        x = real(x)
        high, rest, first, second_bits = reduced(minus_two * abs(x), zero)
        scaled = first * (high + rest)
        second = number(second_bits)
        e = multiply_add(first, high + rest, first) * second
        constant = first - number(two_exponents_bits - second_bits)
        minus_half = -half * second
        h = (scaled + constant) * minus_half
        share = h * ((h + h) / (one + e))
        return np.copysign(multiply_add(constant, minus_half, multiply_add(scaled, minus_half, share)), x)

    @_inlined
    def erf(x: Any) -> Any:
        """erf x within 2 ulp.

        Notes
        -----
        x + x P(x²) up to 0.92, then 1 - exp(-x²) Q(1/(|x| + 2)), whose ``exp(-(x * x))`` a loop can share.
        """
        x = real(x)
        square = x * x
        magnitude = abs(x)
        small = multiply_add(magnitude, polynomial(square, erf_poly), magnitude)
        z = _select(magnitude > erf_end, erf_end, magnitude)
        tail = multiply_add(-exp(-x * x), polynomial(one / (z + two), erf_tail_poly), one)
        return np.copysign(_select(magnitude < erf_break, small, tail), x)

    @_inlined
    def erfc(x: Any) -> Any:
        """1 - erf x within 6 ulp, in float32 within 5.

        Notes
        -----
        A polynomial in (x - 2)/(x + 2), after Shepherd and Laframboise (1981), times exp(-x²)/(x + 2); x² is the square
        of the upper half of x, which is exact, and a small rest. What x + 2 loses to rounding is made up for in that of
        the exponential. Between -0.65 and 0.65, 1 - erf(x).
        """
        x = real(x)
        magnitude = abs(x)
        small = one - multiply_add(x, polynomial(x * x, erf_poly), x)
        z = _select(magnitude > erfc_end, erfc_end, magnitude)
        upper = number(bits(z) & upper_half)
        high, rest, first, second_bits = reduced(-(upper * upper), (z - upper) * (z + upper))
        shifted = z + two
        quotient = four / shifted
        rest = multiply_add(minus_quarter * quotient, z - (shifted - two), rest)
        scaled = polynomial(one - quotient, erfc_poly) / shifted
        y = multiply_add(scaled, high + rest, scaled) * first * number(second_bits)
        y = _select(x < zero, two - y, y)
        return _select(magnitude < erfc_break, small, y)

    return Functions(exp, expm1, log, log1p, tanh, erf, erfc)


float64 = _functions(FLOAT64)
float32 = _functions(FLOAT32)
fused_float64 = _functions(FLOAT64, _fused_multiply_add)
fused_float32 = _functions(FLOAT32, _fused_multiply_add)
