"""Blocks of numbers in registers, made of LLVM's vectors, which become instructions of any width."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


FAR = 64
"""Terms from which on a tile's place is fetched before they are gone through: of a large result it lies far away."""

LINE = 64
"""Bytes that come from memory at once."""

HAS_MASKS = any(llvmlite.binding.get_host_cpu_features().get(name) for name in ("avx512vl", "avx2"))
"""Whether some lanes of a vector can be read and written by themselves."""

BITS = {ir.DoubleType(): 64, ir.FloatType(): 32}


class Shape(NamedTuple):
    """Of a tile: rows, columns, and whether only the first of these are there, as many as a call says."""

    rows: int
    width: int
    is_partial: bool


@cache
def tile_of(shape: Shape, fused: bool) -> Any:
    """The function that makes one tile of a result.

    Its arguments are addresses and strides in bytes: of the tile, of what it starts from (address 0 for zeros), of the
    first factor by row and by term, of the second factor by term; then the number of terms and that of columns.
    """

    @intrinsic
    def tile(
        typing, out, out_row, start, start_row, left, left_row, left_term, right, right_term, terms, columns, zero
    ):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            number = context.get_value_type(signature.args[-1])
            _generate_tile(context, builder, number, arguments, shape, fused)
            return ir.Constant(ir.IntType(8).as_pointer(), None)

        return types.none(*[types.int64] * 11, zero), generate

    return tile


def _generate_tile(context: Any, builder: Any, number: Any, arguments: Any, shape: Shape, fused: bool) -> None:
    out, out_row, start, start_row, left, left_row, left_term, right, right_term, terms, columns, _ = arguments
    rows, width, is_partial = shape
    word, vector = ir.IntType(64), ir.VectorType(number, width)
    align = context.get_abi_alignment(number)
    there = _first_lanes(builder, columns, width) if is_partial else None

    def load(address: Any, kind: Any) -> Any:
        pointer = builder.inttoptr(address, kind.as_pointer())
        if there and kind == vector:
            return _masked_load(builder, pointer, vector, there, align)
        return builder.load(pointer, align=align)

    def store(made: Any, address: Any) -> None:
        pointer = builder.inttoptr(address, vector.as_pointer())
        if there:
            _masked_store(builder, made, pointer, there, align)
        else:
            builder.store(made, pointer, align=align)

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
        store(builder.load(each), at(out, out_row, i))


def _first_lanes(builder: Any, count: Any, width: int) -> Any:
    """Which lanes of a vector are among the first so many."""
    lanes = ir.VectorType(ir.IntType(32), width)
    single = builder.insert_element(
        ir.Constant(lanes, ir.Undefined), builder.trunc(count, lanes.element), ir.Constant(ir.IntType(32), 0)
    )
    counts = builder.shuffle_vector(single, ir.Constant(lanes, ir.Undefined), ir.Constant(lanes, None))
    return builder.icmp_unsigned("<", ir.Constant(lanes, list(range(width))), counts)


def _masked_load(builder: Any, pointer: Any, vector: Any, there: Any, align: int) -> Any:
    """Zeros in other lanes, whose memory is not touched."""
    arguments = pointer, ir.Constant(ir.IntType(32), align), there, ir.Constant(vector, None)
    kind = ir.FunctionType(vector, [each.type for each in arguments])
    name = f"llvm.masked.load.v{vector.count}f{BITS[vector.element]}.p0"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def _masked_store(builder: Any, made: Any, pointer: Any, there: Any, align: int) -> None:
    arguments = made, pointer, ir.Constant(ir.IntType(32), align), there
    kind = ir.FunctionType(ir.VoidType(), [each.type for each in arguments])
    name = f"llvm.masked.store.v{made.type.count}f{BITS[made.type.element]}.p0"
    builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


@cache
def turned_block(side: int) -> Any:
    """The function that turns a square of so many rows.

    Its arguments are addresses and strides of rows in bytes: of the result, and of what is turned.
    """

    @intrinsic
    def turn(typing, out, out_row, given, given_row, zero):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            out, out_row, given, given_row, _ = arguments
            vector = ir.VectorType(context.get_value_type(signature.args[-1]), side)
            align = context.get_abi_alignment(vector.element)

            rows = [builder.load(_row(builder, vector, given, given_row, i), align=align) for i in range(side)]
            for i, row in enumerate(_turned(builder, rows)):
                builder.store(row, _row(builder, vector, out, out_row, i), align=align)
            return ir.Constant(ir.IntType(8).as_pointer(), None)

        return types.none(*[types.int64] * 4, zero), generate

    return turn


@cache
def parted(columns: int) -> Any:
    """The function that turns rows of so few numbers, as many as ``LINE`` has numbers: each column becomes a vector.

    Its arguments are the address of the first column, how many bytes the next is further, and the address of the rows.
    """

    @intrinsic
    def part(typing, out, out_row, given, zero):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            vector = _in_line(context.get_value_type(signature.args[-1]))
            out, out_row, given, _ = arguments
            whole = ir.VectorType(vector.element, columns * vector.count)
            align = context.get_abi_alignment(vector.element)
            rows = builder.load(builder.inttoptr(given, whole.as_pointer()), align=align)
            for k in range(columns):
                column = _picked(builder, rows, rows, range(k, whole.count, columns))
                builder.store(column, _row(builder, vector, out, out_row, k), align=align)
            return ir.Constant(ir.IntType(8).as_pointer(), None)

        return types.none(*[types.int64] * 3, zero), generate

    return part


@cache
def joined(columns: int) -> Any:
    """The function that turns columns back to rows; its arguments are the address of the rows, that of the first
    column, and how many bytes the next is further.
    """

    @intrinsic
    def join(typing, out, given, given_row, zero):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            vector = _in_line(context.get_value_type(signature.args[-1]))
            out, given, given_row, _ = arguments
            n, align = vector.count, context.get_abi_alignment(vector.element)
            parts = [builder.load(_row(builder, vector, given, given_row, k), align=align) for k in range(columns)]
            pair = _picked(builder, parts[0], parts[min(1, columns - 1)], range(2 * n))
            last = _picked(builder, parts[-1], parts[-1], range(2 * n))
            places = [(min(k, 2) * n + i) for i in range(n) for k in range(columns)]
            rows = _picked(builder, pair, last, places)
            builder.store(rows, builder.inttoptr(out, rows.type.as_pointer()), align=align)
            return ir.Constant(ir.IntType(8).as_pointer(), None)

        return types.none(*[types.int64] * 3, zero), generate

    return join


def _in_line(number: Any) -> Any:
    """The vector that fills a ``LINE``."""
    return ir.VectorType(number, LINE * 8 // BITS[number])


def _row(builder: Any, vector: Any, base: Any, stride: Any, i: int) -> Any:
    """Where the vector of row i lies."""
    address = builder.add(base, builder.mul(stride, ir.Constant(stride.type, i)))
    return builder.inttoptr(address, vector.as_pointer())


def _picked(builder: Any, first: Any, second: Any, places: Iterable[int]) -> Any:
    """Numbers of two vectors, the second counted on from the first."""
    chosen = list(places)
    return builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(ir.IntType(32), len(chosen)), chosen))


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
    kind = ir.FunctionType(vector, (vector, vector, vector))
    return cgutils.get_or_insert_function(module, kind, f"llvm.fmuladd.v{vector.count}f{BITS[vector.element]}")
