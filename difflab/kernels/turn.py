"""Whose turn it is to use a workspace that threads share."""

from __future__ import annotations

from functools import cache
from threading import RLock
from typing import Any

import numpy as np
from numba import int64

from difflab.kernels.atomic import exchange, load, store, wait
from difflab.kernels.target import compiled, entry_point


FREE, TAKEN = range(2)
"""What the word of a turn says."""

LOOKS = 1 << 14
"""Between which nothing interrupts: a fraction of a millisecond or, where others run meanwhile, of a second."""


@compiled
def takes(word):
    """Take a turn, if nobody has it; whether that was so."""
    return exchange(word, FREE, TAKEN)


def wait_for(words):
    """Take a turn, if it is free within so many looks, and note that Python has it; whether that was so."""
    for looks in range(LOOKS):
        if exchange(words, FREE, TAKEN):
            store(words + 8, TAKEN)
            return True
        wait(looks)
    return False


def give_back(words):
    """Let others have it, if Python has it."""
    if load(words + 8) == TAKEN:
        store(words + 8, FREE)
        store(words, FREE)


@compiled
def ends(word):
    """Let others have it."""
    store(word, FREE)


@cache
def _door(function: Any) -> Any:
    return entry_point((int64,))(function)


class Turn:
    """A context that one thread is in at a time, again and again if it likes.

    Compiled sweeps look at the word themselves, which takes a few nanoseconds; a lock of Python's takes a tenth of a
    microsecond. Who waits here can be interrupted, and has no turn then.
    """

    def __init__(self) -> None:
        self._words = np.zeros(2, np.int64)
        self.renew()

    def renew(self) -> None:
        """Nobody's turn: a thread that had it does not come along when a process is forked."""
        self._lock, self._depth = RLock(), 0
        self._words[:] = FREE

    @property
    def address(self) -> int:
        """Where the word lies, and after it whether Python has the turn."""
        return self._words.ctypes.data

    @property
    def is_taken(self) -> bool:
        return bool(self._words[0] == TAKEN)

    def __enter__(self) -> None:
        self._lock.acquire()
        depth = self._depth
        try:
            while not depth and not _door(wait_for)(self.address):
                pass
            self._depth = depth + 1
        except BaseException:
            self._leave(depth)
            raise

    def __exit__(self, *_: object) -> None:
        self._leave(self._depth - 1)

    def _leave(self, depth: int) -> None:
        try:
            self._depth = depth
            if not depth:
                _door(give_back)(self.address)
        finally:
            self._lock.release()
