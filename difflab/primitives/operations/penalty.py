"""l1 sum |w| + l2 / 2 sum w**2 over one weight, added once to the loss of the batch.

The gradient of the second part is l2 w, weight decay [Goodfellow, Bengio, Courville 2016, 7.1]; lecture notes 002,
slide 28, name both penalties without a formula.
"""

from __future__ import annotations

import numpy as np

from difflab.number_systems import Array, NumberSystem
from difflab.primitives.operations.instruction import Instruction
from difflab.primitives.operations.operation import Bars, Operation
from difflab.primitives.rounded import Rounded, term


def penalty_terms(m: NumberSystem, instruction: Instruction, weight: Array) -> Array:
    """The penalty of every entry; constants are l1 and l2."""
    l1, l2 = m.array(np.array(instruction.constants))[:, None]
    magnitude = m.positive_part(weight) + m.positive_part(-weight)
    return l1 * magnitude + l2 * m.square(weight) / 2


def _primal(m: NumberSystem, instruction: Instruction, inputs: list[Array], parameters: list[Array]) -> Array:
    return m.sum(penalty_terms(m, instruction, parameters[0].ravel()))


def _operations(instruction: Instruction, widths: tuple[int, ...]) -> tuple[int, int]:
    size = instruction.parameters[0].size
    return 6 * size - 1, 4 * size


def _forward_error(instruction: Instruction, inputs: list[Rounded], parameters: list[Rounded]) -> Rounded:
    (weight,), (l1, l2) = parameters, parameters[0].arithmetic.constant(instruction.constants)
    weight = weight.reshape(-1)
    return (l1 * abs(weight) + (l2 * weight * weight).scaled(0.5)).sum()


def _reverse_error(
    instruction: Instruction, inputs: list[Rounded], parameters: list[Rounded], value: Rounded, bar: Rounded
) -> Bars:
    (weight,), (l1, l2) = parameters, parameters[0].arithmetic.constant(instruction.constants)
    return Bars([], [term((l1 * np.sign(weight.middle) + l2 * weight) * bar)])


def _kinks(instruction: Instruction, inputs: list[Array], parameters: list[Array]) -> list[Array]:
    return parameters if instruction.constants[0] else []


PENALTY = Operation(
    "penalty",
    _primal,
    "entry",
    _operations,
    _forward_error,
    _reverse_error,
    _kinks,
    constants=("l1", "l2"),
    is_total=True,
)
