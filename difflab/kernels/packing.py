"""Factors of products packed as own loops go through them: panels of some lines, in each of them term after term.

A line is a row of the first factor or a column of the second one. A row of a panel has one term of all its lines.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from difflab.kernels import processor
from difflab.kernels.register_moves import moved, turned_block
from difflab.kernels.target import compiled


TOGETHER = 8
"""Panels that are filled side by side, so that what comes from memory at once is read at once."""


def packed_size(lines: int, width: int, terms: int) -> int:
    """Numbers of room that so many lines take in panels, the last of which may have lines left out."""
    return -(-lines // width) * width * terms


@cache
def packing(width: int, item: int) -> Any:
    """The function that packs lines, of numbers of so many bytes, in panels of ``width`` lines.

    Its arguments are the addresses of the panels and of the first line, the bytes from a line to the next and from a
    term to the next, then the number of lines and of terms. Either lines or terms must lie one number after the other.
    """
    side = min(processor.VECTOR // item, 1 << (width.bit_length() - 1))
    turn, move, move_one, panel_row = turned_block(side), moved(width), moved(1), width * item

    @compiled
    def one_by_one(packed, given, line_step, term_step, lines, terms, zero):
        for k in range(terms):
            for i in range(lines):
                move_one(packed + k * panel_row + i * item, given + i * line_step + k * term_step, zero)

    @compiled
    def turned(packed, given, line_step, lines, terms, zero):
        """One panel, in squares; the last of them go with some of what was turned before."""
        if lines < side or terms < side:
            one_by_one(packed, given, line_step, item, lines, terms, zero)
            return
        for k in range(0, terms, side):
            first_term = min(k, terms - side)
            for i in range(0, lines, side):
                first_line = min(i, lines - side)
                here = packed + first_term * panel_row + first_line * item
                turn(here, panel_row, given + first_line * line_step + first_term * item, line_step, zero)

    @compiled
    def side_by_side(packed, given, term_step, panels, terms, zero):
        for k in range(terms):
            here, there = packed + k * panel_row, given + k * term_step
            for _ in range(panels):
                move(here, there, zero)
                here, there = here + terms * panel_row, there + panel_row

    @compiled
    def pack(packed, given, line_step, term_step, lines, terms, zero):
        if term_step == item:
            for i in range(0, lines, width):
                turned(packed + i * terms * item, given + i * line_step, line_step, min(width, lines - i), terms, zero)
            return
        whole = lines // width
        for i in range(0, whole, TOGETHER):
            panels = min(TOGETHER, whole - i)
            side_by_side(packed + i * terms * panel_row, given + i * panel_row, term_step, panels, terms, zero)
        done = whole * width
        one_by_one(packed + done * terms * item, given + done * item, item, term_step, lines - done, terms, zero)

    return pack
