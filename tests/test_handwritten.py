"""Backprop by hand: right where it applies, within the error it predicts, and so a benchmark that says something."""

import naive
import numpy as np
import pytest

from difflab import MLP, Dense, Residual, discrepancy, reference_gradient
from difflab.backends import Unsupported
from difflab.peers import PEERS, Handwritten, handwritten
from difflab.primitives.activations import ACTIVATIONS


HIDDEN = [name for name in ACTIVATIONS if Handwritten().unsupported(MLP.dense([2, 3, 2], name)) is None]


def problem(hidden):
    rng = np.random.default_rng(3)
    net = MLP.dense([5, 7, 6, 4], hidden)
    theta, x, classes = net.init(rng), rng.standard_normal((9, 5)), rng.integers(0, 4, 9)
    return net, theta + rng.uniform(-0.1, 0.1, theta.size), x, classes


def test_the_activations_of_the_textbooks_are_there():
    assert {"identity", "sigmoid", "tanh", "relu", "softplus"} <= set(HIDDEN)


@pytest.mark.parametrize("hidden", HIDDEN)
def test_it_agrees_with_the_certified_gradient(hidden):
    net, theta, x, classes = problem(hidden)
    value, gradient = handwritten.backprop(net, theta, x, classes)
    truth = reference_gradient(net, theta, x, classes)
    bound = naive.accumulated_rounding(net, 9, np.finfo(float).eps)
    assert discrepancy(gradient, truth).error_relative < bound
    assert abs(value - truth.value) < bound * truth.value


@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("hidden", HIDDEN)
def test_as_a_back_end_it_keeps_within_the_error_it_predicts(hidden, scale):
    net, theta, x, classes = problem(hidden)
    prepared, theta = Handwritten().prepare(net), scale * theta
    before = theta.copy(), x.copy(), classes.copy()
    value, gradient = prepared.value_and_gradient(theta, x, classes)
    assert all(map(np.array_equal, before, (theta, x, classes)))
    assert value == prepared.value(theta, x, classes)
    found = discrepancy(
        gradient, reference_gradient(net, theta, x, classes), bound=prepared.predicted_error(theta, x, classes)
    )
    assert found.is_within_bound, str(found)


def test_rows_of_targets_need_not_add_up_to_one():
    net, theta, x, classes = problem("tanh")
    prepared, rows = Handwritten().prepare(net), np.eye(4)[classes]
    assert np.array_equal(
        prepared.value_and_gradient(theta, x, rows)[1], prepared.value_and_gradient(theta, x, classes)[1]
    )
    rows += 0.5
    value, gradient = prepared.value_and_gradient(theta, x, rows)
    truth = reference_gradient(net, theta, x, rows)
    bound = naive.accumulated_rounding(net, 9, np.finfo(float).eps)
    assert discrepancy(gradient, truth).error_relative < bound
    assert abs(value - truth.value) < bound * truth.value


def test_it_shows_the_cancellation_of_the_textbook_form():
    """1 - tanh(z)**2 has no digits left at z = 20, where the slope is 1.7e-17."""
    net = MLP(1, [Dense(1, "tanh"), Dense(2)])
    theta, x, y = np.array([20.0, 0.0, 1.0, -1.0, 0.0, 0.0]), np.ones((1, 1)), np.array([0])
    _, gradient = Handwritten().prepare(net).value_and_gradient(theta, x, y)
    truth = reference_gradient(net, theta, x, y)
    assert gradient[0] == 0.0
    assert 1e-18 < abs(truth.gradient[0]) < 1e-16


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (MLP.dense([2, 2], loss="squared_error"), "only the mean softmax cross-entropy"),
        (MLP.dense([2, 2], reduction="sum"), "only the mean softmax cross-entropy"),
        (MLP.dense([2, 2], output="tanh"), "outputs without activation"),
        (MLP.dense([2, 3, 2], hidden="elu(0.5)"), "elu(0.5) is not written by hand; known: identity, relu"),
        (MLP(2, [Dense(2)], l2=0.1), "only the mean softmax cross-entropy"),
        (MLP(2, [Dense(2)], label_smoothing=0.1), "only the mean softmax cross-entropy"),
        (MLP(2, [Dense(2, bias=False)]), "only dense layers with a weight and a bias"),
        (MLP(2, [Dense(2, share="a"), Dense(2, share="a")]), "of their own"),
        (MLP(2, [Residual([Dense(2)])]), "only dense layers"),
    ],
    ids=str,
)
def test_it_says_where_it_does_not_apply(net, reason):
    assert reason in Handwritten().unsupported(net)
    with pytest.raises(Unsupported, match="Handwritten"):
        Handwritten().prepare(net)


@pytest.mark.parametrize("hidden", HIDDEN)
def test_in_float32_everything_is_float32(hidden):
    net, theta, x, classes = problem(hidden)
    arguments = theta.astype(np.float32), x.astype(np.float32), classes
    prepared = Handwritten("float32").prepare(net)
    assert prepared.dtypes == ("float32",)
    _, gradient = prepared.value_and_gradient(*arguments)
    _, raw = handwritten.backprop(net, *arguments)
    assert gradient.dtype == raw.dtype == np.float32
    found = discrepancy(gradient, reference_gradient(net, *arguments), bound=prepared.predicted_error(*arguments))
    assert found.is_within_bound, str(found)


def test_it_is_a_method_of_studies():
    assert PEERS["handwritten"] == Handwritten()
    assert repr(Handwritten()) == "Handwritten('float64')"
    with pytest.raises(ValueError, match="unknown dtype 'float16'"):
        Handwritten("float16")
    assert Handwritten().unsupported(MLP.dense([2, 3, 2])) is None
