"""Batch normalisation, with the statistics of the batch or with given ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from difflab.kernels.layout import (
    BAR_DOTS,
    BARS,
    BATCH,
    DOTS,
    FIRST,
    GRADIENT,
    GRADIENT_DOT,
    INPUT,
    INPUT_BAR,
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
    constants,
    opened,
    opened_parameter,
    parameter,
    rows,
)
from difflab.kernels.rules.rule import Rule
from difflab.kernels.target import compiled


@compiled
def _of_batch(row, state, z, j):
    """Mean, what rounding took from it, and deviation of a column, scaled so that squares neither overflow nor vanish.

    An error of the mean would give cotangents a sum over the batch, which inputs far from 0 then magnify.
    """
    eps = constants(row, state, 1)[0]
    mean, rest = 0.0, 0.0
    for i in range(z.shape[0]):
        mean += z[i, j]
    mean /= z.shape[0]
    for i in range(z.shape[0]):
        rest += z[i, j] - mean
    rest /= z.shape[0]
    scale = np.sqrt(eps)
    for i in range(z.shape[0]):
        scale = max(scale, abs((z[i, j] - mean) - rest))
    squares = 0.0
    for i in range(z.shape[0]):
        squares += (((z[i, j] - mean) - rest) / scale) * (((z[i, j] - mean) - rest) / scale)
    return mean, rest, scale * np.sqrt(squares / z.shape[0] + eps / scale / scale)


@compiled
def _given(row, state, z, j):
    """Constants are eps, the mean of every unit, the variance of every unit."""
    n = row[WIDTH]
    eps_mean_variance = constants(row, state, 1 + 2 * n)
    return eps_mean_variance[1 + j], 0.0, np.sqrt(eps_mean_variance[1 + n + j] + eps_mean_variance[0])


@compiled
def _deviation(found):
    return found[2]


@compiled
def _normal(z, i, j, found):
    """A normalised value, from the statistics of its unit."""
    mean, rest, deviation = found
    return ((z[i, j] - mean) - rest) / deviation


@compiled
def _sums(z, numbers, j, found):
    """Of the numbers of a unit, and of their products with normalised values."""
    total, dot = 0.0, 0.0
    for i in range(z.shape[0]):
        total += numbers[i, j]
        dot += numbers[i, j] * _normal(z, i, j, found)
    return total, dot


@compiled
def _projected(number, normal, mean, along):
    """What is left of one sample's number without the mean of all, and without what goes along normalised values."""
    return number - mean - normal * along


