"""Finite differences err as predicted: by the step's power above the best step, by its inverse below."""

from __future__ import annotations

from functools import cache

import naive
import numpy as np
import pytest

import difflab as dl
from difflab.stencils import CENTRAL, FORWARD


EPS = float(np.finfo(np.float64).eps)
STENCILS = {"forward": FORWARD, "central": CENTRAL}
every_stencil = pytest.mark.parametrize("scheme", STENCILS)


@cache
def problem(seed: int) -> tuple[dl.MLP, np.ndarray, np.ndarray, np.ndarray]:
    """A random network without kinks, of 2 or more outputs, so that its gradient does not vanish."""
    rng = np.random.default_rng(seed)
    widths = [int(rng.integers(1, 5)), *rng.integers(1, 5, rng.integers(3)).tolist(), int(rng.integers(2, 5))]
    net = dl.MLP.dense(widths, hidden=str(rng.choice(naive.SMOOTH_NAMES)), loss=str(rng.choice(naive.LOSS_NAMES)))
    return net, *naive.random_problem(net, rng, batch=2)


@cache
def truth(seed: int) -> dl.Reference:
    return dl.reference_gradient(*problem(seed))


def error(backend: dl.Backend, seed: int) -> float:
    """Relative, in norm."""
    net, *arguments = problem(seed)
    _, gradient = backend.prepare(net).value_and_gradient(*arguments)
    return dl.discrepancy(gradient, truth(seed)).error_relative


def quadratic(w: float, x: float) -> tuple[dl.MLP, np.ndarray, np.ndarray, np.ndarray]:
    """Half of (w x - 0)**2, whose derivative is exactly w x**2 for powers of two."""
    net = dl.MLP.dense([1, 1], loss="squared_error")
    return net, np.array([w, 0.0]), np.array([[x]]), np.zeros((1, 1))


CURVED = [seed for seed in range(30) if problem(seed)[0].loss == "softmax_cross_entropy"][:8]
"""Half of the squared error of a net without hidden layer is a parabola, on which central differences are exact."""


# --- the two errors


@every_stencil
@pytest.mark.parametrize("seed", CURVED)
def test_above_the_best_step_the_error_follows_the_steps_power(scheme, seed):
    """Halving the step divides the error by 2**order; the next Taylor term is smaller by some 10 steps at most."""
    order = STENCILS[scheme].order
    steps = 2.0 ** -np.arange(7, 11)
    errors = [error(dl.FiniteDifference(scheme, step), seed) for step in steps]
    slopes = -np.diff(np.log2(errors))
    assert np.abs(slopes - order).max() < 10 * steps[0] / np.log(2)


@every_stencil
@pytest.mark.parametrize("seed", CURVED)
def test_below_the_best_step_the_error_follows_the_steps_inverse(scheme, seed):
    """Of roundings, hence only on average: over 2**12 the error grows by 2**12, within a factor of 2**3."""
    best = round(np.log2(STENCILS[scheme].best_step(EPS)))
    fine, finer = (error(dl.FiniteDifference(scheme, 2.0 ** (best - below)), seed) for below in (5, 17))
    assert np.log2(finer / fine) == pytest.approx(12, abs=3)


@every_stencil
@pytest.mark.parametrize("seed", CURVED)
def test_the_default_step_is_close_to_the_best_one(scheme, seed):
    """Both errors are bounds for numbers of order 1: neither the loss nor its derivatives are known beforehand."""
    best = STENCILS[scheme].best_step(EPS)
    lowest = min(error(dl.FiniteDifference(scheme, best * 2.0**k), seed) for k in range(-6, 7))
    assert error(dl.FiniteDifference(scheme), seed) <= 16 * lowest


def test_the_default_step_is_that_of_the_stencil():
    net = problem(0)[0]
    for scheme, stencil in STENCILS.items():
        assert dl.FiniteDifference(scheme).prepare(net).step == stencil.best_step(EPS)


# --- the complex step


@pytest.mark.parametrize("seed", range(20))
def test_the_complex_step_has_neither_error_but_that_of_evaluation(seed):
    """Some 10 roundings in a row, to be compared with 1e-8 and 1e-11 of the real stencils."""
    assert error(dl.FiniteDifference("complex"), seed) <= 32 * EPS


@pytest.mark.parametrize("exponent", [-30, -100, -300])
def test_the_complex_step_may_be_as_small_as_one_likes(exponent):
    assert error(dl.FiniteDifference("complex", 10.0**exponent), 1) <= 32 * EPS


