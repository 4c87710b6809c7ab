"""Whose turn it is to use a workspace that threads share."""

from __future__ import annotations

from functools import cache
from threading import RLock
from typing import Any

import numpy as np
from numba import int64

from difflab.kernels.atomic import exchange, store, wait
from difflab.kernels.target import compiled, entry_point


FREE, TAKEN = range(2)
"""What the word of a turn says."""


@compiled
def takes(word):
    """Take a turn, if nobody has it; whether that was so."""
    return exchange(word, FREE, TAKEN)


def wait_for(word):
    """Take a turn when it is free."""
    looks = 0
    while not exchange(word, FREE, TAKEN):
        wait(looks)
        looks += 1


def end(word):
    """Let others have it."""
    store(word, FREE)


ends = compiled(end)


@cache
def _door(function: Any) -> Any:
    return entry_point((int64,))(function)


class Turn:
    """A context that one thread is in at a time, again and again if it likes.

    Compiled sweeps look at the word themselves, which takes a few nanoseconds; a lock of Python's takes a tenth of a
    microsecond.
    """

    def __init__(self) -> None:
        self._word = np.zeros(1, np.int64)
        self.renew()

    def renew(self) -> None:
        """Nobody's turn: a thread that had it does not come along when a process is forked."""
        self._lock, self._depth = RLock(), 0
        self._word[0] = FREE

    @property
    def address(self) -> int:
        """Where the word lies."""
        return self._word.ctypes.data

    def __enter__(self) -> None:
        self._lock.acquire()
        if not self._depth:
            _door(wait_for)(self.address)
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            _door(end)(self.address)
        self._lock.release()
