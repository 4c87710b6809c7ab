"""The forward and the reverse rule of every operation, over rows of a program's table.

Values and cotangents lie in flat workspaces: the value that starts at column c of a batch of n samples is the block
``workspace[n * c : n * (c + width)]``, in C order with samples as rows. Scalars run in float64, products of matrices
and what is added to cotangents and to the gradient in the dtype of the arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from difflab.kernels.target import compiled, compiled_rule
from difflab.primitives.activations import ACTIVATIONS, Activation
from difflab.primitives.losses import LOSSES


OPERATION, FUNCTION, INPUT, INPUT_WIDTH, OTHER, OUTPUT, WIDTH, FIRST, SECOND, SIZE, CONSTANT, N_COLUMNS = range(12)
"""Columns of a table: codes, blocks (of two inputs and the output), offsets of two parameters in theta, the size of the
last one, and the offset of the constants; -1 where there is none."""


class State(NamedTuple):
    """What every rule works on.

    Attributes
    ----------
    theta, gradient : (n_params,)
    constants : (n_constants,) float64
    batch : number of samples
    parts : what the sum of losses is divided by
    values, cotangents : (batch * columns,) workspaces
    scratch : a workspace for one product
    losses : (2,) float64: the sum of the losses of samples, and of totals
    """

    theta: np.ndarray
    constants: np.ndarray
    batch: int
    parts: int
    values: np.ndarray
    cotangents: np.ndarray
    scratch: np.ndarray
    gradient: np.ndarray
    losses: np.ndarray


def dispatch(choices: Iterable[Any], otherwise: Any) -> Any:
    """One compiled function whose first argument, an integer code, says which of ``choices`` to run.

    Functions passed to a kernel cost microseconds a call; a chain of comparisons costs nothing measurable.
    """
    choices = list(choices)
    chosen = otherwise
    for first in reversed(range(0, len(choices), LINK)):
        link = choices[first : first + LINK]
        chosen = _link(first, [*link, *[link[-1]] * (LINK - len(link))], chosen)
    return chosen


LINK = 6
"""Choices in one link of a chain: each link is one more function to compile."""


def _link(first: int, choices: list[Any], otherwise: Any) -> Any:
    a, b, c, d, e, f = choices

    @compiled
    def link(wanted, *arguments):
        if wanted == first:
            return a(*arguments)
        if wanted == first + 1:
            return b(*arguments)
        if wanted == first + 2:
            return c(*arguments)
        if wanted == first + 3:
            return d(*arguments)
        if wanted == first + 4:
            return e(*arguments)
        if wanted == first + 5:
            return f(*arguments)
        return otherwise(wanted, *arguments)

    return link


@compiled
def _nothing(wanted, *arguments):
    """The end of a chain, for a code that was not there when the chain was compiled."""
    raise RuntimeError("compiled kernels do not know this activation; they are older than the table of activations")


@compiled
def _no_loss(wanted, z, y, z_bar):
    return np.nan


@compiled
def block(workspace, batch, column, width):
    return workspace[batch * column : batch * (column + width)]


@compiled
def rows(workspace, batch, column, width):
    return block(workspace, batch, column, width).reshape(batch, width)


@compiled
def affine(row, state):
    m, n, batch = row[INPUT_WIDTH], row[WIDTH], state.batch
    a = rows(state.values, batch, row[INPUT], m)
    z = rows(state.values, batch, row[OUTPUT], n)
    weight = state.theta[row[FIRST] : row[FIRST] + m * n].reshape(n, m)
    np.dot(a, weight.T, z)
    if row[SECOND] >= 0:
        bias = state.theta[row[SECOND] : row[SECOND] + n]
        for i in range(batch):
            for j in range(n):
                z[i, j] += bias[j]


@compiled
def affine_reverse(row, state):
    """W_bar += z_bar^T a, b_bar += sum of z_bar, a_bar += z_bar W; the cotangent of x is never needed."""
    m, n, batch = row[INPUT_WIDTH], row[WIDTH], state.batch
    a = rows(state.values, batch, row[INPUT], m)
    z_bar = rows(state.cotangents, batch, row[OUTPUT], n)
    product = state.scratch[: m * n]
    np.dot(z_bar.T, a, product.reshape(n, m))
    weight_bar = state.gradient[row[FIRST] : row[FIRST] + m * n]
    for i in range(m * n):
        weight_bar[i] += product[i]
    if row[SECOND] >= 0:
        bias_bar = state.gradient[row[SECOND] : row[SECOND] + n]
        for i in range(batch):
            for j in range(n):
                bias_bar[j] += z_bar[i, j]
    if row[INPUT] > 0:
        product = state.scratch[: batch * m]
        weight = state.theta[row[FIRST] : row[FIRST] + m * n].reshape(n, m)
        np.dot(z_bar, weight, product.reshape(batch, m))
        a_bar = block(state.cotangents, batch, row[INPUT], m)
        for i in range(batch * m):
            a_bar[i] += product[i]


def value_pass(row: Activation) -> Any:
    """a = f(z; p), every entry in float64 and rounded once; p : (1,), or one for each unit."""
    value = compiled_rule(row.value)

    @compiled
    def plain(z, a, p):
        for i in range(z.size):
            a[i] = value(np.float64(z[i]))

    @compiled
    def with_parameter(z, a, p):
        for i in range(z.size):
            a[i] = value(np.float64(z[i]), p[i % p.size])

    return plain if row.parameter is None else with_parameter


def cotangent_pass(row: Activation) -> Any:
    """z_bar += a_bar f'(z; p), and p_bar += a_bar times the derivative with respect to a learnable p."""
    derivative = compiled_rule(row.derivative)
    parameter_derivative = compiled_rule(row.parameter_derivative or row.derivative)

    @compiled
    def plain(z, a_bar, z_bar, p, p_bar):
        for i in range(z.size):
            z_bar[i] += a_bar[i] * derivative(np.float64(z[i]))

    @compiled
    def with_constant(z, a_bar, z_bar, p, p_bar):
        for i in range(z.size):
            z_bar[i] += a_bar[i] * derivative(np.float64(z[i]), p[0])

    @compiled
    def with_learnable(z, a_bar, z_bar, p, p_bar):
        for i in range(z.size):
            k = i % p.size
            z_bar[i] += a_bar[i] * derivative(np.float64(z[i]), p[k])
            p_bar[k] += a_bar[i] * parameter_derivative(np.float64(z[i]), p[k])

    if row.parameter is None:
        return plain
    return with_learnable if row.is_learnable else with_constant


