"""Build kernels for a target, and keep compiled code where an edit can never meet the old one."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

import llvmlite
import numba
import numpy as np

from difflab.primitives.activations import ACTIVATIONS, ROWS


SOURCES = ("number_systems", "primitives", "program.py", "kernels")
"""Everything below difflab/ that compiled code can come from."""


def compiled(function: Callable) -> Any:
    """Compile for the CPU: strict IEEE arithmetic, no bounds checks, no GIL."""
    return numba.njit(error_model="numpy", nogil=True)(function)


@cache
def compiled_rule(rule: Callable) -> Any:
    """Compile a rule of the primitives with all the plain functions it calls by name."""
    callees = {
        name: compiled_rule(value)
        for name in rule.__code__.co_names
        if isinstance(value := rule.__globals__.get(name), FunctionType)
    }
    if not callees:
        return compiled(rule)
    return compiled(FunctionType(rule.__code__, rule.__globals__ | callees, rule.__name__, closure=rule.__closure__))


def entry_point(function: Callable) -> Any:
    """Compile a kernel that Python calls, and keep its code on disk for the next process.

    Numba's own cache does not see edits to what a kernel calls, so the directory is named by a digest of all that
    compiled code depends on. ``DIFFLAB_NO_CACHE=1`` turns the cache off.
    """
    kernel = compiled(function)
    if os.environ.get("DIFFLAB_NO_CACHE") != "1" and _is_ours() and _is_usable(cache_directory()):
        with _numba_cache(cache_directory()):
            kernel.enable_caching()
    return kernel


def _is_ours() -> bool:
    """Whether all code is in the sources that name the cache: a registered activation is not."""
    return tuple(ACTIVATIONS.values()) == ROWS and not numba.config.DISABLE_JIT


def _is_usable(directory: Path) -> bool:
    """Whether code can be kept there; without it every process compiles for itself."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return False
    return os.access(directory, os.W_OK | os.X_OK)


def cache_directory() -> Path:
    """Where compiled kernels of exactly these sources, versions and processor are kept."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "difflab" / "jit" / _digest(Path(__file__).parents[1])


def _digest(package: Path) -> str:
    digest = hashlib.sha256()
    for name in SOURCES:
        place = package / name
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(f"{file.relative_to(package)}\n".encode() + file.read_bytes())
    versions = (platform.python_version(), numba.__version__, llvmlite.__version__, np.__version__)
    processor = (platform.machine(), llvmlite.binding.get_host_cpu_name(), _features())
    flags = sorted((k, v) for k, v in os.environ.items() if k.startswith("NUMBA_"))
    digest.update(repr((versions, processor, flags)).encode())
    return digest.hexdigest()[:16]


def _features() -> str:
    return llvmlite.binding.get_host_cpu_features().flatten()


@contextmanager
def _numba_cache(directory: Path) -> Iterator[None]:
    """Numba reads its cache directory when a kernel enables caching; other users of Numba keep theirs."""
    before = numba.config.CACHE_DIR
    try:
        numba.config.CACHE_DIR = str(directory)
        yield
    finally:
        numba.config.CACHE_DIR = before
