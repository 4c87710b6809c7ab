"""How code on single numbers writes these, whole powers and given symbols, in C and in Python alike."""

from __future__ import annotations

from collections.abc import Callable

import sympy

from difflab.derivation.expressions import Derivation, Shared, deep_recursion
from difflab.derivation.long_sums import LongSums
from difflab.derivation.printed_once import PrintedOnce


MOST_FACTORS = 8
"""Whole powers up to which a power is a product."""


GUARD = "if_finite"
"""Of code, a function that makes infinities NaN.

Roots are of sums of squares. When these overflow nothing is known of them: infinity would make quotients zero.
"""


class ScalarPrinter(PrintedOnce, LongSums):
    """Numbers as doubles, whole powers as products, roots of what is finite, and given symbols as entries of arrays."""

    places: dict[sympy.Symbol, str]

    def put(self, places: dict[sympy.Symbol, str]) -> None:
        """Where given symbols are found."""
        self.places = places
        self.forget()

    def assigned(self, name: str, expression: str) -> str:
        """A line that gives a number a name."""
        return f"{name} = {expression}"

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
        if not power.is_Integer and not expr.base.is_number:
            guarded = sympy.Symbol(f"{GUARD}({self._print(expr.base)})")
            return super()._print_Pow(sympy.Pow(guarded, power, evaluate=False))
        return super()._print_Pow(expr)


def _is_name(expression: sympy.Expr) -> bool:
    """Whether it costs nothing to write it down again."""
    return bool(expression.is_Symbol)


def functions(
    write: Callable[[str, str], str],
    printer: ScalarPrinter,
    parts: tuple[Derivation, Shared, Shared],
    sample: str,
    end: str,
) -> tuple[str, str]:
    """Functions that add up loss and gradient, and the loss alone, over samples, which are columns.

    Parameters
    ----------
    write : from a name and the lines of the loop, a function
    printer : of the language; it learns where given symbols are found
    parts : a derivation, with what is shared of all and of the loss alone
    sample, end : the index into samples, with the place of its number, and what ends a line
    """
    derivation, *shared = parts
    printer.put(_places(derivation, sample))
    names = "loss_and_gradient", "loss"
    both, loss = (write(name, _lines(printer, one, end)) for name, one in zip(names, shared, strict=True))
    return both, loss


def _lines(printer: ScalarPrinter, shared: Shared, end: str) -> str:
    with deep_recursion():
        lines = [printer.assigned(symbol.name, printer.doprint(e)) for symbol, e in shared.assignments]
        lines += [f"out[{k}] += {printer.doprint(output)}" for k, output in enumerate(shared.outputs)]
    return "".join(f"        {line}{end}\n" for line in lines)


def _places(derivation: Derivation, sample: str) -> dict[sympy.Symbol, str]:
    found = {symbol: f"theta[{k}]" for k, symbol in enumerate(derivation.theta)}
    return found | {symbol: f"samples[{sample.format(k)}]" for k, symbol in enumerate(derivation.samples)}
