"""Scalar activation functions: one row each, in the table ``ACTIVATIONS``.

``expression`` defines the function in the vocabulary of a number system; it never mentions a derivative.
``value`` and the derivatives are the hand-written floating-point rules that the sweeps compile: scalar Python on
``math``, without overflow for any finite argument and without cancellation, be it in the tails or around a root.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from difflab.number_systems import Array, NumberSystem


@dataclass(frozen=True)
class Activation:
    """One activation function, of z alone or of z and one scalar parameter p.

    Attributes
    ----------
    name : the word for it in networks and study files.
    expression : ``(m, z) -> a``, or ``(m, z, p) -> a`` with a parameter, over the number system ``m``; for
        :func:`difflab.register_activation` it may be a SymPy expression.
    value, derivative, second_derivative : scalar rules of ``(z)``, or ``(z, p)``, in float64, and in float32 where
        there is a ``float32_domain``; derivatives are with respect to z. Without a second derivative, differences of
        slopes stand for it.
    value_ulp, derivative_ulp, second_derivative_ulp, parameter_derivative_ulp : bound on their error over ``domain``,
        in ulp of the exact result (the smallest positive float, where that is subnormal).
    known_values : triples (argument, value, derivative) from the closed form, with the parameter at ``start``.
    source : where the formula is from.
    domain : arguments for which the ulp bounds hold; with a parameter, z and p z must both be in it.
    beyond_domain : bound on what their error may be more for other arguments, beside (1 + |z|) (1 + |p|); inf where
        nothing is known.
    kinks : arguments without a derivative; there ``derivative`` gives the left slope.
    range : bounds of the value over all arguments and parameters.
    parameter : name of the parameter, like ``"slope"``, or None.
    start : the parameter where a network does not say otherwise; the initial one, if it is learnable.
    is_learnable : whether the parameter is a slice of theta, and not a constant of the network.
    parameter_derivative : rule ``(z, p)`` for the derivative with respect to a learnable parameter.
    mixed_derivative, parameter_second_derivative : rules ``(z, p)`` for the second derivatives with respect to z and
        the parameter, and to the parameter twice, which Hessian-vector products need.
    float32_domain : arguments for which the rules keep their bounds in float32 arithmetic too, in ulp of float32; None
        where they do not, so that sweeps in float32 evaluate them in float64, and round once.
    float32_worst : pairs (argument, error in ulp of float32), of value and of derivative, where the rule, as sweeps in
        float32 evaluate it, was seen to err most.
    """

    name: str
    expression: Callable[..., Array]
    value: Callable[..., float]
    derivative: Callable[..., float]
    second_derivative: Callable[..., float] | None = None
    value_ulp: float = 4.0
    derivative_ulp: float = 4.0
    second_derivative_ulp: float = 8.0
    parameter_derivative_ulp: float = 8.0
    known_values: tuple[tuple[float, float, float], ...] = ()
    source: str = ""
    domain: tuple[float, float] = (-math.inf, math.inf)
    beyond_domain: float = math.inf
    kinks: tuple[float, ...] = ()
    range: tuple[float, float] = (-math.inf, math.inf)
    parameter: str | None = None
    start: float = 0.0
    is_learnable: bool = False
    parameter_derivative: Callable[[float, float], float] | None = None
    mixed_derivative: Callable[[float, float], float] | None = None
    parameter_second_derivative: Callable[[float, float], float] | None = None
    float32_domain: tuple[float, float] | None = None
    float32_worst: tuple[tuple[float, float], ...] = ()


_SPLITTER = 2.0**27 + 1.0
_UNDERFLOW = 2.0**-1060

# Pairs are a number rounded and what the rounding dropped.
_SQRT_2 = (1.4142135623730951, -9.667293313452913e-17)
_SQRT_HALF = (0.7071067811865476, -4.833646656726457e-17)
_TWO_OVER_SQRT_PI = 1.1283791670955126
_ONE_OVER_SQRT_2PI = 0.3989422804014327

_SILU_ROOT = (-1.2784645427610737, -1.0946994183093437e-16)
_SILU_ROOT_EXP = 0.2784645427610738
_SILU_END = 1500.0
_SILU_INFLECTION = (2.3993572805154675, 1.8464872855353363e-16)
_GELU_ROOT = (-0.7517915246935645, 1.4956759177009883e-17)
_GELU_ROOT_REACH = 0.25
# The Taylor coefficients of gelu' at its root, the highest first.
_GELU_SLOPE_AROUND_ROOT = (
    -1.6044265494246427e-09,
    5.702764979242107e-07,
    4.3284506257392273e-07,
    -7.74846130700372e-06,
    -1.121438018842664e-05,
    8.615947861116571e-05,
    0.00018633974623233514,
    -0.0007448268386746817,
    -0.002239538068073497,
    0.004539228379125415,
    0.019421679838189067,
    -0.014771522148244337,
    -0.1140082332972217,
    -0.018199676398671087,
    0.388284982990552,
    0.4314939923140469,
    0.0,
)


NAN = math.nan


def unknown(z: float) -> float:
    """In the place of a derivative that a row does not have: nothing that needs it may pass for a number."""
    return NAN


def unknown_of_both(z: float, p: float) -> float:
    """The same where there is a parameter."""
    return NAN


def identity_value(z: float) -> float:
    return z


def identity_derivative(z: float) -> float:
    return 1.0


def zero(z: float) -> float:
    return 0.0


def sigmoid_value(z: float) -> float:
    """For z below -0.7 the small difference of the quotient from the exponential, whose rounding matters less."""
    tail = math.exp(-abs(z))
    quotient = (1.0 if z >= 0 else tail) / (1.0 + tail)
    return quotient if z >= -0.7 else tail - tail * quotient


def sigmoid_derivative(z: float) -> float:
    """Even in z; the textbook a (1 - a) cancels for large z."""
    tail = math.exp(-abs(z))
    return tail / ((1.0 + tail) * (1.0 + tail))


def sigmoid_second_derivative(z: float) -> float:
    return -sigmoid_derivative(z) * math.tanh(0.5 * z)


def tanh_value(z: float) -> float:
    return math.tanh(z)


def tanh_derivative(z: float) -> float:
    """1 / cosh(z)**2 by exp; the textbook 1 - a**2 loses every digit once a rounds to 1."""
    tail = math.exp(-2.0 * abs(z))
    return 4.0 * tail / ((1.0 + tail) * (1.0 + tail))


def tanh_second_derivative(z: float) -> float:
    return -2.0 * math.tanh(z) * tanh_derivative(z)


def relu_value(z: float) -> float:
    """NaN stays NaN."""
    return 0.0 if z <= 0 else z


def relu_derivative(z: float) -> float:
    return 0.0 if z <= 0 else 1.0


def leaky_relu_value(z: float, slope: float) -> float:
    return z if z > 0 else slope * z


def leaky_relu_derivative(z: float, slope: float) -> float:
    return 1.0 if z > 0 else slope


def leaky_relu_second_derivative(z: float, slope: float) -> float:
    return 0.0


def leaky_relu_slope_derivative(z: float, slope: float) -> float:
    return 0.0 if z > 0 else z


def leaky_relu_mixed_derivative(z: float, slope: float) -> float:
    return 0.0 if z > 0 else 1.0


def elu_value(z: float, alpha: float) -> float:
    return z if z > 0 else alpha * math.expm1(z)


def elu_derivative(z: float, alpha: float) -> float:
    return 1.0 if z > 0 else alpha * math.exp(z)


def elu_second_derivative(z: float, alpha: float) -> float:
    return 0.0 if z > 0 else alpha * math.exp(z)


def softplus_value(z: float) -> float:
    return (z if z > 0 else 0.0) + math.log1p(math.exp(-abs(z)))


def softsign_value(z: float) -> float:
    return z / (1.0 + abs(z))


def softsign_derivative(z: float) -> float:
    """Divided twice: the square overflows."""
    return 1.0 / (1.0 + abs(z)) / (1.0 + abs(z))


def softsign_second_derivative(z: float) -> float:
    """At 0, where it jumps, the limit from the left."""
    return (2.0 if z <= 0 else -2.0) * softsign_derivative(z) / (1.0 + abs(z))


def silu_value(z: float, beta: float) -> float:
    x, low = _silu_argument(z, beta)
    return z * sigmoid_value(x) * (1.0 + low * sigmoid_value(-x))


def silu_derivative(z: float, beta: float) -> float:
    """sigma(x) (1 + x sigma(-x)), and for x < 0 sigma'(x) (1 + x + exp(x)), expanded around its root."""
    x, low = _silu_argument(z, beta)
    if x > 0:
        return sigmoid_value(x) * (1.0 + x * sigmoid_value(-x))
    step = (x - _SILU_ROOT[0]) + (low - _SILU_ROOT[1])
    return _sigmoid_slope_times(step + _SILU_ROOT_EXP * math.expm1(step), 1.0, x, low)


