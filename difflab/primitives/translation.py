"""A SymPy expression as a formula in the vocabulary of number systems."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from difflab.number_systems import Array, NumberSystem


if TYPE_CHECKING:
    import sympy

FUNCTIONS = ("exp", "log", "sin", "cos", "tanh", "erfc")
"""SymPy's functions that number systems have under the same name."""

WORDS = f"sums, products, integer and square-root powers, {', '.join(FUNCTIONS)}, erf, Abs and Max(0, ...)"


def formula(expression: sympy.Expr, symbols: tuple[str, ...]) -> Callable[..., Array]:
    """The function ``(m, *arguments)`` over a number system ``m`` that the expression stands for.

    Parameters
    ----------
    expression : in symbols of the names ``symbols``, which stand for the arguments in their order

    Raises
    ------
    ValueError
        If the expression has another symbol, or something that number systems do not know.
    """
    import sympy

    if not expression.free_symbols:
        raise ValueError(f"expression must depend on {symbols[0]}, got {expression}")
    strange = {symbol.name for symbol in expression.free_symbols} - set(symbols)
    if strange:
        raise ValueError(f"expression must be in {' and '.join(symbols)}, got {', '.join(sorted(strange))} as well")
    for part in sympy.preorder_traversal(expression):
        if not _is_known(part):
            raise ValueError(f"expression must be of {WORDS}, got {part}; or pass a function (m, z) of a number system")
    return lambda m, *arguments: _value(expression, m, dict(zip(symbols, arguments, strict=True)))


def _is_known(part: Any) -> bool:
    if part.is_Pow:
        return bool(part.exp.is_Integer or abs(2 * part.exp) == 1)
    if part.is_Function:
        name = type(part).__name__
        return name in (*FUNCTIONS, "erf", "Abs") or (name == "Max" and 0 in part.args and len(part.args) == 2)
    if part.is_Number:
        return _is_exact(part)
    return bool(part.is_Symbol or part.is_Add or part.is_Mul)


def _is_exact(number: Any) -> bool:
    """Whether floats hold it: a Float, or numerator and denominator of a rational number."""
    parts = (number.p, number.q) if number.is_Rational else (number,)
    return all(part == float(part) for part in parts)


def _value(part: Any, m: NumberSystem, known: dict[str, Array]) -> Array:
    """The number that a part of the expression stands for."""
    if part.is_Symbol:
        return known[part.name]
    if part.is_Rational:
        return _number(m, part.p) / part.q
    if part.is_Float:
        return _number(m, part)
    operands = [_value(operand, m, known) for operand in part.args if not part.is_Pow]
    if part.is_Add:
        return sum(operands[1:], start=operands[0])
    if part.is_Mul:
        return _product(operands)
    if part.is_Pow:
        return _power(_value(part.base, m, known), part.exp, m)
    return _applied(type(part).__name__, part, operands, m)


def _number(m: NumberSystem, number: Any) -> Array:
    return m.array(np.array([float(number)]))


def _product(factors: list[Array]) -> Array:
    product = factors[0]
    for factor in factors[1:]:
        product = product * factor
    return product


def _power(base: Array, exponent: Any, m: NumberSystem) -> Array:
    """Products and roots: the power of a ball around 0 is not a number in Arb."""
    if exponent < 0:
        return 1 / _power(base, -exponent, m)
    return _product([base] * int(exponent)) if exponent.is_Integer else m.sqrt(base)


def _applied(name: str, part: Any, operands: list[Array], m: NumberSystem) -> Array:
    if name == "erf":
        return 1 - m.erfc(operands[0])
    if name == "Abs":
        return m.positive_part(operands[0]) - m.negative_part(operands[0])
    if name == "Max":
        return m.positive_part(operands[1 if part.args[0] == 0 else 0])
    return getattr(m, name)(operands[0])
