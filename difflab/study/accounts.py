"""What the system has on account for this process: time that others had its cores."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path


ACCOUNT = "/proc/thread-self/schedstat"
"""Of Linux: nanoseconds that the thread ran, and that it was ready to run and did not."""


def waited_seconds() -> float:
    """How long threads of this process have been ready to run and could not, for others ran; 0 if unknown.

    Others are all threads on the cores of this process, and may be its own where it has more threads than cores. What
    threads waited that have ended is no longer counted, so that a difference may be below 0.
    """
    waited = 0
    for file in Path("/proc/self/task").glob("*/schedstat"):
        with suppress(OSError, ValueError, IndexError):
            waited += int(file.read_text().split()[1])
    return waited / 1e9


def displaced_seconds() -> float:
    """A clock that goes while other programs have the one core of this process, which this thread is ready to run on.

    Differences below 0 mean nothing. What other threads of this process ran meanwhile is taken off: a method that has
    more threads than cores waits for itself. It stands still at 0 where the system does not tell, and where there are
    more cores: then what a thread misses depends on what others of its own make meanwhile.
    """
    if len(os.sched_getaffinity(0)) > 1:
        return 0.0
    try:
        with open(ACCOUNT, "rb", buffering=0) as file:
            waited = int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
    return waited - (time.process_time() - time.thread_time())
