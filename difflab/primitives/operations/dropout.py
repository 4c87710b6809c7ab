"""a mask / (1 - p): units left out at random, the others scaled up [lecture notes 002, slide 29]."""

from __future__ import annotations

import numpy as np

from difflab.number_systems import Array, NumberSystem
from difflab.primitives.operations.instruction import Instruction
from difflab.primitives.operations.operation import Bars, Operation
from difflab.primitives.rounded import Rounded


def _primal(m: NumberSystem, instruction: Instruction, inputs: list[Array], parameters: list[Array]) -> Array:
    """The second input is the mask, of zeros and ones; the one constant is p."""
    (a, mask), p = inputs, m.array(np.array(instruction.constants))
    return a * mask / (1 - p)


def _operations(instruction: Instruction, widths: tuple[int, ...]) -> tuple[int, int]:
    return 2 * instruction.width, 2 * instruction.width


def _thinned(instruction: Instruction, a: Rounded, mask: Rounded) -> Rounded:
    """A product with 0 or 1 is exact."""
    kept = 1 - a.arithmetic.constant(instruction.constants[0])
    return a.only(mask.middle > 0) / kept


def _forward_error(instruction: Instruction, inputs: list[Rounded], parameters: list[Rounded]) -> Rounded:
    return _thinned(instruction, *inputs)


def _reverse_error(
    instruction: Instruction, inputs: list[Rounded], parameters: list[Rounded], value: Rounded, bar: Rounded
) -> Bars:
    return Bars([_thinned(instruction, bar, inputs[1]), None], [])


DROPOUT = Operation(
    "dropout", _primal, "entry", _operations, _forward_error, _reverse_error, constants=("p",), is_linear=True
)
