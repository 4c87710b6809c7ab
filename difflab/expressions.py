"""SymPy expressions of a network's loss: derived, counted, shared, compiled."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy

from difflab.network import MLP
from difflab.number_systems import Symbols
from difflab.program import Program, total, values


def _select(conditions: list[Any], choices: list[Any], default: Any) -> Any:
    """NumPy's own takes no numbers where there are arrays."""
    for condition, choice in zip(reversed(conditions), reversed(choices), strict=True):
        default = np.where(condition, choice, default)
    return default


def _sqrt(z: Any) -> Any:
    """NumPy's own takes no integer beyond 64 bits, as exact constants have; overflowed squares have no root."""
    z = np.asarray(z, np.float64)
    return np.sqrt(np.where(np.isinf(z), np.nan, z))


class _Joined:
    """A logical function whose ``reduce`` takes conditions of the batch beside plain ones, unlike NumPy's own."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def reduce(self, conditions: tuple[Any, ...]) -> Any:
        return functools.reduce(self.function, conditions)


FUNCTIONS = {
    "select": _select,
    "sqrt": _sqrt,
    "logical_or": _Joined(np.logical_or),
    "logical_and": _Joined(np.logical_and),
}
MODULES = [FUNCTIONS, "scipy", "numpy"]
"""Where generated code finds its functions."""

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
    """

    theta: list[sympy.Symbol]
    samples: list[sympy.Symbol]
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


def derive_sample(net: MLP) -> Derivation:
    """Differentiate the primal of one sample run on symbols, one ``sympy.diff`` per parameter."""
    program = net.program
    return _derive(net, 1, lambda made: made[program.losses][0])


def derive_batch(net: MLP, batch: int) -> Derivation:
    """Differentiate the loss of a whole batch, where the loss of a sample depends on the others."""
    return _derive(net, batch, lambda made: total(net.program, Symbols(), made))


def derive_totals(net: MLP) -> Derivation:
    """Differentiate what is added once to the loss of a batch."""
    program = net.program
    return _derive(net, 1, lambda made: sum((made[number] for number in program.totals), start=sympy.Integer(0)))


def _derive(net: MLP, batch: int, loss_of: Callable[[list[Any]], sympy.Expr]) -> Derivation:
    program, theta = net.program, _symbols("w", net.n_params)
    given = [_symbols(letter, batch * width) for letter, width in zip(_letters(program), program.widths, strict=False)]
    x, y, *masks = (np.array(symbols, object).reshape(batch, -1) for symbols in given)
    with deep_recursion():
        loss = loss_of(values(program, Symbols(), np.array(theta, object), x, y, masks))
        return Derivation(theta, sum(given, start=[]), loss, [sympy.diff(loss, w) for w in theta])


def _letters(program: Program) -> list[str]:
    """What symbols of each given value start with."""
    return ["x", "y", *(f"m{i}_" for i in range(len(program.masks)))]


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
    """A Python function ``(theta, samples) -> [loss, *gradient]`` on NumPy arrays.

    ``theta`` holds numbers, ``samples`` numbers, or one array for each symbol, so that one call serves a batch.
    """
    with deep_recursion():
        return sympy.lambdify(
            [derivation.theta, derivation.samples],
            [derivation.loss, *derivation.gradient],
            modules=MODULES,
            cse=lambda expressions: (shared.assignments, shared.outputs),
        )


def compile_loss(derivation: Derivation) -> Callable[..., Any]:
    """A Python function ``(theta, samples) -> loss`` on NumPy arrays, as by :func:`compile_numpy`."""
    with deep_recursion():
        arguments = [derivation.theta, derivation.samples]
        return sympy.lambdify(arguments, derivation.loss, modules=MODULES, cse=True)
