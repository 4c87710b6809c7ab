"""Backprop for dense networks as a careful person writes it by hand in NumPy.

Derivatives are the textbook forms in terms of the activation, 1 - a**2 and p - y, as in the lecture notes 004; it
shares no code with the lab's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from difflab.backends.arguments import Arguments
from difflab.errors import known
from difflab.network import MLP
from difflab.peers.plain_dense import activations, weights_and_biases
from difflab.peers.ready import Ready, Whole


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


_FORMS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]] = {
    "identity": (lambda z: z, lambda a: np.ones_like(a)),
    "sigmoid": (_sigmoid, lambda a: a * (1 - a)),
    "tanh": (np.tanh, lambda a: 1 - a * a),
    "relu": (lambda z: np.maximum(z, 0), lambda a: (a > 0).astype(a.dtype)),
    "softplus": (lambda z: np.logaddexp(z, 0), lambda a: 1 - np.exp(-a)),
}


def backprop(net: MLP, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Loss and gradient of mean softmax cross-entropy.

    Parameters
    ----------
    theta : (n_params,)
    x : (batch, n_inputs)
    y : (batch, n_outputs), or class indices (batch,)
    """
    weights, layers = _forward(net, theta, x)
    names = activations(net)
    loss, delta = _softmax_cross_entropy(layers[-1], y)
    gradient: list[np.ndarray] = []
    for k in range(len(weights) - 1, -1, -1):
        gradient[:0] = [(delta.T @ layers[k]).ravel(), delta.sum(axis=0)]
        if k:
            slope = _FORMS[names[k - 1]][1]
            delta = (delta @ weights[k]) * slope(layers[k])
    return loss, np.concatenate(gradient)


def _forward(net: MLP, theta: np.ndarray, x: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The weights, and the inputs with the activations of every layer."""
    views = weights_and_biases(net, theta)
    weights, biases, made = views[::2], views[1::2], [x]
    for name, weight, bias in zip(activations(net), weights, biases, strict=True):
        made.append(_FORMS[name][0](made[-1] @ weight.T + bias))
    return weights, made


def _softmax_cross_entropy(z: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """The loss and its cotangent of ``z``; targets in rows need not add up to 1."""
    z = z - z.max(axis=1, keepdims=True)
    e = np.exp(z)
    total = e.sum(axis=1)
    p = e / total[:, None]
    if y.ndim == 1:
        rows = np.arange(len(z))
        p[rows, y] -= 1
        return float((np.log(total) - z[rows, y]).mean()), p / len(z)
    sums = y.sum(axis=1)
    return float((sums * np.log(total) - (y * z).sum(axis=1)).mean()), (sums[:, None] * p - y) / len(z)


@dataclass(frozen=True, repr=False)
class Handwritten(Whole):
    """NumPy by hand, for the networks of the textbooks.

    Parameters
    ----------
    dtype : ``"float64"`` or ``"float32"``
    threads : of NumPy's BLAS, which a process has from its start, as those of studies do
    """

    dtype: str = "float64"
    threads: int = 1
    name = "handwritten"
    module = "numpy"
    package = "numpy"

    def __post_init__(self) -> None:
        known(self.dtype, ("float64", "float32"), "dtype")

    def _prepare(self, net: MLP) -> PreparedHandwritten:
        return PreparedHandwritten(net, self, self.dtype)


class PreparedHandwritten(Ready):
    """Nothing to do in advance."""

    def held(self, arguments: Arguments) -> Arguments:
        return arguments

    def differentiate(self, held: Arguments) -> tuple[float, np.ndarray]:
        with np.errstate(all="ignore"):
            return backprop(self.net, held.theta, held.x, held.y)

    def evaluate(self, held: Arguments) -> float:
        with np.errstate(all="ignore"):
            _, made = _forward(self.net, held.theta, held.x)
            return _softmax_cross_entropy(made[-1], held.y)[0]

    def unpacked(self, found: tuple[float, np.ndarray], out: np.ndarray) -> float:
        value, out[:] = found
        return value
