"""Lowering: a program under construction, to which layers append instructions and parameters."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from difflab.errors import known
from difflab.primitives.activations import ACTIVATIONS, Activation
from difflab.program import Instruction, Mask, Parameter


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


@dataclass
class Lowering:
    """A program under construction: the widths of all values, instructions, masks and parameters so far."""

    widths: dict[int, int]
    instructions: list[Instruction] = field(default_factory=list)
    masks: list[Mask] = field(default_factory=list)
    parameters: list[Parameter] = field(default_factory=list)
    n_params: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    n_masks: int = 0

    def name(self, kind: str, share: str | None = None) -> str:
        """The name of a layer: the one it shares its parameters under, or its kind and number."""
        self.counts[kind] += 1
        return share or f"{kind}{self.counts[kind]}"

    def parameter(self, name: str, shape: tuple[int, ...], start: float | None = None) -> Parameter:
        """A new slice at the end of theta, or the slice of that name if an earlier layer shares it."""
        for earlier in self.parameters:
            if earlier.name == name:
                return _shared(earlier, Parameter(name, earlier.offset, shape, start))
        made = Parameter(name, self.n_params, shape, start)
        self.parameters.append(made)
        self.n_params += made.size
        return made

    def append(self, operation: str, inputs: tuple[int, ...], width: int, **rest: Any) -> int:
        """Append an instruction and return the number of the value it makes."""
        number = 2 + self.n_masks + len(self.instructions)
        self.instructions.append(Instruction(operation, inputs, width, **rest))
        self.widths[number] = width
        return number

    def mask(self, width: int, p: float, seed: int) -> int:
        """A drawn value."""
        self.masks.append(Mask(width, p, seed))
        return 1 + len(self.masks)

    def affine(self, a: int, units: int, name: str, has_bias: bool = True) -> int:
        parameters = [self.parameter(f"{name}.weight", (units, self.widths[a]))]
        if has_bias:
            parameters.append(self.parameter(f"{name}.bias", (units,), 0.0))
        return self.append("affine", (a,), units, parameters=tuple(parameters))

    def activation(self, z: int, text: str, name: str, per_unit: bool = True) -> int:
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


def _shared(earlier: Parameter, wanted: Parameter) -> Parameter:
    if earlier != wanted:
        raise ValueError(
            f"layers that share {earlier.name} must agree in its shape and start, got {earlier.shape} from "
            f"{earlier.start} and {wanted.shape} from {wanted.start}; give them different names"
        )
    return earlier
