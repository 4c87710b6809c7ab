"""The sum of two values, as at the end of a skip connection."""

from __future__ import annotations

from difflab.number_systems import Array, NumberSystem
from difflab.primitives.operations.instruction import Instruction
from difflab.primitives.operations.operation import Bars, Operation
from difflab.primitives.rounded import Rounded


def _primal(m: NumberSystem, instruction: Instruction, inputs: list[Array], parameters: list[Array]) -> Array:
    return inputs[0] + inputs[1]


def _operations(instruction: Instruction, widths: tuple[int, ...]) -> tuple[int, int]:
    return instruction.width, 0


def _forward_error(instruction: Instruction, inputs: list[Rounded], parameters: list[Rounded]) -> Rounded:
    return inputs[0] + inputs[1]


def _reverse_error(
    instruction: Instruction, inputs: list[Rounded], parameters: list[Rounded], value: Rounded, bar: Rounded
) -> Bars:
    return Bars([bar, bar], [])


ADD = Operation("add", _primal, "entry", _operations, _forward_error, _reverse_error, shift="passed", is_linear=True)
