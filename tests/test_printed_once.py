"""Expressions printed once: the text that SymPy writes, from as many steps as there are different expressions."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import sympy
from sympy.printing.c import C99CodePrinter
from sympy.printing.numpy import NumPyPrinter

from difflab.derivation.printed_once import PrintedOnce


LEVELS = 12
PRINTERS = {"numpy": NumPyPrinter, "c": C99CodePrinter}


def nested(levels: int) -> sympy.Expr:
    """Written out, it has twice as many symbols with every level."""
    a, b = sympy.symbols("a b", real=True)
    for _ in range(levels):
        a = (a + b) * sympy.exp(a)
    return a


def counting(printer: type) -> type:
    """A printer that counts how often it prints sums."""

    class Counting(printer):
        counts: Counter[str]

        def _print_Add(self, expr: sympy.Add, order: str | None = None) -> str:
            self.counts["sums"] += 1
            return super()._print_Add(expr, order=order)

    return Counting


def printed(printer: type, expression: sympy.Expr, **settings: Any) -> tuple[str, int]:
    made = counting(printer)(settings)
    made.counts = Counter()
    return made.doprint(expression), made.counts["sums"]


@pytest.mark.parametrize("language", PRINTERS)
def test_the_text_is_that_of_the_printer_and_every_sum_is_printed_once(language):
    plain = PRINTERS[language]
    once = type("Once", (PrintedOnce, plain), {})
    expected, walked = printed(plain, nested(LEVELS))
    found, steps = printed(once, nested(LEVELS))
    assert found == expected
    assert (walked, steps) == (2**LEVELS - 1, LEVELS)


def test_printers_share_nothing():
    once = type("Once", (PrintedOnce, C99CodePrinter), {})
    a = sympy.Symbol("a")
    named = once({"user_functions": {"exp": "e"}})
    assert (named.doprint(sympy.exp(a)), once().doprint(sympy.exp(a))) == ("e(a)", "exp(a)")