def silu_second_derivative(z: float, beta: float) -> float:
    return _silu_bend(beta, z, beta)


def silu_mixed_derivative(z: float, beta: float) -> float:
    return _silu_bend(z, z, beta)


def _silu_bend(factor: float, z: float, beta: float) -> float:
    """Factor times sigma'(x) (2 - x tanh(x / 2)), the difference expanded around its root r = 2 / tanh(r / 2)."""
    x, low = _silu_argument(z, beta)
    step = (abs(x) - _SILU_INFLECTION[0]) + (math.copysign(1.0, x) * low - _SILU_INFLECTION[1])
    rise = math.tanh(0.5 * abs(x))
    fall = step * rise + math.tanh(0.5 * step) * (_SILU_INFLECTION[0] - 2.0 * rise)
    return _sigmoid_slope_times(-factor, fall, x, low)


def silu_beta_derivative(z: float, beta: float) -> float:
    x, low = _silu_argument(z, beta)
    return _sigmoid_slope_times(z, z, x, low)


def silu_beta_second_derivative(z: float, beta: float) -> float:
    """z**3 sigma''(x), with sigma'' = -sigma' tanh(x / 2)."""
    x, low = _silu_argument(z, beta)
    if abs(x) == _SILU_END:
        return -0.0 * x
    return _sigmoid_slope_times(z, -z * z * math.tanh(0.5 * x), x, low)


