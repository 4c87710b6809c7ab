"""The slow obvious twin: textbook formulas in plain loops over numbers, on floats or on mpmath's at any precision."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import mpmath
import numpy as np

import difflab as dl
from difflab.discrepancy import relative_in_norm


ACTIVATION_NAMES = ("identity", "sigmoid", "tanh", "relu", "softplus")
LOSS_NAMES = ("squared_error", "softmax_cross_entropy")
REDUCTIONS = ("mean", "sum")
DIGITS = 80
STEP = "1e-25"
"""Truncation is some 1e-50 and rounding some 1e-55, for losses and derivatives of moderate size."""

Row = list[Any]


def loss(net: dl.MLP, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """The loss of a batch in floats."""
    return _loss(net, theta.tolist(), x.tolist(), _rows(net, y), math)


def loss_mpmath(net: dl.MLP, theta: np.ndarray, x: np.ndarray, y: np.ndarray, digits: int = DIGITS) -> Any:
    """The loss of a batch at exactly these floats, to some ``digits`` digits."""
    with _digits(digits):
        return _loss(net, _exact(theta), x.tolist(), _rows(net, y), mpmath)


def central_difference_80_digits(net: dl.MLP, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> list[Any]:
    """The gradient by central differences at 80 digits: no derivative rule, error well below 1e-40."""
    with _digits(DIGITS):
        step, centre, inputs, targets = mpmath.mpf(STEP), _exact(theta), x.tolist(), _rows(net, y)

        def along(i: int, by: Any) -> Any:
            moved = [*centre[:i], centre[i] + by, *centre[i + 1 :]]
            return _loss(net, moved, inputs, targets, mpmath)

        return [(along(i, step) - along(i, -step)) / (2 * step) for i in range(len(centre))]


def gradient(net: dl.MLP, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The gradient of a batch in floats: back-propagation, one sample after the other."""
    layers = _layers(net, theta.tolist())
    total = [0.0] * net.n_params
    for sample, target in zip(x.tolist(), _rows(net, y), strict=True):
        for i, entry in enumerate(_gradient_of_sample(net, layers, sample, target)):
            total[i] += entry
    return np.array(total) / _parts(net, len(x))


def random_network(rng: np.random.Generator) -> dl.MLP:
    """A dense network of depth 1 to 4 and widths 1 to 6, with any activations, loss and reduction.

    A cross-entropy gets two classes or more: of one class alone the gradient is zero, and nothing is relative to it.
    """
    widths = rng.integers(1, 7, size=rng.integers(2, 6)).tolist()
    loss_name = str(rng.choice(LOSS_NAMES))
    if loss_name == "softmax_cross_entropy":
        widths[-1] = max(widths[-1], 2)
    layers = [dl.Dense(units, str(rng.choice(ACTIVATION_NAMES))) for units in widths[1:]]
    return dl.MLP(widths[0], layers, loss_name, str(rng.choice(REDUCTIONS)))


