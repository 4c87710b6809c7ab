"""Accuracy: errors beside their bounds, entry by entry."""

import dataclasses
import math

import numpy as np
import pytest

from difflab import MLP, Backprop, discrepancy, reference_gradient
from difflab.study.measures import accuracy
from difflab.study.measures.accuracy import bounded
from difflab.study.measures.subject import Subject


NET = MLP.dense([2, 3, 2], hidden="tanh")
THETA, X, Y = NET.init(seed=0), np.array([[0.5, -1.0], [0.25, 2.0]]), np.array([1, 0])
TRUTH = reference_gradient(NET, THETA, X, Y)
OFF = 1e-6 * (1 + np.arange(NET.n_params))


def test_bounds_that_are_twice_the_errors_are_so_everywhere():
    found = discrepancy(TRUTH.gradient + OFF, TRUTH, bound=2 * OFF)
    columns = bounded(found, 2 * OFF)
    assert columns["error_per_bound_max"] == pytest.approx(0.5, rel=1e-9)
    assert columns["bound_per_error_median"] == pytest.approx(2.0, rel=1e-9)


def test_one_bound_that_fails_shows():
    bounds = 8 * OFF
    bounds[3] /= 64
    columns = bounded(discrepancy(TRUTH.gradient + OFF, TRUTH, bound=bounds), bounds)
    assert columns["error_per_bound_max"] == pytest.approx(8.0, rel=1e-9)
    assert columns["bound_per_error_median"] == pytest.approx(8.0, rel=1e-9)


def test_entries_without_error_say_nothing_of_how_tight_a_bound_is():
    """Truths that float64 has: half of the entries are exactly right."""
    truth = dataclasses.replace(TRUTH, residual=np.zeros(NET.n_params))
    off = np.where(np.arange(NET.n_params) % 2, OFF, 0.0)
    columns = bounded(discrepancy(truth.gradient + off, truth, bound=4 * OFF), 4 * OFF)
    assert columns["bound_per_error_median"] == pytest.approx(4.0, rel=1e-9)
    exact = bounded(discrepancy(truth.gradient, truth, bound=OFF), OFF)
    assert exact == {"error_per_bound_max": 0.0}


def measured(dtype="float64", predicted=None):
    prepared = Backprop(dtype).prepare(NET)
    theta, x = THETA.astype(dtype), X.astype(dtype)
    truth = reference_gradient(NET, theta, x, Y)
    value, gradient = prepared.value_and_gradient(theta, x, Y)
    if predicted is not None:
        prepared.predicted_error = lambda *_: np.full(NET.n_params, predicted)
    return accuracy.measure(Subject(prepared, truth, theta, x, Y, value, gradient, 0))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_backprop_keeps_within_its_bounds_and_the_row_says_how_far(dtype):
    row = measured(dtype)
    assert (row["status"], row["dtype"]) == ("ok", dtype)
    assert 0 < row["error_per_bound_max"] <= 1 <= row["bound_per_error_median"]
    assert row["error_ulp_median"] <= row["error_ulp_p99"] <= row["error_ulp_max"]


@pytest.mark.parametrize("nothing", [math.nan, math.inf])
def test_a_prediction_that_says_nothing_is_a_bound_without_end(nothing):
    row = measured(predicted=nothing)
    assert (row["error_per_bound_max"], row["bound_per_error_median"]) == (0.0, math.inf)
