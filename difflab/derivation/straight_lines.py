"""Loops over samples that were printed from expressions, compiled while they are wanted and never kept."""

from __future__ import annotations

import math

import numba
import numpy as np

from difflab.derivation.scalar_code import GUARD
from difflab.loading import functions


@numba.njit
def _if_finite(z: float) -> float:
    return z if math.isfinite(z) else math.nan


NAMES = {
    name: getattr(math, name)
    for name in ("exp", "log", "tanh", "sqrt", "sin", "cos", "tan", "cosh", "sinh", "erfc", "pi")
} | {"range": range, GUARD: _if_finite}
"""All that printed code can reach."""

SIGNATURE = numba.void(numba.float64[::1], numba.float64[:, ::1], numba.float64[::1])


class InNumba:
    """Sums over samples of a loss and its gradient, as compiled code; it stays in memory until the process ends.

    Parameters
    ----------
    text : functions ``loss_and_gradient`` and ``loss`` of theta, samples and what they add to
    outputs : how many numbers loss and gradient are
    """

    def __init__(self, text: str, outputs: int) -> None:
        self._outputs, found = outputs, functions(text, NAMES)
        compiled = numba.njit(SIGNATURE, error_model="numpy")
        self._both, self._loss = compiled(found["loss_and_gradient"]), compiled(found["loss"])

    def sums(self, theta: np.ndarray, samples: np.ndarray) -> np.ndarray:
        """Of the loss and every entry of its gradient, (1 + n_params,); samples (n_symbols, batch)."""
        return _added(self._both, theta, samples, self._outputs)

    def loss(self, theta: np.ndarray, samples: np.ndarray) -> float:
        """Of the loss alone."""
        return float(_added(self._loss, theta, samples, 1)[0])


def _added(function: object, theta: np.ndarray, samples: np.ndarray, outputs: int) -> np.ndarray:
    out = np.zeros(outputs)
    function(*(np.array(numbers, np.float64, order="C") for numbers in (theta, samples)), out)  # type: ignore[operator]
    return out
