"""Accuracy: the distance from the certified gradient, and whether the back-end keeps its own word."""

from __future__ import annotations

from typing import Any

import numpy as np

from difflab.backends import Certified
from difflab.backends.certified import ENCLOSED, KINK
from difflab.discrepancy import Discrepancy, discrepancy, relative_in_norm
from difflab.reference import Reference
from difflab.study.measures.subject import Subject


def measure(subject: Subject) -> dict[str, Any]:
    """Columns of the error; the certified back-end itself is not judged."""
    if isinstance(subject.prepared.backend, Certified):
        return {"status": reference_status(subject.reference), "certified_bits": subject.reference.bits}
    bounds = _bounds(subject)
    found = discrepancy(subject.gradient, subject.reference, bound=bounds)
    predicted = relative_in_norm(bounds, subject.reference.gradient)
    keeps_word = found.error_relative <= (predicted if predicted < 1 else half_of_the_digits(subject.gradient))
    return {
        "status": reference_status(subject.reference) if keeps_word else "wrong",
        "dtype": found.arithmetic,
        "error_relative": found.error_relative,
        "error_predicted": predicted,
        "error_ulp_median": found.error_ulp_median,
        "error_ulp_p99": found.percentiles_ulp[99],
        "error_ulp_max": found.error_ulp_max,
        "worst_entry": found.worst[0].name,
        "worst_entry_got": found.worst[0].got,
        "worst_entry_truth": found.worst[0].truth,
    } | bounded(found, bounds)


def _bounds(subject: Subject) -> np.ndarray:
    """The error that the back-end predicts of each entry; where it says nothing, any."""
    predicted = subject.prepared.predicted_error(subject.theta, subject.x, subject.y).astype(np.float64)
    return np.where(np.isnan(predicted), np.inf, predicted)


def bounded(found: Discrepancy, bounds: np.ndarray) -> dict[str, Any]:
    """Columns of how bounds of the errors of all entries did: whether they hold, and how tight they are."""
    assert found.error_per_bound is not None
    has_error = found.error > 0
    columns: dict[str, Any] = {"error_per_bound_max": float(found.error_per_bound.max())}
    if has_error.any():
        with np.errstate(over="ignore", invalid="ignore"):
            tightness = bounds[has_error] / found.error[has_error]
        columns["bound_per_error_median"] = float(np.quantile(tightness, 0.5, method="inverted_cdf"))
    return columns


def half_of_the_digits(gradient: np.ndarray) -> float:
    """What is asked of a gradient where the predicted error exceeds the gradient and so says nothing."""
    return float(np.sqrt(np.finfo(gradient.dtype).eps))


def disagreement(gradient: np.ndarray, other: np.ndarray) -> float | None:
    """How far two gradients of one dtype are apart, relative in norm; None if they share half of the digits."""
    expected = other.astype(np.float64)
    distance = relative_in_norm(gradient.astype(np.float64) - expected, expected)
    return None if distance <= half_of_the_digits(gradient) else distance


def reference_status(reference: Reference) -> str:
    """A truth that is only an interval cannot decide; one at a kink says so; else nothing is in the way."""
    statuses = set(reference.status)
    return "undecided" if ENCLOSED in statuses else "kink" if KINK in statuses else "ok"
