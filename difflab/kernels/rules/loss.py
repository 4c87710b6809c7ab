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
from difflab.kernels.target import compiled, compiled_rule, within
from difflab.kernels.transposition import transpose
from difflab.primitives.losses import ROOM, Loss


SAMPLES = 128
"""Samples that go together: their numbers stay in the first cache while they are few each."""


def scratch_size(n_outputs: int, samples: int) -> int:
    """Numbers of room that a step of losses needs."""
    return min(samples, SAMPLES) * (4 * n_outputs + 1 + ROOM)


@cache
def loss(row: Loss, kind: Kind, dtype: str, fused: bool) -> Rule:
    """Cotangents are made with the losses; a Gauss-Newton product starts from their tangents."""
    number: Any = np.dtype(dtype).type
    rules = row.value_and_cotangent, row.cotangent_tangent
    of_samples, curved = (compiled_rule(rule, number, fused) for rule in rules)

    @within
    def sum_of_losses(row, state, begin, batch, total, zero):
        z = columns(row, state, VALUES, INPUT, begin, batch, 0, zero)
        y = columns(row, state, VALUES, OTHER, begin, batch, 1, zero)
        z_bar, losses = made(row, state, BARS, begin, batch, 2, zero), losses_in_room(row, state, batch, zero)
        of_samples(z, y, z_bar, losses, rest_of_room(row, state, batch, zero))
        divide(z_bar, state[PARTS], number)
        put_back(row, state, BARS, begin, batch, z_bar, zero)
        for i in range(batch):
            total += losses[i]
        return total

    @within
    def curve_some(row, state, part, begin, batch, zero):
        z = columns(row, state, VALUES, INPUT, begin, batch, 0, zero)
        y = columns(row, state, VALUES, OTHER, begin, batch, 1, zero)
        z_dot = columns(row, state, DOTS, INPUT, begin, batch, 2, zero)
        z_bar_dot = made(row, state, part, begin, batch, 3, zero)
        curved(z, y, z_dot, z_bar_dot, rest_of_room(row, state, batch, zero))
        divide(z_bar_dot, state[PARTS], number)
        put_back(row, state, part, begin, batch, z_bar_dot, zero)

    def forward(row, state, zero):
        """A single sample has code of its own, in which loops over samples are none."""
        sums, batch = losses_of(state), state[BATCH]
        total = sums[OF_SAMPLES]
        if batch == 1:
            total = sum_of_losses(row, state, 0, 1, total, zero)
        else:
            for begin in range(0, batch, SAMPLES):
                total = sum_of_losses(row, state, begin, min(SAMPLES, batch - begin), total, zero)
        sums[OF_SAMPLES] = total

    @compiled
    def curve(row, state, part, zero):
        for begin in range(0, state[BATCH], SAMPLES):
            curve_some(row, state, part, begin, min(SAMPLES, state[BATCH] - begin), zero)

    def tangent_of_cotangent(row, state, zero):
        curve(row, state, BAR_DOTS, zero)

    def gauss_newton(row, state, zero):
        curve(row, state, BARS, zero)

    if kind == "gauss_newton":
        return Rule(None, gauss_newton, carries=1)
    return Rule(forward, tangent_of_cotangent if kind == "hvp" else None, carries=1)


@within
def numbers_at(row, state, part, column, begin):
    """Where those of a value start, from one sample on."""
    return place(state, part, row[column]) + state[ITEM] * row[INPUT_WIDTH] * begin


@within
def columns(row, state, part, column, begin, batch, slot, zero):
    """Some samples of a value as columns; a single one is a column already."""
    given, n = numbers_at(row, state, part, column, begin), row[INPUT_WIDTH]
    if batch == 1:
        return matrix(given, n, batch, zero)
    there = state[SCRATCH] + state[ITEM] * slot * n * batch
    transpose(there, given, batch, n, state[ITEM], zero)
    return matrix(there, n, batch, zero)


@within
def made(row, state, part, begin, batch, slot, zero):
    """Room for cotangents of some samples, as columns; that of a single one is their place."""
    n = row[INPUT_WIDTH]
    if batch == 1:
        return matrix(numbers_at(row, state, part, INPUT_BAR, begin), n, batch, zero)
    return matrix(state[SCRATCH] + state[ITEM] * slot * n * batch, n, batch, zero)


@within
def losses_in_room(row, state, batch, zero):
    return array(state[SCRATCH] + state[ITEM] * 4 * row[INPUT_WIDTH] * batch, batch, zero)


@within
def rest_of_room(row, state, batch, zero):
    """For what is on the way to the loss of each of some samples."""
    return matrix(state[SCRATCH] + state[ITEM] * (4 * row[INPUT_WIDTH] + 1) * batch, ROOM, batch, zero)


@within
def divide(made, parts, number):
    """By a power of 2, the product with its reciprocal is the same number, and sooner there."""
    numbers, divisor = made.reshape(made.size), number(parts)
    if parts & (parts - 1) == 0:
        for k in range(numbers.size):
            numbers[k] *= number(1) / divisor
    else:
        for k in range(numbers.size):
            numbers[k] /= divisor


@within
def put_back(row, state, part, begin, batch, made, zero):
    """Cotangents of some samples to their place."""
    if batch != 1:
        there = numbers_at(row, state, part, INPUT_BAR, begin)
        transpose(there, address_of(made), row[INPUT_WIDTH], batch, state[ITEM], zero)
