"""Batches of many tiles, and calls that leave nothing to the next."""

from __future__ import annotations

import naive
import numpy as np
import pytest
from backprop_derivatives import (
    METHODS,
    RESIDUAL,
    assert_right,
    drawn,
    each_dtype,
    each_method,
    each_small,
    found,
    prepared,
    takes,
)

import difflab as dl
from difflab.kernels import plans
from difflab.kernels.tables import make_table
from difflab.primitives.losses import LOSSES


@pytest.fixture
def tiles_of_two(monkeypatch):
    """So that a batch of five has two whole tiles and a rest."""
    monkeypatch.setattr(plans, "LEAST_TILE", 2)
    monkeypatch.setattr(plans, "MOST_TILE", 2)


@pytest.mark.usefixtures("tiles_of_two")
@each_dtype
@each_method
@each_small
def test_it_is_right_over_several_tiles(net, method, dtype):
    if takes(method, net):
        assert_right(method, drawn(net, 5), dtype)


LARGE = dl.MLP.dense([3, 40, 30, 2], "tanh")
PER_SAMPLE = ("x", "y", "x_dot", "outputs_bar")


def test_150_samples_are_more_than_a_tile():
    choice = plans.Choice("gradient", "float64")
    assert plans._tile(LARGE.program, make_table(LARGE.program, choice), choice) < 150


@each_method
def test_150_samples_are_what_50_three_times_are(method):
    """The bound of each part; sums over samples and those of parts are rounded alike."""
    p = drawn(LARGE, 150)
    parts = [p._replace(**{name: getattr(p, name)[i : i + 50] for name in PER_SAMPLE}) for i in (0, 50, 100)]
    made = [found(method, part) for part in parts]
    if method in ("per-example gradients", "jvp"):
        expected = np.concatenate(made)
    else:
        expected = np.concatenate(made) / 3 if method == "input gradient" else sum(made)
        expected = expected / 3 if method in ("hvp", "Gauss-Newton product") else expected
    size = sum(np.linalg.norm(part) for part in made)
    assert np.linalg.norm(found(method, p) - expected) <= naive.accumulated_rounding(LARGE, 150, 2.0**-52) * size


MORE = {
    "hessian": lambda backprop, p: backprop.hessian(*p.arguments),
    "jvp of theta": lambda backprop, p: backprop.jvp(p.theta, p.x, p.theta_dot),
    "hvp of theta": lambda backprop, p: backprop.hvp(*p.arguments, p.theta_dot),
}
"""What takes samples to stay where they are, whatever moved before."""

CALLS = {name: method.of for name, method in METHODS.items()} | MORE


@each_small
def test_no_call_leaves_anything_to_the_next(net):
    """Of any method, on batches of any size in any order, with classes and with rows."""
    used = prepared(drawn(net))
    for batch in (5, 1, 2, 7, 2, 64, 3):
        for seed in range(3):
            p = drawn(net, batch, seed)
            for name, call in CALLS.items():
                if takes(name, net):
                    assert call(used, p).tobytes() == call(prepared(p), p).tobytes(), (name, batch, seed)
            value, gradient = used.value_and_gradient(*p.arguments)
            assert gradient.tobytes() == prepared(p).value_and_gradient(*p.arguments)[1].tobytes()
            assert value == used.value(*p.arguments) == prepared(p).value(*p.arguments)


@pytest.mark.usefixtures("tiles_of_two")
@pytest.mark.parametrize("name", CALLS)
def test_the_last_tile_leaves_nothing_to_the_first_of_the_next_call(name):
    p = drawn(RESIDUAL, 5)
    used = prepared(p)
    first = CALLS[name](used, p)
    assert CALLS[name](used, p).tobytes() == first.tobytes()


@each_small
def test_a_call_with_classes_leaves_nothing_to_one_with_rows(net):
    """One compiled call reads classes as they are, all others as rows; the second has to be looked at at leisure."""
    if not LOSSES[net.loss].accepts_classes:
        return
    p = drawn(net)._replace(y=np.array([1, 0, 1]))
    rows = np.eye(net.n_outputs)[p.y]
    used, strided = prepared(p), np.asfortranarray(p.x)
    for y in (rows, p.y, rows, p.y):
        expected = prepared(p).value_and_gradient(p.theta, p.x, rows)
        for x in (p.x, strided):
            value, gradient = used.value_and_gradient(p.theta, x, y)
            assert (value, gradient.tobytes()) == (expected[0], expected[1].tobytes())
            assert used.value(p.theta, x, y) == value
            assert (
                used.hvp(p.theta, x, y, p.theta_dot).tobytes() == prepared(p).hvp(*p.arguments, p.theta_dot).tobytes()
            )


def test_gradients_of_examples_are_one_sweep_with_dropout_too(monkeypatch):
    """Each with the masks of its own row, as of the whole batch."""
    net = dl.MLP(
        3, [dl.Dense(4, "tanh"), dl.Dropout(0.5, seed=1), dl.Dense(5, "tanh"), dl.Dropout(0.25, seed=2), dl.Dense(2)]
    )
    theta, x, y = naive.random_problem(net, np.random.default_rng(0), 7)
    ready, sweeps = dl.Backprop().prepare(net), []
    swept = ready._swept
    monkeypatch.setattr(ready, "_swept", lambda *given, **words: sweeps.append(words) or swept(*given, **words))
    found = ready.per_example_gradients(theta, x, y)
    assert len(sweeps) == 1
    truth = dl.Certified().prepare(net).enclose_per_example_gradients(theta, x, y)
    np.testing.assert_allclose(found, truth.nearest, rtol=1e-12, atol=1e-15)
    assert not np.allclose(found[0], found[1])
