"""How code on single numbers writes these, whole powers and given symbols, in C and in Python alike."""

from __future__ import annotations

import sympy
from sympy.printing.codeprinter import CodePrinter


MOST_FACTORS = 8
"""Whole powers up to which a power is a product."""


class ScalarPrinter(CodePrinter):
    """Numbers as doubles, whole powers as products, and given symbols as entries of arrays."""

    places: dict[sympy.Symbol, str]

    def _print_Symbol(self, expr: sympy.Symbol) -> str:
        return self.places.get(expr, expr.name)

    def _print_Integer(self, expr: sympy.Integer) -> str:
        return self._print_Rational(expr)

    def _print_Rational(self, expr: sympy.Rational) -> str:
        return repr(float(expr)) if expr >= 0 else f"({float(expr)!r})"

    def _print_Pow(self, expr: sympy.Pow) -> str:
        power = expr.exp
        if power.is_Integer and 1 < abs(power) <= MOST_FACTORS and _is_name(expr.base):
            product = "*".join([self._print(expr.base)] * abs(int(power)))
            return f"({product})" if power > 0 else f"(1.0/({product}))"
        return super()._print_Pow(expr)


def _is_name(expression: sympy.Expr) -> bool:
    """Whether it costs nothing to write it down again."""
    return bool(expression.is_Symbol)


def places(theta: list[sympy.Symbol], samples: list[sympy.Symbol], sample: str) -> dict[sympy.Symbol, str]:
    """Where given symbols are found; ``sample`` is the index into samples, with the place of its number."""
    found = {symbol: f"theta[{k}]" for k, symbol in enumerate(theta)}
    return found | {symbol: f"samples[{sample.format(k)}]" for k, symbol in enumerate(samples)}
