"""Sweeps over a program: one loop over a table of addresses, whatever is to be found.

Samples go through in tiles whose values stay in a cache. For each tile the steps of every instruction run forward and,
where cotangents are wanted, in reverse: threaded code [Bell 1973], compiled step by step, as a network needs them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numba
import numpy as np
from numba import float32, float64, int64

from difflab.kernels.admission import are_aligned, are_apart, are_finite, are_sound, fits
from difflab.kernels.layout import (
    BARS,
    BATCH,
    CREW,
    DIVISOR,
    DOTS,
    FORWARD,
    GRADIENT,
    GRADIENT_DOT,
    GRADIENT_STEP,
    HELD_GRADIENT,
    HELD_X,
    IS_CLASSES,
    IS_FIRST,
    ITEM,
    LOOKS_FIRST,
    MASKS,
    MASKS_COLUMN,
    MASKS_WIDTH,
    N_COLUMNS,
    N_INPUTS,
    N_OUTPUTS,
    N_PARAMS,
    N_ROWS,
    N_STATE,
    OF_BATCH,
    OF_SAMPLES,
    OF_TOTALS,
    OUTPUTS,
    OUTPUTS_BAR,
    OUTPUTS_DOT,
    PARTS,
    REVERSE,
    REVERSE_TANGENT,
    RUN,
    TANGENT,
    THETA,
    THETA_DOT,
    TILE,
    TOTAL,
    TURN,
    VALUES,
    X_BAR,
    X_BAR_STEP,
    X_DOT,
    X_DOT_STEP,
    X,
    Y,
    address_of,
    array,
    block,
    call,
    fails,
    losses_of,
    matrix,
    rows,
    words,
)
from difflab.kernels.target import compiled, entry_point, inlined
from difflab.kernels.turn import ends, takes


@inlined
def _load_targets(state, begin, zero):
    """Those of a tile, as rows."""
    batch, n = state[BATCH], state[N_OUTPUTS]
    there = rows(state, VALUES, state[N_INPUTS], n, zero)
    if state[IS_CLASSES] != 0:
        classes = words(state[Y] + 8 * begin, batch)
        for i in range(batch):
            for k in range(n):
                there[i, k] = 0
            there[i, classes[i]] = 1
    else:
        given = matrix(state[Y] + begin * n * state[ITEM], batch, n, zero)
        for i in range(batch):
            for k in range(n):
                there[i, k] = given[i, k]


@inlined
def _load_masks(state, begin, zero):
    """Those of a sample that goes alone."""
    width = state[MASKS_WIDTH]
    given = array(state[MASKS] + begin * width * state[ITEM], width, zero)
    there = block(state, VALUES, state[MASKS_COLUMN], width, zero)
    for k in range(width):
        there[k] = given[k]


@inlined
def _copy_outputs(state, begin, zero):
    """Given cotangents into their place, and wanted tangents out of theirs."""
    batch, n = state[BATCH], state[N_OUTPUTS]
    offset = begin * n * state[ITEM]
    if state[OUTPUTS_BAR] != 0:
        source = matrix(state[OUTPUTS_BAR] + offset, batch, n, zero)
        target = rows(state, BARS, state[OUTPUTS], n, zero)
    elif state[OUTPUTS_DOT] != 0:
        source = rows(state, DOTS, state[OUTPUTS], n, zero)
        target = matrix(state[OUTPUTS_DOT] + offset, batch, n, zero)
    else:
        return
    for i in range(batch):
        for k in range(n):
            target[i, k] = source[i, k]


@inlined
def _run_tile(plan, begin, zero):
    state, first, width = address_of(plan), address_of(plan) + 8 * N_STATE, 8 * N_COLUMNS
    if plan[Y] != 0:
        _load_targets(plan, begin, zero)
    if plan[MASKS] != 0:
        _load_masks(plan, begin, zero)
    for i in range(plan[N_ROWS]):
        row, at = first + i * width, N_STATE + i * N_COLUMNS
        if plan[at + FORWARD] != 0:
            call(plan[at + FORWARD], (row, state, zero))
        if plan[at + TANGENT] != 0:
            call(plan[at + TANGENT], (row, state, zero))
    _copy_outputs(plan, begin, zero)
    for i in range(plan[N_ROWS] - 1, -1, -1):
        row, at = first + i * width, N_STATE + i * N_COLUMNS
        if plan[at + REVERSE] != 0:
            call(plan[at + REVERSE], (row, state, zero))
        if plan[at + REVERSE_TANGENT] != 0:
            call(plan[at + REVERSE_TANGENT], (row, state, zero))


def run_plan(address, size, zero):
    """All tiles, of nearly one size; the loss is left behind the sums.

    With ``GRADIENT_STEP`` every sample has a gradient of its own.
    """
    plan = words(address, size)
    losses = losses_of(plan)
    if plan[LOOKS_FIRST] != 0 and not are_sound(plan, zero):
        losses[OF_BATCH] = np.nan
        return
    losses[OF_SAMPLES], losses[OF_TOTALS] = 0.0, 0.0
    plan[PARTS] = plan[DIVISOR] if plan[DIVISOR] != 0 else plan[TOTAL]
    most = plan[TILE]
    if plan[TOTAL] > most:
        tiles = (plan[TOTAL] + most - 1) // most
        most = (plan[TOTAL] + tiles - 1) // tiles
    for begin in range(0, plan[TOTAL], most):
        n = min(most, plan[TOTAL] - begin)
        plan[BATCH] = n
        plan[IS_FIRST] = begin == 0 or plan[GRADIENT_STEP] != 0
        _run_tile(plan, begin, zero)
        plan[X] += n * plan[N_INPUTS] * plan[ITEM]
        plan[X_DOT] += n * plan[X_DOT_STEP]
        plan[X_BAR] += n * plan[X_BAR_STEP]
        plan[GRADIENT] += n * plan[GRADIENT_STEP]
    losses[OF_BATCH] = losses[OF_SAMPLES] / plan[PARTS] + losses[OF_TOTALS]


@compiled
def _run(plan, zero):
    """The loss, or NaN where a rule raised an error; others may use the workspace from then on."""
    has_failed = fails(plan[RUN], (address_of(plan), plan.size, zero))
    loss = losses_of(plan)[OF_BATCH]
    ends(plan[TURN])
    return np.nan if has_failed else loss


@compiled
def _start(plan, theta, x, y):
    plan[THETA], plan[X], plan[Y] = address_of(theta), address_of(x), address_of(y)
    plan[IS_CLASSES], plan[TOTAL], plan[LOOKS_FIRST] = y.ndim == 1, x.shape[0], 1


@compiled
def _checked(plan, made, loss):
    """The loss, if what was made with it is finite; a crew has looked at that."""
    return loss if plan[CREW] != 0 or are_finite(made) else np.nan


def value_and_gradient(plan, theta, x, y, out):
    """The loss of a batch; fills ``out`` with the gradient.

    NaN for arguments that are not as they must be, for anything that is not finite, for errors that rules raise, and
    where another thread uses the workspace.

    Parameters
    ----------
    plan : words of a plan for a gradient.
    theta, out : (n_params,)
    x : (batch, n_inputs)
    y : (batch, n_outputs), or class indices (batch,)
    """
    is_apart = are_apart(out, theta) and are_apart(out, x) and are_apart(out, y) and are_aligned(out)
    if out.size != plan[N_PARAMS] or not is_apart or not fits(plan, theta, x, y) or not takes(plan[TURN]):
        return np.nan
    _start(plan, theta, x, y)
    plan[GRADIENT] = address_of(out)
    return _checked(plan, out, _run(plan, x.dtype.type(0)))


def value(plan, theta, x, y):
    """The loss of a batch; otherwise as :func:`value_and_gradient`."""
    if not fits(plan, theta, x, y) or not takes(plan[TURN]):
        return np.nan
    _start(plan, theta, x, y)
    return _run(plan, x.dtype.type(0))


def hvp(plan, theta, x, y, theta_dot, out):
    """The loss; fills ``out``, which must be new, with the Hessian times ``theta_dot``; otherwise as
    :func:`value_and_gradient`.
    """
    have_place = theta_dot.size == plan[N_PARAMS] and are_aligned(theta_dot)
    if not have_place or not fits(plan, theta, x, y) or not takes(plan[TURN]):
        return np.nan
    _start(plan, theta, x, y)
    plan[THETA_DOT], plan[GRADIENT_DOT] = address_of(theta_dot), address_of(out)
    return _checked(plan, out, _run(plan, x.dtype.type(0)))


@compiled
def _start_again(plan):
    """From the addresses that a plan holds; a run advances those that it uses."""
    plan[X], plan[LOOKS_FIRST] = plan[HELD_X], 1


def value_again(address, size, zero):
    """The loss at arrays whose addresses a plan holds and whose shapes are right; otherwise as :func:`value`.

    A plan is given by where its words lie: to hand over an array takes longer than to look at it.
    """
    plan = words(address, size)
    if not takes(plan[TURN]):
        return np.nan
    _start_again(plan)
    return _run(plan, zero)


def value_and_gradient_again(address, size, zero):
    """The loss and the gradient at such arrays, into one; otherwise as :func:`value_and_gradient`."""
    plan = words(address, size)
    if not takes(plan[TURN]):
        return np.nan
    _start_again(plan)
    plan[GRADIENT] = plan[HELD_GRADIENT]
    return _checked(plan, array(plan[HELD_GRADIENT], plan[N_PARAMS], zero), _run(plan, zero))


def run(plan, zero):
    """Whatever a plan is for, with all its addresses in place and whatever lies there; the loss, if it has one.

    Who calls has the turn, and gets the errors of rules.
    """
    plan[LOOKS_FIRST] = 0
    call(plan[RUN], (address_of(plan), plan.size, zero))
    return losses_of(plan)[OF_BATCH]


TAKES_ALL = bool(numba.config.DISABLE_JIT)
"""Whether nothing looks at the types of arguments, as nothing is compiled."""

NUMBERS = {"float64": float64, "float32": float32}


def _of_arrays(vectors: int) -> Callable[[Any, Any], tuple]:
    """Of a sweep over theta, x and targets, with so many further vectors like theta."""
    return lambda number, y: (int64[::1], number[::1], number[:, ::1], y, *[number[::1]] * vectors)


def _of_address(number: Any, y: Any) -> tuple:
    return int64, int64, number


SIGNATURES: dict[Callable, Callable[[Any, Any], tuple]] = {
    run: lambda number, y: (int64[::1], number),
    value_again: _of_address,
    value_and_gradient_again: _of_address,
    value: _of_arrays(0),
    value_and_gradient: _of_arrays(1),
    hvp: _of_arrays(2),
}
"""What each sweep is called with, by the types of numbers and of targets."""


def without_arguments(function: Callable, plan: np.ndarray, zero: Any, keeps: tuple[Any, ...]) -> partial[float]:
    """A sweep over a plan given by where its words lie, as a call that keeps alive what these lead to.

    It goes past what looks up the types of arguments, which takes as long as the sweep of a small network.
    """
    sweep = door(function, zero.dtype.name)
    (made,) = getattr(sweep, "overloads", {None: None}).values()
    call = partial(made.entry_point if made else sweep, plan.ctypes.data, plan.size, zero)
    vars(call)["keeps"] = plan, *keeps
    return call


@cache
def door(function: Callable, dtype: str, targets: str = "rows") -> Any:
    """A sweep as Python calls it, compiled for one dtype and for targets in ``"rows"`` or ``"classes"``."""
    number = NUMBERS[dtype]
    y = number[:, ::1] if targets == "rows" else int64[::1]
    return entry_point(SIGNATURES[function](number, y))(function)
