"""Layer-level operations: one row each, in the table ``OPERATIONS``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from difflab.number_systems import Array, NumberSystem
from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.losses import LOSSES


@dataclass(frozen=True)
class Operation:
    """One kind of instruction in a program.

    Attributes
    ----------
    name : the word for it in programs.
    primal : ``(m, inputs, parameters, function) -> value`` over the number system ``m``; ``inputs`` are earlier
        values of shape (batch, width), ``parameters`` arrays in their own shapes, ``function`` the name of the
        activation or loss, where there is one.
    """

    name: str
    primal: Callable[[NumberSystem, list[Array], list[Array], Any], Array]


def affine(m: NumberSystem, inputs: list[Array], parameters: list[Array], function: None) -> Array:
    """z = W a + b for every row a; W : (out, in), b : (out,)."""
    (a,), (weight, bias) = inputs, parameters
    return m.matmul(a, weight.T) + bias


def activation(m: NumberSystem, inputs: list[Array], parameters: list[Array], function: str) -> Array:
    (z,) = inputs
    return ACTIVATIONS[function].expression(m, z)


def loss(m: NumberSystem, inputs: list[Array], parameters: list[Array], function: str) -> Array:
    """The losses of the samples; shape (batch,)."""
    z, y = inputs
    return LOSSES[function].expression(m, z, y)


OPERATIONS = {
    row.name: row for row in (Operation("affine", affine), Operation("activation", activation), Operation("loss", loss))
}
