"""The one door for numeric arguments: shape, dtype, finiteness, classes, overlap, checked before any sweep runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from difflab.network import MLP
from difflab.primitives.losses import LOSSES


@dataclass(frozen=True)
class Arguments:
    """Checked arguments: C-contiguous, native, aligned; class indices turned into one-hot rows."""

    theta: np.ndarray
    x: np.ndarray
    y: np.ndarray
    out: np.ndarray

    @property
    def given(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """theta, x and y."""
        return self.theta, self.x, self.y

    def of(self, samples: slice) -> Arguments:
        """The same for some of the samples."""
        return Arguments(self.theta, self.x[samples], self.y[samples], self.out)


def checked(
    net: MLP,
    theta: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    dtypes: tuple[str, ...],
    out: np.ndarray | None = None,
    allow_nonfinite: bool | None = False,
) -> Arguments:
    """Check the arguments of one evaluation.

    Parameters
    ----------
    theta : (n_params,)
    x : (batch, n_inputs)
    y : (batch, n_outputs), or class indices (batch,) where the loss takes them
    dtypes : names of the dtypes the caller computes in; theta, x, y and out must all have the same one
    out : (n_params,) array to fill, or None for a fresh one
    allow_nonfinite : let NaN and infinities through; None where who calls could not ask for it

    Raises
    ------
    TypeError
        For something that is not a plain NumPy array of an accepted dtype.
    ValueError
        For a wrong shape, a number that is not finite, a class out of range, or an unusable ``out``.
    """
    dtype = _check_array("theta", theta, dtypes)
    _check_array("x", x, (dtype,))
    if theta.shape != (net.n_params,):
        raise ValueError(f"theta must have shape ({net.n_params},) for {net}, got {theta.shape}")
    if x.ndim != 2 or x.shape[1] != net.n_inputs or len(x) < 1:
        raise ValueError(f"x must have shape (batch, {net.n_inputs}) with batch 1 or more for {net}, got {x.shape}")
    targets = _targets(net, y, len(x), theta.dtype)
    if not allow_nonfinite:
        for name, array in (("theta", theta), ("x", x), ("y", targets)):
            _check_finite(name, array, "" if allow_nonfinite is None else "; or pass allow_nonfinite=True")
    if out is None:
        out = np.empty(net.n_params, theta.dtype)
    else:
        _check_out(out, net, dtype, {"theta": theta, "x": x, "y": y})
    return Arguments(_plain(theta), _plain(x), _plain(targets), out)


def _check_array(name: str, array: object, dtypes: tuple[str, ...]) -> str:
    """The one of ``dtypes`` that the array has."""
    if type(array) is not np.ndarray:
        kind = type(array).__module__.partition(".")[0] + "." + type(array).__name__
        if isinstance(array, np.ma.MaskedArray):
            remedy = "fill the masked entries"
        else:
            remedy = f"pass an array of {dtypes[0]}, as by numpy.array({name}, {dtypes[0]!r})"
        raise TypeError(f"{name} must be a plain numpy.ndarray, got {kind}; {remedy}")
    if array.dtype.name in dtypes and array.dtype.isnative:
        return array.dtype.name
    wanted = " or ".join(dtypes)
    raise TypeError(f"{name} must be {wanted}, got {array.dtype.str}; convert with {name}.astype({dtypes[0]!r})")


def checked_like(name: str, array: object, like: np.ndarray) -> np.ndarray:
    """A direction or cotangent, of the shape and dtype of what it belongs to, as compiled code can read it.

    Raises
    ------
    TypeError, ValueError
        If it is not that, or a number in it is not finite.
    """
    _check_array(name, array, (like.dtype.name,))
    assert isinstance(array, np.ndarray)
    if array.shape != like.shape:
        raise ValueError(f"{name} must have shape {like.shape}, got {array.shape}")
    _check_finite(name, array)
    return _plain(array)


def no_targets(net: MLP, theta: object, x: object) -> np.ndarray:
    """Targets that any loss takes, for what does not depend on them."""
    n_samples = len(x) if isinstance(x, np.ndarray) and x.ndim else 0
    return np.zeros((n_samples, net.n_outputs), getattr(theta, "dtype", np.float64))


def _targets(net: MLP, y: object, batch: int, dtype: np.dtype) -> np.ndarray:
    takes_classes = LOSSES[net.loss].accepts_classes
    if type(y) is np.ndarray and y.ndim == 1 and takes_classes:
        return _one_hot(y, batch, net.n_outputs, dtype)
    if type(y) is np.ndarray and y.ndim == 1 and y.dtype.kind in "iu":
        raise TypeError(f"y must hold rows of {net.n_outputs} numbers for {net.loss}, got class indices; pass values")
    _check_array("y", y, (dtype.name,))
    assert isinstance(y, np.ndarray)
    if y.shape != (batch, net.n_outputs):
        classes = f", or ({batch},) of class indices" if takes_classes else ""
        raise ValueError(f"y must have shape ({batch}, {net.n_outputs}){classes} for {net}, got {y.shape}")
    _check_range(net, y)
    return y


def _check_range(net: MLP, y: np.ndarray) -> None:
    low, high = LOSSES[net.loss].targets
    outside = (y < low) | (y > high)
    if outside.any():
        i, k = (int(index) for index in np.unravel_index(int(outside.argmax()), y.shape))
        wanted = f"from {low:g} to {high:g}" if np.isfinite(high) else f"{low:g} or more"
        raise ValueError(f"y must be {wanted} for {net.loss}, got {y[i, k]} at y[{i},{k}]")


def _one_hot(classes: np.ndarray, batch: int, n_classes: int, dtype: np.dtype) -> np.ndarray:
    if classes.dtype.kind not in "iu":
        raise TypeError(f"class indices y must be integers, got {classes.dtype.name}; convert with y.astype(int)")
    if classes.shape != (batch,):
        raise ValueError(f"class indices y must have shape ({batch},), one per row of x, got {classes.shape}")
    outside = (classes < 0) | (classes >= n_classes)
    if outside.any():
        i = int(outside.argmax())
        raise ValueError(f"class indices y must be from 0 to {n_classes - 1}, got {classes[i]} at y[{i}]")
    rows = np.zeros((batch, n_classes), dtype)
    rows[np.arange(batch), classes] = 1
    return rows


def _check_finite(name: str, array: np.ndarray, remedy: str = "") -> None:
    finite = np.isfinite(array)
    if not finite.all():
        index = tuple(int(i) for i in np.unravel_index(int((~finite).argmax()), array.shape))
        place = ",".join(map(str, index))
        raise ValueError(f"{name} must be finite, got {array[index]} at {name}[{place}]{remedy}")


def _check_out(out: object, net: MLP, dtype: str, others: dict[str, np.ndarray]) -> None:
    _check_array("out", out, (dtype,))
    assert isinstance(out, np.ndarray)
    if out.shape != (net.n_params,):
        raise ValueError(f"out must have shape ({net.n_params},) for {net}, got {out.shape}")
    if not (out.flags.c_contiguous and out.flags.writeable and out.flags.aligned):
        raise ValueError("out must be contiguous, aligned and writeable, got a view that is not; pass numpy.empty(...)")
    for name, other in others.items():
        if np.shares_memory(out, other):
            raise ValueError(f"out must not share memory with {name}; pass an array of its own")


def _plain(array: np.ndarray) -> np.ndarray:
    """The array itself if compiled code can read it as it is, else one copy."""
    return np.require(array, requirements=["C_CONTIGUOUS", "ALIGNED"])
