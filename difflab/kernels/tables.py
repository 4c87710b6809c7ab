"""Tables: what compiled sweeps read of every instruction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from difflab.kernels import addresses
from difflab.kernels.bars import Bars
from difflab.kernels.layout import (
    CONSTANT,
    FIRST,
    FORWARD,
    HAS_NO_BAR,
    INPUT,
    INPUT_BAR,
    INPUT_WIDTH,
    KEEPS,
    KEEPS_FIRST,
    KEEPS_INPUT,
    KEEPS_OTHER,
    KEEPS_SECOND,
    N_COLUMNS,
    OTHER,
    OTHER_BAR,
    OUTPUT,
    OUTPUT_BAR,
    REVERSE,
    REVERSE_TANGENT,
    SECOND,
    SIZE,
    SLOPE,
    TANGENT,
    WIDTH,
)
from difflab.kernels.rules import RULES, Kind, Rule, Step
from difflab.primitives.operations import INPUTS, OPERATIONS, Instruction
from difflab.program import Program


@dataclass(frozen=True)
class Choice:
    """How sweeps are made.

    Attributes
    ----------
    kind : what they are for.
    dtype : ``"float64"`` or ``"float32"``.
    reproducible : whether products are in order and nothing is fused, with the same bits on every processor.
    wants_inputs : whether the cotangent of x is wanted.
    tile : samples that go together, or 0 for as many as the cache holds.
    library : whose BLAS makes large products.
    """

    kind: Kind
    dtype: str
    reproducible: bool = False
    wants_inputs: bool = False
    tile: int = 0
    library: str = "scipy"

    @property
    def item(self) -> int:
        return np.dtype(self.dtype).itemsize

    @property
    def fuses(self) -> bool:
        """Whether a product and a sum may be rounded once."""
        return not self.reproducible


class Table(NamedTuple):
    """What sweeps read of a program, and the columns that workspaces need.

    Attributes
    ----------
    rows : (n_instructions, N_COLUMNS) int64, words as :mod:`difflab.kernels.layout` has them.
    constants : float64, of all instructions.
    columns : of values and slopes, and as many of their tangents.
    bar_columns : of cotangents, and as many of their tangents.
    outputs : the column of the outputs, or of their cotangents where a sweep starts from given ones.
    """

    rows: np.ndarray
    constants: np.ndarray
    columns: int
    bar_columns: int
    outputs: int


def _has_loss(program: Program) -> bool:
    return any(step.operation == "loss" for step in program.instructions)


def _outputs(program: Program) -> int:
    """The value that the loss reads; without a loss, the last one that is made, or x if none is."""
    if _has_loss(program):
        return program.outputs
    return len(program.widths) - 1 if program.instructions else INPUTS


def starts_of(program: Program) -> np.ndarray:
    """The column at which each value starts, and the end of the last."""
    return np.concatenate([[0], np.cumsum(program.widths)]).astype(np.int64)


def make_table(program: Program, choice: Choice) -> Table:
    """The table of a program for one kind of sweep."""
    starts, constants = starts_of(program), [0.0]
    columns, outputs = int(starts[-1]), _outputs(program)
    bars = Bars(program, outputs, lambda step: _carried(step, choice))
    table = np.full((len(program.instructions), N_COLUMNS), -1, np.int64)
    for row, (number, step) in zip(table, program.numbered, strict=True):
        _describe(row, number, step, starts, program)
        _describe_bars(row, number, step, bars)
        row[CONSTANT] = len(constants)
        constants += step.constants
        if step.operation == "activation" and _is_needed(step.inputs[0], program, choice):
            row[SLOPE] = columns
            columns += step.width
    _mark_begun(table, program, choice)
    for row, step in zip(table, program.instructions, strict=True):
        row[[FORWARD, TANGENT, REVERSE, REVERSE_TANGENT]] = _addresses(step, choice, row[KEEPS] < 0)
    column = bars.of[outputs] if choice.kind == "vjp" else int(starts[outputs])
    return Table(table, np.array([*constants, 0.0]), columns, bars.columns, column)


def _describe_bars(row: np.ndarray, number: int, step: Instruction, bars: Bars) -> None:
    for place, value in zip((OUTPUT_BAR, INPUT_BAR, OTHER_BAR), (number, *step.inputs), strict=False):
        row[place] = bars.of.get(value, -1)


def _describe(row: np.ndarray, number: int, step: Instruction, starts: np.ndarray, program: Program) -> None:
    """At most two inputs and two parameters: an operation with more of them is several instructions."""
    if len(step.inputs) > 2 or len(step.parameters) > 2:
        raise ValueError(f"an instruction must have at most 2 inputs and 2 parameters, got {step}")
    row[OUTPUT], row[WIDTH] = starts[number], step.width
    for place, value in zip((INPUT, OTHER), step.inputs, strict=False):
        row[place] = starts[value]
    if step.inputs:
        row[INPUT_WIDTH], row[SLOPE] = program.widths[step.inputs[0]], starts[step.inputs[0]]
        if step.inputs[0] == INPUTS:
            row[SLOPE] = -1
    for place, parameter in zip((FIRST, SECOND), step.parameters, strict=False):
        row[place], row[SIZE] = parameter.offset, parameter.size


def _is_needed(value: int, program: Program, choice: Choice) -> bool:
    """Whether a value may not be written over: it is given, several read it, or its maker does in reverse."""
    readers = sum(step.inputs.count(value) for step in program.instructions)
    made = [step for number, step in program.numbered if number == value]
    return readers > 1 or not made or _rule(made[0], choice).rereads


def _mark_begun(table: np.ndarray, program: Program, choice: Choice) -> None:
    """Which cotangents and gradients were begun when a row is reached in reverse; -1 where nothing arrives there."""
    begun: set[int] = set() if _has_loss(program) else {_outputs(program)}
    written: list[slice] = []
    for row, (number, step) in zip(table[::-1], program.numbered[::-1], strict=True):
        is_total, is_loss = OPERATIONS[step.operation].is_total, step.operation == "loss"
        if not (is_total or is_loss or number in begun):
            row[KEEPS] = -1
            continue
        row[KEEPS] = 0
        for value, bit in zip(_carried(step, choice), (KEEPS_INPUT, KEEPS_OTHER), strict=False):
            row[KEEPS] |= bit if value in begun else 0
            begun.add(value)
        if step.inputs[:1] == (INPUTS,) and not choice.wants_inputs:
            row[KEEPS] |= HAS_NO_BAR
        for parameter, bit in zip(step.parameters, (KEEPS_FIRST, KEEPS_SECOND), strict=False):
            part = slice(parameter.offset, parameter.offset + parameter.size)
            row[KEEPS] |= bit if any(_overlap(part, other) for other in written) else 0
            written.append(part)


def _overlap(a: slice, b: slice) -> bool:
    return a.start < b.stop and b.start < a.stop


def _rule(step: Instruction, choice: Choice) -> Rule:
    return RULES[step.operation](step.function, choice.kind, choice.dtype, choice.fuses)


def _carried(step: Instruction, choice: Choice) -> tuple[int, ...]:
    """The inputs whose cotangents an instruction adds to."""
    return step.inputs[: _rule(step, choice).carries]


def _addresses(step: Instruction, choice: Choice, is_idle: bool) -> list[int]:
    """Of the four steps of an instruction; 0 where there is nothing to do."""
    rule = _rule(step, choice)
    steps: list[Step | None] = [rule.forward, rule.tangent, rule.reverse, rule.reverse_tangent]
    if choice.kind == "value":
        steps[1:] = [None, None, None]
    if choice.kind in ("gradient", "vjp"):
        steps[1] = steps[3] = None
    if choice.kind == "jvp":
        steps[2] = steps[3] = None
    if choice.kind == "gauss_newton":
        steps[3] = None
    if is_idle:
        steps[2:] = [None, None]
    return [0 if one is None else addresses.of_step(step, one, choice.dtype, choice.fuses) for one in steps]
