"""Ways to differentiate expressions: where these share what they have in common, in which order, by which library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from difflab.errors import known


Sharing = Literal["none", "after", "during", "layerwise"]
SHARING: tuple[Sharing, ...] = ("none", "after", "during", "layerwise")

Order = Literal["reverse", "forward"]
ORDERS: tuple[Order, ...] = ("reverse", "forward")

Simplification = Literal["none", "factor_terms", "simplify", "horner"]
SIMPLIFICATIONS: tuple[Simplification, ...] = ("none", "factor_terms", "simplify", "horner")

Engine = Literal["sympy", "symengine"]
ENGINES: tuple[Engine, ...] = ("sympy", "symengine")


@dataclass(frozen=True)
class Way:
    """How a loss is differentiated.

    Attributes
    ----------
    sharing : where subexpressions come to be shared. ``"none"``: every derivative is an expression by itself, a tree;
        ``"after"``: common subexpressions of all derivatives are found when these are there; ``"during"``: every
        operation on numbers has a name and is differentiated by itself; ``"layerwise"``: every operation of the program
        is, its Jacobian being derived entry by entry, and Jacobians are chained.
    order : ``"reverse"`` or ``"forward"``, in which the last two apply the chain rule.
    simplification : what SymPy makes of the loss and of every derivative before common subexpressions are found:
        nothing, ``"factor_terms"``, ``"simplify"``, or ``"horner"``, polynomials in Horner's form.
    engine : what differentiates, ``"sympy"`` or ``"symengine"``.

    Raises
    ------
    ValueError
        If one is unknown; if the order is ``"forward"`` for the first two ways to share, which apply no chain rule; or
        if there is a simplification or another engine for the last two, whose single operations leave nothing to it.
    """

    sharing: Sharing = "after"
    order: Order = "reverse"
    simplification: Simplification = "none"
    engine: Engine = "sympy"

    def __post_init__(self) -> None:
        known(self.sharing, SHARING, "sharing")
        known(self.order, ORDERS, "order")
        if self.order == "forward" and not self.is_accumulated:
            raise ValueError(f"order must be 'reverse' for sharing {self.sharing!r}, got 'forward'")
        known(self.simplification, SIMPLIFICATIONS, "simplification")
        known(self.engine, ENGINES, "engine")
        for name, usual in (("simplification", "none"), ("engine", "sympy")):
            if self.is_accumulated and (got := getattr(self, name)) != usual:
                raise ValueError(f"{name} must be {usual!r} for sharing {self.sharing!r}, got {got!r}")
        if self.engine != "sympy" and self.simplification != "none":
            raise ValueError(f"simplification must be 'none' for engine {self.engine!r}, got {self.simplification!r}")

    @property
    def is_accumulated(self) -> bool:
        """Whether intermediate results have names while derivatives are formed."""
        return self.sharing in ("during", "layerwise")

    @property
    def shares_afterwards(self) -> bool:
        """Whether SymPy looks for common subexpressions; another engine has found them when derivatives are there."""
        return self.sharing == "after" and self.engine == "sympy"


AFTER = Way()
