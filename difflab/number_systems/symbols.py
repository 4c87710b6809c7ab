"""SymPy expressions as numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from difflab.number_systems.vocabulary import Array, Exact


class Symbols(Exact):
    """SymPy expressions."""

    def __init__(self) -> None:
        import sympy

        def over(function: Callable[[Any], Any]) -> Callable[[Array], Array]:
            return np.frompyfunc(function, 1, 1)

        self.exp = over(sympy.exp)
        self.log = over(sympy.log)
        self.tanh = over(sympy.tanh)
        self.expit = over(lambda z: 1 / (1 + sympy.exp(-z)))
        self.log1pexp = over(lambda z: sympy.log(1 + sympy.exp(z)))
        self.positive_part = over(lambda z: sympy.Piecewise((0, z <= 0), (z, True)))
        self._add = sympy.Add

    def matmul(self, a: Array, b: Array) -> Array:
        return self.sum(a[:, None, :] * b.T[None, :, :])

    def sum(self, z: Array) -> Array:
        """One n-ary sum: adding term by term would sort the growing sum again each time."""
        flat = np.empty(z.shape[:-1], object)
        for index in np.ndindex(flat.shape):
            flat[index] = self._add(*z[index])
        return flat if flat.shape else flat.item()
