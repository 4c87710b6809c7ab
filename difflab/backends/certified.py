"""The truth: a reverse sweep in ball arithmetic whose every entry is a proven enclosure.

Element-wise derivatives are coefficients of Arb power series of the defining expression; the only rules written by
hand are the adjoints of linear algebra in ``_RULES``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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
from difflab.primitives.operations import INPUTS, OPERATIONS, Instruction
from difflab.primitives.operations.penalty import penalty_terms
from difflab.program import Program, primal, total, values


FIRST_BITS = 128
MAX_BITS = 2**14

MAX_ONE_SIDED_WORK = 2_000_000
"""Entries times samples at kinks times parameters, a few seconds' worth; beyond it the hull of all slopes must do."""

ROUNDED, ENCLOSED, KINK = "rounded", "enclosed", "kink"
"""Entry statuses: the nearest float64 is proven; only an interval is; a kink has a say in the derivative.

A rational derivative half-way between two floats stays enclosed between them at any precision."""


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
        _, gradient = self.value_and_gradient(theta, x, y, allow_nonfinite=True)
        return np.spacing(np.abs(gradient)).astype(np.float64)


def _enclosure(net: MLP, arguments: Arguments, bits: int) -> tuple[Enclosure, bool]:
    """The enclosure at the working precision, and whether value and entries are as good as they can get."""
    theta, x, y = (BALLS.array(a) for a in (arguments.theta, arguments.x, arguments.y))
    made = values(net.program, BALLS, theta, x, y)
    value = total(net.program, BALLS, made)
    series = Series()
    gradient = reverse_sweep(net.program, theta, made, series)
    nearest, lower, upper, unique = _bounds(gradient)
    status = np.where(unique, ROUNDED, ENCLOSED)
    if series.met_tie:
        _, lower, upper, certain = _bounds(reverse_sweep(net.program, theta, made, SERIES_BOTH_SIDES))
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
    program = net.program
    theta, x, y = (BALLS.array(a) for a in (arguments.theta, arguments.x, arguments.y))
    all_values = values(program, BALLS, theta, x, y)
    at_kink, parts = _samples_at_kinks(program, theta, all_values), program.divisor(len(x))
    if len(torn) * max(at_kink.sum(), 1) * net.n_params > MAX_ONE_SIDED_WORK:
        return made
    given = [value[at_kink] for value in all_values[: program.n_given]]
    smooth = reverse_sweep(program, theta, _of_samples(program, all_values, ~at_kink), SERIES, parts, with_totals=False)
    for i in torn:
        slopes = np.array([smooth[i] + _slope(program, theta, given, parts, int(i), side) for side in (-1, 1)])
        _, lower, upper, _ = _bounds(slopes)
        made.lower[i], made.upper[i] = lower.min(), upper.max()
    return made


def _of_samples(program: Program, made: list[Array], which: np.ndarray) -> list[Array]:
    """All values of some of the samples; totals are of no sample."""
    return [value if number in program.totals else value[which] for number, value in enumerate(made)]


def _slope(program: Program, theta: Array, given: list[Array], parts: int, i: int, side: int) -> Any:
    """The derivative along entry ``i`` to one side, of the totals and of the samples given, by the primal in series."""
    tangent = np.zeros(len(theta), object)
    tangent[i] = side
    line = SERIES_AHEAD.line(theta, tangent)
    slope = sum((_primal_of_total(program, number, line)[1] for number in program.totals), start=0)
    x, y, *masks = (_line(SERIES_AHEAD, value, 0) for value in given)
    if len(x):
        losses = values(program, SERIES_AHEAD, line, x, y, masks)[program.losses]
        slope = slope + coefficient(losses, 1).sum() / parts
    return side * slope


def _primal_of_total(program: Program, number: int, line: Array) -> Any:
    step = program.instructions[number - program.n_given]
    return OPERATIONS[step.operation].primal(
        SERIES_AHEAD, step, [], [parameter.of(line) for parameter in step.parameters]
    )


def _samples_at_kinks(program: Program, theta: Array, made: list[Array]) -> np.ndarray:
    """Which samples may meet a kink, (batch,) bool: all of them, if they are coupled or nothing tells which."""
    found, has_total = np.zeros(len(made[INPUTS]), bool), False
    for step in program.instructions:
        row, parameters = OPERATIONS[step.operation], [parameter.of(theta) for parameter in step.parameters]
        for distance in row.kinks(step, [made[i] for i in step.inputs], parameters):
            is_zero = np.frompyfunc(lambda ball: ball.is_zero(), 1, 1)(distance).astype(bool)
            if row.is_total:
                has_total |= bool(is_zero.any())
            else:
                found |= is_zero.any(axis=1)
    unknown = not (has_total or found.any()) or (program.couples_samples and found.any())
    return np.ones(len(found), bool) if unknown else found


@dataclass
class _Sweep:
    """A reverse sweep under way: what it reads, and the cotangents and the gradient so far."""

    program: Program
    theta: Array
    made: list[Array]
    series: Series
    cotangents: list[Any]
    gradient: Array
    centred: frozenset[int]

    def add(self, value: int, bar: Array) -> None:
        """Add to the cotangent of a value; given values need none."""
        if value >= self.program.n_given:
            self.cotangents[value] = self.cotangents[value] + bar


