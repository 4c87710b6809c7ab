"""z = a W^T + b."""

from __future__ import annotations

from difflab.kernels.layout import (
    BAR_DOTS,
    BARS,
    BATCH,
    DOTS,
    FIRST,
    GRADIENT,
    GRADIENT_DOT,
    HAS_NO_BAR,
    INPUT,
    INPUT_BAR,
    INPUT_WIDTH,
    ITEM,
    KEEPS,
    KEEPS_FIRST,
    KEEPS_INPUT,
    KEEPS_SECOND,
    OUTPUT,
    OUTPUT_BAR,
    SECOND,
    THETA,
    THETA_DOT,
    VALUES,
    WIDTH,
    is_begun,
    multiply,
    opened_parameter,
    parameter_at,
    place,
    rows,
)
from difflab.kernels.rules.rule import Rule
from difflab.kernels.target import compiled


@compiled
def add_to_bias(row, state, gradient, bars, zero):
    if row[SECOND] >= 0:
        bias_bar = opened_parameter(row, state, gradient, SECOND, KEEPS_SECOND, row[WIDTH], zero)
        z_bar = rows(state, bars, row[OUTPUT_BAR], row[WIDTH], zero)
        for i in range(z_bar.shape[0]):
            for j in range(z_bar.shape[1]):
                bias_bar[j] += z_bar[i, j]


@compiled
def add_outputs(row, state, z, start, start_row, a, weight, zero):
    """One sample is a column, as a weight lies in rows of terms."""
    m, n, batch = row[INPUT_WIDTH], row[WIDTH], state[BATCH]
    if batch == 1:
        one = state[ITEM]
        multiply(state, z, start, one if start != 0 else 0, weight, 0, a, 0, n, 1, m, zero)
    else:
        multiply(state, z, start, start_row, a, 0, weight, 1, batch, n, m, zero)


@compiled
def add_to_weight(row, state, weight_bar, z_bar, a, keeps, zero):
    m, n, batch = row[INPUT_WIDTH], row[WIDTH], state[BATCH]
    start = weight_bar if keeps else 0
    multiply(state, weight_bar, start, m * state[ITEM] if keeps else 0, z_bar, 1, a, 0, n, m, batch, zero)


@compiled
def add_to_inputs(row, state, a_bar, z_bar, weight, keeps, zero):
    m, n, batch = row[INPUT_WIDTH], row[WIDTH], state[BATCH]
    start = a_bar if keeps else 0
    multiply(state, a_bar, start, m * state[ITEM] if keeps else 0, z_bar, 0, weight, 0, batch, m, n, zero)


def forward(row, state, zero):
    a, z = place(state, VALUES, row[INPUT]), place(state, VALUES, row[OUTPUT])
    bias = parameter_at(state, THETA, row[SECOND]) if row[SECOND] >= 0 else 0
    add_outputs(row, state, z, bias, 0, a, parameter_at(state, THETA, row[FIRST]), zero)


def tangent(row, state, zero):
    a, a_dot = place(state, VALUES, row[INPUT]), place(state, DOTS, row[INPUT])
    z_dot, pitch = place(state, DOTS, row[OUTPUT]), row[WIDTH] * state[ITEM]
    bias_dot = parameter_at(state, THETA_DOT, row[SECOND]) if row[SECOND] >= 0 else 0
    add_outputs(row, state, z_dot, bias_dot, 0, a, parameter_at(state, THETA_DOT, row[FIRST]), zero)
    add_outputs(row, state, z_dot, z_dot, pitch, a_dot, parameter_at(state, THETA, row[FIRST]), zero)


def reverse(row, state, zero):
    a, z_bar = place(state, VALUES, row[INPUT]), place(state, BARS, row[OUTPUT_BAR])
    keeps_weight = is_begun(row, state, KEEPS_FIRST)
    add_to_weight(row, state, parameter_at(state, GRADIENT, row[FIRST]), z_bar, a, keeps_weight, zero)
    add_to_bias(row, state, GRADIENT, BARS, zero)
    if row[KEEPS] & HAS_NO_BAR == 0:
        a_bar, keeps_input = place(state, BARS, row[INPUT_BAR]), row[KEEPS] & KEEPS_INPUT != 0
        add_to_inputs(row, state, a_bar, z_bar, parameter_at(state, THETA, row[FIRST]), keeps_input, zero)


def reverse_tangent(row, state, zero):
    a, a_dot = place(state, VALUES, row[INPUT]), place(state, DOTS, row[INPUT])
    z_bar, z_bar_dot = place(state, BARS, row[OUTPUT_BAR]), place(state, BAR_DOTS, row[OUTPUT_BAR])
    keeps_weight = is_begun(row, state, KEEPS_FIRST)
    add_to_weight(row, state, parameter_at(state, GRADIENT_DOT, row[FIRST]), z_bar_dot, a, keeps_weight, zero)
    add_to_weight(row, state, parameter_at(state, GRADIENT_DOT, row[FIRST]), z_bar, a_dot, True, zero)
    add_to_bias(row, state, GRADIENT_DOT, BAR_DOTS, zero)
    if row[KEEPS] & HAS_NO_BAR == 0:
        a_bar_dot, keeps_input = place(state, BAR_DOTS, row[INPUT_BAR]), row[KEEPS] & KEEPS_INPUT != 0
        add_to_inputs(row, state, a_bar_dot, z_bar_dot, parameter_at(state, THETA, row[FIRST]), keeps_input, zero)
        add_to_inputs(row, state, a_bar_dot, z_bar, parameter_at(state, THETA_DOT, row[FIRST]), True, zero)


AFFINE = Rule(forward, tangent, reverse, reverse_tangent)
