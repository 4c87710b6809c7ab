"""What compiled sweeps do for one instruction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple


Kind = Literal["value", "gradient", "jvp", "vjp", "hvp", "gauss_newton"]
"""What a sweep is run for."""

Step = Callable[..., None]
"""``(row, state, zero)``: words of a row and of a state [layout], and a zero of the numbers of the arrays."""


class Rule(NamedTuple):
    """The steps of one instruction; None where there is nothing to do.

    Attributes
    ----------
    forward : makes the value.
    tangent : makes the tangent of the value, after the value.
    reverse : adds to cotangents of inputs and to the gradient of parameters.
    reverse_tangent : adds to the tangents of both, after ``reverse``.
    carries : how many of the inputs, from the first, have cotangents; masks and targets have none.
    rereads : whether the reverse steps read the value that was made, so that it may not be written over.
    """

    forward: Step | None = None
    tangent: Step | None = None
    reverse: Step | None = None
    reverse_tangent: Step | None = None
    carries: int = 2
    rereads: bool = False
