"""Expressions printed once: the text that SymPy writes, from as many steps as there are different expressions."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import sympy
from sympy.printing.printer import Printer

from difflab.derivation import c_code, loop_code, numpy_code
from difflab.derivation.printed_once import PrintedOnce


LEVELS = 12
A, B = sympy.symbols("a b", real=True)
PRINTERS = {"numpy": numpy_code._Printer, "numba": loop_code._Printer, "c": c_code._Printer}

each_language = pytest.mark.parametrize("language", PRINTERS)


def nested(levels: int) -> sympy.Expr:
    """Written out, it has twice as many symbols with every level."""
    made = A
    for _ in range(levels):
        made = (made + B) * sympy.exp(made)
    return made


def counting(printer: type[PrintedOnce], is_plain: bool) -> type[PrintedOnce]:
    """A printer that counts the sums it prints; a plain one prints them as SymPy does, as often as they are written."""

    class Counting(printer):
        counts: Counter[str]

        if is_plain:

            def _print(self, expr: Any, **options: Any) -> str:
                return Printer._print(self, expr, **options)

        def _print_Add(self, expr: sympy.Add, order: str | None = None) -> str:
            self.counts["sums"] += 1
            return super()._print_Add(expr, order=order)

    return Counting


def printed(printer: type[PrintedOnce], is_plain: bool) -> tuple[str, int]:
    made = counting(printer, is_plain)({})
    made.counts, made.places = Counter(), {}
    return made.doprint(nested(LEVELS)), made.counts["sums"]


@each_language
def test_the_text_is_that_of_a_plain_printer_and_every_sum_is_printed_once(language):
    expected, walked = printed(PRINTERS[language], is_plain=True)
    found, steps = printed(PRINTERS[language], is_plain=False)
    assert found == expected
    assert (walked, steps) == (2**LEVELS - 1, LEVELS)


@each_language
def test_nothing_else_walks_what_is_written_out(language, monkeypatch):
    printer, walked = PRINTERS[language]({}), []
    printer.places = {}
    monkeypatch.setattr(sympy.Basic, "replace", lambda self, *_: walked.append(self) or self)
    assert printer.doprint(nested(2))
    assert walked == []


@pytest.mark.parametrize("language", ["numba", "c"])
def test_symbols_that_are_put_elsewhere_are_printed_anew(language):
    printer = PRINTERS[language]({})
    texts = []
    for place in ("theta[0]", "theta[1]"):
        printer.put({A: place})
        texts.append(printer.doprint(A + B))
    assert texts[0] != texts[1] == texts[0].replace("theta[0]", "theta[1]")
