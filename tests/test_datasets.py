"""Real data: its shapes, its scale, and what is said where it is not to be had."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from difflab import datasets
from difflab.datasets import DIGIT_SIZES, MissingExtra


N_SAMPLES, N_DIGITS = 1797, 10
EPS = np.finfo(np.float64).eps
every_dataset = pytest.mark.parametrize(("name", "size"), DIGIT_SIZES.items())


@pytest.fixture
def digits(name):
    pytest.importorskip("sklearn")
    return datasets.load(name)


@every_dataset
def test_samples_are_rows_and_classes_are_digits(digits, name, size):
    assert digits.name == name
    assert digits.x.shape == (N_SAMPLES, size * size)
    assert digits.x.dtype == np.float64
    assert digits.classes.shape == (N_SAMPLES,)
    assert digits.classes.dtype == np.int64
    assert digits.n_classes == N_DIGITS
    assert set(digits.classes.tolist()) == set(range(N_DIGITS))


@every_dataset
def test_columns_have_mean_0_and_variance_1_or_are_0(digits, name, size):
    """A sum of n terms is off by at most n eps relative to the sum of magnitudes."""
    rounding = N_SAMPLES * EPS
    varying = digits.x.any(axis=0)
    assert np.abs(digits.x.mean(axis=0)).max() <= rounding
    assert np.abs(digits.x[:, varying].var(axis=0) - 1).max() <= rounding
    assert (~varying).sum() <= 3 * max(1, size // 8) ** 2


@every_dataset
def test_loading_twice_gives_the_same_numbers_in_arrays_of_their_own(digits, name, size):
    again = datasets.load(name)
    assert (again.x == digits.x).all()
    assert not np.shares_memory(again.x, digits.x)


def pooled_by_loops(images: np.ndarray, size: int) -> np.ndarray:
    block = images.shape[1] // size
    rows = np.zeros((len(images), size * size))
    for n, image in enumerate(images):
        for i in range(size):
            for j in range(size):
                total = 0.0
                for row in range(i * block, (i + 1) * block):
                    for column in range(j * block, (j + 1) * block):
                        total += image[row, column]
                rows[n, i * size + j] = total / block**2
    return rows


@pytest.mark.parametrize("size", [8, 4, 2])
def test_pooling_takes_the_means_of_square_blocks(size):
    """Exact: pixels are integers up to 16, and blocks have a power of two of them."""
    images = np.random.default_rng(size).integers(0, 17, (5, 8, 8)).astype(float)
    assert (datasets.pooled(images, size) == pooled_by_loops(images, size)).all()


def enlarged_by_loops(image: np.ndarray, size: int) -> np.ndarray:
    """Between the centres of the four pixels around; beyond the outermost centres, as there."""
    n, grown = len(image), np.zeros((size, size))
    places = [min(max((k + 0.5) * n / size - 0.5, 0.0), n - 1.0) for k in range(size)]
    for i, u in enumerate(places):
        for j, v in enumerate(places):
            top, left = min(int(u), n - 2), min(int(v), n - 2)
            for row, share in ((top, 1 - (u - top)), (top + 1, u - top)):
                for column, part in ((left, 1 - (v - left)), (left + 1, v - left)):
                    grown[i, j] += share * part * image[row, column]
    return grown.ravel()


def test_enlarging_interpolates_between_centres_of_pixels():
    images = np.random.default_rng(0).integers(0, 17, (3, 8, 8)).astype(float)
    expected = np.array([enlarged_by_loops(image, 28) for image in images])
    assert datasets.enlarged(images, 28) == pytest.approx(expected, rel=100 * EPS, abs=100 * EPS)


def test_constant_columns_become_zero_and_others_keep_their_order():
    x = np.array([[5.0, 1.0], [5.0, 3.0], [5.0, 5.0]])
    scaled = datasets.standardised(x)
    assert not scaled[:, 0].any()
    assert scaled[:, 1] == pytest.approx(np.array([-1, 0, 1]) * np.sqrt(1.5), rel=4 * EPS)


@pytest.mark.parametrize("name", ["digits", "mnist", "", "../digits-8x8"])
def test_an_unknown_name_is_refused_beside_the_known_ones(name):
    with pytest.raises(ValueError) as raised:
        datasets.load(name)
    known = ", ".join(sorted(DIGIT_SIZES))
    assert str(raised.value).startswith(f"unknown dataset {name!r}; known: {known}")


def test_a_missing_scikit_learn_is_named_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtra) as raised:
        datasets.load("digits-8x8")
    assert str(raised.value) == "scikit-learn is not installed; install it with: pip install 'difflab[data]'"


def test_a_missing_scikit_learn_does_not_hide_an_unknown_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ValueError, match="unknown dataset"):
        datasets.load("digits-3x3")


def test_flowers_are_three_classes_of_four_lengths():
    pytest.importorskip("sklearn")
    flowers = datasets.load("iris")
    assert (flowers.x.shape, flowers.n_classes) == ((150, 4), 3)
    assert datasets.SHAPES["iris"] == (4, 3)
    assert np.bincount(flowers.classes).tolist() == [50] * 3
    assert np.abs(flowers.x.mean(axis=0)).max() <= 150 * EPS
