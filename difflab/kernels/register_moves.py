"""Small matrices moved by way of registers, turned or as they lie, made of LLVM's vectors."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from difflab.kernels import llvm
from difflab.kernels.processor import LINE


@cache
def moved(count: int) -> Any:
    """The function that moves so many numbers that lie one after the other, to an address and from one."""

    @intrinsic
    def move(typing, out, given, zero):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            vector = ir.VectorType(context.get_value_type(signature.args[-1]), count)
            align = context.get_abi_alignment(vector.element)
            here, there = (builder.inttoptr(address, vector.as_pointer()) for address in arguments[:2])
            builder.store(builder.load(there, align=align), here, align=align)
            return context.get_dummy_value()

        return types.none(*[types.int64] * 2, zero), generate

    return move


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
            return context.get_dummy_value()

        return types.none(*[types.int64] * 4, zero), generate

    return turn


@cache
def parted(columns: int) -> Any:
    """The function that turns rows of so few numbers, as many rows as ``LINE`` has numbers, to columns.

    Its arguments are the address of the first column, how many bytes the next is further, and that of the rows.
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
            return context.get_dummy_value()

        return types.none(*[types.int64] * 3, zero), generate

    return part


@cache
def joined(columns: int) -> Any:
    """The function that turns two or three columns back to rows.

    Its arguments are the address of the rows, that of the first column, and how many bytes the next is further.
    """

    @intrinsic
    def join(typing, out, given, given_row, zero):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            vector = _in_line(context.get_value_type(signature.args[-1]))
            out, given, given_row, _ = arguments
            n, align = vector.count, context.get_abi_alignment(vector.element)
            parts = [builder.load(_row(builder, vector, given, given_row, k), align=align) for k in range(columns)]
            pair = _picked(builder, parts[0], parts[1], range(2 * n))
            last = _picked(builder, parts[-1], parts[-1], range(2 * n))
            places = [(min(k, 2) * n + i) for i in range(n) for k in range(columns)]
            rows = _picked(builder, pair, last, places)
            builder.store(rows, builder.inttoptr(out, rows.type.as_pointer()), align=align)
            return context.get_dummy_value()

        return types.none(*[types.int64] * 3, zero), generate

    return join


def _in_line(number: Any) -> Any:
    """The vector that fills a ``LINE``."""
    return ir.VectorType(number, LINE * 8 // llvm.BITS[number])


def _row(builder: Any, vector: Any, base: Any, stride: Any, i: int) -> Any:
    """Where the vector of row i lies."""
    return builder.inttoptr(llvm.at(builder, base, stride, i), vector.as_pointer())


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
