"""Expressions printed once, however often they are written: what has no sharing in its text has it in its printing."""

from __future__ import annotations

from typing import Any

import sympy
from sympy.printing.codeprinter import CodePrinter


class PrintedOnce(CodePrinter):
    """Keeps the texts of operations, for as long as those of symbols stay what they are."""

    def __init__(self, settings: dict[str, Any] | None = None) -> None:
        super().__init__(settings)
        self._printed: dict[sympy.Basic, str] = {}

    def forget(self) -> None:
        """Print everything anew, as symbols have other texts from now on."""
        self._printed.clear()

    def _handle_UnevaluatedExpr(self, expr: Any) -> Any:
        """SymPy walks all that is written out for what has not been evaluated yet, and there is none of that here."""
        return expr

    def _print(self, expr: Any, **options: Any) -> str:
        if options or not isinstance(expr, sympy.Basic) or expr.is_Atom:
            return super()._print(expr, **options)
        if expr not in self._printed:
            self._printed[expr] = super()._print(expr)
        return self._printed[expr]
