"""Batch normalisation [Ioffe, Szegedy 2015; lecture notes 002, slides 35 and 36].

a = gamma (z - mean) / sqrt(variance + eps) + beta, with the mean and the population variance of each unit over the
batch in training, and with given ones in inference; gamma, beta : (width,).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from difflab.number_systems import Array, NumberSystem
from difflab.primitives.operations.instruction import Instruction
from difflab.primitives.operations.operation import Bars, Operation
from difflab.primitives.rounded import Rounded


def _primal(m: NumberSystem, instruction: Instruction, inputs: list[Array], parameters: list[Array]) -> Array:
    """The one constant is eps."""
    (z,), (gamma, beta), eps = inputs, parameters, m.array(np.array(instruction.constants))
    centred = z - m.sum(z.T) / len(z) if len(z) > 1 else 0 * z
    return centred / m.deviation(centred.T, eps) * gamma + beta


def _operations(instruction: Instruction, widths: tuple[int, ...]) -> tuple[int, int]:
    """Mean, deviation, and their use; what is done once for the batch is not counted."""
    return 10 * instruction.width, 17 * instruction.width


def _deviation(centred: Rounded, eps: Rounded) -> Rounded:
    """Of each column, scaled by a power of two so that squares neither overflow nor vanish.

    The arithmetic may scale by any other number: three roundings more of every term, and one of the result.
    """
    by, root = centred.arithmetic, np.sqrt(eps.middle)
    _, exponents = np.frexp(np.maximum(centred.reach.max(axis=0), root))
    scale = np.ldexp(1.0, np.clip(exponents, -1000, 1000))
    squares = centred.scaled(1 / scale) * centred.scaled(1 / scale)
    inside = squares.sum(axis=0) / len(centred.middle) + eps.scaled(1 / scale).scaled(1 / scale)
    deviation = inside.worse(by.growth(3)).sqrt().scaled(scale)
    return deviation.worse(by.growth(1))


def _centred(z: Rounded) -> Rounded:
    """The mean in two parts: the first, as the arithmetic has it, is a number that all are shifted by.

    One sample is its own mean exactly.
    """
    n = len(z.middle)
    if n == 1:
        return z.only(np.zeros(z.shape, bool))
    mean = z.sum(axis=0) / n
    shifted = z - mean.settled
    return replace(z - mean, error=(shifted - shifted.sum(axis=0) / n).error)


def _normalised(instruction: Instruction, z: Rounded) -> tuple[Rounded, Rounded]:
    """Normalised values and deviation."""
    eps, centred = z.arithmetic.constant(instruction.constants), _centred(z)
    deviation = _deviation(centred, eps)
    return _over(centred, deviation, eps), deviation


def _over(numbers: Rounded, deviation: Rounded, eps: Rounded) -> Rounded:
    """No deviation is less than the root of eps, but for some roundings."""
    return numbers.over(deviation, least=0.9 * np.sqrt(eps.middle)).rounded(~numbers.is_zero)


def _forward_error(instruction: Instruction, inputs: list[Rounded], parameters: list[Rounded]) -> Rounded:
    gamma, beta = parameters
    return _normalised(instruction, inputs[0])[0] * gamma + beta


def _reverse_error(
    instruction: Instruction, inputs: list[Rounded], parameters: list[Rounded], value: Rounded, bar: Rounded
) -> Bars:
    """z_bar = gamma / deviation (bar - mean(bar) - normal mean(bar normal)); of one sample, exactly 0."""
    normal, deviation = _normalised(instruction, inputs[0])
    n, total, dot = len(bar.middle), bar.summands(axis=0), (bar * normal).summands(axis=0)
    share = 1 / bar.arithmetic.exact(float(n))
    scale = _over(parameters[0], deviation, bar.arithmetic.constant(instruction.constants))
    inner = bar - share * total.rounded() - normal * (share * dot.rounded())
    z_bar = scale * inner if n > 1 else bar.only(np.zeros(bar.shape, bool))
    return Bars([z_bar], [dot, total])


def _inference(m: NumberSystem, instruction: Instruction, inputs: list[Array], parameters: list[Array]) -> Array:
    """Constants are eps, the mean of every unit, the variance of every unit."""
    (z,), (gamma, beta) = inputs, parameters
    eps, mean, variance = given_statistics(m.array(np.array(instruction.constants)), instruction.width)
    return (z - mean) / m.sqrt(variance + eps) * gamma + beta


def given_statistics(constants: Any, width: int) -> tuple[Any, Any, Any]:
    """Eps, mean and variance of the inference form from its constants."""
    return constants[:1], constants[1 : 1 + width], constants[1 + width :]


def _inference_operations(instruction: Instruction, widths: tuple[int, ...]) -> tuple[int, int]:
    return 4 * instruction.width, 9 * instruction.width


def _given(instruction: Instruction, z: Rounded) -> tuple[Rounded, Rounded]:
    """Values normalised with the given statistics, and the deviation."""
    eps, mean, variance = given_statistics(z.arithmetic.constant(instruction.constants), instruction.width)
    deviation = (variance + eps).sqrt()
    return (z - mean) / deviation, deviation


def _inference_forward_error(instruction: Instruction, inputs: list[Rounded], parameters: list[Rounded]) -> Rounded:
    gamma, beta = parameters
    return _given(instruction, inputs[0])[0] * gamma + beta


def _inference_reverse_error(
    instruction: Instruction, inputs: list[Rounded], parameters: list[Rounded], value: Rounded, bar: Rounded
) -> Bars:
    normal, deviation = _given(instruction, inputs[0])
    return Bars([parameters[0] / deviation * bar], [(bar * normal).summands(axis=0), bar.summands(axis=0)])


BATCH_NORM = Operation(
    "batch_norm",
    _primal,
    "column",
    _operations,
    _forward_error,
    _reverse_error,
    constants=("eps",),
    shift="removed",
)
BATCH_NORM_INFERENCE = Operation(
    "batch_norm_inference",
    _inference,
    "entry",
    _inference_operations,
    _inference_forward_error,
    _inference_reverse_error,
    constants=("eps", "mean", "variance"),
    shift="passed",
    is_linear=True,
)
