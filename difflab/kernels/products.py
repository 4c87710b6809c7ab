"""Products of matrices added to what is there: by own loops in strict order, or by BLAS.

Own loops keep a tile of the result in registers and go through the terms of every entry one after the other, so many
at a time, from zero [Goto, van de Geijn 2008]; such sums are then added, which keeps errors of long ones small. So bits
do not depend on the width of vectors, nor on where an entry lies.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numba

from difflab.kernels import processor
from difflab.kernels.blas_products import by_blas
from difflab.kernels.layout import array, matrix
from difflab.kernels.packing import packed_size, packing
from difflab.kernels.register_tiles import HAS_MASKS, Shape, tile_of
from difflab.kernels.target import compiled, inlined


IS_WIDE = processor.VECTOR == 64
"""Whether vectors are of 512 bits, of which there are 32 then, and not 16."""

HEIGHTS = (12, 8, 4, 3, 2, 1) if IS_WIDE else (6, 4, 3, 2, 1)
"""Rows of tiles of a result in registers; the first for most of it."""

ROWS = HEIGHTS[0]


def _widths(most: int) -> tuple[int, ...]:
    return tuple(sorted({most, most // 2, *(() if HAS_MASKS else (most // 4, 2, 1))}, reverse=True))


WIDTHS = {item: _widths(2 * processor.VECTOR // item) for item in (8, 4)}
"""Columns of such tiles, by the bytes of a number: as many as two vectors of the widest have, then as many as one has.
What is left over is part of one with masks, and has further widths without."""

DEPTH = 512
"""Terms that are gone through at a time: so many of a strip of columns stay in the first cache, or next to it."""

HEIGHT = 48
"""Rows that are gone through at a time: so many, of ``DEPTH`` terms, stay in the second cache."""

ALIAS = 1024
"""Rows at multiples of so many bytes meet in a few sets of the first cache."""

RESIDENT = 1 << 16
"""Bytes up to which a factor is read as it lies, if it can be: it comes from the second cache in time, and packing
takes longer. A turned second factor is always packed, a first one that is not turned only where its rows meet."""


@cache
def _strip(width: int, is_partial: bool, fused: bool) -> Any:
    """The function that makes all rows of one strip of columns."""
    tile, rest = tile_of(Shape(ROWS, width, is_partial), fused), _rest(HEIGHTS[1:], width, is_partial, fused)

    @compiled
    def strip(
        out, pitch, start, start_row, left, panel, left_row, left_term, right, right_term, rows, terms, columns, zero
    ):
        for _ in range(rows // ROWS):
            tile(out, pitch, start, start_row, left, left_row, left_term, right, right_term, terms, columns, zero)
            out, start, left = out + ROWS * pitch, start + ROWS * start_row, left + panel
        rows %= ROWS
        rest(out, pitch, start, start_row, left, left_row, left_term, right, right_term, rows, terms, columns, zero)

    return strip


@cache
def _rest(heights: tuple[int, ...], width: int, is_partial: bool, fused: bool) -> Any:
    """The function that makes what rows are left over, in tiles as high as can be."""
    height, *lower = heights
    tile, is_last = tile_of(Shape(height, width, is_partial), fused), not lower
    following = None if is_last else _rest(tuple(lower), width, is_partial, fused)

    @inlined
    def rest(out, pitch, start, start_row, left, left_row, left_term, right, right_term, rows, terms, columns, zero):
        if rows >= height:
            tile(out, pitch, start, start_row, left, left_row, left_term, right, right_term, terms, columns, zero)
            out, start, left = out + height * pitch, start + height * start_row, left + height * left_row
            rows -= height
        if not is_last:
            following(
                out, pitch, start, start_row, left, left_row, left_term, right, right_term, rows, terms, columns, zero
            )

    return rest


@cache
def _strips(widths: tuple[int, ...], item: int, fused: bool) -> Any:
    """The function that makes all strips of some rows, as wide as can be.

    Of a packed second factor, strips of the widest have panels of their own; narrower ones share the last.
    """
    width, *narrower = widths
    strip, across, panel_row = _strip(width, False, fused), width * item, WIDTHS[item][0] * item
    following = _strips(tuple(narrower), item, fused) if narrower else _part(width, item, fused)
    is_widest, is_last = across == panel_row, following is None

    @inlined
    def strips(
        out, pitch, start, start_row, left, panel, left_row, left_term, right, is_packed, rows, columns, terms, zero
    ):
        term = panel_row if is_packed else pitch
        further = panel_row * terms if is_packed and is_widest else across
        while columns >= width:
            strip(out, pitch, start, start_row, left, panel, left_row, left_term, right, term, rows, terms, width, zero)
            out, right, columns = out + across, right + further, columns - width
            start = start + across if start != 0 else start
        if is_last:
            return
        following(
            out, pitch, start, start_row, left, panel, left_row, left_term, right, is_packed, rows, columns, terms, zero
        )

    return strips


def _part(width: int, item: int, fused: bool) -> Any:
    """The function that makes what columns are left over with masks; there are none without."""
    if not HAS_MASKS:
        return None
    strip, panel_row = _strip(width, True, fused), WIDTHS[item][0] * item

    @inlined
    def part(
        out, pitch, start, start_row, left, panel, left_row, left_term, right, is_packed, rows, columns, terms, zero
    ):
        term = panel_row if is_packed else pitch
        if columns > 0:
            strip(
                out, pitch, start, start_row, left, panel, left_row, left_term, right, term, rows, terms, columns, zero
            )

    return part


def scratch_size(columns: int, terms: int, item: int) -> int:
    """Numbers of room that a product of these sizes needs, for any number of rows."""
    depth = min(terms, DEPTH)
    return packed_size(columns, WIDTHS[item][0], depth) + packed_size(HEIGHT, ROWS, depth)


@cache
def in_order(item: int, fused: bool) -> Any:
    """The function that makes a product by own loops, for numbers of so many bytes.

    Of ``out`` (rows, columns), ``left`` (rows, terms), or (terms, rows) if turned, and ``right`` (terms, columns), or
    (columns, terms) if turned, all in C order. ``start`` is the address of what the product is added to, in rows so
    many bytes apart: 0 for zeros, ``out`` itself, other rows, or with ``start_row`` 0 one row for all.
    """
    widest, size = WIDTHS[item][0], compiled(packed_size)
    strips, pack_left, pack_right = _strips(WIDTHS[item], item, fused), packing(ROWS, item), packing(widest, item)

    @inlined
    def multiply(out, start, start_row, left, left_turned, right, right_turned, rows, columns, terms, scratch, zero):
        pitch = columns * item
        left_row, left_term = (item, rows * item) if left_turned else (terms * item, item)
        right_column, right_term = (terms * item, item) if right_turned else (item, pitch)
        spread = ROWS * left_row + min(DEPTH, terms) * left_term
        packs_left = (left_turned or left_row % ALIAS == 0) and spread > RESIDENT
        for begin in range(0, terms, DEPTH):
            depth = min(DEPTH, terms - begin)
            packs_right = right_turned != 0 or depth * pitch > RESIDENT
            of_right, room = right + begin * right_term, scratch
            if packs_right:
                pack_right(scratch, of_right, right_column, right_term, columns, depth, zero)
                of_right, room = scratch, scratch + size(columns, widest, depth) * item
            for top in range(0, rows, HEIGHT):
                height = min(HEIGHT, rows - top)
                of_left, row, term = left + top * left_row + begin * left_term, left_row, left_term
                panel = ROWS * left_row
                if packs_left:
                    pack_left(room, of_left, left_row, left_term, height, depth, zero)
                    of_left, panel, row, term = room, ROWS * depth * item, item, ROWS * item
                of_start = start + top * start_row
                strips(
                    out + top * pitch,
                    pitch,
                    of_start,
                    start_row,
                    of_left,
                    panel,
                    row,
                    term,
                    of_right,
                    packs_right,
                    height,
                    columns,
                    depth,
                    zero,
                )
            start, start_row = out, pitch

    return multiply


@cache
def in_plain_python() -> Any:
    """The same product by NumPy, for the build that nothing compiles."""

    def multiply(out, start, start_row, left, left_turned, right, right_turned, rows, columns, terms, scratch, zero):
        made = matrix(out, rows, columns, zero)
        a = matrix(left, terms, rows, zero).T if left_turned else matrix(left, rows, terms, zero)
        b = matrix(right, columns, terms, zero).T if right_turned else matrix(right, terms, columns, zero)
        of_rows = matrix if start_row else lambda start, rows, columns, zero: array(start, columns, zero)
        base = of_rows(start, rows, columns, zero) if start else 0
        made[:] = base + a @ b

    return multiply


class OwnTerms(NamedTuple):
    """Up to how many multiplications own loops are as fast as BLAS for most shapes.

    Attributes
    ----------
    forward : of products whose second factor is turned, as a layer's weight is.
    of_weights : whose first factor is, as cotangents are for the gradient of a weight; it is packed at some cost.
    of_inputs : whose factors lie as they are gone through.
    """

    forward: int
    of_weights: int
    of_inputs: int


def own_terms(item: int, library: str, is_wide: bool = IS_WIDE) -> OwnTerms:
    """Of numbers of so many bytes, beside a library of BLAS; ``is_wide`` says whether vectors are of 512 bits."""
    if library == "mkl":
        return OwnTerms(*[1 << 18 if item == 8 else 1 << 20] * 3)
    if not is_wide:
        return OwnTerms(*[1 << 31] * 3)
    return OwnTerms(1 << 26, 1 << 25 if item == 8 else 1 << 22, 1 << 25)


@cache
def product(item: int, reproducible: bool, library: str) -> Any:
    """The function that makes a product: in order, or the faster of own loops and BLAS.

    Parameters
    ----------
    item : bytes of a number.
    reproducible : the same bits on every processor, without fused operations.
    library : whose BLAS it is, as :mod:`difflab.blas_libraries` has them.
    """
    if numba.config.DISABLE_JIT:
        return in_plain_python()
    own = in_order(item, not reproducible)
    if reproducible:
        return own.py_func
    blas, (most_forward, most_of_weights, most_of_inputs) = by_blas(item, library), own_terms(item, library)

    def multiply(out, start, start_row, left, left_turned, right, right_turned, rows, columns, terms, scratch, zero):
        most = most_of_weights if left_turned else most_forward if right_turned else most_of_inputs
        if rows * columns * terms <= most:
            own(out, start, start_row, left, left_turned, right, right_turned, rows, columns, terms, scratch, zero)
        else:
            blas(out, start, start_row, left, left_turned, right, right_turned, rows, columns, terms, scratch, zero)

    return multiply