def random_problem(net: dl.MLP, rng: np.random.Generator, batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normal weights and biases, normal samples; for a cross-entropy class indices or rows of weights, at random."""
    theta, x = 0.7 * rng.normal(size=net.n_params), rng.normal(size=(batch, net.n_inputs))
    if net.loss == "squared_error":
        return theta, x, rng.normal(size=(batch, net.n_outputs))
    if rng.integers(2):
        return theta, x, rng.integers(net.n_outputs, size=batch)
    return theta, x, rng.dirichlet(np.ones(net.n_outputs), size=batch)


@contextmanager
def _digits(digits: int) -> Iterator[None]:
    with mpmath.workdps(digits):
        yield


def _exact(numbers: np.ndarray) -> Row:
    return [mpmath.mpf(number) for number in numbers.tolist()]


def _rows(net: dl.MLP, y: np.ndarray) -> list[Row]:
    if y.ndim == 2:
        return y.tolist()
    return [[1.0 if k == label else 0.0 for k in range(net.n_outputs)] for label in y.tolist()]


def _parts(net: dl.MLP, batch: int) -> int:
    return batch if net.reduction == "mean" else 1


def _layers(net: dl.MLP, theta: Row) -> list[tuple[list[Row], Row, str]]:
    """Weight rows, bias and activation of every layer; theta is cut from the front."""
    layers, m, rest = [], net.n_inputs, list(theta)
    for layer in net.layers:
        weight = [[rest.pop(0) for _ in range(m)] for _ in range(layer.units)]
        bias = [rest.pop(0) for _ in range(layer.units)]
        layers.append((weight, bias, layer.activation))
        m = layer.units
    return layers


def _activate(name: str, z: Any, m: ModuleType) -> Any:
    if name == "sigmoid":
        return 1 / (1 + m.exp(-z))
    if name == "tanh":
        return m.tanh(z)
    if name == "relu":
        return max(z, 0 * z)
    if name == "softplus":
        return m.log(1 + m.exp(z))
    assert name == "identity"
    return z


def _slope(name: str, z: float) -> float:
    if name == "sigmoid":
        return 1 / (1 + math.exp(-z)) / (1 + math.exp(z))
    if name == "tanh":
        return 1 / math.cosh(z) ** 2
    if name == "relu":
        return 1.0 if z > 0 else 0.0
    if name == "softplus":
        return 1 / (1 + math.exp(-z))
    assert name == "identity"
    return 1.0


def _affine(weight: list[Row], bias: Row, a: Row) -> Row:
    return [sum(w * a_i for w, a_i in zip(row, a, strict=True)) + b for row, b in zip(weight, bias, strict=True)]


def _loss_of_sample(name: str, z: Row, target: Row, m: ModuleType) -> Any:
    if name == "squared_error":
        return sum((z_k - d) ** 2 for z_k, d in zip(z, target, strict=True)) / 2
    log_sum = m.log(sum(m.exp(z_k) for z_k in z))
    return sum(d * (log_sum - z_k) for z_k, d in zip(z, target, strict=True))


def _loss_slope(name: str, z: Row, target: Row) -> Row:
    if name == "squared_error":
        return [z_k - d for z_k, d in zip(z, target, strict=True)]
    total = sum(math.exp(z_k) for z_k in z)
    return [sum(target) * math.exp(z_k) / total - d for z_k, d in zip(z, target, strict=True)]


def _loss(net: dl.MLP, theta: Row, x: list[Row], targets: list[Row], m: ModuleType) -> Any:
    layers, total = _layers(net, theta), 0
    for a, target in zip(x, targets, strict=True):
        for weight, bias, name in layers:
            a = [_activate(name, z, m) for z in _affine(weight, bias, a)]
        total += _loss_of_sample(net.loss, a, target, m)
    return total / _parts(net, len(x))


def _gradient_of_sample(net: dl.MLP, layers: list, sample: Row, target: Row) -> Row:
    inputs, pre_activations = [sample], []
    for weight, bias, name in layers:
        pre_activations.append(_affine(weight, bias, inputs[-1]))
        inputs.append([_activate(name, z, math) for z in pre_activations[-1]])
    a_bar, found = _loss_slope(net.loss, inputs[-1], target), []
    for (weight, _, name), a, z in reversed(list(zip(layers, inputs, pre_activations, strict=False))):
        z_bar = [bar * _slope(name, z_j) for bar, z_j in zip(a_bar, z, strict=True)]
        found = [bar * a_i for bar in z_bar for a_i in a] + z_bar + found
        a_bar = [sum(bar * row[i] for bar, row in zip(z_bar, weight, strict=True)) for i in range(len(a))]
    return found


def accumulated_rounding(net, batch: int, eps: float) -> float:
    """Relative error of the longest chain of roundings in one gradient entry, with a margin.

    A sum of n terms is off by at most about n unit roundoffs relative to the sum of magnitudes [Higham 2002,
    eq. 3.5]; every layer is passed twice. The margin of 16 stands for the cancellation between magnitudes and
    result, which only a running bound can know.
    """
    terms = 2 * sum(width + 4 for width in net.widths) + batch
    return 16 * terms * eps / 2


def predicted(prepared, truth, theta, x, y) -> float:
    """The error that a back-end predicts for itself, relative in norm, as the judge of studies uses it."""
    return relative_in_norm(prepared.predicted_error(theta, x, y), truth.gradient)
