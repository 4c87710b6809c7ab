"""Expressions as a Python loop over samples, on numbers alone, which Numba can compile."""

from __future__ import annotations

from sympy.printing.pycode import PythonCodePrinter

from difflab.derivation.expressions import Derivation, Shared
from difflab.derivation.scalar_code import ScalarPrinter, functions


class _Printer(ScalarPrinter, PythonCodePrinter):
    """Python's functions by their bare names."""


def source(derivation: Derivation, shared: Shared, of_loss: Shared) -> tuple[str, str]:
    """Functions that add up loss and gradient, and the loss alone, over samples, which are columns."""
    printer = _Printer({"fully_qualified_modules": False})
    return functions(_function, printer, (derivation, shared, of_loss), "{}, i", "")


def _function(name: str, lines: str) -> str:
    return f"def {name}(theta, samples, out):\n    for i in range(samples.shape[1]):\n{lines}"
