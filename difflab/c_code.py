"""Expressions as C: a line for each operation, compiled by the C compiler of the system, and called by address."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sympy
from sympy.printing.c import C99CodePrinter

from difflab.expressions import Derivation, Shared, deep_recursion


FLAGS = ("-O1", "-shared", "-fPIC", "-ffp-contract=off", "-w")
"""The arithmetic that is written and no other; optimising further takes longer than it saves on straight lines."""

MOST_FACTORS = 8
"""Whole powers up to which a power is a product."""


class _Printer(C99CodePrinter):
    """Numbers as doubles, whole powers as products, and given symbols as entries of arrays."""

    def __init__(self, places: dict[sympy.Symbol, str]) -> None:
        super().__init__()
        self._places = places

    def _print_Symbol(self, expr: sympy.Symbol) -> str:
        return self._places.get(expr, expr.name)

    def _print_Integer(self, expr: sympy.Integer) -> str:
        return self._print_Rational(expr)

    def _print_Rational(self, expr: sympy.Rational) -> str:
        return repr(float(expr)) if expr >= 0 else f"({float(expr)!r})"

    def _print_Pow(self, expr: sympy.Pow) -> str:
        power = expr.exp
        if power.is_Integer and 1 < abs(power) <= MOST_FACTORS and _is_name(expr.base):
            product = "*".join([self._print(expr.base)] * abs(int(power)))
            return f"({product})" if power > 0 else f"(1.0/({product}))"
        return super()._print_Pow(expr)


def _is_name(expression: sympy.Expr) -> bool:
    """Whether it costs nothing to write it down again."""
    return bool(expression.is_Symbol)


class InC:
    """Sums over samples of a loss and its gradient, as compiled code.

    Attributes
    ----------
    source_bytes : of the function for loss and gradient.
    """

    def __init__(self, derivation: Derivation, shared: Shared, of_loss: Shared, compiler: str = "cc") -> None:
        places = {symbol: f"theta[{k}]" for k, symbol in enumerate(derivation.theta)}
        places |= {symbol: f"samples[{k} * batch + i]" for k, symbol in enumerate(derivation.samples)}
        gradient = _function("loss_and_gradient", shared, places)
        self.source_bytes, self._outputs = len(gradient), len(shared.outputs)
        source = "#include <math.h>\n\n" + gradient + "\n" + _function("loss", of_loss, places)
        self._library = _compiled(source, compiler)

    def sums(self, theta: np.ndarray, samples: np.ndarray) -> np.ndarray:
        """Of the loss and every entry of its gradient, (1 + n_params,); samples (n_symbols, batch)."""
        return self._run(self._library.loss_and_gradient, theta, samples, self._outputs)

    def loss(self, theta: np.ndarray, samples: np.ndarray) -> float:
        """Of the loss alone."""
        return float(self._run(self._library.loss, theta, samples, 1)[0])

    def _run(self, function: Any, theta: np.ndarray, samples: np.ndarray, outputs: int) -> np.ndarray:
        theta, samples = (np.require(numbers, np.float64, ["C", "A"]) for numbers in (theta, samples))
        out = np.zeros(outputs)
        addresses = [ctypes.c_void_p(numbers.ctypes.data) for numbers in (theta, samples, out)]
        function(addresses[0], addresses[1], ctypes.c_long(samples.shape[1]), addresses[2])
        return out


def _function(name: str, shared: Shared, places: dict[sympy.Symbol, str]) -> str:
    """That adds up outputs over samples, which are columns."""
    printer = _Printer(places)
    with deep_recursion():
        lines = [f"const double {symbol.name} = {printer.doprint(e)};" for symbol, e in shared.assignments]
        lines += [f"out[{k}] += {printer.doprint(output)};" for k, output in enumerate(shared.outputs)]
    body = "\n".join(f"        {line}" for line in lines)
    arguments = "const double *theta, const double *samples, long batch, double *out"
    return f"void {name}({arguments})\n{{\n    for (long i = 0; i < batch; i++) {{\n{body}\n    }}\n}}\n"


def _compiled(source: str, compiler: str) -> ctypes.CDLL:
    """The library, whose file is gone when this returns."""
    with tempfile.TemporaryDirectory(prefix="difflab-") as folder:
        written, made = Path(folder) / "expressions.c", Path(folder) / "expressions.so"
        written.write_text(source)
        command: Sequence[str] = (compiler, *FLAGS, str(written), "-o", str(made), "-lm")
        found = subprocess.run(command, capture_output=True, text=True)
        if found.returncode:
            raise RuntimeError(f"{compiler} must compile what SymPy writes, got {found.stderr.strip()[:500]}")
        return ctypes.CDLL(str(made))
