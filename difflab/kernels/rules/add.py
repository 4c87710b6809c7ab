"""Sums of two values, as residual connections make them."""

from __future__ import annotations

from difflab.kernels.layout import (
    INPUT,
    INPUT_BAR,
    KEEPS_INPUT,
    KEEPS_OTHER,
    OTHER,
    OTHER_BAR,
    OUTPUT,
    OUTPUT_BAR,
    WIDTH,
    block,
    opened,
)
from difflab.kernels.rules.linear import linear
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
    z_bar = block(state, part, row[OUTPUT_BAR], row[WIDTH], zero)
    a_bar = opened(row, state, part, INPUT_BAR, KEEPS_INPUT, zero)
    for i in range(z_bar.size):
        a_bar[i] += z_bar[i]
    b_bar = opened(row, state, part, OTHER_BAR, KEEPS_OTHER, zero)
    for i in range(z_bar.size):
        b_bar[i] += z_bar[i]


ADD = linear(_sum, _add_to_both)
