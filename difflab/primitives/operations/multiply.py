"""Units whose inputs are multiplied: each the product of its share of consecutive inputs [lecture notes 000]."""

from __future__ import annotations

from functools import reduce
from itertools import accumulate
from operator import mul

import numpy as np

from difflab.number_systems import Array, NumberSystem
from difflab.primitives.operations.instruction import Instruction
from difflab.primitives.operations.operation import Bars, Operation
from difflab.primitives.rounded import Rounded


def grouped(instruction: Instruction, values: Array) -> Array:
    """The inputs of every unit, (batch, units, inputs of a unit)."""
    return values.reshape(len(values), instruction.width, -1)


def _primal(m: NumberSystem, instruction: Instruction, inputs: list[Array], parameters: list[Array]) -> Array:
    return reduce(mul, np.moveaxis(grouped(instruction, inputs[0]), -1, 0))


def _operations(instruction: Instruction, widths: tuple[int, ...]) -> tuple[int, int]:
    """Products of all other inputs by products from the left and from the right."""
    return widths[0], 3 * widths[0]


def _factors(instruction: Instruction, inputs: list[Rounded]) -> list[Rounded]:
    factors = inputs[0].moved(lambda a: grouped(instruction, a))
    return [factors[..., k] for k in range(factors.shape[-1])]


def _forward_error(instruction: Instruction, inputs: list[Rounded], parameters: list[Rounded]) -> Rounded:
    return reduce(mul, _factors(instruction, inputs))


def _reverse_error(
    instruction: Instruction, inputs: list[Rounded], parameters: list[Rounded], value: Rounded, bar: Rounded
) -> Bars:
    """Products from the left times the cotangent and products from the right."""
    factors = _factors(instruction, inputs)
    before = [None, *accumulate(factors[:-1], mul)]
    after = accumulate(reversed(factors[1:]), mul, initial=bar)
    bars = [a if b is None else b * a for b, a in zip(reversed(before), after, strict=True)][::-1]
    columns = zip(*((b.middle, b.doubt, b.error) for b in bars), strict=True)
    stacked = Rounded(bar.arithmetic, *(np.stack(column, axis=-1) for column in columns))
    return Bars([stacked.reshape(*inputs[0].shape)], [])


MULTIPLY = Operation("multiply", _primal, "sample", _operations, _forward_error, _reverse_error)
