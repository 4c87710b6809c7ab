"""SymPy expressions as numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from difflab.number_systems.vocabulary import Array, Exact


class Symbols(Exact):
    """SymPy expressions."""

    def __init__(self) -> None:
        import sympy

        def over(function: Callable[[Any], Any]) -> Callable[[Array], Array]:
            return np.frompyfunc(function, 1, 1)

        self.sqrt = over(sympy.sqrt)
        self.exp = over(sympy.exp)
        self.expm1 = over(lambda z: sympy.exp(z) - 1)
        self.log = over(sympy.log)
        self.sin = over(sympy.sin)
        self.cos = over(sympy.cos)
        self.tanh = over(sympy.tanh)
        self.erfc = over(sympy.erfc)
        self.xlogx = over(lambda z: sympy.Piecewise((0, z <= 0), (z * sympy.log(z), True)))
        self.expit = over(lambda z: 1 / (1 + sympy.exp(-z)))
        self.log1pexp = over(lambda z: sympy.log(1 + sympy.exp(z)))
        self.positive_part = over(lambda z: sympy.Piecewise((0, z <= 0), (z, True)))
        self.negative_part = over(lambda z: sympy.Piecewise((z, z <= 0), (0, True)))
        self._larger = lambda a, b: sympy.Piecewise((a, b <= a), (b, True))
        self._exact = over(sympy.Rational)
        self._add = sympy.Add

    def array(self, values: Array) -> Array:
        """Symbols as they are, floats as the rational numbers that they are."""
        values = np.asarray(values)
        return values if values.dtype == object else self._exact(values)

    def matmul(self, a: Array, b: Array) -> Array:
        return self.sum(a[:, None, :] * b.T[None, :, :])

    def sum(self, z: Array) -> Array:
        """One n-ary sum: adding term by term would sort the growing sum again each time."""
        flat = np.empty(z.shape[:-1], object)
        for index in np.ndindex(flat.shape):
            flat[index] = self._add(*z[index])
        return flat if flat.shape else flat.item()

    def maximum(self, z: Array) -> Array:
        return np.frompyfunc(lambda *row: reduce(self._larger, row), z.shape[-1], 1)(*np.moveaxis(z, -1, 0))
