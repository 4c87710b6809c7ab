"""Real data, standardised."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import numpy as np

from difflab.errors import MissingExtra, known


DIGIT_SIZES = {"digits-28x28": 28, "digits-8x8": 8, "digits-4x4": 4, "digits-2x2": 2}
N_DIGITS = 10
SHAPES = {name: (size * size, N_DIGITS) for name, size in DIGIT_SIZES.items()} | {"iris": (4, 3)}
"""Columns and classes of every data set."""


@dataclass(frozen=True)
class Dataset:
    """Samples and their classes.

    Attributes
    ----------
    x : (n_samples, n_inputs) float64; mean 0 and variance 1 in every column that varies, else 0.
    classes : (n_samples,) int64.
    n_classes : how many classes there are.
    """

    name: str
    x: np.ndarray
    classes: np.ndarray
    n_classes: int

    def targets(self, as_classes: bool) -> np.ndarray:
        """Class indices (n_samples,), or one-hot rows (n_samples, n_classes) for a loss that takes no classes."""
        return self.classes if as_classes else np.eye(self.n_classes)[self.classes]


def load(name: str) -> Dataset:
    """One of the data sets in ``SHAPES``.

    The 1797 handwritten digits bundled with scikit-learn (UCI Optical Recognition of Handwritten Digits, test set
    [Alpaydin, Kaynak 1998]), 8 x 8 pixels, or pooled to 4 x 4 or 2 x 2 by means of square blocks, or enlarged to
    28 x 28; or the 150 iris flowers there, four lengths of each [Fisher 1936].

    Raises
    ------
    ValueError
        If there is no such data set.
    MissingExtra
        If scikit-learn is not installed.
    """
    known(name, SHAPES, "dataset")
    try:
        from sklearn.datasets import load_digits, load_iris
    except ImportError as error:
        raise MissingExtra("data", "scikit-learn") from error
    x, classes = (load_iris if name == "iris" else load_digits)(return_X_y=True)
    if name in DIGIT_SIZES:
        size = DIGIT_SIZES[name]
        x = (pooled if size <= 8 else enlarged)(x.reshape(-1, 8, 8), size)
    return Dataset(name, standardised(x), classes.astype(np.int64), SHAPES[name][1])


def require() -> None:
    """Raise ``MissingExtra`` unless the data sets can be loaded here."""
    if importlib.util.find_spec("sklearn") is None:
        raise MissingExtra("data", "scikit-learn")


def pooled(images: np.ndarray, size: int) -> np.ndarray:
    """Images (n, 8, 8) pooled to rows (n, size * size) by the means of square blocks."""
    block = images.shape[1] // size
    return images.reshape(-1, size, block, size, block).mean(axis=(2, 4)).reshape(len(images), -1)


def enlarged(images: np.ndarray, size: int) -> np.ndarray:
    """Images (n, 8, 8) enlarged to rows (n, size * size) by bilinear interpolation between the centres of pixels."""
    from scipy.ndimage import zoom

    factor = size / images.shape[1]
    grown = zoom(images, (1, factor, factor), order=1, mode="nearest", grid_mode=True)
    return grown.reshape(len(images), -1)


def standardised(x: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and variance 1; constant columns become 0."""
    spread = x.std(axis=0)
    return (x - x.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
