"""Real data, standardised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


DIGIT_SIZES = {"digits-8x8": 8, "digits-4x4": 4, "digits-2x2": 2}
N_DIGITS = 10


class MissingExtra(ImportError):
    """An optional part of difflab is not installed."""

    def __init__(self, extra: str, what: str) -> None:
        super().__init__(f"{what} is not installed; install it with: pip install 'difflab[{extra}]'")


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


def load(name: str) -> Dataset:
    """One of the data sets in ``DIGIT_SIZES``.

    The 1797 handwritten digits bundled with scikit-learn (UCI Optical Recognition of Handwritten Digits, test set
    [Alpaydin, Kaynak 1998]), 8 x 8 pixels, or pooled to 4 x 4 or 2 x 2 by means of square blocks.

    Raises
    ------
    ValueError
        If there is no such data set.
    MissingExtra
        If scikit-learn is not installed.
    """
    if name not in DIGIT_SIZES:
        raise ValueError(f"unknown dataset {name!r}; known: {', '.join(DIGIT_SIZES)}")
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtra("data", "scikit-learn") from error
    images, classes = load_digits(return_X_y=True)
    pixels = pooled(images.reshape(-1, 8, 8), DIGIT_SIZES[name])
    return Dataset(name, standardised(pixels), classes.astype(np.int64), N_DIGITS)


def pooled(images: np.ndarray, size: int) -> np.ndarray:
    """Images (n, 8, 8) pooled to rows (n, size * size) by the means of square blocks."""
    block = images.shape[1] // size
    return images.reshape(-1, size, block, size, block).mean(axis=(2, 4)).reshape(len(images), -1)


def standardised(x: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and variance 1; constant columns become 0."""
    spread = x.std(axis=0)
    return (x - x.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