_activate = dispatch(map(value_pass, ACTIVATIONS.values()), _nothing)
_activate_reverse = dispatch(map(cotangent_pass, ACTIVATIONS.values()), _nothing)
_loss_of_sample = dispatch((compiled_rule(row.value_and_cotangent) for row in LOSSES.values()), _no_loss)


@compiled
def _parameters(row, state):
    """The parameters of an activation in float64: a constant of the network, or a slice of theta."""
    if row[FIRST] < 0:
        return state.constants[row[CONSTANT] : row[CONSTANT] + 1]
    return state.theta[row[FIRST] : row[FIRST] + row[SIZE]].astype(np.float64)


@compiled
def activation(row, state):
    z = block(state.values, state.batch, row[INPUT], row[WIDTH])
    a = block(state.values, state.batch, row[OUTPUT], row[WIDTH])
    _activate(row[FUNCTION], z, a, _parameters(row, state))


@compiled
def activation_reverse(row, state):
    z = block(state.values, state.batch, row[INPUT], row[WIDTH])
    a_bar = block(state.cotangents, state.batch, row[OUTPUT], row[WIDTH])
    z_bar = block(state.cotangents, state.batch, row[INPUT], row[WIDTH])
    p = _parameters(row, state)
    p_bar = np.zeros(p.size)
    _activate_reverse(row[FUNCTION], z, a_bar, z_bar, p, p_bar)
    for k in range(row[SIZE]):
        state.gradient[row[FIRST] + k] += p_bar[k]


@compiled
def add(row, state):
    a = block(state.values, state.batch, row[INPUT], row[WIDTH])
    b = block(state.values, state.batch, row[OTHER], row[WIDTH])
    z = block(state.values, state.batch, row[OUTPUT], row[WIDTH])
    for i in range(z.size):
        z[i] = a[i] + b[i]


@compiled
def add_reverse(row, state):
    """One after the other, as the two inputs may be one value."""
    z_bar = block(state.cotangents, state.batch, row[OUTPUT], row[WIDTH])
    for column in (row[INPUT], row[OTHER]):
        a_bar = block(state.cotangents, state.batch, column, row[WIDTH])
        for i in range(z_bar.size):
            a_bar[i] += z_bar[i]


@compiled
def multiply(row, state):
    z = block(state.values, state.batch, row[INPUT], row[INPUT_WIDTH])
    a = block(state.values, state.batch, row[OUTPUT], row[WIDTH])
    n = z.size // a.size
    for j in range(a.size):
        product = 1.0
        for k in range(j * n, (j + 1) * n):
            product *= z[k]
        a[j] = product


