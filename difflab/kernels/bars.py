"""Columns of cotangents, which share room in turn."""

from __future__ import annotations

from collections.abc import Callable

from difflab.primitives.operations import INPUTS, OPERATIONS, Instruction
from difflab.program import Program


class Bars:
    """A value's columns are taken when the last of its readers begins them in reverse, and given back when its maker
    has read them [linear scan: Poletto, Sarkar 1999].

    Parameters
    ----------
    program : whose values have cotangents.
    outputs : the value at which a reverse sweep starts.
    carried : of an instruction, the inputs whose cotangents it adds to.

    Attributes
    ----------
    of : the first column of every value that has a cotangent.
    columns : in all, with those in front that x has where nobody else has room for its cotangent.
    """

    def __init__(self, program: Program, outputs: int, carried: Callable[[Instruction], tuple[int, ...]]) -> None:
        self.of, self.columns = {INPUTS: 0}, program.n_inputs
        self._program, self._taken = program, dict[int, range]()
        self._take(outputs)
        for number, step in reversed(program.numbered):
            if number in self.of or OPERATIONS[step.operation].is_total:
                for value in carried(step):
                    self._take(value)
                self._taken.pop(number, None)

    def _take(self, value: int) -> None:
        """The first columns that are free, if the value has none."""
        if value in self.of:
            return
        width, taken = self._program.widths[value], self._taken.values()
        begins = [self._program.n_inputs, *(room.stop for room in taken)]
        begin = min(b for b in begins if all(b + width <= room.start or room.stop <= b for room in taken))
        self.of[value], self._taken[value] = begin, range(begin, begin + width)
        self.columns = max(self.columns, begin + width)
