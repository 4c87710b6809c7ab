"""Printed Python functions, loaded without anything being run; they reach the names they are given and no others."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any


ATTRIBUTES = {"reduce", "shape"}
"""Of what they are given, those that printed functions use."""


def functions(text: str, names: Mapping[str, Any]) -> dict[str, types.FunctionType]:
    """The functions that a text defines, by their names.

    Raises
    ------
    NotImplementedError
        If they use a name that they are not given.
    """
    module = compile(text, "<expressions>", "exec")
    codes = [constant for constant in module.co_consts if isinstance(constant, types.CodeType)]
    for name in {name for code in codes for name in code.co_names} - set(names) - ATTRIBUTES:
        raise NotImplementedError(f"functions of expressions must be of {', '.join(sorted(names))}, got {name}")
    return {code.co_name: types.FunctionType(code, {"__builtins__": {}, **names}, code.co_name) for code in codes}
