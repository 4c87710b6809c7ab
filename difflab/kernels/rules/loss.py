"""Losses of samples with their cotangents, from which the reverse sweep starts."""

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
    ITEM,
    OF_SAMPLES,
    OTHER,
    PARTS,
    SCRATCH,
    VALUES,
    address_of,
    array,
    losses_of,
    matrix,
    place,
)
from difflab.kernels.rules.rule import Kind, Rule
from difflab.kernels.target import compiled_rule, inlined, within
from difflab.kernels.transposition import transpose
from difflab.primitives.losses import ROOM, Loss


SAMPLES = 128
"""Samples that go together: their numbers stay in the first cache while they are few each."""

OF_OUTPUTS, OF_TARGETS, OF_DOTS, OF_BARS, BLOCKS = range(5)
"""Blocks of room for so many samples as columns: (n_outputs, samples) each. Behind them lie the losses, (samples,), and
what rules have room for, (ROOM, samples)."""


def scratch_size(n_outputs: int, samples: int) -> int:
    """Numbers of room that a step of losses needs."""
    return min(samples, SAMPLES) * (BLOCKS * n_outputs + 1 + ROOM)


@cache
def loss(row: Loss, kind: Kind, dtype: str, fused: bool) -> Rule:
    """Cotangents are made with the losses; a Gauss-Newton product starts from their tangents."""
    number: Any = np.dtype(dtype).type
    make = in_parts(_made_with(compiled_rule(row.value_and_cotangent, number, fused), number))
    curved = compiled_rule(row.cotangent_tangent, number, fused)

    def forward(row, state, zero):
        make(row, state, zero)

    if kind == "gauss_newton":
        curve_bars = in_parts(_curved_into(BARS, curved, number))

        def gauss_newton(row, state, zero):
            curve_bars(row, state, zero)

        return Rule(None, gauss_newton, carries=1)
    if kind != "hvp":
        return Rule(forward, carries=1)
    curve_bar_dots = in_parts(_curved_into(BAR_DOTS, curved, number))

    def tangent_of_cotangent(row, state, zero):
        curve_bar_dots(row, state, zero)

    return Rule(forward, tangent_of_cotangent, carries=1)


def in_parts(step: Any) -> Any:
    """All samples, some at a time; a single one has code of its own, in which loops over samples are none."""

    @inlined
    def whole(row, state, zero):
        if state[BATCH] == 1:
            step(row, state, 0, 1, zero)
        else:
            for begin in range(0, state[BATCH], SAMPLES):
                step(row, state, begin, min(SAMPLES, state[BATCH] - begin), zero)

    return whole


def _made_with(of_samples: Any, number: Any) -> Any:
    """Losses added to their sum, with cotangents of outputs, by a compiled rule."""

    @inlined
    def make(row, state, begin, batch, zero):
        z = as_columns(row, state, VALUES, INPUT, begin, batch, OF_OUTPUTS, zero)
        y = as_columns(row, state, VALUES, OTHER, begin, batch, OF_TARGETS, zero)
        z_bar = bars_as_columns(row, state, BARS, begin, batch, zero)
        losses = array(block_of_room(row, state, BLOCKS, batch), batch, zero)
        of_samples(z, y, z_bar, losses, room_of_rule(row, state, batch, zero))
        divide(z_bar, state[PARTS], number)
        put_back(row, state, BARS, begin, batch, z_bar, zero)
        sums = losses_of(state)
        total = sums[OF_SAMPLES]
        for i in range(batch):
            total += losses[i]
        sums[OF_SAMPLES] = total

    return make


def _curved_into(part: int, curved: Any, number: Any) -> Any:
    """The Hessian of losses in outputs, times their tangents, by a compiled rule."""

    @inlined
    def curve(row, state, begin, batch, zero):
        z = as_columns(row, state, VALUES, INPUT, begin, batch, OF_OUTPUTS, zero)
        y = as_columns(row, state, VALUES, OTHER, begin, batch, OF_TARGETS, zero)
        z_dot = as_columns(row, state, DOTS, INPUT, begin, batch, OF_DOTS, zero)
        z_bar_dot = bars_as_columns(row, state, part, begin, batch, zero)
        curved(z, y, z_dot, z_bar_dot, room_of_rule(row, state, batch, zero))
        divide(z_bar_dot, state[PARTS], number)
        put_back(row, state, part, begin, batch, z_bar_dot, zero)

    return curve


@within
def numbers_at(row, state, part, column, begin):
    """Where those of a value start, from one sample on."""
    return place(state, part, row[column]) + state[ITEM] * row[INPUT_WIDTH] * begin


@within
def block_of_room(row, state, block, batch):
    """Where a block starts, for so many samples as go together now."""
    return state[SCRATCH] + state[ITEM] * block * row[INPUT_WIDTH] * batch


@within
def room_of_rule(row, state, batch, zero):
    return matrix(block_of_room(row, state, BLOCKS, batch) + state[ITEM] * batch, ROOM, batch, zero)


@within
def as_columns(row, state, part, column, begin, batch, block, zero):
    """Some samples of a value as columns; a single one is a column already."""
    given, n = numbers_at(row, state, part, column, begin), row[INPUT_WIDTH]
    if batch == 1:
        return matrix(given, n, batch, zero)
    there = block_of_room(row, state, block, batch)
    transpose(there, given, batch, n, state[ITEM], zero)
    return matrix(there, n, batch, zero)


@within
def bars_as_columns(row, state, part, begin, batch, zero):
    """Room for cotangents of some samples, as columns; that of a single one is their place."""
    n = row[INPUT_WIDTH]
    if batch == 1:
        return matrix(numbers_at(row, state, part, INPUT_BAR, begin), n, batch, zero)
    return matrix(block_of_room(row, state, OF_BARS, batch), n, batch, zero)


@within
def put_back(row, state, part, begin, batch, bars, zero):
    """Cotangents of some samples from columns to their place."""
    if batch != 1:
        there = numbers_at(row, state, part, INPUT_BAR, begin)
        transpose(there, address_of(bars), row[INPUT_WIDTH], batch, state[ITEM], zero)


@within
def divide(bars, parts, number):
    """By a power of 2, the product with its reciprocal is the same number, and sooner there."""
    numbers, divisor = bars.reshape(bars.size), number(parts)
    if parts & (parts - 1) == 0:
        for k in range(numbers.size):
            numbers[k] *= number(1) / divisor
    else:
        for k in range(numbers.size):
            numbers[k] /= divisor
