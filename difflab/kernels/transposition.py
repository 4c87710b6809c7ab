"""Matrices with their rows as columns."""

from __future__ import annotations

import numba

from difflab.kernels.layout import matrix
from difflab.kernels.processor import LINE
from difflab.kernels.register_moves import joined, parted, turned_block
from difflab.kernels.target import compiled


SIDE = 4
"""Rows and columns of what is turned in registers."""

_turn = turned_block(SIDE)
_part_two, _part_three, _join_two, _join_three = parted(2), parted(3), joined(2), joined(3)

if numba.config.DISABLE_JIT:

    def transpose(out, given, rows, columns, item, zero) -> None:
        matrix(out, columns, rows, zero)[:] = matrix(given, rows, columns, zero).T

else:

    @compiled
    def transpose(out, given, rows, columns, item, zero):
        """The matrix (rows, columns) at the address ``given`` as (columns, rows) at ``out``; both in C order, apart.

        What is left over at an end goes with some of what was turned before.
        """
        lanes = LINE // item
        if rows >= SIDE and columns >= SIDE:
            _in_squares(out, given, rows, columns, item, zero)
        elif 1 < columns < SIDE and rows >= lanes:
            for i in range(0, rows, lanes):
                row = min(i, rows - lanes)
                there, here = out + row * item, given + row * columns * item
                if columns == 2:
                    _part_two(there, rows * item, here, zero)
                else:
                    _part_three(there, rows * item, here, zero)
        elif 1 < rows < SIDE and columns >= lanes:
            for k in range(0, columns, lanes):
                column = min(k, columns - lanes)
                there, here = out + column * rows * item, given + column * item
                if rows == 2:
                    _join_two(there, here, columns * item, zero)
                else:
                    _join_three(there, here, columns * item, zero)
        else:
            _one_by_one(matrix(out, columns, rows, zero), matrix(given, rows, columns, zero))

    @compiled
    def _in_squares(out, given, rows, columns, item, zero):
        for i in range(0, rows, SIDE):
            row = min(i, rows - SIDE)
            for k in range(0, columns, SIDE):
                column = min(k, columns - SIDE)
                there, here = (column * rows + row) * item, (row * columns + column) * item
                _turn(out + there, rows * item, given + here, columns * item, zero)

    @compiled
    def _one_by_one(out, given):
        rows, columns = given.shape
        for k in range(columns):
            for i in range(rows):
                out[k, i] = given[i, k]
