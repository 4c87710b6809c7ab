"""How Numba compiles kernels."""

from __future__ import annotations


ENTERED = {"error_model": "numpy", "nogil": True}
"""What Python calls: divisions by zero have their IEEE results, and the GIL is let go."""

CALLED = ENTERED | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""What compiled code alone calls, without the wrappers that take as long to compile as the function."""
