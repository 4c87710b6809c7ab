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

MAX_ONE_SIDED_WORK = 2_000_000
"""Entries times samples at kinks times parameters, a few seconds' worth; beyond it the hull of all slopes must do."""

ROUNDED, ENCLOSED, KINK = "rounded", "enclosed", "kink"
"""Entry statuses: the nearest float64 is proven; only an interval is; a kink has a say in the derivative."""


@dataclass(frozen=True)
class Enclosure:
    """A certified value and gradient.

    Attributes
    ----------
    net : the network.
    value, value_lower, value_upper : the float64 nearest to the loss, and proven bounds of it.
    gradient : (n_params,) float64, nearest to the true derivatives where ``status`` is ``"rounded"``.
    residual : (n_params,) float64, middle of the enclosure minus ``gradient``.
    lower, upper : (n_params,) float64, proven bounds of the true derivatives; at a kink, of both one-sided ones.
        There ``gradient`` takes the left slope at every kink, which need not be the left derivative nor lie between
        the bounds where several kinks meet.
    status : (n_params,) of ``"rounded"``, ``"enclosed"`` or ``"kink"``.
    bits : working precision that was needed.
    """

    net: MLP
    value: float
    value_lower: float
    value_upper: float
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
        if not isinstance(self.max_bits, int) or not FIRST_BITS <= self.max_bits <= 2**24:
            raise ValueError(f"max_bits must be {FIRST_BITS} or more, and an integer, got {self.max_bits!r}")

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
        if not all(np.isfinite(a).all() for a in (arguments.theta, arguments.x, arguments.y)):
            return _nothing_known(self.net)
        unknown = _nothing_known(self.net)
        made = self._doubling(lambda bits: _enclosure(self.net, arguments, bits), unknown)
        if made is unknown:
            return made
        with ball_precision(made.bits):
            return _with_one_sided(made, arguments)

    def _doubling(self, evaluate: Callable[[int], tuple[Any, bool]], unknown: Any) -> Any:
        """The first result that is final, or that of the highest precision.

        Arb refuses a quotient of series whose denominator's ball reaches 0: at that precision nothing is known.
        """
        bits = FIRST_BITS
        while True:
            with ball_precision(bits):
                try:
                    made, is_final = evaluate(bits)
                except (ValueError, ZeroDivisionError):
                    made, is_final = unknown, False
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

        return self._doubling(evaluate, np.nan)

    def predicted_error(self, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """One rounding of each entry, or two where a float32 was asked for."""
        _, gradient = self.value_and_gradient(theta, x, y)
        return np.spacing(np.abs(gradient)).astype(np.float64)


def _enclosure(net: MLP, arguments: Arguments, bits: int) -> tuple[Enclosure, bool]:
    """The enclosure at the working precision, and whether value and entries are as good as they can get."""
    theta, x, y = (BALLS.array(a) for a in (arguments.theta, arguments.x, arguments.y))
    made = values(net.program, BALLS, theta, x, y)
    value = made[-1].sum() / divisor(net.program, len(x))
    gradient = reverse_sweep(net, theta, made, SERIES)
    nearest, lower, upper, unique = _bounds(gradient)
    status = np.where(unique, ROUNDED, ENCLOSED)
    if _rows_at_kinks(net, made).any():
        _, lower, upper, certain = _bounds(reverse_sweep(net, theta, made, SERIES_BOTH_SIDES))
        status[unique & ~certain] = KINK
    residual = np.array([float(g - n) for g, n in zip(gradient, nearest.tolist(), strict=True)])
    is_final = bool((status != ENCLOSED).all()) and _rounds_uniquely(value)
    ends = _outward(value.lower(), -np.inf), _outward(value.upper(), np.inf)
    return Enclosure(net, float(value.mid()), *ends, nearest, residual, lower, upper, status, bits), is_final


def _nothing_known(net: MLP) -> Enclosure:
    """What can be said of a gradient at numbers that are not finite."""
    unknown, everything = np.full(net.n_params, np.nan), np.full(net.n_params, np.inf)
    status = np.full(net.n_params, ENCLOSED)
    return Enclosure(net, np.nan, -np.inf, np.inf, unknown, unknown, -everything, everything, status, 0)


def _with_one_sided(made: Enclosure, arguments: Arguments) -> Enclosure:
    """Entries at a kink with the bounds of their two one-sided derivatives, where that is worth the work.

    Only the samples that meet a kink need the primal in series to either side of each entry; the others have one
    derivative, whatever the entry.
    """
    net, torn = made.net, np.flatnonzero(made.status == KINK)
    if not len(torn):
        return made
    theta, x, y = (BALLS.array(a) for a in (arguments.theta, arguments.x, arguments.y))
    all_values = values(net.program, BALLS, theta, x, y)
    at_kink, parts = _rows_at_kinks(net, all_values), divisor(net.program, len(x))
    if len(torn) * at_kink.sum() * net.n_params > MAX_ONE_SIDED_WORK:
        return made
    smooth = reverse_sweep(net, theta, [value[~at_kink] for value in all_values], SERIES, parts)
    for i in torn:
        slopes = np.array(
            [smooth[i] + _slope(net, theta, x[at_kink], y[at_kink], int(i), side) / parts for side in (-1, 1)]
        )
        _, lower, upper, _ = _bounds(slopes)
        made.lower[i], made.upper[i] = lower.min(), upper.max()
    return made


def _slope(net: MLP, theta: Array, x: Array, y: Array, i: int, side: int) -> Any:
    """The derivative of the sum of losses along entry ``i`` to one side, by the primal in series."""
    tangent = np.zeros(len(theta), object)
    tangent[i] = side
    losses = values(net.program, SERIES_AHEAD, SERIES_AHEAD.line(theta, tangent), x, y)[-1]
    return side * coefficient(losses, 1).sum()


def _rows_at_kinks(net: MLP, made: list[Array]) -> np.ndarray:
    """Which samples have a pre-activation that is exactly a kink of its activation, (batch,) bool."""
    found = np.zeros(len(made[0]), bool)
    for instruction in net.program.instructions:
        if instruction.operation == "activation":
            z = made[instruction.inputs[0]]
            for kink in ACTIVATIONS[str(instruction.function)].kinks:
                found |= np.frompyfunc(lambda ball, at=kink: (ball - at).is_zero(), 1, 1)(z).astype(bool).any(axis=1)
    return found


def reverse_sweep(net: MLP, theta: Array, made: list[Array], series: Series, parts: int | None = None) -> Array:
    """Balls of the gradient, shape (n_params,), from the balls of all values of the program.

    ``parts`` is what the sum of the losses is divided by, if ``made`` is not the whole batch.
    """
    program = net.program
    parts = parts or divisor(program, len(made[-1]))
    gradient = BALLS.array(np.zeros(net.n_params))
    cotangents: list[Any] = [0] * len(made)
    cotangents[-1] = BALLS.array(np.ones(len(made[-1]))) / parts
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
