"""y (1 - s) + s / C: targets that leave a share s of the weight to all C classes [Szegedy et al. 2016]."""

from __future__ import annotations

import numpy as np

from difflab.number_systems import Array, NumberSystem
from difflab.primitives.operations.instruction import Instruction
from difflab.primitives.operations.operation import Bars, Operation
from difflab.primitives.rounded import Rounded


def _primal(m: NumberSystem, instruction: Instruction, inputs: list[Array], parameters: list[Array]) -> Array:
    """The constants are s and C."""
    share, classes = m.array(np.array(instruction.constants))[:, None]
    return inputs[0] * (1 - share) + share / classes


def _operations(instruction: Instruction, widths: tuple[int, ...]) -> tuple[int, int]:
    return 2 * instruction.width + 2, 0


def _forward_error(instruction: Instruction, inputs: list[Rounded], parameters: list[Rounded]) -> Rounded:
    (y,), (share, classes) = inputs, inputs[0].arithmetic.constant(instruction.constants)
    return y * (1 - share) + share / classes


def _reverse_error(
    instruction: Instruction, inputs: list[Rounded], parameters: list[Rounded], value: Rounded, bar: Rounded
) -> Bars:
    return Bars([None], [])


LABEL_SMOOTHING = Operation(
    "label_smoothing",
    _primal,
    "entry",
    _operations,
    _forward_error,
    _reverse_error,
    constants=("s", "classes"),
    is_linear=True,
)
