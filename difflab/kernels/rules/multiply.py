"""Products of groups of consecutive inputs."""

from __future__ import annotations

from difflab.kernels.layout import (
    BAR_DOTS,
    BARS,
    DOTS,
    INPUT,
    INPUT_WIDTH,
    KEEPS_INPUT,
    OUTPUT,
    SCRATCH,
    VALUES,
    WIDTH,
    block,
    opened,
    reals,
)
from difflab.kernels.rules.rule import Rule
from difflab.kernels.target import compiled


def multiply(row, state, zero):
    z = block(state, VALUES, row[INPUT], row[INPUT_WIDTH], zero)
    a = block(state, VALUES, row[OUTPUT], row[WIDTH], zero)
    n = row[INPUT_WIDTH] // row[WIDTH]
    for j in range(a.size):
        product = 1.0
        for k in range(j * n, (j + 1) * n):
            product *= z[k]
        a[j] = product


@compiled
def _without(z, start, n, left_out, other):
    """The product of a group without one or two of its factors."""
    product = 1.0
    for k in range(n):
        if k not in (left_out, other):
            product *= z[start + k]
    return product


def multiply_tangent(row, state, zero):
    z = block(state, VALUES, row[INPUT], row[INPUT_WIDTH], zero)
    z_dot = block(state, DOTS, row[INPUT], row[INPUT_WIDTH], zero)
    a_dot = block(state, DOTS, row[OUTPUT], row[WIDTH], zero)
    n = row[INPUT_WIDTH] // row[WIDTH]
    for j in range(a_dot.size):
        total = 0.0
        for k in range(n):
            total += z_dot[j * n + k] * _without(z, j * n, n, k, k)
        a_dot[j] = total


def multiply_reverse(row, state, zero):
    """Products from the left times products from the right: a division would fail where a factor is 0."""
    z = block(state, VALUES, row[INPUT], row[INPUT_WIDTH], zero)
    z_bar = opened(row, state, BARS, INPUT, KEEPS_INPUT, zero)
    a_bar = block(state, BARS, row[OUTPUT], row[WIDTH], zero)
    n = row[INPUT_WIDTH] // row[WIDTH]
    before = reals(state[SCRATCH], n)
    for j in range(a_bar.size):
        product = 1.0
        for k in range(n):
            before[k] = product
            product *= z[j * n + k]
        after = 1.0 * a_bar[j]
        for k in range(n - 1, -1, -1):
            z_bar[j * n + k] += before[k] * after
            after *= z[j * n + k]


def multiply_reverse_tangent(row, state, zero):
    z = block(state, VALUES, row[INPUT], row[INPUT_WIDTH], zero)
    z_dot = block(state, DOTS, row[INPUT], row[INPUT_WIDTH], zero)
    z_bar_dot = opened(row, state, BAR_DOTS, INPUT, KEEPS_INPUT, zero)
    a_bar = block(state, BARS, row[OUTPUT], row[WIDTH], zero)
    a_bar_dot = block(state, BAR_DOTS, row[OUTPUT], row[WIDTH], zero)
    n = row[INPUT_WIDTH] // row[WIDTH]
    for j in range(a_bar.size):
        for k in range(n):
            change = 0.0
            for other in range(n):
                if other != k:
                    change += z_dot[j * n + other] * _without(z, j * n, n, k, other)
            z_bar_dot[j * n + k] += a_bar_dot[j] * _without(z, j * n, n, k, k) + a_bar[j] * change


MULTIPLY = Rule(multiply, multiply_tangent, multiply_reverse, multiply_reverse_tangent)
