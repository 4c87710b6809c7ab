"""Products of matrices added to what is there, by a library of BLAS."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from difflab.blas_libraries import address, address_of_mkl_threads, missing
from difflab.kernels.layout import array, matrix
from difflab.kernels.target import inlined


MKL_THREADS = "difflab_mkl_threads"
"""Symbol of the function that holds back threads of MKL."""


AMD = ("bdver", "btver", "znver")
"""How LLVM's names of AMD's processors with vectors of 256 bits and more begin. MKL takes none of 512 bits there, and
half of a Zen 5 lies idle."""


def chosen(blas: str) -> str:
    """The library that is meant: by ``"auto"``, MKL where it can be called, if not on a processor of AMD."""
    if blas == "auto":
        is_amd = llvmlite.binding.get_host_cpu_name().startswith(AMD)
        return "scipy" if is_amd or missing("mkl") else "mkl"
    return blas


@cache
def _gemm(item: int, library: str) -> Any:
    """A library's product of matrices, as a function of Fortran's arguments by value."""
    routine, number = ("dgemm", ir.DoubleType()) if item == 8 else ("sgemm", ir.FloatType())
    symbol = f"difflab_{library}_{routine}"
    llvmlite.binding.add_symbol(symbol, address(library, routine))
    if library == "mkl":
        llvmlite.binding.add_symbol(MKL_THREADS, address_of_mkl_threads())

    @intrinsic
    def gemm(typing, turn_a, turn_b, m, n, k, a, lda, b, ldb, adds, c, ldc):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            whole, letter = ir.IntType(32), ir.IntType(8)
            one, zero = ir.Constant(number, 1.0), ir.Constant(number, 0.0)

            def kept(value: Any) -> Any:
                place = cgutils.alloca_once(builder, value.type)
                builder.store(value, place)
                return place

            def size(value: Any) -> Any:
                return kept(builder.trunc(value, whole))

            def turn(flag: Any) -> Any:
                return kept(builder.select(flag, ir.Constant(letter, ord("T")), ir.Constant(letter, ord("N"))))

            def numbers(value: Any) -> Any:
                return builder.inttoptr(value, number.as_pointer())

            turn_a, turn_b, m, n, k, a, lda, b, ldb, adds, c, ldc = arguments
            given = [turn(turn_a), turn(turn_b), size(m), size(n), size(k), kept(one)]
            given += [
                numbers(a),
                size(lda),
                numbers(b),
                size(ldb),
                kept(builder.select(adds, one, zero)),
                numbers(c),
                size(ldc),
            ]
            kind = ir.FunctionType(ir.VoidType(), [each.type for each in given])
            call = partial(builder.call, cgutils.get_or_insert_function(builder.module, kind, symbol), given)
            _on_one_thread_of_mkl(builder, call) if library == "mkl" else call()
            return context.get_dummy_value()

        flags, sizes = [types.boolean] * 2, [types.int64] * 7
        return types.none(*flags, *sizes, types.boolean, types.int64, types.int64), generate

    return gemm


def _on_one_thread_of_mkl(builder: Any, call: Callable[[], Any]) -> None:
    """A call for which the thread that makes it has no others of MKL; those of other threads stay."""
    whole = ir.IntType(32)
    kind = ir.FunctionType(whole, (whole,))
    function = cgutils.get_or_insert_function(builder.module, kind, MKL_THREADS)
    before = builder.call(function, [ir.Constant(whole, 1)])
    call()
    builder.call(function, [before])


@cache
def by_blas(item: int, library: str) -> Any:
    """The function that makes a product for numbers of so many bytes, with arguments as for own loops.

    BLAS goes through matrices column by column, and so sees every one of them turned.
    """
    gemm = _gemm(item, library)

    @inlined
    def multiply(out, start, start_row, left, left_turned, right, right_turned, rows, columns, terms, scratch, zero):
        if start != 0 and start != out:
            made = matrix(out, rows, columns, zero)
            for i in range(rows):
                base = array(start + i * start_row, columns, zero)
                for j in range(columns):
                    made[i, j] = base[j]
        right_row, left_row = terms if right_turned else columns, rows if left_turned else terms
        gemm(
            right_turned != 0,
            left_turned != 0,
            columns,
            rows,
            terms,
            right,
            right_row,
            left,
            left_row,
            start != 0,
            out,
            columns,
        )

    return multiply
