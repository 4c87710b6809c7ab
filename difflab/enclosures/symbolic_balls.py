"""SymPy's derivatives of a network evaluated in balls: neither our rules nor our sweeps have a part in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import sympy
from flint import arb

from difflab.enclosures.derivatives import Point
from difflab.expressions import Derivation, deep_recursion, derive_batch, derive_sample, derive_totals
from difflab.network import MLP
from difflab.number_systems import Array
from difflab.sharing import AFTER, Way


FUNCTIONS: dict[Any, Callable[[arb], arb]] = {
    sympy.exp: arb.exp,
    sympy.log: arb.log,
    sympy.tanh: arb.tanh,
    sympy.erfc: arb.erfc,
    sympy.sin: arb.sin,
    sympy.cos: arb.cos,
}
RELATIONS: dict[Any, Callable[[arb, arb], bool]] = {
    sympy.Le: lambda a, b: a <= b,
    sympy.Lt: lambda a, b: a < b,
    sympy.Ge: lambda a, b: a >= b,
    sympy.Gt: lambda a, b: a > b,
}
OPPOSITES = {sympy.Le: sympy.Gt, sympy.Gt: sympy.Le, sympy.Lt: sympy.Ge, sympy.Ge: sympy.Lt}
CONNECTIVES = {sympy.And: all, sympy.Or: any, sympy.Not: lambda truths: not next(iter(truths))}


class Undecided(ArithmeticError):
    """Balls are too wide to say which branch of an expression holds."""


def gradient(net: MLP, point: Point) -> Array:
    """Balls of the gradient with respect to theta, (n_params,), at the working precision."""
    return value_and_gradient(net, point)[1:]


def value_and_gradient(net: MLP, point: Point, way: Way = AFTER) -> Array:
    """Balls of the loss of the batch and of its gradient, (1 + n_params,)."""
    program, batch = net.program, len(point.x)
    given = [point.x, point.y, *program.draw_masks(batch)]
    if program.couples_samples:
        return evaluated(derive_batch(net, batch, way), point.theta, given)
    derivation = derive_sample(net, way)
    samples = [evaluated(derivation, point.theta, list(rows)) for rows in zip(*given, strict=True)]
    found = sum(samples, start=np.full(1 + net.n_params, 0, object)) / program.divisor(batch)
    if program.totals:
        found = found + evaluated(derive_totals(net, way), point.theta, [np.zeros(a.shape[1]) for a in given])
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
    return FUNCTIONS[expression.func](*operands)


def _power(base: arb, exponent: sympy.Rational) -> arb:
    """Whole and half powers; a square root comes first, so that the base may be 0."""
    if exponent.q not in (1, 2):
        raise NotImplementedError(f"powers must be whole or half, got {exponent}")
    return (base if exponent.q == 1 else base.sqrt()) ** int(exponent.p)


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
