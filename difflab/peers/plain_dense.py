"""The dense networks of the textbooks, which every peer knows: layers with weight and bias under a softmax."""

from __future__ import annotations

import numpy as np

from difflab.layers import Dense
from difflab.network import MLP


ACTIVATIONS = ("identity", "relu", "sigmoid", "softplus", "tanh")
"""What every peer has written for it by hand."""


def plain_layers(net: MLP) -> list[Dense]:
    """The dense layers with a weight and a bias of their own."""
    return [layer for layer in net.layers if isinstance(layer, Dense) and layer.bias and not layer.share]


def obstacle(net: MLP) -> str | None:
    """Why ``net`` is none of them, or None."""
    plain = plain_layers(net)
    if len(plain) < len(net.layers):
        return "only dense layers with a weight and a bias of their own are written by hand"
    if unknown := [layer.activation for layer in plain if layer.activation not in ACTIVATIONS]:
        return f"{unknown[0]} is not written by hand; known: {', '.join(ACTIVATIONS)}"
    terms = net.loss, net.reduction, net.l1, net.l2, net.label_smoothing
    if plain[-1].activation != "identity" or terms != ("softmax_cross_entropy", "mean", 0, 0, 0):
        return "only the mean softmax cross-entropy of outputs without activation is written by hand"
    return None


def activations(net: MLP) -> list[str]:
    """Of each layer."""
    return [layer.activation for layer in plain_layers(net)]


def weights_and_biases(net: MLP, theta: np.ndarray) -> list[np.ndarray]:
    """Views of theta, layer by layer: weight (out, in), then bias (out,)."""
    return list(net.view(theta).values())
