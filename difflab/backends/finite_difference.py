"""Numeric differentiation: the primal at perturbed points, with no derivative rule anywhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from difflab.backends.arguments import Arguments
from difflab.backends.contract import Backend, Prepared, accumulated_rounding
from difflab.counting import primal_operations
from difflab.network import MLP, known
from difflab.number_systems import COMPLEX128, FLOAT64
from difflab.program import primal
from difflab.stencils import CENTRAL, FORWARD, Stencil


EPS = float(np.finfo(np.float64).eps)
STENCILS = {"forward": FORWARD, "central": CENTRAL}
COMPLEX_STEP = 2.0**-200
"""Small enough for a truncation error below eps**2; the imaginary part never cancels [Squire, Trapp 1998]."""


@dataclass(frozen=True, repr=False)
class FiniteDifference(Backend):
    """Finite differences of the float64 primal, one parameter at a time.

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
        if self.step is not None and not 0 < self.step < 1:
            raise ValueError(f"step must lie between 0 and 1, got {self.step!r}")

    def _prepare(self, net: MLP) -> Prepared:
        return PreparedComplexStep(net, self) if self.scheme == "complex" else PreparedDifference(net, self)


class _PreparedOnPrimal(Prepared):
    """What the schemes share: values by the NumPy primal."""

    backend: FiniteDifference

    def _value(self, arguments: Arguments) -> float:
        return float(primal(self.net.program, FLOAT64, arguments.theta, arguments.x, arguments.y))

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
        total = 0.0
        for offset, weight in zip(self.stencil.offsets, self.stencil.weights, strict=True):
            theta[i] = centre + offset * step
            total += float(weight) * (
                value if offset == 0 else float(primal(self.net.program, FLOAT64, theta, arguments.x, arguments.y))
            )
        theta[i] = centre
        return total / step

    def _step_at(self, entry: float) -> float:
        """Scaled by the power of two above a large entry, and corrected so that entry + step is exact."""
        step = self.step * 2.0 ** np.ceil(np.log2(max(1.0, abs(entry))))
        return (entry + step) - entry

    def predicted_error(self, theta: np.ndarray, x: np.ndarray, value: float, gradient: np.ndarray) -> float:
        """Ten times the two errors of the stencil in every entry.

        A derivative of order k with respect to a weight carries the k-th power of its input, which sets the scale
        of the truncation error.
        """
        k = self.stencil.order + 1
        scale = 1.0 + float(np.mean(np.abs(x).max(axis=1) ** k))
        value_error = EPS * max(abs(value), 1.0)
        error = self.stencil.truncation_error(self.step, scale) + self.stencil.rounding_error(self.step, value_error)
        norm = float(np.linalg.norm(gradient))
        return 10 * np.sqrt(theta.size) * error / norm if norm else np.inf


class PreparedComplexStep(_PreparedOnPrimal):
    """f'(x) = Im f(x + i h) / h + O(h**2), without a difference."""

    def __init__(self, net: MLP, backend: FiniteDifference) -> None:
        super().__init__(net, backend)
        self.step = backend.step or COMPLEX_STEP
        self._count(net.n_params + 1)

    def _value_and_gradient(self, arguments: Arguments) -> float:
        theta, x, y = (COMPLEX128.array(a) for a in (arguments.theta, arguments.x, arguments.y))
        theta = theta.copy()
        for i in range(theta.size):
            theta[i] += 1j * self.step
            arguments.out[i] = primal(self.net.program, COMPLEX128, theta, x, y).imag / self.step
            theta[i] = arguments.theta[i]
        return self._value(arguments)

    def predicted_error(self, theta: np.ndarray, x: np.ndarray, value: float, gradient: np.ndarray) -> float:
        return accumulated_rounding(self.net, len(x), EPS)
