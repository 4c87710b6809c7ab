"""The condition number of a gradient: known by hand for one parameter, and what perturbed gradients show for more."""

import dataclasses
import math

import numpy as np
import pytest

from difflab import MLP, Dense, reference_gradient
from difflab.discrepancy import relative_in_norm
from difflab.study.measures import condition as measure
from difflab.study.measures.condition import condition


ONE = MLP(1, [Dense(1, bias=False)], loss="squared_error")


def of_one(w, x, y):
    """The gradient (w x - y) x of half the squared error of w x."""
    return reference_gradient(ONE, np.array([w]), np.array([[x]]), np.array([[y]]))


@pytest.mark.parametrize(("w", "x"), [(1.0, 1.0), (-3.0, 0.5), (1e-8, 2.0**20)])
def test_one_parameter_by_hand_is_exact(w, x):
    """Where y = 2 w x, x has no say at first order and the gradient is linear in w: 1, along any direction."""
    assert condition(of_one(w, x, 2 * w * x), seed=0) == pytest.approx(1.0, rel=1e-14)


@pytest.mark.parametrize("gap", [1.0, 2.0**-10, 2.0**-40])
def test_a_difference_of_nearly_equal_numbers_is_as_ill_conditioned_as_by_hand(gap):
    """With y = w x (1 - gap), signs that agree move the gradient by (2 + gap) / gap, others by 1.

    Of 64 pairs of random signs, half agree, give or take three standard deviations of 4.
    """
    found = condition(of_one(1.0, 1.0, 1.0 - gap), seed=1, n_directions=64)
    shares = [(32 + 12 * side) / 64 for side in (-1, 1)]
    low, high = (math.sqrt(share * ((2 + gap) / gap) ** 2 + 1 - share) for share in shares)
    assert low <= found <= high


NET = MLP.dense([2, 3, 2], hidden="tanh")
THETA, X, Y = NET.init(seed=0), np.array([[0.5, -1.0], [0.25, 2.0]]), np.array([1, 0])
TRUTH = reference_gradient(NET, THETA, X, Y)


def simulated(parameters=1.0, inputs=1.0):
    """Certified gradients with relative errors of 2**-30 in parameters and inputs, drawn as the measure draws them."""
    rng, u, moved = np.random.default_rng(7), 2.0**-30, []
    for _ in range(measure.N_DIRECTIONS):
        of_theta, of_x = (
            1 + u * rng.choice([-1.0, 1.0], a.shape) * share for a, share in ((THETA, parameters), (X, inputs))
        )
        change = reference_gradient(NET, THETA * of_theta, X * of_x, Y).gradient - TRUTH.gradient
        moved.append(relative_in_norm(change, TRUTH.gradient) / u)
    return float(np.sqrt(np.mean(np.square(moved))))


def test_it_is_what_relative_errors_make_of_the_gradient():
    """Second-order terms and roundings of the simulation are some 1e-7 of it."""
    assert condition(TRUTH, seed=7) == pytest.approx(simulated(), rel=1e-5)


@pytest.mark.parametrize("shares", [(0.0, 1.0), (1.0, 0.0)], ids=["inputs alone", "parameters alone"])
def test_parameters_and_inputs_both_have_a_share(shares):
    assert abs(condition(TRUTH, seed=7) / simulated(*shares) - 1) > 0.01


def test_the_same_seed_gives_the_same_and_another_one_nearly():
    assert condition(TRUTH, seed=7) == condition(TRUTH, seed=7)
    assert condition(TRUTH, seed=7) != condition(TRUTH, seed=8)
    assert 0.5 < condition(TRUTH, seed=7) / condition(TRUTH, seed=8) < 2


def test_where_there_is_no_gradient_to_be_relative_to_nothing_is_said():
    assert condition(of_one(2.0, 3.0, 6.0), seed=0) is None


def test_at_a_kink_nothing_is_said():
    net = MLP.dense([1, 2, 1], hidden="relu", loss="squared_error")
    theta = np.array([1.0, -1.0, 0.0, 0.0, 1.0, 1.0, 0.0])
    truth = reference_gradient(net, theta, np.zeros((1, 1)), np.ones((1, 1)))
    assert "kink" in truth.status
    assert condition(truth, seed=0) is None


def test_of_an_interval_nothing_is_said():
    status = TRUTH.status.copy()
    status[0] = "enclosed"
    assert condition(dataclasses.replace(TRUTH, status=status), seed=0) is None


@pytest.mark.parametrize("truth", [TRUTH, of_one(2.0, 3.0, 6.0)], ids=["known", "unknown"])
def test_it_is_kept_beside_the_reference(truth, tmp_path):
    file = measure.path(tmp_path / "task.npz")
    measure.prepare(truth, 7, file)
    assert measure.measure(file) == {"condition": condition(truth, seed=7)}
    assert [path.name for path in tmp_path.iterdir()] == ["task.condition.json"]
