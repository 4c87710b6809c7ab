"""Expressions printed once, however often they are written: what has no sharing in its text has it in its printing."""

from __future__ import annotations

from typing import Any

import sympy
from sympy.printing.codeprinter import CodePrinter


class PrintedOnce(CodePrinter):
    """Keeps the text of every expression, which depends on nothing else while names stay what they are."""

    def __init__(self, settings: dict[str, Any] | None = None) -> None:
        super().__init__(settings)
        self._printed: dict[sympy.Basic, str] = {}

    def _print(self, expr: Any, **options: Any) -> str:
        if options or not isinstance(expr, sympy.Basic):
            return super()._print(expr, **options)
        if expr not in self._printed:
            self._printed[expr] = super()._print(expr)
        return self._printed[expr]
