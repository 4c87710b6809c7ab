"""What is known of an operation: its row in the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from difflab.number_systems import Array, NumberSystem
from difflab.primitives.operations.instruction import Instruction
from difflab.primitives.rounded import Rounded, Sum


Primal = Callable[[NumberSystem, Instruction, list[Array], list[Array]], Array]
Kinks = Callable[[Instruction, list[Array], list[Array]], list[Array]]


@dataclass(frozen=True)
class Bars:
    """What an operation adds in the reverse pass.

    Attributes
    ----------
    inputs : for each input, None or cotangents, each (batch, width).
    parameters : for each parameter, its gradient as sums, in its shape.
    """

    inputs: list[Rounded | None]
    parameters: list[Sum]


ForwardError = Callable[[Instruction, list[Rounded], list[Rounded]], Rounded]
ReverseError = Callable[[Instruction, list[Rounded], list[Rounded], Rounded, Rounded], Bars]


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
    forward_error : ``(instruction, inputs, parameters) -> value``: what the rule of back-propagation makes of inputs
        with errors, with a rigorous bound of the error.
    reverse_error : ``(instruction, inputs, parameters, value, bar) -> bars``: likewise in reverse, with the cotangent
        of the value.
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
    forward_error: ForwardError
    reverse_error: ReverseError
    kinks: Kinks = lambda instruction, inputs, parameters: []
    constants: tuple[str, ...] = ()
    shift: Literal["removed", "passed"] | None = None
    is_linear: bool = False
    is_total: bool = False

    @property
    def couples_samples(self) -> bool:
        return self.reach == "column"
