"""How far a gradient is from the certified truth, and the sentence that says so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from difflab.backends.certified import KINK, Enclosure


N_WORST = 5


@dataclass(frozen=True)
class Entry:
    """One entry of a gradient beside the truth; ``error_ulp`` in ulp of the gradient's dtype at the truth."""

    name: str
    got: float
    truth: float
    error_ulp: float

    def __str__(self) -> str:
        return f"{self.name} = {self.got!r}, truth {self.truth!r}, {self.error_ulp:.3g} ulp"


@dataclass(frozen=True)
class Discrepancy:
    """The distance of a gradient from a certified enclosure.

    Attributes
    ----------
    error_relative : norm of the error divided by the norm of the truth.
    error_ulp_median, error_ulp_max : over all entries; infinite where an entry is NaN.
    worst : the entries that are furthest off in ulp, worst first.
    """

    error_relative: float
    error_ulp_median: float
    error_ulp_max: float
    worst: tuple[Entry, ...]

    def __str__(self) -> str:
        return (
            f"relative error {self.error_relative:.2e}; ulp: median {self.error_ulp_median:.3g}, "
            f"max {self.error_ulp_max:.3g}; worst: {self.worst[0]}"
        )


def discrepancy(gradient: np.ndarray, reference: Enclosure) -> Discrepancy:
    """Measure ``gradient`` against the certified truth at the same arguments.

    Parameters
    ----------
    gradient : (n_params,) float64 or float32
    reference : what the certified back-end encloses; nothing else can serve as truth

    Raises
    ------
    TypeError
        If ``reference`` is not certified, or ``gradient`` no floating-point array.
    ValueError
        If the shapes differ.
    """
    if not isinstance(reference, Enclosure):
        kind = type(reference).__name__
        raise TypeError(f"reference must be certified, got {kind}; make one with difflab.reference_gradient")
    if isinstance(gradient, np.ma.MaskedArray):
        raise TypeError("gradient must be a plain array, got a masked one; fill the masked entries")
    gradient = np.asarray(gradient)
    if gradient.dtype.kind != "f":
        raise TypeError(f"gradient must be floating-point, got {gradient.dtype}")
    if gradient.shape != reference.gradient.shape:
        raise ValueError(f"gradient must have shape {reference.gradient.shape}, got {gradient.shape}")
    error = _absolute_error(gradient, reference)
    error_ulp = _error_ulp(error, reference.gradient, gradient.dtype)
    worst = np.argsort(-error_ulp, kind="stable")[:N_WORST]
    return Discrepancy(
        error_relative=relative_in_norm(error, reference.gradient),
        error_ulp_median=float(np.median(error_ulp)),
        error_ulp_max=float(error_ulp.max()),
        worst=tuple(
            Entry(
                reference.net.name_of(int(i)),
                float(gradient[i]),
                float(reference.gradient[i]),
                float(error_ulp[i]),
            )
            for i in worst
        ),
    )


def relative_in_norm(error: np.ndarray, truth: np.ndarray) -> float:
    """Norm of ``error`` over norm of ``truth``, neither of which may under- or overflow; 0 / 0 is 0."""
    largest = max(np.abs(error).max(), np.abs(truth).max())
    if largest == 0.0:
        return 0.0
    if not np.isfinite(largest):
        return np.inf
    scale = np.ldexp(1.0, int(np.frexp(largest)[1]) - 1)
    with np.errstate(under="ignore", divide="ignore", over="ignore"):
        return float(np.linalg.norm(error / scale) / np.linalg.norm(truth / scale))


def _absolute_error(gradient: np.ndarray, reference: Enclosure) -> np.ndarray:
    """Distance from the truth; at a kink, from the one-sided derivatives and what lies between, or the convention."""
    got = gradient.astype(np.float64)
    with np.errstate(invalid="ignore"):
        error = np.abs((got - reference.gradient) - reference.residual)
        outside = np.maximum(np.maximum(reference.lower - got, got - reference.upper), 0.0)
    error = np.where(reference.status == KINK, np.minimum(outside, error), error)
    return np.where(np.isnan(error), np.inf, error)


def _error_ulp(error: np.ndarray, truth: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """In units in the last place of ``dtype`` at the truth; infinite where the truth is beyond ``dtype``."""
    with np.errstate(over="ignore", invalid="ignore"):
        error_ulp = error / np.spacing(np.abs(truth).astype(dtype)).astype(np.float64)
    return np.where(np.isnan(error_ulp), np.inf, error_ulp)
