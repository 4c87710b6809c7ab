"""Batch normalisation [Ioffe, Szegedy 2015; lecture notes 002, slides 35 and 36].

a = gamma (z - mean) / sqrt(variance + eps) + beta, with the mean and the population variance of each unit over the
batch in training, and with given ones in inference; gamma, beta : (width,).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from difflab.number_systems import FLOAT64, Array, NumberSystem
from difflab.primitives.operations.instruction import Instruction
from difflab.primitives.operations.operation import Bars, Operation, Rounded


def _primal(m: NumberSystem, instruction: Instruction, inputs: list[Array], parameters: list[Array]) -> Array:
    """The one constant is eps."""
    (z,), (gamma, beta), eps = inputs, parameters, m.array(np.array(instruction.constants))
    centred = z - m.sum(z.T) / len(z) if len(z) > 1 else 0 * z
    return centred / m.deviation(centred.T, eps) * gamma + beta


def _operations(instruction: Instruction, widths: tuple[int, ...]) -> tuple[int, int]:
    """Mean, deviation, and their use; what is done once for the batch is not counted."""
    return 10 * instruction.width, 17 * instruction.width


def _normalised(instruction: Instruction, rounded: Rounded) -> tuple[np.ndarray, ...]:
    """Normalised values and deviation, each followed by the bound of its error."""
    (z,), (error,), u, n = rounded.inputs, rounded.errors, rounded.unit, len(rounded.inputs[0])
    centred = z - z.mean(axis=0)
    centred_error = error + error.mean(axis=0) + (n + 1) * u * np.abs(z).mean(axis=0) + u * np.abs(centred)
    deviation = FLOAT64.deviation(centred.T, np.array(instruction.constants))
    normal = centred / deviation
    deviation_error = (np.abs(normal) * centred_error).mean(axis=0) + (n + 8) * u * deviation
    normal_error = centred_error / deviation + np.abs(normal) * deviation_error / deviation + u * np.abs(normal)
    return normal, normal_error, deviation, deviation_error


def _forward_error(instruction: Instruction, rounded: Rounded) -> np.ndarray:
    gamma, beta = rounded.parameters
    normal, normal_error, _, _ = _normalised(instruction, rounded)
    return np.abs(gamma) * normal_error + 2 * rounded.unit * (np.abs(gamma * normal) + np.abs(beta))


def _reverse_error(instruction: Instruction, rounded: Rounded, bar: np.ndarray, bar_error: np.ndarray) -> Bars:
    """z_bar = (g - mean(g) - normal mean(g normal)) / deviation, with g = gamma bar."""
    normal, normal_error, deviation, deviation_error = _normalised(instruction, rounded)
    u, n, gamma = rounded.unit, len(bar), rounded.parameters[0]
    g, g_error = gamma * bar, np.abs(gamma) * bar_error + u * np.abs(gamma * bar)
    mean, mean_error = g.mean(axis=0), g_error.mean(axis=0) + n * u * np.abs(g).mean(axis=0)
    terms, terms_error = g * normal, g_error * np.abs(normal) + np.abs(g) * normal_error
    dot, dot_error = terms.mean(axis=0), terms_error.mean(axis=0) + (n + 1) * u * np.abs(terms).mean(axis=0)
    z_bar = (g - mean - normal * dot) / deviation
    formed = 3 * u * (np.abs(g) + np.abs(mean) + np.abs(normal * dot))
    inner = g_error + mean_error + normal_error * np.abs(dot) + np.abs(normal) * dot_error + formed
    z_bar_error = (inner + np.abs(z_bar) * deviation_error) / deviation
    of_gamma = bar_error * np.abs(normal) + np.abs(bar) * (normal_error + (n + 1) * u * np.abs(normal))
    of_beta = bar_error + n * u * np.abs(bar)
    return Bars([(z_bar, z_bar_error)], [of_gamma.sum(axis=0), of_beta.sum(axis=0)])


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


def _inference_forward_error(instruction: Instruction, rounded: Rounded) -> np.ndarray:
    (z,), (error,), (gamma, beta) = rounded.inputs, rounded.errors, rounded.parameters
    eps, mean, variance = given_statistics(np.array(instruction.constants), instruction.width)
    scale = np.abs(gamma) / np.sqrt(variance + eps)
    return scale * (error + 6 * rounded.unit * np.abs(z - mean)) + 2 * rounded.unit * np.abs(beta)


def _inference_reverse_error(
    instruction: Instruction, rounded: Rounded, bar: np.ndarray, bar_error: np.ndarray
) -> Bars:
    (z,), (error,), (gamma, _) = rounded.inputs, rounded.errors, rounded.parameters
    eps, mean, variance = given_statistics(np.array(instruction.constants), instruction.width)
    deviation, u, n = np.sqrt(variance + eps), rounded.unit, len(bar)
    z_bar_error = np.abs(gamma) / deviation * (bar_error + 5 * u * np.abs(bar))
    normal = np.abs(z - mean) / deviation
    of_gamma = bar_error * normal + np.abs(bar) * (error / deviation + (n + 5) * u * normal)
    of_beta = bar_error + n * u * np.abs(bar)
    return Bars([(bar * gamma / deviation, z_bar_error)], [of_gamma.sum(axis=0), of_beta.sum(axis=0)])


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
