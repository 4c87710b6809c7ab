"""Derivatives of a network at floating-point numbers, each entry proven: all by sweeps over balls.

Arguments are arrays of floats that the caller has checked; balls are of the working precision when a function is
called, and results of that precision, but for those that double it themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from difflab.enclosures.enclosed import ARRAYS, ROUNDED, Enclosed, nothing_known, outward, rounds_uniquely, with_kinks
from difflab.enclosures.kinks import tighten_at_kinks
from difflab.enclosures.precision import doubling
from difflab.enclosures.slopes import FirstSlopes, MovingSlopes
from difflab.enclosures.sweep import Sweep, loss_seeds, reverse_sweep
from difflab.number_systems import BALLS, Array, Series, ball_precision, coefficient
from difflab.primitives.operations import INPUTS
from difflab.program import Program, primal, total, values


@dataclass(frozen=True)
class Point:
    """Where a program is differentiated: theta (n_params,), x (batch, n_inputs), y (batch, n_outputs); all float64."""

    program: Program
    theta: np.ndarray
    x: np.ndarray
    y: np.ndarray

    @property
    def is_finite(self) -> bool:
        return all(np.isfinite(a).all() for a in (self.theta, self.x, self.y))

    def balls(self) -> list[Array]:
        return [BALLS.array(a) for a in (self.theta, self.x, self.y)]


@dataclass(frozen=True)
class EnclosedValue:
    """The float64 nearest to a number, and proven bounds of it."""

    value: float
    lower: float
    upper: float


UNKNOWN_VALUE = EnclosedValue(np.nan, -np.inf, np.inf)


def value(point: Point, max_bits: int) -> EnclosedValue:
    """The loss."""

    def evaluate(bits: int) -> tuple[EnclosedValue, bool]:
        ball = primal(point.program, BALLS, *point.balls())
        return _value(ball), rounds_uniquely(ball)

    return doubling(evaluate, UNKNOWN_VALUE, max_bits) if point.is_finite else UNKNOWN_VALUE


def value_and_gradient(point: Point, max_bits: int) -> tuple[EnclosedValue, Enclosed]:
    """The loss, and its gradient with respect to theta, (n_params,); at kinks with both one-sided derivatives."""
    unknown = UNKNOWN_VALUE, nothing_known(point.theta.shape)

    def evaluate(bits: int) -> tuple[tuple[EnclosedValue, Enclosed], bool]:
        theta, made = _forward(point)
        loss = total(point.program, BALLS, made)
        found = with_kinks(lambda series: gradient_sweep(point.program, theta, made, series).gradient, bits)
        return (_value(loss), found), found.is_final and rounds_uniquely(loss)

    if not point.is_finite:
        return unknown
    found = doubling(evaluate, unknown, max_bits)
    if found is not unknown:
        with ball_precision(found[1].bits):
            tighten_at_kinks(found[1], point.program, point.theta, point.x, point.y)
    return found


def input_gradient(point: Point, max_bits: int) -> Enclosed:
    """The gradient of the loss of the batch with respect to x, (batch, n_inputs)."""

    def derive(series: Series) -> Array:
        theta, made = _forward(point)
        seeds = loss_seeds(point.program, BALLS, len(point.x))
        sweep = reverse_sweep(
            point.program, theta, made, FirstSlopes(series), seeds, with_totals=False, wanted=frozenset([INPUTS])
        )
        return _or_zeros(sweep.cotangents[INPUTS], point.x.shape)

    return _enclosed(derive, point.x.shape, point.is_finite, max_bits)


def per_example_gradients(point: Point, max_bits: int) -> Enclosed:
    """The gradient of the loss of each sample, not divided by anything and without penalties, (batch, n_params)."""
    shape = len(point.x), len(point.theta)

    def derive(series: Series) -> Array:
        theta, made = _forward(point)
        return np.stack([_of_sample(point.program, theta, made, series, i).gradient for i in range(len(point.x))])

    return _enclosed(derive, shape, point.is_finite, max_bits)


def _of_sample(program: Program, theta: Array, made: list[Array], series: Series, i: int) -> Sweep:
    """The sweep from the loss of one sample; where samples are coupled, through all of them."""
    if program.couples_samples:
        seed = BALLS.array(np.eye(len(made[INPUTS]))[i])
    else:
        made = [v if number in program.totals else v[i : i + 1] for number, v in enumerate(made)]
        seed = BALLS.array(np.ones(1))
    return reverse_sweep(program, theta, made, FirstSlopes(series), {program.losses: seed}, with_totals=False)


def jvp(point: Point, theta_dot: np.ndarray, x_dot: np.ndarray, max_bits: int) -> Enclosed:
    """The derivative of the outputs along (theta_dot, x_dot), (batch, n_outputs); targets play no part."""
    program = point.program.up_to_outputs

    def derive(series: Series) -> Array:
        theta, x, y = point.balls()
        lines = series.line(theta, BALLS.array(theta_dot)), series.line(x, BALLS.array(x_dot)), series.array(y)
        return coefficient(values(program, series, *lines)[-1], 1)

    is_finite = point.is_finite and bool(np.isfinite(theta_dot).all() and np.isfinite(x_dot).all())
    return _enclosed(derive, (len(point.x), program.widths[-1]), is_finite, max_bits)


def vjp(point: Point, outputs_bar: np.ndarray, max_bits: int) -> Enclosed:
    """The gradient with respect to theta of the sum of outputs times ``outputs_bar``, (n_params,)."""
    program = point.program.up_to_outputs

    def derive(series: Series) -> Array:
        theta, x, y = point.balls()
        made = values(program, BALLS, theta, x, y)
        seeds = {len(made) - 1: BALLS.array(outputs_bar)}
        return reverse_sweep(program, theta, made, FirstSlopes(series), seeds).gradient

    is_finite = point.is_finite and bool(np.isfinite(outputs_bar).all())
    return _enclosed(derive, point.theta.shape, is_finite, max_bits)


def hvp(point: Point, theta_dot: np.ndarray, x_dot: np.ndarray, max_bits: int) -> Enclosed:
    """The derivative of the gradient along (theta_dot, x_dot), (n_params,): H theta_dot, if x stays.

    Forward over reverse [Pearlmutter 1994]: the reverse sweep over series in the step along the direction. An entry
    whose gradient has a kink has no such derivative, and is so marked.
    """

    def derive(series: Series) -> Array:
        return np.stack(_gradient_and_its_change(point, theta_dot, x_dot, series))

    is_finite = point.is_finite and bool(np.isfinite(theta_dot).all() and np.isfinite(x_dot).all())
    both = _enclosed(derive, (2, len(point.theta)), is_finite, max_bits)
    change = both.mapped(lambda array: array[1])
    has_gradient = both.status[0] == ROUNDED
    return replace(change, status=np.where(has_gradient, change.status, both.status[0]))


def _gradient_and_its_change(
    point: Point, theta_dot: np.ndarray, x_dot: np.ndarray, series: Series
) -> tuple[Array, Array]:
    theta, x, y = point.balls()
    line = series.line(theta, BALLS.array(theta_dot))
    made = values(point.program, series, line, series.line(x, BALLS.array(x_dot)), series.array(y))
    slopes = MovingSlopes(series)
    seeds = loss_seeds(point.program, slopes.system, len(point.x))
    gradient = reverse_sweep(point.program, line, made, slopes, seeds).gradient
    return coefficient(gradient, 0), coefficient(gradient, 1)


def hessian(point: Point, max_bits: int) -> Enclosed:
    """All second derivatives with respect to theta, (n_params, n_params), a column from each Hessian-vector product."""
    still = np.zeros_like(point.x)
    columns = [hvp(point, axis, still, max_bits) for axis in np.eye(len(point.theta))]
    arrays = {name: np.stack([getattr(column, name) for column in columns], axis=1) for name in ARRAYS}
    return Enclosed(**arrays, bits=max(column.bits for column in columns))


def gradient_sweep(program: Program, theta: Array, made: list[Array], series: Series) -> Sweep:
    """The reverse sweep from the loss of a batch, over balls."""
    return reverse_sweep(program, theta, made, FirstSlopes(series), loss_seeds(program, BALLS, len(made[INPUTS])))


def _forward(point: Point) -> tuple[Array, list[Array]]:
    theta, x, y = point.balls()
    return theta, values(point.program, BALLS, theta, x, y)


def _enclosed(derive: Callable[[Series], Array], shape: tuple[int, ...], is_finite: bool, max_bits: int) -> Enclosed:
    unknown = nothing_known(shape)

    def evaluate(bits: int) -> tuple[Enclosed, bool]:
        found = with_kinks(derive, bits)
        return found, found.is_final

    return doubling(evaluate, unknown, max_bits) if is_finite else unknown


def _or_zeros(cotangent: Array | None, shape: tuple[int, ...]) -> Array:
    return BALLS.array(np.zeros(shape)) if cotangent is None else cotangent


def _value(ball: Any) -> EnclosedValue:
    ends = outward(ball.lower(), -np.inf), outward(ball.upper(), np.inf)
    return EnclosedValue(float(ball.mid()), *ends)
