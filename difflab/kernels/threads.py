"""Threads that take chunks of samples from the one that calls."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from functools import partial
from threading import Event, Thread

import numpy as np

from difflab.kernels import crew
from difflab.kernels.sweeps import TAKES_ALL


PATIENCE = 1 << 16
"""Looks for work, a millisecond or a few of them, until a thread goes to sleep: to be woken takes longer than many
chunks."""


class Crew:
    """Who calls, and helpers of this process that look for what it offers.

    They start when there is something to share for the first time, and end with the crew.

    Parameters
    ----------
    threads : with the one that calls.
    fixed : samples of every chunk, or 0 where batches are shared evenly.
    enough : samples that are worth a thread where they are.
    dtype : of the numbers.
    """

    def __init__(self, threads: int, fixed: int, enough: int, dtype: str) -> None:
        self._alone, self._zero = fixed or 2 * enough - 1, np.dtype(dtype).type(0)
        self._n_helpers = 0 if TAKES_ALL else threads - 1
        self._help_out = crew.helpers_door(dtype) if self._n_helpers else _nothing
        self._pid, self._calls = 0, [Event() for _ in range(threads - 1)]
        self.words = np.zeros(crew.N_HEAD + crew.N_SLOT * threads, np.int64)
        self.words[[crew.N_THREADS, crew.FIXED, crew.ENOUGH]] = threads, fixed, enough

    def chunk_size(self, batch: int) -> int:
        """Samples that go together, but for the last."""
        return int(crew.chunk_size(self.words, batch))

    def wake(self, batch: int) -> None:
        """Have helpers look, if there is anything for them in a batch."""
        if batch <= self._alone or not self._n_helpers:
            return
        if self._pid != os.getpid():
            self._start()
        for is_awake, call in zip(self._words_of(crew.IS_AWAKE), self._calls, strict=True):
            if not is_awake:
                call.set()

    def _words_of(self, word: int) -> np.ndarray:
        """One word of every helper."""
        return self.words[crew.N_HEAD + crew.N_SLOT + word :: crew.N_SLOT]

    def _start(self) -> None:
        """Threads do not come along when a process is forked, whatever they had begun."""
        self._pid, self._calls = os.getpid(), [Event() for _ in range(self._n_helpers)]
        for word in (crew.OFFER, crew.IS_AWAKE):
            self._words_of(word)[:] = 0
        is_over = self._words_of(crew.IS_OVER)
        for k, call in enumerate(self._calls):
            slot = self.words.ctypes.data + 8 * (crew.N_HEAD + crew.N_SLOT * (k + 1))
            look = partial(self._help_out, slot, PATIENCE, self._zero)
            Thread(target=_serve, args=(is_over, look, call), name="difflab", daemon=True).start()
        weakref.finalize(self, _end, is_over, self._calls)


def _nothing(*_: object) -> None:
    pass


def _serve(is_over: np.ndarray, look: Callable[[], None], call: Event) -> None:
    """The life of a helper; it keeps the words alive, and not the crew."""
    while not is_over.any():
        call.wait()
        call.clear()
        look()


def _end(is_over: np.ndarray, calls: list[Event]) -> None:
    is_over[:] = 1
    for call in calls:
        call.set()
