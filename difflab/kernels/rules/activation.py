"""a = f(z; p), entry by entry; p is a constant, one learnable number, or one for each unit."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from difflab.kernels.layout import (
    BAR_DOTS,
    BARS,
    DOTS,
    FIRST,
    GRADIENT,
    GRADIENT_DOT,
    INPUT,
    INPUT_BAR,
    KEEPS,
    KEEPS_FIRST,
    KEEPS_INPUT,
    OUTPUT,
    OUTPUT_BAR,
    SIZE,
    SLOPE,
    THETA,
    THETA_DOT,
    VALUES,
    WIDTH,
    block,
    constants,
    opened,
    opened_parameter,
    parameter,
    rows,
)
from difflab.kernels.loops import each
from difflab.kernels.rules.rule import Kind, Rule
from difflab.kernels.target import compiled, compiled_rule, within
from difflab.primitives.activations import Activation, unknown, unknown_of_both


@cache
def activation(row: Activation, kind: Kind, dtype: str, fused: bool) -> Rule:
    """Where nothing is learnt, slopes are found with the values, while their exponentials are at hand."""
    if row.is_learnable:
        return _learnable(row, fused)
    return _fixed(row, kind, np.float64 if row.float32_domain is None else np.dtype(dtype).type, fused)


@cache
def _of_both(rule: Any, has_parameter: bool, number: type, fused: bool) -> Any:
    """The compiled rule as a function of z and p."""
    found = compiled_rule(rule, number, fused)
    if has_parameter:
        return found
    return compiled_rule(lambda z, p: found(z))


def _fixed(row: Activation, kind: Kind, number: Any, fused: bool) -> Rule:
    """Rules in the arithmetic of ``number``."""
    takes = row.parameter is not None
    rules = row.value, row.derivative, row.second_derivative or (unknown_of_both if takes else unknown)
    value, slope, curvature = (_of_both(rule, takes, number, fused) for rule in rules)

    @within
    def set_value(i, z, a, p):
        a[i] = value(number(z[i]), p)

    @within
    def set_value_and_slope(i, z, a, p):
        at = number(z[i])
        a[i] = value(at, p)
        z[i] = slope(at, p)

    @within
    def set_with_tangents(i, z, z_dot, a, a_dot, p):
        at, steep = number(z[i]), slope(number(z[i]), p)
        a[i] = value(at, p)
        z[i] = steep
        a_dot[i] = steep * z_dot[i]
        z_dot[i] = curvature(at, p) * z_dot[i]

    def forward(row, state, zero):
        z = block(state, VALUES, row[INPUT], row[WIDTH], zero)
        a = block(state, VALUES, row[OUTPUT], row[WIDTH], zero)
        each(set_value, z.size, (z, a, number(constants(row, state, 1)[0])))

    def forward_with_slope(row, state, zero):
        """Slopes take the place of z, unless another instruction reads that."""
        z = arguments(row, state, VALUES, zero)
        a = block(state, VALUES, row[OUTPUT], row[WIDTH], zero)
        each(set_value_and_slope, z.size, (z, a, number(constants(row, state, 1)[0])))

    def forward_with_curvature(row, state, zero):
        """Tangents too, which lead from z_dot to that of the slope."""
        z, z_dot = arguments(row, state, VALUES, zero), arguments(row, state, DOTS, zero)
        a = block(state, VALUES, row[OUTPUT], row[WIDTH], zero)
        a_dot = block(state, DOTS, row[OUTPUT], row[WIDTH], zero)
        each(set_with_tangents, z.size, (z, z_dot, a, a_dot, number(constants(row, state, 1)[0])))

    if kind == "value":
        return Rule(forward)
    if kind == "hvp":
        return Rule(None, forward_with_curvature, reverse, reverse_tangent)
    return Rule(forward_with_slope, tangent, reverse)


@compiled
def arguments(row, state, part, zero):
    """Where arguments are found, and slopes left."""
    there = block(state, part, row[SLOPE], row[WIDTH], zero)
    if row[SLOPE] != row[INPUT]:
        z = block(state, part, row[INPUT], row[WIDTH], zero)
        for i in range(z.size):
            there[i] = z[i]
    return there


def tangent(row, state, zero):
    slopes = block(state, VALUES, row[SLOPE], row[WIDTH], zero)
    z_dot = block(state, DOTS, row[INPUT], row[WIDTH], zero)
    a_dot = block(state, DOTS, row[OUTPUT], row[WIDTH], zero)
    for i in range(slopes.size):
        a_dot[i] = slopes[i] * z_dot[i]


def reverse(row, state, zero):
    slopes = block(state, VALUES, row[SLOPE], row[WIDTH], zero)
    a_bar = block(state, BARS, row[OUTPUT_BAR], row[WIDTH], zero)
    z_bar = block(state, BARS, row[INPUT_BAR], row[WIDTH], zero)
    if row[KEEPS] & KEEPS_INPUT != 0:
        for i in range(slopes.size):
            z_bar[i] += a_bar[i] * slopes[i]
    else:
        for i in range(slopes.size):
            z_bar[i] = a_bar[i] * slopes[i]


def reverse_tangent(row, state, zero):
    slopes = block(state, VALUES, row[SLOPE], row[WIDTH], zero)
    slopes_dot = block(state, DOTS, row[SLOPE], row[WIDTH], zero)
    a_bar = block(state, BARS, row[OUTPUT_BAR], row[WIDTH], zero)
    a_bar_dot = block(state, BAR_DOTS, row[OUTPUT_BAR], row[WIDTH], zero)
    z_bar_dot = block(state, BAR_DOTS, row[INPUT_BAR], row[WIDTH], zero)
    if row[KEEPS] & KEEPS_INPUT != 0:
        for i in range(slopes.size):
            z_bar_dot[i] += a_bar_dot[i] * slopes[i] + a_bar[i] * slopes_dot[i]
    else:
        for i in range(slopes.size):
            z_bar_dot[i] = a_bar_dot[i] * slopes[i] + a_bar[i] * slopes_dot[i]


def _learnable(row: Activation, fused: bool) -> Rule:
    """All is found anew from z in reverse."""
    first = row.value, row.derivative, row.parameter_derivative
    second = row.second_derivative, row.mixed_derivative, row.parameter_second_derivative
    rules = (compiled_rule(rule or unknown_of_both, fused=fused) for rule in (*first, *second))
    value, by_z, by_p, by_zz, by_zp, by_pp = rules

    def forward_at_parameters(row, state, zero):
        z = rows(state, VALUES, row[INPUT], row[WIDTH], zero)
        a = rows(state, VALUES, row[OUTPUT], row[WIDTH], zero)
        p = parameter(state, THETA, row[FIRST], row[SIZE], zero)
        for i in range(z.shape[0]):
            for j in range(z.shape[1]):
                a[i, j] = value(np.float64(z[i, j]), np.float64(p[j % p.size]))

    def tangent_at_parameters(row, state, zero):
        z = rows(state, VALUES, row[INPUT], row[WIDTH], zero)
        z_dot = rows(state, DOTS, row[INPUT], row[WIDTH], zero)
        a_dot = rows(state, DOTS, row[OUTPUT], row[WIDTH], zero)
        p = parameter(state, THETA, row[FIRST], row[SIZE], zero)
        p_dot = parameter(state, THETA_DOT, row[FIRST], row[SIZE], zero)
        for i in range(z.shape[0]):
            for j in range(z.shape[1]):
                at, q, q_dot = np.float64(z[i, j]), np.float64(p[j % p.size]), p_dot[j % p.size]
                a_dot[i, j] = by_z(at, q) * z_dot[i, j] + by_p(at, q) * q_dot

    def reverse_at_parameters(row, state, zero):
        z = rows(state, VALUES, row[INPUT], row[WIDTH], zero)
        a_bar = rows(state, BARS, row[OUTPUT_BAR], row[WIDTH], zero)
        opened(row, state, BARS, INPUT_BAR, KEEPS_INPUT, zero)
        z_bar = rows(state, BARS, row[INPUT_BAR], row[WIDTH], zero)
        p = parameter(state, THETA, row[FIRST], row[SIZE], zero)
        p_bar = opened_parameter(row, state, GRADIENT, FIRST, KEEPS_FIRST, row[SIZE], zero)
        for i in range(z.shape[0]):
            for j in range(z.shape[1]):
                k = j % p.size
                at, q = np.float64(z[i, j]), np.float64(p[k])
                z_bar[i, j] += a_bar[i, j] * by_z(at, q)
                p_bar[k] += a_bar[i, j] * by_p(at, q)

    def reverse_tangent_at_parameters(row, state, zero):
        z = rows(state, VALUES, row[INPUT], row[WIDTH], zero)
        z_dot = rows(state, DOTS, row[INPUT], row[WIDTH], zero)
        a_bar = rows(state, BARS, row[OUTPUT_BAR], row[WIDTH], zero)
        a_bar_dot = rows(state, BAR_DOTS, row[OUTPUT_BAR], row[WIDTH], zero)
        opened(row, state, BAR_DOTS, INPUT_BAR, KEEPS_INPUT, zero)
        z_bar_dot = rows(state, BAR_DOTS, row[INPUT_BAR], row[WIDTH], zero)
        p = parameter(state, THETA, row[FIRST], row[SIZE], zero)
        p_dot = parameter(state, THETA_DOT, row[FIRST], row[SIZE], zero)
        p_bar_dot = opened_parameter(row, state, GRADIENT_DOT, FIRST, KEEPS_FIRST, row[SIZE], zero)
        for i in range(z.shape[0]):
            for j in range(z.shape[1]):
                k = j % p.size
                at, q = np.float64(z[i, j]), np.float64(p[k])
                mixed = by_zp(at, q)
                slope_dot = by_zz(at, q) * z_dot[i, j] + mixed * p_dot[k]
                z_bar_dot[i, j] += a_bar_dot[i, j] * by_z(at, q) + a_bar[i, j] * slope_dot
                slope_dot = mixed * z_dot[i, j] + by_pp(at, q) * p_dot[k]
                p_bar_dot[k] += a_bar_dot[i, j] * by_p(at, q) + a_bar[i, j] * slope_dot

    return Rule(forward_at_parameters, tangent_at_parameters, reverse_at_parameters, reverse_tangent_at_parameters)
