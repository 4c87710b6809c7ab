"""Initial parameters: every scheme has the spread of its formula, and zeros do not train."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

import difflab as dl
from difflab.initialisation import INITIALISATIONS


N_INPUTS, N_OUTPUTS = 300, 500
NET = dl.MLP(N_INPUTS, [dl.Dense(N_OUTPUTS)], "squared_error")
MIXED = dl.MLP(
    3,
    [dl.Dense(4, "prelu(0.125)"), dl.BatchNorm(), dl.Maxout(2, 3), dl.Residual([dl.Dense(3, "swish")], project=True)],
    "squared_error",
)
BOUNDS = {
    "uniform": 1 / math.sqrt(N_INPUTS),
    "glorot_uniform": math.sqrt(6 / (N_INPUTS + N_OUTPUTS)),
    "he_uniform": math.sqrt(6 / N_INPUTS),
    "lecun_uniform": math.sqrt(3 / N_INPUTS),
}
DEVIATIONS = {
    "glorot_normal": math.sqrt(2 / (N_INPUTS + N_OUTPUTS)),
    "he_normal": math.sqrt(2 / N_INPUTS),
    "lecun_normal": math.sqrt(1 / N_INPUTS),
}
N_DEVIATIONS = 6
"""Of a statistic from what is expected: no seed in 500 million is further off."""

every_scheme = pytest.mark.parametrize("scheme", INITIALISATIONS)


def weights(scheme: str, seed: int = 0) -> np.ndarray:
    return NET.view(NET.init(seed, scheme))["dense1.weight"]


def test_every_scheme_is_known_by_its_formula():
    assert set(INITIALISATIONS) == {"zeros", *BOUNDS, *DEVIATIONS}
    assert all(name == row.name and row.source for name, row in INITIALISATIONS.items())


@pytest.mark.parametrize("scheme", BOUNDS)
def test_uniform_weights_fill_their_bound(scheme):
    drawn = np.abs(weights(scheme))
    # Of n draws the largest is below 1 - 20 / n of the bound but once in exp(20).
    assert (1 - 20 / drawn.size) * BOUNDS[scheme] <= drawn.max() <= BOUNDS[scheme]


@pytest.mark.parametrize("scheme", BOUNDS)
def test_uniform_weights_are_uniform(scheme):
    """In each tenth of the interval lies a tenth of the weights."""
    drawn = weights(scheme)
    counts, _ = np.histogram(drawn, bins=10, range=(-BOUNDS[scheme], BOUNDS[scheme]))
    assert np.abs(counts - drawn.size / 10).max() <= N_DEVIATIONS * math.sqrt(drawn.size * 0.1 * 0.9)


@pytest.mark.parametrize("scheme", DEVIATIONS)
def test_normal_weights_have_the_moments_of_a_normal_distribution(scheme):
    """Mean, square and fourth power of n normal numbers deviate by 1, 2 and 96 over n, under the root."""
    drawn = weights(scheme).ravel() / DEVIATIONS[scheme]
    for power, expected, variance in ((1, 0, 1), (2, 1, 2), (4, 3, 96)):
        assert abs((drawn**power).mean() - expected) <= N_DEVIATIONS * math.sqrt(variance / drawn.size)


@every_scheme
def test_the_deviation_of_the_table_is_that_of_what_is_drawn(scheme):
    """The square of a number of a uniform or a normal distribution deviates by at most twice its mean."""
    drawn, deviation = weights(scheme), INITIALISATIONS[scheme].deviation(N_INPUTS, N_OUTPUTS)
    off = N_DEVIATIONS * math.sqrt(2 / drawn.size) * deviation**2
    assert abs((drawn**2).mean() - deviation**2) <= off


@every_scheme
def test_parameters_depend_on_the_seed_and_the_scheme_alone(scheme):
    first, again = (MIXED.init(7, scheme) for _ in range(2))
    other, generated = MIXED.init(8, scheme), MIXED.init(np.random.default_rng(7), scheme)
    assert (first == again).all()
    assert (first == generated).all()
    assert (first != other).any() == (scheme != "zeros")


def test_glorot_uniform_is_the_default():
    assert MIXED.initialisation == "glorot_uniform"
    assert (MIXED.init(3) == MIXED.init(3, "glorot_uniform")).all()


@every_scheme
def test_a_network_has_a_scheme_of_its_own(scheme):
    net = dataclasses.replace(MIXED, initialisation=scheme)
    assert (net.init(3) == MIXED.init(3, scheme)).all()
    assert (net.init(3, "he_normal") == MIXED.init(3, "he_normal")).all()
    assert (net == MIXED) == (scheme == "glorot_uniform")
    assert str(net) == str(MIXED)


@every_scheme
def test_what_is_no_weight_starts_where_its_layer_says(scheme):
    views = MIXED.view(MIXED.init(0, scheme))
    for name, view in views.items():
        start = {"bias": 0.0, "beta": 0.0, "gamma": 1.0, "slope": 0.125}.get(name.split(".")[1])
        if name == "dense2.beta":
            start = 1.0
        if start is not None:
            assert (view == start).all(), name
        elif scheme != "zeros":
            assert (view != 0).all(), name


def test_each_weight_is_drawn_by_the_width_of_its_own_layer():
    """A maxout layer has the inputs of its layer, and as outputs all its pieces."""
    net = dl.MLP(100, [dl.Maxout(50, 4), dl.Residual([dl.Dense(400)], project=True)], "squared_error")
    views = net.view(net.init(0, "glorot_uniform"))
    for name, n_inputs, n_outputs in (("maxout1", 100, 200), ("dense1", 50, 400), ("residual1", 50, 400)):
        bound = math.sqrt(6 / (n_inputs + n_outputs))
        assert 0.99 * bound <= np.abs(views[f"{name}.weight"]).max() <= bound


def test_a_shared_weight_is_drawn_once():
    tied = dl.MLP(3, [dl.Dense(3, share="w"), dl.Dense(3, share="w")], "squared_error")
    once = dl.MLP(3, [dl.Dense(3)], "squared_error")
    assert (tied.init(5) == once.init(5)).all()


def test_an_unknown_scheme_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="^unknown initialisation 'he_norm'; known: .*; did you mean 'he_normal'"):
        NET.init(0, "he_norm")
    with pytest.raises(ValueError, match="^unknown initialisation ''; known: "):
        NET.init(0, "")
    with pytest.raises(ValueError, match="^unknown initialisation 'he_norm'; known: .*; did you mean 'he_normal'"):
        dataclasses.replace(NET, initialisation="he_norm")


@pytest.mark.parametrize("hidden", ["tanh", "relu", "softsign", "gelu"])
def test_a_network_initiated_at_zero_will_not_train(hidden):
    """The slope of the last bias alone is not zero: it is all that a step can change [lecture notes 003]."""
    net = dl.MLP.dense([4, 5, 5, 3], hidden)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 4)), rng.integers(3, size=7)
    theta = net.init(0, "zeros")
    for _ in range(3):
        truth = dl.reference_gradient(net, theta, x, y)
        views = net.view(truth.gradient)
        assert views.pop("dense3.bias").all()
        assert not any(view.any() for view in views.values())
        theta = theta - 0.5 * truth.gradient


@pytest.mark.parametrize("scheme", [scheme for scheme in INITIALISATIONS if scheme != "zeros"])
def test_any_other_scheme_will(scheme):
    net = dl.MLP.dense([4, 5, 5, 3], "tanh")
    rng = np.random.default_rng(0)
    _, gradient = dl.value_and_gradient(net, net.init(0, scheme), rng.normal(size=(7, 4)), rng.integers(3, size=7))
    assert gradient.all()
