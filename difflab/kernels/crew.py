"""Batches in chunks of samples: threads take them, and what they make is added up in the order of samples.

Who calls offers chunks to helpers, one each, and takes back what no helper has begun when its own is done. So it never
waits for a thread to wake, and which thread made what changes no bit. The plan that is called is only read: each chunk
has a plan of its own.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import int64

from difflab.kernels.admission import are_finite
from difflab.kernels.atomic import exchange, load, store, wait
from difflab.kernels.layout import (
    CREW,
    DIVISOR,
    IS_CLASSES,
    ITEM,
    LOOKS_FIRST,
    N_INPUTS,
    N_OUTPUTS,
    N_PARAMS,
    N_PARTS,
    N_STATE,
    OF_BATCH,
    PARTNERS,
    RESULT,
    RUN,
    SHARE_BEGIN,
    SHARE_END,
    THETA,
    THETA_DOT,
    TOTAL,
    WAVE,
    WHOLE,
    X_DOT,
    X_DOT_STEP,
    X,
    Y,
    address_of,
    array,
    fails,
    losses_of,
    words,
)
from difflab.kernels.sweeps import NUMBERS
from difflab.kernels.target import compiled, entry_point


N_THREADS, FIXED, ENOUGH, N_HEAD = 0, 1, 2, 16
"""Words of a crew: threads with the one that calls, samples of every chunk or 0 where batches are shared evenly, and
how many samples a thread must get then to be worth its while."""

OFFER, IS_AWAKE, IS_OVER, N_MADE, PLAN, SIZE, JOB, LOOKS, N_CALLS, N_SLOT = 0, 1, 2, 3, 4, 5, 6, 7, 8, 16
"""Words of what each helper has in a crew, in cache lines of its own: what there is for it, whether it looks, whether
it should end, how much it has done, where the plan of a chunk lies, of how many words, what it should do with that, how
often it looks for something, and how many calls there were that may have some."""

NOTHING, FAILED, OFFERED, TAKEN = range(4)
"""What there is for a helper; nothing, but after an error."""

RUNNING, ADDING = range(2)
"""What can be done with the plan of a chunk: run it, or add up a share of what it and others made."""

WORTH_SHARING = 1 << 13
"""Entries of a gradient that take longer to add up than to be handed over."""

AT_ONCE = 1 << 10
"""Entries that stay in the first cache until all parts of them are added."""


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
def _of_chunk(plan, k):
    """The plan of the k-th chunk under way: one that a helper is offered, or, for 0, that of who calls, for whose first
    chunk there is the first plan, and for later ones the last.
    """
    number = words(plan[CREW], N_HEAD)[N_THREADS] if plan[WAVE] > 0 and k == 0 else k
    places = words(plan[PARTNERS] + 16 * number, 2)
    return words(places[0], places[1])


@compiled
def _give(plan, partner, begin, samples, parts):
    """Some samples, with what a plan has for all."""
    partner[WHOLE], partner[LOOKS_FIRST] = address_of(plan), plan[LOOKS_FIRST]
    partner[THETA], partner[THETA_DOT], partner[IS_CLASSES] = plan[THETA], plan[THETA_DOT], plan[IS_CLASSES]
    partner[X] = plan[X] + begin * plan[N_INPUTS] * plan[ITEM]
    partner[Y] = plan[Y] + begin * (8 if plan[IS_CLASSES] != 0 else plan[N_OUTPUTS] * plan[ITEM])
    partner[X_DOT], partner[X_DOT_STEP] = plan[X_DOT] + begin * plan[X_DOT_STEP], plan[X_DOT_STEP]
    partner[TOTAL], partner[DIVISOR] = samples, parts
    if begin == 0:
        partner[plan[RESULT]] = plan[plan[RESULT]]


@compiled
def _share(partner, k, n, size):
    """The k-th of n equal parts of so many entries."""
    partner[SHARE_BEGIN], partner[SHARE_END] = k * size // n, (k + 1) * size // n


@compiled
def _add_up(partner, zero):
    """Its share of what all chunks under way made, in their order, to what there is; instead of its loss, 0, or NaN
    where a sum is not finite and should be.
    """
    plan = words(partner[WHOLE], N_STATE)
    total, are_all_finite = plan[plan[RESULT]], True
    for begin in range(partner[SHARE_BEGIN], partner[SHARE_END], AT_ONCE):
        offset, size = begin * plan[ITEM], min(AT_ONCE, partner[SHARE_END] - begin)
        sums = array(total + offset, size, zero)
        for k in range(1 if plan[WAVE] == 0 else 0, plan[N_PARTS]):
            part = array(_of_chunk(plan, k)[plan[RESULT]] + offset, size, zero)
            for i in range(size):
                sums[i] += part[i]
        if plan[LOOKS_FIRST] != 0:
            are_all_finite &= are_finite(sums)
    losses_of(partner)[OF_BATCH] = 0.0 if are_all_finite else np.nan


@compiled
def _do(job, partner, zero):
    """Whether it failed."""
    if job == ADDING:
        _add_up(partner, zero)
        return False
    return fails(partner[RUN], (address_of(partner), partner.size, zero))


@compiled
def _offer(slot, job, partner):
    given = words(slot, N_SLOT)
    given[JOB], given[PLAN], given[SIZE] = job, address_of(partner), partner.size
    store(slot + 8 * OFFER, OFFERED)


@compiled
def _taken(slot, zero):
    """Do what is offered, if it still is; whether it was."""
    if not exchange(slot + 8 * OFFER, OFFERED, TAKEN):
        return False
    given = words(slot, N_SLOT)
    store(slot + 8 * OFFER, FAILED if _do(given[JOB], words(given[PLAN], given[SIZE]), zero) else NOTHING)
    return True


@compiled
def _settled(slot, zero):
    """Have what was offered done by whoever comes first; whether that failed."""
    looks = 0
    if not _taken(slot, zero):
        while load(slot + 8 * OFFER) > FAILED:
            wait(looks)
            looks += 1
    return load(slot + 8 * OFFER) == FAILED


@compiled
def _shared(plan, job, n, zero):
    """Have the same done with the plans of n chunks; whether it failed with one."""
    for k in range(1, n):
        _offer(_slot(plan, k), job, _of_chunk(plan, k))
    failed = _do(job, _of_chunk(plan, 0), zero)
    for k in range(1, n):
        failed |= _settled(_slot(plan, k), zero)
    return failed


@compiled
def _with_losses(loss, plan, n):
    """A loss and, one after the other, those of n chunks."""
    for k in range(n):
        loss = loss + losses_of(_of_chunk(plan, k))[OF_BATCH]
    return loss


def run_chunks(address, size, zero):
    """All tiles of all chunks, as ``run_plan`` does alone; an error comes when nothing of it runs any more.

    Threads also share what is looked at first, and what is added up. So, unlike ``run_plan``, this makes NaN of the
    loss where a sum is not finite.
    """
    plan = words(address, size)
    crew, batch = words(plan[CREW], N_HEAD), plan[TOTAL]
    chunk, threads = _chunk_size(crew, batch), crew[N_THREADS]
    parts, n_params = plan[DIVISOR] if plan[DIVISOR] != 0 else batch, plan[N_PARAMS]
    loss = 0.0
    for first in range(0, batch, chunk * threads):
        n = min(threads, -(-(batch - first) // chunk))
        plan[WAVE], plan[N_PARTS] = first, n
        for k in range(n):
            begin, partner = first + k * chunk, _of_chunk(plan, k)
            _give(plan, partner, begin, min(chunk, batch - begin), parts)
            _share(partner, k, n, n_params if first == 0 else 0)
        if _shared(plan, RUNNING, n, zero):
            raise ArithmeticError("a rule raised an error; use threads=1 and mode='fast' to see which")
        loss = _with_losses(loss, plan, n)
        if plan[RESULT] != 0:
            adding = n if n_params >= WORTH_SHARING else 1
            for k in range(adding):
                _share(_of_chunk(plan, k), k, adding, n_params)
            _shared(plan, ADDING, adding, zero)
            loss = _with_losses(loss, plan, adding)
    losses_of(plan)[OF_BATCH] = loss


def help_out(slot, zero):
    """Do what is offered, until ``LOOKS`` looks in a row found nothing; a new call starts the count anew."""
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
