"""Batches in chunks of samples: threads take them, and what they make is added up in the order of samples.

Who calls offers every chunk but the first to a helper of its own, and takes back what no helper has begun when its own
is done. So it never waits for a thread to wake, and which thread made what changes no bit.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import int64

from difflab.kernels.atomic import exchange, load, pause, store
from difflab.kernels.layout import (
    CREW,
    DIVISOR,
    IS_CLASSES,
    ITEM,
    LOSS_SUMS,
    N_INPUTS,
    N_OUTPUTS,
    N_PARAMS,
    PARTNERS,
    RESULT,
    RUN,
    THETA,
    THETA_DOT,
    TOTAL,
    X_DOT,
    X_DOT_STEP,
    X,
    Y,
    array,
    call,
    reals,
    words,
)
from difflab.kernels.sweeps import NUMBERS
from difflab.kernels.target import compiled, entry_point


N_THREADS, FIXED, ENOUGH, N_HEAD = 0, 1, 2, 16
"""Words of a crew: threads with the one that calls, samples of every chunk or 0 where that depends on the batch, and
samples that are worth a thread then."""

OFFER, IS_AWAKE, IS_OVER, PLAN, SIZE, N_SLOT = 0, 1, 2, 3, 4, 16
"""Words of what each thread has in a crew, in cache lines of their own: what there is for it, whether it looks, whether
it should end, and the plan that it should run."""

NOTHING, OFFERED, TAKEN = range(3)
"""What there is for a thread."""


def chunk_size(crew, batch):
    """Samples that go together."""
    if crew[FIXED] != 0:
        return min(crew[FIXED], batch)
    worth = max(1, min(crew[N_THREADS], batch // crew[ENOUGH]))
    return -(-batch // worth)


_chunk_size = compiled(chunk_size)


@compiled
def _slot(address, thread):
    return address + 8 * (N_HEAD + N_SLOT * thread)


@compiled
def _given(plan, partner, begin, samples, parts, start_x, start_x_dot):
    """A plan for some samples, with what another has for all."""
    partner[THETA], partner[THETA_DOT], partner[IS_CLASSES] = plan[THETA], plan[THETA_DOT], plan[IS_CLASSES]
    partner[X] = start_x + begin * plan[N_INPUTS] * plan[ITEM]
    partner[Y] = plan[Y] + begin * (8 if plan[IS_CLASSES] != 0 else plan[N_OUTPUTS] * plan[ITEM])
    partner[X_DOT], partner[X_DOT_STEP] = start_x_dot + begin * plan[X_DOT_STEP], plan[X_DOT_STEP]
    partner[TOTAL], partner[DIVISOR] = samples, parts


@compiled
def _offer(slot, plan, size):
    given = words(slot, N_SLOT)
    given[PLAN], given[SIZE] = plan, size
    store(slot + 8 * OFFER, OFFERED)


@compiled
def _taken(slot, zero):
    """Run what is offered, if it still is; whether it was."""
    if not exchange(slot + 8 * OFFER, OFFERED, TAKEN):
        return False
    given = words(slot, N_SLOT)
    plan = words(given[PLAN], given[SIZE])
    call(plan[RUN], (given[PLAN], given[SIZE], zero))
    store(slot + 8 * OFFER, NOTHING)
    return True


@compiled
def _added(plan, partner, zero):
    """What a partner made, to what there is."""
    if plan[RESULT] != 0:
        total = array(plan[plan[RESULT]], plan[N_PARAMS], zero)
        part = array(partner[plan[RESULT]], plan[N_PARAMS], zero)
        for i in range(total.size):
            total[i] += part[i]
    return reals(partner[LOSS_SUMS], 3)[2]


def run_chunks(address, size, zero):
    """All tiles of all chunks, as ``run_plan`` does alone."""
    plan = words(address, size)
    crew, batch, divisor = words(plan[CREW], N_HEAD), plan[TOTAL], plan[DIVISOR]
    chunk, threads, parts = _chunk_size(crew, batch), crew[N_THREADS], divisor if divisor != 0 else batch
    partners, start_x, start_x_dot = words(plan[PARTNERS], 2 * threads), plan[X], plan[X_DOT]
    loss = 0.0
    for first in range(0, batch, chunk * threads):
        n = min(threads, -(-(batch - first) // chunk))
        for k in range(n):
            begin = first + k * chunk
            partner = words(partners[2 * k], partners[2 * k + 1])
            _given(plan, partner, begin, min(chunk, batch - begin), parts, start_x, start_x_dot)
            if k > 0:
                _offer(_slot(plan[CREW], k), partners[2 * k], partners[2 * k + 1])
        if first == 0:
            plan[TOTAL], plan[DIVISOR] = chunk, parts
            call(words(partners[0], partners[1])[RUN], (address, size, zero))
            plan[TOTAL], plan[DIVISOR] = batch, divisor
            loss = reals(plan[LOSS_SUMS], 3)[2]
        else:
            partner = words(partners[0], partners[1])
            call(partner[RUN], (partners[0], partners[1], zero))
            loss += _added(plan, partner, zero)
        for k in range(1, n):
            slot = _slot(plan[CREW], k)
            if not _taken(slot, zero):
                while load(slot + 8 * OFFER) != NOTHING:
                    pause()
            loss += _added(plan, words(partners[2 * k], partners[2 * k + 1]), zero)
    reals(plan[LOSS_SUMS], 3)[2] = loss


def help_out(slot, patience, zero):
    """Run what is offered, until nothing was for so many looks."""
    store(slot + 8 * IS_AWAKE, 1)
    looks = 0
    while looks < patience and load(slot + 8 * IS_OVER) == 0:
        if load(slot + 8 * OFFER) == OFFERED and _taken(slot, zero):
            looks = 0
        pause()
        looks += 1
    store(slot + 8 * IS_AWAKE, 0)


@cache
def helpers_door(dtype: str) -> Any:
    """``help_out`` as Python calls it."""
    return entry_point((int64, int64, NUMBERS[dtype]))(help_out)