def gelu_value(z: float) -> float:
    return z * _normal_cdf(z)


def gelu_derivative(z: float) -> float:
    """Phi(z) + z phi(z), and its Taylor polynomial around the root, where that cancels."""
    step = (z - _GELU_ROOT[0]) - _GELU_ROOT[1]
    if abs(step) < _GELU_ROOT_REACH:
        return _gelu_slope_around_root(step)
    return _normal_cdf(z) + _normal_density_times(z, z)


def gelu_second_derivative(z: float) -> float:
    """phi(z) (2 - z**2), factored so that nothing cancels."""
    return _normal_density_times(((_SQRT_2[0] - z) + _SQRT_2[1]) * ((_SQRT_2[0] + z) + _SQRT_2[1]), z)


def _gelu_slope_around_root(step: float) -> float:
    total = 0.0
    for coefficient in _GELU_SLOPE_AROUND_ROOT:
        total = total * step + coefficient
    return total


def _normal_cdf(z: float) -> float:
    """erfc(x) / 2 at x = -z / sqrt(2); for z < 0 with what x loses in rounding, which the tail magnifies by 2 x**2."""
    x = -_SQRT_HALF[0] * z
    if z > 0:
        return 0.5 * math.erfc(x)
    if z < -40.0:
        return 0.0
    low = _rounding_error(-_SQRT_HALF[0], z, x) - _SQRT_HALF[1] * z
    return 0.5 * (math.erfc(x) - _TWO_OVER_SQRT_PI * math.exp(-x * x) * low)


