"""Sizes of expression trees as numbers."""

from __future__ import annotations

import operator
from functools import reduce

import numpy as np

from difflab.number_systems.vocabulary import Array, Exact, elementwise


class TreeSize:
    """The operation count of an expression written out as a tree, without writing it out.

    The convention is that of :mod:`difflab.counting`. Integers are exact at any size.
    """

    __slots__ = ("operations",)

    def __init__(self, operations: int = 0) -> None:
        self.operations = operations

    def _join(self, other: object) -> TreeSize:
        if isinstance(other, np.ndarray):
            return NotImplemented
        return TreeSize(self.operations + 1 + (other.operations if isinstance(other, TreeSize) else 0))

    __add__ = __radd__ = __rsub__ = __mul__ = __rmul__ = __pow__ = __truediv__ = __rtruediv__ = _join

    def __sub__(self, other: object) -> TreeSize:
        if isinstance(other, np.ndarray):
            return NotImplemented
        return self if isinstance(other, int) and other == 0 else self._join(other)

    def __neg__(self) -> TreeSize:
        return self


class TreeSizes(Exact):
    """Sizes of expression trees as numbers."""

    def array(self, values: Array) -> Array:
        return np.full(np.shape(values), TreeSize())

    def matmul(self, a: Array, b: Array) -> Array:
        """The sizes of the sums of products, without forming a product."""
        inner = a.shape[1]
        sizes = _operations(a).sum(axis=1)[:, None] + _operations(b).sum(axis=0) + inner + (inner - 1)
        return np.frompyfunc(TreeSize, 1, 1)(sizes)

    def sum(self, z: Array) -> Array:
        return reduce(operator.add, np.moveaxis(z, -1, 0))

    exp = elementwise(lambda z: TreeSize(z.operations + 1))
    sqrt = log = sin = cos = tanh = erfc = exp
    expm1 = elementwise(lambda z: TreeSize(z.operations + 2))
    expit = log1pexp = elementwise(lambda z: TreeSize(z.operations + 3))
    xlogx = elementwise(lambda z: TreeSize(2 * z.operations + 2))
    positive_part = negative_part = elementwise(lambda z: z)

    def maximum(self, z: Array) -> Array:
        """Choices among all entries of a row, of which none is an operation."""
        return np.frompyfunc(TreeSize, 1, 1)(_operations(z).sum(axis=-1))


_operations = elementwise(operator.attrgetter("operations"))
