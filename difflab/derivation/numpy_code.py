"""Expressions as Python functions on NumPy arrays: printed by SymPy, and loaded without being run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import sympy
from scipy.special import erfc
from sympy.printing.numpy import SciPyPrinter

from difflab.derivation.expressions import Derivation, Shared, deep_recursion
from difflab.derivation.long_sums import LongSums
from difflab.derivation.printed_once import PrintedOnce
from difflab.loading import functions


def _select(conditions: list[Any], choices: list[Any], default: Any) -> Any:
    """NumPy's own takes no numbers where there are arrays."""
    for condition, choice in zip(reversed(conditions), reversed(choices), strict=True):
        default = np.where(condition, choice, default)
    return default


def _sqrt(z: Any) -> Any:
    """NumPy's own takes no integer beyond 64 bits, as exact constants have.

    Of a sum of squares that overflowed nothing is known: NaN says so, where infinity would make quotients zero.
    """
    z = np.asarray(z, np.float64)
    return np.sqrt(np.where(np.isinf(z), np.nan, z))


class _Joined:
    """A logical function whose ``reduce`` takes conditions of the batch beside plain ones, unlike NumPy's own."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def reduce(self, conditions: tuple[Any, ...]) -> Any:
        return functools.reduce(self.function, conditions)


RELATIONS = ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")
ELEMENTARY = (*("exp", "log", "tanh", "sin", "cos", "tan", "cosh", "sinh"), *("nan", "pi", "logical_not"), *RELATIONS)
NAMES = {
    **{name: getattr(np, name) for name in ELEMENTARY},
    "erfc": erfc,
    "select": _select,
    "sqrt": _sqrt,
    "logical_or": _Joined(np.logical_or),
    "logical_and": _Joined(np.logical_and),
}
"""All that printed code can reach."""


class _Printer(PrintedOnce, LongSums, SciPyPrinter):
    """NumPy's functions by their bare names, and choices as they are written.

    SymPy simplifies every condition that holds a choice, to which end it evaluates all relations of all symbols: that
    may take a minute for a page of code.
    """

    def _print_Piecewise(self, expr: sympy.Piecewise) -> str:
        return self._select([piece.cond for piece in expr.args], [piece.expr for piece in expr.args], "nan")

    def _print_ITE(self, expr: sympy.ITE) -> str:
        test, chosen, otherwise = expr.args
        return self._select([test], [chosen], self._print(otherwise))

    def _select(self, conditions: list[sympy.Basic], choices: list[sympy.Basic], default: str) -> str:
        written = [", ".join(map(self._print, each)) for each in (conditions, choices)]
        return f"select([{written[0]}], [{written[1]}], default={default})"


def source(derivation: Derivation, shared: Shared, of_loss: Shared) -> tuple[str, str]:
    """Functions of theta, in numbers, and samples, in arrays over the batch: of loss and gradient, and of the loss."""
    return _function("loss_and_gradient", derivation, shared), _function("loss", derivation, of_loss)


def _function(name: str, derivation: Derivation, shared: Shared) -> str:
    printer = _Printer({"fully_qualified_modules": False, "inline": True})
    with deep_recursion():
        body = [f"{symbol.name} = {printer.doprint(e)}" for symbol, e in shared.assignments]
        body.append(f"return [{', '.join(map(printer.doprint, shared.outputs))}]")
    unpacked = [_unpacked(derivation.theta, "theta"), _unpacked(derivation.samples, "samples")]
    return f"def {name}(theta, samples):\n" + "".join(f"    {line}\n" for line in [*unpacked, *body])


def _unpacked(symbols: list[sympy.Symbol], name: str) -> str:
    return f"[{', '.join(symbol.name for symbol in symbols)}] = {name}"


class InNumpy:
    """Sums over samples of a loss and its gradient, by printed functions.

    Parameters
    ----------
    text : what :func:`source` wrote
    """

    def __init__(self, text: str) -> None:
        found = functions(text, NAMES)
        self._both, self._loss = found["loss_and_gradient"], found["loss"]
        self.code_bytes = len(self._both.__code__.co_code)

    def sums(self, theta: np.ndarray, samples: np.ndarray) -> np.ndarray:
        """Of the loss and every entry of its gradient, (1 + n_params,); samples (n_symbols, batch)."""
        with np.errstate(all="ignore"):
            return np.array([_sum(entry, samples.shape[1]) for entry in self._both(theta, samples)])

    def loss(self, theta: np.ndarray, samples: np.ndarray) -> float:
        """Of the loss alone."""
        with np.errstate(all="ignore"):
            return _sum(self._loss(theta, samples)[0], samples.shape[1])


def _sum(terms: np.ndarray | float, batch: int) -> float:
    """The sum over the batch of what may not depend on the sample."""
    return float(np.broadcast_to(terms, batch).sum())
