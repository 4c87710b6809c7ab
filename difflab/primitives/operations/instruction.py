"""One step of a program: an operation with what it reads."""

from __future__ import annotations

import math
from dataclasses import dataclass

from difflab.number_systems import Array


INPUTS, TARGETS = 0, 1
"""The values that every program starts from."""


@dataclass(frozen=True)
class Parameter:
    """A named slice of theta, in C order; ``start`` is its initial value, or None where weights are drawn."""

    name: str
    offset: int
    shape: tuple[int, ...]
    start: float | None = None

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def is_weight(self) -> bool:
        """Whether it multiplies inputs of a layer: what is drawn at the start, and what penalties see."""
        return self.start is None

    def of(self, theta: Array) -> Array:
        """The parameter as a view of ``theta`` in its own shape."""
        return theta[self.offset : self.offset + self.size].reshape(self.shape)


@dataclass(frozen=True)
class Instruction:
    """One operation on earlier values.

    Attributes
    ----------
    operation : a name in ``OPERATIONS``.
    inputs : numbers of the values it reads.
    width : width of the value it makes.
    parameters : the slices of theta it reads.
    function : name of the activation or loss, where there is one.
    constants : numbers that are part of the network, in an order that the operation knows.
    """

    operation: str
    inputs: tuple[int, ...]
    width: int
    parameters: tuple[Parameter, ...] = ()
    function: str | None = None
    constants: tuple[float, ...] = ()
