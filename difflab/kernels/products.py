"""Products of matrices added to what is there: by own loops in strict order, or by BLAS.

Own loops keep a tile of the result in registers and go through the terms of every entry one after the other, so many
at a time, from zero [Goto, van de Geijn 2008]; such sums are then added, which keeps errors of long ones small. So bits
do not depend on the width of vectors, nor on where an entry lies. Tiles are made of LLVM's vectors, which become
instructions of any width.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import llvmlite.binding
import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from difflab.kernels.blas_products import by_blas
from difflab.kernels.layout import address_of, array, matrix
from difflab.kernels.target import compiled, inlined


IS_WIDE = bool(llvmlite.binding.get_host_cpu_features().get("avx512f"))
"""Whether vectors are of 512 bits, of which there are 32 then, and not 16."""

HEIGHTS = (12, 6, 4, 2, 1) if IS_WIDE else (6, 4, 2, 1)
"""Rows of tiles of a result in registers; the first for most of it."""

ROWS = HEIGHTS[0]

_LANES = 128 if IS_WIDE else 64

WIDTHS = {item: (_LANES // item, _LANES // item // 2, _LANES // item // 4, 2, 1) for item in (8, 4)}
"""Columns of such tiles, by the bytes of a number: two vectors of the processor, and what is left over."""

DEPTH = 128
"""Terms that are gone through at a time: so many of a strip of columns stay in the first cache."""

HEIGHT = 96
"""Rows that are gone through at a time: so many, of ``DEPTH`` terms, stay in the second cache."""

ALIAS = 1024
"""Rows at multiples of so many bytes meet in a few sets of the first cache."""

RESIDENT = 1 << 16
"""Bytes up to which a factor is read as it lies: it comes from the second cache in time, and packing takes longer. What
is spread over more is packed."""


@cache
def _tile(rows: int, width: int, fused: bool) -> Any:
    """The function that makes one tile of a result.

    Its arguments are addresses and strides in bytes: of the tile, of what it starts from (address 0 for zeros), of the
    first factor by row and by term, of the second factor by term; then the number of terms.
    """

    @intrinsic
    def tile(typing, out, out_row, start, start_row, left, left_row, left_term, right, right_term, terms, zero):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            number = context.get_value_type(signature.args[-1])
            _generate_tile(context, builder, number, arguments, rows, width, fused)
            return ir.Constant(ir.IntType(8).as_pointer(), None)

        return types.none(*[types.int64] * 10, zero), generate

    return tile


def _generate_tile(context: Any, builder: Any, number: Any, arguments: Any, rows: int, width: int, fused: bool) -> None:
    out, out_row, start, start_row, left, left_row, left_term, right, right_term, terms, _ = arguments
    word, vector = ir.IntType(64), ir.VectorType(number, width)
    align = context.get_abi_alignment(number)

    def load(address: Any, kind: Any) -> Any:
        return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align)

    def at(base: Any, stride: Any, i: int) -> Any:
        return builder.add(base, builder.mul(stride, ir.Constant(word, i))) if i else base

    def spread(scalar: Any) -> Any:
        single = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), width), None)
        return builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), mask)

    with builder.if_then(builder.icmp_signed(">=", terms, ir.Constant(word, FAR))):
        for i in range(rows):
            _prefetch(builder, at(out, out_row, i), width * context.get_abi_sizeof(number))
    sums = [cgutils.alloca_once_value(builder, ir.Constant(vector, None)) for _ in range(rows)]
    for each in sums:
        builder.store(ir.Constant(vector, None), each)
    with cgutils.for_range(builder, terms) as loop:
        term = loop.index
        those = load(builder.add(right, builder.mul(right_term, term)), vector)
        base = builder.add(left, builder.mul(left_term, term))
        for i, each in enumerate(sums):
            factor = spread(load(at(base, left_row, i), number))
            if fused:
                found = builder.call(_fused(builder.module, vector), [factor, those, builder.load(each)])
            else:
                found = builder.fadd(builder.fmul(factor, those), builder.load(each))
            builder.store(found, each)
    with builder.if_then(builder.icmp_signed("!=", start, ir.Constant(word, 0))):
        for i, each in enumerate(sums):
            builder.store(builder.fadd(load(at(start, start_row, i), vector), builder.load(each)), each)
    for i, each in enumerate(sums):
        builder.store(builder.load(each), builder.inttoptr(at(out, out_row, i), vector.as_pointer()), align=align)


@cache
def _turned_block(side: int) -> Any:
    """The function that turns a square of so many rows.

    Its arguments are addresses and strides of rows in bytes: of the result, and of what is turned.
    """

    @intrinsic
    def turn(typing, out, out_row, given, given_row, zero):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            out, out_row, given, given_row, _ = arguments
            vector = ir.VectorType(context.get_value_type(signature.args[-1]), side)
            align = context.get_abi_alignment(vector.element)

            def place(base: Any, stride: Any, i: int) -> Any:
                address = builder.add(base, builder.mul(stride, ir.Constant(stride.type, i)))
                return builder.inttoptr(address, vector.as_pointer())

            rows = [builder.load(place(given, given_row, i), align=align) for i in range(side)]
            for i, row in enumerate(_turned(builder, rows)):
                builder.store(row, place(out, out_row, i), align=align)
            return ir.Constant(ir.IntType(8).as_pointer(), None)

        return types.none(*[types.int64] * 4, zero), generate

    return turn


def _turned(builder: Any, rows: list[Any]) -> list[Any]:
    """Rows as columns: for every bit of a place, rows that differ in it exchange the entries that do [Eklundh 1972]."""
    side = len(rows)
    for bit in (1 << n for n in range(side.bit_length() - 1)):
        upper = [i if not i & bit else side + i - bit for i in range(side)]
        lower = [i + bit if not i & bit else side + i for i in range(side)]
        masks = [ir.Constant(ir.VectorType(ir.IntType(32), side), places) for places in (upper, lower)]
        for i in (i for i in range(side) if not i & bit):
            pair = rows[i], rows[i + bit]
            rows[i], rows[i + bit] = (builder.shuffle_vector(*pair, mask) for mask in masks)
    return rows


FAR = 64
"""Terms from which on a tile's place is fetched before they are gone through: of a large result it lies far away."""

