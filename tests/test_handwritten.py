"""The yardstick computes the right gradient: a benchmark against a wrong one would say nothing."""

import naive
import numpy as np
import pytest

from difflab import MLP, discrepancy, reference_gradient
from difflab.primitives.activations import ACTIVATIONS
from difflab.study import handwritten


@pytest.mark.parametrize("hidden", ACTIVATIONS)
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
    [MLP.dense([2, 2], loss="squared_error"), MLP.dense([2, 2], reduction="sum"), MLP.dense([2, 2], output="tanh")],
    ids=str,
)
def test_the_yardstick_says_where_it_does_not_apply(net):
    assert not handwritten.applies(net)
    assert handwritten.applies(MLP.dense([2, 3, 2]))
