"""SymPy expressions of a network's loss: derived with or without sharing, simplified, counted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sympy

from difflab.derivation import symengine_engine
from difflab.derivation.listings import ACCUMULATIONS, Listing, Step, needed
from difflab.derivation.sharing import AFTER, Way
from difflab.network import MLP
from difflab.number_systems import Symbols
from difflab.program import Program, total, values


RECURSION_LIMIT = 20_000
"""SymPy recurses on the depth of expressions; at Python's own limit a net of depth 60 already fails."""


@dataclass(frozen=True)
class Derivation:
    """A loss and its derivative with respect to every parameter, as SymPy gives them.

    Attributes
    ----------
    theta : the symbols of the parameters.
    samples : the symbols of all else that the loss depends on: x, y and masks of one sample, or of all samples of the
        batch one after the other.
    loss : of that sample, not divided by anything and without totals; or of that batch.
    gradient : one expression for each parameter.
    lines : what further symbols in all of these stand for, each in terms of those before it: steps of the chain rule,
        or what another engine found in common.
    """

    theta: list[sympy.Symbol]
    samples: list[sympy.Symbol]
    loss: sympy.Expr
    gradient: list[sympy.Expr]
    lines: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Shared:
    """The same expressions with subexpressions named: assignments, then loss and gradient."""

    assignments: list[Step]
    outputs: list[sympy.Expr]


@contextmanager
def deep_recursion() -> Iterator[None]:
    """Let SymPy recurse on deep expressions."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, RECURSION_LIMIT))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def _symbols(letter: str, n: int) -> list[sympy.Symbol]:
    """Names come from here alone: generated code must never contain a user's text."""
    return [sympy.Symbol(f"{letter}{i}", real=True) for i in range(n)]


def derive_sample(net: MLP, way: Way = AFTER) -> Derivation:
    """Differentiate the primal of one sample run on symbols."""
    program = net.program
    return _derive(net, 1, lambda made: made[program.losses][0], way)


def derive_batch(net: MLP, batch: int, way: Way = AFTER) -> Derivation:
    """Differentiate the loss of a whole batch, where the loss of a sample depends on the others."""
    return _derive(net, batch, lambda made: total(net.program, Symbols(), made), way)


def derive_totals(net: MLP, way: Way = AFTER) -> Derivation:
    """Differentiate what is added once to the loss of a batch."""
    program = net.program
    return _derive(net, 1, lambda made: sum((made[number] for number in program.totals), start=sympy.Integer(0)), way)


LossOf = Callable[[list[Any]], sympy.Expr]
"""The loss that is meant, from all values of a program."""


def _derive(net: MLP, batch: int, loss_of: LossOf, way: Way) -> Derivation:
    program, theta = net.program, _symbols("w", net.n_params)
    given = [_symbols(letter, batch * width) for letter, width in zip(_letters(program), program.widths, strict=False)]
    x, y, *masks = (np.array(symbols, object).reshape(batch, -1) for symbols in given)

    def run(**hook: Any) -> sympy.Expr:
        return loss_of(values(program, Symbols(), np.array(theta, object), x, y, masks, **hook))

    samples: list[sympy.Symbol] = sum(given, start=[])
    with deep_recursion():
        if way.is_accumulated:
            return _accumulated(theta, samples, run, way)
        loss = run()
        if way.engine == "symengine":
            lines, (loss, *gradient) = symengine_engine.derived(loss, theta, samples, way.sharing == "after")
            return Derivation(theta, samples, loss, gradient, lines)
        return Derivation(theta, samples, loss, [sympy.diff(loss, w) for w in theta])


def _accumulated(
    theta: list[sympy.Symbol], samples: list[sympy.Symbol], run: Callable[..., sympy.Expr], way: Way
) -> Derivation:
    """Differentiate with every value of the program under a name; ``run`` takes the hook of ``program.values``."""
    listing, steps = Listing(), list[Step]()

    def by_itself(entry: sympy.Expr) -> sympy.Expr:
        """An entry of a value as a step, which is differentiated as a whole."""
        if entry.is_Atom:
            return entry
        symbol = sympy.Symbol(f"h{len(steps)}", real=True)
        steps.append((symbol, entry))
        listing.alias(symbol, entry)
        return symbol

    is_layerwise = way.sharing == "layerwise"
    output = run(kept=np.frompyfunc(by_itself if is_layerwise else listing.name, 1, 1))
    loss = listing.name(output)
    if not is_layerwise:
        output, steps = loss, listing.lines.copy()
    gradient = ACCUMULATIONS[way.order](listing, steps, output, theta)
    return Derivation(theta, samples, loss, gradient, tuple(needed(listing.lines, [loss, *gradient])))


