"""The losses of samples, and what the reverse sweep starts from."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from difflab.kernels.layout import (
    BAR_DOTS,
    BARS,
    BATCH,
    DOTS,
    INPUT,
    INPUT_BAR,
    INPUT_WIDTH,
    OF_SAMPLES,
    OTHER,
    PARTS,
    SCRATCH,
    VALUES,
    array,
    block,
    losses_of,
    rows,
)
from difflab.kernels.rules.rule import Kind, Rule
from difflab.kernels.target import compiled, compiled_rule
from difflab.primitives.losses import Loss


@cache
def loss(row: Loss, kind: Kind, dtype: str) -> Rule:
    """Cotangents are made with the losses; a Gauss-Newton product starts from their tangents."""
    number: Any = np.dtype(dtype).type
    of_samples, curved = compiled_rule(row.value_and_cotangent, number), compiled_rule(row.cotangent_tangent, number)

    def forward(row, state, zero):
        n, sums, losses = row[INPUT_WIDTH], losses_of(state), array(state[SCRATCH], state[BATCH], zero)
        z, y = rows(state, VALUES, row[INPUT], n, zero), rows(state, VALUES, row[OTHER], n, zero)
        z_bar = rows(state, BARS, row[INPUT_BAR], n, zero)
        of_samples(z, y, z_bar, losses)
        for i in range(state[BATCH]):
            sums[OF_SAMPLES] += losses[i]
        divide(row, state, BARS, zero)

    @compiled
    def curve(row, state, part, zero):
        n = row[INPUT_WIDTH]
        z, y = rows(state, VALUES, row[INPUT], n, zero), rows(state, VALUES, row[OTHER], n, zero)
        z_dot, made = rows(state, DOTS, row[INPUT], n, zero), rows(state, part, row[INPUT_BAR], n, zero)
        curved(z, y, z_dot, made)
        divide(row, state, part, zero)

    def tangent_of_cotangent(row, state, zero):
        curve(row, state, BAR_DOTS, zero)

    def gauss_newton(row, state, zero):
        curve(row, state, BARS, zero)

    if kind == "gauss_newton":
        return Rule(None, gauss_newton, carries=1)
    return Rule(forward, tangent_of_cotangent if kind == "hvp" else None, carries=1)


@compiled
def divide(row, state, part, zero):
    made = block(state, part, row[INPUT_BAR], row[INPUT_WIDTH], zero)
    parts = zero + state[PARTS]
    for k in range(made.size):
        made[k] /= parts
