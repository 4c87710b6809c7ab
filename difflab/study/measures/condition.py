"""Condition: how far relative errors in parameters and inputs move the gradient, whatever the method.

Estimated from a small sample of directions [Kenney, Laub 1994; Gudmundsson, Kenney, Laub 1997]: along random signs, the
root mean square of what changes is the Frobenius norm of all sensitivities.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from difflab.backends import Certified
from difflab.backends.certified import KINK, ROUNDED, PreparedCertified
from difflab.discrepancy import relative_in_norm
from difflab.files import write_atomically
from difflab.reference import Reference


N_DIRECTIONS = 8


def condition(reference: Reference, seed: int, n_directions: int = N_DIRECTIONS) -> float | None:
    """The condition number of the gradient, or None where it has a kink, vanishes, or is only known as an interval.

    Relative errors of ``u`` in all parameters and inputs, each of either sign, move the gradient by about this times
    ``u``, as a share of its norm.

    Parameters
    ----------
    reference : the gradient and its arguments
    seed : of the directions
    n_directions : how many there are
    """
    if not ((reference.status == ROUNDED).all() and reference.gradient.any()):
        return None
    prepared, rng = Certified().prepare(reference.net), np.random.default_rng(seed)
    assert isinstance(prepared, PreparedCertified)
    moved = []
    for _ in range(n_directions):
        theta_dot, x_dot = (a * rng.choice([-1.0, 1.0], a.shape) for a in (reference.theta, reference.x))
        change = prepared.enclose_hvp(reference.theta, reference.x, reference.y, theta_dot, x_dot)
        if (change.status == KINK).any() or not np.isfinite(change.upper - change.lower).all():
            return None
        moved.append(relative_in_norm(change.nearest, reference.gradient))
    return float(np.linalg.norm(moved) / np.sqrt(n_directions))


def path(reference: Path) -> Path:
    """Where the condition number of a task lies, beside its reference."""
    return reference.with_suffix(".condition.json")


def prepare(reference: Reference, seed: int, file: Path) -> None:
    """Estimate it once for all methods of a task."""
    write_atomically(file, json.dumps({"condition": condition(reference, seed)}).encode())


def measure(file: Path) -> dict[str, Any]:
    """The column of a task."""
    return json.loads(file.read_text())
