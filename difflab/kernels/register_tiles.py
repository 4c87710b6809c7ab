"""Blocks of numbers in registers, made of LLVM's vectors, which become instructions of any width."""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


FAR = 64
"""Terms from which on a tile's place is fetched before they are gone through: of a large result it lies far away."""

LINE = 64
"""Bytes that come from memory at once."""


@cache
def tile_of(rows: int, width: int, fused: bool) -> Any:
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
