"""The sum of two values, as at the end of a skip connection."""

from __future__ import annotations

import numpy as np

from difflab.number_systems import Array, NumberSystem
from difflab.primitives.operations.instruction import Instruction
from difflab.primitives.operations.operation import Bars, Operation, Rounded


def _primal(m: NumberSystem, instruction: Instruction, inputs: list[Array], parameters: list[Array]) -> Array:
    return inputs[0] + inputs[1]


def _operations(instruction: Instruction, widths: tuple[int, ...]) -> tuple[int, int]:
    return instruction.width, 0


def _forward_error(instruction: Instruction, rounded: Rounded) -> np.ndarray:
    return rounded.errors[0] + rounded.errors[1] + rounded.unit * np.abs(rounded.value)


def _reverse_error(instruction: Instruction, rounded: Rounded, bar: np.ndarray, bar_error: np.ndarray) -> Bars:
    return Bars([(bar, bar_error), (bar, bar_error)], [])


ADD = Operation("add", _primal, "entry", _operations, _forward_error, _reverse_error, shift="passed", is_linear=True)
