"""``scipy.differentiate.derivative``: differences whose step shrinks until two of them in a row agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from difflab.peers.entrywise import Answer, Peer


@dataclass(frozen=True, repr=False)
class ScipyDifferentiate(Peer):
    """SciPy with its own settings; it reports the change of the derivative by its last step.

    Parameters
    ----------
    order : order of the central differences, even
    """

    order: int = 8
    name = "scipy_differentiate"
    module = "scipy.differentiate"
    package = "scipy"
    flags = True

    def __post_init__(self) -> None:
        if self.order not in range(2, 21, 2):
            raise ValueError(f"order must be even and from 2 to 20, got {self.order!r}")

    def differentiate(self, f: Callable[[float], float], at: float) -> Answer:
        from scipy.differentiate import derivative

        found = derivative(np.vectorize(f, otypes=[float]), at, order=self.order)
        return Answer(float(found.df), float(found.error), bool(found.success))