def reverse_sweep(
    program: Program,
    theta: Array,
    made: list[Array],
    series: Series,
    parts: int | None = None,
    with_totals: bool = True,
) -> Array:
    """Balls of the gradient, shape (n_params,), from the balls of all values of the program.

    Parameters
    ----------
    parts : what the sum of the losses is divided by, if ``made`` is not the whole batch
    with_totals : whether penalties count
    """
    batch = len(made[INPUTS])
    cotangents: list[Any] = [0] * len(made)
    gradient = BALLS.array(np.zeros(len(theta)))
    if batch:
        cotangents[program.losses] = BALLS.array(np.ones(batch)) / (parts or program.divisor(batch))
    sweep = _Sweep(program, theta, made, series, cotangents, gradient, _centred(program))
    for number, instruction in reversed(program.numbered):
        if batch if number not in program.totals else with_totals:
            _RULES.get(instruction.operation, _by_series)(sweep, instruction, number)
    return gradient


def _centred(program: Program) -> frozenset[int]:
    """Values that may be shifted by a constant over the batch without any change, as before a batch norm.

    Their cotangents sum to exactly 0 over the batch, which ball arithmetic alone could never show.
    """
    centred: set[int] = set()
    readers: dict[int, list[bool]] = {}
    for number, step in reversed(program.numbered):
        if all(readers.get(number, [False])):
            centred.add(number)
        shift = OPERATIONS[step.operation].shift
        passes_on = shift == "removed" or (shift == "passed" and number in centred)
        for value in step.inputs:
            readers.setdefault(value, []).append(passes_on)
    return frozenset(centred)


def _affine(sweep: _Sweep, instruction: Instruction, number: int) -> None:
    """W_bar += z_bar^T a, b_bar += sum of z_bar, a_bar += z_bar W."""
    (source,), (weight, *biases), z_bar = instruction.inputs, instruction.parameters, sweep.cotangents[number]
    weight.of(sweep.gradient)[...] += BALLS.matmul(z_bar.T, sweep.made[source])
    for bias in biases if number not in sweep.centred else ():
        bias.of(sweep.gradient)[...] += z_bar.sum(axis=0)
    if source >= sweep.program.n_given:
        sweep.add(source, BALLS.matmul(z_bar, weight.of(sweep.theta)))


def _penalty(sweep: _Sweep, instruction: Instruction, number: int) -> None:
    (weight,) = instruction.parameters
    line = _line(sweep.series, weight.of(sweep.theta), 1)
    weight.of(sweep.gradient)[...] += coefficient(penalty_terms(sweep.series, instruction, line), 1)


def _by_series(sweep: _Sweep, instruction: Instruction, number: int) -> None:
    """Derivatives of the primal itself, along as many lines as its reach takes."""
    row, bar, series = OPERATIONS[instruction.operation], sweep.cotangents[number], sweep.series
    inputs = [sweep.made[i] for i in instruction.inputs]
    parameters = [parameter.of(sweep.theta) for parameter in instruction.parameters]
    still = [[_line(series, array, 0) for array in arrays] for arrays in (inputs, parameters)]

    def slopes(of_parameters: bool, place: int, line: Array) -> Array:
        moved = [[*arrays] for arrays in still]
        moved[of_parameters][place] = line
        return coefficient(row.primal(series, instruction, *moved), 1)

    for place, value in enumerate(instruction.inputs):
        if value >= sweep.program.n_given:
            sweep.add(value, _ALONG[row.reach](partial(slopes, False, place), inputs[place], bar, series))
    for place, parameter in enumerate(instruction.parameters):
        is_shift = row.shift is not None and place == len(parameters) - 1
        if not (is_shift and number in sweep.centred):
            terms = (bar * slopes(True, place, _line(series, parameters[place], 1))).sum(axis=0)
            parameter.of(sweep.gradient)[...] += terms if parameter.size > 1 else terms.sum()


def _line(series: Series, array: Array, slope: int) -> Array:
    return series.line(array, np.full(array.shape, slope, object))


Slopes = Callable[[Array], Array]


def _along_entries(slopes: Slopes, value: Array, bar: Array, series: Series) -> Array:
    """All entries at once, as they do not meet."""
    return bar * slopes(_line(series, value, 1))


def _along_units(slopes: Slopes, value: Array, bar: Array, series: Series) -> Array:
    """One unit of all samples at a time; ``bar`` is (batch,) or (batch, width)."""
    found = np.empty(value.shape, object)
    for k in range(value.shape[1]):
        axis = np.zeros(value.shape, object)
        axis[:, k] = 1
        found[:, k] = _sum_over_outputs(slopes(series.line(value, axis)) * bar)
    return found


def _sum_over_outputs(terms: Array) -> Array:
    return terms if terms.ndim == 1 else terms.sum(axis=1)


def _along_samples(slopes: Slopes, value: Array, bar: Array, series: Series) -> Array:
    """One sample of all units at a time, as units do not meet."""
    found = np.empty(value.shape, object)
    for i in range(len(value)):
        axis = np.zeros(value.shape, object)
        axis[i] = 1
        found[i] = (slopes(series.line(value, axis)) * bar).sum(axis=0)
    return found


_ALONG: dict[str, Callable[[Slopes, Array, Array, Series], Array]] = {
    "entry": _along_entries,
    "sample": _along_units,
    "column": _along_samples,
}
_RULES: dict[str, Callable[[_Sweep, Instruction, int], None]] = {"affine": _affine, "penalty": _penalty}
"""Rules of linear algebra; all others are the power series of the primal."""


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
    if np.isnan(rounded):
        return direction
    inside = arb(rounded) > end if direction < 0 else arb(rounded) < end
    return float(np.nextafter(rounded, direction)) if inside else rounded
