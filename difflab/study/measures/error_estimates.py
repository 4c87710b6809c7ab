"""Error estimates: the error that a method reports of every entry, beside the true one.

A truth that is only an interval decides between them where the reported error lies on one side of all that the true one
can be; derivatives at a kink are not judged.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from difflab.backends import Certified
from difflab.backends.certified import KINK, Enclosure
from difflab.discrepancy import least_and_greatest_error
from difflab.study.measures.subject import Subject


QUANTILES = {"min": 0.0, "q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95, "max": 1.0}


def measure(subject: Subject) -> dict[str, Any]:
    """Columns of what is reported; the certified back-end itself is not judged."""
    if isinstance(subject.prepared.backend, Certified):
        return {"certified_bits": subject.reference.bits}
    reported = subject.prepared.predicted_error(subject.theta, subject.x, subject.y).astype(np.float64)
    facts = subject.prepared.facts
    return compared(subject.gradient, reported, subject.reference, facts.get("converged")) | _library(facts)


def compared(
    gradient: np.ndarray, reported: np.ndarray, truth: Enclosure, converged: np.ndarray | None = None
) -> dict[str, Any]:
    """Columns of the errors reported of a gradient.

    Parameters
    ----------
    gradient : (n_params,)
    reported : (n_params,) errors; what is not finite says nothing
    truth : what is certified of the gradient
    converged : (n_params,) bool, whether the method itself says so, or None if it does not say
    """
    low, high = least_and_greatest_error(gradient, truth)
    is_silent = ~np.isfinite(reported) | np.isnan(gradient)
    is_understated = reported < low
    is_judged = ~is_silent & (truth.status != KINK) & (is_understated | (reported >= high))
    columns: dict[str, Any] = {
        "judged_entries": int(is_judged.sum()),
        "silent_entries": int(is_silent.sum()),
        "undecided_entries": int((~is_silent & ~is_judged).sum()),
        "understated_entries": int((is_judged & is_understated).sum()),
    }
    if converged is not None:
        columns |= {
            "flagged_entries": int((~converged).sum()),
            "converged_entries": int((is_judged & converged).sum()),
            "converged_understated_entries": int((is_judged & is_understated & converged).sum()),
        }
    error = np.where(is_understated, low, high)
    return columns | (_figures(error[is_judged], reported[is_judged], truth, is_judged) if is_judged.any() else {})


def _figures(error: np.ndarray, reported: np.ndarray, truth: Enclosure, which: np.ndarray) -> dict[str, Any]:
    """How far what is reported is from the error: the bound of the error that is nearer to it is taken."""
    ratio, worst = _ratio(reported, error), int(_ratio(reported, error).argmin())
    relative = _ratio(error, np.abs(truth.gradient[which]), of_zeros=0.0)
    return {
        "true_error_relative_median": _quantile(relative, 0.5),
        **{f"reported_to_true_{name}": _quantile(ratio, at) for name, at in QUANTILES.items()},
        "most_understated_entry": truth.net.name_of(int(np.flatnonzero(which)[worst])),
        "most_understated_reported": float(reported[worst]),
        "most_understated_true": float(error[worst]),
    }


def _ratio(over: np.ndarray, under: np.ndarray, of_zeros: float = 1.0) -> np.ndarray:
    """Infinite over 0; an error of 0 of which 0 is reported is exactly right."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        return np.where((over == under) & (under == 0), of_zeros, over / under)


def _quantile(values: np.ndarray, at: float) -> float:
    """One of the values: between a finite one and an infinite one there is no other."""
    return float(np.quantile(values, at, method="inverted_cdf"))


def _library(facts: dict[str, Any]) -> dict[str, Any]:
    """Which library it is, and where it raised errors."""
    columns = {"library": facts["library"]} if "library" in facts else {}
    if raised := facts.get("raised"):
        name, message = next(iter(raised.items()))
        columns["raised"] = f"{len(raised)} entries, first {name}: {message}"
    return columns
