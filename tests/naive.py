"""The slow obvious twin: textbook formulas in plain loops over numbers, on floats or on mpmath's at any precision."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, NamedTuple

import mpmath
import numpy as np

import difflab as dl
from difflab.discrepancy import relative_in_norm
from difflab.layers import BatchNorm, Dense, Dropout, Elementwise, Maxout, Multiply, Residual, Softmax


SMOOTH_NAMES = ("identity", "sigmoid", "tanh", "softplus", "silu", "gelu", "softsign", "swish")
ACTIVATION_NAMES = (*SMOOTH_NAMES, "relu", "leaky_relu", "elu", "prelu")
LOSS_NAMES = ("squared_error", "mean_squared_error", "softmax_cross_entropy", "sigmoid_cross_entropy")
"""Losses of any outputs."""

PROBABILITY_LOSS_NAMES = ("binary_cross_entropy", "kl_divergence")
"""Losses whose outputs must lie between 0 and 1."""

ALL_LOSS_NAMES = LOSS_NAMES + PROBABILITY_LOSS_NAMES
CLASS_LOSS_NAMES = ("softmax_cross_entropy", "kl_divergence")
"""Losses of one target among several, which may be the index of a class."""

REDUCTIONS = ("mean", "sum")
PARAMETERS = {"leaky_relu": 0.01, "elu": 1.0, "silu": 1.0}
"""Constants of activations where a network does not say otherwise."""

LEARNABLE = {"prelu": "leaky_relu", "swish": "silu"}
"""Activations whose parameter is learnt, and what they are otherwise."""

DIGITS = 80
STEP = "1e-25"
"""Truncation is some 1e-50 and rounding some 1e-55, for losses and derivatives of moderate size."""

ROOM = 1e-3
"""What probabilities of random problems keep from 0 and 1."""

Row = list[Any]
Rows = list[Row]


def loss(net: dl.MLP, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """The loss of a batch in floats."""
    return _loss(net, theta.tolist(), x.tolist(), _rows(net, y), math)


def loss_mpmath(net: dl.MLP, theta: np.ndarray, x: np.ndarray, y: np.ndarray, digits: int = DIGITS) -> Any:
    """The loss of a batch at exactly these floats, to some ``digits`` digits."""
    with mpmath.workdps(digits):
        return _loss(net, *_exact_arguments(net, theta, x, y), mpmath)


class Evaluation(NamedTuple):
    """Outputs and loss of every sample, and the loss of the batch."""

    outputs: Rows
    losses: Row
    loss: Any


def evaluated_along(
    net: dl.MLP, arguments: tuple[np.ndarray, ...], theta_dot: np.ndarray, x_dot: np.ndarray, t: Any
) -> Evaluation:
    """All at theta + t theta_dot and x + t x_dot, in mpmath's numbers at its working precision."""
    centre, rows, targets = _exact_arguments(net, *arguments)
    lines = [centre, *rows], [_exact(theta_dot), *map(_exact, x_dot)]
    moved, *x = [[a + t * b for a, b in zip(*pair, strict=True)] for pair in zip(*lines, strict=True)]
    return _evaluate(net, moved, x, targets, mpmath)


