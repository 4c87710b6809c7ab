"""How weights are drawn before training: one row per scheme, in the table ``INITIALISATIONS``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Initialisation:
    """One scheme.

    Attributes
    ----------
    name : the word for it in networks and study files.
    deviation : standard deviation of a weight, from the numbers of inputs and outputs of its layer.
    is_uniform : whether weights are uniform between plus and minus sqrt(3) deviations, else normal.
    source : where it is from.
    """

    name: str
    deviation: Callable[[int, int], float]
    is_uniform: bool
    source: str

    def draw(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        """Weights of shape (out, in)."""
        n_outputs, n_inputs = shape
        deviation = self.deviation(n_inputs, n_outputs)
        if self.is_uniform:
            bound = math.sqrt(3) * deviation
            return rng.uniform(-bound, bound, shape)
        return deviation * rng.standard_normal(shape)


def _glorot(n_inputs: int, n_outputs: int) -> float:
    return math.sqrt(2 / (n_inputs + n_outputs))


def _he(n_inputs: int, n_outputs: int) -> float:
    return math.sqrt(2 / n_inputs)


def _lecun(n_inputs: int, n_outputs: int) -> float:
    return math.sqrt(1 / n_inputs)


_GLOROT = "Glorot, Bengio 2010, eq. 16"
_HE = "He et al. 2015, eq. 10"
_LECUN = "LeCun, Bottou, Orr, Mueller 1998, 4.6; Klambauer et al. 2017"

_ROWS = (
    Initialisation("zeros", lambda i, o: 0.0, True, "a network initiated at zero will not train: lecture notes 003"),
    Initialisation("uniform", lambda i, o: _lecun(i, o) / math.sqrt(3), True, "Glorot, Bengio 2010, eq. 1"),
    Initialisation("glorot_uniform", _glorot, True, _GLOROT),
    Initialisation("glorot_normal", _glorot, False, _GLOROT),
    Initialisation("he_uniform", _he, True, _HE),
    Initialisation("he_normal", _he, False, _HE),
    Initialisation("lecun_uniform", _lecun, True, _LECUN),
    Initialisation("lecun_normal", _lecun, False, _LECUN),
)

INITIALISATIONS = {row.name: row for row in _ROWS}
