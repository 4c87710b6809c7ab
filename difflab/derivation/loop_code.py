"""Expressions as a Python loop over samples, on numbers alone, which Numba can compile."""

from __future__ import annotations

import sympy
from sympy.printing.pycode import PythonCodePrinter

from difflab.derivation.expressions import Derivation, Shared, deep_recursion
from difflab.derivation.scalar_code import ScalarPrinter, places


class _Printer(ScalarPrinter, PythonCodePrinter):
    def __init__(self, places: dict[sympy.Symbol, str]) -> None:
        super().__init__({"fully_qualified_modules": False})
        self.places = places


def source(derivation: Derivation, shared: Shared, of_loss: Shared) -> tuple[str, str]:
    """Functions that add up loss and gradient, and the loss alone, over samples, which are columns."""
    found = places(derivation.theta, derivation.samples, "{}, i")
    return _function("loss_and_gradient", shared, found), _function("loss", of_loss, found)


def _function(name: str, shared: Shared, found: dict[sympy.Symbol, str]) -> str:
    printer = _Printer(found)
    with deep_recursion():
        lines = [f"{symbol.name} = {printer.doprint(e)}" for symbol, e in shared.assignments]
        lines += [f"out[{k}] += {printer.doprint(output)}" for k, output in enumerate(shared.outputs)]
    body = "".join(f"        {line}\n" for line in lines)
    return f"def {name}(theta, samples, out):\n    for i in range(samples.shape[1]):\n{body}"
