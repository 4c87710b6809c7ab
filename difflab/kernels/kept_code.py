"""Compiled code that is kept on disk, where an edit can never meet the old one."""

from __future__ import annotations

import hashlib
import itertools
import os
import platform
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import llvmlite
import msgspec
import numba
import numpy as np
from numba.core.bytecode import FunctionIdentity
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.compiler_lock import global_compiler_lock

from difflab.began import BEGAN


SOURCES = ("number_systems", "primitives", "program.py", "kernels")
"""Everything below difflab/ that compiled code can come from."""

PACKAGE = Path(__file__).parents[1]

SETTINGS = ("BOUNDSCHECK", "OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "CPU_NAME", "CPU_FEATURES", "ENABLE_AVX")
"""What changes compiled code and may come from a file of settings or from Python, not from the environment alone."""

SEAL = hashlib.sha256().digest_size
"""Bytes at the end of every file, which tell of damage and of another place."""

CLOCK = 0.02
"""Seconds by which dates of files may lag behind the clock."""

FunctionIdentity._unique_ids = itertools.count(secrets.randbits(60))
"""Numba tells symbols of one name apart by a count from 1 in every process, so that code kept by two processes may have
one symbol for two functions, and the linker would take either [Numba issue 10486]."""


class Machine(msgspec.Struct, frozen=True, array_like=True):
    """Code of one function as it is kept: what compiled it, its symbol, and the two halves of Numba's library."""

    library: str
    symbol: str
    code: bytes
    bitcode: bytes


def file_of(name: str) -> Path | None:
    """Where code of this name is kept, if any is."""
    return cache_directory() / f"{name}.machine" if is_caching() else None


def _seal(file: Path, content: bytes) -> bytes:
    """What only this content has, and only where it was kept: code is never run for other sources or another name."""
    place = file.relative_to(cache_directory().parent).as_posix()
    return hashlib.sha256(f"{place}\n".encode() + content).digest()


def _unsealed(file: Path) -> bytes | None:
    """What was kept whole in this file and for it."""
    try:
        whole = file.read_bytes()
    except OSError:
        return None
    content, seal = whole[:-SEAL], whole[-SEAL:]
    return content if seal == _seal(file, content) else None


def read(file: Path) -> Machine | None:
    """Code that was kept whole, for this very place."""
    content = _unsealed(file)
    return None if content is None else msgspec.msgpack.decode(content, type=Machine)


def keep(file: Path, machine: Machine) -> None:
    """Whole or not at all; a full disk costs time later, and nothing else."""
    content = msgspec.msgpack.encode(machine)
    part = file.with_suffix(f".{os.getpid()}")
    try:
        part.write_bytes(content + _seal(file, content))
        part.replace(file)
    except OSError:
        part.unlink(missing_ok=True)


def keep_entry_point(kernel: Any, signatures: tuple[Any, ...]) -> None:
    """Have Numba keep code of a kernel that Python calls, and look for it there first."""
    with _numba_cache(cache_directory()):
        kernel.enable_caching()
    kernel._cache._cache_file = SealedFiles.of(kernel._cache, signatures)


def forget_entry_points() -> None:
    """Drop what Numba kept, of all kernels that Python calls."""
    for kept in cache_directory().rglob("*.nb[ic]"):
        with suppress(OSError):
            kept.unlink()


@contextmanager
def _numba_cache(directory: Path) -> Iterator[None]:
    """Numba reads its cache directory when a kernel enables caching; other users and threads of Numba keep theirs."""
    with global_compiler_lock:
        before = numba.config.CACHE_DIR
        try:
            numba.config.CACHE_DIR = str(directory)
            yield
        finally:
            numba.config.CACHE_DIR = before


class SealedFiles(IndexDataCacheFile):
    """The files that Numba keeps of one kernel, sealed at their ends, which unpickling does not reach."""

    @classmethod
    def of(cls, cache: FunctionCache, signatures: tuple[Any, ...]) -> SealedFiles:
        """Numba numbers files as they come: processes at once might give one number to code of two signatures."""
        name = f"{cache._impl.filename_base}-{hashlib.sha256(repr(signatures).encode()).hexdigest()[:16]}"
        return cls(cache.cache_path, name, cache._impl.locator.get_source_stamp())

    def _load_index(self) -> dict:
        return {} if _unsealed(Path(self._index_path)) is None else super()._load_index()

    def _load_data(self, name: str) -> Any:
        if _unsealed(Path(self._data_path(name))) is None:
            raise FileNotFoundError(f"{name} must be kept whole, in its own place")
        return super()._load_data(name)

    @contextmanager
    def _open_for_write(self, filepath: str) -> Iterator[BytesIO]:
        with super()._open_for_write(filepath) as file:
            yield (content := BytesIO())
            file.write(content.getvalue() + _seal(Path(filepath), content.getvalue()))


def is_caching() -> bool:
    if os.environ.get("DIFFLAB_NO_CACHE") == "1" or not _is_as_begun():
        return False
    try:
        return _is_usable(cache_directory())
    except RuntimeError:
        # Of a user without a home.
        return False


@cache
def _sources(package: Path) -> list[Path]:
    places = [package / name for name in SOURCES]
    return [file for place in places for file in (sorted(place.rglob("*.py")) if place.is_dir() else [place])]


def _is_as_begun() -> bool:
    """Whether no source was edited since this process began to read: what it has may be older than what lies there."""
    try:
        return all(max(file.stat().st_mtime, file.stat().st_ctime) < BEGAN - CLOCK for file in _sources(PACKAGE))
    except FileNotFoundError:
        return False


def _is_usable(directory: Path) -> bool:
    """Whether code can be kept there, where no one else can write; without it every process compiles for itself."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = directory.stat()
    except OSError:
        return False
    is_own = status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return is_own and os.access(directory, os.W_OK | os.X_OK)


@cache
def cache_directory() -> Path:
    """Where compiled kernels of exactly these sources, versions and processor are kept."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "difflab" / "jit" / _digest(PACKAGE)


def _digest(package: Path) -> str:
    digest = hashlib.sha256()
    for file in _sources(package):
        digest.update(f"{file.relative_to(package)}\n".encode() + file.read_bytes())
    versions = (platform.python_version(), numba.__version__, llvmlite.__version__, np.__version__)
    processor = (platform.machine(), llvmlite.binding.get_host_cpu_name(), _features())
    flags = sorted((k, v) for k, v in os.environ.items() if k.startswith("NUMBA_") and k != "NUMBA_NUM_THREADS")
    flags += [(name, repr(getattr(numba.config, name, None))) for name in SETTINGS]
    digest.update(repr((versions, processor, flags)).encode())
    return digest.hexdigest()[:16]


def _features() -> str:
    return llvmlite.binding.get_host_cpu_features().flatten()
