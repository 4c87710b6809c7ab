"""The contract that every back-end keeps."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from difflab.backends.arguments import Arguments, checked
from difflab.network import MLP


class Unsupported(ValueError):
    """The back-end cannot differentiate this network; ``reason`` says why."""

    def __init__(self, backend: Backend, net: MLP, reason: str) -> None:
        self.reason = reason
        super().__init__(f"{backend!r} cannot differentiate {net}: {reason}")


class NotFinite(FloatingPointError):
    """Finite arguments gave a loss or a gradient that is not finite, as where something overflows."""

    def __init__(self, backend: Backend, net: MLP, value: float, gradient: np.ndarray | None) -> None:
        what = f"a loss of {value!r}"
        if gradient is not None and not (finite := np.isfinite(gradient)).all():
            i = int((~finite).argmax())
            what += (
                f" and {(~finite).sum()} of {len(gradient)} entries not finite, first {net.name_of(i)} = {gradient[i]}"
            )
        super().__init__(
            f"{backend!r} got {what} from finite arguments of {net}; allow_nonfinite=True lets them through"
        )


class Refused(ValueError):
    """The back-end could, but its forecast, in ``reason``, is beyond its limit."""

    def __init__(self, backend: Backend, net: MLP, reason: str) -> None:
        self.reason = reason
        super().__init__(f"{backend!r} refuses {net}: {reason}")


@dataclass(frozen=True, repr=False)
class Backend(ABC):
    """A way to turn a program into derivatives, with its options; its ``repr`` is its label in every table."""

    name: ClassVar[str]
    keeps_code: ClassVar[bool] = False
    """Whether compiled code is kept on disk for the next process."""

    def __repr__(self) -> str:
        """Words are always shown, limits and steps where they differ from the default."""
        words, others = [], []
        for option in dataclasses.fields(self):
            value = getattr(self, option.name)
            if isinstance(value, str):
                words.append(repr(value))
            elif value != option.default:
                others.append(f"{option.name}={value!r}")
        return f"{type(self).__name__}({', '.join(words + others)})"

    def unsupported(self, net: MLP) -> str | None:
        """Why this back-end cannot differentiate ``net``, or None."""
        return None

    def forecast(self, net: MLP, batch: int = 1) -> dict[str, float]:
        """Figures known before anything is prepared: of one sample or, where samples are coupled, of a batch."""
        return {}

    def refusal(self, net: MLP) -> str | None:
        """The forecast that is beyond this back-end's limit, or None."""
        return None

    def prepare(self, net: MLP) -> Prepared:
        """Do all that is done once for a network.

        Raises
        ------
        Unsupported
            With the sentence of :meth:`unsupported`.
        Refused
            With the sentence of :meth:`refusal`.
        """
        if reason := self.unsupported(net):
            raise Unsupported(self, net, reason)
        if reason := self.refusal(net):
            raise Refused(self, net, reason)
        return self._prepare(net)

    @abstractmethod
    def _prepare(self, net: MLP) -> Prepared: ...


class Prepared(ABC):
    """A back-end made ready for one network; it may keep a workspace, and serves one thread at a time.

    Attributes
    ----------
    net : the network.
    backend : the back-end and its options.
    dtypes : names of the dtypes it computes in.
    facts : figures known after preparation: ``primal_calls``, the runs of the primal for one gradient, and, where
        they are floating-point, ``gradient_ops``, the operations of one sample's loss and gradient as computed.
    """

    def __init__(self, net: MLP, backend: Backend, dtypes: tuple[str, ...] = ("float64",)) -> None:
        self.net = net
        self.backend = backend
        self.dtypes = dtypes
        self.facts: dict[str, Any] = {}

    def value_and_gradient(
        self,
        theta: np.ndarray,
        x: np.ndarray,
        y: np.ndarray,
        out: np.ndarray | None = None,
        allow_nonfinite: bool = False,
    ) -> tuple[float, np.ndarray]:
        """The loss of a batch and its gradient with respect to theta.

        Parameters
        ----------
        theta : (n_params,)
        x : (batch, n_inputs)
        y : (batch, n_outputs), or class indices (batch,) where the loss takes them
        out : (n_params,) array to fill and return instead of a fresh one
        allow_nonfinite : let NaN and infinities through, in arguments and results

        Raises
        ------
        TypeError, ValueError
            If an argument is not as stated; nothing has been computed then.
        NotFinite
            If the loss or the gradient is not finite.
        """
        arguments = checked(self.net, theta, x, y, self.dtypes, out, allow_nonfinite)
        value = self._value_and_gradient(arguments)
        if not (allow_nonfinite or (math.isfinite(value) and np.isfinite(arguments.out).all())):
            raise NotFinite(self.backend, self.net, value, arguments.out)
        return value, arguments.out

    def value(self, theta: np.ndarray, x: np.ndarray, y: np.ndarray, allow_nonfinite: bool = False) -> float:
        """The loss of a batch; arguments as for :meth:`value_and_gradient`."""
        value = self._value(checked(self.net, theta, x, y, self.dtypes, None, allow_nonfinite))
        if not (allow_nonfinite or math.isfinite(value)):
            raise NotFinite(self.backend, self.net, value, None)
        return value

    def predicted_error(self, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The error in each entry beyond which this back-end counts as wrong, (n_params,).

        Arguments as for :meth:`value_and_gradient`; NaN and infinities are let through.
        """
        return self._predicted_error(checked(self.net, theta, x, y, self.dtypes, None, allow_nonfinite=True))

    @abstractmethod
    def _predicted_error(self, arguments: Arguments) -> np.ndarray: ...

    @abstractmethod
    def _value_and_gradient(self, arguments: Arguments) -> float:
        """Fill ``arguments.out`` with the gradient and return the loss."""

    @abstractmethod
    def _value(self, arguments: Arguments) -> float: ...
