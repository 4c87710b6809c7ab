"""The largest of each unit's pieces, the first one at a tie [Goodfellow et al. 2013]."""

from __future__ import annotations

import itertools

import numpy as np

from difflab.number_systems import Array, NumberSystem
from difflab.primitives.operations.instruction import Instruction
from difflab.primitives.operations.multiply import grouped
from difflab.primitives.operations.operation import Bars, Operation, Rounded


def _primal(m: NumberSystem, instruction: Instruction, inputs: list[Array], parameters: list[Array]) -> Array:
    return m.maximum(grouped(instruction, inputs[0]))


def _operations(instruction: Instruction, widths: tuple[int, ...]) -> tuple[int, int]:
    """Comparisons alone."""
    return 0, 0


def _forward_error(instruction: Instruction, rounded: Rounded) -> np.ndarray:
    return grouped(instruction, rounded.errors[0]).max(axis=-1)


def _reverse_error(instruction: Instruction, rounded: Rounded, bar: np.ndarray, bar_error: np.ndarray) -> Bars:
    pieces = grouped(instruction, rounded.inputs[0])
    wins = np.arange(pieces.shape[-1]) == pieces.argmax(axis=-1)[..., None]
    shape = rounded.inputs[0].shape
    return Bars([((bar[..., None] * wins).reshape(shape), (bar_error[..., None] * wins).reshape(shape))], [])


def _kinks(instruction: Instruction, inputs: list[Array], parameters: list[Array]) -> list[Array]:
    pieces = np.moveaxis(grouped(instruction, inputs[0]), -1, 0)
    return [a - b for a, b in itertools.combinations(pieces, 2)]


MAXOUT = Operation("maxout", _primal, "sample", _operations, _forward_error, _reverse_error, _kinks)
