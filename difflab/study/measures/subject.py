"""What is measured: a back-end made ready for a task, its first answer, and the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from difflab.backends import Prepared
from difflab.reference import Reference


@dataclass(frozen=True)
class Subject:
    """A prepared back-end with its arguments in its own dtype.

    Attributes
    ----------
    theta, x, y : what it is evaluated at; the same numbers as in ``reference``, in the back-end's dtype.
    value, gradient : what its first call gave.
    seed : for what a measure has to draw.
    """

    prepared: Prepared
    reference: Reference
    theta: np.ndarray
    x: np.ndarray
    y: np.ndarray
    value: float
    gradient: np.ndarray
    seed: int
