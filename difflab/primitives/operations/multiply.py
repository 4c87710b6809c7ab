"""Units whose inputs are multiplied: each the product of its share of consecutive inputs [lecture notes 000]."""

from __future__ import annotations

import math
from functools import reduce
from operator import mul

import numpy as np

from difflab.number_systems import Array, NumberSystem
from difflab.primitives.operations.instruction import Instruction
from difflab.primitives.operations.operation import Bars, Operation, Rounded


def grouped(instruction: Instruction, values: Array) -> Array:
    """The inputs of every unit, (batch, units, inputs of a unit)."""
    return values.reshape(len(values), instruction.width, -1)


def _primal(m: NumberSystem, instruction: Instruction, inputs: list[Array], parameters: list[Array]) -> Array:
    return reduce(mul, np.moveaxis(grouped(instruction, inputs[0]), -1, 0))


def _operations(instruction: Instruction, widths: tuple[int, ...]) -> tuple[int, int]:
    """Products of all other inputs by products from the left and from the right."""
    return widths[0], 3 * widths[0]


def _products(factors: np.ndarray, without: tuple[int, ...]) -> np.ndarray:
    return np.delete(factors, without, axis=-1).prod(axis=-1)


def _forward_error(instruction: Instruction, rounded: Rounded) -> np.ndarray:
    factors, errors = (np.abs(grouped(instruction, a)) for a in (rounded.inputs[0], rounded.errors[0]))
    n = factors.shape[-1]
    passed = sum(_products(factors, (i,)) * errors[..., i] for i in range(n))
    return passed + n * rounded.unit * np.abs(rounded.value)


def _reverse_error(instruction: Instruction, rounded: Rounded, bar: np.ndarray, bar_error: np.ndarray) -> Bars:
    factors, errors = (grouped(instruction, a) for a in (rounded.inputs[0], rounded.errors[0]))
    n, sizes = factors.shape[-1], np.abs(factors)
    slope = np.stack([_products(factors, (i,)) for i in range(n)], axis=-1)
    slope_error = n * rounded.unit * np.abs(slope)
    for i in range(n):
        for k in set(range(n)) - {i}:
            slope_error[..., i] += errors[..., k] * _products(sizes, (i, k))
    z_bar = bar[..., None] * slope
    z_bar_error = bar_error[..., None] * np.abs(slope) + np.abs(bar)[..., None] * slope_error
    shape = len(bar), math.prod(factors.shape[1:])
    return Bars([(z_bar.reshape(shape), z_bar_error.reshape(shape))], [])


MULTIPLY = Operation("multiply", _primal, "sample", _operations, _forward_error, _reverse_error)
