"""SymPy expressions of a network's loss: derived with or without sharing, counted, compiled."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy

from difflab.listings import ACCUMULATIONS, Listing, Step, needed
from difflab.network import MLP
from difflab.number_systems import Symbols
from difflab.program import Program, total, values
from difflab.sharing import AFTER, Way


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
    lines : what further symbols in all of these stand for, each in terms of those before it.
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


def share(derivation: Derivation, way: Way = AFTER) -> Shared:
    """What is computed once: common subexpressions of loss and gradient together, found now, or what has names."""
    return _share(derivation, [derivation.loss, *derivation.gradient], way)


def share_loss(derivation: Derivation, way: Way = AFTER) -> Shared:
    """The same of the loss alone."""
    return _share(derivation, [derivation.loss], way)


def _share(derivation: Derivation, outputs: list[sympy.Expr], way: Way) -> Shared:
    if way.sharing != "after":
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
    return sum(tree_operations([e]) for _, e in shared.assignments) + sum(tree_operations([e]) for e in shared.outputs)


class InNumpy:
    """Sums over samples of a loss and its gradient, by Python functions on NumPy arrays.

    Attributes
    ----------
    functions : of loss and gradient, and of the loss alone, from theta and an array over samples for each symbol.
    source_bytes : of the first.
    """

    def __init__(self, derivation: Derivation, shared: Shared, of_loss: Shared) -> None:
        self.functions = compile_numpy(derivation, shared), compile_loss(derivation, of_loss)
        self.source_bytes = len(inspect.getsource(self.functions[0]))

    def sums(self, theta: np.ndarray, samples: np.ndarray) -> np.ndarray:
        """Of the loss and every entry of its gradient, (1 + n_params,); samples (n_symbols, batch)."""
        with np.errstate(all="ignore"):
            found = self.functions[0](theta, list(samples))
            return np.array([_sum(entry, samples.shape[1]) for entry in found])

    def loss(self, theta: np.ndarray, samples: np.ndarray) -> float:
        """Of the loss alone."""
        with np.errstate(all="ignore"):
            return _sum(self.functions[1](theta, list(samples)), samples.shape[1])


def _sum(terms: np.ndarray | float, batch: int) -> float:
    """The sum over the batch of what may not depend on the sample."""
    return float(np.broadcast_to(terms, batch).sum())


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


def compile_loss(derivation: Derivation, shared: Shared) -> Callable[..., Any]:
    """A Python function ``(theta, samples) -> loss`` on NumPy arrays, as by :func:`compile_numpy`."""
    with deep_recursion():
        return sympy.lambdify(
            [derivation.theta, derivation.samples],
            derivation.loss,
            modules=MODULES,
            cse=lambda loss: (shared.assignments, shared.outputs[0]),
        )
