"""a mask / (1 - p): units left out at random, the others scaled up [lecture notes 002, slide 29]."""

from __future__ import annotations

import numpy as np

from difflab.number_systems import Array, NumberSystem
from difflab.primitives.operations.instruction import Instruction
from difflab.primitives.operations.operation import Bars, Operation, Rounded


def _primal(m: NumberSystem, instruction: Instruction, inputs: list[Array], parameters: list[Array]) -> Array:
    """The second input is the mask, of zeros and ones; the one constant is p."""
    (a, mask), p = inputs, m.array(np.array(instruction.constants))
    return a * mask / (1 - p)


def _operations(instruction: Instruction, widths: tuple[int, ...]) -> tuple[int, int]:
    return 2 * instruction.width, 2 * instruction.width


def _scale(instruction: Instruction, rounded: Rounded) -> np.ndarray:
    return rounded.inputs[1] / (1 - instruction.constants[0])


def _forward_error(instruction: Instruction, rounded: Rounded) -> np.ndarray:
    return rounded.errors[0] * _scale(instruction, rounded) + 3 * rounded.unit * np.abs(rounded.value)


def _reverse_error(instruction: Instruction, rounded: Rounded, bar: np.ndarray, bar_error: np.ndarray) -> Bars:
    scale = _scale(instruction, rounded)
    return Bars([(bar * scale, (bar_error + 3 * rounded.unit * np.abs(bar)) * scale), None], [])


DROPOUT = Operation(
    "dropout", _primal, "entry", _operations, _forward_error, _reverse_error, constants=("p",), is_linear=True
)
