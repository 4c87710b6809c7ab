"""Agreement: where two methods give the same and both are far from the truth.

A gradient is held against those of a panel of other methods, which are made once for all rows of a task.
"""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from difflab.backends import Backend, Backprop, Certified, FiniteDifference, Refused, Symbolic, Unsupported
from difflab.backends.certified import ROUNDED, Enclosure
from difflab.discrepancy import discrepancy
from difflab.files import write_atomically
from difflab.number_systems import FORMATS
from difflab.peers import Handwritten
from difflab.reference import Reference, load_arrays
from difflab.study.measures.subject import Subject


PANEL: tuple[Backend, ...] = (
    Symbolic(),
    Handwritten(),
    FiniteDifference("complex"),
    FiniteDifference("central"),
    Backprop(),
)
AGREE_ULP, FAR_ULP = 4, 1000
"""Two entries agree within the first, and are far off beyond the second."""


def path(reference: Path) -> Path:
    """Where the gradients of the panel lie, beside the reference of their task."""
    return reference.with_suffix(".panel.npz")


def prepare(reference: Reference, seed: int, file: Path) -> None:
    """The gradients of all members of the panel that can differentiate the network."""
    gradients: dict[str, Any] = {}
    for backend in PANEL:
        with suppress(Unsupported, Refused):
            gradients[repr(backend)] = _gradient(backend, reference)
    buffer = io.BytesIO()
    np.savez(buffer, **gradients)
    write_atomically(file, buffer.getvalue())


def _gradient(backend: Backend, reference: Reference) -> np.ndarray:
    prepared = backend.prepare(reference.net)
    return prepared.value_and_gradient(reference.theta, reference.x, reference.y, allow_nonfinite=True)[1]


def measure(subject: Subject, file: Path) -> dict[str, Any]:
    """Columns of a float64 gradient; what is certified is not judged."""
    backend = subject.prepared.backend
    if isinstance(backend, Certified) or subject.gradient.dtype != np.float64:
        return {}
    others = {name: gradient for name, gradient in load_arrays(file).items() if name != repr(backend)}
    return compared(subject.gradient, others, subject.reference)


def compared(gradient: np.ndarray, others: dict[str, np.ndarray], truth: Enclosure) -> dict[str, Any]:
    """Columns of the entry and the companion whose agreement misleads most.

    That is where the smaller of both errors is the largest multiple of their distance, or of an ulp where that is less.
    Entries that are 0, at a kink, or not known to all their digits are left out: they have no error in ulp.

    Parameters
    ----------
    gradient : (n_params,) float64
    others : gradients of the companions, by name
    truth : what is certified
    """
    is_judged = (truth.status == ROUNDED) & (truth.gradient != 0)
    if not (others and is_judged.any()):
        return {}
    ulp, own = FORMATS["float64"].ulp(truth.gradient), discrepancy(gradient, truth).error_ulp
    is_false, found = np.zeros(len(gradient), bool), []
    for name, other in others.items():
        error = np.minimum(own, discrepancy(other, truth).error_ulp)
        with np.errstate(invalid="ignore", over="ignore"):
            distance = np.abs(gradient - other) / ulp
            misled = np.where(is_judged & np.isfinite(distance), error / np.maximum(distance, 1.0), -1.0)
        is_false |= (misled >= 0) & (distance <= AGREE_ULP) & (error >= FAR_ULP)
        i = int(misled.argmax())
        found.append((float(misled[i]), name, i, float(distance[i]), float(error[i])))
    _, name, i, distance_ulp, error_ulp = max(found)
    return {
        "falsely_agreeing_entries": int(is_false.sum()),
        "agrees_with": name,
        "agreement_entry": truth.net.name_of(i),
        "agreement_got": float(gradient[i]),
        "agreement_truth": float(truth.gradient[i]),
        "agreement_ulp": distance_ulp,
        "agreement_error_ulp": error_ulp,
    }
