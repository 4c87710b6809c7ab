"""Listings: expressions as lines of one operation each on earlier lines, and derivatives accumulated along steps.

Sharing is kept from the start, not found afterwards: one operation on the same operands is one line. SymPy
differentiates every step by what it reads; the chain rule joins these derivatives [Griewank, Walther 2008, chapter 3].
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import sympy


Step = tuple[sympy.Symbol, sympy.Expr]
"""A symbol, and what it stands for in terms of symbols of earlier steps and of what is given."""

LETTER = "v"
"""Symbols of lines start with it; no given one may."""


class Listing:
    """Lines under construction.

    Attributes
    ----------
    lines : steps of one operation each: its operands are symbols, numbers, or symbols with their sign turned.
    """

    def __init__(self) -> None:
        self.lines: list[Step] = []
        self._known: dict[sympy.Expr, sympy.Expr] = {}

    def name(self, expression: sympy.Expr) -> sympy.Expr:
        """A symbol, perhaps with its sign turned, or a number that stands for an expression, and lines for it."""
        if expression not in self._known:
            if expression.is_Atom:
                return expression
            self._known[expression] = self._made(expression)
        return self._known[expression]

    def alias(self, symbol: sympy.Symbol, expression: sympy.Expr) -> None:
        """From now on the symbol stands for the expression."""
        self._known[symbol] = self.name(expression)

    def _made(self, expression: sympy.Expr) -> sympy.Expr:
        if expression.is_Mul:
            return self._product(expression)
        if expression.is_Piecewise:
            pieces = [(self.name(branch), self._condition(condition)) for branch, condition in expression.args]
            chosen = sympy.Piecewise(*pieces)
            return self._line(chosen) if chosen.is_Piecewise else self.name(chosen)
        return self._operation(expression.func(*map(self.name, expression.args)))

    def _product(self, expression: sympy.Expr) -> sympy.Expr:
        """Two factors a line, so that the slope by one of many factors is not again a product of all others."""
        coefficient, factors = expression.as_coeff_mul()
        made = sympy.S.One
        for factor in map(self.name, factors):
            sign, factor = _unsigned(factor)
            coefficient *= sign
            made = self._operation(made * factor)
        return self._operation(coefficient * made)

    def _condition(self, condition: Any) -> Any:
        """With its sides named; it is no operation itself."""
        if condition in (sympy.true, sympy.false):
            return condition
        name = self.name if condition.is_Relational else self._condition
        return condition.func(*map(name, condition.args))

    def _operation(self, expression: sympy.Expr) -> sympy.Expr:
        """A line, unless SymPy has made something else of one operation on operands that have names."""
        return self._line(expression) if all(map(_is_plain, expression.args)) else self.name(expression)

    def _line(self, expression: sympy.Expr) -> sympy.Expr:
        if _is_plain(expression):
            return expression
        if expression not in self._known:
            symbol = sympy.Symbol(f"{LETTER}{len(self.lines)}", real=True)
            self.lines.append((symbol, expression))
            self._known[expression] = symbol
        return self._known[expression]


def _is_plain(expression: sympy.Expr) -> bool:
    return expression.is_Atom or _unsigned(expression)[0] == -1


def _unsigned(expression: sympy.Expr) -> tuple[int, sympy.Expr]:
    """A symbol and the sign it was given."""
    if expression.is_Mul and len(expression.args) == 2 and expression.args[0] is sympy.S.NegativeOne:
        if expression.args[1].is_Symbol:
            return -1, expression.args[1]
    return 1, expression


def needed(lines: Sequence[Step], outputs: Iterable[sympy.Expr]) -> list[Step]:
    """The lines that outputs come from."""
    wanted = set[sympy.Symbol]().union(*(output.free_symbols for output in outputs))
    kept: list[Step] = []
    for symbol, expression in reversed(lines):
        if symbol in wanted:
            kept.append((symbol, expression))
            wanted |= expression.free_symbols
    return kept[::-1]


def slopes(expression: sympy.Expr, by: set[sympy.Symbol]) -> Iterator[tuple[sympy.Symbol, sympy.Expr]]:
    """SymPy's derivatives by those symbols that an expression reads, of a sum term by term."""
    for term in expression.args if expression.is_Add else (expression,):
        for symbol in sorted(term.free_symbols & by, key=lambda symbol: symbol.name):
            slope = term.diff(symbol)
            if slope != 0:
                yield symbol, slope


def _dependent(steps: Sequence[Step], given: Sequence[sympy.Symbol]) -> set[sympy.Symbol]:
    """What depends on given symbols, and these themselves."""
    found = set(given)
    for symbol, expression in steps:
        if not found.isdisjoint(expression.free_symbols):
            found.add(symbol)
    return found


Accumulation = Callable[[Listing, Sequence[Step], sympy.Expr, Sequence[sympy.Symbol]], list[sympy.Expr]]
"""Derivatives of an output by given symbols, from the steps it comes from; the listing gets their lines and names."""


def reverse(
    listing: Listing, steps: Sequence[Step], output: sympy.Expr, given: Sequence[sympy.Symbol]
) -> list[sympy.Expr]:
    """Derivatives of an output by given symbols, from the last step to the first.

    Parameters
    ----------
    listing : gets the lines, and names the derivatives
    steps : what the output comes from
    """
    active, bars = _dependent(steps, given), defaultdict[sympy.Symbol, list[sympy.Expr]](list)

    def pass_on(bar: sympy.Expr, expression: sympy.Expr) -> None:
        for symbol, slope in slopes(expression, active):
            bars[symbol].append(listing.name(bar * listing.name(slope)))

    pass_on(sympy.S.One, output)
    for symbol, expression in reversed(steps):
        if symbol in bars:
            pass_on(listing.name(sympy.Add(*bars.pop(symbol))), expression)
    return [listing.name(sympy.Add(*bars[symbol])) for symbol in given]


def forward(
    listing: Listing, steps: Sequence[Step], output: sympy.Expr, given: Sequence[sympy.Symbol]
) -> list[sympy.Expr]:
    """The same from the first step to the last, for one given symbol after the other."""
    active = _dependent(steps, given)
    end = sympy.Symbol("output")
    local = [
        (symbol, [(read, listing.name(slope)) for read, slope in slopes(expression, active)])
        for symbol, expression in [*steps, (end, output)]
    ]

    def derivative(one: sympy.Symbol) -> sympy.Expr:
        dots = {one: sympy.S.One}
        for symbol, found in local:
            terms = [listing.name(slope * dots[read]) for read, slope in found if read in dots]
            if terms:
                dots[symbol] = listing.name(sympy.Add(*terms))
        return dots.get(end, sympy.S.Zero)

    return [derivative(one) for one in given]


ACCUMULATIONS: dict[str, Accumulation] = {"reverse": reverse, "forward": forward}
