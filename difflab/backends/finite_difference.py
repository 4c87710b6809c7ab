"""Numeric differentiation: the primal at perturbed points.

No derivative rule has a part in the gradient; the predicted error of the complex step takes slopes from the tables.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from difflab.backends.arguments import Arguments
from difflab.backends.contract import Backend, Prepared
from difflab.counting import primal_operations
from difflab.enclosures.rounding import gains, rounding_errors
from difflab.errors import known
from difflab.network import MLP
from difflab.number_systems import COMPLEX128, FLOAT64
from difflab.program import primal
from difflab.stencils import CENTRAL, FORWARD, Stencil


EPS, TINY = float(np.finfo(np.float64).eps), float(np.finfo(np.float64).tiny)
STENCILS = {"forward": FORWARD, "central": CENTRAL}
COMPLEX_STEP = 2.0**-540
"""So small that its truncation error vanishes, which no difference has to pay for [Squire, Trapp 1998].

Its square vanishes as well, so that it never tips a number that sits on a kink.
"""


@dataclass(frozen=True, repr=False)
class FiniteDifference(Backend):
    """Finite differences of the float64 primal, one parameter at a time.

    The complex step takes branches, as of a relu or a maxout, by real parts: every operation is analytic on each side
    of its kinks, and at a kink the step follows the convention of the lab.

    Parameters
    ----------
    scheme : ``"forward"``, ``"central"`` or ``"complex"``
    step : the step for a parameter of magnitude up to 1, scaled up with larger ones; by default the one that
        minimises the sum of truncation and rounding error for a loss and derivatives of order 1
    """

    scheme: str = "central"
    step: float | None = None
    name = "finite_difference"

    def __post_init__(self) -> None:
        known(self.scheme, ("complex", *STENCILS), "scheme")
        if self.step is not None and not (isinstance(self.step, int | float) and 0 < self.step < 1):
            raise ValueError(f"step must lie between 0 and 1, got {self.step!r}")

    def _prepare(self, net: MLP) -> Prepared:
        return PreparedComplexStep(net, self) if self.scheme == "complex" else PreparedDifference(net, self)


class _PreparedOnPrimal(Prepared):
    """What the schemes share: values by the NumPy primal."""

    backend: FiniteDifference

    def _value(self, arguments: Arguments) -> float:
        return self._value_at(arguments, arguments.theta)

    def _value_at(self, arguments: Arguments, theta: np.ndarray) -> float:
        with np.errstate(all="ignore"):
            return float(primal(self.net.program, FLOAT64, theta, arguments.x, arguments.y))

    def _count(self, primal_calls: int) -> None:
        self.facts.update(primal_calls=primal_calls, gradient_ops=primal_calls * primal_operations(self.net.program))


class PreparedDifference(_PreparedOnPrimal):
    """A stencil of real points."""

    def __init__(self, net: MLP, backend: FiniteDifference) -> None:
        super().__init__(net, backend)
        self.stencil: Stencil = STENCILS[backend.scheme]
        self.step = backend.step or self.stencil.best_step(EPS)
        reuses_centre = 0 in self.stencil.offsets
        self._count((len(self.stencil.offsets) - reuses_centre) * net.n_params + 1)

    def _value_and_gradient(self, arguments: Arguments) -> float:
        value = self._value(arguments)
        theta = arguments.theta.copy()
        for i in range(theta.size):
            arguments.out[i] = self._derivative(arguments, theta, i, value)
        return value

    def _derivative(self, arguments: Arguments, theta: np.ndarray, i: int, value: float) -> float:
        centre, step = theta[i], self._step_at(theta[i])
        if step == 0:
            name = self.net.name_of(i)
            raise ValueError(f"step {self.step!r} must not vanish beside {name}, got {centre!r}; use a larger step")
        total = 0.0
        for offset, weight in zip(self.stencil.offsets, self.stencil.weights, strict=True):
            theta[i] = centre + offset * step
            total += float(weight) * (value if offset == 0 else self._value_at(arguments, theta))
        theta[i] = centre
        return total / step

    def _step_at(self, entry: float) -> float:
        """Scaled by the power of two above a large entry, and corrected so that entry + step is exact."""
        if not np.isfinite(entry):
            return self.step
        step = self.step * 2.0 ** np.ceil(np.log2(max(1.0, abs(entry))))
        return (entry + step) - entry

    def _predicted_error(self, arguments: Arguments) -> np.ndarray:
        """Ten times the two errors of the stencil in each entry; kinks within a step are beyond it."""
        steps = np.array([self._step_at(entry) for entry in arguments.theta])
        value = max(abs(self._value(arguments)), 1.0)
        noise = max(EPS * value, rounding_errors(self.net, *arguments.given, "float64", textbook=True).value)
        with np.errstate(all="ignore"):
            scales = value * derivative_scales(self.net, *arguments.given, self.stencil.order + 1)
            errors = self.stencil.truncation_error(steps, scales) + self.stencil.rounding_error(steps, noise)
        return np.where(np.isnan(errors), np.inf, 10 * errors)


def derivative_scales(net: MLP, theta: np.ndarray, x: np.ndarray, y: np.ndarray, k: int) -> np.ndarray:
    """The scale of the derivative of order ``k`` with respect to each parameter, (n_params,).

    Such a derivative carries the k-th power of what the parameter is multiplied by, in all of its uses together, and of
    what later operations amplify it by, at most the product of their gains.
    """
    made, each = gains(net, theta, x, y)
    program = net.program
    amplified = np.zeros(len(made))
    amplified[[program.losses, *program.totals]] = 1.0
    uses = {parameter: np.zeros(len(x)) for parameter in net.parameters}
    for (number, step), gain in reversed(list(zip(program.numbered, each, strict=True))):
        later = max(amplified[number], amplified[number] ** (1 / k))
        for parameter in step.parameters:
            reach = np.abs(made[step.inputs[0]]).max(axis=1) if step.inputs else 1.0
            uses[parameter] += np.maximum(reach, 1.0) * later
        for value in step.inputs:
            amplified[value] += amplified[number] * (1.0 if number == program.losses else gain)
    scales = np.zeros(net.n_params)
    for parameter, reach in uses.items():
        parameter.of(scales)[...] = (reach**k).sum() / program.divisor(len(x))
    return scales


class PreparedComplexStep(_PreparedOnPrimal):
    """f'(x) = Im f(x + i h) / h + O(h**2), without a difference."""

    def __init__(self, net: MLP, backend: FiniteDifference) -> None:
        super().__init__(net, backend)
        self.step = backend.step or COMPLEX_STEP
        self._count(net.n_params + 1)

    def _value_and_gradient(self, arguments: Arguments) -> float:
        theta, x, y = (COMPLEX128.array(a) for a in arguments.given)
        theta = theta.copy()
        for i in range(theta.size):
            theta[i] += 1j * self.step
            with np.errstate(all="ignore"):
                arguments.out[i] = primal(self.net.program, COMPLEX128, theta, x, y).imag / self.step
            theta[i] = arguments.theta[i]
        return self._value(arguments)

    def _predicted_error(self, arguments: Arguments) -> np.ndarray:
        """Roundings, ten times the term of second order in the step, and what vanishes below the smallest numbers."""
        value = max(abs(self._value(arguments)), 1.0)
        with np.errstate(all="ignore"):
            third = value * derivative_scales(self.net, *arguments.given, 3)
            truncation = 10 * self.step**2 / 6 * third + TINY / self.step
        errors = rounding_errors(self.net, *arguments.given, "float64", textbook=True).gradient + truncation
        return np.where(np.isnan(errors), np.inf, errors)
