"""What the peers share: the float64 primal along one parameter at a time, and the error they report of each."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from difflab.backends.arguments import Arguments
from difflab.backends.contract import Backend, Prepared
from difflab.counting import primal_operations
from difflab.errors import MissingExtra
from difflab.network import MLP
from difflab.number_systems import FLOAT64
from difflab.peers.ready import is_installed, library
from difflab.program import primal


@dataclass(frozen=True)
class Answer:
    """What a library says of one derivative.

    Attributes
    ----------
    derivative : the derivative.
    error : the error that the library reports of it.
    converged : whether the library says so; True where it says nothing of the kind.
    """

    derivative: float
    error: float
    converged: bool = True


@dataclass(frozen=True, repr=False)
class Peer(Backend):
    """A library that differentiates functions of one number, and reports an error of every derivative.

    Attributes
    ----------
    module, package : what is imported, and the name it is installed by.
    flags : whether the library says which derivatives have not converged.
    """

    module: ClassVar[str]
    package: ClassVar[str]
    flags: ClassVar[bool] = False

    def unsupported(self, net: MLP) -> str | None:
        return None if is_installed(self.module) else str(MissingExtra("estimates", self.module))

    def _prepare(self, net: MLP) -> PreparedPeer:
        return PreparedPeer(net, self)

    @abstractmethod
    def differentiate(self, f: Callable[[float], float], at: float) -> Answer:
        """The derivative of ``f`` at a point; whatever it raises counts as no answer."""


class PreparedPeer(Prepared):
    """A peer along one parameter after the other; all its facts are of the latest gradient.

    Attributes
    ----------
    facts : further ``library``, its name and version; ``converged``, (n_params,) bool, where the library says it; and
        ``raised``, the names of entries at which it raised an error, each with the error.
    """

    backend: Peer

    def __init__(self, net: MLP, backend: Peer) -> None:
        super().__init__(net, backend)
        self.facts["library"] = library(backend.package)
        self._calls = 0
        self._latest: tuple[bytes, np.ndarray] | None = None

    def _value_and_gradient(self, arguments: Arguments) -> float:
        self._calls, self.facts["raised"] = 0, {}
        value, theta = self._value(arguments), arguments.theta.copy()
        answers = [self._answer(arguments, theta, i) for i in range(theta.size)]
        arguments.out[:] = [answer.derivative for answer in answers]
        self._latest = _identity(arguments), np.array([answer.error for answer in answers])
        if self.backend.flags:
            self.facts["converged"] = np.array([answer.converged for answer in answers])
        self.facts["primal_calls"] = self._calls
        self.facts["gradient_ops"] = self._calls * primal_operations(self.net.program)
        return value

    def _answer(self, arguments: Arguments, theta: np.ndarray, i: int) -> Answer:
        """Of the derivative with respect to entry ``i`` of ``theta``, which is left as it was."""
        centre = float(theta[i])

        def along(entry: float) -> float:
            theta[i] = entry
            return self._value_at(arguments, theta)

        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                return self.backend.differentiate(along, centre)
        except MemoryError:
            raise
        except Exception as error:
            self.facts["raised"][self.net.name_of(i)] = f"{type(error).__name__}: {error}"
            return Answer(math.nan, math.nan, converged=False)
        finally:
            theta[i] = centre

    def _value_at(self, arguments: Arguments, theta: np.ndarray) -> float:
        self._calls += 1
        with np.errstate(all="ignore"):
            return float(primal(self.net.program, FLOAT64, theta, arguments.x, arguments.y))

    def _value(self, arguments: Arguments) -> float:
        return self._value_at(arguments, arguments.theta)

    def _predicted_error(self, arguments: Arguments) -> np.ndarray:
        """The error that the library reports of the gradient it gives here; NaN where it reports none."""
        if self._latest is None or self._latest[0] != _identity(arguments):
            self._value_and_gradient(arguments)
        assert self._latest is not None
        return self._latest[1].copy()


def _identity(arguments: Arguments) -> bytes:
    """Equal for equal arguments, NaN among them."""
    return b"".join(array.tobytes() for array in arguments.given)
