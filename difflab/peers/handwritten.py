"""Backprop for dense networks as a careful person writes it by hand in NumPy.

Derivatives are the textbook forms in terms of the activation, 1 - a**2 and p - y, as in the lecture notes 004; it
shares no code with the lab's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from difflab.backends.arguments import Arguments
from difflab.backends.contract import Backend, Prepared
from difflab.enclosures.rounding import rounding_errors
from difflab.layers import Dense
from difflab.network import MLP


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
    loss, delta = _softmax_cross_entropy(layers[-1], y)
    gradient: list[np.ndarray] = []
    for k in range(len(weights) - 1, -1, -1):
        gradient[:0] = [(delta.T @ layers[k]).ravel(), delta.sum(axis=0)]
        if k:
            slope = _FORMS[_plain(net)[k - 1].activation][1]
            delta = (delta @ weights[k]) * slope(layers[k])
    return loss, np.concatenate(gradient)


def _forward(net: MLP, theta: np.ndarray, x: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The weights, and the inputs with the activations of every layer."""
    views = list(net.view(theta).values())
    weights, biases, made = views[::2], views[1::2], [x]
    for layer, weight, bias in zip(_plain(net), weights, biases, strict=True):
        made.append(_FORMS[layer.activation][0](made[-1] @ weight.T + bias))
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


def _plain(net: MLP) -> list[Dense]:
    """The dense layers with a weight and a bias of their own."""
    return [layer for layer in net.layers if isinstance(layer, Dense) and layer.bias and not layer.share]


@dataclass(frozen=True, repr=False)
class Handwritten(Backend):
    """NumPy in float64 by hand, for the networks of the textbooks."""

    name = "handwritten"

    def unsupported(self, net: MLP) -> str | None:
        plain = _plain(net)
        if len(plain) < len(net.layers):
            return "only dense layers with a weight and a bias of their own are written by hand"
        if unknown := [layer.activation for layer in plain if layer.activation not in _FORMS]:
            return f"{unknown[0]} is not written by hand; known: {', '.join(sorted(_FORMS))}"
        terms = net.loss, net.reduction, net.l1, net.l2, net.label_smoothing
        if plain[-1].activation != "identity" or terms != ("softmax_cross_entropy", "mean", 0, 0, 0):
            return "only the mean softmax cross-entropy of outputs without activation is written by hand"
        return None

    def _prepare(self, net: MLP) -> PreparedHandwritten:
        return PreparedHandwritten(net, self)


class PreparedHandwritten(Prepared):
    """Nothing to do in advance."""

    def __init__(self, net: MLP, backend: Handwritten) -> None:
        super().__init__(net, backend)
        self.facts["primal_calls"] = 1

    def _value_and_gradient(self, arguments: Arguments) -> float:
        with np.errstate(all="ignore"):
            value, arguments.out[:] = backprop(self.net, arguments.theta, arguments.x, arguments.y)
        return value

    def _value(self, arguments: Arguments) -> float:
        with np.errstate(all="ignore"):
            _, made = _forward(self.net, arguments.theta, arguments.x)
            return _softmax_cross_entropy(made[-1], arguments.y)[0]

    def predicted_error(self, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return rounding_errors(self.net, theta, x, y, "float64", textbook=True).gradient
