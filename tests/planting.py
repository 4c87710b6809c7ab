"""Kernels made anew as plain Python from their sources, with faults planted into these."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import difflab as dl


KERNELS = (
    *("flags", "processor", "llvm", "vector_math", "elementary", "kept_code", "target", "layout", "loops", "atomic"),
    *("turn", "blas_products", "register_tiles", "register_moves", "transposition", "packing", "products"),
    "rules.rule",
    *(
        "rules.linear",
        "rules.activation",
        "rules.add",
        "rules.affine",
        "rules.batch_norm",
        "rules.dropout",
        "rules.label_smoothing",
    ),
    *("rules.loss", "rules.maxout", "rules.multiply", "rules.penalty", "rules.softmax", "rules"),
    *("admission", "sweeps", "crew", "threads", "addresses", "bars", "tables", "plans", "kept_plans"),
)
"""Where faults are planted, each after those that it imports."""

ORIGINALS = [importlib.import_module(f"difflab.kernels.{name}") for name in KERNELS]
TEXT = [Path(str(module.__file__)).read_text() for module in ORIGINALS]

Edit = tuple[str, ...]
"""What stands once in the sources, and what in its place; perhaps again."""

Prepare = Callable[[dl.MLP], dl.Prepared]


def occurrences(text: str) -> int:
    return sum(source.count(text) for source in TEXT)


def with_fault(edit: Edit, tile: int | None = None, **options: Any) -> Prepare:
    """Prepares networks on kernels with pieces of their sources replaced; Numba's compiler has to be off.

    With ``tile``, so many samples go together; options are those of Backprop.
    """
    pairs = list(zip(edit[::2], edit[1::2], strict=True))
    for old, _ in pairs:
        assert occurrences(old) == 1, f"{old!r} must occur once in the kernels, got {occurrences(old)}"

    def prepare(net: dl.MLP) -> dl.Prepared:
        with remade(pairs):
            if tile:
                plans: Any = sys.modules["difflab.kernels.plans"]
                plans.LEAST_TILE = plans.MOST_TILE = tile
            return dl.Backprop(**options).prepare(net)

    return prepare


@contextmanager
def remade(pairs: list[tuple[str, str]]) -> Iterator[None]:
    """Kernels made anew, in the place of the originals meanwhile."""
    with pytest.MonkeyPatch.context() as planting:
        for original, source in zip(ORIGINALS, TEXT, strict=True):
            _remade(original, source, pairs, planting)
        yield


def _remade(original: ModuleType, source: str, pairs: list[tuple[str, str]], planting: pytest.MonkeyPatch) -> None:
    for old, new in pairs:
        source = source.replace(old, new)
    module, (package, _, name) = ModuleType(original.__name__), original.__name__.rpartition(".")
    module.__file__ = original.__file__
    planting.setitem(sys.modules, original.__name__, module)
    planting.setattr(sys.modules[package], name, module, raising=False)
    exec(compile(source, str(original.__file__), "exec"), module.__dict__)
