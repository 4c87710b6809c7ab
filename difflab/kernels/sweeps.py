"""The forward and the reverse sweep over a program, compiled once for all networks.

A program is one integer table, a row per instruction (columns below). Values and cotangents lie in flat workspaces:
the value that starts at column c of a batch of n samples is the block ``workspace[n * c : n * (c + width)]``, in C
order with samples as rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from difflab.kernels.target import compiled, entry_point
from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.losses import LOSSES
from difflab.program import INPUTS, Program


OPERATION, FUNCTION, INPUT, INPUT_WIDTH, OUTPUT, WIDTH, WEIGHT, BIAS, N_COLUMNS = range(9)
AFFINE, ACTIVATION, LOSS = range(3)
OPERATION_CODES = {"affine": AFFINE, "activation": ACTIVATION, "loss": LOSS}
FUNCTION_CODES = {
    "activation": {name: code for code, name in enumerate(ACTIVATIONS)},
    "loss": {name: code for code, name in enumerate(LOSSES)},
}


def encode(program: Program) -> np.ndarray:
    """The table of a program, shape (n_instructions, N_COLUMNS) int64; targets are no column of the workspace."""
    columns, column = {INPUTS: 0}, program.n_inputs
    table = np.zeros((len(program.instructions), N_COLUMNS), np.int64)
    for row, instruction in zip(table, program.instructions, strict=True):
        columns[len(columns) + 1] = column
        row[OPERATION] = OPERATION_CODES[instruction.operation]
        if instruction.function:
            row[FUNCTION] = FUNCTION_CODES[instruction.operation][instruction.function]
        row[INPUT] = columns[instruction.inputs[0]]
        row[INPUT_WIDTH] = program.width_of(instruction.inputs[0])
        row[OUTPUT], row[WIDTH] = column, instruction.width
        if len(instruction.parameters) > 2:
            raise ValueError(f"an instruction of the table must have at most 2 parameters, got {instruction}")
        for place, parameter in zip((WEIGHT, BIAS), instruction.parameters, strict=False):
            row[place] = parameter.offset
        column += instruction.width
    return table


def workspace_columns(table: np.ndarray) -> int:
    """Columns of the workspace that holds every value of the program but the targets."""
    return int(table[-1, OUTPUT] + table[-1, WIDTH])


def scratch_size(table: np.ndarray, batch: int) -> int:
    """Entries of the largest product the reverse sweep adds to a cotangent or to the gradient."""
    affine = table[table[:, OPERATION] == AFFINE]
    return int((affine[:, INPUT_WIDTH] * np.maximum(affine[:, WIDTH], batch)).max(initial=1))


def dispatch(choices: Iterable[Any], otherwise: Any) -> Any:
    """One compiled function whose first argument, an integer code, says which of ``choices`` to run.

    Functions passed to a kernel cost microseconds a call; a chain of comparisons costs nothing measurable.
    """
    chosen = otherwise
    for code, choice in enumerate(choices):
        chosen = _either(code, choice, chosen)
    return chosen


def _either(code: int, choice: Any, otherwise: Any) -> Any:
    @compiled
    def either(wanted, a, b, c):
        if wanted == code:
            return choice(a, b, c)
        return otherwise(wanted, a, b, c)

    return either


def _value_pass(value: Callable) -> Any:
    value = compiled(value)

    @compiled
    def value_pass(z, a, unused):
        for i in range(z.size):
            a[i] = value(np.float64(z[i]))

    return value_pass


def _cotangent_pass(derivative: Callable) -> Any:
    derivative = compiled(derivative)

    @compiled
    def cotangent_pass(z, a_bar, z_bar):
        for i in range(z.size):
            z_bar[i] += a_bar[i] * derivative(np.float64(z[i]))

    return cotangent_pass


@compiled
def _no_pass(wanted, a, b, c):
    """The end of a chain: codes come from the tables above, so it is never reached."""


@compiled
def _no_loss(wanted, z, y, z_bar):
    return np.nan


_activate = dispatch([_value_pass(row.value) for row in ACTIVATIONS.values()], _no_pass)
_activate_reverse = dispatch([_cotangent_pass(row.derivative) for row in ACTIVATIONS.values()], _no_pass)
_loss_of_sample = dispatch([compiled(row.value_and_cotangent) for row in LOSSES.values()], _no_loss)


@compiled
def block(workspace, batch, column, width):
    return workspace[batch * column : batch * (column + width)]


@compiled
def _affine(row, theta, batch, values):
    m, n = row[INPUT_WIDTH], row[WIDTH]
    a = block(values, batch, row[INPUT], m).reshape(batch, m)
    z = block(values, batch, row[OUTPUT], n).reshape(batch, n)
    weight = theta[row[WEIGHT] : row[WEIGHT] + m * n].reshape(n, m)
    bias = theta[row[BIAS] : row[BIAS] + n]
    np.dot(a, weight.T, z)
    for i in range(batch):
        for j in range(n):
            z[i, j] += bias[j]


@compiled
def _affine_reverse(row, theta, batch, values, cotangents, gradient, scratch):
    """W_bar += z_bar^T a, b_bar += sum of z_bar, a_bar += z_bar W; the cotangent of x is never needed."""
    m, n = row[INPUT_WIDTH], row[WIDTH]
    a = block(values, batch, row[INPUT], m).reshape(batch, m)
    z_bar = block(cotangents, batch, row[OUTPUT], n).reshape(batch, n)
    product = scratch[: m * n]
    np.dot(z_bar.T, a, product.reshape(n, m))
    weight_bar = gradient[row[WEIGHT] : row[WEIGHT] + m * n]
    for i in range(m * n):
        weight_bar[i] += product[i]
    bias_bar = gradient[row[BIAS] : row[BIAS] + n]
    for i in range(batch):
        for j in range(n):
            bias_bar[j] += z_bar[i, j]
    if row[INPUT] > 0:
        product = scratch[: batch * m]
        weight = theta[row[WEIGHT] : row[WEIGHT] + m * n].reshape(n, m)
        np.dot(z_bar, weight, product.reshape(batch, m))
        a_bar = block(cotangents, batch, row[INPUT], m)
        for i in range(batch * m):
            a_bar[i] += product[i]


@compiled
def _loss(row, y, parts, batch, values, cotangents):
    """The loss of the batch; fills the cotangent of the outputs."""
    n = row[INPUT_WIDTH]
    z = block(values, batch, row[INPUT], n).reshape(batch, n)
    z_bar = block(cotangents, batch, row[INPUT], n).reshape(batch, n)
    total = 0.0
    for i in range(batch):
        total += _loss_of_sample(row[FUNCTION], z[i], y[i], z_bar[i])
        for k in range(n):
            z_bar[i, k] /= parts
    return total / parts


@compiled
def _forward(table, theta, y, parts, batch, values, cotangents):
    loss = 0.0
    for i in range(table.shape[0]):
        row = table[i]
        if row[OPERATION] == AFFINE:
            _affine(row, theta, batch, values)
        elif row[OPERATION] == ACTIVATION:
            z = block(values, batch, row[INPUT], row[WIDTH])
            a = block(values, batch, row[OUTPUT], row[WIDTH])
            _activate(row[FUNCTION], z, a, a)
        else:
            loss += _loss(row, y, parts, batch, values, cotangents)
    return loss


@compiled
def _load(x, values):
    inputs = values[: x.size].reshape(x.shape)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            inputs[i, j] = x[i, j]


@entry_point
def value(table, theta, x, y, parts, values, cotangents):
    """The loss of a batch; ``cotangents`` is workspace."""
    _load(x, values)
    return _forward(table, theta, y, parts, x.shape[0], values, cotangents)


@entry_point
def value_and_gradient(table, theta, x, y, parts, values, cotangents, scratch, gradient):
    """The loss of a batch; fills ``gradient``.

    Parameters
    ----------
    table : (n_instructions, N_COLUMNS) int64
    theta, gradient : (n_params,)
    x, y : (batch, n_inputs), (batch, n_outputs)
    parts : what the sum of losses is divided by
    values, cotangents : (batch * workspace_columns,) workspaces
    scratch : (scratch_size,) workspace
    """
    batch = x.shape[0]
    _load(x, values)
    cotangents[:] = 0
    gradient[:] = 0
    loss = _forward(table, theta, y, parts, batch, values, cotangents)
    for i in range(table.shape[0] - 1, -1, -1):
        row = table[i]
        if row[OPERATION] == AFFINE:
            _affine_reverse(row, theta, batch, values, cotangents, gradient, scratch)
        elif row[OPERATION] == ACTIVATION:
            z = block(values, batch, row[INPUT], row[WIDTH])
            a_bar = block(cotangents, batch, row[OUTPUT], row[WIDTH])
            z_bar = block(cotangents, batch, row[INPUT], row[WIDTH])
            _activate_reverse(row[FUNCTION], z, a_bar, z_bar)
    return loss
