"""The forward and the reverse sweep over a program, compiled once for all networks.

A program is one integer table, a row per instruction, and one vector of constants.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from difflab.kernels import rules
from difflab.kernels.rules import (
    CONSTANT,
    FIRST,
    FUNCTION,
    INPUT,
    INPUT_WIDTH,
    N_COLUMNS,
    OPERATION,
    OTHER,
    OUTPUT,
    RULES,
    SECOND,
    SIZE,
    WIDTH,
    State,
    dispatch,
)
from difflab.kernels.target import compiled, entry_point
from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.losses import LOSSES
from difflab.program import Instruction, Program


OPERATION_CODES = {name: code for code, name in enumerate(RULES)}
COMPILED_FOR = tuple(ACTIVATIONS.values())


def up_to_date() -> ModuleType:
    """The sweeps, compiled anew if an activation was registered since."""
    if tuple(ACTIVATIONS.values()) != COMPILED_FOR:
        importlib.reload(rules)
        importlib.reload(sys.modules[__name__])
    return sys.modules[__name__]


@dataclass(frozen=True)
class Encoded:
    """A program as the sweeps read it.

    Attributes
    ----------
    table : (n_instructions, N_COLUMNS) int64
    constants : (n_constants,) float64
    columns : of the workspace that holds every value.
    first_made : columns of the given values: x, y and masks, in this order.
    """

    table: np.ndarray
    constants: np.ndarray
    columns: int
    first_made: int

    def scratch_size(self, batch: int) -> int:
        """Entries of the largest product the reverse sweep adds to a cotangent or to the gradient."""
        affine = self.table[self.table[:, OPERATION] == OPERATION_CODES["affine"]]
        return int((affine[:, INPUT_WIDTH] * np.maximum(affine[:, WIDTH], batch)).max(initial=1))


def encode(program: Program) -> Encoded:
    """The table of a program."""
    starts = np.concatenate([[0], np.cumsum(program.widths)]).astype(np.int64)
    constants: list[float] = []
    table = np.full((len(program.instructions), N_COLUMNS), -1, np.int64)
    for row, (number, instruction) in zip(table, program.numbered, strict=True):
        row[OUTPUT], row[WIDTH] = starts[number], instruction.width
        _encode(row, instruction, starts, program)
        row[CONSTANT] = len(constants)
        constants += instruction.constants
    return Encoded(table, np.array(constants or [0.0]), int(starts[-1]), int(starts[program.n_given]))


def _encode(row: np.ndarray, instruction: Instruction, starts: np.ndarray, program: Program) -> None:
    """At most two inputs and two parameters: an operation with more of them is several instructions."""
    row[OPERATION] = OPERATION_CODES[instruction.operation]
    if instruction.function:
        table = list(LOSSES if instruction.operation == "loss" else ACTIVATIONS)
        row[FUNCTION] = table.index(instruction.function)
    for place, value in zip((INPUT, OTHER), instruction.inputs, strict=False):
        row[place] = starts[value]
    if instruction.inputs:
        row[INPUT_WIDTH] = program.widths[instruction.inputs[0]]
    for place, parameter in zip((FIRST, SECOND), instruction.parameters, strict=False):
        row[place], row[SIZE] = parameter.offset, parameter.size
    if len(instruction.inputs) > 2 or len(instruction.parameters) > 2:
        raise ValueError(f"an instruction must have at most 2 inputs and 2 parameters, got {instruction}")


@compiled
def _no_rule(wanted, row, state):
    """The end of a chain, for a code that was not there when the chain was compiled."""
    raise RuntimeError("compiled kernels do not know this operation; they are older than the table of rules")


_forward_rule = dispatch([forward for forward, _ in RULES.values()], _no_rule)
_reverse_rule = dispatch([reverse for _, reverse in RULES.values()], _no_rule)


@compiled
def _load(array, values, column):
    """A given value into its block."""
    target = values[array.shape[0] * column : array.shape[0] * column + array.size].reshape(array.shape)
    for i in range(array.shape[0]):
        for j in range(array.shape[1]):
            target[i, j] = array[i, j]


@compiled
def _forward(table, state, x, y):
    _load(x, state.values, 0)
    _load(y, state.values, x.shape[1])
    for i in range(table.shape[0]):
        _forward_rule(table[i, OPERATION], table[i], state)
    return state.losses[0] / state.parts + state.losses[1]


@entry_point
def value(table, constants, theta, x, y, parts, values, cotangents):
    """The loss of a batch; arguments as for :func:`value_and_gradient`, ``cotangents`` is workspace."""
    losses = np.zeros(2)
    return _forward(table, State(theta, constants, x.shape[0], parts, values, cotangents, values, theta, losses), x, y)


@entry_point
def value_and_gradient(table, constants, theta, x, y, parts, values, cotangents, scratch, gradient):
    """The loss of a batch; fills ``gradient``.

    Parameters
    ----------
    table : (n_instructions, N_COLUMNS) int64
    constants : (n_constants,) float64
    theta, gradient : (n_params,)
    x, y : (batch, n_inputs), (batch, n_outputs)
    parts : what the sum of losses is divided by
    values, cotangents : (batch * columns,) workspaces; the masks in ``values`` are already there
    scratch : (scratch_size,) workspace
    """
    state = State(theta, constants, x.shape[0], parts, values, cotangents, scratch, gradient, np.zeros(2))
    cotangents[:] = 0
    gradient[:] = 0
    loss = _forward(table, state, x, y)
    for i in range(table.shape[0] - 1, -1, -1):
        _reverse_rule(table[i, OPERATION], table[i], state)
    return loss
