"""Loops of which two vectors are under way at a time.

The operations of one elementary function wait for one another. LLVM would let a second vector fill the gaps, but takes
the many constants of a polynomial for a lack of registers, unless it is told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from difflab.kernels.target import compiled


VECTORS = 2


def _hint(module: Any) -> Any:
    """What the last branch of a loop carries: a node that begins with itself, which makes it that loop's own."""
    count = module.add_metadata(["llvm.loop.interleave.count", ir.Constant(ir.IntType(32), VECTORS)])
    node = module.add_metadata([count, ir.Constant(ir.IntType(32), len(module.metadata))])
    node.operands = (node, count)
    return node


@intrinsic
def with_widest_vectors(typing):
    """Have the loops of the compiled function that calls this use vectors as wide as the processor's.

    Of 512 bits LLVM uses half, as the first processors that had them became slower for it.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # Past the names that llvmlite knows of, as it has none for this one.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.none(), generate


@intrinsic
def _each(typing, body, size, arguments):
    called = body.get_call_type(typing, (types.int64, *arguments), {})

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        function = context.get_function(body, called)
        _, size, packed = given
        values = cgutils.unpack_tuple(builder, packed)
        before, inside, behind = builder.block, builder.append_basic_block(), builder.append_basic_block()
        one, zero = ir.Constant(size.type, 1), ir.Constant(size.type, 0)
        builder.cbranch(builder.icmp_signed(">", size, zero), inside, behind)
        builder.position_at_end(inside)
        index = builder.phi(size.type)
        index.add_incoming(zero, before)
        function(builder, [index, *values])
        following = builder.add(index, one)
        index.add_incoming(following, builder.block)
        last = builder.cbranch(builder.icmp_signed("<", following, size), inside, behind)
        last.set_metadata("llvm.loop", _hint(builder.module))
        builder.position_at_end(behind)
        return context.get_dummy_value()

    return types.none(body, types.int64, arguments), generate


if numba.config.DISABLE_JIT:

    def each(body: Callable, size: int, arguments: tuple[Any, ...]) -> None:
        for i in range(size):
            body(i, *arguments)

    def with_widest_vectors() -> None:  # noqa: F811
        """Nothing here has any."""

else:

    @compiled
    def each(body, size, arguments):
        """Run ``body(i, *arguments)``, a compiled function, for i from 0 to ``size``."""
        with_widest_vectors()
        _each(body, size, arguments)
