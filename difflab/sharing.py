"""Where derivatives of expressions share what they have in common, and in which order they are accumulated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from difflab.errors import known


Sharing = Literal["none", "after", "during", "layerwise"]
SHARING: tuple[Sharing, ...] = ("none", "after", "during", "layerwise")

Order = Literal["reverse", "forward"]
ORDERS: tuple[Order, ...] = ("reverse", "forward")


@dataclass(frozen=True)
class Way:
    """How a loss is differentiated.

    Attributes
    ----------
    sharing : where subexpressions come to be shared. ``"none"``: every derivative is an expression by itself, a tree;
        ``"after"``: common subexpressions of all derivatives are found when these are there; ``"during"``: every
        operation has a name and is differentiated by itself; ``"layerwise"``: so is every operation of a layer, by its
        Jacobian.
    order : ``"reverse"`` or ``"forward"``, in which the last two apply the chain rule.

    Raises
    ------
    ValueError
        If one is unknown, or there is no chain rule to apply in forward order.
    """

    sharing: Sharing = "after"
    order: Order = "reverse"

    def __post_init__(self) -> None:
        known(self.sharing, SHARING, "sharing")
        known(self.order, ORDERS, "order")
        if self.order == "forward" and not self.is_accumulated:
            raise ValueError(f"order must be 'reverse' for sharing {self.sharing!r}, got 'forward'")

    @property
    def is_accumulated(self) -> bool:
        """Whether intermediate results have names while derivatives are formed."""
        return self.sharing in ("during", "layerwise")


AFTER = Way()
