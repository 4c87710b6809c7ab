"""Threads that take chunks of samples from the one that calls."""

from __future__ import annotations

import os
import weakref
from functools import partial
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any
from weakref import WeakSet

import numpy as np

from difflab.kernels import crew
from difflab.kernels.sweeps import TAKES_ALL


PATIENCE = 1 << 16
"""Looks for work until a thread goes to sleep, a millisecond or a few of them: to be woken takes longer than many
chunks."""


class Crew:
    """Who calls, and helpers of this process that look for what it offers.

    They start when there is something to share for the first time, and end with the crew. Helpers have the
    floating-point mode of the thread that started them.

    Parameters
    ----------
    threads : with the one that calls.
    fixed : samples of every chunk, or 0 where batches are shared evenly.
    enough : how many samples a thread must get to be worth its while, where batches are shared evenly.
    dtype : of the numbers.

    Attributes
    ----------
    words : what compiled code knows of the crew.
    partners : plans that chunks need: one for each thread, and one more for who calls if its chunks are several.
    """

    def __init__(self, threads: int, fixed: int, enough: int, dtype: str) -> None:
        self._n_helpers = 0 if TAKES_ALL else threads - 1
        self._help_out: Any = crew.helpers_door(dtype) if self._n_helpers else None
        self._zero = np.dtype(dtype).type(0)
        self._pid, self._calls = 0, list[SimpleQueue]()
        self._last, self._lock = (0, 0), Lock()
        CREWS.add(self)
        self.partners = threads + (fixed > 0)
        self.words = np.zeros(crew.N_HEAD + crew.N_SLOT * (threads - 1), np.int64)
        self.words[[crew.N_THREADS, crew.FIXED, crew.ENOUGH]] = threads, fixed, enough
        self.of_helpers(crew.LOOKS)[:] = PATIENCE

    def chunks(self, batch: int) -> int:
        """How many there are."""
        return -(-batch // int(crew.chunk_size(self.words, batch)))

    def wake(self, batch: int) -> None:
        """Have as many helpers look as there is something for in a batch; any thread may do so at any time."""
        last, needed = self._last
        if batch != last:
            needed = min(self.chunks(batch) - 1, self._n_helpers)
            self._last = batch, needed
        if not needed:
            return
        if self._pid != os.getpid() or len(self._calls) < needed:
            with self._lock:
                self._start(needed)
        self.of_helpers(crew.N_CALLS)[:] += 1
        for is_awake, call in zip(self.of_helpers(crew.IS_AWAKE)[:needed], self._calls, strict=False):
            if not is_awake:
                call.put(None)

    def of_helpers(self, word: int) -> np.ndarray:
        """One word of every helper."""
        return self.words[crew.N_HEAD + word :: crew.N_SLOT]

    def renew(self) -> None:
        """In a forked process, where whoever had the lock did not come along."""
        self._lock = Lock()

    def _start(self, needed: int) -> None:
        """As many as are needed; where there is no room for them, fewer will do."""
        if self._pid != os.getpid():
            self._begin()
        for k in range(len(self._calls), needed):
            call: SimpleQueue = SimpleQueue()
            slot = self.words.ctypes.data + 8 * (crew.N_HEAD + crew.N_SLOT * k)
            look = partial(self._help_out, slot, self._zero)
            helper = Thread(target=_serve, args=(self.of_helpers(crew.IS_OVER), look, call), name=NAME, daemon=True)
            try:
                helper.start()
            except RuntimeError:
                self._n_helpers, self._last = k, (0, 0)
                return
            self._calls.append(call)

    def _begin(self) -> None:
        """Threads do not come along when a process is forked, whatever they had begun."""
        for word in (crew.OFFER, crew.IS_AWAKE):
            self.of_helpers(word)[:] = 0
        self._calls = []
        weakref.finalize(self, _end, self.of_helpers(crew.IS_OVER), self._calls, os.getpid())
        self._pid = os.getpid()


CREWS: WeakSet[Crew] = WeakSet()
"""All there are."""


def _renew() -> None:
    for each in CREWS:
        each.renew()


os.register_at_fork(after_in_child=_renew)

NAME = "difflab"
"""Of helpers."""


def _serve(is_over: np.ndarray, look: partial[None], call: SimpleQueue) -> None:
    """The life of a helper; it holds the words but not the crew, so that this can be collected."""
    while not is_over.any():
        call.get()
        while not call.empty():
            call.get()
        look()


def _end(is_over: np.ndarray, calls: list[SimpleQueue], pid: int) -> None:
    """What a forked process was given of it concerns the other one."""
    if pid != os.getpid():
        return
    is_over[:] = 1
    for call in calls:
        call.put(None)
