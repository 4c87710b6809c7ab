"""Running error analysis: what roundings can do to a loss and its gradient, to first order [Higham 2002, 3.3].

The bound of every value and cotangent is carried along with it through one forward and one reverse pass in float64.
It is an estimate in that second-order terms are left out and the passes themselves round; it serves to tell a
gradient that is off by its arithmetic from one that is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from difflab.network import MLP
from difflab.number_systems import FLOAT64
from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.losses import LOSSES
from difflab.program import TARGETS, Instruction, divisor, values


RULE_ROUNDINGS = 8
"""Roundings in a scalar rule, more than any ulp bound in the tables stands for."""


@dataclass(frozen=True)
class RoundingErrors:
    """First-order bounds.

    Attributes
    ----------
    value : of the error of the loss.
    gradient : (n_params,) of the error of each entry.
    """

    value: float
    gradient: np.ndarray


@dataclass
class _Passes:
    """Values, cotangents and their bounds, by number of the value."""

    net: MLP
    theta: np.ndarray
    unit: float
    textbook: bool
    made: list[np.ndarray]
    errors: list[np.ndarray]
    bars: list[np.ndarray]
    bar_errors: list[np.ndarray]
    gradient: np.ndarray


def rounding_errors(
    net: MLP, theta: np.ndarray, x: np.ndarray, y: np.ndarray, dtype: str, textbook: bool = False
) -> RoundingErrors:
    """Bounds for arithmetic in ``dtype``, with its unit roundoff and its smallest normal number.

    Parameters
    ----------
    theta : (n_params,)
    x : (batch, n_inputs)
    y : (batch, n_outputs), or class indices (batch,)
    textbook : whether derivatives are formed as differences like 1 - a**2 or p - y, whose error is absolute
    """
    theta, x = theta.astype(np.float64), x.astype(np.float64)
    y = np.eye(net.n_outputs)[y] if y.ndim == 1 else y.astype(np.float64)
    with np.errstate(all="ignore"):
        made = values(net.program, FLOAT64, theta, x, y)
        errors, bars, bar_errors = ([np.zeros(value.shape) for value in made] for _ in range(3))
        unit = float(np.finfo(dtype).eps) / 2
        passes = _Passes(net, theta, unit, textbook, made, errors, bars, bar_errors, np.zeros(net.n_params))
        numbered = list(enumerate(net.program.instructions, 2))
        for number, instruction in numbered:
            _FORWARD[instruction.operation](passes, instruction, number)
        parts = divisor(net.program, len(x))
        for number, instruction in reversed(numbered):
            _REVERSE[instruction.operation](passes, instruction, number)
    value = (passes.errors[-1].sum() + len(x) * passes.unit * np.abs(made[-1]).sum()) / parts
    return RoundingErrors(float(value), passes.gradient + float(np.finfo(dtype).tiny))


def _affine(passes: _Passes, instruction: Instruction, number: int) -> None:
    (a,), (weight, bias) = instruction.inputs, (p.of(passes.theta) for p in instruction.parameters)
    terms = weight.shape[1] + 2
    magnitude = np.abs(passes.made[a]) @ np.abs(weight.T) + np.abs(bias)
    passes.errors[number] = terms * passes.unit * magnitude + passes.errors[a] @ np.abs(weight.T)


def _affine_reverse(passes: _Passes, instruction: Instruction, number: int) -> None:
    (a,), (weight, bias) = instruction.inputs, instruction.parameters
    value, error = np.abs(passes.made[a]), passes.errors[a]
    bar, bar_error = np.abs(passes.bars[number]), passes.bar_errors[number]
    matrix, u, batch = weight.of(passes.theta), passes.unit, len(value)
    weight.of(passes.gradient)[...] += bar_error.T @ value + bar.T @ (error + (batch + 2) * u * value)
    bias.of(passes.gradient)[...] += (bar_error + (batch + 1) * u * bar).sum(axis=0)
    passes.bars[a] = passes.bars[a] + passes.bars[number] @ matrix
    passes.bar_errors[a] += (bar_error + (matrix.shape[0] + 2) * u * bar) @ np.abs(matrix)


def _activation(passes: _Passes, instruction: Instruction, number: int) -> None:
    (z,) = instruction.inputs
    slope = _slope(instruction, passes.made[z])
    rule = RULE_ROUNDINGS * passes.unit * np.abs(passes.made[number])
    passes.errors[number] = np.abs(slope) * passes.errors[z] + rule


def _activation_reverse(passes: _Passes, instruction: Instruction, number: int) -> None:
    (z,) = instruction.inputs
    slope = _slope(instruction, passes.made[z])
    row = ACTIVATIONS[str(instruction.function)]
    steepness = np.abs(slope) * row.relative_curvature if row.relative_curvature < np.inf else np.inf
    curvature = np.minimum(steepness, row.max_curvature)
    formed = 1.0 if passes.textbook else np.abs(slope)
    slope_error = curvature * passes.errors[z] + RULE_ROUNDINGS * passes.unit * formed
    passes.bars[z] = passes.bars[z] + passes.bars[number] * slope
    passes.bar_errors[z] += passes.bar_errors[number] * np.abs(slope) + np.abs(passes.bars[number]) * slope_error


def _slope(instruction: Instruction, z: np.ndarray) -> np.ndarray:
    return np.frompyfunc(ACTIVATIONS[str(instruction.function)].derivative, 1, 1)(z).astype(np.float64)


def _loss(passes: _Passes, instruction: Instruction, number: int) -> None:
    z, y = (passes.made[i] for i in instruction.inputs)
    bar = _loss_cotangent(instruction, z, y)
    magnitude = np.abs(z).max(axis=1) + np.abs(passes.made[number])
    terms = (z.shape[1] + RULE_ROUNDINGS) * passes.unit * magnitude
    passes.errors[number] = (np.abs(bar) * passes.errors[instruction.inputs[0]]).sum(axis=1) + terms


def _loss_reverse(passes: _Passes, instruction: Instruction, number: int) -> None:
    z, y = instruction.inputs
    row = LOSSES[str(instruction.function)]
    parts = divisor(passes.net.program, len(passes.made[z]))
    bar = _loss_cotangent(instruction, passes.made[z], passes.made[TARGETS])
    formed = np.abs(bar)
    if passes.textbook or row.is_difference(passes.made[y]):
        formed = 2 * formed + np.abs(passes.made[y])
    rule = (passes.made[z].shape[1] + RULE_ROUNDINGS) * passes.unit * formed
    passes.bars[z] = passes.bars[z] + bar / parts
    passes.bar_errors[z] += (row.max_curvature * passes.errors[z].max(axis=1, keepdims=True) + rule) / parts


def _loss_cotangent(instruction: Instruction, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    bar = np.empty(z.shape)
    for sample in zip(z, y, bar, strict=True):
        LOSSES[str(instruction.function)].value_and_cotangent(*sample)
    return bar


_Rule = Callable[[_Passes, Instruction, int], None]
_FORWARD: dict[str, _Rule] = {"affine": _affine, "activation": _activation, "loss": _loss}
_REVERSE: dict[str, _Rule] = {"affine": _affine_reverse, "activation": _activation_reverse, "loss": _loss_reverse}