@pytest.mark.parametrize("activation", naive.SMOOTH_NAMES)
def test_one_neuron_is_differentiated_by_the_complex_step_to_a_few_ulp(activation):
    net = dl.MLP(1, [dl.Dense(1, activation)], loss="squared_error")
    theta = np.array([0.7, -0.3, 1.1])[: net.n_params]
    arguments = theta, np.array([[1.3]]), np.array([[-2.0]])
    _, gradient = dl.FiniteDifference("complex").prepare(net).value_and_gradient(*arguments)
    assert dl.discrepancy(gradient, dl.reference_gradient(net, *arguments)).error_ulp_max <= 6


# --- the predicted error


@pytest.mark.parametrize("scheme", [*STENCILS, "complex"])
@pytest.mark.parametrize("first", range(0, 100, 20))
def test_the_predicted_error_holds_on_random_smooth_networks(scheme, first):
    backend = dl.FiniteDifference(scheme)
    for seed in range(first, first + 20):
        net, *arguments = problem(seed)
        prepared = backend.prepare(net)
        truth = dl.reference_gradient(net, *arguments)
        assert error(backend, seed) <= naive.predicted(prepared, truth, *arguments), seed


@every_stencil
@pytest.mark.parametrize("size", [4.0, 16.0, 64.0])
def test_the_predicted_error_holds_with_large_inputs(scheme, size):
    """The k-th derivative with respect to a weight carries the k-th power of its input."""
    net = dl.MLP(1, [dl.Dense(1, "tanh"), dl.Dense(1)], loss="squared_error")
    arguments = np.array([0.5 / size, 0.0, 1.0, 0.0]), np.array([[size]]), np.array([[-1.0]])
    prepared = dl.FiniteDifference(scheme).prepare(net)
    _, gradient = prepared.value_and_gradient(*arguments)
    truth = dl.reference_gradient(net, *arguments)
    assert dl.discrepancy(gradient, truth).error_relative <= naive.predicted(prepared, truth, *arguments)


@every_stencil
@pytest.mark.parametrize("exponent", [-8, -12, -20, -30, -36])
def test_the_predicted_error_holds_at_any_step(scheme, exponent):
    backend = dl.FiniteDifference(scheme, 2.0**exponent)
    net, *arguments = problem(CURVED[0])
    prepared = backend.prepare(net)
    truth = dl.reference_gradient(net, *arguments)
    assert error(backend, CURVED[0]) <= naive.predicted(prepared, truth, *arguments)


@pytest.mark.parametrize(("scheme", "fault"), [("forward", 1e-2), ("central", 1e-3), ("complex", 1e-12)])
def test_the_predicted_error_is_no_blank_cheque(scheme, fault):
    """A gradient off by this part must never pass for a rounding error of the scheme."""
    for seed in range(100):
        net, *arguments = problem(seed)
        prepared = dl.FiniteDifference(scheme).prepare(net)
        truth = dl.reference_gradient(net, *arguments)
        assert naive.predicted(prepared, truth, *arguments) < fault, seed


@every_stencil
def test_the_predicted_error_holds_with_large_parameters(scheme):
    net = dl.MLP.dense([1, 3])
    arguments = np.array([0.0, 0.0, 0.0, 1000.0, -1000.0, 999.0]), np.ones((1, 1)), np.array([0])
    prepared = dl.FiniteDifference(scheme).prepare(net)
    _, gradient = prepared.value_and_gradient(*arguments)
    truth = dl.reference_gradient(net, *arguments)
    assert dl.discrepancy(gradient, truth).error_relative <= naive.predicted(prepared, truth, *arguments)


# --- steps


@every_stencil
@pytest.mark.parametrize("entry", [0.0, 1e-300, 0.3, -1.0, 1.5, -7e3, 1e15, 2.0**52, -1e100])
def test_a_step_is_added_exactly_and_scaled_with_large_entries(scheme, entry):
    prepared = dl.FiniteDifference(scheme).prepare(problem(0)[0])
    step = prepared._step_at(np.float64(entry))
    assert (entry + step) - entry == step
    scale = max(1.0, abs(entry))
    assert (
        prepared.step * scale * (1 - EPS / prepared.step)
        <= step
        <= 2 * prepared.step * scale * (1 + EPS / prepared.step)
    )


@every_stencil
@pytest.mark.parametrize("entry", [0.3, 0.7, -1.1, 1234.5])
def test_a_step_that_is_no_power_of_two_is_corrected_to_what_is_really_added(scheme, entry):
    step = dl.FiniteDifference(scheme, 1e-6).prepare(problem(0)[0])._step_at(np.float64(entry))
    assert (entry + step) - entry == step