def _letters(program: Program) -> list[str]:
    """What symbols of each given value start with."""
    return ["x", "y", *(f"m{i}_" for i in range(len(program.masks)))]


def _horner(expression: sympy.Expr) -> sympy.Expr:
    """In Horner's form, if it is a polynomial in anything."""
    try:
        return sympy.horner(expression)
    except sympy.PolynomialError:
        return expression


SIMPLIFIERS: dict[str, Callable[[sympy.Expr], sympy.Expr]] = {
    "factor_terms": sympy.factor_terms,
    "simplify": sympy.simplify,
    "horner": _horner,
}


def simplified(derivation: Derivation, way: Way) -> Derivation:
    """The same loss and derivatives, each simplified by itself."""
    if way.simplification == "none":
        return derivation
    simplify = SIMPLIFIERS[way.simplification]
    with deep_recursion():
        gradient = [simplify(entry) for entry in derivation.gradient]
        return replace(derivation, loss=simplify(derivation.loss), gradient=gradient)


def share(derivation: Derivation, way: Way = AFTER) -> Shared:
    """What is computed once: common subexpressions of loss and gradient together, found now, or what has names."""
    return _share(derivation, [derivation.loss, *derivation.gradient], way)


def share_loss(derivation: Derivation, way: Way = AFTER) -> Shared:
    """The same of the loss alone."""
    return _share(derivation, [derivation.loss], way)


def _share(derivation: Derivation, outputs: list[sympy.Expr], way: Way) -> Shared:
    if way.sharing != "after" or way.engine != "sympy":
        return Shared(needed(derivation.lines, outputs), outputs)
    with deep_recursion():
        return Shared(*sympy.cse(outputs, order="none"))


def tree_operations(expressions: Iterable[sympy.Expr], lines: Iterable[Step] = ()) -> int:
    """Operations of the expressions written out as trees, counted over the shared graph, exact at any size.

    A sum or product of n terms counts n - 1, a power or a function 1, a sign nothing. SymPy's own ``count_ops`` differs
    in that it counts signs and takes a quotient for one operation. ``lines`` say what symbols stand for.
    """
    known: dict[sympy.Expr, int] = {}
    with deep_recursion():
        for symbol, expression in lines:
            known[symbol] = _tree_operations(expression, known)
        return sum(_tree_operations(expression, known) for expression in expressions)


def _tree_operations(expression: sympy.Expr, known: dict[sympy.Expr, int]) -> int:
    if expression not in known:
        if not expression.args:
            return 0
        known[expression] = _own_operations(expression) + sum(
            _tree_operations(operand, known) for operand in _operands(expression)
        )
    return known[expression]


def _own_operations(expression: sympy.Expr) -> int:
    if expression.is_Add or expression.is_Mul:
        return len(expression.args) - 1 - (expression.args[0] is sympy.S.NegativeOne)
    return 1


def _operands(expression: sympy.Expr) -> tuple[sympy.Expr, ...]:
    """Conditions of a piecewise expression are no operations."""
    if expression.is_Piecewise:
        return tuple(branch for branch, _ in expression.args)
    return expression.args


def shared_operations(shared: Shared) -> int:
    """Operations after common subexpressions are computed once, by the convention of :func:`tree_operations`."""
    return sum(tree_operations([e]) for e in _written(shared))


def counted_by_sympy(shared: Shared) -> int:
    """The same by SymPy's own ``count_ops``: signs count one, a quotient one operation and not two."""
    with deep_recursion():
        return sum(int(sympy.count_ops(e)) for e in _written(shared))


def _written(shared: Shared) -> list[sympy.Expr]:
    return [*(expression for _, expression in shared.assignments), *shared.outputs]
