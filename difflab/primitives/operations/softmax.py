"""Softmax as a vector activation, with its full Jacobian [Bridle 1990; lecture notes 000 and 001]."""

from __future__ import annotations

import numpy as np

from difflab.number_systems import Array, NumberSystem
from difflab.primitives.operations.instruction import Instruction
from difflab.primitives.operations.operation import RULE_ROUNDINGS, Bars, Operation, Rounded


def _primal(m: NumberSystem, instruction: Instruction, inputs: list[Array], parameters: list[Array]) -> Array:
    e = m.exp(inputs[0] - m.shift(inputs[0]))
    return e / m.sum(e)[..., None]


def _operations(instruction: Instruction, widths: tuple[int, ...]) -> tuple[int, int]:
    n = instruction.width
    return 4 * n - 1, 5 * n - 1


def _forward_error(instruction: Instruction, rounded: Rounded) -> np.ndarray:
    (z,), (error,), p = rounded.inputs, rounded.errors, rounded.value
    shifted = np.abs(z - z.max(axis=1, keepdims=True))
    own = (shifted + (p * shifted).sum(axis=1, keepdims=True) + z.shape[1] + RULE_ROUNDINGS) * rounded.unit
    return p * (error + (p * error).sum(axis=1, keepdims=True) + own)


def _reverse_error(instruction: Instruction, rounded: Rounded, bar: np.ndarray, bar_error: np.ndarray) -> Bars:
    p, error, u = rounded.value, rounded.error, rounded.unit
    dot, size = (p * bar).sum(axis=1, keepdims=True), (p * np.abs(bar)).sum(axis=1, keepdims=True)
    dot_error = (p * bar_error + error * np.abs(bar)).sum(axis=1, keepdims=True) + (p.shape[1] + 1) * u * size
    inner = bar_error + dot_error + 2 * u * (np.abs(bar) + np.abs(dot))
    z_bar = p * (bar - dot)
    return Bars([(z_bar, error * np.abs(bar - dot) + p * inner + 2 * u * np.abs(z_bar))], [])


SOFTMAX = Operation("softmax", _primal, "sample", _operations, _forward_error, _reverse_error)
