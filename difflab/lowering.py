"""Lowering: a program under construction, to which layers append instructions and parameters."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from difflab.errors import known
from difflab.primitives.activations import ACTIVATIONS, Activation
from difflab.program import INPUTS, TARGETS, Instruction, Mask, Parameter


ACTIVATION_TEXT = re.compile(r"\s*(\w+)\s*(?:\((.*)\))?\s*")


def activation_and_parameter(text: str) -> tuple[Activation, float]:
    """The row that ``"tanh"`` or ``"leaky_relu(0.2)"`` names, and its parameter.

    Raises
    ------
    TypeError
        If ``text`` is no text.
    ValueError
        If the name is unknown, or the number in brackets is none or has no place there.
    """
    if not isinstance(text, str):
        raise TypeError(f"activation must be a name like 'tanh' or 'leaky_relu(0.2)', got {text!r}")
    match = ACTIVATION_TEXT.fullmatch(text)
    row = ACTIVATIONS[known(match[1] if match else text, ACTIVATIONS, "activation")]
    if match is None or match[2] is None:
        return row, row.start
    if row.parameter is None:
        raise ValueError(f"activation {row.name!r} takes no parameter, got {text!r}; write {row.name!r}")
    try:
        number = float(match[2])
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        expected = f"{row.parameter} of {row.name} must be a finite number"
        raise ValueError(f"{expected}, got {text!r}; write '{row.name}(0.5)'")
    return row, number


class Misfit(ValueError):
    """A layer that cannot follow those before it.

    Attributes
    ----------
    place : its index, after those of the residual layers that it is within.
    """

    def __init__(self, message: str, place: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.place = place


@dataclass
class Record:
    """What a layer was lowered to.

    Attributes
    ----------
    place : its index, after those of the residual layers that it is within.
    name : what its parameters are named after.
    made : where its instructions are, with those of the layers within it.
    width : of its output.
    """

    layer: Any
    place: tuple[int, ...]
    name: str = ""
    made: range = range(0)
    width: int = 0

    @property
    def depth(self) -> int:
        """How many residual layers it is within."""
        return len(self.place) - 1


@dataclass
class Lowering:
    """A program under construction: the widths of all values, instructions, masks and parameters so far.

    As later layers may draw more masks, these have negative numbers until the program is :meth:`numbered`.

    Attributes
    ----------
    records : of every layer, those within a residual layer after it.
    place : that of the layer under way.
    """

    widths: dict[int, int]
    instructions: list[Instruction] = field(default_factory=list)
    masks: list[Mask] = field(default_factory=list)
    parameters: list[Parameter] = field(default_factory=list)
    n_params: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    records: list[Record] = field(default_factory=list)
    place: tuple[int, ...] = ()

    def layer(self, layer: Any, index: int, a: int) -> int:
        """Lower a layer that reads value ``a``, and keep a record of it; return its output value."""
        outer, start = self.place, len(self.instructions)
        self.place = (*outer, index)
        record = Record(layer, self.place)
        self.records.append(record)
        end = layer.lower(self, a)
        record.made, record.width = range(start, len(self.instructions)), self.widths[end]
        self.place = outer
        return end

    def name(self, kind: str, share: str | None = None) -> str:
        """Name the layer that was begun last: the name it shares its parameters under, or its kind and number."""
        self.counts[kind] += 1
        self.records[-1].name = share or f"{kind}{self.counts[kind]}"
        return self.records[-1].name

    def misfit(self, message: str) -> Misfit:
        """The error that says why the layer under way does not fit."""
        return Misfit(message, self.place)

    def parameter(self, name: str, shape: tuple[int, ...], start: float | None = None) -> Parameter:
        """A new slice at the end of theta, or the slice of that name if an earlier layer shares it."""
        for earlier in self.parameters:
            if earlier.name == name:
                return self._shared(earlier, Parameter(name, earlier.offset, shape, start))
        made = Parameter(name, self.n_params, shape, start)
        self.parameters.append(made)
        self.n_params += made.size
        return made

    def _shared(self, earlier: Parameter, wanted: Parameter) -> Parameter:
        if earlier != wanted:
            raise self.misfit(
                f"layers that share {earlier.name} must agree in its shape and start, got {earlier.shape} from "
                f"{earlier.start} and {wanted.shape} from {wanted.start}; give them different names"
            )
        return earlier

    def append(self, operation: str, inputs: tuple[int, ...], width: int, **rest: Any) -> int:
        """Append an instruction and return the number of the value it makes."""
        number = 2 + len(self.instructions)
        self.instructions.append(Instruction(operation, inputs, width, **rest))
        self.widths[number] = width
        return number

    def mask(self, width: int, p: float, seed: int) -> int:
        """A drawn value."""
        self.masks.append(Mask(width, p, seed))
        return -len(self.masks)

    def numbered(self) -> tuple[Instruction, ...]:
        """The instructions in the numbers of a program, where masks come before all that is made."""
        return tuple(replace(step, inputs=tuple(map(self._number, step.inputs))) for step in self.instructions)

    def _number(self, value: int) -> int:
        if value < 0:
            return 1 - value
        return value if value in (INPUTS, TARGETS) else value + len(self.masks)

    def affine(self, a: int, units: int, name: str, has_bias: bool = True) -> int:
        """Append W a + b, or W a, with a new weight and bias of this name; return its value."""
        parameters = [self.parameter(f"{name}.weight", (units, self.widths[a]))]
        if has_bias:
            parameters.append(self.parameter(f"{name}.bias", (units,), 0.0))
        return self.append("affine", (a,), units, parameters=tuple(parameters))

    def activation(self, z: int, text: str, name: str, per_unit: bool = True) -> int:
        """Append the activation that ``text`` names, nothing for the identity; return its value.

        A learnable parameter is called after ``name``, one for each unit or, without ``per_unit``, one for all.
        """
        row, number = activation_and_parameter(text)
        if row.name == "identity":
            return z
        width, rest = self.widths[z], dict[str, Any]()
        if row.is_learnable:
            shape = (width if per_unit else 1,)
            rest["parameters"] = (self.parameter(f"{name}.{row.parameter}", shape, number),)
        elif row.parameter is not None:
            rest["constants"] = (number,)
        return self.append("activation", (z,), width, function=row.name, **rest)
