"""The losses of the samples from outputs and targets; shape (batch,)."""

from __future__ import annotations

from typing import Any

import numpy as np

from difflab.number_systems import Array, NumberSystem
from difflab.primitives.losses import LOSSES
from difflab.primitives.operations.instruction import Instruction
from difflab.primitives.operations.operation import RULE_ROUNDINGS, Bars, Operation, Rounded


def _row(instruction: Instruction) -> Any:
    return LOSSES[str(instruction.function)]


def _primal(m: NumberSystem, instruction: Instruction, inputs: list[Array], parameters: list[Array]) -> Array:
    return _row(instruction).expression(m, *inputs)


def _operations(instruction: Instruction, widths: tuple[int, ...]) -> tuple[int, int]:
    row, n = _row(instruction), widths[0]
    return row.value_operations(n), row.cotangent_operations(n)


def _cotangent(instruction: Instruction, rounded: Rounded) -> np.ndarray:
    z, y = rounded.inputs
    bar = np.empty(z.shape)
    for sample in zip(z, y, bar, strict=True):
        _row(instruction).value_and_cotangent(*sample)
    return bar


def _forward_error(instruction: Instruction, rounded: Rounded) -> np.ndarray:
    z, y = rounded.inputs
    magnitude = np.abs(z).max(axis=1) + np.abs(y).max(axis=1) + np.abs(rounded.value)
    terms = (z.shape[1] + RULE_ROUNDINGS) * rounded.unit * magnitude
    return (np.abs(_cotangent(instruction, rounded)) * rounded.errors[0]).sum(axis=1) + terms


def _reverse_error(instruction: Instruction, rounded: Rounded, bar: np.ndarray, bar_error: np.ndarray) -> Bars:
    (z, y), row = rounded.inputs, _row(instruction)
    slope = _cotangent(instruction, rounded)
    formed = np.abs(slope)
    if rounded.textbook or row.is_difference(y):
        formed = 2 * formed + np.abs(y)
    passed = np.array([row.cotangent_error(*sample) for sample in zip(z, y, rounded.errors[0], strict=True)])
    own = (z.shape[1] + RULE_ROUNDINGS) * rounded.unit * formed
    z_bar_error = (passed + own) * np.abs(bar)[:, None] + np.abs(slope) * bar_error[:, None]
    return Bars([(slope * bar[:, None], z_bar_error), None], [])


LOSS = Operation("loss", _primal, "sample", _operations, _forward_error, _reverse_error)