def central_difference_80_digits(net: dl.MLP, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> Row:
    """The gradient by central differences at 80 digits: no derivative rule, error well below 1e-40."""
    with _digits(DIGITS):
        return _central_difference(net, *_exact_arguments(net, theta, x, y), mpmath.mpf(STEP))


def gradient(net: dl.MLP, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The gradient of a batch in floats: back-propagation sample by sample if it is dense, else differences."""
    if not _is_plain(net):
        return np.array([float(entry) for entry in central_difference_80_digits(net, theta, x, y)])
    layers = _dense_layers(net, theta.tolist())
    total = [0.0] * net.n_params
    for sample, target in zip(x.tolist(), _rows(net, y), strict=True):
        for i, entry in enumerate(_gradient_of_sample(net, layers, sample, target)):
            total[i] += entry
    return np.array(total) / _parts(net, len(x))


# --- random problems ---


def random_network(rng: np.random.Generator) -> dl.MLP:
    """A dense network of depth 1 to 4 and widths 1 to 6, with any activations, loss and reduction.

    Of classes there are two or more: of one class alone the gradient is zero, and nothing is relative to it.
    """
    widths = rng.integers(1, 7, size=rng.integers(2, 6)).tolist()
    loss_name = str(rng.choice(ALL_LOSS_NAMES))
    if loss_name in CLASS_LOSS_NAMES:
        widths[-1] = max(widths[-1], 2)
    names = [_random_activation(rng) for _ in widths[1:]]
    if loss_name in PROBABILITY_LOSS_NAMES:
        names[-1] = "sigmoid"
    layers = [Dense(units, name) for units, name in zip(widths[1:], names, strict=True)]
    return dl.MLP(widths[0], layers, loss_name, str(rng.choice(REDUCTIONS)))


def random_mixed_network(rng: np.random.Generator, most_layers: int = 6, most_units: int = 5) -> dl.MLP:
    """A network of any layers, loss, reduction, penalties and smoothing, with layers within residual layers."""
    n_inputs = int(rng.integers(1, most_units + 1))
    layers, width = _random_layers(rng, n_inputs, int(rng.integers(0, most_layers)), most_units)
    loss_name = str(rng.choice(ALL_LOSS_NAMES))
    end = _random_end(rng, loss_name, most_units)
    smoothed = loss_name not in ("squared_error", "mean_squared_error") and rng.random() < 0.3
    return dl.MLP(
        n_inputs,
        [*layers, *end],
        loss_name,
        str(rng.choice(REDUCTIONS)),
        l1=0.01 * float(rng.integers(2)),
        l2=0.1 * float(rng.integers(2)),
        label_smoothing=0.1 if smoothed else 0.0,
    )


def random_problem(net: dl.MLP, rng: np.random.Generator, batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normal parameters and samples, and targets of the loss, at random; probabilities keep off 0 and 1."""
    theta, x = 0.7 * rng.normal(size=net.n_params), rng.normal(size=(batch, net.n_inputs))
    while net.loss in PROBABILITY_LOSS_NAMES and _is_saturated(net, theta, x):
        theta = theta / 2
    return theta, x, _random_targets(net, rng, batch)


def _random_targets(net: dl.MLP, rng: np.random.Generator, batch: int) -> np.ndarray:
    """Numbers; class indices or rows of weights; hard or soft labels."""
    shape = batch, net.n_outputs
    if net.loss in ("squared_error", "mean_squared_error"):
        return rng.normal(size=shape)
    is_hard = bool(rng.integers(2))
    if net.loss in CLASS_LOSS_NAMES:
        return rng.integers(net.n_outputs, size=batch) if is_hard else rng.dirichlet(np.ones(net.n_outputs), batch)
    return rng.integers(2, size=shape).astype(np.float64) if is_hard else rng.random(shape)


def _is_saturated(net: dl.MLP, theta: np.ndarray, x: np.ndarray) -> bool:
    """By mpmath, where nothing overflows."""
    outputs = _through(net.layers, Theta(_exact(theta), mpmath.mpf), [_exact(row) for row in x], mpmath)
    return not all(ROOM < a < 1 - ROOM for row in outputs for a in row)


def _random_activation(rng: np.random.Generator) -> str:
    """A name, with a number where there may be one."""
    name = str(rng.choice(ACTIVATION_NAMES))
    if name in (*PARAMETERS, *LEARNABLE) and rng.integers(2):
        return f"{name}({rng.uniform(0.1, 1.5):.2f})"
    return name


def _random_layers(rng: np.random.Generator, width: int, n: int, most_units: int) -> tuple[list, int]:
    """Layers of ``n`` random kinds, and the width after them."""
    layers = []
    for _ in range(n):
        made = _random_kind(rng, width, most_units)
        layers += made
        for layer in made:
            width = _width_after(layer, width)
    return layers, width


def _random_kind(rng: np.random.Generator, width: int, most_units: int) -> list:
    """A layer, or two that share their parameters."""
    units, kind = int(rng.integers(1, most_units + 1)), rng.integers(12)
    if kind == 0:
        return [Maxout(units, int(rng.integers(2, 4)))]
    if kind == 1:
        return [Elementwise(_random_activation(rng), per_unit=bool(rng.integers(2)))]
    if kind == 2:
        return [Softmax()] if width > 1 else [Dense(2), Softmax()]
    if kind == 3:
        return [Multiply(int(rng.choice([k for k in range(1, width + 1) if width % k == 0])))]
    if kind == 4:
        return [BatchNorm()]
    if kind == 5:
        return [BatchNorm(tuple(rng.normal(size=width)), tuple(rng.uniform(0.2, 2, size=width)), eps=1e-3)]
    if kind == 6:
        return [Dropout(float(rng.choice([0.0, 0.3, 0.5])), int(rng.integers(100)), bool(rng.integers(4)))]
    if kind == 7:
        return _random_tied(rng, width)
    if kind in (8, 9):
        return [_random_residual(rng, width, most_units)]
    return [Dense(units, _random_activation(rng), bias=bool(rng.integers(4)))]


def _random_tied(rng: np.random.Generator, width: int) -> list:
    """Two square layers of one weight, and of one slope if both have one; all of one width share with each other."""
    share = f"tied_{'abcdefghi'[width]}"
    if rng.integers(3) == 0:
        return [Maxout(width, 2, share=f"maxout_{share}")] * 2
    names = rng.choice([*SMOOTH_NAMES, "prelu", "relu"], size=2)
    return [Dense(width, str(name), bias=bool(rng.integers(4)), share=share) for name in names]


def _random_residual(rng: np.random.Generator, width: int, most_units: int) -> Residual:
    layers, end = _random_layers(rng, width, int(rng.integers(1, 3)), most_units)
    if rng.integers(2):
        return Residual(tuple(layers), project=True)
    return Residual(tuple(layers if end == width else [*layers, Dense(width)]))


def _random_end(rng: np.random.Generator, loss_name: str, most_units: int) -> list:
    """The last layer, with outputs that the loss takes."""
    units = int(rng.integers(2 if loss_name in CLASS_LOSS_NAMES else 1, most_units + 1))
    if loss_name not in PROBABILITY_LOSS_NAMES:
        return [Dense(units, _random_activation(rng) if rng.integers(2) else "identity")]
    if rng.integers(2) and units > 1:
        return [Dense(units), Softmax()]
    return [Dense(units), Elementwise("sigmoid")] if rng.integers(2) else [Dense(units, "sigmoid")]


def _width_after(layer: Any, width: int) -> int:
    if isinstance(layer, Residual):
        for inner in layer.layers:
            width = _width_after(inner, width)
        return width
    return getattr(layer, "units", width)


# --- the twin ---


@contextmanager
def _digits(digits: int) -> Iterator[None]:
    with mpmath.workdps(digits):
        yield


def _exact(numbers: np.ndarray) -> Row:
    return [mpmath.mpf(number) for number in numbers.tolist()]


def _exact_arguments(net: dl.MLP, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[Row, Rows, Rows]:
    return _exact(theta), [_exact(row) for row in x], [_exact(np.array(row)) for row in _rows(net, y)]


def _rows(net: dl.MLP, y: np.ndarray) -> Rows:
    if y.ndim == 2:
        return y.tolist()
    return [[1.0 if k == label else 0.0 for k in range(net.n_outputs)] for label in y.tolist()]


def _parts(net: dl.MLP, batch: int) -> int:
    return batch if net.reduction == "mean" else 1


def _central_difference(net: dl.MLP, centre: Row, x: Rows, targets: Rows, step: Any) -> Row:
    def along(i: int, by: Any) -> Any:
        return _loss(net, [*centre[:i], centre[i] + by, *centre[i + 1 :]], x, targets, mpmath)

    return [(along(i, step) - along(i, -step)) / (2 * step) for i in range(len(centre))]


@dataclass
class Theta:
    """Parameters, cut from the front of a list or an array; what is shared is cut once.

    Attributes
    ----------
    rest : what has not been cut.
    number : the type of the numbers, for constants.
    shared : what was cut under the name of a share.
    weights : what penalties see.
    """

    rest: Any
    number: Any

    shared: dict[tuple[str, str], Row] = field(default_factory=dict)
    weights: list[Row] = field(default_factory=list)

    def take(self, n: int, what: str, share: str | None = None) -> Row:
        if share is not None and (share, what) in self.shared:
            return self.shared[share, what]
        taken, self.rest = self.rest[:n], self.rest[n:]
        if share is not None:
            self.shared[share, what] = taken
        if what == "weight":
            self.weights.append(taken)
        return taken


def _loss(net: dl.MLP, theta: Row, x: Rows, targets: Rows, m: ModuleType) -> Any:
    return _evaluate(net, theta, x, targets, m).loss


def _evaluate(net: dl.MLP, theta: Row, x: Rows, targets: Rows, m: ModuleType) -> Evaluation:
    cut = Theta(theta, getattr(m, "mpf", float))
    outputs = _through(net.layers, cut, x, m)
    assert not cut.rest
    targets = [_smoothed(net, target, cut.number) for target in targets]
    losses = [_loss_of_sample(net.loss, z, target, m) for z, target in zip(outputs, targets, strict=True)]
    l1, l2 = cut.number(net.l1), cut.number(net.l2)
    penalties = [l1 * abs(w) + l2 / 2 * w**2 for weight in cut.weights for w in weight]
    return Evaluation(outputs, losses, sum(losses) / _parts(net, len(x)) + sum(penalties))


def _through(layers: Any, theta: Theta, rows: Rows, m: ModuleType) -> Rows:
    """The rows of a batch through one layer after the other."""
    for layer in layers:
        rows = _LAYERS[type(layer)](layer, theta, rows, m)
    return rows


def _affine(theta: Theta, rows: Rows, units: int, share: str | None = None, has_bias: bool = True) -> Rows:
    n = len(rows[0])
    weight = theta.take(units * n, "weight", share)
    bias = theta.take(units, "bias", share) if has_bias else [0] * units
    return [[sum(weight[j * n + i] * row[i] for i in range(n)) + bias[j] for j in range(units)] for row in rows]


def _dense(layer: Dense, theta: Theta, rows: Rows, m: ModuleType) -> Rows:
    rows = _affine(theta, rows, layer.units, layer.share, layer.bias)
    return _activated(layer.activation, theta, rows, m, layer.units, layer.share)


def _maxout(layer: Maxout, theta: Theta, rows: Rows, m: ModuleType) -> Rows:
    k = layer.pieces
    rows = _affine(theta, rows, layer.units * k, layer.share)
    return [[max(row[j * k : (j + 1) * k]) for j in range(layer.units)] for row in rows]


def _elementwise(layer: Elementwise, theta: Theta, rows: Rows, m: ModuleType) -> Rows:
    return _activated(layer.activation, theta, rows, m, len(rows[0]) if layer.per_unit else 1)


def _softmax(layer: Softmax, theta: Theta, rows: Rows, m: ModuleType) -> Rows:
    return [[m.exp(z) / sum(m.exp(other) for other in row) for z in row] for row in rows]


def _multiply(layer: Multiply, theta: Theta, rows: Rows, m: ModuleType) -> Rows:
    k = len(rows[0]) // layer.units
    return [[_product(row[j * k : (j + 1) * k]) for j in range(layer.units)] for row in rows]


def _product(factors: Row) -> Any:
    product = factors[0]
    for factor in factors[1:]:
        product = product * factor
    return product


def _batch_norm(layer: BatchNorm, theta: Theta, rows: Rows, m: ModuleType) -> Rows:
    columns, eps = list(zip(*rows, strict=True)), theta.number(layer.eps)
    gamma, beta = theta.take(len(columns), "gamma"), theta.take(len(columns), "beta")
    made = []
    for j, column in enumerate(columns):
        if layer.mean is None:
            mean = sum(column) / len(column)
            variance = sum((z - mean) ** 2 for z in column) / len(column)
        else:
            mean, variance = theta.number(layer.mean[j]), theta.number(layer.variance[j])
        made.append([gamma[j] * (z - mean) / m.sqrt(variance + eps) + beta[j] for z in column])
    return [list(row) for row in zip(*made, strict=True)]


def _dropout(layer: Dropout, theta: Theta, rows: Rows, m: ModuleType) -> Rows:
    if not layer.training:
        return rows
    is_kept = (np.random.default_rng(layer.seed).random((len(rows), len(rows[0]))) >= layer.p).tolist()
    kept = 1 - theta.number(layer.p)
    pairs = zip(rows, is_kept, strict=True)
    return [[a / kept if keep else 0 * a for a, keep in zip(*pair, strict=True)] for pair in pairs]


def _residual(layer: Residual, theta: Theta, rows: Rows, m: ModuleType) -> Rows:
    ends = _through(layer.layers, theta, rows, m)
    skips = _affine(theta, rows, len(ends[0]), has_bias=False) if layer.project else rows
    return [[a + b for a, b in zip(*pair, strict=True)] for pair in zip(skips, ends, strict=True)]


_LAYERS = {
    Dense: _dense,
    Maxout: _maxout,
    Elementwise: _elementwise,
    Softmax: _softmax,
    Multiply: _multiply,
    BatchNorm: _batch_norm,
    Dropout: _dropout,
    Residual: _residual,
}


def named(text: str) -> tuple[str, float]:
    """The name in ``"elu(0.5)"`` and its constant."""
    name, bracket, number = text.partition("(")
    return name, float(number.rstrip(")")) if bracket else PARAMETERS.get(name, 0.0)


def _activated(text: str, theta: Theta, rows: Rows, m: ModuleType, n: int, share: str | None = None) -> Rows:
    """An activation with ``n`` learnable parameters, one for each unit or one for all, if they are learnable."""
    name, constant = named(text)
    p = [theta.number(constant)]
    if name in LEARNABLE:
        p, name = theta.take(n, name, share), LEARNABLE[name]
    return [[_activate(name, row[j], p[j % len(p)], m) for j in range(len(row))] for row in rows]


def _activate(name: str, z: Any, p: Any, m: ModuleType) -> Any:
    if name == "sigmoid":
        return 1 / (1 + m.exp(-z))
    if name == "tanh":
        return m.tanh(z)
    if name == "relu":
        return max(z, 0 * z)
    if name == "leaky_relu":
        return z if z > 0 else p * z
    if name == "elu":
        return z if z > 0 else p * (m.exp(z) - 1)
    if name == "softplus":
        return m.log(1 + m.exp(z))
    if name == "silu":
        return z / (1 + m.exp(-p * z))
    if name == "gelu":
        return z * m.erfc(-z / m.sqrt(2 + 0 * z)) / 2
    if name == "softsign":
        return z / (1 + abs(z))
    assert name == "identity"
    return z


def _smoothed(net: dl.MLP, target: Row, number: Any) -> Row:
    """The share s of a label goes to all classes: outputs that exclude each other, or each output and its opposite."""
    if not net.label_smoothing:
        return target
    share, classes = number(net.label_smoothing), len(target) if net.loss in CLASS_LOSS_NAMES else 2
    return [y * (1 - share) + share / classes for y in target]


def _loss_of_sample(name: str, z: Row, target: Row, m: ModuleType) -> Any:
    pairs = list(zip(z, target, strict=True))
    if name == "squared_error":
        return sum((z_k - y) ** 2 for z_k, y in pairs) / 2
    if name == "mean_squared_error":
        return sum((z_k - y) ** 2 for z_k, y in pairs) / len(pairs)
    if name == "softmax_cross_entropy":
        log_sum = m.log(sum(m.exp(z_k) for z_k in z))
        return sum(y * (log_sum - z_k) for z_k, y in pairs)
    if name == "sigmoid_cross_entropy":
        pairs, name = [(1 / (1 + m.exp(-z_k)), y) for z_k, y in pairs], "binary_cross_entropy"
    if name == "binary_cross_entropy":
        return -sum(y * m.log(p) + (1 - y) * m.log(1 - p) for p, y in pairs)
    assert name == "kl_divergence"
    return sum(y * m.log(y / q) if y > 0 else 0 * q for q, y in pairs)


# --- the slopes of dense networks ---


def _is_plain(net: dl.MLP) -> bool:
    is_dense = all(isinstance(layer, Dense) and layer.bias and layer.share is None for layer in net.layers)
    return is_dense and not (net.l1 or net.l2 or net.label_smoothing)


def _dense_layers(net: dl.MLP, theta: Row) -> list[tuple[Rows, Row, str, Row]]:
    """Weight rows, bias, activation and its parameter for every unit, layer by layer."""
    layers, n, cut = [], net.n_inputs, Theta(theta, float)
    for layer in net.layers:
        weight = [cut.take(n, "weight") for _ in range(layer.units)]
        bias, (name, constant) = cut.take(layer.units, "bias"), named(layer.activation)
        layers.append(
            (weight, bias, name, cut.take(layer.units, name) if name in LEARNABLE else [constant] * layer.units)
        )
        n = layer.units
    return layers


def _slope(name: str, z: float, p: float) -> float:
    name = LEARNABLE.get(name, name)
    if name == "sigmoid":
        return 1 / (1 + math.exp(-z)) / (1 + math.exp(z))
    if name == "tanh":
        return 1 / math.cosh(z) ** 2
    if name == "relu":
        return 1.0 if z > 0 else 0.0
    if name == "leaky_relu":
        return 1.0 if z > 0 else p
    if name == "elu":
        return 1.0 if z > 0 else p * math.exp(z)
    if name == "softplus":
        return 1 / (1 + math.exp(-z))
    if name == "silu":
        return 1 / (1 + math.exp(-p * z)) + p * z * _slope("sigmoid", p * z, 0)
    if name == "gelu":
        return math.erfc(-z / math.sqrt(2)) / 2 + z * math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    if name == "softsign":
        return 1 / (1 + abs(z)) ** 2
    assert name == "identity"
    return 1.0


def _slope_of_parameter(name: str, z: float, p: float) -> float:
    if name == "prelu":
        return 0.0 if z > 0 else z
    assert name == "swish"
    return z * z * _slope("sigmoid", p * z, 0)


def _loss_slope(name: str, z: Row, target: Row) -> Row:
    pairs = list(zip(z, target, strict=True))
    if name == "squared_error":
        return [z_k - y for z_k, y in pairs]
    if name == "mean_squared_error":
        return [2 * (z_k - y) / len(pairs) for z_k, y in pairs]
    if name == "softmax_cross_entropy":
        total = sum(math.exp(z_k) for z_k in z)
        return [sum(target) * math.exp(z_k) / total - y for z_k, y in pairs]
    if name == "sigmoid_cross_entropy":
        return [1 / (1 + math.exp(-z_k)) - y for z_k, y in pairs]
    if name == "binary_cross_entropy":
        return [(1 - y) / (1 - p) - y / p for p, y in pairs]
    assert name == "kl_divergence"
    return [-y / q for q, y in pairs]


def _gradient_of_sample(net: dl.MLP, layers: list, sample: Row, target: Row) -> Row:
    inputs, pre_activations = [sample], []
    for weight, bias, name, p in layers:
        z = [sum(w * a for w, a in zip(row, inputs[-1], strict=True)) + b for row, b in zip(weight, bias, strict=True)]
        pre_activations.append(z)
        inputs.append([_activate(LEARNABLE.get(name, name), z[j], p[j], math) for j in range(len(z))])
    a_bar, found = _loss_slope(net.loss, inputs[-1], target), []
    for (weight, _, name, p), a, z in reversed(list(zip(layers, inputs, pre_activations, strict=False))):
        z_bar = [bar * _slope(name, z[j], p[j]) for j, bar in enumerate(a_bar)]
        p_bar = [bar * _slope_of_parameter(name, z[j], p[j]) for j, bar in enumerate(a_bar) if name in LEARNABLE]
        found = [bar * a_i for bar in z_bar for a_i in a] + z_bar + p_bar + found
        a_bar = [sum(bar * row[i] for bar, row in zip(z_bar, weight, strict=True)) for i in range(len(a))]
    return found


# --- errors to expect ---


def accumulated_rounding(net: dl.MLP, batch: int, eps: float) -> float:
    """Relative error of the longest chain of roundings in one gradient entry, with a margin.

    A sum of n terms is off by at most about n unit roundoffs relative to the sum of magnitudes [Higham 2002,
    eq. 3.5]; every layer is passed twice. The margin of 16 stands for the cancellation between magnitudes and
    result, which only a running bound can know.
    """
    affine = [step.width for step in net.program.instructions if step.operation == "affine"]
    terms = 2 * sum(width + 4 for width in [net.n_inputs, *affine]) + batch
    return 16 * terms * eps / 2


def predicted(prepared: dl.Prepared, truth: Any, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """The error that a back-end predicts for itself, relative in norm, as the judge of studies uses it."""
    return relative_in_norm(prepared.predicted_error(theta, x, y), truth.gradient)
