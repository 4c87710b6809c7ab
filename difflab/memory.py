"""The memory that processes hold, and the most that they have held."""

from __future__ import annotations

import resource
from pathlib import Path


def peak_bytes() -> int:
    """The most that this program has held, whatever the process it was started from held."""
    return _of_this("VmHWM")


def held_bytes() -> int:
    """What this program holds."""
    return _of_this("VmRSS")


def peak_bytes_of_ended() -> int:
    """The most that the largest process held which this one started and waited for."""
    return 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


def _of_this(entry: str) -> int:
    """An entry of Linux's account; elsewhere the most that the process has held."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(entry))
    except (OSError, StopIteration):
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
