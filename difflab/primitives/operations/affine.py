"""z = W a + b for every row a; W : (out, in), b : (out,) or left out."""

from __future__ import annotations

import numpy as np

from difflab.number_systems import Array, NumberSystem
from difflab.primitives.operations.instruction import INPUTS, Instruction
from difflab.primitives.operations.operation import Bars, Operation, Rounded


def _primal(m: NumberSystem, instruction: Instruction, inputs: list[Array], parameters: list[Array]) -> Array:
    (a,), (weight, *bias) = inputs, parameters
    return sum(bias, start=m.matmul(a, weight.T))


def _operations(instruction: Instruction, widths: tuple[int, ...]) -> tuple[int, int]:
    """2 m n for W a + b [lecture notes 002, slide 12]; m n for W_bar, m (2 n - 1) for a_bar unless a is x."""
    (m,), n, has_bias = widths, instruction.width, len(instruction.parameters) - 1
    return 2 * m * n - n + n * has_bias, m * n + (0 if instruction.inputs[0] == INPUTS else m * (2 * n - 1))


def _forward_error(instruction: Instruction, rounded: Rounded) -> np.ndarray:
    (a,), (error,), (weight, *bias) = rounded.inputs, rounded.errors, rounded.parameters
    terms = weight.shape[1] + 2
    magnitude = np.abs(a) @ np.abs(weight.T) + sum(np.abs(b) for b in bias)
    return terms * rounded.unit * magnitude + error @ np.abs(weight.T)


def _reverse_error(instruction: Instruction, rounded: Rounded, bar: np.ndarray, bar_error: np.ndarray) -> Bars:
    (a,), (error,), (weight, *bias) = rounded.inputs, rounded.errors, rounded.parameters
    u, batch, size = rounded.unit, len(a), np.abs(bar)
    of_weight = bar_error.T @ np.abs(a) + size.T @ (error + (batch + 2) * u * np.abs(a))
    of_bias = (bar_error + (batch + 1) * u * size).sum(axis=0)
    a_bar_error = (bar_error + (len(weight) + 2) * u * size) @ np.abs(weight)
    return Bars([(bar @ weight, a_bar_error)], [of_weight, of_bias][: 1 + len(bias)])


AFFINE = Operation(
    "affine", _primal, "sample", _operations, _forward_error, _reverse_error, shift="passed", is_linear=True
)
