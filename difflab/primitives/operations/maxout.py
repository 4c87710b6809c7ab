"""The largest of each unit's pieces, the first one at a tie [Goodfellow et al. 2013]."""

from __future__ import annotations

import itertools

import numpy as np

from difflab.number_systems import Array, NumberSystem
from difflab.primitives.operations.instruction import Instruction
from difflab.primitives.operations.multiply import grouped
from difflab.primitives.operations.operation import Bars, Operation
from difflab.primitives.rounded import Rounded


def _primal(m: NumberSystem, instruction: Instruction, inputs: list[Array], parameters: list[Array]) -> Array:
    return m.maximum(grouped(instruction, inputs[0]))


def _operations(instruction: Instruction, widths: tuple[int, ...]) -> tuple[int, int]:
    """Comparisons alone."""
    return 0, 0


def _forward_error(instruction: Instruction, inputs: list[Rounded], parameters: list[Rounded]) -> Rounded:
    """No entry moves a maximum further than itself, and only if it may be the largest."""
    pieces = inputs[0].moved(lambda a: grouped(instruction, a))
    may_win = pieces.may_be_largest()
    middle = pieces.middle.max(axis=-1)
    doubt, error = (np.where(may_win, a, 0.0).max(axis=-1) for a in (pieces.doubt, pieces.error))
    return Rounded(pieces.arithmetic, middle, doubt, error)


def _reverse_error(
    instruction: Instruction, inputs: list[Rounded], parameters: list[Rounded], value: Rounded, bar: Rounded
) -> Bars:
    """Of several pieces that may win, each has all of the cotangent or nothing."""
    pieces, bars = inputs[0].moved(lambda a: grouped(instruction, a)), bar[..., None]
    may_win = pieces.may_be_largest()
    is_open = may_win.sum(axis=-1, keepdims=True) > 1
    wins = np.arange(pieces.shape[-1]) == pieces.middle.argmax(axis=-1)[..., None]
    either = Rounded(bar.arithmetic, np.where(wins, bars.middle, 0.0), bars.size, bars.reach)
    found = either.only(may_win).or_else(is_open, bars.only(wins))
    return Bars([found.reshape(*inputs[0].shape)], [])


def _kinks(instruction: Instruction, inputs: list[Array], parameters: list[Array]) -> list[Array]:
    pieces = np.moveaxis(grouped(instruction, inputs[0]), -1, 0)
    return [a - b for a, b in itertools.combinations(pieces, 2)]


MAXOUT = Operation("maxout", _primal, "sample", _operations, _forward_error, _reverse_error, _kinks)
