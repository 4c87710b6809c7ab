"""numdifftools: central differences at many steps, extrapolated, of which the one with the least error is taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from difflab.peers.entrywise import Answer, Peer


@dataclass(frozen=True, repr=False)
class Numdifftools(Peer):
    """numdifftools with its own settings; its ``Gradient`` is its ``Derivative`` along every parameter.

    Parameters
    ----------
    order : order of the central differences before they are extrapolated, even
    """

    order: int = 2
    name = "numdifftools"
    module = "numdifftools"
    package = "numdifftools"

    def __post_init__(self) -> None:
        if self.order not in range(2, 11, 2):
            raise ValueError(f"order must be even and from 2 to 10, got {self.order!r}")

    def differentiate(self, f: Callable[[float], float], at: float) -> Answer:
        from numdifftools import Derivative

        found = Derivative(f, order=self.order, full_output=True)(at)
        return Answer(float(found.estimate), float(found.error_estimate))