@compiled
def multiply_reverse(row, state):
    """Products from the left times products from the right: a division would fail where a factor is 0."""
    z = block(state.values, state.batch, row[INPUT], row[INPUT_WIDTH])
    z_bar = block(state.cotangents, state.batch, row[INPUT], row[INPUT_WIDTH])
    a_bar = block(state.cotangents, state.batch, row[OUTPUT], row[WIDTH])
    n = z.size // a_bar.size
    before = np.empty(n)
    for j in range(a_bar.size):
        product = 1.0
        for k in range(n):
            before[k] = product
            product *= z[j * n + k]
        after = np.float64(a_bar[j])
        for k in range(n - 1, -1, -1):
            z_bar[j * n + k] += before[k] * after
            after *= z[j * n + k]


@compiled
def _first_largest(pieces):
    """NaN wins over all numbers, so that it stays."""
    best = 0
    for k in range(1, pieces.size):
        if pieces[k] > pieces[best] or (pieces[k] != pieces[k] and pieces[best] == pieces[best]):
            best = k
    return best


@compiled
def maxout(row, state):
    z = block(state.values, state.batch, row[INPUT], row[INPUT_WIDTH])
    a = block(state.values, state.batch, row[OUTPUT], row[WIDTH])
    n = z.size // a.size
    for j in range(a.size):
        pieces = z[j * n : (j + 1) * n]
        a[j] = pieces[_first_largest(pieces)]


@compiled
def maxout_reverse(row, state):
    z = block(state.values, state.batch, row[INPUT], row[INPUT_WIDTH])
    z_bar = block(state.cotangents, state.batch, row[INPUT], row[INPUT_WIDTH])
    a_bar = block(state.cotangents, state.batch, row[OUTPUT], row[WIDTH])
    n = z.size // a_bar.size
    for j in range(a_bar.size):
        z_bar[j * n + _first_largest(z[j * n : (j + 1) * n])] += a_bar[j]


@compiled
def softmax(row, state):
    z = rows(state.values, state.batch, row[INPUT], row[WIDTH])
    a = rows(state.values, state.batch, row[OUTPUT], row[WIDTH])
    for i in range(state.batch):
        top = z[i].max()
        total = 0.0
        for k in range(row[WIDTH]):
            a[i, k] = np.exp(z[i, k] - top)
            total += a[i, k]
        for k in range(row[WIDTH]):
            a[i, k] /= total


@compiled
def softmax_reverse(row, state):
    """z_bar_k += a_k (lead_k - sum_j a_j lead_j), where leads over the largest entry do not cancel."""
    a = rows(state.values, state.batch, row[OUTPUT], row[WIDTH])
    a_bar = rows(state.cotangents, state.batch, row[OUTPUT], row[WIDTH])
    z_bar = rows(state.cotangents, state.batch, row[INPUT], row[WIDTH])
    for i in range(state.batch):
        top = np.float64(a_bar[i, a[i].argmax()])
        mean = 0.0
        for k in range(row[WIDTH]):
            mean += a[i, k] * (a_bar[i, k] - top)
        for k in range(row[WIDTH]):
            z_bar[i, k] += a[i, k] * ((a_bar[i, k] - top) - mean)


@compiled
def _moments(z, j, eps):
    """Mean, what rounding took from it, and deviation of a column, scaled so that squares neither overflow nor vanish.

    An error of the mean would give cotangents a sum over the batch, which inputs far from 0 then magnify.
    """
    mean, rest = 0.0, 0.0
    for i in range(z.shape[0]):
        mean += z[i, j]
    mean /= z.shape[0]
    for i in range(z.shape[0]):
        rest += z[i, j] - mean
    rest /= z.shape[0]
    scale = np.sqrt(eps)
    for i in range(z.shape[0]):
        scale = max(scale, abs((z[i, j] - mean) - rest))
    squares = 0.0
    for i in range(z.shape[0]):
        squares += (((z[i, j] - mean) - rest) / scale) * (((z[i, j] - mean) - rest) / scale)
    return mean, rest, scale * np.sqrt(squares / z.shape[0] + eps / scale / scale)


@compiled
def _statistics(row, state, z, j):
    """Mean in two parts and deviation of unit j: of the batch, or the given ones."""
    eps = state.constants[row[CONSTANT]]
    if row[OPERATION] == BATCH_NORM:
        return _moments(z, j, eps)
    variance = state.constants[row[CONSTANT] + 1 + row[WIDTH] + j]
    return state.constants[row[CONSTANT] + 1 + j], 0.0, np.sqrt(variance + eps)


@compiled
def batch_norm(row, state):
    z = rows(state.values, state.batch, row[INPUT], row[WIDTH])
    a = rows(state.values, state.batch, row[OUTPUT], row[WIDTH])
    for j in range(row[WIDTH]):
        mean, rest, deviation = _statistics(row, state, z, j)
        gamma, beta = state.theta[row[FIRST] + j], state.theta[row[SECOND] + j]
        for i in range(state.batch):
            a[i, j] = ((z[i, j] - mean) - rest) / deviation * gamma + beta


