"""What a process that measures does to itself: it ends with who asks, keeps prints from answers, counts memory."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TextIO


WATCH_SECONDS = 0.5
PR_SET_PDEATHSIG = 1
"""Of Linux: the signal that a process gets when the one that started it ends."""
ACCOUNT = "/proc/thread-self/schedstat"
"""Of Linux: nanoseconds that the thread ran, and that it was ready to run and did not."""


_LIBC = ctypes.CDLL(None)


def answers() -> TextIO:
    """A channel to standard output; prints of other code go to standard error from here on."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.stdout.flush()
    return channel


def end_with_parent() -> None:
    """Be killed when the thread that started this process ends, even while stopped, where the system does that."""
    with suppress(AttributeError):
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def end_with(parent: int) -> None:
    """End when the process that asked ends, even if it was killed before this one got here, even while stopped."""
    end_with_parent()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def peak_bytes() -> int:
    """The most memory that this program has held, whatever the process it was started from held."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


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
