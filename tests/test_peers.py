"""PyTorch and JAX in float64 agree with Backprop on random dense networks; the worst figure is printed."""

from typing import Any

import naive
import numpy as np
import pytest

import difflab as dl


AGREEMENT = 1e-13
"""Relative in norm: some 500 roundings, of which depth 5, widths of 40 and batches of 64 make a few hundred."""


def problem(seed: int) -> tuple:
    """A dense network of depth 1 to 5 with Glorot weights, normal biases and samples, and targets of its loss."""
    rng = np.random.default_rng(seed)
    widths = rng.integers(2, 41, size=rng.integers(2, 7)).tolist()
    layers = [dl.Dense(units, str(rng.choice(naive.ACTIVATION_NAMES))) for units in widths[1:]]
    net = dl.MLP(widths[0], layers, str(rng.choice(naive.LOSS_NAMES)), str(rng.choice(naive.REDUCTIONS)))
    _, x, y = naive.random_problem(net, rng, int(rng.integers(1, 65)))
    theta = net.init(rng) + 0.1 * rng.normal(size=net.n_params)
    return net, theta, x, y


def rows(net: dl.MLP, y: np.ndarray) -> np.ndarray:
    return np.eye(net.n_outputs)[y] if y.ndim == 1 else y


def assert_agrees(gradient_of_peer: Any, seed: int) -> None:
    net, theta, x, y = problem(seed)
    _, gradient = dl.Backprop().prepare(net).value_and_gradient(theta, x, y)
    expected = gradient_of_peer(net, theta, x, rows(net, y))
    error = np.linalg.norm(gradient - expected) / np.linalg.norm(expected)
    print(f"{net}: {error:.2e}")
    assert error <= AGREEMENT, net


def torch_gradient(net: dl.MLP, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    import torch

    def softplus(z: Any) -> Any:
        # By default PyTorch's is linear from 20 on.
        return torch.nn.functional.softplus(z, threshold=1000)

    activations = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu, "softplus": softplus}
    views = {name: torch.tensor(view, requires_grad=True) for name, view in net.view(theta).items()}
    a, target = torch.tensor(x), torch.tensor(y)
    for number, layer in enumerate(net.layers, 1):
        a = torch.nn.functional.linear(a, views[f"dense{number}.weight"], views[f"dense{number}.bias"])
        a = activations.get(layer.activation, lambda z: z)(a)
    if net.loss == "squared_error":
        losses = ((a - target) ** 2).sum(dim=1) / 2
    else:
        losses = torch.nn.functional.cross_entropy(a, target, reduction="none")
    (losses.mean() if net.reduction == "mean" else losses.sum()).backward()
    return np.concatenate([view.grad.numpy().ravel() for view in views.values()])


def jax_gradient(net: dl.MLP, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    import jax

    jax.config.update("jax_enable_x64", True)
    nn, jnp = jax.nn, jax.numpy
    activations = {"sigmoid": nn.sigmoid, "tanh": jnp.tanh, "relu": nn.relu, "softplus": nn.softplus}

    def loss(flat: Any) -> Any:
        a = jnp.asarray(x)
        for number, layer in enumerate(net.layers):
            weight, bias = (p.of(flat) for p in net.parameters[2 * number : 2 * number + 2])
            a = activations.get(layer.activation, lambda z: z)(a @ weight.T + bias)
        if net.loss == "squared_error":
            losses = ((a - y) ** 2).sum(axis=1) / 2
        else:
            losses = -(y * nn.log_softmax(a)).sum(axis=1)
        return losses.mean() if net.reduction == "mean" else losses.sum()

    return np.asarray(jax.grad(loss)(jnp.asarray(theta)))


@pytest.mark.parametrize("seed", range(40))
def test_pytorch_agrees(seed):
    pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'difflab[peers]'")
    assert_agrees(torch_gradient, seed)


@pytest.mark.parametrize("seed", range(12))
def test_jax_agrees(seed):
    pytest.importorskip("jax", reason="JAX is not installed: pip install 'difflab[peers]'")
    assert_agrees(jax_gradient, seed)
