"""Inputs times masks, over the share that is kept."""

from __future__ import annotations

from difflab.kernels.layout import (
    INPUT,
    INPUT_BAR,
    KEEPS_INPUT,
    OTHER,
    OUTPUT,
    OUTPUT_BAR,
    VALUES,
    WIDTH,
    block,
    constants,
    opened,
)
from difflab.kernels.rules.linear import linear
from difflab.kernels.target import compiled


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
    a_bar = opened(row, state, part, INPUT_BAR, KEEPS_INPUT, zero)
    z_bar = block(state, part, row[OUTPUT_BAR], row[WIDTH], zero)
    kept = 1.0 - constants(row, state, 1)[0]
    for i in range(z_bar.size):
        a_bar[i] += z_bar[i] * mask[i] / kept


DROPOUT = linear(_masked, _add_to_masked, carries=1)
