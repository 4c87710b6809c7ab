"""Softmax as a vector activation, with its full Jacobian [Bridle 1990; lecture notes 000 and 001]."""

from __future__ import annotations

import numpy as np

from difflab.number_systems import Array, NumberSystem
from difflab.primitives.operations.instruction import Instruction
from difflab.primitives.operations.operation import Bars, Operation
from difflab.primitives.rounded import Rounded, shares


def _primal(m: NumberSystem, instruction: Instruction, inputs: list[Array], parameters: list[Array]) -> Array:
    e = m.exp(inputs[0] - m.shift(inputs[0]))
    return e / m.sum(e)[..., None]


def _operations(instruction: Instruction, widths: tuple[int, ...]) -> tuple[int, int]:
    n = instruction.width
    return 4 * n - 1, 5 * n - 1


def _forward_error(instruction: Instruction, inputs: list[Rounded], parameters: list[Rounded]) -> Rounded:
    return shares(inputs[0])


def _reverse_error(
    instruction: Instruction, inputs: list[Rounded], parameters: list[Rounded], value: Rounded, bar: Rounded
) -> Bars:
    """p_k (lead_k - sum_j p_j lead_j), where cotangents lead over any number: over one as the arithmetic has it."""
    may_win = value.may_be_largest()
    first = value.middle.argmax(axis=1)[:, None]
    chosen = bar.moved(lambda a: np.take_along_axis(a, first, axis=1))
    apart = np.where(may_win, np.abs(bar.middle - chosen.middle) + bar.around, 0.0).max(axis=1, keepdims=True)
    lead = bar - Rounded(bar.arithmetic, chosen.middle, apart, np.zeros(apart.shape))
    mean = (value * lead).sum()[:, None]
    return Bars([value * (lead - mean)], [])


SOFTMAX = Operation("softmax", _primal, "sample", _operations, _forward_error, _reverse_error)
