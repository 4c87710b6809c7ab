"""The truth: gradients whose every entry is a proven enclosure, by a reverse sweep in ball arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from difflab.backends.arguments import Arguments, checked, checked_like, no_targets
from difflab.backends.contract import Backend, Prepared
from difflab.enclosures import derivatives
from difflab.enclosures.derivatives import EnclosedValue, Point
from difflab.enclosures.enclosed import ENCLOSED, KINK, ROUNDED, Enclosed
from difflab.enclosures.precision import FIRST_BITS, MAX_BITS
from difflab.network import MLP


DTYPES = ("float64", "float32", "float16", "bfloat16")
"""All of their numbers are float64 numbers too, so that nothing is rounded on the way in."""

MAX_HESSIAN = 1000
"""Parameters beyond which a full Hessian is not made: it holds their square."""


@dataclass(frozen=True)
class Enclosure:
    """A certified value and gradient.

    Attributes
    ----------
    net : the network.
    value, value_lower, value_upper : the float64 nearest to the loss, and proven bounds of it.
    gradient : (n_params,) float64, nearest to the true derivatives where ``status`` is ``"rounded"``.
    residual, radius : (n_params,) float64; a true derivative is within ``radius`` of ``gradient + residual``, at a kink
        that of the lab's convention.
    lower, upper : (n_params,) float64, proven bounds of the true derivatives; at a kink, of both one-sided ones.
        There ``gradient`` takes the left slope at every kink, which need not be the left derivative nor lie between
        the bounds where several kinks meet.
    status : (n_params,) of ``"rounded"``, ``"enclosed"`` or ``"kink"``.
    bits : working precision that was needed.
    """

    net: MLP
    value: float
    value_lower: float
    value_upper: float
    gradient: np.ndarray
    residual: np.ndarray
    radius: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    status: np.ndarray
    bits: int

    @property
    def entries(self) -> Enclosed:
        """The gradient alone."""
        return Enclosed(self.gradient, self.residual, self.radius, self.lower, self.upper, self.status, self.bits)


@dataclass(frozen=True, repr=False)
class Certified(Backend):
    """Reverse sweep in Arb balls, precision doubled until every entry rounds to a unique float64.

    Parameters
    ----------
    max_bits : the precision at which entries that are still ambiguous are left ``"enclosed"``
    """

    max_bits: int = MAX_BITS
    name = "certified"

    def __post_init__(self) -> None:
        if not isinstance(self.max_bits, int) or not FIRST_BITS <= self.max_bits <= 2**24:
            raise ValueError(f"max_bits must be an integer from {FIRST_BITS} to 2**24, got {self.max_bits!r}")

    def _prepare(self, net: MLP) -> PreparedCertified:
        return PreparedCertified(net, self)


class PreparedCertified(Prepared):
    """Nothing to do in advance; accepts float64, float32, float16 and bfloat16 [ml_dtypes], all exact rationals.

    What each ``enclose`` method returns is proven, entry by entry; arguments are as for ``value_and_gradient``.
    """

    backend: Certified

    def __init__(self, net: MLP, backend: Certified) -> None:
        super().__init__(net, backend, DTYPES)
        self.facts["primal_calls"] = 1

    def enclose(self, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> Enclosure:
        """The certified value and gradient."""
        return self._enclose(self._checked(theta, x, y))

    def enclose_input_gradient(self, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> Enclosed:
        """The gradient of the loss of the batch with respect to x, (batch, n_inputs)."""
        return derivatives.input_gradient(self._point(theta, x, y), self.backend.max_bits)

    def enclose_per_example_gradients(self, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> Enclosed:
        """The gradient of the loss of each sample, not divided by the batch and without penalties, (batch, n_params).

        Where samples are coupled, as by batch norm in training, the other samples stay what they are.
        """
        return derivatives.per_example_gradients(self._point(theta, x, y), self.backend.max_bits)

    def enclose_jvp(
        self, theta: np.ndarray, x: np.ndarray, theta_dot: np.ndarray, x_dot: np.ndarray | None = None
    ) -> Enclosed:
        """The Jacobian-vector product of the outputs, (batch, n_outputs).

        Parameters
        ----------
        theta_dot : (n_params,)
        x_dot : (batch, n_inputs), or None for zeros
        """
        point = self._point(theta, x, no_targets(self.net, theta, x))
        return derivatives.jvp(point, *_direction(theta, x, theta_dot, x_dot), self.backend.max_bits)

    def enclose_vjp(self, theta: np.ndarray, x: np.ndarray, outputs_bar: np.ndarray) -> Enclosed:
        """The vector-Jacobian product of the outputs with respect to theta, (n_params,).

        Parameters
        ----------
        outputs_bar : (batch, n_outputs)
        """
        targets = no_targets(self.net, theta, x)
        point = self._point(theta, x, targets)
        return derivatives.vjp(point, _like("outputs_bar", outputs_bar, targets), self.backend.max_bits)

    def enclose_hvp(
        self,
        theta: np.ndarray,
        x: np.ndarray,
        y: np.ndarray,
        theta_dot: np.ndarray,
        x_dot: np.ndarray | None = None,
    ) -> Enclosed:
        """The change of the gradient along a direction, (n_params,): the Hessian times ``theta_dot`` if x stays.

        Parameters
        ----------
        theta_dot : (n_params,)
        x_dot : (batch, n_inputs), or None for zeros
        """
        point = self._point(theta, x, y)
        return derivatives.hvp(point, *_direction(theta, x, theta_dot, x_dot), self.backend.max_bits)

    def enclose_hessian(self, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> Enclosed:
        """All second derivatives with respect to theta, (n_params, n_params), for networks that are small enough."""
        point = self._point(theta, x, y)
        if self.net.n_params > MAX_HESSIAN:
            raise ValueError(
                f"a full Hessian must have at most {MAX_HESSIAN} parameters, got {self.net.n_params}; use enclose_hvp"
            )
        return derivatives.hessian(point, self.backend.max_bits)

    def _point(self, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> Point:
        return _exactly(self.net, self._checked(theta, x, y))

    def _checked(self, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> Arguments:
        return checked(self.net, theta, x, y, self.dtypes, allow_nonfinite=None)

    def _enclose(self, arguments: Arguments) -> Enclosure:
        value, found = derivatives.value_and_gradient(_exactly(self.net, arguments), self.backend.max_bits)
        return _enclosure(self.net, value, found)

    def _value_and_gradient(self, arguments: Arguments) -> float:
        made = self._enclose(arguments)
        arguments.out[:] = made.gradient
        return made.value

    def _value(self, arguments: Arguments) -> float:
        return derivatives.value(_exactly(self.net, arguments), self.backend.max_bits).value

    def _predicted_error(self, arguments: Arguments) -> np.ndarray:
        """One rounding of each entry, or two where a narrower number was asked for; else how far the truth may be."""
        made = self._enclose(arguments)
        rounding = np.spacing(np.abs(made.gradient.astype(arguments.theta.dtype))).astype(np.float64)
        farthest = np.maximum(made.upper - made.gradient, made.gradient - made.lower)
        return np.where(made.status == ROUNDED, rounding, np.maximum(rounding, farthest))


def _exactly(net: MLP, arguments: Arguments) -> Point:
    return Point(net.program, *(a.astype(np.float64) for a in arguments.given))


def _direction(
    theta: np.ndarray, x: np.ndarray, theta_dot: np.ndarray, x_dot: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    along_x = np.zeros(x.shape) if x_dot is None else _like("x_dot", x_dot, x)
    return _like("theta_dot", theta_dot, theta), along_x


def _enclosure(net: MLP, value: EnclosedValue, found: Enclosed) -> Enclosure:
    return Enclosure(
        net=net,
        value=value.value,
        value_lower=value.lower,
        value_upper=value.upper,
        gradient=found.nearest,
        residual=found.residual,
        radius=found.radius,
        lower=found.lower,
        upper=found.upper,
        status=found.status,
        bits=found.bits,
    )


__all__ = ["ENCLOSED", "KINK", "ROUNDED", "Certified", "Enclosure", "PreparedCertified"]


def _like(name: str, array: np.ndarray, like: np.ndarray) -> np.ndarray:
    return checked_like(name, array, like).astype(np.float64)
