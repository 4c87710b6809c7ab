"""jacobi: a polynomial in the squared step through central differences, read off at step 0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from difflab.peers.entrywise import Answer, Peer


@dataclass(frozen=True, repr=False)
class Jacobi(Peer):
    """jacobi with its own settings; what it reports is the standard deviation that its fit gives."""

    name = "jacobi"
    module = "jacobi"
    package = "jacobi"

    def differentiate(self, f: Callable[[float], float], at: float) -> Answer:
        from jacobi import jacobi

        derivative, error = jacobi(f, at)
        return Answer(float(derivative), float(error))
