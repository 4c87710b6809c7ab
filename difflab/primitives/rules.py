"""What is written in a scalar rule: its operations, counted from its code."""

from __future__ import annotations

import dis
from collections.abc import Callable
from types import FunctionType


def rule_operations(rule: Callable[..., float]) -> int:
    """Operations written in a rule and in the functions it calls, in all branches, by :mod:`difflab.counting`.

    ``abs`` is a sign.
    """
    instructions = list(dis.get_instructions(rule))
    written = sum(step.opname in ("BINARY_OP", "CALL") for step in instructions)
    loaded = [step.argval for step in instructions if step.opname == "LOAD_GLOBAL"]
    scope = getattr(rule, "__globals__", {})
    callees = [scope[name] for name in loaded if isinstance(scope.get(name), FunctionType)]
    return written - loaded.count("abs") + sum(rule_operations(callee) - 1 for callee in callees)