def _batch_norm(statistics: Any, moves: float) -> Rule:
    """The rule for a way to find statistics, which move with the batch (1) or not (0).

    With normal = (z - mean) / deviation, its tangent is (z_dot - mean(z_dot) - normal mean(z_dot normal)) / deviation,
    and that of the deviation mean(z_dot normal).
    """

    def forward(row, state, zero):
        z = rows(state, VALUES, row[INPUT], row[WIDTH], zero)
        a = rows(state, VALUES, row[OUTPUT], row[WIDTH], zero)
        gamma = parameter(state, THETA, row[FIRST], row[WIDTH], zero)
        beta = parameter(state, THETA, row[SECOND], row[WIDTH], zero)
        for j in range(row[WIDTH]):
            found = statistics(row, state, z, j)
            for i in range(state[BATCH]):
                a[i, j] = _normal(z, i, j, found) * gamma[j] + beta[j]

    def tangent(row, state, zero):
        z = rows(state, VALUES, row[INPUT], row[WIDTH], zero)
        z_dot = rows(state, DOTS, row[INPUT], row[WIDTH], zero)
        a_dot = rows(state, DOTS, row[OUTPUT], row[WIDTH], zero)
        gamma = parameter(state, THETA, row[FIRST], row[WIDTH], zero)
        gamma_dot = parameter(state, THETA_DOT, row[FIRST], row[WIDTH], zero)
        beta_dot = parameter(state, THETA_DOT, row[SECOND], row[WIDTH], zero)
        share = moves / state[BATCH]
        for j in range(row[WIDTH]):
            found = statistics(row, state, z, j)
            total, dot = _sums(z, z_dot, j, found)
            for i in range(state[BATCH]):
                normal = _normal(z, i, j, found)
                normal_dot = _projected(z_dot[i, j], normal, share * total, share * dot) / _deviation(found)
                a_dot[i, j] = normal_dot * gamma[j] + normal * gamma_dot[j] + beta_dot[j]

    def reverse(row, state, zero):
        """z_bar += gamma (a_bar - mean(a_bar) - normal mean(a_bar normal)) / deviation; given statistics: no means."""
        z = rows(state, VALUES, row[INPUT], row[WIDTH], zero)
        opened(row, state, BARS, INPUT_BAR, KEEPS_INPUT, zero)
        z_bar = rows(state, BARS, row[INPUT_BAR], row[WIDTH], zero)
        a_bar = rows(state, BARS, row[OUTPUT_BAR], row[WIDTH], zero)
        gamma = parameter(state, THETA, row[FIRST], row[WIDTH], zero)
        gamma_bar = opened_parameter(row, state, GRADIENT, FIRST, KEEPS_FIRST, row[WIDTH], zero)
        beta_bar = opened_parameter(row, state, GRADIENT, SECOND, KEEPS_SECOND, row[WIDTH], zero)
        share = moves / state[BATCH]
        for j in range(row[WIDTH]):
            found = statistics(row, state, z, j)
            total, dot = _sums(z, a_bar, j, found)
            gamma_bar[j] += dot
            beta_bar[j] += total
            scale = gamma[j] / _deviation(found)
            for i in range(state[BATCH]):
                normal = _normal(z, i, j, found)
                z_bar[i, j] += scale * _projected(a_bar[i, j], normal, share * total, share * dot)

    def reverse_tangent(row, state, zero):
        z, z_dot = rows(state, VALUES, row[INPUT], row[WIDTH], zero), rows(state, DOTS, row[INPUT], row[WIDTH], zero)
        a_bar = rows(state, BARS, row[OUTPUT_BAR], row[WIDTH], zero)
        a_bar_dot = rows(state, BAR_DOTS, row[OUTPUT_BAR], row[WIDTH], zero)
        opened(row, state, BAR_DOTS, INPUT_BAR, KEEPS_INPUT, zero)
        z_bar_dot = rows(state, BAR_DOTS, row[INPUT_BAR], row[WIDTH], zero)
        gamma = parameter(state, THETA, row[FIRST], row[WIDTH], zero)
        gamma_dot = parameter(state, THETA_DOT, row[FIRST], row[WIDTH], zero)
        gamma_bar_dot = opened_parameter(row, state, GRADIENT_DOT, FIRST, KEEPS_FIRST, row[WIDTH], zero)
        beta_bar_dot = opened_parameter(row, state, GRADIENT_DOT, SECOND, KEEPS_SECOND, row[WIDTH], zero)
        share = moves / state[BATCH]
        for j in range(row[WIDTH]):
            found = statistics(row, state, z, j)
            z_total, z_along = _sums(z, z_dot, j, found)
            total, dot = _sums(z, a_bar, j, found)
            total_dot, dot_dot = _sums(z, a_bar_dot, j, found)
            for i in range(state[BATCH]):
                normal = _normal(z, i, j, found)
                normal_dot = _projected(z_dot[i, j], normal, share * z_total, share * z_along) / _deviation(found)
                dot_dot += a_bar[i, j] * normal_dot
            gamma_bar_dot[j] += dot_dot
            beta_bar_dot[j] += total_dot
            scale = gamma[j] / _deviation(found)
            scale_dot = (gamma_dot[j] - scale * (share * z_along)) / _deviation(found)
            for i in range(state[BATCH]):
                normal = _normal(z, i, j, found)
                normal_dot = _projected(z_dot[i, j], normal, share * z_total, share * z_along) / _deviation(found)
                inner = _projected(a_bar[i, j], normal, share * total, share * dot)
                inner_dot = _projected(a_bar_dot[i, j], normal, share * total_dot, share * dot_dot)
                inner_dot -= normal_dot * (share * dot)
                z_bar_dot[i, j] += scale_dot * inner + scale * inner_dot

    return Rule(forward, tangent, reverse, reverse_tangent)


BATCH_NORM = _batch_norm(_of_batch, 1.0)
BATCH_NORM_INFERENCE = _batch_norm(_given, 0.0)
