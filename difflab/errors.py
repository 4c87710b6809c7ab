"""Mistakes that many parts of the lab answer in the same words."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Iterable


def known(word: str, table: Iterable[str], kind: str) -> str:
    """``word`` if the table has it, else a ``ValueError`` that names the nearest one."""
    names = sorted(table)
    if word in names:
        return word
    raise ValueError(unknown(word, names, kind))


def unknown(word: str, table: Iterable[str], kind: str) -> str:
    """The sentence about a word that a table does not have."""
    names = sorted(table)
    near = difflib.get_close_matches(str(word), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {word!r}; known: {', '.join(names)}{hint}"


OUT_OF_MEMORY = (
    *("MemoryError", "Memory allocation", "failed to map", "annot allocate", "return without exception set"),
    *("out of memory", "virtual memory exhausted"),
)
"""Words of what met its limit where it could not say so itself."""


def means_out_of_memory(words: str) -> bool:
    """Whether memory is what last words are about."""
    return any(sign in words for sign in OUT_OF_MEMORY)


def missing_compiler(command: str) -> str | None:
    """The sentence about a C compiler that is not there, or None."""
    return None if shutil.which(command) else f"a C compiler called {command} is not there; install one"


class MissingExtra(ImportError):
    """An optional part of difflab is not installed."""

    def __init__(self, extra: str, what: str) -> None:
        super().__init__(f"{what} is not installed; install it with: pip install 'difflab[{extra}]'")


class LimitExceeded(RuntimeError):
    """Something met a limit of time or memory that it was given; ``status`` is ``"timeout"`` or ``"memory"``."""

    def __init__(self, status: str, message: str) -> None:
        self.status = status
        super().__init__(message)


class Undecided(ArithmeticError):
    """Balls are too wide to say which branch of an expression holds."""
