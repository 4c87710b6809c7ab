"""Programs: the short Wengert list that a network is lowered to, and its primal over any number system."""

from __future__ import annotations

import math
from dataclasses import dataclass

from difflab.number_systems import Array, NumberSystem
from difflab.primitives.operations import OPERATIONS


INPUTS, TARGETS = 0, 1
"""The values that every program starts from."""


@dataclass(frozen=True)
class Parameter:
    """A named slice of theta, in C order."""

    name: str
    offset: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def of(self, theta: Array) -> Array:
        """The parameter as a view of ``theta`` in its own shape."""
        return theta[self.offset : self.offset + self.size].reshape(self.shape)


@dataclass(frozen=True)
class Instruction:
    """One operation on earlier values; value 0 is x, value 1 is y, instruction i makes value i + 2."""

    operation: str
    inputs: tuple[int, ...]
    width: int
    parameters: tuple[Parameter, ...] = ()
    function: str | None = None


@dataclass(frozen=True)
class Program:
    """Instructions in order of evaluation; the last one gives the loss of each sample."""

    instructions: tuple[Instruction, ...]
    n_inputs: int
    n_outputs: int
    reduction: str

    def width_of(self, value: int) -> int:
        if value in (INPUTS, TARGETS):
            return (self.n_inputs, self.n_outputs)[value]
        return self.instructions[value - 2].width


def values(program: Program, m: NumberSystem, theta: Array, x: Array, y: Array) -> list[Array]:
    """Every value of the program, ``[x, y, ...]``; the last holds the loss of each sample, shape (batch,)."""
    made = [x, y]
    for instruction in program.instructions:
        primal = OPERATIONS[instruction.operation].primal
        inputs = [made[i] for i in instruction.inputs]
        parameters = [parameter.of(theta) for parameter in instruction.parameters]
        made.append(primal(m, inputs, parameters, instruction.function))
    return made


def divisor(program: Program, batch: int) -> int:
    """What the sum of the losses is divided by."""
    return batch if program.reduction == "mean" else 1


def primal(program: Program, m: NumberSystem, theta: Array, x: Array, y: Array) -> Array:
    """The loss of a batch as one number of the system ``m``.

    Parameters
    ----------
    theta : (n_params,) array of numbers of ``m``
    x : (batch, n_inputs) array of numbers of ``m``
    y : (batch, n_outputs) array of numbers of ``m``
    """
    losses = values(program, m, theta, x, y)[-1]
    total = m.sum(losses)
    parts = divisor(program, len(x))
    return total if parts == 1 else total / parts