def _normal_density_times(factor: float, z: float) -> float:
    """Factor times exp(-z**2 / 2) / sqrt(2 pi).

    The square of the upper half of z is exact, and half the exponent at a time lets no exponential underflow before
    the product does.
    """
    if abs(z) > 40.0:
        return 0.0
    upper = _upper_half(z)
    root = math.exp(-0.25 * upper * upper)
    rest = math.exp(-0.5 * (z - upper) * (z + upper))
    return _ONE_OVER_SQRT_2PI * factor * root * rest * root


def _silu_argument(z: float, beta: float) -> tuple[float, float]:
    """The product beta z and its rounding error; cut off where sigma(-abs(x)) times any float is 0."""
    x = beta * z
    if abs(x) > _SILU_END:
        return math.copysign(_SILU_END, x), 0.0
    if abs(z) > 1e290 or abs(beta) > 1e290:
        return x, 0.0
    return x, _rounding_error(beta, z, x)


def _sigmoid_slope_times(a: float, b: float, x: float, low: float) -> float:
    """Product a b sigma'(x + low); half the exponent for each factor, so that none underflows before the product."""
    root = math.exp(-0.5 * abs(x))
    below = 1.0 + root * root
    return (a * root / below) * (b * root / below) * (1.0 - low * math.tanh(0.5 * x))


def _rounding_error(a: float, b: float, product: float) -> float:
    """Error of the rounded product, a b - product, exactly unless it is subnormal [Dekker 1971]."""
    a_upper, b_upper = _upper_half(a), _upper_half(b)
    a_lower, b_lower = a - a_upper, b - b_upper
    return a_upper * b_upper - product + a_upper * b_lower + a_lower * b_upper + a_lower * b_lower


def _upper_half(a: float) -> float:
    """The leading 26 bits of a [Veltkamp 1968]."""
    scaled = _SPLITTER * a
    return scaled - (scaled - a)


def leaky_relu(m: NumberSystem, z: Array, slope: Array) -> Array:
    """In parts, whose slopes at 0 make up the left one in every number system."""
    return m.positive_part(z) + slope * m.negative_part(z)


def elu(m: NumberSystem, z: Array, alpha: Array) -> Array:
    return m.positive_part(z) + alpha * m.expm1(m.negative_part(z))


def silu(m: NumberSystem, z: Array, beta: Array) -> Array:
    return z * m.expit(beta * z)


def gelu(m: NumberSystem, z: Array) -> Array:
    return z * m.erfc(-z / m.sqrt(m.array(2.0))) / 2


def softsign(m: NumberSystem, z: Array) -> Array:
    return z / (1 + m.positive_part(z) + m.positive_part(-z))


_LEAKY_RELU = Activation(
    "leaky_relu",
    expression=leaky_relu,
    value=leaky_relu_value,
    derivative=leaky_relu_derivative,
    second_derivative=leaky_relu_second_derivative,
    value_ulp=0.5,
    derivative_ulp=0.0,
    second_derivative_ulp=0.0,
    known_values=((-1.0, -0.01, 0.01), (0.0, 0.0, 0.01), (2.0, 2.0, 1.0)),
    source="Maas, Hannun, Ng 2013; lecture notes 002 (Winovich 2018), slide 16",
    kinks=(0.0,),
    parameter="slope",
    start=0.01,
    float32_domain=(-math.inf, math.inf),
    float32_worst=((-2.132077272607591e-36, 0.84), (-7.567011707354012e-44, 0.24)),
)