@pytest.mark.parametrize("exponent", [0, 10, 27, 40])
def test_a_large_weight_on_a_small_input_is_differentiated_as_well_as_a_small_one(exponent):
    """The loss is a parabola in w x: there is no truncation error, and rounding is that of values of order 1."""
    w, x = 2.0**exponent, 2.0**-exponent
    _, gradient = dl.FiniteDifference().prepare(quadratic(w, x)[0]).value_and_gradient(*quadratic(w, x)[1:])
    step = CENTRAL.best_step(EPS)
    assert gradient[0] == pytest.approx(w * x**2, rel=CENTRAL.rounding_error(step, EPS))


@every_stencil
def test_polynomials_up_to_the_stencils_order_have_no_truncation_error(scheme):
    """With a step and numbers of few bits, every operation is exact: forward errs by step / 2 times f'' = 1."""
    step = 2.0**-10
    _, gradient = (
        dl.FiniteDifference(scheme, step).prepare(quadratic(1.0, 1.0)[0]).value_and_gradient(*quadratic(1.0, 1.0)[1:])
    )
    assert gradient[0] == 1.0 + (step / 2 if scheme == "forward" else 0.0)


def test_a_step_that_vanishes_beside_a_parameter_is_refused():
    with pytest.raises(ValueError, match="step"):
        dl.FiniteDifference(step=1e-20).prepare(quadratic(3.0, 1.0)[0]).value_and_gradient(*quadratic(3.0, 1.0)[1:])


@pytest.mark.parametrize("step", [0, 0.0, -1e-6, 1.0, 1, 10.0, np.inf, np.nan])
def test_a_step_that_is_no_small_positive_number_is_refused(step):
    with pytest.raises(ValueError) as raised:
        dl.FiniteDifference(step=step)
    assert str(raised.value) == f"step must lie between 0 and 1, got {step!r}"


@pytest.mark.parametrize(
    ("scheme", "hint"), [("backward", ""), ("foward", "; did you mean 'forward'?"), ("", ""), (None, "")]
)
def test_an_unknown_scheme_is_refused_beside_the_known_ones(scheme, hint):
    with pytest.raises(ValueError) as raised:
        dl.FiniteDifference(scheme)
    assert str(raised.value).startswith(f"unknown scheme {scheme!r}; known: central, complex, forward")
    assert str(raised.value).endswith(hint)


# --- manners


@pytest.mark.parametrize(("scheme", "calls_per_parameter"), [("forward", 1), ("central", 2), ("complex", 1)])
def test_the_runs_of_the_primal_are_those_that_are_stated(scheme, calls_per_parameter, monkeypatch):
    from difflab.backends import finite_difference

    net, *arguments = problem(0)
    prepared, runs = dl.FiniteDifference(scheme).prepare(net), []
    primal = finite_difference.primal
    monkeypatch.setattr(finite_difference, "primal", lambda *given: runs.append(1) or primal(*given))
    prepared.value_and_gradient(*arguments)
    assert len(runs) == prepared.facts["primal_calls"] == calls_per_parameter * net.n_params + 1


@pytest.mark.parametrize("scheme", [*STENCILS, "complex"])
def test_theta_is_as_before(scheme):
    net, theta, x, y = problem(2)
    before = theta.tobytes()
    read_only = theta.copy()
    read_only.setflags(write=False)
    dl.FiniteDifference(scheme).prepare(net).value_and_gradient(read_only, x, y)
    assert read_only.tobytes() == before


@pytest.mark.parametrize("scheme", ["forward", "central"])
@pytest.mark.parametrize("z", [20.0, 30.0])
def test_the_noise_of_a_saturated_probability_is_predicted(scheme, z):
    net = dl.MLP(1, [dl.Dense(1, "sigmoid")], loss="binary_cross_entropy")
    arguments = np.array([z, 0.0]), np.ones((1, 1)), np.full((1, 1), 0.5)
    prepared = dl.FiniteDifference(scheme).prepare(net)
    _, gradient = prepared.value_and_gradient(*arguments)
    truth = dl.reference_gradient(net, *arguments)
    assert (np.abs(gradient - truth.gradient) <= prepared.predicted_error(*arguments)).all()


@pytest.mark.parametrize("n", [8, 20])
@pytest.mark.parametrize("backend", [dl.FiniteDifference(), dl.FiniteDifference("complex", step=1e-4)], ids=repr)
def test_a_parameter_that_is_used_many_times_is_predicted(n, backend):
    net = dl.MLP(1, [dl.Dense(1, share="a", bias=False)] * n, loss="squared_error")
    arguments = np.array([1.1]), np.ones((1, 1)), np.zeros((1, 1))
    prepared = backend.prepare(net)
    _, gradient = prepared.value_and_gradient(*arguments)
    truth = dl.reference_gradient(net, *arguments)
    assert (np.abs(gradient - truth.gradient) <= prepared.predicted_error(*arguments)).all()
