"""Addresses of the compiled code that plans lead to, each made once by a process or read from what is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types

from difflab.kernels.crew import run_chunks
from difflab.kernels.layout import N_COLUMNS, N_STATE, words
from difflab.kernels.loops import with_widest_vectors
from difflab.kernels.products import product
from difflab.kernels.rules import Step
from difflab.kernels.sweeps import NUMBERS, run_plan
from difflab.kernels.target import address, inlined
from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.activations import ROWS as ACTIVATION_ROWS
from difflab.primitives.losses import LOSSES
from difflab.primitives.losses import ROWS as LOSS_ROWS
from difflab.primitives.operations import Instruction


TABLES: dict[str, dict[str, Any]] = {"activation": ACTIVATIONS, "loss": LOSSES}
"""Of operations whose functions are rows that may be registered or replaced."""

OURS = [*ACTIVATION_ROWS, *LOSS_ROWS]

_MADE: dict[tuple[str, object], int] = {}
"""Addresses of what this process has compiled or read."""


def of_step(step: Instruction, function: Step, dtype: str, fused: bool) -> int:
    """The code of one step of an instruction.

    A step that closes over nothing is the same whatever the instruction's function, and is compiled once.
    """
    row, whose = None, function.__module__.rpartition(".")[2]
    if function.__closure__ is not None:
        row = TABLES[step.operation][str(step.function)] if step.operation in TABLES else None
        whose = f"{step.operation}-{step.function or ''}{'-fused' if fused else ''}"
    arguments = types.int64, types.int64, NUMBERS[dtype]
    is_ours = row is None or any(row is ours for ours in OURS)
    name = f"{whose}-{function.__name__}-{dtype}"
    return _made(name, row, lambda: _of_addresses(function), arguments, is_ours)


def _made(name: str, row: object, build: Callable[[], Callable], arguments: tuple, is_ours: bool = True) -> int:
    if (name, row) not in _MADE:
        _MADE[name, row] = address(name, build(), arguments, is_ours)
    return _MADE[name, row]


def _of_addresses(function: Step) -> Step:
    """The step as a function of where row and state lie."""
    step = inlined(function)

    def at(row, state, zero):
        with_widest_vectors()
        step(words(row, N_COLUMNS), words(state, N_STATE), zero)

    return at


def of_product(dtype: str, reproducible: bool, library: str) -> int:
    """The code that makes products of matrices."""
    arguments = (*[types.int64] * 11, NUMBERS[dtype])
    name = f"product-{'in-order' if reproducible else library}-{dtype}"
    return _made(name, None, lambda: product(np.dtype(dtype).itemsize, reproducible, library), arguments)


def of_plan(dtype: str) -> int:
    """The code that runs a plan."""
    return _runner("run", run_plan, dtype)


def of_chunks(dtype: str) -> int:
    """The code that has a plan run in chunks of samples."""
    return _runner("chunks", run_chunks, dtype)


def _runner(name: str, run: Callable, dtype: str) -> int:
    return _made(f"{name}-{dtype}", None, lambda: run, (types.int64, types.int64, NUMBERS[dtype]))
