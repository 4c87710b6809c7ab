"""One-sided derivatives of the loss at kinks, by the primal in power series to either side of each parameter."""

from __future__ import annotations

from typing import Any

import numpy as np

from difflab.enclosures.enclosed import KINK, Enclosed, enclosed
from difflab.enclosures.slopes import FirstSlopes
from difflab.enclosures.sweep import loss_seeds, reverse_sweep
from difflab.number_systems import BALLS, SERIES_AHEAD, Array, Series, coefficient
from difflab.primitives.operations import INPUTS, OPERATIONS
from difflab.program import Program, values


MAX_ONE_SIDED_WORK = 2_000_000
"""Entries times samples at kinks times parameters, a few seconds' worth; beyond it the hull of all slopes must do."""


def tighten_at_kinks(
    found: Enclosed, program: Program, theta: np.ndarray, x: np.ndarray, y: np.ndarray
) -> None:  # fmt: skip
    """Put the bounds of the two one-sided derivatives in the entries at a kink, where that is worth the work.

    Only the samples that meet a kink need the primal in series to either side of each entry; the others have one
    derivative, whatever the entry.
    """
    torn = np.flatnonzero(found.status == KINK)
    if not len(torn):
        return
    centre, *given = (BALLS.array(a) for a in (theta, x, y))
    made = values(program, BALLS, centre, *given)
    at_kink, parts = _samples_at_kinks(program, centre, made), program.divisor(len(x))
    smooth, met_tie = _swept(program, centre, _of_samples(program, made, ~at_kink), parts)
    if met_tie:  # at a kink that no row declares
        at_kink = np.ones(len(x), bool)
        smooth, _ = _swept(program, centre, _of_samples(program, made, ~at_kink), parts)
    if len(torn) * max(at_kink.sum(), 1) * len(theta) > MAX_ONE_SIDED_WORK:
        return
    meeting = [value[at_kink] for value in made[: program.n_given]]
    for i in torn:
        slopes = [smooth[i] + _slope(program, centre, meeting, parts, int(i), side) for side in (-1, 1)]
        sides = enclosed(np.array(slopes, object), found.bits)
        found.lower[i], found.upper[i] = sides.lower.min(), sides.upper.max()


def _swept(program: Program, theta: Array, made: list[Array], parts: int) -> tuple[Array, bool]:
    """The gradient of the losses of some samples, and whether they met a kink on the way."""
    series, n = Series(), len(made[INPUTS])
    seeds = loss_seeds(program, BALLS, n, parts)
    return reverse_sweep(program, theta, made, FirstSlopes(series), seeds, with_totals=False).gradient, series.met_tie


def _of_samples(program: Program, made: list[Array], which: np.ndarray) -> list[Array]:
    """All values of some of the samples; totals are of no sample."""
    return [value if number in program.totals else value[which] for number, value in enumerate(made)]


def _slope(program: Program, theta: Array, given: list[Array], parts: int, i: int, side: int) -> Any:
    """The derivative along entry ``i`` to one side, of the totals and of the samples given, by the primal in series."""
    tangent = np.zeros(len(theta), object)
    tangent[i] = side
    line = SERIES_AHEAD.line(theta, tangent)
    slope = sum((_primal_of_total(program, number, line)[1] for number in program.totals), start=0)
    x, y, *masks = map(SERIES_AHEAD.array, given)
    if len(x):
        losses = values(program, SERIES_AHEAD, line, x, y, masks)[program.losses]
        slope = slope + coefficient(losses, 1).sum() / parts
    return side * slope


def _primal_of_total(program: Program, number: int, line: Array) -> Any:
    step = program.instructions[number - program.n_given]
    parameters = [parameter.of(line) for parameter in step.parameters]
    return OPERATIONS[step.operation].primal(SERIES_AHEAD, step, [], parameters)


def _samples_at_kinks(program: Program, theta: Array, made: list[Array]) -> np.ndarray:
    """Which samples may meet a kink, (batch,) bool: all of them, if they are coupled or nothing tells which."""
    found, has_total = np.zeros(len(made[INPUTS]), bool), False
    for step in program.instructions:
        row, parameters = OPERATIONS[step.operation], [parameter.of(theta) for parameter in step.parameters]
        for distance in row.kinks(step, [made[i] for i in step.inputs], parameters):
            is_zero = np.frompyfunc(lambda ball: ball.is_zero(), 1, 1)(distance).astype(bool)
            if row.is_total:
                has_total |= bool(is_zero.any())
            else:
                found |= is_zero.any(axis=1)
    unknown = not (has_total or found.any()) or (program.couples_samples and found.any())
    return np.ones(len(found), bool) if unknown else found
