"""Plans: programs as compiled sweeps read them, with the addresses of their steps and of their workspace."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from difflab.kernels import addresses
from difflab.kernels.layout import (
    BAR_DOTS,
    BARS,
    CONSTANTS,
    CREW,
    DIVISOR,
    DOTS,
    GRADIENT,
    GRADIENT_DOT,
    ITEM,
    LIMITS,
    LOSS_SUMS,
    MASKS_COLUMN,
    N_INPUTS,
    N_OUTPUTS,
    N_PARAMS,
    N_ROWS,
    N_STATE,
    ONLY_BATCH,
    OUTPUTS,
    PARTNERS,
    PRODUCT,
    RESULT,
    RUN,
    SCRATCH,
    SHARE_END,
    TILE,
    VALUES,
    X_BAR,
    X_BAR_DOT,
    X_DOT,
)
from difflab.kernels.processor import LINE
from difflab.kernels.products import own_terms, scratch_size
from difflab.kernels.rules import Kind
from difflab.kernels.rules.loss import scratch_size as loss_size
from difflab.kernels.tables import Choice, Table, make_table, starts_of
from difflab.primitives.losses import LOSSES
from difflab.program import Program


CACHE_BYTES = 1 << 18
"""What the values of a tile should not exceed, to stay in a second cache."""

LARGEST_BYTES = 1 << 28
"""What they should never exceed: very wide networks have tiles of a few samples."""

LEAST_TILE, MOST_TILE = 64, 1024
"""Samples of a tile: fewer make products of matrices slow, more are no faster."""

RESULTS: dict[Kind, int] = {"value": 0, "gradient": GRADIENT, "hvp": GRADIENT_DOT}
"""Kinds of sweeps whose samples can be shared, and the word for what chunks of them add up to; 0 for a loss alone."""

CACHE_LINE = (0.0,) * 11
"""Behind losses, so that no two threads write to one line."""

LARGE_WEIGHT = 1 << 17
"""Entries of a weight that does not stay in a cache: it should be met by as many samples at once as possible."""


@dataclass(frozen=True)
class Plan:
    """A program made ready for one kind of sweep.

    Attributes
    ----------
    words : int64, the state and after it the rows of the table; sweeps write to it.
    memory : what the addresses in it lead to.
    samples : the one number of samples it has room for, or None for any.
    """

    words: np.ndarray
    memory: tuple[np.ndarray, ...]
    samples: int | None


def needs_all_samples(program: Program) -> bool:
    """Whether samples cannot be cut into tiles: they are coupled, or masks are drawn for all at once."""
    return program.couples_samples or bool(program.masks)


def samples_for_blas(program: Program, dtype: str, library: str) -> float:
    """From how many samples on BLAS may make a product, so that its threads must be held back.

    Infinite if none ever is, or MKL makes it, where the sweep does so itself.
    """
    if library == "mkl":
        return math.inf
    choice = Choice("gradient", dtype, library=library)
    least = min(own_terms(choice.item, library)) // max(_weights(program), default=1) + 1
    is_reached = needs_all_samples(program) or _tile(program, make_table(program, choice), choice) >= least
    return least if is_reached else math.inf


def workspace_bytes(program: Program, choice: Choice, samples: int) -> int:
    """What a plan needs memory for."""
    table = make_table(program, choice)
    room = _room(program, table, choice, _samples(program, table, choice, samples), 0)
    return (sum(room.workspaces) + room.scratch + room.inputs) * choice.item


def _samples(program: Program, table: Table, choice: Choice, samples: int) -> int:
    """In a full tile."""
    return samples if needs_all_samples(program) else choice.tile or _tile(program, table, choice)


def make_plan(program: Program, n_params: int, choice: Choice, samples: int) -> Plan:
    """A plan for so many samples, or, where they can be cut into tiles, for any number of them."""
    (plan,) = make_plans(program, n_params, choice, samples, 1)
    if not needs_all_samples(program):
        return plan
    plan.words[ONLY_BATCH] = samples
    set_masks(plan, program.draw_masks(samples))
    return replace(plan, samples=samples)


def make_plans(program: Program, n_params: int, choice: Choice, samples: int, count: int) -> list[Plan]:
    """So many plans alike, each with memory of its own."""
    table = make_table(program, choice)
    tile = _samples(program, table, choice, samples)
    state = np.zeros(N_STATE, np.int64)
    state[ITEM], state[TILE], state[N_ROWS], state[N_PARAMS] = choice.item, tile, len(table.rows), n_params
    state[N_INPUTS], state[N_OUTPUTS], state[OUTPUTS] = program.n_inputs, program.n_outputs, table.outputs
    state[PRODUCT] = addresses.of_product(choice.dtype, choice.reproducible, choice.library)
    state[RUN], state[SHARE_END] = addresses.of_plan(choice.dtype), n_params
    state[DIVISOR], state[MASKS_COLUMN] = 0 if program.reduction == "mean" else 1, starts_of(program)[2]
    words, room = np.concatenate([state, table.rows.ravel()]), _room(program, table, choice, tile, n_params)
    limits = _limits(program, np.dtype(choice.dtype))
    return [_with_memory(words.copy(), choice, room, table.constants, limits) for _ in range(count)]


class Room(NamedTuple):
    """Numbers that a plan needs memory for: in its workspaces, for one step, for a gradient on the way, for x."""

    workspaces: tuple[int, ...]
    scratch: int
    gradient: int
    inputs: int


def _room(program: Program, table: Table, choice: Choice, tile: int, n_params: int) -> Room:
    """For values and cotangents, and where the kind of sweep has them, for the tangents of both."""
    has_tangents = choice.kind in ("jvp", "hvp", "gauss_newton")
    workspaces = (tile * table.columns, tile * table.bar_columns) * (2 if has_tangents else 1)
    gradient = n_params if choice.kind == "hvp" else 0
    return Room(workspaces, _scratch(program, tile, choice.item), gradient, tile * program.n_inputs)


def _with_memory(words: np.ndarray, choice: Choice, room: Room, constants: np.ndarray, limits: list[float]) -> Plan:
    """A plan of these words, which get the addresses of what it has to itself."""
    work = [_aligned(size, choice.dtype) for size in room.workspaces]
    for part, places in zip(work, ((VALUES,), (BARS, X_BAR), (DOTS,), (BAR_DOTS, X_BAR_DOT)), strict=False):
        words[list(places)] = part.ctypes.data
    scratch, gradient = _aligned(room.scratch, choice.dtype), np.empty(room.gradient, choice.dtype)
    still, losses = np.zeros(room.inputs, choice.dtype), np.array([*np.zeros(LIMITS), *limits, *CACHE_LINE])
    words[[CONSTANTS, LOSS_SUMS, SCRATCH]] = constants.ctypes.data, losses.ctypes.data, scratch.ctypes.data
    words[[GRADIENT, X_DOT]] = gradient.ctypes.data, still.ctypes.data
    return Plan(words, (*work, scratch, losses, constants, gradient, still), None)


def _aligned(size: int, dtype: str) -> np.ndarray:
    """Zeros from where a line of the cache begins, so that no vector of a packed factor lies in two."""
    item = np.dtype(dtype).itemsize
    whole = np.zeros(size + LINE // item, dtype)
    begin = -whole.ctypes.data % LINE // item
    return whole[begin : begin + size]


def share(plan: Plan, program: Program, n_params: int, choice: Choice, crew: np.ndarray, partners: int) -> Plan:
    """The plan, with partners for chunks of its samples.

    The first of them has its memory, as only one of both runs; the others have their own, and what is added once to a
    loss is no part of them.
    """
    alike = replace(choice, tile=int(plan.words[TILE]))
    first = replace(plan, words=plan.words.copy())
    others = make_plans(program.without_totals, n_params, alike, 1, partners - 1)
    result = RESULTS[choice.kind]
    made = [np.empty(n_params if result else 0, choice.dtype) for _ in others]
    for other, part in zip(others, made, strict=True):
        if result:
            other.words[result] = part.ctypes.data
    places = np.array([(each.words.ctypes.data, each.words.size) for each in (first, *others)], np.int64)
    code = addresses.of_chunks(choice.dtype)
    plan.words[[CREW, PARTNERS, RESULT, RUN]] = crew.ctypes.data, places.ctypes.data, result, code
    lent = [array for each in (first, *others) for array in (each.words, *each.memory)]
    return replace(plan, memory=(*plan.memory, crew, places, *made, *lent))


def set_masks(plan: Plan, masks: list[np.ndarray]) -> None:
    """Masks into their place among the values."""
    if masks:
        values, begin = plan.memory[0], len(masks[0]) * plan.words[MASKS_COLUMN]
        drawn = np.concatenate([mask.ravel() for mask in masks])
        values[begin : begin + drawn.size] = drawn


def _weights(program: Program) -> list[int]:
    """Entries of every weight."""
    return [step.width * program.widths[step.inputs[0]] for step in program.instructions if step.operation == "affine"]


def _tile(program: Program, table: Table, choice: Choice) -> int:
    of_sample = (table.columns + table.bar_columns) * choice.item
    most = int(np.clip(LARGEST_BYTES // of_sample, 1, MOST_TILE))
    if max(_weights(program), default=0) > LARGE_WEIGHT:
        return most
    return min(most, max(LEAST_TILE, CACHE_BYTES // of_sample))


def _scratch(program: Program, tile: int, item: int) -> int:
    """Numbers of room that the hungriest step needs; products of factors need two float64 for each."""
    needed = [4 * max(program.widths)]
    for step in program.instructions:
        if step.operation == "loss":
            needed.append(loss_size(program.widths[step.inputs[0]], tile))
        if step.operation == "affine":
            width = program.widths[step.inputs[0]]
            products = ((step.width, width), (width, tile), (width, step.width))
            needed += [scratch_size(columns, terms, item) for columns, terms in products]
    return max(needed)


def _limits(program: Program, dtype: np.dtype) -> list[float]:
    """Between which targets must be: those of the loss, and of the format."""
    largest = float(np.finfo(dtype).max)
    names = [step.function for step in program.instructions if step.operation == "loss"]
    low, high = LOSSES[str(names[0])].targets if names else (-np.inf, np.inf)
    return [max(low, -largest), min(high, largest)]