_SILU = Activation(
    "silu",
    expression=silu,
    value=silu_value,
    derivative=silu_derivative,
    second_derivative=silu_second_derivative,
    value_ulp=4.0,
    derivative_ulp=8.0,
    second_derivative_ulp=9.0,
    known_values=((0.0, 0.0, 0.5), (1.0, 0.7310585786300049, 0.9276705118714867)),
    source="Hendrycks, Gimpel 2016; Elfwing, Uchibe, Doya 2018",
    domain=(-708.0, math.inf),
    beyond_domain=_UNDERFLOW,
    parameter="beta",
    start=1.0,
    float32_worst=((1.0551777436365873e-42, 0.5), (5.960464477539063e-08, 0.5)),
)

ROWS = (
    Activation(
        "identity",
        expression=lambda m, z: z,
        value=identity_value,
        derivative=identity_derivative,
        second_derivative=zero,
        value_ulp=0.0,
        derivative_ulp=0.0,
        second_derivative_ulp=0.0,
        known_values=((-2.0, -2.0, 1.0), (0.5, 0.5, 1.0)),
        source="definition",
        float32_domain=(-math.inf, math.inf),
        float32_worst=((0.0, 0.0), (0.0, 0.0)),
    ),
    Activation(
        "sigmoid",
        expression=lambda m, z: m.expit(z),
        value=sigmoid_value,
        derivative=sigmoid_derivative,
        second_derivative=sigmoid_second_derivative,
        value_ulp=2.0,
        derivative_ulp=4.6,
        second_derivative_ulp=6.0,
        known_values=((0.0, 0.5, 0.25), (math.log(3.0), 0.75, 0.1875)),
        source="Rumelhart, Hinton, Williams 1986; lecture notes 002 (Winovich 2018), slide 15",
        domain=(-708.0, 708.0),
        beyond_domain=_UNDERFLOW,
        range=(0.0, 1.0),
        float32_domain=(-87.0, 87.0),
        float32_worst=((-1.108637809753418, 1.8082), (-4.839949607849121, 4.2167)),
    ),
    Activation(
        "tanh",
        expression=lambda m, z: m.tanh(z),
        value=tanh_value,
        derivative=tanh_derivative,
        second_derivative=tanh_second_derivative,
        value_ulp=2.0,
        derivative_ulp=4.6,
        second_derivative_ulp=6.0,
        known_values=((0.0, 0.0, 1.0), (math.log(2.0), 0.6, 0.64)),
        source="lecture notes 002 (Winovich 2018), slide 15",
        domain=(-354.0, 354.0),
        beyond_domain=_UNDERFLOW,
        range=(-1.0, 1.0),
        float32_domain=(-43.5, 43.5),
        float32_worst=((0.4946257174015045, 1.9006), (2.4199748039245605, 4.2167)),
    ),
    Activation(
        "relu",
        expression=lambda m, z: m.positive_part(z),
        value=relu_value,
        derivative=relu_derivative,
        second_derivative=zero,
        value_ulp=0.0,
        derivative_ulp=0.0,
        second_derivative_ulp=0.0,
        known_values=((-1.0, 0.0, 0.0), (0.0, 0.0, 0.0), (2.0, 2.0, 1.0)),
        source="lecture notes 002 (Winovich 2018), slide 14; relu'(0) = 0 by convention",
        kinks=(0.0,),
        range=(0.0, math.inf),
        float32_domain=(-math.inf, math.inf),
        float32_worst=((0.0, 0.0), (0.0, 0.0)),
    ),
    _LEAKY_RELU,
    Activation(
        "elu",
        expression=elu,
        value=elu_value,
        derivative=elu_derivative,
        second_derivative=elu_second_derivative,
        value_ulp=2.0,
        derivative_ulp=1.5,
        second_derivative_ulp=1.5,
        known_values=((-math.log(2.0), -0.5, 0.5), (0.0, 0.0, 1.0), (2.0, 2.0, 1.0)),
        source="Clevert, Unterthiner, Hochreiter 2016; lecture notes 002 (Winovich 2018), slide 16",
        domain=(-708.0, math.inf),
        beyond_domain=_UNDERFLOW,
        kinks=(0.0,),
        parameter="alpha",
        start=1.0,
        float32_domain=(-87.0, math.inf),
        float32_worst=((-0.3484039008617401, 1.1388), (-5.15835428237915, 0.931)),
    ),
    Activation(
        "softplus",
        expression=lambda m, z: m.log1pexp(z),
        value=softplus_value,
        derivative=sigmoid_value,
        second_derivative=sigmoid_derivative,
        value_ulp=2.0,
        derivative_ulp=2.0,
        second_derivative_ulp=4.6,
        known_values=((0.0, math.log(2.0), 0.5), (math.log(3.0), math.log(4.0), 0.75)),
        source="Dugas et al. 2001, ln(1 + exp(z)); lecture notes 002, slide 14, print ln(1 + exp(-z)), which is a slip",
        domain=(-708.0, math.inf),
        beyond_domain=_UNDERFLOW,
        range=(0.0, math.inf),
        float32_domain=(-87.0, math.inf),
        float32_worst=((-0.7533214688301086, 1.6475), (-1.108637809753418, 1.8082)),
    ),
    _SILU,
    Activation(
        "gelu",
        expression=gelu,
        value=gelu_value,
        derivative=gelu_derivative,
        second_derivative=gelu_second_derivative,
        value_ulp=7.0,
        derivative_ulp=13.0,
        second_derivative_ulp=7.0,
        known_values=((0.0, 0.0, 0.5), (1.0, 0.8413447460685429, 1.0833154705876864)),
        source="Hendrycks, Gimpel 2016",
        domain=(-37.5, math.inf),
        beyond_domain=_UNDERFLOW,
        range=(-0.17, math.inf),
        float32_worst=((1.0551777436365873e-42, 0.5), (-8.51057848194614e-05, 0.5)),
    ),
    Activation(
        "softsign",
        expression=softsign,
        value=softsign_value,
        derivative=softsign_derivative,
        second_derivative=softsign_second_derivative,
        value_ulp=2.0,
        derivative_ulp=4.0,
        second_derivative_ulp=6.0,
        known_values=((0.0, 0.0, 1.0), (-1.0, -0.5, 0.25), (3.0, 0.75, 0.0625)),
        source="Bergstra, Desjardins, Lamblin, Bengio 2009; Glorot, Bengio 2010",
        domain=(-6e153, 6e153),
        beyond_domain=_UNDERFLOW,
        range=(-1.0, 1.0),
        float32_domain=(-9e18, 9e18),
        float32_worst=((4095.498779296875, 1.4988), (-31.095975875854492, 2.9534)),
    ),
    replace(
        _LEAKY_RELU,
        name="prelu",
        known_values=((-1.0, -0.25, 0.25), (0.0, 0.0, 0.25), (2.0, 2.0, 1.0)),
        source="He, Zhang, Ren, Sun 2015; lecture notes 002, slide 17, print the branches swapped, which is a slip",
        start=0.25,
        is_learnable=True,
        float32_domain=None,
        parameter_derivative=leaky_relu_slope_derivative,
        mixed_derivative=leaky_relu_mixed_derivative,
        parameter_second_derivative=leaky_relu_second_derivative,
        parameter_derivative_ulp=0.0,
        float32_worst=((-1.1574725315322989e-42, 0.5), (0.0, 0.0)),
    ),
    replace(
        _SILU,
        name="swish",
        source="Ramachandran, Zoph, Le 2017; lecture notes 002 (Winovich 2018), slide 17",
        is_learnable=True,
        parameter_derivative=silu_beta_derivative,
        mixed_derivative=silu_mixed_derivative,
        parameter_second_derivative=silu_beta_second_derivative,
        parameter_derivative_ulp=8.0,
    ),
)

ACTIVATIONS = {row.name: row for row in ROWS}
