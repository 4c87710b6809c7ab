"""a = f(z; p), entry by entry; p is a constant of the network, one learnable number, or one for each unit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from difflab.number_systems import BALLS, Array, NumberSystem, Series, ball_precision, coefficient
from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.operations.instruction import Instruction
from difflab.primitives.operations.operation import Bars, Operation
from difflab.primitives.rounded import DOUBLE, RULE_ROUNDINGS, SLACK, Arithmetic, Rounded, Sum
from difflab.primitives.rules import rule_operations


HULL_BITS = 96
"""Room for a float64 and the ends of the interval around it."""

FAR = 1e100
"""Beyond the domain of rules, and further from 0 than this, nothing is said of them."""

TO_FLOAT32 = 2.0 ** (1074 - 149)
"""From the smallest number of float64 to that of float32."""


def _row(instruction: Instruction) -> Any:
    return ACTIVATIONS[str(instruction.function)]


def _primal(m: NumberSystem, instruction: Instruction, inputs: list[Array], parameters: list[Array]) -> Array:
    row = _row(instruction)
    if row.parameter is None:
        return row.expression(m, inputs[0])
    return row.expression(m, inputs[0], parameters[0] if parameters else m.array(np.array(instruction.constants)))


def _operations(instruction: Instruction, widths: tuple[int, ...]) -> tuple[int, int]:
    row, width = _row(instruction), instruction.width
    reverse = rule_operations(row.derivative) + 1
    if instruction.parameters:
        reverse += rule_operations(row.parameter_derivative) + 1
    return width * rule_operations(row.value), width * reverse


@dataclass(frozen=True)
class _Slopes:
    """What the derivative does between all numbers that an argument may be, in truth or for the arithmetic.

    Attributes
    ----------
    steepest, most_curved : bounds on the magnitudes of the first and the second derivative.
    width : of an interval that holds the first derivative.
    parameter_width : likewise for the derivative with respect to the parameter.
    """

    steepest: np.ndarray
    most_curved: np.ndarray
    width: np.ndarray
    parameter_width: np.ndarray


_KNOWN: WeakKeyDictionary[Rounded, tuple[Instruction, _Slopes]] = WeakKeyDictionary()
"""What the forward pass has found, for the reverse pass."""


def _slopes(instruction: Instruction, z: Rounded, parameters: list[Rounded]) -> _Slopes:
    known = _KNOWN.get(z)
    if known is None or known[0] is not instruction:
        known = _KNOWN[z] = instruction, _found_slopes(instruction, z, parameters)
    return known[1]


def _found_slopes(instruction: Instruction, z: Rounded, parameters: list[Rounded]) -> _Slopes:
    """Power series of the expression at wide balls; where Arb refuses or overflows, nothing is known."""
    if not (z.around.any() or z.arithmetic.textbook):
        return _Slopes(*np.zeros((4, *z.shape)))
    p = [np.broadcast_to(q.middle, z.shape)[..., None] for q in parameters]
    arguments = np.concatenate([z.middle[..., None], z.around[..., None], *p], axis=-1).reshape(-1, 2 + len(p))
    with ball_precision(HULL_BITS, order=2):
        try:
            found = _figures(instruction, arguments)
        except (ValueError, ZeroDivisionError):
            found = np.concatenate([_figures_or_nothing(instruction, one[None]) for one in arguments])
    found = np.where(np.isnan(found), np.inf, found * SLACK + DOUBLE.smallest * (found > 0))
    return _Slopes(*(column.reshape(z.shape) for column in found.T))


def _figures_or_nothing(instruction: Instruction, arguments: np.ndarray) -> np.ndarray:
    try:
        return _figures(instruction, arguments)
    except (ValueError, ZeroDivisionError):
        return np.full((1, 4), np.inf)


def _figures(instruction: Instruction, arguments: np.ndarray) -> np.ndarray:
    """For each row of middle, distance and parameter, the four figures of :class:`_Slopes`."""
    middle, distance = arguments[:, 0], arguments[:, 1]
    is_bounded = np.isfinite(middle) & np.isfinite(distance)
    figures = np.full((len(arguments), 4), np.inf)
    if not is_bounded.any():
        return figures
    balls = _balls(middle[is_bounded], distance[is_bounded])
    ones, p = np.ones(len(balls), object), [BALLS.array(q[is_bounded]) for q in arguments.T[2:]]
    series = Series()
    along = _primal(series, instruction, [series.line(balls, ones)], [series.array(q) for q in p])
    bends = _magnitudes(2 * coefficient(along, 2))
    slopes = coefficient(along, 1)
    figures[is_bounded, :3] = np.stack([_magnitudes(slopes), bends, _widths(slopes)], axis=1)
    figures[is_bounded, 3] = 0.0
    if p:
        moved = _primal(series, instruction, [series.array(balls)], [series.line(p[0], ones)])
        figures[is_bounded, 3] = _widths(coefficient(moved, 1))
    return figures


def _balls(middle: np.ndarray, distance: np.ndarray) -> Array:
    """Balls around all numbers within such a distance."""
    ends = (np.where(distance > 0, np.nextafter(middle + s * distance, s * np.inf), middle) for s in (-1, 1))
    return np.frompyfunc(lambda low, high: low.union(high), 2, 1)(*map(BALLS.array, ends))


def _magnitudes(balls: Array) -> np.ndarray:
    return np.array([float(ball.abs_upper()) for ball in balls])


def _widths(balls: Array) -> np.ndarray:
    return np.array([2 * float(ball.rad()) for ball in balls])


def _evaluated(rule: Any, instruction: Instruction, z: Rounded, parameters: list[Rounded]) -> np.ndarray:
    """A scalar rule at the middle of every entry, with the parameter of its unit."""
    middle = np.where(np.isfinite(z.middle), z.middle, 0.0)
    if _row(instruction).parameter is None:
        found = np.frompyfunc(rule, 1, 1)(middle)
    else:
        found = np.frompyfunc(rule, 2, 1)(middle, _parameter(instruction, parameters))
    return np.where(np.isfinite(z.middle), found.astype(np.float64), np.nan)


def _parameter(instruction: Instruction, parameters: list[Rounded]) -> Any:
    return parameters[0].middle if parameters else instruction.constants[0]


def _runs_there(instruction: Instruction, by: Arithmetic) -> bool:
    """Whether the rules run in the arithmetic itself, and not in float64."""
    return by.has_rules and _row(instruction).float32_domain is not None


def _by_rule(instruction: Instruction, ulp: float, numbers: Rounded, z: Rounded, parameters: list[Rounded]) -> Rounded:
    """Numbers that a scalar rule gives, in truth and for the arithmetic to within its bound in ulp.

    A rule in float64 is followed by one rounding to the format; one in the format has its constant rounded to that.
    """
    by, row = z.arithmetic, _row(instruction)
    beyond = _beyond(instruction, row.domain, row.beyond_domain, z, parameters) if by.own_unit else 0.0
    doubt = ulp * (2 * by.own_unit * numbers.reach + by.own_smallest) + beyond
    if not _runs_there(instruction, by):
        return _stored(replace(numbers, doubt=numbers.doubt + doubt, error=numbers.error + doubt).rounded(False))
    assert row.float32_domain is not None
    beyond = _beyond(instruction, row.float32_domain, row.beyond_domain * TO_FLOAT32, z, parameters)
    of_constant = by.unit * (row.parameter is not None) * numbers.reach
    error = ulp * (2 * by.unit * numbers.reach + by.smallest) + of_constant + beyond
    return replace(numbers, doubt=numbers.doubt + doubt, error=numbers.error + error).rounded(False)


def _beyond(
    instruction: Instruction, domain: tuple[float, float], limit: float, z: Rounded, parameters: list[Rounded]
) -> np.ndarray:
    """How far rules may be off for arguments that are not all in their domain; 0 for those that are."""
    row, p = _row(instruction), 0.0
    ends = [z.middle + sign * z.around * SLACK for sign in (-1, 1)]
    is_inside = (ends[0] >= domain[0]) & (ends[1] <= domain[1])
    if row.parameter is not None:
        p = _parameter(instruction, parameters)
        is_inside &= np.minimum(p * ends[0], p * ends[1]) >= domain[0]
        is_inside &= np.maximum(p * ends[0], p * ends[1]) <= domain[1]
    far = (z.reach <= FAR) & (np.abs(p) <= FAR)
    beyond = np.where(far, limit * (1 + z.reach) * (1 + np.abs(p)), np.inf)
    return np.where(is_inside, 0.0, beyond)


def _stored(numbers: Rounded) -> Rounded:
    """Rounded once from float64 to the format of the arithmetic."""
    by = numbers.arithmetic
    if not by.stored:
        return numbers
    rounded = replace(numbers, arithmetic=replace(by, unit=by.stored)).rounded(~numbers.is_zero)
    return replace(rounded, arithmetic=by)


def _forward_error(instruction: Instruction, inputs: list[Rounded], parameters: list[Rounded]) -> Rounded:
    (z,), row, slopes = inputs, _row(instruction), _slopes(instruction, inputs[0], parameters)
    middle, height = _evaluated(row.value, instruction, z, parameters), row.range[1] - row.range[0]
    moved = [np.fmin(_times(slopes.steepest, by), height) for by in (z.doubt, z.error)]
    value = _by_rule(instruction, row.value_ulp, Rounded(z.arithmetic, middle, *moved), z, parameters)
    return value.blurred(RULE_ROUNDINGS * (value.size + _subtracted(instruction, parameters)))


def _times(slope: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """What is at no distance is the same, however steep."""
    return np.where(distance > 0, slope * distance * SLACK, 0.0)


def _subtracted(instruction: Instruction, parameters: list[Rounded]) -> Any:
    """The size of numbers that a textbook formula subtracts; 1 stands for tails like 1 - a**2 or log(1 + exp(z))."""
    return np.maximum(1.0, np.abs(parameters[0].middle if parameters else 1.0))


def _reverse_error(
    instruction: Instruction, inputs: list[Rounded], parameters: list[Rounded], value: Rounded, bar: Rounded
) -> Bars:
    (z,), row, slopes = inputs, _row(instruction), _slopes(instruction, inputs[0], parameters)
    is_kinked = np.any([np.abs(z.middle - kink) <= z.around * SLACK for kink in row.kinks], axis=0)
    moved = [_change(slopes, is_kinked, by) for by in (z.doubt, z.error)]
    middle = _evaluated(row.derivative, instruction, z, parameters)
    slope = _by_rule(instruction, row.derivative_ulp, Rounded(z.arithmetic, middle, *moved), z, parameters)
    blur = slope.size + _subtracted(instruction, parameters) + slopes.most_curved * z.size
    z_bar = bar * slope.blurred(RULE_ROUNDINGS * blur)
    return Bars([z_bar], [_parameter_sums(instruction, z, slopes, parameters, bar)] if parameters else [])


def _change(slopes: _Slopes, is_kinked: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Of the derivative over such a distance, by the mean value theorem where there is no kink."""
    bent = np.where(is_kinked, np.inf, _times(slopes.most_curved, distance))
    return np.where(distance > 0, np.fmin(bent, slopes.width), 0.0)


def _parameter_sums(
    instruction: Instruction, z: Rounded, slopes: _Slopes, parameters: list[Rounded], bar: Rounded
) -> Sum:
    row = _row(instruction)
    middle = _evaluated(row.parameter_derivative, instruction, z, parameters)
    moved = [np.where(by > 0, slopes.parameter_width, 0.0) for by in (z.doubt, z.error)]
    slope = _by_rule(instruction, row.parameter_derivative_ulp, Rounded(z.arithmetic, middle, *moved), z, parameters)
    terms = bar * slope.blurred(RULE_ROUNDINGS * (slope.size + _subtracted(instruction, parameters)))
    return terms.summands(axis=0) if len(parameters[0].middle) > 1 else terms.reshape(-1, 1).summands(axis=0)


def _kinks(instruction: Instruction, inputs: list[Array], parameters: list[Array]) -> list[Array]:
    return [inputs[0] - kink for kink in _row(instruction).kinks]


ACTIVATION = Operation("activation", _primal, "entry", _operations, _forward_error, _reverse_error, _kinks)
