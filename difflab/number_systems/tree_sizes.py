"""Sizes of expression trees as numbers."""

from __future__ import annotations

import operator
from functools import reduce

import numpy as np

from difflab.number_systems.vocabulary import Array, Exact, elementwise


class TreeSize:
    """The operation count of an expression as it is written, as a tree, without writing it out.

    The convention is that of :mod:`difflab.counting`. Integers are exact at any size.

    Attributes
    ----------
    is_reciprocal : whether it is one by something: a factor beside it makes that a quotient, which is one operation.
    """

    __slots__ = ("is_reciprocal", "operations")

    def __init__(self, operations: int = 0, is_reciprocal: bool = False) -> None:
        self.operations = operations
        self.is_reciprocal = is_reciprocal

    def _join(self, other: object) -> TreeSize:
        if isinstance(other, np.ndarray):
            return NotImplemented
        return TreeSize(self.operations + 1 + (other.operations if isinstance(other, TreeSize) else 0))

    __add__ = __radd__ = __rsub__ = _join

    def __sub__(self, other: object) -> TreeSize:
        if isinstance(other, np.ndarray):
            return NotImplemented
        return self if isinstance(other, int) and other == 0 else self._join(other)

    def __mul__(self, other: object) -> TreeSize:
        if isinstance(other, np.ndarray):
            return NotImplemented
        of_other = isinstance(other, TreeSize) and other.is_reciprocal
        made = self._join(other).operations - (self.is_reciprocal or of_other)
        return TreeSize(made, self.is_reciprocal and of_other)

    __rmul__ = __mul__

    def __pow__(self, other: object) -> TreeSize:
        """The sign of a power is no operation."""
        if isinstance(other, np.ndarray):
            return NotImplemented
        return TreeSize(self._join(other).operations - self.is_reciprocal)

    def __truediv__(self, other: object) -> TreeSize:
        """By a reciprocal, a product."""
        if isinstance(other, np.ndarray):
            return NotImplemented
        by_reciprocal = isinstance(other, TreeSize) and other.is_reciprocal
        return TreeSize(self._join(other).operations - by_reciprocal, self.is_reciprocal)

    def __rtruediv__(self, other: object) -> TreeSize:
        return TreeSize(self.operations + 1, isinstance(other, int) and other == 1)

    def __neg__(self) -> TreeSize:
        return self


class TreeSizes(Exact):
    """Sizes of expression trees as numbers."""

    def array(self, values: Array) -> Array:
        return np.full(np.shape(values), TreeSize())

    def matmul(self, a: Array, b: Array) -> Array:
        """The sizes of the sums of products, without forming a product."""
        inner = a.shape[1]
        rows, columns = (_as_factor(a).sum(axis=1), _as_factor(b).sum(axis=0))
        return np.frompyfunc(TreeSize, 1, 1)(rows[:, None] + columns + inner + (inner - 1))

    def sum(self, z: Array) -> Array:
        return reduce(operator.add, np.moveaxis(z, -1, 0))

    exp = elementwise(lambda z: TreeSize(z.operations + 1))
    sqrt = log = sin = cos = tanh = erfc = exp
    expm1 = elementwise(lambda z: TreeSize(z.operations + 2))
    expit = elementwise(lambda z: TreeSize(z.operations + 3, is_reciprocal=True))
    log1pexp = elementwise(lambda z: TreeSize(z.operations + 3))
    xlogx = elementwise(lambda z: TreeSize(2 * z.operations + 2))
    positive_part = negative_part = elementwise(lambda z: z)

    def maximum(self, z: Array) -> Array:
        """Choices among all entries of a row, of which none is an operation."""
        return np.frompyfunc(TreeSize, 1, 1)(_operations(z).sum(axis=-1))


_operations = elementwise(operator.attrgetter("operations"))
_as_factor = elementwise(lambda z: z.operations - z.is_reciprocal)
"""Of a factor beside one that is no reciprocal."""
