"""The truth: a reverse sweep in ball arithmetic whose every entry is a proven enclosure.

Element-wise derivatives are coefficients of Arb power series of the defining expression; the only rules written by
hand are the adjoints of linear algebra in ``_RULES``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from difflab.backends.arguments import Arguments, checked
from difflab.backends.contract import Backend, Prepared
from difflab.network import MLP
from difflab.number_systems import (
    BALLS,
    SERIES,
    SERIES_AHEAD,
    SERIES_BOTH_SIDES,
    Array,
    Series,
    ball_precision,
    coefficient,
)
from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.losses import LOSSES
from difflab.program import INPUTS, Instruction, divisor, primal, values


FIRST_BITS = 128
MAX_BITS = 2**14

MAX_ONE_SIDED = 200
"""Entries at a kink beyond which their one-sided derivatives are bounded together, not computed one by one."""

ROUNDED, ENCLOSED, KINK = "rounded", "enclosed", "kink"
"""Entry statuses: the nearest float64 is proven; only an interval is; the two one-sided derivatives differ."""


@dataclass(frozen=True)
class Enclosure:
    """A certified value and gradient.

    Attributes
    ----------
    net : the network.
    value : the float64 nearest to the loss.
    gradient : (n_params,) float64, nearest to the true derivatives where ``status`` is ``"rounded"``.
    residual : (n_params,) float64, true derivative minus ``gradient``, to about 53 bits of its own.
    lower, upper : (n_params,) float64, proven bounds of the true derivatives; at a kink, of both one-sided ones,
        while ``gradient`` follows the convention of left slopes.
    status : (n_params,) of ``"rounded"``, ``"enclosed"`` or ``"kink"``.
    bits : working precision that was needed.
    """

    net: MLP
    value: float
    gradient: np.ndarray
    residual: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    status: np.ndarray
    bits: int


@dataclass(frozen=True, repr=False)
class Certified(Backend):
    """Reverse sweep in Arb balls, precision doubled until every entry rounds to a unique float64.

    Parameters
    ----------
    max_bits : the precision at which entries that are still ambiguous are left ``"enclosed"``
    """

    max_bits: int = MAX_BITS
    name = "certified"

    def __post_init__(self) -> None:
        if self.max_bits < FIRST_BITS:
            raise ValueError(f"max_bits must be {FIRST_BITS} or more, got {self.max_bits}")

    def _prepare(self, net: MLP) -> PreparedCertified:
        return PreparedCertified(net, self)


class PreparedCertified(Prepared):
    """Nothing to do in advance; accepts float64 and float32, which are exact rationals."""

    backend: Certified

    def __init__(self, net: MLP, backend: Certified) -> None:
        super().__init__(net, backend, ("float64", "float32"))
        self.facts["primal_calls"] = 1

    def enclose(self, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> Enclosure:
        """The certified value and gradient; arguments as for ``value_and_gradient``."""
        return self._enclose(checked(self.net, theta, x, y, self.dtypes))

    def _enclose(self, arguments: Arguments) -> Enclosure:
        if any(np.isnan(a).any() for a in (arguments.theta, arguments.x, arguments.y)):
            return _nothing_known(self.net)
        return self._doubling(lambda bits: _enclosure(self.net, arguments, bits))

    def _doubling(self, evaluate: Callable[[int], tuple[Any, bool]]) -> Any:
        """The first result that is final, or that of the highest precision."""
        bits = FIRST_BITS
        while True:
            with ball_precision(bits):
                made, is_final = evaluate(bits)
            if is_final or bits >= self.backend.max_bits:
                return made
            bits = min(2 * bits, self.backend.max_bits)

    def _value_and_gradient(self, arguments: Arguments) -> float:
        made = self._enclose(arguments)
        arguments.out[:] = made.gradient
        return made.value

    def _value(self, arguments: Arguments) -> float:
        def evaluate(bits: int) -> tuple[float, bool]:
            balls = (BALLS.array(a) for a in (arguments.theta, arguments.x, arguments.y))
            value = primal(self.net.program, BALLS, *balls)
            return float(value.mid()), _rounds_uniquely(value)

        return self._doubling(evaluate)

    def predicted_error(self, theta: np.ndarray, x: np.ndarray, value: float, gradient: np.ndarray) -> float:
        """Half an ulp in each entry."""
        return float(np.finfo(gradient.dtype).eps) / 2


def _enclosure(net: MLP, arguments: Arguments, bits: int) -> tuple[Enclosure, bool]:
    """The enclosure at the working precision, and whether value and entries are as good as they can get."""
    theta, x, y = (BALLS.array(a) for a in (arguments.theta, arguments.x, arguments.y))
    made = values(net.program, BALLS, theta, x, y)
    value = made[-1].sum() / divisor(net.program, len(x))
    gradient = reverse_sweep(net, theta, made, SERIES)
    nearest, lower, upper, unique = _bounds(gradient)
    status = np.where(unique, ROUNDED, ENCLOSED)
    if _meets_kink(net, made):
        _, lower, upper, certain = _bounds(reverse_sweep(net, theta, made, SERIES_BOTH_SIDES))
        torn = np.flatnonzero(unique & ~certain)
        status[torn] = KINK
        for i in torn if len(torn) <= MAX_ONE_SIDED else ():
            lower[i], upper[i], known = _one_sided(net, theta, x, y, int(i))
            status[i] = KINK if known else ENCLOSED
    residual = np.array([float(g - n) for g, n in zip(gradient, nearest.tolist(), strict=True)])
    is_final = bool((status != ENCLOSED).all()) and _rounds_uniquely(value)
    return Enclosure(net, float(value.mid()), nearest, residual, lower, upper, status, bits), is_final


def _nothing_known(net: MLP) -> Enclosure:
    """What can be said of a gradient at NaN."""
    unknown, everything = np.full(net.n_params, np.nan), np.full(net.n_params, np.inf)
    status = np.full(net.n_params, ENCLOSED)
    return Enclosure(net, np.nan, unknown, unknown, -everything, everything, status, 0)


def _one_sided(net: MLP, theta: Array, x: Array, y: Array, i: int) -> tuple[float, float, bool]:
    """Bounds of the left and the right derivative along entry ``i``, by the primal in series to either side.

    The third result says whether both derivatives round uniquely.
    """
    slopes = []
    for sign in (-1, 1):
        tangent = np.zeros(len(theta), object)
        tangent[i] = sign
        ahead = primal(net.program, SERIES_AHEAD, SERIES_AHEAD.line(theta, tangent), x, y)
        slopes.append(sign * ahead[1])
    _, lower, upper, unique = _bounds(np.array(slopes, object))
    return float(lower.min()), float(upper.max()), bool(unique.all())


def _meets_kink(net: MLP, made: list[Array]) -> bool:
    """Whether some pre-activation is exactly a kink of its activation."""
    for instruction in net.program.instructions:
        if instruction.operation == "activation":
            for kink in ACTIVATIONS[str(instruction.function)].kinks:
                if any((z - kink).is_zero() for z in made[instruction.inputs[0]].flat):
                    return True
    return False


def reverse_sweep(net: MLP, theta: Array, made: list[Array], series: Series) -> Array:
    """Balls of the gradient, shape (n_params,), from the balls of all values of the program."""
    program = net.program
    gradient = BALLS.array(np.zeros(net.n_params))
    cotangents: list[Any] = [0] * len(made)
    cotangents[-1] = BALLS.array(np.ones(len(made[-1]))) / divisor(program, len(made[-1]))
    for number, instruction in reversed(list(enumerate(program.instructions, 2))):
        rule = _RULES[instruction.operation]
        rule(instruction, theta, made, cotangents, cotangents[number], gradient, series)
    return gradient


def _affine(
    instruction: Instruction,
    theta: Array,
    made: list,
    cotangents: list,
    z_bar: Array,
    gradient: Array,
    series: Series,
) -> None:
    """W_bar += z_bar^T a, b_bar += sum of z_bar, a_bar += z_bar W."""
    weight, bias = instruction.parameters
    source = instruction.inputs[0]
    weight.of(gradient)[...] += BALLS.matmul(z_bar.T, made[source])
    bias.of(gradient)[...] += z_bar.sum(axis=0)
    if source != INPUTS:
        cotangents[source] = cotangents[source] + BALLS.matmul(z_bar, weight.of(theta))


def _activation(
    instruction: Instruction,
    theta: Array,
    made: list,
    cotangents: list,
    a_bar: Array,
    gradient: Array,
    series: Series,
) -> None:
    source = instruction.inputs[0]
    z = made[source]
    expression = ACTIVATIONS[str(instruction.function)].expression
    slope = coefficient(expression(series, series.line(z, np.ones(z.shape, object))), 1)
    cotangents[source] = cotangents[source] + a_bar * slope


def _loss(
    instruction: Instruction,
    theta: Array,
    made: list,
    cotangents: list,
    bar: Array,
    gradient: Array,
    series: Series,
) -> None:
    """One power series per output: the loss along each axis of z."""
    source, target = instruction.inputs
    z, y = made[source], made[target]
    expression = LOSSES[str(instruction.function)].expression
    slopes = np.empty(z.shape, object)
    for k in range(z.shape[1]):
        axis = np.zeros(z.shape, object)
        axis[:, k] = 1
        slopes[:, k] = coefficient(expression(series, series.line(z, axis), y), 1)
    cotangents[source] = cotangents[source] + slopes * bar[:, None]


_RULES: dict[str, Callable[..., None]] = {"affine": _affine, "activation": _activation, "loss": _loss}


def _bounds(balls: Array) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Nearest float64, float64 bounds, and whether the whole ball rounds to the nearest; each (n,)."""
    nearest = np.array([float(ball.mid()) for ball in balls])
    below = [ball.lower() for ball in balls]
    above = [ball.upper() for ball in balls]
    lower = np.array([_outward(end, -np.inf) for end in below])
    upper = np.array([_outward(end, np.inf) for end in above])
    unique = np.array([float(lo) == float(hi) for lo, hi in zip(below, above, strict=True)])
    return nearest, lower, upper, unique


def _rounds_uniquely(ball: Any) -> bool:
    return float(ball.lower()) == float(ball.upper())


def _outward(end: Any, direction: float) -> float:
    """The nearest float64 that is not inside of an interval's end."""
    from flint import arb

    rounded = float(end)
    inside = arb(rounded) > end if direction < 0 else arb(rounded) < end
    return float(np.nextafter(rounded, direction)) if inside else rounded
