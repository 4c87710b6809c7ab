"""What a process that was started to measure owes to the one that did: to end with it, and answers without prints."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import TextIO


WATCH_SECONDS = 0.5
PR_SET_PDEATHSIG = 1
"""Of Linux: the signal that a process gets when the one that started it ends."""

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
