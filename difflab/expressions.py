"""SymPy expressions of a network's loss: derived, counted, shared, compiled."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy

from difflab.network import MLP
from difflab.number_systems import Symbols
from difflab.program import primal


RECURSION_LIMIT = 20_000
"""SymPy recurses on the depth of expressions; at Python's own limit a net of depth 60 already fails."""


@dataclass(frozen=True)
class Derivation:
    """The loss of one sample and its derivative with respect to every parameter, as SymPy gives them."""

    theta: list[sympy.Symbol]
    x: list[sympy.Symbol]
    y: list[sympy.Symbol]
    loss: sympy.Expr
    gradient: list[sympy.Expr]


@dataclass(frozen=True)
class Shared:
    """The same expressions with common subexpressions named: assignments, then loss and gradient."""

    assignments: list[tuple[sympy.Symbol, sympy.Expr]]
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


def derive(net: MLP) -> Derivation:
    """Differentiate the primal run on symbols, one ``sympy.diff`` per parameter."""
    theta, x, y = (_symbols(*of) for of in (("w", net.n_params), ("x", net.n_inputs), ("y", net.n_outputs)))
    with deep_recursion():
        arrays = (np.array(symbols, object) for symbols in (theta, x, y))
        flat, inputs, targets = arrays
        loss = primal(net.program, Symbols(), flat, inputs[None], targets[None])
        return Derivation(theta, x, y, loss, [sympy.diff(loss, w) for w in theta])


def share(derivation: Derivation) -> Shared:
    """Common subexpressions of loss and gradient together, after differentiating."""
    with deep_recursion():
        return Shared(*sympy.cse([derivation.loss, *derivation.gradient], order="none"))


def tree_operations(expressions: Iterable[sympy.Expr]) -> int:
    """Operations of the expressions written out as trees, counted over the shared graph.

    A sum or product of n terms counts n - 1, a power or a function 1, a sign nothing. SymPy's own ``count_ops`` differs
    in that it counts signs and takes a quotient for one operation.
    """
    known: dict[sympy.Expr, int] = {}
    with deep_recursion():
        return sum(_tree_operations(expression, known) for expression in expressions)


def _tree_operations(expression: sympy.Expr, known: dict[sympy.Expr, int]) -> int:
    if not expression.args:
        return 0
    if expression not in known:
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
    return sum(tree_operations([e]) for _, e in shared.assignments) + sum(tree_operations([e]) for e in shared.outputs)


def compile_numpy(derivation: Derivation, shared: Shared) -> Callable[..., list[Any]]:
    """A Python function ``(theta, x, y) -> [loss, *gradient]`` on NumPy arrays.

    ``theta`` holds numbers, ``x`` and ``y`` hold one array per column, so that one call serves a batch.
    """
    with deep_recursion():
        return sympy.lambdify(
            [derivation.theta, derivation.x, derivation.y],
            [derivation.loss, *derivation.gradient],
            modules="numpy",
            cse=lambda expressions: (shared.assignments, shared.outputs),
        )


def compile_loss(derivation: Derivation) -> Callable[..., Any]:
    """A Python function ``(theta, x, y) -> losses`` on NumPy arrays, laid out as in :func:`compile_numpy`."""
    with deep_recursion():
        arguments = [derivation.theta, derivation.x, derivation.y]
        return sympy.lambdify(arguments, derivation.loss, modules="numpy", cse=True)
