"""Matrices with their rows as columns."""

from __future__ import annotations

import numba

from difflab.kernels.layout import array, matrix
from difflab.kernels.register_tiles import turned_block
from difflab.kernels.target import compiled


SIDE = 4
"""Rows and columns of what is turned in registers."""

_turn = turned_block(SIDE)

if numba.config.DISABLE_JIT:

    def transpose(out, given, rows, columns, item, zero) -> None:
        matrix(out, columns, rows, zero)[:] = matrix(given, rows, columns, zero).T

else:

    @compiled
    def transpose(out, given, rows, columns, item, zero):
        """The matrix (rows, columns) at the address ``given`` as (columns, rows) at ``out``; both in C order, apart.

        What is left over at an end goes with some of what was turned before.
        """
        if rows < SIDE or columns < SIDE:
            _one_by_one(array(out, rows * columns, zero), array(given, rows * columns, zero), rows, columns)
            return
        for i in range(0, rows, SIDE):
            row = min(i, rows - SIDE)
            for k in range(0, columns, SIDE):
                column = min(k, columns - SIDE)
                there, here = (column * rows + row) * item, (row * columns + column) * item
                _turn(out + there, rows * item, given + here, columns * item, zero)

    @compiled
    def _one_by_one(out, given, rows, columns):
        for k in range(columns):
            for i in range(rows):
                out[k * rows + i] = given[i * columns + k]
