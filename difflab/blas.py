"""BLAS without threads of its own, for as long as anyone here wants it so."""

from __future__ import annotations

import os
from functools import cache
from threading import Lock
from types import TracebackType
from typing import Any

from threadpoolctl import ThreadpoolController


class OneThread:
    """A context that all threads of the process share, as they share BLAS.

    What the first to enter found is restored when the last one leaves.
    """

    def __init__(self) -> None:
        self._lock, self._inside = Lock(), 0
        self._limit: Any = None
        os.register_at_fork(after_in_child=self._leave)

    def _leave(self) -> None:
        """Threads that were inside do not come along when a process is forked."""
        self._lock = Lock()
        if self._inside:
            self._inside = 0
            self._limit.restore_original_limits()

    @property
    def is_held(self) -> bool:
        """Whether anyone is inside."""
        return self._inside > 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._limit = _libraries().limit(limits=1, user_api="blas")
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._limit.restore_original_limits()


ONE_THREAD = OneThread()


@cache
def _libraries() -> ThreadpoolController:
    """Those that are loaded when BLAS is first needed; to find them takes a while."""
    return ThreadpoolController()
