"""Words of memory that threads hand over to each other [C11, 7.17]."""

from __future__ import annotations

import platform
from typing import Any

import llvmlite.binding
import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from difflab.kernels.layout import words
from difflab.kernels.target import compiled


_WORD = ir.IntType(64)
_BYTES = 8

_PAUSES: dict[str, tuple[str, tuple[int, ...]]] = {
    "x86_64": ("llvm.x86.sse2.pause", ()),
    "aarch64": ("llvm.aarch64.hint", (1,)),
    "arm64": ("llvm.aarch64.hint", (1,)),
}
"""By machine, LLVM's name and arguments for what tells a processor that a loop waits."""

MANY_LOOKS = 1 << 10
"""Looks after which a thread that waits lets others run: the one it waits for may have no core."""


@intrinsic
def _load(typing, address):
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(builder.inttoptr(arguments[0], _WORD.as_pointer()), "acquire", _BYTES)

    return types.int64(types.int64), generate


@intrinsic
def _store(typing, address, value):
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place, value = arguments
        builder.store_atomic(value, builder.inttoptr(place, _WORD.as_pointer()), "release", _BYTES)
        return context.get_dummy_value()

    return types.none(types.int64, types.int64), generate


@intrinsic
def _exchange(typing, address, expected, value):
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place, expected, value = arguments
        pointer = builder.inttoptr(place, _WORD.as_pointer())
        found = builder.cmpxchg(pointer, expected, value, "acq_rel", "acquire")
        return builder.extract_value(found, 1)

    return types.boolean(types.int64, types.int64, types.int64), generate


@intrinsic
def _pause(typing):
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if platform.machine() in _PAUSES:
            name, hints = _PAUSES[platform.machine()]
            given = [ir.Constant(ir.IntType(32), hint) for hint in hints]
            kind = ir.FunctionType(ir.VoidType(), [each.type for each in given])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, name), given)
        return context.get_dummy_value()

    return types.none(), generate


@intrinsic
def _make_way(typing):
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if llvmlite.binding.address_of_symbol("sched_yield"):
            kind = ir.FunctionType(ir.IntType(32), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.none(), generate


if numba.config.DISABLE_JIT:

    def load(address: int) -> int:
        return int(words(address, 1)[0])

    def store(address: int, value: int) -> None:
        words(address, 1)[0] = value

    def exchange(address: int, expected: int, value: int) -> bool:
        """Nothing else runs meanwhile, as plain Python has no helpers."""
        is_expected = load(address) == expected
        if is_expected:
            store(address, value)
        return is_expected

    def wait(looks: int) -> None:
        pass

else:

    @compiled
    def load(address):
        """The word at an address, and all that was written before it was stored there."""
        return _load(address)

    @compiled
    def store(address, value):
        """Write a word, after all that was written before."""
        _store(address, value)

    @compiled
    def exchange(address, expected, value):
        """Write a word in the place of an expected one; whether that was there."""
        return _exchange(address, expected, value)

    @compiled
    def wait(looks):
        """A moment, after so many looks; now and then others that are ready to run come first."""
        if looks % MANY_LOOKS == MANY_LOOKS - 1:
            _make_way()
        _pause()
