"""The losses of the samples from outputs and targets; shape (batch,)."""

from __future__ import annotations

from typing import Any

import numpy as np

from difflab.number_systems import Array, NumberSystem
from difflab.primitives.losses import LOSSES
from difflab.primitives.operations.instruction import Instruction
from difflab.primitives.operations.operation import Bars, Operation
from difflab.primitives.rounded import RULE_ROUNDINGS, Rounded


def _row(instruction: Instruction) -> Any:
    return LOSSES[str(instruction.function)]


def _primal(m: NumberSystem, instruction: Instruction, inputs: list[Array], parameters: list[Array]) -> Array:
    return _row(instruction).expression(m, *inputs)


def _operations(instruction: Instruction, widths: tuple[int, ...]) -> tuple[int, int]:
    row, n = _row(instruction), widths[0]
    return row.value_operations(n), row.cotangent_operations(n)


def _of_book(inputs: list[Rounded], magnitude: np.ndarray) -> np.ndarray:
    """How far textbook formulas are off in units of roundoff, if what they subtract is of that magnitude."""
    return (inputs[0].shape[1] + RULE_ROUNDINGS) * magnitude


def _forward_error(instruction: Instruction, inputs: list[Rounded], parameters: list[Rounded]) -> Rounded:
    (z, y), (losses, _) = inputs, _row(instruction).rounded(*inputs)
    return losses.blurred(_of_book(inputs, z.size.max(axis=1) + y.size.max(axis=1) + losses.size))


def _reverse_error(
    instruction: Instruction, inputs: list[Rounded], parameters: list[Rounded], value: Rounded, bar: Rounded
) -> Bars:
    slopes = _row(instruction).rounded(*inputs)[1]
    slopes = slopes.blurred(_of_book(inputs, 2 * slopes.size + inputs[1].size))
    return Bars([slopes * bar[:, None], None], [])


LOSS = Operation("loss", _primal, "sample", _operations, _forward_error, _reverse_error)
