"""Peers of whole gradients: what a call takes and gives in a library's own arrays, so that timing charges no copies."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from abc import abstractmethod
from collections.abc import Callable
from time import perf_counter
from typing import Any, ClassVar

import numpy as np

from difflab.backends.arguments import Arguments, checked
from difflab.backends.backprop import PreparedBackprop
from difflab.backends.contract import Backend, Prepared
from difflab.enclosures.rounding import rounding_errors
from difflab.errors import MissingExtra
from difflab.network import MLP
from difflab.peers import plain_dense


Call = Callable[[], object]
TRIALS = 20
"""Calls by which the fastest of several forms is found."""
TRIAL_SECONDS = 1.0
"""Of one form."""


def is_installed(module: str) -> bool:
    """Whether a module can be imported here."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def library(package: str) -> str:
    """Name and version of what is installed."""
    return f"{package} {importlib.metadata.version(package)}"


class Whole(Backend):
    """A peer that differentiates plain dense networks by all parameters at once.

    Attributes
    ----------
    module, package : what is imported, and the name it is installed by.
    """

    module: ClassVar[str]
    package: ClassVar[str]

    def unsupported(self, net: MLP) -> str | None:
        if not is_installed(self.module):
            return str(MissingExtra("peers", self.module))
        return plain_dense.obstacle(net)


class Ready(Prepared):
    """A peer made ready for one network; its arguments can be held as the arrays it works on.

    Attributes
    ----------
    facts : further ``library``, its name and version.
    """

    def __init__(self, net: MLP, backend: Whole, dtype: str) -> None:
        super().__init__(net, backend, (dtype,))
        self.facts |= {"library": library(backend.package), "primal_calls": 1}

    @abstractmethod
    def held(self, arguments: Arguments) -> Any:
        """The arguments as arrays of the library, in the layout that suits it."""

    @abstractmethod
    def differentiate(self, held: Any) -> Any:
        """Value and gradients in arrays of the library, complete when this returns."""

    @abstractmethod
    def evaluate(self, held: Any) -> Any:
        """The value alone, complete when this returns."""

    @abstractmethod
    def unpacked(self, found: Any, out: np.ndarray) -> float:
        """The value of what :meth:`differentiate` gave, its gradient written to ``out``, (n_params,)."""

    def gradient_call(self, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> Call:
        """A call that computes value and gradient there completely and converts nothing."""
        held = self.held(checked(self.net, theta, x, y, self.dtypes))
        return lambda: self.differentiate(held)

    def primal_call(self, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> Call:
        """A call that computes the value there and converts nothing."""
        held = self.held(checked(self.net, theta, x, y, self.dtypes))
        return lambda: self.evaluate(held)

    def counted(self) -> dict[str, Any]:
        """Operations of one sample's gradient and loss, and what deriving them takes, where the library can tell."""
        return {}

    def _value_and_gradient(self, arguments: Arguments) -> float:
        return self.unpacked(self.differentiate(self.held(arguments)), arguments.out)

    def _value(self, arguments: Arguments) -> float:
        return float(self.evaluate(self.held(arguments)))

    def _predicted_error(self, arguments: Arguments) -> np.ndarray:
        return rounding_errors(self.net, *arguments.given, self.dtypes[0], textbook=True).gradient


def fastest(*calls: Call) -> Call:
    """The one whose least of some calls is the least; the first call of each is left out."""
    return min(calls, key=_least_seconds) if len(calls) > 1 else calls[0]


def _least_seconds(call: Call) -> float:
    call()
    found: list[float] = []
    while len(found) < TRIALS and sum(found) <= TRIAL_SECONDS:
        started = perf_counter()
        call()
        found.append(perf_counter() - started)
    return min(found)


def gradient_of(prepared: Prepared, found: Any) -> np.ndarray:
    """A fresh (n_params,) array of what a call for the gradient gave."""
    if not isinstance(prepared, Ready):
        return found[1].copy()
    out = np.empty(prepared.net.n_params, prepared.dtypes[0])
    prepared.unpacked(found, out)
    return out


def calls(prepared: Prepared, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> dict[str, Call]:
    """The gradient and the primal as calls without arguments, each at its best; those of the lab with all checks."""
    if isinstance(prepared, Ready):
        return {"gradient": prepared.gradient_call(theta, x, y), "primal": prepared.primal_call(theta, x, y)}
    if isinstance(prepared, PreparedBackprop):
        bound = prepared.bound_to(theta, x, y)
        return {"gradient": bound.value_and_gradient, "primal": bound.value}
    out = np.empty_like(theta)
    return {
        "gradient": lambda: prepared.value_and_gradient(theta, x, y, out=out),
        "primal": lambda: prepared.value(theta, x, y),
    }
