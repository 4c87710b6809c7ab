"""Printed Python functions, loaded without anything being run; they reach the names they are given and no others."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any


def functions(text: str, names: Mapping[str, Any]) -> dict[str, types.FunctionType]:
    """The functions that a text defines, by their names."""
    module = compile(text, "<expressions>", "exec")
    codes = [constant for constant in module.co_consts if isinstance(constant, types.CodeType)]
    return {code.co_name: types.FunctionType(code, {"__builtins__": {}, **names}, code.co_name) for code in codes}
