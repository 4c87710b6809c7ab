"""How far a gradient is from the certified truth, and the sentence that says so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from difflab.backends.certified import ENCLOSED, KINK, ROUNDED, Enclosure
from difflab.enclosures.rounding import rounding_errors
from difflab.errors import known
from difflab.number_systems import FORMATS
from difflab.reference import Reference


N_WORST = 5
PERCENTS = (50, 90, 99, 100)


@dataclass(frozen=True)
class Entry:
    """One entry of a gradient beside the truth.

    Attributes
    ----------
    name : like ``"dense2.weight[3,1]"``.
    got, truth : the number judged, and the float64 nearest to the truth.
    lower, upper : proven bounds of the truth; if it is only enclosed, these alone are known.
    error_ulp : in ulp of the arithmetic, at the truth.
    error_per_bound : in units of the bound that was given, or None.
    """

    name: str
    got: float
    truth: float
    lower: float
    upper: float
    error_ulp: float
    error_per_bound: float | None = None

    def __str__(self) -> str:
        is_wide = self.upper > np.nextafter(self.lower, np.inf)
        truth = f"in [{self.lower!r}, {self.upper!r}]" if is_wide else repr(self.truth)
        bound = "" if self.error_per_bound is None else f", {self.error_per_bound:.2g} of its bound"
        return f"{self.name} = {self.got!r}, truth {truth}, {self.error_ulp:.3g} ulp{bound}"


@dataclass(frozen=True)
class Discrepancy:
    """The distance of a gradient from a certified enclosure.

    Attributes
    ----------
    arithmetic : the format whose ulp is meant.
    error : (n_params,) least distance of each entry from the truth: where that is only enclosed, from its bounds; at a
        kink, from the one-sided derivatives and what lies between them, or from the convention; infinite for NaN.
    error_relative : norm of the error divided by the norm of the truth.
    error_ulp : (n_params,) of each entry, in ulp of the arithmetic at the truth.
    error_per_bound : (n_params,) in units of the bound of each entry, or None if none was given.
    n_unbounded, n_undecided : entries whose bound is infinite, and entries whose truth is not known well enough to say
        whether they are within their bounds, or without bounds, how far off they are.
    worst : the entries that are furthest off, in units of their bounds if there are any, else in ulp; worst first.
    """

    arithmetic: str
    error: np.ndarray
    error_relative: float
    error_ulp: np.ndarray
    error_per_bound: np.ndarray | None
    n_unbounded: int
    n_undecided: int
    worst: tuple[Entry, ...]

    @property
    def error_ulp_median(self) -> float:
        return float(np.median(self.error_ulp))

    @property
    def error_ulp_max(self) -> float:
        return float(self.error_ulp.max())

    @property
    def percentiles_ulp(self) -> dict[int, float]:
        """The errors in ulp that 50, 90, 99 and 100 percent of the entries do not exceed."""
        return percentiles(self.error_ulp)

    @property
    def is_within_bound(self) -> bool | None:
        """Whether every entry is within its bound, or None without bounds or where the truth leaves it open."""
        if self.error_per_bound is None:
            return None
        if (self.error_per_bound > 1).any():
            return False
        return None if self.n_undecided else True

    def __str__(self) -> str:
        said = f"relative error {self.error_relative:.2e}; ulp: median {self.error_ulp_median:.3g}, "
        said += f"max {self.error_ulp_max:.3g}"
        said += f"; {self.n_undecided} entries undecided" if self.n_undecided else ""
        return f"{said}{self._of_bounds()}; worst: {self.worst[0]}"

    def _of_bounds(self) -> str:
        if self.error_per_bound is None:
            return ""
        said = f"; no bound for {self.n_unbounded} entries" if self.n_unbounded else ""
        if outside := int((self.error_per_bound > 1).sum()):
            return f"{said}; {outside} of {len(self.error)} entries outside of their bounds"
        return f"{said}; at most {self.error_per_bound.max():.2g} of the bound of an entry"


def discrepancy(
    gradient: np.ndarray, reference: Enclosure, arithmetic: str | None = None, bound: np.ndarray | None = None
) -> Discrepancy:
    """Measure ``gradient`` against the certified truth at the same arguments.

    Parameters
    ----------
    gradient : (n_params,) float64, float32, float16 or bfloat16
    reference : what the certified back-end encloses; nothing else can serve as truth
    arithmetic : the format that errors are counted in the ulp of, if not the gradient's own dtype
    bound : (n_params,) largest error that each entry may have, as by :func:`rounding_bound`

    Raises
    ------
    TypeError
        If ``reference`` is not certified, or ``gradient`` or ``bound`` no floating-point array.
    ValueError
        If the shapes differ, the arithmetic is unknown, or a bound is negative or NaN.
    """
    if not isinstance(reference, Enclosure):
        kind = type(reference).__name__
        raise TypeError(f"reference must be certified, got {kind}; make one with difflab.reference_gradient")
    gradient = _checked("gradient", gradient, reference)
    arithmetic = known(arithmetic or gradient.dtype.name, FORMATS, "arithmetic")
    error, greatest = least_and_greatest_error(gradient, reference)
    error_ulp = _error_ulp(error, reference.gradient, arithmetic)
    is_open, per_bound, n_unbounded = error < greatest, None, 0
    if bound is not None:
        bound = _checked("bound", bound, reference).astype(np.float64)
        per_bound, n_unbounded = _per_bound(error, bound), int(np.isinf(bound).sum())
        is_open &= (error <= bound) & (greatest > bound)
    worst = np.argsort(-(error_ulp if per_bound is None else per_bound), kind="stable")[:N_WORST]
    return Discrepancy(
        arithmetic=arithmetic,
        error=error,
        error_relative=relative_in_norm(error, reference.gradient),
        error_ulp=error_ulp,
        error_per_bound=per_bound,
        n_unbounded=n_unbounded,
        n_undecided=int(is_open.sum()),
        worst=tuple(_entry(int(i), gradient, reference, error_ulp, per_bound) for i in worst),
    )


def rounding_bound(reference: Reference, arithmetic: str) -> np.ndarray:
    """The error that no entry of a gradient by backprop exceeds if its arithmetic is that of a format, (n_params,).

    A tolerance that is derived and not chosen: see :func:`difflab.enclosures.rounding.rounding_errors` for what it
    holds for.

    Parameters
    ----------
    reference : the truth with its arguments
    arithmetic : ``"float64"``, ``"float32"``, ``"float16"`` or ``"bfloat16"``

    Raises
    ------
    TypeError
        If ``reference`` has no arguments.
    ValueError
        If the arithmetic is unknown, or an argument is no number of that format: then there is no bound.
    """
    if not isinstance(reference, Reference):
        kind = type(reference).__name__
        raise TypeError(f"reference must have its arguments, got {kind}; make one with difflab.reference_gradient")
    form = FORMATS[known(arithmetic, FORMATS, "arithmetic")]
    for name, array in (("theta", reference.theta), ("x", reference.x), ("y", reference.y)):
        if array.dtype.kind not in "iu" and not (held := form.holds(array)).all():
            place = tuple(int(i) for i in np.argwhere(~held)[0])
            number, index = float(array[place]), ",".join(map(str, place))
            raise ValueError(
                f"{name} must hold numbers of {arithmetic}, got {number!r} at {name}[{index}]; "
                f"take the reference of {name}.astype({arithmetic!r})"
            )
    return rounding_errors(reference.net, reference.theta, reference.x, reference.y, arithmetic).gradient


def percentiles(errors: np.ndarray) -> dict[int, float]:
    """The values that 50, 90, 99 and 100 percent of ``errors`` do not exceed; infinite ones among them."""
    ordered = np.sort(errors)
    return {percent: float(ordered[-(-percent * len(ordered) // 100) - 1]) for percent in PERCENTS}


def relative_in_norm(error: np.ndarray, truth: np.ndarray) -> float:
    """Norm of ``error`` over norm of ``truth``, neither of which may under- or overflow; 0 / 0 is 0."""
    largest = max(np.abs(error).max(initial=0), np.abs(truth).max(initial=0))
    if largest == 0.0:
        return 0.0
    if not np.isfinite(largest):
        return np.inf
    scale = np.ldexp(1.0, int(np.frexp(largest)[1]) - 1)
    with np.errstate(under="ignore", divide="ignore", over="ignore"):
        return float(np.linalg.norm(error / scale) / np.linalg.norm(truth / scale))


def _checked(name: str, array: np.ndarray, reference: Enclosure) -> np.ndarray:
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"{name} must be a plain array, got a masked one; fill the masked entries")
    array = np.asarray(array)
    if array.dtype.name not in FORMATS:
        raise TypeError(f"{name} must be floating-point, got {array.dtype}; known: {', '.join(FORMATS)}")
    if array.shape != reference.gradient.shape:
        raise ValueError(f"{name} must have shape {reference.gradient.shape}, got {array.shape}")
    return array


def _entry(
    i: int, gradient: np.ndarray, reference: Enclosure, error_ulp: np.ndarray, per_bound: np.ndarray | None
) -> Entry:
    return Entry(
        name=reference.net.name_of(i),
        got=float(gradient[i]),
        truth=float(reference.gradient[i]),
        lower=float(reference.lower[i]),
        upper=float(reference.upper[i]),
        error_ulp=float(error_ulp[i]),
        error_per_bound=None if per_bound is None else float(per_bound[i]),
    )


def least_and_greatest_error(gradient: np.ndarray, reference: Enclosure) -> tuple[np.ndarray, np.ndarray]:
    """What the distance of each entry from the truth can be at least and at most; infinite for NaN.

    Both are the same but where the truth is only enclosed. At a kink it is the distance from the one-sided derivatives
    and what lies between them, or from the convention.
    """
    got = gradient.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs((got - reference.gradient) - reference.residual)
        outside = np.maximum(np.maximum(reference.lower - got, got - reference.upper), 0.0)
        farthest = np.maximum(reference.upper - got, got - reference.lower)
    at_kink = np.minimum(outside, np.where(np.isnan(error), np.inf, error))
    least = np.select([reference.status == ROUNDED, reference.status == KINK], [error, at_kink], outside)
    greatest = np.where(reference.status == ENCLOSED, farthest, least)
    return tuple(np.where(np.isnan(e) | np.isnan(got), np.inf, e) for e in (least, greatest))  # type: ignore[return-value]


def _error_ulp(error: np.ndarray, truth: np.ndarray, arithmetic: str) -> np.ndarray:
    """In units in the last place of ``arithmetic`` at the truth; infinite where the truth is beyond the format."""
    ulp = FORMATS[arithmetic].ulp(truth)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(np.isfinite(ulp), error / ulp, np.inf)


def _per_bound(error: np.ndarray, bound: np.ndarray) -> np.ndarray:
    """Errors in units of their bounds; no error is within any bound, and any error within an infinite one."""
    if not (bound >= 0).all():
        i = int((~(bound >= 0)).argmax())
        raise ValueError(f"bound must not be negative or NaN, got {bound[i]} at bound[{i}]")
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        found = error / bound
    return np.where((error == 0) | np.isinf(bound), 0.0, found)
