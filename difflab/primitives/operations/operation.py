"""What is known of an operation: its row in the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from difflab.number_systems import Array, NumberSystem
from difflab.primitives.operations.instruction import Instruction


RULE_ROUNDINGS = 8
"""Roundings in a scalar rule, more than most ulp bounds in the tables stand for."""

Primal = Callable[[NumberSystem, Instruction, list[Array], list[Array]], Array]
Kinks = Callable[[Instruction, list[Array], list[Array]], list[Array]]


@dataclass(frozen=True)
class Rounded:
    """What an operation worked on, as a running error analysis knows it [Higham 2002, 3.3].

    Attributes
    ----------
    unit : unit roundoff of the arithmetic; with 0, errors are only passed on.
    textbook : whether formulas are those of the book, like 1 - a**2 or p - y, whose errors are absolute.
    inputs, errors : the values it read, each (batch, width), and bounds of their errors.
    parameters : arrays in their own shapes.
    value, error : what it made and, in the reverse pass, the bound of its error.
    """

    unit: float
    textbook: bool
    inputs: list[np.ndarray]
    errors: list[np.ndarray]
    parameters: list[np.ndarray]
    value: np.ndarray
    error: np.ndarray


@dataclass(frozen=True)
class Bars:
    """What an operation adds in the reverse pass.

    Attributes
    ----------
    inputs : for each input, None or cotangents and bounds of their errors, each (batch, width).
    parameters : for each parameter, bounds of the errors of its gradient, in its shape.
    """

    inputs: list[tuple[np.ndarray, np.ndarray] | None]
    parameters: list[np.ndarray]


@dataclass(frozen=True)
class Operation:
    """One kind of instruction in a program.

    Attributes
    ----------
    name : the word for it in programs.
    primal : ``(m, instruction, inputs, parameters) -> value`` over the number system ``m``; ``inputs`` are earlier
        values of shape (batch, width), ``parameters`` arrays in their own shapes.
    reach : which entries of an input an entry of the value depends on: the same ``"entry"``, all of the same
        ``"sample"``, or the same ``"column"``, that is, one unit in all samples of the batch.
    operations : ``(instruction, widths of the inputs) -> (forward, reverse)``: sums, products, powers and calls for
        one sample; in reverse with the cotangents of all inputs but x. Signs, comparisons, and adding what was found
        to a cotangent or to the gradient count nothing.
    forward_error : ``(instruction, rounded) -> error``: a first-order bound of what roundings do to the value.
    reverse_error : ``(instruction, rounded, bar, bar_error) -> bars``: likewise for cotangents.
    kinks : ``(instruction, inputs, parameters) -> distances``: arrays that are 0 where there is no derivative, each
        (batch, any), or of any shape if the operation is a total.
    constants : names of the constants of an instruction, in their order; some stand for one number per unit.
    shift : what becomes of a constant that is added to a unit in all samples: ``"removed"``, or ``"passed"`` on; None
        where it is neither. If it is either, the last parameter of the width of the value is such a shift itself.
    is_linear : whether the value is linear in its inputs, up to a constant.
    is_total : whether the value is one number for the whole batch that is added to the loss.
    """

    name: str
    primal: Primal
    reach: Literal["entry", "sample", "column"]
    operations: Callable[[Instruction, tuple[int, ...]], tuple[int, int]]
    forward_error: Callable[[Instruction, Rounded], np.ndarray]
    reverse_error: Callable[[Instruction, Rounded, np.ndarray, np.ndarray], Bars]
    kinks: Kinks = lambda instruction, inputs, parameters: []
    constants: tuple[str, ...] = ()
    shift: Literal["removed", "passed"] | None = None
    is_linear: bool = False
    is_total: bool = False

    @property
    def couples_samples(self) -> bool:
        return self.reach == "column"
