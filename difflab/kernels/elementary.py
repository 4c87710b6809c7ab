"""What stands for ``math`` in compiled rules: vector mathematics in the precision of the argument."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from difflab.kernels import vector_math
from difflab.kernels.flags import CALLED
from difflab.kernels.vector_math import Functions


def _function(name: str, singles: Functions, doubles: Functions) -> Callable:
    """One function for both precisions: compiled code has the one of its argument, plain Python too."""
    single, double = getattr(singles, name), getattr(doubles, name)

    def stub(x: Any) -> Any:
        return single(x) if isinstance(x, np.float32) else double(np.float64(x))

    @overload(stub, strict=False, jit_options={"forceinline": True, **CALLED})
    def _choose(x):
        if x == types.float32:
            return lambda x: single(x)
        return lambda x: double(np.float64(x))

    stub.__name__ = name
    return stub


def _module(name: str, singles: Functions, doubles: Functions) -> ModuleType:
    made = ModuleType(f"{__name__}.{name}")
    vars(made).update({name: getattr(math, name) for name in dir(math) if not name.startswith("_")})
    vars(made).update({name: _function(name, singles, doubles) for name in Functions._fields})
    return made


MATH = _module("MATH", vector_math.float32, vector_math.float64)
"""A module like ``math``; sqrt, copysign and constants are its own."""

FUSED_MATH = _module("FUSED_MATH", vector_math.fused_float32, vector_math.fused_float64)
"""The same with products and sums rounded once, where the processor can."""
