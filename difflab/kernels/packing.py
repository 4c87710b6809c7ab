"""Factors of products packed as own loops go through them: panels of some lines, in each of them term after term.

A line is a row of the first factor or a column of the second one.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from difflab.kernels import processor
from difflab.kernels.register_moves import moved, turned_block
from difflab.kernels.target import compiled


VECTOR = 64 if processor.has("avx512f") else 32
"""Bytes of a vector that is turned."""

TOGETHER = 8
"""Panels that are filled side by side, so that what lies in a line of the cache is read at once."""


@cache
def packing(width: int, item: int) -> Any:
    """The function that packs lines, of numbers of so many bytes, in panels of ``width`` lines.

    Its arguments are the addresses of the panels and of the first line, how many bytes a line and a term are further,
    one of which is the next number, then the number of lines and of terms. A last panel may have lines left out.
    """
    side, panel = min(VECTOR // item, 1 << width.bit_length() - 1), width * item
    turn, move, move_one = turned_block(side), moved(width), moved(1)

    @compiled
    def one_by_one(packed, given, line, term, lines, depth, zero):
        for k in range(depth):
            for i in range(lines):
                move_one(packed + k * panel + i * item, given + i * line + k * term, zero)

    @compiled
    def turned(packed, given, line, lines, depth, zero):
        """One panel, in squares; the last of them go with some of what was turned before."""
        if lines < side or depth < side:
            one_by_one(packed, given, line, item, lines, depth, zero)
            return
        for k in range(0, depth, side):
            term = min(k, depth - side)
            for i in range(0, lines, side):
                first = min(i, lines - side)
                here, there = packed + term * panel + first * item, given + first * line + term * item
                turn(here, panel, there, line, zero)

    @compiled
    def side_by_side(packed, given, term, panels, depth, zero):
        for k in range(depth):
            here, there = packed + k * panel, given + k * term
            for _ in range(panels):
                move(here, there, zero)
                here, there = here + depth * panel, there + panel

    @compiled
    def pack(packed, given, line, term, lines, depth, zero):
        if term == item:
            for i in range(0, lines, width):
                turned(packed + i * depth * item, given + i * line, line, min(width, lines - i), depth, zero)
            return
        whole = lines // width
        for i in range(0, whole, TOGETHER):
            side_by_side(packed + i * depth * panel, given + i * panel, term, min(TOGETHER, whole - i), depth, zero)
        done = whole * width
        one_by_one(packed + done * depth * item, given + done * item, item, term, lines - done, depth, zero)

    return pack
