"""Penalties of weights, once for a batch."""

from __future__ import annotations

import numpy as np

from difflab.kernels.layout import (
    FIRST,
    GRADIENT,
    GRADIENT_DOT,
    IS_FIRST,
    KEEPS_FIRST,
    OF_TOTALS,
    SIZE,
    THETA,
    THETA_DOT,
    constants,
    losses_of,
    opened_parameter,
    parameter,
)
from difflab.kernels.rules.rule import Rule


def penalty(row, state, zero):
    given, losses = constants(row, state, 2), losses_of(state)
    l1, l2 = given[0], given[1]
    if state[IS_FIRST] != 0:
        for w in parameter(state, THETA, row[FIRST], row[SIZE], zero):
            losses[OF_TOTALS] += l1 * abs(w) + l2 * w * w / 2.0


def penalty_reverse(row, state, zero):
    given = constants(row, state, 2)
    l1, l2 = given[0], given[1]
    if state[IS_FIRST] != 0:
        weight = parameter(state, THETA, row[FIRST], row[SIZE], zero)
        weight_bar = opened_parameter(row, state, GRADIENT, FIRST, KEEPS_FIRST, row[SIZE], zero)
        for k in range(weight.size):
            weight_bar[k] += l1 * np.sign(weight[k]) + l2 * weight[k]


def penalty_reverse_tangent(row, state, zero):
    l2 = constants(row, state, 2)[1]
    if state[IS_FIRST] != 0:
        weight_dot = parameter(state, THETA_DOT, row[FIRST], row[SIZE], zero)
        weight_bar_dot = opened_parameter(row, state, GRADIENT_DOT, FIRST, KEEPS_FIRST, row[SIZE], zero)
        for k in range(weight_dot.size):
            weight_bar_dot[k] += l2 * weight_dot[k]


PENALTY = Rule(penalty, None, penalty_reverse, penalty_reverse_tangent)
