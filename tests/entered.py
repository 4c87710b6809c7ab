"""A way into kernels from Python, which they have none of themselves."""

from __future__ import annotations

from functools import cache
from typing import Any

import numba

from difflab.kernels.flags import ENTERED


@cache
def entered(kernel: Any) -> Any:
    """The kernel compiled anew for Python to call; itself where nothing is compiled."""
    return numba.njit(**ENTERED)(kernel.py_func) if hasattr(kernel, "py_func") else kernel
