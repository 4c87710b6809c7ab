"""Accuracy: the distance from the certified gradient, and whether the back-end keeps its own word."""

from __future__ import annotations

from typing import Any

import numpy as np

from difflab.backends import Certified
from difflab.backends.certified import ENCLOSED, KINK
from difflab.discrepancy import discrepancy, relative_in_norm
from difflab.reference import Reference
from difflab.study.measures.subject import Subject


def measure(subject: Subject) -> dict[str, Any]:
    """Columns of the error; the certified back-end itself is not judged."""
    if isinstance(subject.prepared.backend, Certified):
        return {"status": reference_status(subject.reference), "certified_bits": subject.reference.bits}
    found = discrepancy(subject.gradient, subject.reference)
    bounds = subject.prepared.predicted_error(subject.theta, subject.x, subject.y)
    predicted = relative_in_norm(bounds, subject.reference.gradient)
    keeps_word = found.error_relative <= (predicted if predicted < 1 else half_of_the_digits(subject.gradient))
    return {
        "status": reference_status(subject.reference) if keeps_word else "wrong",
        "error_relative": found.error_relative,
        "error_predicted": predicted,
        "error_ulp_median": found.error_ulp_median,
        "error_ulp_max": found.error_ulp_max,
        "worst_entry": found.worst[0].name,
        "worst_entry_got": found.worst[0].got,
        "worst_entry_truth": found.worst[0].truth,
    }


def half_of_the_digits(gradient: np.ndarray) -> float:
    """What is asked of a gradient where the predicted error exceeds the gradient and so says nothing."""
    return float(np.sqrt(np.finfo(gradient.dtype).eps))


def reference_status(reference: Reference) -> str:
    """A truth that is only an interval cannot decide; one at a kink says so; else nothing is in the way."""
    statuses = set(reference.status)
    return "undecided" if ENCLOSED in statuses else "kink" if KINK in statuses else "ok"
