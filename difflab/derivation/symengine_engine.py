"""SymEngine in SymPy's place: a loss goes over to it, its derivatives come back with what they have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy
from sympy.logic.boolalg import Boolean

from difflab.derivation.listings import LETTER, Step


def derived(
    loss: sympy.Expr, theta: Sequence[sympy.Symbol], others: Sequence[sympy.Symbol], is_shared: bool
) -> tuple[tuple[Step, ...], list[sympy.Expr]]:
    """Lines, then the loss and its derivatives by theta.

    Common subexpressions are found by SymEngine too, since what comes back is written out as a tree.
    """
    import symengine

    made = symengine.S(loss.replace(sympy.ITE, _without_choice))
    outputs = [made, *(symengine.diff(made, symengine.Symbol(w.name)) for w in theta)]
    found, outputs = symengine.cse(outputs) if is_shared else ([], outputs)
    known: dict[sympy.Basic, sympy.Basic] = {sympy.Symbol(symbol.name): symbol for symbol in (*theta, *others)}
    lines = list[Step]()
    for symbol, expression in found:
        name, made = sympy.Symbol(str(symbol)), _back(expression, known)
        if isinstance(made, Boolean):  # Which SymEngine's symbol for it, a number to SymPy, is compared with true.
            known[sympy.Eq(name, sympy.true)] = made
        else:
            known[name] = sympy.Symbol(f"{LETTER}{len(lines)}", real=True)
            lines.append((known[name], made))
    return tuple(lines), [_back(output, known) for output in outputs]


def _without_choice(test: Boolean, if_true: Boolean, if_false: Boolean) -> Boolean:
    """A condition that chooses between two, as SymEngine can say it."""
    return sympy.Or(sympy.And(test, if_true), sympy.And(sympy.Not(test), if_false))


def _back(expression: Any, known: dict[sympy.Basic, sympy.Basic]) -> sympy.Expr:
    """As SymPy writes it, with the symbols that it came from, which are known to be real, and with its conditions."""
    return expression._sympy_().xreplace(known)
