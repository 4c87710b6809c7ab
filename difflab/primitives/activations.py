"""Scalar activation functions: one row each, in the table ``ACTIVATIONS``.

``expression`` defines the function in the vocabulary of a number system; it never mentions a derivative.
``value`` and ``derivative`` are the hand-written floating-point rules that the reverse sweep compiles: scalar
Python on ``math``, without overflow for any finite argument and without cancellation where the function saturates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from difflab.number_systems import Array, NumberSystem


@dataclass(frozen=True)
class Activation:
    """One activation function, of z alone or of z and one scalar parameter p.

    Attributes
    ----------
    name : the word for it in networks and study files.
    expression : ``(m, z) -> a``, or ``(m, z, p) -> a`` with a parameter, over the number system ``m``.
    value, derivative, second_derivative : scalar float64 rules of ``(z)``, or ``(z, p)``; derivatives are with respect
        to z. Without a rule for the second derivative there is no Hessian.
    value_ulp, derivative_ulp, second_derivative_ulp : bound on their error over ``domain``, in ulp of the exact result.
    known_values : triples (argument, value, derivative) from the closed form, with the parameter at ``start``.
    source : where the formula is from.
    domain : arguments for which the ulp bounds hold (results neither overflow nor are subnormal).
    kinks : arguments without a derivative; there ``derivative`` gives the left slope.
    range : bounds of the value over all arguments.
    parameter : name of the parameter, like ``"slope"``, or None.
    start : the parameter where a network does not say otherwise; the initial one, if it is learnable.
    is_learnable : whether the parameter is a slice of theta, and not a constant of the network.
    parameter_derivative : rule ``(z, p)`` for the derivative with respect to a learnable parameter.
    float32_worst : pairs (argument, error in ulp of float32), of value and of derivative, where the float64 rule rounded
        to float32 was seen to err most.
    """

    name: str
    expression: Callable[..., Array]
    value: Callable[..., float]
    derivative: Callable[..., float]
    second_derivative: Callable[..., float] | None = None
    value_ulp: float = 4.0
    derivative_ulp: float = 4.0
    second_derivative_ulp: float = 8.0
    known_values: tuple[tuple[float, float, float], ...] = ()
    source: str = ""
    domain: tuple[float, float] = (-math.inf, math.inf)
    kinks: tuple[float, ...] = ()
    range: tuple[float, float] = (-math.inf, math.inf)
    parameter: str | None = None
    start: float = 0.0
    is_learnable: bool = False
    parameter_derivative: Callable[[float, float], float] | None = None
    float32_worst: tuple[tuple[float, float], ...] = ()


def identity_value(z: float) -> float:
    return z


def identity_derivative(z: float) -> float:
    return 1.0


def sigmoid_value(z: float) -> float:
    tail = math.exp(-abs(z))
    return (1.0 if z >= 0 else tail) / (1.0 + tail)


def sigmoid_derivative(z: float) -> float:
    """Even in z; the textbook a (1 - a) cancels for large z."""
    tail = math.exp(-abs(z))
    return tail / ((1.0 + tail) * (1.0 + tail))


def tanh_value(z: float) -> float:
    return math.tanh(z)


def tanh_derivative(z: float) -> float:
    """1 / cosh(z)**2 by exp; the textbook 1 - a**2 loses every digit once a rounds to 1."""
    tail = math.exp(-2.0 * abs(z))
    return 4.0 * tail / ((1.0 + tail) * (1.0 + tail))


def relu_value(z: float) -> float:
    """NaN stays NaN."""
    return 0.0 if z <= 0 else z


def relu_derivative(z: float) -> float:
    return 0.0 if z <= 0 else 1.0


def softplus_value(z: float) -> float:
    return (z if z > 0 else 0.0) + math.log1p(math.exp(-abs(z)))


_ROWS = (
    Activation(
        "identity",
        expression=lambda m, z: z,
        value=identity_value,
        derivative=identity_derivative,
        max_curvature=0.0,
        value_ulp=0.0,
        derivative_ulp=0.0,
        known_values=((-2.0, -2.0, 1.0), (0.5, 0.5, 1.0)),
        source="definition",
    ),
    Activation(
        "sigmoid",
        expression=lambda m, z: m.expit(z),
        value=sigmoid_value,
        derivative=sigmoid_derivative,
        max_curvature=1 / (6 * math.sqrt(3)),
        relative_curvature=1.0,
        value_ulp=2.5,
        derivative_ulp=4.0,
        known_values=((0.0, 0.5, 0.25), (math.log(3.0), 0.75, 0.1875)),
        source="Rumelhart, Hinton, Williams 1986; lecture notes 002 (Winovich 2018), slide 15",
        domain=(-708.0, 708.0),
    ),
    Activation(
        "tanh",
        expression=lambda m, z: m.tanh(z),
        value=tanh_value,
        derivative=tanh_derivative,
        max_curvature=4 / (3 * math.sqrt(3)),
        relative_curvature=2.0,
        value_ulp=2.5,
        derivative_ulp=4.0,
        known_values=((0.0, 0.0, 1.0), (math.log(2.0), 0.6, 0.64)),
        source="lecture notes 002 (Winovich 2018), slide 15",
        domain=(-354.0, 354.0),
    ),
    Activation(
        "relu",
        expression=lambda m, z: m.positive_part(z),
        value=relu_value,
        derivative=relu_derivative,
        max_curvature=0.0,
        value_ulp=0.0,
        derivative_ulp=0.0,
        known_values=((-1.0, 0.0, 0.0), (0.0, 0.0, 0.0), (2.0, 2.0, 1.0)),
        source="lecture notes 002 (Winovich 2018), slide 14; relu'(0) = 0 by convention",
        kinks=(0.0,),
    ),
    Activation(
        "softplus",
        expression=lambda m, z: m.log1pexp(z),
        value=softplus_value,
        derivative=sigmoid_value,
        max_curvature=0.25,
        relative_curvature=1.0,
        value_ulp=2.0,
        derivative_ulp=2.5,
        known_values=((0.0, math.log(2.0), 0.5), (math.log(3.0), math.log(4.0), 0.75)),
        source="Dugas et al. 2001, ln(1 + exp(z)); lecture notes 002, slide 14, print ln(1 + exp(-z)), which is a slip",
        domain=(-708.0, math.inf),
    ),
)

ACTIVATIONS = {row.name: row for row in _ROWS}
