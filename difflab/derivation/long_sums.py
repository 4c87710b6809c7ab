"""Sums of many terms, written in pieces: compilers recurse on the terms of a sum, and would go too deep."""

from __future__ import annotations

import sympy
from sympy.printing.codeprinter import CodePrinter


MOST_TERMS = 500
"""Of a piece."""


class LongSums(CodePrinter):
    """Writes a sum of more terms as a sum of sums."""

    def _print_Add(self, expr: sympy.Add, order: str | None = None) -> str:
        terms = expr.args
        if len(terms) <= MOST_TERMS:
            return super()._print_Add(expr, order=order)
        starts = range(0, len(terms), MOST_TERMS)
        pieces = (sympy.Add(*terms[start : start + MOST_TERMS], evaluate=False) for start in starts)
        return " + ".join(f"({self._print(piece)})" for piece in pieces)
