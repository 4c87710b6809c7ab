"""Programs: the short Wengert list that a network is lowered to, and its primal over any number system."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from difflab.number_systems import Array, NumberSystem
from difflab.primitives.operations import INPUTS, OPERATIONS, TARGETS, Instruction, Parameter


@dataclass(frozen=True)
class Mask:
    """Zeros and ones drawn for each sample: zero with probability ``p``, from a seed of their own."""

    width: int
    p: float
    seed: int

    def draw(self, batch: int) -> np.ndarray:
        """(batch, width) float64, read-only; the same rows for the first samples of any batch."""
        return _drawn(self, batch)


@lru_cache(maxsize=32)
def _drawn(mask: Mask, batch: int) -> np.ndarray:
    """Kept, as finite differences ask for it once per parameter."""
    drawn = (np.random.default_rng(mask.seed).random((batch, mask.width)) >= mask.p).astype(np.float64)
    drawn.flags.writeable = False
    return drawn


@dataclass(frozen=True)
class Program:
    """Instructions in order of evaluation.

    Value 0 is x, value 1 is y, then come the masks, then what each instruction makes. One instruction is the loss of
    each sample; those after it, if any, are totals that are added to the loss of the batch.
    """

    instructions: tuple[Instruction, ...]
    n_inputs: int
    n_outputs: int
    reduction: str
    masks: tuple[Mask, ...] = ()

    @property
    def n_given(self) -> int:
        """How many values there are before the first instruction."""
        return 2 + len(self.masks)

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """The width of every value."""
        given = (self.n_inputs, self.n_outputs, *(mask.width for mask in self.masks))
        return given + tuple(instruction.width for instruction in self.instructions)

    @property
    def numbered(self) -> list[tuple[int, Instruction]]:
        """Every instruction with the number of the value it makes."""
        return list(enumerate(self.instructions, self.n_given))

    @cached_property
    def totals(self) -> tuple[int, ...]:
        """The values that are added to the loss of the batch."""
        return tuple(number for number, step in self.numbered if OPERATIONS[step.operation].is_total)

    @property
    def losses(self) -> int:
        """The value that holds the loss of each sample."""
        return len(self.widths) - len(self.totals) - 1

    @property
    def outputs(self) -> int:
        """The value that the loss reads as the outputs of the network."""
        return self.instructions[self.losses - self.n_given].inputs[0]

    @cached_property
    def up_to_outputs(self) -> Program:
        """The same program without loss and totals; its last value are the outputs."""
        return replace(self, instructions=self.instructions[: max(0, self.outputs - self.n_given + 1)])

    @cached_property
    def without_totals(self) -> Program:
        """The same program without what is added to the loss of the batch."""
        return replace(self, instructions=self.instructions[: self.losses - self.n_given + 1])

    @cached_property
    def couples_samples(self) -> bool:
        """Whether the loss of a sample depends on the other samples of its batch."""
        return any(OPERATIONS[instruction.operation].couples_samples for instruction in self.instructions)

    def draw_masks(self, batch: int) -> list[np.ndarray]:
        """The masks of a batch, each (batch, width)."""
        return [mask.draw(batch) for mask in self.masks]

    def divisor(self, batch: int) -> int:
        """What the sum of the losses is divided by."""
        return batch if self.reduction == "mean" else 1


def values(
    program: Program,
    m: NumberSystem,
    theta: Array,
    x: Array,
    y: Array,
    masks: list[Array] | None = None,
    kept: Callable[[Array], Array] = lambda value: value,
) -> list[Array]:
    """Every value of the program, ``[x, y, *masks, ...]``; that of the loss has shape (batch,), totals shape ().

    Parameters
    ----------
    theta : (n_params,) array of numbers of ``m``
    x : (batch, n_inputs) array of numbers of ``m``
    y : (batch, n_outputs) array of numbers of ``m``
    masks : (batch, width) arrays of numbers of ``m``, if not those that the program draws
    kept : what is kept of the value that an instruction makes, and read by later ones
    """
    made = [x, y, *(map(m.array, program.draw_masks(len(x))) if masks is None else masks)]
    for instruction in program.instructions:
        inputs = [made[i] for i in instruction.inputs]
        parameters = [parameter.of(theta) for parameter in instruction.parameters]
        made.append(kept(OPERATIONS[instruction.operation].primal(m, instruction, inputs, parameters)))
    return made


def total(program: Program, m: NumberSystem, made: list[Array]) -> Array:
    """The loss of a batch from all values of the program."""
    losses = made[program.losses]
    parts = program.divisor(len(losses))
    loss = m.sum(losses) if parts == 1 else m.sum(losses) / parts
    return sum((made[number] for number in program.totals), start=loss)


def primal(
    program: Program, m: NumberSystem, theta: Array, x: Array, y: Array, masks: list[Array] | None = None
) -> Array:
    """The loss of a batch as one number of the system ``m``; arguments as for :func:`values`."""
    return total(program, m, values(program, m, theta, x, y, masks))


__all__ = ["INPUTS", "TARGETS", "Instruction", "Mask", "Parameter", "Program", "primal", "total", "values"]
