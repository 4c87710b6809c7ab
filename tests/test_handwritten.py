"""The yardstick computes the right gradient: a benchmark against a wrong one would say nothing."""

import naive
import numpy as np
import pytest

from difflab import MLP, Dense, Residual, discrepancy, reference_gradient
from difflab.primitives.activations import ACTIVATIONS
from difflab.study import handwritten


HIDDEN = [name for name in ACTIVATIONS if handwritten.applies(MLP.dense([2, 3, 2], name))]


def test_the_yardstick_is_laid_on_the_activations_of_the_textbooks():
    assert {"identity", "sigmoid", "tanh", "relu", "softplus"} <= set(HIDDEN)


@pytest.mark.parametrize("hidden", HIDDEN)
def test_the_yardstick_agrees_with_the_certified_gradient(hidden):
    rng = np.random.default_rng(3)
    net = MLP.dense([5, 7, 6, 4], hidden)
    theta, x, classes = net.init(rng), rng.standard_normal((9, 5)), rng.integers(0, 4, 9)
    theta += rng.uniform(-0.1, 0.1, theta.size)
    value, gradient = handwritten.backprop(net, theta, x, classes)
    truth = reference_gradient(net, theta, x, classes)
    bound = naive.accumulated_rounding(net, 9, np.finfo(float).eps)
    assert discrepancy(gradient, truth).error_relative < bound
    assert abs(value - truth.value) < bound * truth.value


@pytest.mark.parametrize(
    "net",
    [
        MLP.dense([2, 2], loss="squared_error"),
        MLP.dense([2, 2], reduction="sum"),
        MLP.dense([2, 2], output="tanh"),
        MLP.dense([2, 3, 2], hidden="elu(0.5)"),
        MLP(2, [Dense(2)], l2=0.1),
        MLP(2, [Dense(2)], label_smoothing=0.1),
        MLP(2, [Dense(2, bias=False)]),
        MLP(2, [Dense(2, share="a"), Dense(2, share="a")]),
        MLP(2, [Residual([Dense(2)])]),
    ],
    ids=str,
)
def test_the_yardstick_says_where_it_does_not_apply(net):
    assert not handwritten.applies(net)
    assert handwritten.applies(MLP.dense([2, 3, 2]))
