"""The largest of groups of consecutive inputs, the first of equals."""

from __future__ import annotations

from difflab.kernels.layout import (
    INPUT,
    INPUT_BAR,
    INPUT_WIDTH,
    KEEPS_INPUT,
    OUTPUT,
    OUTPUT_BAR,
    VALUES,
    WIDTH,
    block,
    opened,
)
from difflab.kernels.rules.linear import linear
from difflab.kernels.target import compiled


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
    z_bar = opened(row, state, part, INPUT_BAR, KEEPS_INPUT, zero)
    a_bar = block(state, part, row[OUTPUT_BAR], row[WIDTH], zero)
    n = row[INPUT_WIDTH] // row[WIDTH]
    for j in range(a_bar.size):
        z_bar[_first_largest(z, j * n, n)] += a_bar[j]


MAXOUT = linear(_largest_of, _add_to_largest)
