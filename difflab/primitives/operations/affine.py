"""z = W a + b for every row a; W : (out, in), b : (out,) or left out."""

from __future__ import annotations

from difflab.number_systems import Array, NumberSystem
from difflab.primitives.operations.instruction import INPUTS, Instruction
from difflab.primitives.operations.operation import Bars, Operation
from difflab.primitives.rounded import Rounded, product, term


def _primal(m: NumberSystem, instruction: Instruction, inputs: list[Array], parameters: list[Array]) -> Array:
    (a,), (weight, *bias) = inputs, parameters
    return sum(bias, start=m.matmul(a, weight.T))


def _operations(instruction: Instruction, widths: tuple[int, ...]) -> tuple[int, int]:
    """2 m n for W a + b [lecture notes 002, slide 12]; m n for W_bar, m (2 n - 1) for a_bar unless a is x."""
    (m,), n, has_bias = widths, instruction.width, len(instruction.parameters) - 1
    return 2 * m * n - n + n * has_bias, m * n + (0 if instruction.inputs[0] == INPUTS else m * (2 * n - 1))


def _forward_error(instruction: Instruction, inputs: list[Rounded], parameters: list[Rounded]) -> Rounded:
    (a,), (weight, *bias) = inputs, parameters
    return sum((term(b) for b in bias), start=product(a, weight.T)).rounded()


def _reverse_error(
    instruction: Instruction, inputs: list[Rounded], parameters: list[Rounded], value: Rounded, bar: Rounded
) -> Bars:
    (a,), (weight, *bias) = inputs, parameters
    gradients = [product(bar.T, a), *(bar.summands(axis=0) for _ in bias)]
    return Bars([product(bar, weight).rounded()], gradients)


AFFINE = Operation(
    "affine", _primal, "sample", _operations, _forward_error, _reverse_error, shift="passed", is_linear=True
)
