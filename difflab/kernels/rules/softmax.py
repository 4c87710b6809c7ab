"""Softmax of every sample."""

from __future__ import annotations

from functools import cache

from difflab.kernels.elementary import FUSED_MATH, MATH
from difflab.kernels.layout import (
    BAR_DOTS,
    BARS,
    DOTS,
    INPUT,
    INPUT_BAR,
    KEEPS_INPUT,
    OUTPUT,
    OUTPUT_BAR,
    VALUES,
    WIDTH,
    opened,
    rows,
)
from difflab.kernels.rules.rule import Rule
from difflab.kernels.target import compiled


@cache
def softmax(fused: bool) -> Rule:
    """The rule, with exponentials that are fused or not."""
    exp = (FUSED_MATH if fused else MATH).exp

    def forward(row, state, zero):
        z = rows(state, VALUES, row[INPUT], row[WIDTH], zero)
        a = rows(state, VALUES, row[OUTPUT], row[WIDTH], zero)
        for i in range(z.shape[0]):
            top = z[i].max()
            for k in range(z.shape[1]):
                a[i, k] = exp(z[i, k] - top)
            total = 0.0
            for k in range(z.shape[1]):
                total += a[i, k]
            for k in range(z.shape[1]):
                a[i, k] /= total

    return Rule(forward, softmax_tangent, softmax_reverse, softmax_reverse_tangent, rereads=True)


def softmax_tangent(row, state, zero):
    """The Jacobian is symmetric, so a tangent goes as a cotangent does."""
    a = rows(state, VALUES, row[OUTPUT], row[WIDTH], zero)
    z_dot = rows(state, DOTS, row[INPUT], row[WIDTH], zero)
    a_dot = rows(state, DOTS, row[OUTPUT], row[WIDTH], zero)
    a_dot[:] = 0
    for i in range(a.shape[0]):
        _add_product(a_dot[i], a[i], z_dot[i])


@compiled
def _add_product(made, a, lead):
    """made_k += a_k (lead_k - sum_j a_j lead_j), where leads over the largest entry do not cancel."""
    top = lead[a.argmax()]
    mean = _mean_lead(a, lead, top)
    for k in range(a.size):
        made[k] += a[k] * ((lead[k] - top) - mean)


@compiled
def _mean_lead(shares, lead, top):
    """sum_j shares_j (lead_j - top)."""
    mean = 0.0
    for k in range(shares.size):
        mean += shares[k] * (lead[k] - top)
    return mean


def softmax_reverse(row, state, zero):
    a = rows(state, VALUES, row[OUTPUT], row[WIDTH], zero)
    a_bar = rows(state, BARS, row[OUTPUT_BAR], row[WIDTH], zero)
    opened(row, state, BARS, INPUT_BAR, KEEPS_INPUT, zero)
    z_bar = rows(state, BARS, row[INPUT_BAR], row[WIDTH], zero)
    for i in range(a.shape[0]):
        _add_product(z_bar[i], a[i], a_bar[i])


def softmax_reverse_tangent(row, state, zero):
    """As before with the tangents of leads, and with those of the shares."""
    a = rows(state, VALUES, row[OUTPUT], row[WIDTH], zero)
    a_dot = rows(state, DOTS, row[OUTPUT], row[WIDTH], zero)
    a_bar = rows(state, BARS, row[OUTPUT_BAR], row[WIDTH], zero)
    a_bar_dot = rows(state, BAR_DOTS, row[OUTPUT_BAR], row[WIDTH], zero)
    opened(row, state, BAR_DOTS, INPUT_BAR, KEEPS_INPUT, zero)
    z_bar_dot = rows(state, BAR_DOTS, row[INPUT_BAR], row[WIDTH], zero)
    for i in range(a.shape[0]):
        _add_product(z_bar_dot[i], a[i], a_bar_dot[i])
        top = a_bar[i, a[i].argmax()]
        mean, change = _mean_lead(a[i], a_bar[i], top), _mean_lead(a_dot[i], a_bar[i], top)
        for k in range(a.shape[1]):
            z_bar_dot[i, k] += a_dot[i, k] * ((a_bar[i, k] - top) - mean) - a[i, k] * change
