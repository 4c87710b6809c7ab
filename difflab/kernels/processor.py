"""The processor that code is compiled for: this machine's, unless Numba is told of another."""

from __future__ import annotations

import numba
from numba.core.codegen import get_host_cpu_features


LINE = 64
"""Bytes that come from memory at once."""


def has(*names: str) -> bool:
    """Whether it has one of these features, by LLVM's names for them."""
    asked = numba.config.CPU_FEATURES
    features = (get_host_cpu_features() if asked is None else asked).split(",")
    return any(f"+{name}" in features for name in names)


VECTOR = 64 if has("avx512f") else 32
"""Bytes of its vectors, of which there are 32 where they are of 64 bytes, and else 16, which may be made of two."""
