"""a = f(z; p), entry by entry; p is a constant of the network, one learnable number, or one for each unit."""

from __future__ import annotations

from typing import Any

import numpy as np

from difflab.number_systems import Array, NumberSystem
from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.operations.instruction import Instruction
from difflab.primitives.operations.operation import RULE_ROUNDINGS, Bars, Operation, Rounded
from difflab.primitives.rules import rule_operations


CURVATURE_STEP = 2.0**-17
"""Of the difference of slopes that stands for a second derivative without a rule."""


def _row(instruction: Instruction) -> Any:
    return ACTIVATIONS[str(instruction.function)]


def _primal(m: NumberSystem, instruction: Instruction, inputs: list[Array], parameters: list[Array]) -> Array:
    row = _row(instruction)
    if row.parameter is None:
        return row.expression(m, inputs[0])
    return row.expression(m, inputs[0], parameters[0] if parameters else m.array(np.array(instruction.constants)))


def _operations(instruction: Instruction, widths: tuple[int, ...]) -> tuple[int, int]:
    row, width = _row(instruction), instruction.width
    reverse = rule_operations(row.derivative) + 1
    if instruction.parameters:
        reverse += rule_operations(row.parameter_derivative) + 1
    return width * rule_operations(row.value), width * reverse


def _evaluated(rule: Any, instruction: Instruction, rounded: Rounded, z: np.ndarray) -> np.ndarray:
    """A scalar rule at every entry, with the parameter of its unit."""
    if _row(instruction).parameter is None:
        return np.frompyfunc(rule, 1, 1)(z).astype(np.float64)
    p = rounded.parameters[0] if rounded.parameters else instruction.constants[0]
    return np.frompyfunc(rule, 2, 1)(z, p).astype(np.float64)


def _curvature(instruction: Instruction, rounded: Rounded, z: np.ndarray) -> np.ndarray:
    row = _row(instruction)
    if row.second_derivative is not None:
        return np.abs(_evaluated(row.second_derivative, instruction, rounded, z))
    below, above = (_evaluated(row.derivative, instruction, rounded, z + by) for by in (-CURVATURE_STEP, 0.0))
    return np.abs(above - below) / CURVATURE_STEP


def _bookish(rounded: Rounded, magnitude: np.ndarray) -> Any:
    """The size of numbers that a textbook formula subtracts; 1 stands for tails like 1 - a**2 or log(1 + exp(z))."""
    if not rounded.textbook:
        return magnitude
    return magnitude + np.maximum(1.0, np.abs(rounded.parameters[0] if rounded.parameters else 1.0))


def _forward_error(instruction: Instruction, rounded: Rounded) -> np.ndarray:
    (z,), (error,) = rounded.inputs, rounded.errors
    slope = _evaluated(_row(instruction).derivative, instruction, rounded, z)
    return np.abs(slope) * error + RULE_ROUNDINGS * rounded.unit * _bookish(rounded, np.abs(rounded.value))


def _reverse_error(instruction: Instruction, rounded: Rounded, bar: np.ndarray, bar_error: np.ndarray) -> Bars:
    (z,), (error,) = rounded.inputs, rounded.errors
    slope = _evaluated(_row(instruction).derivative, instruction, rounded, z)
    here = _curvature(instruction, rounded, z)
    nearby = np.maximum(here, np.maximum(*(_curvature(instruction, rounded, z + by) for by in (-error, error))))
    formed = _bookish(rounded, np.abs(slope)) + np.where(here > 0, here * np.abs(z), 0)
    slope_error = nearby * error + RULE_ROUNDINGS * rounded.unit * formed
    z_bar = bar * slope, bar_error * np.abs(slope) + np.abs(bar) * slope_error
    if not rounded.parameters:
        return Bars([z_bar], [])
    return Bars([z_bar], [_parameter_error(instruction, rounded, bar, bar_error)])


def _parameter_error(instruction: Instruction, rounded: Rounded, bar: np.ndarray, bar_error: np.ndarray) -> np.ndarray:
    (z,), (error,), rule = rounded.inputs, rounded.errors, _row(instruction).parameter_derivative
    slope = _evaluated(rule, instruction, rounded, z)
    moved = np.maximum(
        *(np.abs(_evaluated(rule, instruction, rounded, z + by) - slope) for by in (-error, error))
    )  # fmt: skip
    rule_error = (RULE_ROUNDINGS + bar.size) * rounded.unit * _bookish(rounded, np.abs(slope))
    terms = bar_error * np.abs(slope) + np.abs(bar) * (moved + rule_error)
    return terms.sum(axis=0) if len(rounded.parameters[0]) > 1 else terms.sum().reshape(1)


def _kinks(instruction: Instruction, inputs: list[Array], parameters: list[Array]) -> list[Array]:
    return [inputs[0] - kink for kink in _row(instruction).kinks]


ACTIVATION = Operation("activation", _primal, "entry", _operations, _forward_error, _reverse_error, _kinks)
