"""Running error analysis: what roundings can do to a loss and its gradient, to first order [Higham 2002, 3.3].

The bound of every value and cotangent is carried along with it through one forward and one reverse pass in float64.
It is an estimate in that second-order terms are left out and the passes themselves round; it serves to tell a
gradient that is off by its arithmetic from one that is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from difflab.network import MLP
from difflab.number_systems import FLOAT64
from difflab.primitives.operations import OPERATIONS, Instruction, Rounded
from difflab.program import Program, total, values


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


class _Passes:
    """Values and the bounds of their errors, by number of the value."""

    def __init__(
        self, program: Program, arguments: tuple[np.ndarray, ...], unit: float, underflow: float, textbook: bool
    ) -> None:
        self.program, self.unit, self.underflow, self.textbook = program, unit, underflow, textbook
        self.theta, x, y = arguments
        self.made = [np.asarray(value) for value in values(program, FLOAT64, self.theta, x, y)]
        self.errors = [np.zeros(value.shape) for value in self.made]
        for number, instruction in program.numbered:
            row = OPERATIONS[instruction.operation]
            self.errors[number] = row.forward_error(instruction, self.rounded(number, instruction)) + self.underflow

    def rounded(self, number: int, instruction: Instruction) -> Rounded:
        return Rounded(
            self.unit,
            self.textbook,
            [self.made[i] for i in instruction.inputs],
            [self.errors[i] for i in instruction.inputs],
            [parameter.of(self.theta) for parameter in instruction.parameters],
            self.made[number],
            self.errors[number],
        )

    def gradient(self) -> np.ndarray:
        """Bounds of the errors of all entries, by the reverse pass."""
        bars: list[Any] = [0.0] * len(self.made)
        bar_errors: list[Any] = [0.0] * len(self.made)
        losses = self.made[self.program.losses]
        bars[self.program.losses] = np.full(len(losses), 1 / self.program.divisor(len(losses)))
        bar_errors[self.program.losses] = self.unit * bars[self.program.losses]
        found = np.zeros(len(self.theta))
        for number, instruction in reversed(self.program.numbered):
            rule, rounded = OPERATIONS[instruction.operation].reverse_error, self.rounded(number, instruction)
            made = rule(instruction, rounded, bars[number], bar_errors[number])
            for value, added in zip(instruction.inputs, made.inputs, strict=False):
                if added is not None:
                    bars[value] = bars[value] + added[0]
                    bar_errors[value] = bar_errors[value] + added[1] + self.underflow
            for parameter, error in zip(instruction.parameters, made.parameters, strict=True):
                parameter.of(found)[...] += error
        return found


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
    with np.errstate(all="ignore"):
        unit, underflow = float(np.finfo(dtype).eps) / 2, float(np.finfo(dtype).tiny)
        passes = _Passes(net.program, (theta.astype(np.float64), *_rows(net, x, y)), unit, underflow, textbook)
        gradient = passes.gradient()
        losses, numbers = passes.made[net.program.losses], net.program.totals
        parts = net.program.divisor(len(losses))
        value = (passes.errors[net.program.losses].sum() + len(losses) * unit * np.abs(losses).sum()) / parts
        value += sum(float(passes.errors[number]) + unit * abs(float(passes.made[number])) for number in numbers)
        value += unit * abs(float(total(net.program, FLOAT64, passes.made)))
    return RoundingErrors(_known(float(value)), _known(gradient + underflow))


def _known(bound: Any) -> Any:
    """A bound that overflowed on the way to NaN is none."""
    return np.where(np.isnan(bound), np.inf, bound)[()]


def gains(net: MLP, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[list[np.ndarray], list[float]]:
    """Every value in float64, and for each instruction how much it enlarges the largest error of its inputs."""
    program = net.program
    with np.errstate(all="ignore"):
        passes = _Passes(program, (theta, *_rows(net, x, y)), 0.0, 0.0, False)
        passes.errors = [np.ones(value.shape) for value in passes.made]
        found = []
        for number, instruction in program.numbered:
            row = OPERATIONS[instruction.operation]
            found.append(float(np.max(row.forward_error(instruction, passes.rounded(number, instruction)))))
    return passes.made, found


def _rows(net: MLP, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return x.astype(np.float64), np.eye(net.n_outputs)[y] if y.ndim == 1 else y.astype(np.float64)
