"""Tiles of a product of matrices in registers, made of LLVM's vectors, which become instructions of any width."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from difflab.kernels import llvm, processor
from difflab.kernels.processor import LINE


FAR = 64
"""Terms from which on a tile's place is fetched before they are gone through: of a large result it lies far away."""

HAS_MASKS = processor.has("avx512vl", "avx2")
"""Whether some lanes of a vector can be read and written by themselves."""


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
            return context.get_dummy_value()

        return types.none(*[types.int64] * 11, zero), generate

    return tile


def _generate_tile(context: Any, builder: Any, number: Any, arguments: Any, shape: Shape, fused: bool) -> None:
    out, out_row, start, start_row, left, left_row, left_term, right, right_term, terms, columns, _ = arguments
    rows, width, is_partial = shape
    word, vector = ir.IntType(64), ir.VectorType(number, width)
    memory = Memory(builder, vector, context.get_abi_alignment(number), columns if is_partial else None)

    with builder.if_then(builder.icmp_signed(">=", terms, ir.Constant(word, FAR))):
        for i in range(rows):
            for offset in range(0, width * context.get_abi_sizeof(number), LINE):
                llvm.prefetch(builder, builder.add(llvm.at(builder, out, out_row, i), ir.Constant(word, offset)))
    sums = [cgutils.alloca_once_value(builder, ir.Constant(vector, None)) for _ in range(rows)]
    for each in sums:
        builder.store(ir.Constant(vector, None), each)
    with cgutils.for_range(builder, terms) as loop:
        those = memory.row(builder.add(right, builder.mul(right_term, loop.index)))
        base = builder.add(left, builder.mul(left_term, loop.index))
        for i, each in enumerate(sums):
            factor = llvm.spread(builder, memory.number(llvm.at(builder, base, left_row, i)), width)
            if fused:
                found = llvm.multiply_add(builder, factor, those, builder.load(each))
            else:
                found = builder.fadd(builder.fmul(factor, those), builder.load(each))
            builder.store(found, each)
    with builder.if_then(builder.icmp_signed("!=", start, ir.Constant(word, 0))):
        for i, each in enumerate(sums):
            builder.store(builder.fadd(memory.row(llvm.at(builder, start, start_row, i)), builder.load(each)), each)
    for i, each in enumerate(sums):
        memory.write(builder.load(each), llvm.at(builder, out, out_row, i))


class Memory:
    """Numbers and rows of a tile in memory, of which only the first columns are there where a call says how many."""

    def __init__(self, builder: Any, vector: Any, align: int, columns: Any | None) -> None:
        self.builder, self.vector, self.align = builder, vector, align
        self.there = None if columns is None else _first_lanes(builder, columns, vector.count)

    def number(self, address: Any) -> Any:
        return self.builder.load(self._pointer(address, self.vector.element), align=self.align)

    def row(self, address: Any) -> Any:
        pointer = self._pointer(address, self.vector)
        if self.there is None:
            return self.builder.load(pointer, align=self.align)
        return llvm.masked_load(self.builder, pointer, self.vector, self.there, self.align)

    def write(self, row: Any, address: Any) -> None:
        pointer = self._pointer(address, self.vector)
        if self.there is None:
            self.builder.store(row, pointer, align=self.align)
        else:
            llvm.masked_store(self.builder, row, pointer, self.there, self.align)

    def _pointer(self, address: Any, kind: Any) -> Any:
        return self.builder.inttoptr(address, kind.as_pointer())


def _first_lanes(builder: Any, count: Any, lanes: int) -> Any:
    """Which lanes of a vector are among the first so many."""
    number = ir.IntType(32)
    places = ir.Constant(ir.VectorType(number, lanes), list(range(lanes)))
    return builder.icmp_unsigned("<", places, llvm.spread(builder, builder.trunc(count, number), lanes))
