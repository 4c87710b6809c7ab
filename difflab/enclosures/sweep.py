"""A reverse sweep in ball arithmetic: every adjoint a proven enclosure.

Element-wise derivatives are coefficients of Arb power series of the defining expression; the only rules written by
hand are the adjoints of linear algebra in ``RULES``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from difflab.enclosures.slopes import Primal, Slopes, ones
from difflab.number_systems import Array, NumberSystem, Series
from difflab.primitives.operations import OPERATIONS, Instruction
from difflab.primitives.operations.penalty import penalty_terms
from difflab.program import Program


@dataclass
class Sweep:
    """A reverse sweep: what it reads, and the cotangents and the gradient so far.

    Attributes
    ----------
    theta, made : parameters, and all values of the program, in numbers of ``slopes.system``.
    wanted : given values whose cotangents are asked for.
    cotangents : one array for each value, or None where nothing has reached it.
    gradient : (n_params,)
    centred : values whose cotangents sum to 0 over the batch.
    """

    program: Program
    theta: Array
    made: list[Array]
    slopes: Slopes
    wanted: frozenset[int]
    cotangents: list[Array]
    gradient: Array
    centred: frozenset[int]

    @property
    def system(self) -> NumberSystem:
        return self.slopes.system

    def wants(self, value: int) -> bool:
        return value >= self.program.n_given or value in self.wanted

    def add(self, value: int, bar: Array) -> None:
        """Add to the cotangent of a value, if it is wanted."""
        if self.wants(value):
            before = self.cotangents[value]
            self.cotangents[value] = bar if before is None else before + bar


def reverse_sweep(
    program: Program,
    theta: Array,
    made: list[Array],
    slopes: Slopes,
    seeds: dict[int, Array],
    with_totals: bool = True,
    wanted: frozenset[int] = frozenset(),
) -> Sweep:
    """Run the sweep down from the values that ``seeds`` gives cotangents of.

    Parameters
    ----------
    made : all values of the program, of the whole batch or of some samples
    seeds : cotangents by number of the value
    with_totals : whether penalties count
    wanted : given values whose cotangents are asked for
    """
    cotangents: list[Array] = [seeds.get(number) for number in range(len(made))]
    gradient = slopes.system.array(np.zeros(len(theta)))
    sweep = Sweep(program, theta, made, slopes, wanted, cotangents, gradient, _centred(program))
    for number, instruction in reversed(program.numbered):
        is_reached = with_totals if number in program.totals else sweep.cotangents[number] is not None
        if is_reached:
            RULES.get(instruction.operation, by_series)(sweep, instruction, number)
    return sweep


def loss_seeds(program: Program, system: NumberSystem, batch: int, parts: int | None = None) -> dict[int, Array]:
    """The cotangents of the losses of samples in the loss of a batch.

    Parameters
    ----------
    parts : what the sum of the losses is divided by, if these are not all samples of the batch
    """
    return {program.losses: system.array(np.ones(batch)) / (parts or program.divisor(batch))} if batch else {}


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


def affine(sweep: Sweep, instruction: Instruction, number: int) -> None:
    """W_bar += z_bar^T a, b_bar += sum of z_bar, a_bar += z_bar W."""
    (source,), (weight, *biases), z_bar = instruction.inputs, instruction.parameters, sweep.cotangents[number]
    weight.of(sweep.gradient)[...] += sweep.system.matmul(z_bar.T, sweep.made[source])
    for bias in biases if number not in sweep.centred else ():
        bias.of(sweep.gradient)[...] += z_bar.sum(axis=0)
    if sweep.wants(source):
        sweep.add(source, sweep.system.matmul(z_bar, weight.of(sweep.theta)))


def penalty(sweep: Sweep, instruction: Instruction, number: int) -> None:
    """Each weight has a term of its own."""

    def terms(series: Series, arrays: list[Array]) -> Array:
        return penalty_terms(series, instruction, arrays[0])

    (weight,) = instruction.parameters
    entries = weight.of(sweep.theta)
    weight.of(sweep.gradient)[...] += sweep.slopes.of(terms, [entries])(0, ones(entries))


def by_series(sweep: Sweep, instruction: Instruction, number: int) -> None:
    """Derivatives of the primal itself, along as many lines as its reach takes."""
    row, bar = OPERATIONS[instruction.operation], sweep.cotangents[number]
    inputs = [sweep.made[i] for i in instruction.inputs]
    parameters = [parameter.of(sweep.theta) for parameter in instruction.parameters]
    along = sweep.slopes.of(_primal_of(instruction), inputs + parameters)
    for place, value in enumerate(instruction.inputs):
        if sweep.wants(value):
            sweep.add(value, ALONG[row.reach](partial(along, place), inputs[place], bar))
    for place, parameter in enumerate(instruction.parameters):
        is_shift = row.shift is not None and place == len(parameters) - 1
        if not (is_shift and number in sweep.centred):
            terms = bar * along(len(inputs) + place, ones(parameters[place]))
            summed = terms.sum(axis=0) if parameter.size > 1 else terms.sum(keepdims=True)
            parameter.of(sweep.gradient)[...] += summed.reshape(parameter.shape)


def _primal_of(instruction: Instruction) -> Primal:
    row, n_inputs = OPERATIONS[instruction.operation], len(instruction.inputs)
    return lambda series, arrays: row.primal(series, instruction, arrays[:n_inputs], arrays[n_inputs:])


Axes = Callable[[Array], Array]
"""``axis -> slopes`` of one place."""


def _along_entries(along: Axes, value: Array, bar: Array) -> Array:
    """All entries at once, as they do not meet."""
    return bar * along(ones(value))


def _along_units(along: Axes, value: Array, bar: Array) -> Array:
    """One unit of all samples at a time; ``bar`` is (batch,) or (batch, width)."""
    found = np.empty(value.shape, object)
    for k in range(value.shape[1]):
        axis = np.zeros(value.shape, object)
        axis[:, k] = 1
        found[:, k] = _sum_over_outputs(along(axis) * bar)
    return found


def _sum_over_outputs(terms: Array) -> Array:
    return terms if terms.ndim == 1 else terms.sum(axis=1)


def _along_samples(along: Axes, value: Array, bar: Array) -> Array:
    """One sample of all units at a time, as units do not meet."""
    found = np.empty(value.shape, object)
    for i in range(len(value)):
        axis = np.zeros(value.shape, object)
        axis[i] = 1
        found[i] = (along(axis) * bar).sum(axis=0)
    return found


ALONG: dict[str, Callable[[Axes, Array, Array], Array]] = {
    "entry": _along_entries,
    "sample": _along_units,
    "column": _along_samples,
}
RULES: dict[str, Callable[[Sweep, Instruction, int], None]] = {"affine": affine, "penalty": penalty}
"""Rules of linear algebra; all others are the power series of the primal."""

__all__ = ["ALONG", "RULES", "Sweep", "by_series", "loss_seeds", "reverse_sweep"]