@compiled
def batch_norm_reverse(row, state):
    """z_bar += gamma (a_bar - mean(a_bar) - normal mean(a_bar normal)) / deviation; given statistics have no means."""
    z = rows(state.values, state.batch, row[INPUT], row[WIDTH])
    z_bar = rows(state.cotangents, state.batch, row[INPUT], row[WIDTH])
    a_bar = rows(state.cotangents, state.batch, row[OUTPUT], row[WIDTH])
    share = 1.0 / state.batch if row[OPERATION] == BATCH_NORM else 0.0
    for j in range(row[WIDTH]):
        mean, rest, deviation = _statistics(row, state, z, j)
        total, dot = 0.0, 0.0
        for i in range(state.batch):
            total += a_bar[i, j]
            dot += a_bar[i, j] * (((z[i, j] - mean) - rest) / deviation)
        state.gradient[row[FIRST] + j] += dot
        state.gradient[row[SECOND] + j] += total
        scale = state.theta[row[FIRST] + j] / deviation
        for i in range(state.batch):
            normal = ((z[i, j] - mean) - rest) / deviation
            z_bar[i, j] += scale * (a_bar[i, j] - share * total - normal * (share * dot))


@compiled
def dropout(row, state):
    a = block(state.values, state.batch, row[INPUT], row[WIDTH])
    mask = block(state.values, state.batch, row[OTHER], row[WIDTH])
    z = block(state.values, state.batch, row[OUTPUT], row[WIDTH])
    kept = 1.0 - state.constants[row[CONSTANT]]
    for i in range(z.size):
        z[i] = a[i] * mask[i] / kept


@compiled
def dropout_reverse(row, state):
    mask = block(state.values, state.batch, row[OTHER], row[WIDTH])
    a_bar = block(state.cotangents, state.batch, row[INPUT], row[WIDTH])
    z_bar = block(state.cotangents, state.batch, row[OUTPUT], row[WIDTH])
    kept = 1.0 - state.constants[row[CONSTANT]]
    for i in range(z_bar.size):
        a_bar[i] += z_bar[i] * mask[i] / kept


@compiled
def label_smoothing(row, state):
    y = block(state.values, state.batch, row[INPUT], row[WIDTH])
    smooth = block(state.values, state.batch, row[OUTPUT], row[WIDTH])
    share, classes = state.constants[row[CONSTANT]], state.constants[row[CONSTANT] + 1]
    for i in range(y.size):
        smooth[i] = y[i] * (1.0 - share) + share / classes


@compiled
def label_smoothing_reverse(row, state):
    """Targets have no cotangents."""


@compiled
def loss(row, state):
    """The losses of the samples; fills the cotangent of the outputs."""
    n = row[INPUT_WIDTH]
    z = rows(state.values, state.batch, row[INPUT], n)
    y = rows(state.values, state.batch, row[OTHER], n)
    z_bar = rows(state.cotangents, state.batch, row[INPUT], n)
    for i in range(state.batch):
        state.losses[0] += _loss_of_sample(row[FUNCTION], z[i], y[i], z_bar[i])
        for k in range(n):
            z_bar[i, k] /= state.parts


@compiled
def loss_reverse(row, state):
    """The forward rule has done it."""


@compiled
def penalty(row, state):
    l1, l2 = state.constants[row[CONSTANT]], state.constants[row[CONSTANT] + 1]
    for w in state.theta[row[FIRST] : row[FIRST] + row[SIZE]]:
        state.losses[1] += l1 * abs(w) + l2 * w * w / 2.0


@compiled
def penalty_reverse(row, state):
    l1, l2 = state.constants[row[CONSTANT]], state.constants[row[CONSTANT] + 1]
    for k in range(row[FIRST], row[FIRST] + row[SIZE]):
        w = state.theta[k]
        state.gradient[k] += l1 * np.sign(w) + l2 * w


RULES: dict[str, tuple[Callable, Callable]] = {
    "affine": (affine, affine_reverse),
    "activation": (activation, activation_reverse),
    "add": (add, add_reverse),
    "multiply": (multiply, multiply_reverse),
    "maxout": (maxout, maxout_reverse),
    "softmax": (softmax, softmax_reverse),
    "batch_norm": (batch_norm, batch_norm_reverse),
    "batch_norm_inference": (batch_norm, batch_norm_reverse),
    "dropout": (dropout, dropout_reverse),
    "label_smoothing": (label_smoothing, label_smoothing_reverse),
    "loss": (loss, loss_reverse),
    "penalty": (penalty, penalty_reverse),
}
"""The forward and the reverse rule of each operation; its place is its code."""

BATCH_NORM = list(RULES).index("batch_norm")
