"""SymPy's derivatives of a network evaluated in balls: neither our rules nor our sweeps have a part in them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy
from flint import arb

from difflab.derivation.expressions import (
    Derivation,
    deep_recursion,
    derive_batch,
    derive_sample,
    derive_totals,
    simplified,
)
from difflab.derivation.sharing import AFTER, Way
from difflab.enclosures.derivatives import Point
from difflab.enclosures.enclosed import Enclosed, enclosed, nothing_known
from difflab.enclosures.precision import MAX_BITS, doubling
from difflab.errors import Undecided
from difflab.network import MLP
from difflab.number_systems import Array


FUNCTIONS: dict[Any, Callable[[arb], arb]] = {
    sympy.exp: arb.exp,
    sympy.log: arb.log,
    sympy.tanh: arb.tanh,
    sympy.erfc: arb.erfc,
    sympy.sin: arb.sin,
    sympy.cos: arb.cos,
    sympy.tan: arb.tan,
    sympy.cosh: arb.cosh,
    sympy.sinh: arb.sinh,
    sympy.coth: arb.coth,
}
"""Those of the primitives, and what SymPy makes of them where it simplifies."""

RELATIONS: dict[Any, Callable[[arb, arb], bool]] = {
    sympy.Le: lambda a, b: a <= b,
    sympy.Lt: lambda a, b: a < b,
    sympy.Ge: lambda a, b: a >= b,
    sympy.Gt: lambda a, b: a > b,
    sympy.Eq: lambda a, b: a == b,
    sympy.Ne: lambda a, b: a != b,
}
OPPOSITES = {
    sympy.Le: sympy.Gt,
    sympy.Gt: sympy.Le,
    sympy.Lt: sympy.Ge,
    sympy.Ge: sympy.Lt,
    sympy.Eq: sympy.Ne,
    sympy.Ne: sympy.Eq,
}
CONNECTIVES = {sympy.And: all, sympy.Or: any, sympy.Not: lambda truths: not next(iter(truths))}


def gradient(net: MLP, point: Point) -> Array:
    """Balls of the gradient with respect to theta, (n_params,), at the working precision."""
    return value_and_gradient(net, point)[1:]


def value_and_gradient(net: MLP, point: Point, way: Way = AFTER) -> Array:
    """Balls of the loss of the batch and of its gradient, (1 + n_params,)."""
    return Expressions.of(net, way, len(point.x)).at(point)


@dataclass(frozen=True)
class Expressions:
    """What a loss and its gradient are: of one sample or, where samples are coupled, of a batch, and what is added."""

    net: MLP
    of_loss: Derivation
    of_totals: Derivation | None

    @classmethod
    def of(cls, net: MLP, way: Way, batch: int) -> Expressions:
        """Derive them."""
        program = net.program
        if program.couples_samples:
            return cls(net, simplified(derive_batch(net, batch, way), way), None)
        of_totals = simplified(derive_totals(net, way), way) if program.totals else None
        return cls(net, simplified(derive_sample(net, way), way), of_totals)

    def at(self, point: Point) -> Array:
        """Balls of the loss of the batch and of its gradient, (1 + n_params,)."""
        program = self.net.program
        given = [point.x, point.y, *program.draw_masks(len(point.x))]
        if program.couples_samples:
            return evaluated(self.of_loss, point.theta, given)
        samples = [evaluated(self.of_loss, point.theta, list(rows)) for rows in zip(*given, strict=True)]
        found = sum(samples, start=np.full(1 + self.net.n_params, 0, object)) / program.divisor(len(point.x))
        if self.of_totals is None:
            return found
        return found + evaluated(self.of_totals, point.theta, [np.zeros(a.shape[1]) for a in given])

    def enclosed(self, point: Point) -> Enclosed:
        """The nearest floats and bounds of the same.

        Raises
        ------
        Undecided
            If no precision tells which branch of an expression holds.
        """
        unknown, reasons = nothing_known((1 + self.net.n_params,)), list[Undecided]()

        def evaluate(bits: int) -> tuple[Enclosed, bool]:
            reasons.clear()
            try:
                found = enclosed(self.at(point), bits)
            except Undecided as error:
                reasons.append(error)
                return unknown, False
            return found, found.is_final

        found = doubling(evaluate, unknown, MAX_BITS)
        if reasons:
            raise Undecided(f"no precision tells which branch of the loss of {self.net} holds: {str(reasons[0])[:200]}")
        return found


def evaluated(derivation: Derivation, theta: np.ndarray, samples: list[np.ndarray]) -> Array:
    """The loss and its gradient as balls, (1 + n_params,), at exactly these floats."""
    symbols = derivation.theta + derivation.samples
    numbers = np.concatenate([theta, *(a.ravel() for a in samples)]).tolist()
    known = {symbol: arb(number) for symbol, number in zip(symbols, numbers, strict=True)}
    with deep_recursion():
        for symbol, expression in derivation.lines:
            known[symbol] = _ball_of(expression, known)
        return np.array([_ball_of(e, known) for e in (derivation.loss, *derivation.gradient)], object)


def _ball_of(expression: Any, known: dict[Any, arb]) -> arb:
    """An expression in balls, each part of it once; ``known`` starts with those of the symbols."""
    if expression not in known:
        known[expression] = _made(expression, known)
    return known[expression]


def _made(expression: Any, known: dict[Any, arb]) -> arb:
    if expression.is_Rational:
        return arb(int(expression.p)) / arb(int(expression.q))
    if expression is sympy.pi:
        return arb.pi()
    if expression.is_Piecewise:
        return _ball_of(next(branch for branch, condition in expression.args if _holds(condition, known)), known)
    operands = [_ball_of(operand, known) for operand in expression.args]
    if expression.is_Add:
        return sum(operands, start=arb(0))
    if expression.is_Mul:
        return np.prod(np.array(operands, object))
    if expression.is_Pow:
        return _power(operands[0], expression.exp)
    if expression.func not in FUNCTIONS:
        raise NotImplementedError(
            f"functions must be of {sorted(f.__name__ for f in FUNCTIONS)}, got {expression.func}"
        )
    return FUNCTIONS[expression.func](*operands)


def _power(base: arb, exponent: sympy.Rational) -> arb:
    """Whole and half powers; a square root comes first, so that the base may be 0.

    They are products, since Arb's powers of balls around 0 are not known.
    """
    if exponent.q not in (1, 2):
        raise NotImplementedError(f"powers must be whole or half, got {exponent}")
    factor = base if exponent.q == 1 else base.sqrt()
    product = math.prod([factor] * abs(int(exponent.p)), start=arb(1))
    return product if exponent.p > 0 else 1 / product


def _holds(condition: Any, known: dict[Any, arb]) -> bool:
    """Whether relations of balls are true; each must be certain, one way or the other."""
    if condition in (sympy.true, sympy.false):
        return condition is sympy.true
    if condition.func in CONNECTIVES:
        return bool(CONNECTIVES[condition.func](_holds(part, known) for part in condition.args))
    if condition.func is sympy.ITE:  # SymPy makes these of pieces within pieces
        test, if_true, if_false = condition.args
        return _holds(if_true if _holds(test, known) else if_false, known)
    sides = [_ball_of(side, known) for side in condition.args]
    is_true = RELATIONS[condition.func](*sides)
    if not (is_true or RELATIONS[OPPOSITES[condition.func]](*sides)):
        raise Undecided(f"{condition} is open between {sides}")
    return is_true
