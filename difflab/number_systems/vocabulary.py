"""The vocabulary in which primals are written, and what systems of objects share of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np


Array = Any
"""A NumPy array of the number system's numbers (object arrays for all but the floating-point systems)."""


class NumberSystem(Protocol):
    """The vocabulary in which primals are written."""

    def array(self, values: Array) -> Array: ...
    def matmul(self, a: Array, b: Array) -> Array: ...
    def sum(self, z: Array) -> Array: ...
    def square(self, z: Array) -> Array: ...
    def exp(self, z: Array) -> Array: ...
    def log(self, z: Array) -> Array: ...
    def tanh(self, z: Array) -> Array: ...
    def expit(self, z: Array) -> Array: ...
    def log1pexp(self, z: Array) -> Array: ...
    def positive_part(self, z: Array) -> Array: ...
    def shift(self, z: Array) -> Array: ...


def elementwise(function: Callable[[Any], Any]) -> Any:
    return np.frompyfunc(function, 1, 1)


class Exact:
    """What the systems over object arrays share."""

    def array(self, values: Array) -> Array:
        return np.asarray(values, object)

    def matmul(self, a: Array, b: Array) -> Array:
        return np.matmul(a, b)

    def sum(self, z: Array) -> Array:
        return z.sum(axis=-1)

    def square(self, z: Array) -> Array:
        return z**2

    def shift(self, z: Array) -> Array:
        return 0
