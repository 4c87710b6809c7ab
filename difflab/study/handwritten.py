"""The yardstick: backprop for dense networks as a careful person writes it by hand in NumPy.

Derivatives are the textbook forms in terms of the activation, as in the lecture notes 004; it shares no code with
the lab, and no accuracy is claimed for it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

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


def backprop(net: MLP, theta: np.ndarray, x: np.ndarray, classes: np.ndarray) -> tuple[float, np.ndarray]:
    """Loss and gradient of mean softmax cross-entropy.

    Parameters
    ----------
    theta : (n_params,)
    x : (batch, n_inputs)
    classes : (batch,)
    """
    views = list(net.view(theta).values())
    weights, biases = views[::2], views[1::2]
    layers = [x]
    forms = [_FORMS[layer.activation] for layer in _plain(net)]
    for (value, _), weight, bias in zip(forms, weights, biases, strict=True):
        layers.append(value(layers[-1] @ weight.T + bias))
    loss, delta = _softmax_cross_entropy(layers[-1], classes)
    gradient: list[np.ndarray] = []
    for k in range(len(weights) - 1, -1, -1):
        gradient[:0] = [(delta.T @ layers[k]).ravel(), delta.sum(axis=0)]
        if k:
            delta = (delta @ weights[k]) * forms[k - 1][1](layers[k])
    return loss, np.concatenate(gradient)


def _softmax_cross_entropy(z: np.ndarray, classes: np.ndarray) -> tuple[float, np.ndarray]:
    rows = np.arange(len(z))
    z = z - z.max(axis=1, keepdims=True)
    e = np.exp(z)
    total = e.sum(axis=1)
    loss = float((np.log(total) - z[rows, classes]).mean())
    delta = e / total[:, None]
    delta[rows, classes] -= 1
    return loss, delta / len(z)


def _plain(net: MLP) -> list[Dense]:
    """The dense layers with a weight and a bias of their own."""
    return [layer for layer in net.layers if isinstance(layer, Dense) and layer.bias and not layer.share]


def applies(net: MLP) -> bool:
    """Whether the yardstick can be laid on this network."""
    plain = _plain(net)
    known = len(plain) == len(net.layers) and all(layer.activation in _FORMS for layer in plain)
    terms = net.loss, net.reduction, net.l1, net.l2, net.label_smoothing
    return known and plain[-1].activation == "identity" and terms == ("softmax_cross_entropy", "mean", 0, 0, 0)
