"""SymPy expressions of a network's loss: derived with or without sharing, simplified, counted."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
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


class _DeepRecursion:
    """The limit of the interpreter, raised while any thread asks for it."""

    def __init__(self) -> None:
        self._lock, self._inside, self._before = threading.Lock(), 0, 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = sys.getrecursionlimit()
                sys.setrecursionlimit(max(self._before, RECURSION_LIMIT))
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                sys.setrecursionlimit(self._before)


_DEEP_RECURSION = _DeepRecursion()


def deep_recursion() -> AbstractContextManager[None]:
    """Let SymPy recurse on deep expressions."""
    return _DEEP_RECURSION


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
    if not way.shares_afterwards:
        return Shared(needed(derivation.lines, outputs), outputs)
    with deep_recursion():
        return Shared(*sympy.cse(outputs, order="none"))


def tree_operations(expressions: Iterable[sympy.Expr], lines: Iterable[Step] = ()) -> int:
    """Operations of the expressions written out as trees, counted over the shared graph, exact at any size.

    The convention of :mod:`difflab.counting`: a sum or product of n terms counts n - 1, a quotient, a power or a
    function 1, signs and choices nothing; SymPy's own ``count_ops`` counts these two. ``lines`` say what symbols stand
    for.
    """
    known: dict[sympy.Expr, int] = {}
    with deep_recursion():
        for symbol, expression in lines:
            known[symbol] = _tree_operations(expression, known)
        return sum(_tree_operations(expression, known) for expression in expressions)


def graph(derivation: Derivation) -> tuple[int, int]:
    """Nodes of loss and gradient that are no atoms, equal ones being one, and the operations of these nodes."""
    known: dict[sympy.Expr, int] = {}
    with deep_recursion():
        for expression in (*(line for _, line in derivation.lines), derivation.loss, *derivation.gradient):
            _tree_operations(expression, known)
    return len(known), sum(map(_own_operations, known))


def _tree_operations(expression: sympy.Expr, known: dict[sympy.Expr, int]) -> int:
    if expression not in known:
        if not expression.args:
            return 0
        known[expression] = _own_operations(expression) + sum(
            _tree_operations(operand, known) for operand in _operands(expression)
        )
    return known[expression]


def _own_operations(expression: sympy.Expr) -> int:
    if expression.is_Mul:
        return _own_operations_of_product(expression.args)
    if expression.is_Add:
        return len(expression.args) - 1
    return 0 if expression.is_Piecewise else 1


def _own_operations_of_product(factors: tuple[sympy.Expr, ...]) -> int:
    """Beside those of its factors; where a quotient is meant, the reciprocal among these is no operation by itself."""
    others = len(factors) - (factors[0] is sympy.S.NegativeOne)
    reciprocals = sum(factor.is_Pow and factor.exp is sympy.S.NegativeOne for factor in factors)
    return others - 1 - min(reciprocals, others - 1)


def _operands(expression: sympy.Expr) -> tuple[sympy.Expr, ...]:
    """Conditions of a piecewise expression are no operations."""
    if expression.is_Piecewise:
        return tuple(branch for branch, _ in expression.args)
    return expression.args


def shared_operations(shared: Shared) -> int:
    """Operations after common subexpressions are computed once, by the convention of :func:`tree_operations`."""
    return sum(tree_operations([e]) for e in _written(shared))


def counted_by_sympy(shared: Shared) -> int:
    """The same by SymPy's own ``count_ops``, which counts signs and choices."""
    with deep_recursion():
        return sum(int(sympy.count_ops(e)) for e in _written(shared))


def _written(shared: Shared) -> list[sympy.Expr]:
    return [*(expression for _, expression in shared.assignments), *shared.outputs]
