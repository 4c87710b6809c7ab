"""Instructions of LLVM that kernels ask for by name."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils


BITS = {ir.DoubleType(): 64, ir.FloatType(): 32}


def at(builder: Any, base: Any, stride: Any, i: int) -> Any:
    """The address so many strides further."""
    return builder.add(base, builder.mul(stride, ir.Constant(stride.type, i)))


def spread(builder: Any, scalar: Any, lanes: int) -> Any:
    """A vector that has one number in all its lanes."""
    vector = ir.VectorType(scalar.type, lanes)
    single = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    everywhere = ir.Constant(ir.VectorType(ir.IntType(32), lanes), None)
    return builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), everywhere)


def multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """a b + c of numbers or of vectors, rounded once where the processor can."""
    return _call(builder, f"llvm.fmuladd.{_word(a.type)}", a.type, (a, b, c))


def masked_load(builder: Any, pointer: Any, vector: Any, there: Any, align: int) -> Any:
    """Zeros in other lanes, whose memory is not touched."""
    arguments = pointer, ir.Constant(ir.IntType(32), align), there, ir.Constant(vector, None)
    return _call(builder, f"llvm.masked.load.{_word(vector)}.p0", vector, arguments)


def masked_store(builder: Any, made: Any, pointer: Any, there: Any, align: int) -> None:
    """Memory of other lanes is not touched."""
    arguments = made, pointer, ir.Constant(ir.IntType(32), align), there
    _call(builder, f"llvm.masked.store.{_word(made.type)}.p0", ir.VoidType(), arguments)


def prefetch(builder: Any, address: Any) -> None:
    """Have the line of an address brought into the first cache, as it will be written."""
    byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
    how = [ir.Constant(flag, n) for n in (1, 3, 1)]
    _call(builder, "llvm.prefetch.p0i8", ir.VoidType(), (builder.inttoptr(address, byte), *how))


def _word(kind: Any) -> str:
    """LLVM's short name of a number or a vector."""
    if isinstance(kind, ir.VectorType):
        return f"v{kind.count}f{BITS[kind.element]}"
    return f"f{BITS[kind]}"


def _call(builder: Any, name: str, result: Any, arguments: tuple[Any, ...]) -> Any:
    kind = ir.FunctionType(result, [each.type for each in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)
