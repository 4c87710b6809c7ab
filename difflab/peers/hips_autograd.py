"""HIPS autograd: NumPy recorded on a tape while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from difflab.backends.arguments import Arguments
from difflab.errors import known
from difflab.network import MLP
from difflab.peers.plain_dense import activations, weights_and_biases
from difflab.peers.ready import Ready, Whole


@dataclass(frozen=True, repr=False)
class HipsAutograd(Whole):
    """HIPS autograd over NumPy.

    Parameters
    ----------
    dtype : ``"float64"`` or ``"float32"``
    threads : of NumPy's BLAS, which a process has from its start, as those of studies do
    """

    dtype: str = "float64"
    threads: int = 1
    name = "autograd"
    module = "autograd"
    package = "autograd"

    def __post_init__(self) -> None:
        known(self.dtype, ("float64", "float32"), "dtype")

    def _prepare(self, net: MLP) -> PreparedAutograd:
        return PreparedAutograd(net, self)


class PreparedAutograd(Ready):
    """Nothing is compiled: the tape is recorded anew by every call."""

    def __init__(self, net: MLP, backend: HipsAutograd) -> None:
        super().__init__(net, backend, backend.dtype)
        from autograd import value_and_grad

        self._loss = _loss(net)
        self._gradient = value_and_grad(self._loss)

    def held(self, arguments: Arguments) -> Any:
        return weights_and_biases(self.net, arguments.theta), arguments.x, arguments.y

    def differentiate(self, held: Any) -> Any:
        with np.errstate(all="ignore"):
            return self._gradient(*held)

    def evaluate(self, held: Any) -> Any:
        with np.errstate(all="ignore"):
            return self._loss(*held)

    def unpacked(self, found: Any, out: np.ndarray) -> float:
        value, gradients = found
        out[:] = np.concatenate([gradient.ravel() for gradient in gradients])
        return float(value)


def _loss(net: MLP) -> Callable[[list[Any], Any, Any], Any]:
    """Mean softmax cross-entropy as a function of weights (out, in) and biases, samples, and targets in rows."""
    import autograd.numpy as anp
    from autograd.scipy.special import logsumexp

    known_functions: dict[str, Callable[[Any], Any]] = {
        "identity": lambda z: z,
        "relu": lambda z: z * (z > 0),
        "sigmoid": lambda z: 1 / (1 + anp.exp(-z)),
        "softplus": lambda z: anp.logaddexp(z, 0),
        "tanh": anp.tanh,
    }
    functions = [known_functions[name] for name in activations(net)]

    def loss(parameters: list[Any], x: Any, y: Any) -> Any:
        a = x
        for function, weight, bias in zip(functions, parameters[::2], parameters[1::2], strict=True):
            a = function(anp.dot(a, weight.T) + bias)
        return anp.mean(anp.sum(y, axis=1) * logsumexp(a, axis=1) - anp.sum(y * a, axis=1))

    return loss
