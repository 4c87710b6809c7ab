"""Batches in chunks of samples: threads take them, and what they make is added up in the order of samples.

Who calls offers chunks to helpers, one each, and takes back what no helper has begun when its own is done. So it never
waits for a thread to wake, and which thread made what changes no bit. The plan that is called is only read: each chunk
has a plan of its own.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import int64

from difflab.kernels.atomic import exchange, load, store, wait
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
    address_of,
    array,
    fails,
    reals,
    words,
)
from difflab.kernels.sweeps import NUMBERS
from difflab.kernels.target import compiled, entry_point


N_THREADS, FIXED, ENOUGH, N_HEAD = 0, 1, 2, 16
"""Words of a crew: threads with the one that calls, samples of every chunk or 0 where that depends on the batch, and
samples that are worth a thread then."""

OFFER, IS_AWAKE, IS_OVER, N_MADE, PLAN, SIZE, LOOKS, N_CALLS, N_SLOT = 0, 1, 2, 3, 4, 5, 6, 7, 16
"""Words of what each helper has in a crew, in cache lines of its own: what there is for it, whether it looks, whether
it should end, how many chunks it has made, where the plan lies that it should run, of how many words, how often it
looks for something, and how many calls there were that may have some."""

NOTHING, FAILED, OFFERED, TAKEN = range(4)
"""What there is for a helper; nothing, but after an error."""


def chunk_size(crew, batch):
    """Samples that go together."""
    if crew[FIXED] != 0:
        return min(crew[FIXED], batch)
    worth = max(1, min(crew[N_THREADS], batch // crew[ENOUGH]))
    return -(-batch // worth)


_chunk_size = compiled(chunk_size)


@compiled
def _slot(plan, helper):
    return plan[CREW] + 8 * (N_HEAD + N_SLOT * (helper - 1))


@compiled
def _partner(plan, number):
    """The plan for the first chunk of all (0), for one that a helper is offered, or, last, for one of who calls."""
    places = words(plan[PARTNERS] + 16 * number, 2)
    return words(places[0], places[1])


@compiled
def _give(plan, partner, begin, samples, parts):
    """Some samples, with what a plan has for all."""
    partner[THETA], partner[THETA_DOT], partner[IS_CLASSES] = plan[THETA], plan[THETA_DOT], plan[IS_CLASSES]
    partner[X] = plan[X] + begin * plan[N_INPUTS] * plan[ITEM]
    partner[Y] = plan[Y] + begin * (8 if plan[IS_CLASSES] != 0 else plan[N_OUTPUTS] * plan[ITEM])
    partner[X_DOT], partner[X_DOT_STEP] = plan[X_DOT] + begin * plan[X_DOT_STEP], plan[X_DOT_STEP]
    partner[TOTAL], partner[DIVISOR] = samples, parts
    if begin == 0:
        partner[plan[RESULT]] = plan[plan[RESULT]]


@compiled
def _run(partner, zero):
    """Whether it failed."""
    return fails(partner[RUN], (address_of(partner), partner.size, zero))


@compiled
def _offer(slot, partner):
    given = words(slot, N_SLOT)
    given[PLAN], given[SIZE] = address_of(partner), partner.size
    store(slot + 8 * OFFER, OFFERED)


@compiled
def _taken(slot, zero):
    """Run what is offered, if it still is; whether it was."""
    if not exchange(slot + 8 * OFFER, OFFERED, TAKEN):
        return False
    given = words(slot, N_SLOT)
    store(slot + 8 * OFFER, FAILED if _run(words(given[PLAN], given[SIZE]), zero) else NOTHING)
    return True


@compiled
def _settled(slot, zero):
    """Have a chunk made by whoever comes first; whether that failed."""
    looks = 0
    if not _taken(slot, zero):
        while load(slot + 8 * OFFER) > FAILED:
            wait(looks)
            looks += 1
    return load(slot + 8 * OFFER) == FAILED


@compiled
def _add(plan, partner, zero):
    """What a partner made, to what there is; its loss."""
    if plan[RESULT] != 0:
        total = array(plan[plan[RESULT]], plan[N_PARAMS], zero)
        part = array(partner[plan[RESULT]], plan[N_PARAMS], zero)
        for i in range(total.size):
            total[i] += part[i]
    return reals(partner[LOSS_SUMS], 3)[2]


@compiled
def _number(first, k, threads):
    """Of the partner for the chunk of a thread: 0 for who calls, who has another one after its first."""
    return threads if first > 0 and k == 0 else k


def run_chunks(address, size, zero):
    """All tiles of all chunks, as ``run_plan`` does alone; an error comes when nothing of it runs any more."""
    plan = words(address, size)
    crew, batch = words(plan[CREW], N_HEAD), plan[TOTAL]
    chunk, threads = _chunk_size(crew, batch), crew[N_THREADS]
    parts = plan[DIVISOR] if plan[DIVISOR] != 0 else batch
    loss, failed = 0.0, False
    for first in range(0, batch, chunk * threads):
        n = min(threads, -(-(batch - first) // chunk))
        for k in range(n):
            begin, partner = first + k * chunk, _partner(plan, _number(first, k, threads))
            _give(plan, partner, begin, min(chunk, batch - begin), parts)
            if k > 0:
                _offer(_slot(plan, k), partner)
        failed |= _run(_partner(plan, _number(first, 0, threads)), zero)
        for k in range(1, n):
            failed |= _settled(_slot(plan, k), zero)
        if failed:
            raise ArithmeticError("a rule raised an error; use threads=1 and mode='fast' to see which")
        for k in range(n):
            partner = _partner(plan, _number(first, k, threads))
            loss = loss + _add(plan, partner, zero) if first + k else reals(partner[LOSS_SUMS], 3)[2]
    reals(plan[LOSS_SUMS], 3)[2] = loss


def help_out(slot, zero):
    """Run what is offered, until nothing was since the last call for so many looks that it has read its arguments."""
    store(slot + 8 * IS_AWAKE, 1)
    looks, calls = 0, load(slot + 8 * N_CALLS)
    while looks < load(slot + 8 * LOOKS) and load(slot + 8 * IS_OVER) == 0:
        if load(slot + 8 * N_CALLS) != calls:
            looks, calls = 0, load(slot + 8 * N_CALLS)
        if load(slot + 8 * OFFER) == OFFERED and _taken(slot, zero):
            words(slot, N_SLOT)[N_MADE] += 1
            looks = 0
        wait(looks)
        looks += 1
    store(slot + 8 * IS_AWAKE, 0)


@cache
def helpers_door(dtype: str) -> Any:
    """``help_out`` as Python calls it."""
    return entry_point((int64, NUMBERS[dtype]))(help_out)