LINE = 64
"""Bytes that come from memory at once."""


def _prefetch(builder: Any, address: Any, size: int) -> None:
    """Have so many bytes brought into the first cache, which will be written."""
    byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), (byte, flag, flag, flag))
    prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    how = [ir.Constant(flag, n) for n in (1, 3, 1)]
    for offset in range(0, size, LINE):
        builder.call(prefetch, [builder.inttoptr(builder.add(address, ir.Constant(address.type, offset)), byte), *how])


def _fused(module: Any, vector: Any) -> Any:
    """A product and a sum, rounded once where the processor can."""
    bits = {ir.DoubleType(): 64, ir.FloatType(): 32}[vector.element]
    kind = ir.FunctionType(vector, (vector, vector, vector))
    return cgutils.get_or_insert_function(module, kind, f"llvm.fmuladd.v{vector.count}f{bits}")


@cache
def _strip(width: int, fused: bool) -> Any:
    """The function that makes all rows of one strip of columns."""
    tile, rest = _tile(ROWS, width, fused), _rest(HEIGHTS[1:], width, fused)

    @compiled
    def strip(out, pitch, start, start_row, left, panel, left_row, left_term, right, right_term, rows, terms, zero):
        for _ in range(rows // ROWS):
            tile(out, pitch, start, start_row, left, left_row, left_term, right, right_term, terms, zero)
            out, start, left = out + ROWS * pitch, start + ROWS * start_row, left + panel
        rest(out, pitch, start, start_row, left, left_row, left_term, right, right_term, rows % ROWS, terms, zero)

    return strip


@cache
def _rest(heights: tuple[int, ...], width: int, fused: bool) -> Any:
    """The function that makes what rows are left over, in ever lower tiles."""
    height, *lower = heights
    tile, following = _tile(height, width, fused), _rest(tuple(lower), width, fused) if lower else None

    @inlined
    def last(out, pitch, start, start_row, left, left_row, left_term, right, right_term, rows, terms, zero):
        if rows >= height:
            tile(out, pitch, start, start_row, left, left_row, left_term, right, right_term, terms, zero)

    @inlined
    def rest(out, pitch, start, start_row, left, left_row, left_term, right, right_term, rows, terms, zero):
        if rows >= height:
            tile(out, pitch, start, start_row, left, left_row, left_term, right, right_term, terms, zero)
            out, start, left = out + height * pitch, start + height * start_row, left + height * left_row
            rows -= height
        following(out, pitch, start, start_row, left, left_row, left_term, right, right_term, rows, terms, zero)

    return rest if lower else last


@cache
def _strips(item: int, fused: bool) -> Any:
    """The functions that make all strips of some rows, and that pack the second factor for them."""
    widths = WIDTHS[item]
    functions = tuple(_strip(width, fused) for width in widths)
    first, second, third, fourth, fifth = functions
    w1, w2, w3, w4, _ = widths
    side, turn = w2, _turned_block(w2)

    @compiled
    def width_of(rest):
        return w1 if rest >= w1 else w2 if rest >= w2 else w3 if rest >= w3 else w4 if rest >= w4 else 1

    @inlined
    def strips(
        out, pitch, start, start_row, left, panel, left_row, left_term, right, is_packed, rows, columns, terms, zero
    ):
        j = 0
        while j < columns:
            width = width_of(columns - j)
            strip, term = right + j * item, pitch
            if is_packed:
                strip, term = right + j * terms * item, width * item
            at, base = out + j * item, start + j * item if start != 0 else start
            if width == w1:
                first(at, pitch, base, start_row, left, panel, left_row, left_term, strip, term, rows, terms, zero)
            elif width == w2:
                second(at, pitch, base, start_row, left, panel, left_row, left_term, strip, term, rows, terms, zero)
            elif width == w3:
                third(at, pitch, base, start_row, left, panel, left_row, left_term, strip, term, rows, terms, zero)
            elif width == w4:
                fourth(at, pitch, base, start_row, left, panel, left_row, left_term, strip, term, rows, terms, zero)
            else:
                fifth(at, pitch, base, start_row, left, panel, left_row, left_term, strip, term, rows, terms, zero)
            j += width

    @compiled
    def pack(packed, right, is_turned, first, depth, columns, terms, zero):
        """Strip after strip, each with its terms one after the other."""
        j = 0
        while j < columns:
            width = width_of(columns - j)
            strip = packed[j * depth : (j + width) * depth]
            if is_turned:
                whole = depth - depth % side if width % side == 0 else 0
                for k in range(0, whole, side):
                    for i in range(0, width, side):
                        source = address_of(right) + ((j + i) * terms + first + k) * item
                        turn(address_of(strip) + (k * width + i) * item, width * item, source, terms * item, zero)
                for k in range(whole, depth):
                    for i in range(width):
                        strip[k * width + i] = right[(j + i) * terms + first + k]
            elif width == w1:
                for k in range(depth):
                    for i in range(w1):
                        strip[k * w1 + i] = right[(first + k) * columns + j + i]
            else:
                for k in range(depth):
                    for i in range(width):
                        strip[k * width + i] = right[(first + k) * columns + j + i]
            j += width

    return strips, pack


@compiled
def _pack_rows(packed, left, is_turned, top, height, first, depth, rows, terms):
    """Some rows of the first factor in panels of ``ROWS``, each with its terms one after the other."""
    whole = height - height % ROWS
    for i in range(0, whole, ROWS):
        panel = packed[i * depth : (i + ROWS) * depth]
        if is_turned:
            for k in range(depth):
                for r in range(ROWS):
                    panel[k * ROWS + r] = left[(first + k) * rows + top + i + r]
        else:
            for r in range(ROWS):
                for k in range(depth):
                    panel[k * ROWS + r] = left[(top + i + r) * terms + first + k]
    row, term = (1, rows) if is_turned else (terms, 1)
    for r in range(height - whole):
        for k in range(depth):
            packed[whole * depth + k * ROWS + r] = left[(top + whole + r) * row + (first + k) * term]


def scratch_size(columns: int, terms: int) -> int:
    """Numbers of room that a product of these sizes needs, for any number of rows."""
    return min(terms, DEPTH) * (columns + HEIGHT + ROWS)


@cache
def in_order(item: int, fused: bool) -> Any:
    """The function that makes a product by own loops, for numbers of so many bytes.

    Of ``out`` (rows, columns), ``left`` (rows, terms), or (terms, rows) if turned, and ``right`` (terms, columns), or
    (columns, terms) if turned, all in C order. ``start`` is the address of what the product is added to: 0 for zeros,
    ``out`` itself, or with ``start_row`` 0 one row for all.
    """
    strips, pack = _strips(item, fused)

    @inlined
    def multiply(out, start, start_row, left, turned, right, right_turned, rows, columns, terms, scratch, zero):
        left_turned, pitch = turned != 0, columns * item
        lefts, rights = array(left, rows * terms, zero), array(right, columns * terms, zero)
        left_row, left_term = (item, rows * item) if left_turned else (terms * item, item)
        packs_left = (left_turned or left_row % ALIAS == 0) and ROWS * left_row + DEPTH * left_term > RESIDENT
        for begin in range(0, terms, DEPTH):
            depth = min(DEPTH, terms - begin)
            packs = right_turned != 0 or depth * pitch > RESIDENT
            of_right, room = right + begin * pitch, scratch
            if packs:
                pack(
                    array(scratch, depth * columns, zero), rights, right_turned != 0, begin, depth, columns, terms, zero
                )
                of_right, room = scratch, scratch + depth * columns * item
            for top in range(0, rows, HEIGHT):
                height = min(HEIGHT, rows - top)
                of_left, row, term = left + top * left_row + begin * left_term, left_row, left_term
                panel = ROWS * left_row
                if packs_left:
                    packed = array(room, (height + ROWS) * depth, zero)
                    _pack_rows(packed, lefts, left_turned, top, height, begin, depth, rows, terms)
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
                    packs,
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


def most_own_terms(item: int, library: str) -> int:
    """Up to so many products of numbers of so many bytes, gradients by own loops take no longer than those by BLAS."""
    if library == "mkl":
        return 1 << 18 if item == 8 else 1 << 20
    return 1 << 25 if item == 8 or IS_WIDE else 1 << 28


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
    blas, most = by_blas(item, library), most_own_terms(item, library)

    def multiply(out, start, start_row, left, left_turned, right, right_turned, rows, columns, terms, scratch, zero):
        if rows * columns * terms <= most:
            own(out, start, start_row, left, left_turned, right, right_turned, rows, columns, terms, scratch, zero)
        else:
            blas(out, start, start_row, left, left_turned, right, right_turned, rows, columns, terms, scratch, zero)

    return multiply
