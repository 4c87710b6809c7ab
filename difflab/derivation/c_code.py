"""Expressions as C: a line for each operation, compiled by the C compiler of the system, and called by address."""

from __future__ import annotations

import ctypes
import resource
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sympy.printing.c import C99CodePrinter

from difflab.derivation.expressions import Derivation, Shared
from difflab.derivation.scalar_code import GUARD, ScalarPrinter, functions
from difflab.memory import held_bytes


FLAGS = ("-O1", "-shared", "-fPIC", "-ffp-contract=off", "-w")
"""The arithmetic that is written and no other; optimising further takes longer than it saves on straight lines."""


BEFORE = f"""#include <math.h>

static double {GUARD}(double z)
{{
    return isinf(z) ? NAN : z;
}}

"""


class _Printer(ScalarPrinter, C99CodePrinter):
    def assigned(self, name: str, expression: str) -> str:
        return f"const double {name} = {expression}"


def source(derivation: Derivation, shared: Shared, of_loss: Shared) -> tuple[str, str]:
    """Functions that add up loss and gradient, and the loss alone, over samples, which are columns."""
    return functions(_function, _Printer(), (derivation, shared, of_loss), "{} * batch + i", ";")


def _function(name: str, lines: str) -> str:
    arguments = "const double *theta, const double *samples, long batch, double *out"
    return f"void {name}({arguments})\n{{\n    for (long i = 0; i < batch; i++) {{\n{lines}    }}\n}}\n"


def library(text: str, compiler: str) -> bytes:
    """What the compiler makes of functions, as a shared library."""
    with tempfile.TemporaryDirectory(prefix="difflab-") as folder:
        written, made = Path(folder) / "expressions.c", Path(folder) / "expressions.so"
        written.write_text(BEFORE + text)
        command: Sequence[str] = (compiler, *FLAGS, str(written), "-o", str(made), "-lm")
        found = subprocess.run(_in_what_is_left(command), capture_output=True, text=True)
        if found.returncode:
            raise RuntimeError(f"{compiler} must compile what SymPy writes, got {found.stderr.strip()[:500]}")
        return made.read_bytes()


def _in_what_is_left(command: Sequence[str]) -> Sequence[str]:
    """The command under the limit of memory of this process, less what that holds: both together keep to it."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return command
    kilobytes = max(0, limit - held_bytes()) // 1024
    return ("sh", "-c", 'ulimit -v "$0" && exec "$@"', str(kilobytes), *command)


class InC:
    """Sums over samples of a loss and its gradient, as compiled code.

    Parameters
    ----------
    code : a shared library, as :func:`library` returns it
    outputs : how many numbers loss and gradient are
    """

    def __init__(self, code: bytes, outputs: int) -> None:
        self._outputs = outputs
        with tempfile.TemporaryDirectory(prefix="difflab-") as folder:
            file = Path(folder) / "expressions.so"
            file.write_bytes(code)
            self._library = ctypes.CDLL(str(file))

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
