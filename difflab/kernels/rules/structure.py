"""Operations that put values together: sums, products of groups, largest pieces, masks, smoothed labels."""

from __future__ import annotations

from difflab.kernels.layout import (
    BAR_DOTS,
    BARS,
    DOTS,
    INPUT,
    INPUT_WIDTH,
    KEEPS_INPUT,
    KEEPS_OTHER,
    OTHER,
    OUTPUT,
    SCRATCH,
    VALUES,
    WIDTH,
    block,
    constants,
    opened,
    reals,
)
from difflab.kernels.rules.rule import Rule
from difflab.kernels.target import compiled


@compiled
def _sum(row, state, part, zero):
    a = block(state, part, row[INPUT], row[WIDTH], zero)
    b = block(state, part, row[OTHER], row[WIDTH], zero)
    z = block(state, part, row[OUTPUT], row[WIDTH], zero)
    for i in range(z.size):
        z[i] = a[i] + b[i]


@compiled
def _add_to_both(row, state, part, zero):
    """One after the other, as the two inputs may be one value."""
    z_bar = block(state, part, row[OUTPUT], row[WIDTH], zero)
    a_bar = opened(row, state, part, INPUT, KEEPS_INPUT, zero)
    for i in range(z_bar.size):
        a_bar[i] += z_bar[i]
    b_bar = opened(row, state, part, OTHER, KEEPS_OTHER, zero)
    for i in range(z_bar.size):
        b_bar[i] += z_bar[i]


def add(row, state, zero):
    _sum(row, state, VALUES, zero)


def add_tangent(row, state, zero):
    _sum(row, state, DOTS, zero)


def add_reverse(row, state, zero):
    _add_to_both(row, state, BARS, zero)


def add_reverse_tangent(row, state, zero):
    _add_to_both(row, state, BAR_DOTS, zero)


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


@compiled
def _first_largest(pieces, start, n):
    """NaN wins over all numbers, so that it stays."""
    best = start
    for k in range(start + 1, start + n):
        if pieces[k] > pieces[best] or (pieces[k] != pieces[k] and pieces[best] == pieces[best]):
            best = k
    return best


@compiled
def _largest_of(row, state, part, zero):
    z = block(state, VALUES, row[INPUT], row[INPUT_WIDTH], zero)
    of_inputs = block(state, part, row[INPUT], row[INPUT_WIDTH], zero)
    a = block(state, part, row[OUTPUT], row[WIDTH], zero)
    n = row[INPUT_WIDTH] // row[WIDTH]
    for j in range(a.size):
        a[j] = of_inputs[_first_largest(z, j * n, n)]


@compiled
def _add_to_largest(row, state, part, zero):
    z = block(state, VALUES, row[INPUT], row[INPUT_WIDTH], zero)
    z_bar = opened(row, state, part, INPUT, KEEPS_INPUT, zero)
    a_bar = block(state, part, row[OUTPUT], row[WIDTH], zero)
    n = row[INPUT_WIDTH] // row[WIDTH]
    for j in range(a_bar.size):
        z_bar[_first_largest(z, j * n, n)] += a_bar[j]


def maxout(row, state, zero):
    _largest_of(row, state, VALUES, zero)


def maxout_tangent(row, state, zero):
    _largest_of(row, state, DOTS, zero)


def maxout_reverse(row, state, zero):
    _add_to_largest(row, state, BARS, zero)


def maxout_reverse_tangent(row, state, zero):
    _add_to_largest(row, state, BAR_DOTS, zero)


@compiled
def _masked(row, state, part, zero):
    a = block(state, part, row[INPUT], row[WIDTH], zero)
    mask = block(state, VALUES, row[OTHER], row[WIDTH], zero)
    z = block(state, part, row[OUTPUT], row[WIDTH], zero)
    kept = 1.0 - constants(row, state, 1)[0]
    for i in range(z.size):
        z[i] = a[i] * mask[i] / kept


@compiled
def _add_to_masked(row, state, part, zero):
    mask = block(state, VALUES, row[OTHER], row[WIDTH], zero)
    a_bar = opened(row, state, part, INPUT, KEEPS_INPUT, zero)
    z_bar = block(state, part, row[OUTPUT], row[WIDTH], zero)
    kept = 1.0 - constants(row, state, 1)[0]
    for i in range(z_bar.size):
        a_bar[i] += z_bar[i] * mask[i] / kept


def dropout(row, state, zero):
    _masked(row, state, VALUES, zero)


def dropout_tangent(row, state, zero):
    _masked(row, state, DOTS, zero)


def dropout_reverse(row, state, zero):
    _add_to_masked(row, state, BARS, zero)


def dropout_reverse_tangent(row, state, zero):
    _add_to_masked(row, state, BAR_DOTS, zero)


def label_smoothing(row, state, zero):
    """Of targets, which have no cotangents."""
    y = block(state, VALUES, row[INPUT], row[WIDTH], zero)
    smooth = block(state, VALUES, row[OUTPUT], row[WIDTH], zero)
    given = constants(row, state, 2)
    share, classes = given[0], given[1]
    for i in range(y.size):
        smooth[i] = y[i] * (1.0 - share) + share / classes


ADD = Rule(add, add_tangent, add_reverse, add_reverse_tangent)
MULTIPLY = Rule(multiply, multiply_tangent, multiply_reverse, multiply_reverse_tangent)
MAXOUT = Rule(maxout, maxout_tangent, maxout_reverse, maxout_reverse_tangent)
DROPOUT = Rule(dropout, dropout_tangent, dropout_reverse, dropout_reverse_tangent)
LABEL_SMOOTHING = Rule(label_smoothing)
