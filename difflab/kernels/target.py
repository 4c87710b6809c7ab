"""Build kernels for a target: compiled, or in plain Python where Numba's compiler is off."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any

import numba
import numpy as np
from numba import types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys

from difflab.kernels.elementary import FUSED_MATH, MATH
from difflab.kernels.flags import CALLED, ENTERED
from difflab.kernels.kept_code import (
    Machine,
    file_of,
    forget_entry_points,
    is_caching,
    keep,
    keep_entry_point,
    read,
)


PLAIN: dict[int, Callable] = {}
"""With the compiler off, functions in the place of their addresses."""

_LIBRARIES: list[Any] = []
"""What keeps compiled code in memory."""


def compiled(function: Callable) -> Any:
    """Compile for callers that are compiled too."""
    return numba.njit(**CALLED)(function)


def inlined(function: Callable) -> Any:
    """Make the function a part of its callers before these are compiled: what it calls is then compiled once less."""
    return numba.njit(inline="always", **CALLED)(function)


def within(function: Callable) -> Any:
    """Compile for the inside of a loop, of which it becomes a part."""
    return numba.njit(forceinline=True, **CALLED)(function)


@cache
def compiled_rule(rule: Callable, number: type = np.float64, fused: bool = False) -> Any:
    """Compile a rule of the primitives with all the plain functions it calls by name.

    Its ``math`` becomes vector mathematics in the precision of the arguments, fused or not, and its constants are of
    the type ``number``; loops over a rule are vectorised.
    """
    names = {name: rule.__globals__.get(name) for name in rule.__code__.co_names}
    replaced: dict[str, Any] = {
        name: compiled_rule(value, number, fused) for name, value in names.items() if isinstance(value, FunctionType)
    }
    if "math" in names:
        replaced["math"] = FUSED_MATH if fused else MATH
    code = rule.__code__
    if number is not np.float64:
        code = code.replace(co_consts=tuple(number(c) if isinstance(c, float) else c for c in code.co_consts))
    made = FunctionType(code, rule.__globals__ | replaced, rule.__name__, closure=rule.__closure__)
    return within(made)


def check_compiles(rule: Callable, n_arguments: int) -> None:
    """Compile a rule for numbers, and raise what Numba has to say of one that it cannot."""
    if not numba.config.DISABLE_JIT:
        compiled_rule(rule).compile((types.float64,) * n_arguments)


def address(name: str, function: Callable, arguments: tuple[Any, ...], is_ours: bool = True) -> int:
    """Where compiled code of a function starts: it returns nothing, and is called as Numba calls its own.

    Parameters
    ----------
    name : under which the code is kept for the next process; one function, one name.
    function : to compile.
    arguments : Numba's types of its arguments.
    is_ours : whether all its code is in the sources that name the cache.
    """
    if numba.config.DISABLE_JIT:
        PLAIN[id(function)] = function
        return id(function)
    kept = file_of(name) if is_ours else None
    found = kept and read(kept)
    if found:
        try:
            return _loaded(found)
        except Exception:
            assert kept is not None
            kept.unlink(missing_ok=True)
    kernel = numba.njit(arguments, **CALLED)(function)
    (made,) = kernel.overloads.values()
    _LIBRARIES.append(made.library)
    if kept:
        _, _, (code, bitcode) = made.library.serialize_using_object_code()
        keep(kept, Machine(made.library.name, made.fndesc.llvm_func_name, code, bitcode))
    return made.library.get_pointer_to_function(made.fndesc.llvm_func_name)


def _loaded(machine: Machine) -> int:
    with global_compiler_lock:
        rtsys.initialize(cpu_target.target_context)
        codegen = cpu_target.target_context.codegen()
        library = codegen.unserialize_library((machine.library, "object", (machine.code, machine.bitcode)))
        _LIBRARIES.append(library)
        found = library.get_pointer_to_function(machine.symbol)
    if not found:
        raise LookupError(f"kept code must define {machine.symbol}")
    return found


def entry_point(*signatures: Any) -> Callable[[Callable], Any]:
    """Compile a kernel that Python calls for these signatures, and keep its code on disk for the next process.

    Arguments of other types raise a TypeError. Numba's own cache does not see edits to what a kernel calls, so the
    directory is named by a digest of all that compiled code depends on. ``DIFFLAB_NO_CACHE=1`` turns the cache off.
    """

    def build(function: Callable) -> Any:
        if numba.config.DISABLE_JIT:
            return function
        for _ in range(2 if is_caching() else 0):
            try:
                return _eager(function, signatures, is_kept=True)
            except Exception:
                # Whatever is wrong with code that was kept, it can be made and kept again.
                forget_entry_points()
        return _eager(function, signatures, is_kept=False)

    return build


def _eager(function: Callable, signatures: tuple[Any, ...], is_kept: bool) -> Any:
    kernel = numba.njit(**ENTERED)(function)
    if is_kept:
        keep_entry_point(kernel, signatures)
    for signature in signatures:
        kernel.compile(signature)
    kernel.disable_compile()
    return kernel
