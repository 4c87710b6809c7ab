"""Products of groups of consecutive inputs."""

from __future__ import annotations

from difflab.kernels.layout import (
    BAR_DOTS,
    BARS,
    DOTS,
    INPUT,
    INPUT_BAR,
    INPUT_WIDTH,
    KEEPS_INPUT,
    OUTPUT,
    OUTPUT_BAR,
    SCRATCH,
    VALUES,
    WIDTH,
    block,
    opened,
    reals,
)
from difflab.kernels.rules.rule import Rule


def multiply(row, state, zero):
    z = block(state, VALUES, row[INPUT], row[INPUT_WIDTH], zero)
    a = block(state, VALUES, row[OUTPUT], row[WIDTH], zero)
    n = row[INPUT_WIDTH] // row[WIDTH]
    for j in range(a.size):
        product = 1.0
        for k in range(j * n, (j + 1) * n):
            product *= z[k]
        a[j] = product


def multiply_tangent(row, state, zero):
    z = block(state, VALUES, row[INPUT], row[INPUT_WIDTH], zero)
    z_dot = block(state, DOTS, row[INPUT], row[INPUT_WIDTH], zero)
    a_dot = block(state, DOTS, row[OUTPUT], row[WIDTH], zero)
    n = row[INPUT_WIDTH] // row[WIDTH]
    for j in range(a_dot.size):
        product, product_dot = 1.0, 0.0
        for k in range(j * n, (j + 1) * n):
            product_dot = product_dot * z[k] + product * z_dot[k]
            product *= z[k]
        a_dot[j] = product_dot


def multiply_reverse(row, state, zero):
    """Products from the left times products from the right: a division would fail where a factor is 0."""
    z = block(state, VALUES, row[INPUT], row[INPUT_WIDTH], zero)
    z_bar = opened(row, state, BARS, INPUT_BAR, KEEPS_INPUT, zero)
    a_bar = block(state, BARS, row[OUTPUT_BAR], row[WIDTH], zero)
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
    z_bar_dot = opened(row, state, BAR_DOTS, INPUT_BAR, KEEPS_INPUT, zero)
    a_bar = block(state, BARS, row[OUTPUT_BAR], row[WIDTH], zero)
    a_bar_dot = block(state, BAR_DOTS, row[OUTPUT_BAR], row[WIDTH], zero)
    n = row[INPUT_WIDTH] // row[WIDTH]
    before, before_dot = reals(state[SCRATCH], n), reals(state[SCRATCH] + 8 * n, n)
    for j in range(a_bar.size):
        product, product_dot = 1.0, 0.0
        for k in range(n):
            before[k], before_dot[k] = product, product_dot
            product_dot = product_dot * z[j * n + k] + product * z_dot[j * n + k]
            product *= z[j * n + k]
        after, after_dot = 1.0 * a_bar[j], 1.0 * a_bar_dot[j]
        for k in range(n - 1, -1, -1):
            z_bar_dot[j * n + k] += before_dot[k] * after + before[k] * after_dot
            after_dot = after_dot * z[j * n + k] + after * z_dot[j * n + k]
            after *= z[j * n + k]


MULTIPLY = Rule(multiply, multiply_tangent, multiply_reverse, multiply_reverse_tangent)
