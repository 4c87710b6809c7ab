"""Running error analysis: what roundings can at most do to a loss and its gradient [Higham 2002, 3.1 to 3.4].

The rules of back-propagation run once forward and once in reverse over numbers that carry the bounds of their errors
with them. The bounds hold for every entry, for sums and products of matrices in any order and with or without fused
operations. They suppose that

* theta, x and y are numbers of the format, rounding is to nearest, and underflow is gradual;
* operations are those of the rules of back-propagation, each result as near to the exact one as the nearest number of
  the format, or nearer, and activations are evaluated in float64, or in float32 where their rules hold in it;
* activations keep the bounds in ulp of their table, which tests sample and nothing proves, and exp, log and log1p are
  within an ulp.

Where a number may overflow, where a divisor may be zero, and for activations beyond their domains of which nothing is
known, the bound is infinite. Of numbers that are not finite nothing is said: back-propagation reports them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from difflab.network import MLP
from difflab.primitives.operations import INPUTS, OPERATIONS
from difflab.primitives.rounded import EXACT, OF_ZERO, SLACK, Arithmetic, Rounded, Sum, arithmetic_of, term
from difflab.program import Program


@dataclass(frozen=True)
class RoundingErrors:
    """Bounds that hold.

    Attributes
    ----------
    value : of the error of the loss.
    gradient : (n_params,) of the error of each entry.
    """

    value: float
    gradient: np.ndarray


class _Passes:
    """All values of a program as an arithmetic has them, and what they lead to."""

    def __init__(self, program: Program, by: Arithmetic, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
        self.program, self.by, self.theta = program, by, theta
        self.made = [by.exact(given) for given in (x, y, *program.draw_masks(len(x)))]
        self.parameters = {
            number: [by.exact(parameter.of(theta)) for parameter in step.parameters]
            for number, step in program.numbered
        }
        for number, step in program.numbered:
            inputs = [self.made[i] for i in step.inputs]
            self.made.append(OPERATIONS[step.operation].forward_error(step, inputs, self.parameters[number]))

    def value(self) -> float:
        """The bound of the loss; entries of all penalties are added up in any order."""
        losses = self.made[self.program.losses]
        parts = self.program.divisor(len(losses.middle))
        loss = losses.sum(axis=0) / float(parts)
        numbered = dict(self.program.numbered)
        for number in self.program.totals:
            total = self.made[number]
            size = sum(parameter.size for n in self.program.totals for parameter in numbered[n].parameters)
            loss = loss + total.worse(self.by.growth(size))
        return float(loss.error)

    def gradient(self) -> np.ndarray:
        """Bounds of the errors of all entries, by the reverse pass."""
        program, found = self.program, _Accumulated(len(self.theta))
        bars: list[Sum | None] = [None] * len(self.made)
        bars[program.losses] = term(self._share(len(self.made[program.losses].middle)))
        for number in program.totals:
            bars[number] = term(self.by.exact(1.0))
        for number, step in reversed(program.numbered):
            bar = bars[number]
            if bar is None:
                continue
            inputs, rule = [self.made[i] for i in step.inputs], OPERATIONS[step.operation].reverse_error
            made = rule(step, inputs, self.parameters[number], self.made[number], bar.rounded())
            for value, added in zip(step.inputs, made.inputs, strict=False):
                if added is not None and value >= program.n_given:
                    before = bars[value]
                    bars[value] = term(added) if before is None else before + term(added)
            for parameter, summed in zip(step.parameters, made.parameters, strict=True):
                found.add(slice(parameter.offset, parameter.offset + parameter.size), summed.reshape(-1))
        return found.errors(self.by)

    def _share(self, batch: int) -> Rounded:
        """What the loss of each sample counts in that of the batch."""
        parts = self.program.divisor(batch)
        share, is_power_of_two = self.by.exact(np.full(batch, 1 / parts)), np.frexp(parts)[0] == 0.5
        return share if is_power_of_two else share.rounded()


class _Accumulated:
    """Sums of the entries of a gradient over all uses of their parameters."""

    def __init__(self, n_params: int) -> None:
        self.error, self.magnitude, self.roundings = np.zeros((3, n_params))
        self.quantum = np.full(n_params, OF_ZERO)

    def add(self, places: slice, summed: Sum) -> None:
        self.roundings[places] += summed.roundings + ((self.magnitude[places] > 0) & (summed.magnitude > 0))
        self.error[places] += summed.exact.error
        self.magnitude[places] += summed.magnitude
        self.quantum[places] = np.minimum(self.quantum[places], summed.quantum)

    def errors(self, by: Arithmetic) -> np.ndarray:
        exact = Rounded(by, np.zeros(self.error.shape), np.zeros(self.error.shape), self.error)
        return Sum(exact, self.magnitude, self.roundings, self.quantum).rounded().error


def rounding_errors(
    net: MLP, theta: np.ndarray, x: np.ndarray, y: np.ndarray, dtype: str, textbook: bool = False
) -> RoundingErrors:
    """Bounds of the errors of back-propagation in the arithmetic of a format.

    Parameters
    ----------
    theta : (n_params,)
    x : (batch, n_inputs)
    y : (batch, n_outputs), or class indices (batch,)
    dtype : ``"float64"``, ``"float32"``, ``"float16"`` or ``"bfloat16"``
    textbook : whether derivatives are formed as differences like 1 - a**2 or p - y, whose error is absolute. Such
        formulas are not known one by one, and what is found is an estimate, not a bound.
    """
    with np.errstate(all="ignore"):
        passes = _Passes(net.program, arithmetic_of(dtype, textbook), theta.astype(np.float64), *_rows(net, x, y))
        return RoundingErrors(passes.value() * SLACK, passes.gradient() * SLACK)


STEP = 2.0**-100
"""Of errors so small that what they lead to is in proportion."""


def gains(net: MLP, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[list[np.ndarray], list[float]]:
    """Every value in float64, and for each instruction how much it enlarges the largest error of its inputs."""
    program, found = net.program, []
    with np.errstate(all="ignore"):
        passes = _Passes(program, EXACT, theta, *_rows(net, x, y))
        moved = [number == INPUTS or number >= program.n_given for number in range(len(passes.made))]
        for number, step in program.numbered:
            inputs = [replace(v, error=np.full(v.shape, STEP * m)) for v, m in zip(passes.made, moved, strict=True)]
            made = OPERATIONS[step.operation].forward_error(
                step, [inputs[i] for i in step.inputs], passes.parameters[number]
            )
            found.append(float(np.max(made.error)) / STEP)
    return [value.middle for value in passes.made], found


def _rows(net: MLP, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return x.astype(np.float64), np.eye(net.n_outputs)[y] if y.ndim == 1 else y.astype(np.float64)
