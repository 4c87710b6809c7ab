"""Plans: programs as compiled sweeps read them, with the addresses of their steps and of their workspace."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numba import types

from difflab.kernels.crew import run_chunks
from difflab.kernels.layout import (
    BAR_DOTS,
    BARS,
    CONSTANT,
    CONSTANTS,
    CREW,
    DIVISOR,
    DOTS,
    FIRST,
    FORWARD,
    GRADIENT,
    GRADIENT_DOT,
    HAS_NO_BAR,
    INPUT,
    INPUT_WIDTH,
    ITEM,
    KEEPS,
    KEEPS_FIRST,
    KEEPS_INPUT,
    KEEPS_OTHER,
    KEEPS_SECOND,
    LOSS_SUMS,
    N_COLUMNS,
    N_INPUTS,
    N_OUTPUTS,
    N_PARAMS,
    N_ROWS,
    N_STATE,
    ONLY_BATCH,
    OTHER,
    OUTPUT,
    OUTPUTS,
    PARTNERS,
    PRODUCT,
    RESULT,
    REVERSE,
    REVERSE_TANGENT,
    RUN,
    SCRATCH,
    SECOND,
    SIZE,
    SLOPE,
    TANGENT,
    TILE,
    VALUES,
    WIDTH,
    X_BAR,
    X_BAR_DOT,
    X_DOT,
    words,
)
from difflab.kernels.products import most_own_terms, product, scratch_size
from difflab.kernels.rules import RULES, Kind, Rule, Step
from difflab.kernels.sweeps import NUMBERS, run_plan
from difflab.kernels.target import address, inlined
from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.activations import ROWS as ACTIVATION_ROWS
from difflab.primitives.losses import LOSSES
from difflab.primitives.losses import ROWS as LOSS_ROWS
from difflab.primitives.operations import INPUTS, OPERATIONS, Instruction
from difflab.program import Program


CACHE_BYTES = 1 << 18
"""What the values of a tile should not exceed, to stay in a second cache."""

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


@dataclass(frozen=True)
class Choice:
    """How sweeps are made.

    Attributes
    ----------
    kind : what they are for.
    dtype : ``"float64"`` or ``"float32"``.
    reproducible : whether products are in order, with the same bits on every processor.
    wants_inputs : whether the cotangent of x is wanted.
    tile : samples that go together, or 0 for as many as the cache holds.
    """

    kind: Kind
    dtype: str
    reproducible: bool = False
    wants_inputs: bool = False
    tile: int = 0

    @property
    def item(self) -> int:
        return np.dtype(self.dtype).itemsize


def needs_all_samples(program: Program) -> bool:
    """Whether samples cannot be cut into tiles: they are coupled, or masks are drawn for all at once."""
    return program.couples_samples or bool(program.masks)


def samples_for_blas(program: Program, dtype: str) -> float:
    """Samples of a batch from which a product of the sweeps is one for BLAS; infinite if none ever is."""
    item = np.dtype(dtype).itemsize
    least = most_own_terms(item) // max(_weights(program), default=1) + 1
    tile = _tile(program, sum(program.widths), item)
    return least if needs_all_samples(program) or tile >= least else math.inf


def workspace_bytes(program: Program, choice: Choice, samples: int) -> int:
    """What a plan needs memory for."""
    _, _, columns = _table(program, choice)
    tile = _samples(program, choice, columns, samples)
    return (_parts(choice) * tile * columns + _scratch(program, tile)) * choice.item


def _samples(program: Program, choice: Choice, columns: int, samples: int) -> int:
    """In a full tile."""
    return samples if needs_all_samples(program) else choice.tile or _tile(program, columns, choice.item)


def _parts(choice: Choice) -> int:
    """Values and cotangents, and the tangents of both."""
    return 4 if choice.kind in ("jvp", "hvp", "gauss_newton") else 2


def make_plan(program: Program, n_params: int, choice: Choice, samples: int) -> Plan:
    """A plan for so many samples, or, where they can be cut into tiles, for any number of them."""
    (plan,) = make_plans(program, n_params, choice, samples, 1)
    if not needs_all_samples(program):
        return plan
    plan.words[ONLY_BATCH] = samples
    set_masks(plan, program, program.draw_masks(samples))
    return replace(plan, samples=samples)


def make_plans(program: Program, n_params: int, choice: Choice, samples: int, count: int) -> list[Plan]:
    """So many plans alike, each with memory of its own."""
    table, constants, columns = _table(program, choice)
    tile, dtype = _samples(program, choice, columns, samples), np.dtype(choice.dtype)
    state = np.zeros(N_STATE, np.int64)
    state[ITEM], state[TILE], state[N_ROWS], state[N_PARAMS] = choice.item, tile, len(table), n_params
    state[N_INPUTS], state[N_OUTPUTS] = program.n_inputs, program.n_outputs
    state[OUTPUTS] = _starts(program)[_outputs(program)]
    state[PRODUCT], state[RUN] = _product(choice), _runner("run", run_plan, choice)
    state[DIVISOR] = 0 if program.reduction == "mean" else 1
    words = np.concatenate([state, table.ravel()])
    room = Room(
        tile * columns, _scratch(program, tile), n_params if choice.kind == "hvp" else 0, tile * program.n_inputs
    )
    return [_with_memory(words.copy(), choice, room, constants, _limits(program, dtype)) for _ in range(count)]


class Room(NamedTuple):
    """Numbers that a plan needs memory for: in each workspace, for one step, for a gradient on the way, for x."""

    workspace: int
    scratch: int
    gradient: int
    inputs: int


def _with_memory(words: np.ndarray, choice: Choice, room: Room, constants: np.ndarray, limits: list[float]) -> Plan:
    """A plan of these words, which get the addresses of what it has to itself."""
    work = [np.zeros(room.workspace, choice.dtype) for _ in range(_parts(choice))]
    for part, places in zip(work, ((VALUES,), (BARS, X_BAR), (DOTS,), (BAR_DOTS, X_BAR_DOT)), strict=False):
        words[list(places)] = part.ctypes.data
    scratch, gradient = np.empty(room.scratch, choice.dtype), np.empty(room.gradient, choice.dtype)
    still, losses = np.zeros(room.inputs, choice.dtype), np.array([0.0, 0.0, 0.0, *limits, *CACHE_LINE])
    words[[CONSTANTS, LOSS_SUMS, SCRATCH]] = constants.ctypes.data, losses.ctypes.data, scratch.ctypes.data
    words[[GRADIENT, X_DOT]] = gradient.ctypes.data, still.ctypes.data
    return Plan(words, (*work, scratch, losses, constants, gradient, still), None)


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
    code = _runner("chunks", run_chunks, choice)
    plan.words[[CREW, PARTNERS, RESULT, RUN]] = crew.ctypes.data, places.ctypes.data, result, code
    lent = [array for each in (first, *others) for array in (each.words, *each.memory)]
    return replace(plan, memory=(*plan.memory, crew, places, *made, *lent))


def set_masks(plan: Plan, program: Program, masks: list[np.ndarray]) -> None:
    """Masks into their place among the values."""
    if masks:
        values, begin = plan.memory[0], len(masks[0]) * int(_starts(program)[2])
        drawn = np.concatenate([mask.ravel() for mask in masks])
        values[begin : begin + drawn.size] = drawn


def _has_loss(program: Program) -> bool:
    return any(step.operation == "loss" for step in program.instructions)


def _outputs(program: Program) -> int:
    """The value that the loss reads; without a loss, the last one that is made, or x if none is."""
    if _has_loss(program):
        return program.outputs
    return len(program.widths) - 1 if program.instructions else INPUTS


def _starts(program: Program) -> np.ndarray:
    """The column at which each value starts, and the end of the last."""
    return np.concatenate([[0], np.cumsum(program.widths)]).astype(np.int64)


def _weights(program: Program) -> list[int]:
    """Entries of every weight."""
    return [step.width * program.widths[step.inputs[0]] for step in program.instructions if step.operation == "affine"]


def _tile(program: Program, columns: int, item: int) -> int:
    if max(_weights(program), default=0) > LARGE_WEIGHT:
        return MOST_TILE
    return int(np.clip(CACHE_BYTES // (2 * columns * item), LEAST_TILE, MOST_TILE))


def _scratch(program: Program, tile: int) -> int:
    """Numbers of room that the hungriest step needs; products of factors need two float64 for each, losses one number
    for each sample.
    """
    needed = [4 * max(program.widths), tile]
    for step in program.instructions:
        if step.operation == "affine":
            width = program.widths[step.inputs[0]]
            products = ((step.width, width), (width, tile), (width, step.width))
            needed += [scratch_size(columns, terms) for columns, terms in products]
    return max(needed)


def _limits(program: Program, dtype: np.dtype) -> list[float]:
    """Between which targets must be: those of the loss, and of the format."""
    largest = float(np.finfo(dtype).max)
    names = [step.function for step in program.instructions if step.operation == "loss"]
    low, high = LOSSES[str(names[0])].targets if names else (-np.inf, np.inf)
    return [max(low, -largest), min(high, largest)]


def _table(program: Program, choice: Choice) -> tuple[np.ndarray, np.ndarray, int]:
    """The rows, all constants, and the columns of a workspace."""
    starts, constants = _starts(program), [0.0]
    columns = int(starts[-1])
    table = np.full((len(program.instructions), N_COLUMNS), -1, np.int64)
    for row, (number, step) in zip(table, program.numbered, strict=True):
        _describe(row, number, step, starts, program)
        row[CONSTANT] = len(constants)
        constants += step.constants
        if step.operation == "activation" and _is_needed(step.inputs[0], program, choice):
            row[SLOPE] = columns
            columns += step.width
    _mark_begun(table, program, choice)
    for row, step in zip(table, program.instructions, strict=True):
        row[[FORWARD, TANGENT, REVERSE, REVERSE_TANGENT]] = _addresses(step, choice, row[KEEPS] < 0)
    return table, np.array([*constants, 0.0]), columns


def _describe(row: np.ndarray, number: int, step: Instruction, starts: np.ndarray, program: Program) -> None:
    """At most two inputs and two parameters: an operation with more of them is several instructions."""
    if len(step.inputs) > 2 or len(step.parameters) > 2:
        raise ValueError(f"an instruction must have at most 2 inputs and 2 parameters, got {step}")
    row[OUTPUT], row[WIDTH] = starts[number], step.width
    for place, value in zip((INPUT, OTHER), step.inputs, strict=False):
        row[place] = starts[value]
    if step.inputs:
        row[INPUT_WIDTH], row[SLOPE] = program.widths[step.inputs[0]], starts[step.inputs[0]]
        if step.inputs[0] == INPUTS:
            row[SLOPE] = -1
    for place, parameter in zip((FIRST, SECOND), step.parameters, strict=False):
        row[place], row[SIZE] = parameter.offset, parameter.size


def _is_needed(value: int, program: Program, choice: Choice) -> bool:
    """Whether a value may not be written over: it is given, several read it, or its maker does in reverse."""
    readers = sum(step.inputs.count(value) for step in program.instructions)
    made = [step for number, step in program.numbered if number == value]
    return readers > 1 or not made or _rule(made[0], choice).rereads


def _mark_begun(table: np.ndarray, program: Program, choice: Choice) -> None:
    """Which cotangents and gradients were begun when a row is reached in reverse; -1 where nothing arrives there."""
    begun: set[int] = set() if _has_loss(program) else {_outputs(program)}
    written: list[slice] = []
    for row, (number, step) in zip(table[::-1], program.numbered[::-1], strict=True):
        is_total, is_loss = OPERATIONS[step.operation].is_total, step.operation == "loss"
        if not (is_total or is_loss or number in begun):
            row[KEEPS] = -1
            continue
        row[KEEPS] = 0
        carried = step.inputs[: _rule(step, choice).carries]
        for value, bit in zip(carried, (KEEPS_INPUT, KEEPS_OTHER), strict=False):
            row[KEEPS] |= bit if value in begun else 0
            begun.add(value)
        if step.inputs[:1] == (INPUTS,) and not choice.wants_inputs:
            row[KEEPS] |= HAS_NO_BAR
        for parameter, bit in zip(step.parameters, (KEEPS_FIRST, KEEPS_SECOND), strict=False):
            part = slice(parameter.offset, parameter.offset + parameter.size)
            row[KEEPS] |= bit if any(_overlap(part, other) for other in written) else 0
            written.append(part)


def _overlap(a: slice, b: slice) -> bool:
    return a.start < b.stop and b.start < a.stop


def _rule(step: Instruction, choice: Choice) -> Rule:
    return RULES[step.operation](step.function, choice.kind, choice.dtype)


def _addresses(step: Instruction, choice: Choice, is_idle: bool) -> list[int]:
    """Of the four steps of an instruction; 0 where there is nothing to do."""
    rule = _rule(step, choice)
    steps: list[Step | None] = [rule.forward, rule.tangent, rule.reverse, rule.reverse_tangent]
    if choice.kind == "value":
        steps[1:] = [None, None, None]
    if choice.kind in ("gradient", "vjp"):
        steps[1] = steps[3] = None
    if choice.kind == "jvp":
        steps[2] = steps[3] = None
    if choice.kind == "gauss_newton":
        steps[3] = None
    if is_idle:
        steps[2:] = [None, None]
    return [0 if one is None else _address(step, one, choice) for one in steps]


TABLES: dict[str, dict[str, Any]] = {"activation": ACTIVATIONS, "loss": LOSSES}
"""Of operations whose functions are rows that may be registered or replaced."""

OURS = [*ACTIVATION_ROWS, *LOSS_ROWS]

_MADE: dict[tuple[str, object], int] = {}
"""Addresses of what this process has compiled or read."""


def _address(step: Instruction, function: Step, choice: Choice) -> int:
    """A step that closes over nothing is the same whatever the instruction's function, and is compiled once."""
    row, whose = None, function.__module__.rpartition(".")[2]
    if function.__closure__ is not None:
        row = TABLES[step.operation][str(step.function)] if step.operation in TABLES else None
        whose = f"{step.operation}-{step.function or ''}"
    arguments = types.int64, types.int64, NUMBERS[choice.dtype]
    is_ours = row is None or any(row is ours for ours in OURS)
    name = f"{whose}-{function.__name__}-{choice.dtype}"
    return _made(name, row, lambda: _of_addresses(function), arguments, is_ours)


def _made(name: str, row: object, build: Callable[[], Callable], arguments: tuple, is_ours: bool = True) -> int:
    if (name, row) not in _MADE:
        _MADE[name, row] = address(name, build(), arguments, is_ours)
    return _MADE[name, row]


def _of_addresses(function: Step) -> Step:
    """The step as a function of where row and state lie."""
    step = inlined(function)

    def at(row, state, zero):
        step(words(row, N_COLUMNS), words(state, N_STATE), zero)

    return at


def _product(choice: Choice) -> int:
    number, mode = NUMBERS[choice.dtype], "in-order" if choice.reproducible else "fast"
    arguments = (*[types.int64] * 11, number)
    return _made(f"product-{mode}-{choice.dtype}", None, lambda: product(choice.item, choice.reproducible), arguments)


def _runner(name: str, run: Callable, choice: Choice) -> int:
    arguments = types.int64, types.int64, NUMBERS[choice.dtype]
    return _made(f"{name}-{choice.dtype}", None, lambda: run, arguments)
