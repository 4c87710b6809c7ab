"""Running error analysis: its bounds hold in every entry, over every scale of weights, and stay of use."""

from dataclasses import replace
from functools import cache

import naive
import numpy as np
import pytest

import difflab as dl
from difflab.backends.rounding import rounding_errors
from difflab.discrepancy import _absolute_error
from difflab.primitives.operations import OPERATIONS, Bars, Operation, Rounded


SCALES = (1e-8, 0.1, 1.0, 3.0, 10.0, 100.0, 1000.0)
N_NETWORKS = 20
DTYPES = ("float64", "float32")


@cache
def cases(scale: float) -> list:
    """Random problems in float32 numbers whose truth is one float64 per entry."""
    found = []
    for seed in range(N_NETWORKS):
        rng = np.random.default_rng([9, seed, int(np.log10(scale) + 20)])
        net = naive.random_network(rng)
        theta, x, y = naive.random_problem(net, rng, int(rng.integers(1, 6)))
        theta, x = (theta * scale).astype(np.float32).astype(float), x.astype(np.float32).astype(float)
        y = y if y.ndim == 1 else y.astype(np.float32).astype(float)
        truth = dl.reference_gradient(net, theta, x, y)
        if (truth.status == "rounded").all():
            found.append((net, theta, x, y, truth))
    return found


def in_dtype(case: tuple, dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    _, theta, x, y, _ = case
    return theta.astype(dtype), x.astype(dtype), y if y.ndim == 1 else y.astype(dtype)


def overflows(case: tuple, dtype: str) -> bool:
    """Whether the back-end says that what it got is not finite."""
    try:
        dl.Backprop(dtype).prepare(case[0]).value_and_gradient(*in_dtype(case, dtype))
    except dl.NotFinite:
        return True
    return False


def evaluated(case: tuple, dtype: str) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Errors and bounds of the gradient, error and bound of the value."""
    net, *_, truth = case
    arguments = in_dtype(case, dtype)
    value, gradient = dl.Backprop(dtype).prepare(net).value_and_gradient(*arguments)
    bounds = rounding_errors(net, *arguments, dtype)
    return _absolute_error(gradient, truth), bounds.gradient, abs(value - truth.value), bounds.value


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", SCALES)
def test_every_entry_is_within_its_bound(scale, dtype):
    tiny = float(np.finfo(dtype).tiny)
    assert len(cases(scale)) > N_NETWORKS / 2
    for case in cases(scale):
        if overflows(case, dtype):
            assert case[0].loss in naive.PROBABILITY_LOSS_NAMES
            continue
        errors, bounds, value_error, value_bound = evaluated(case, dtype)
        assert (errors <= bounds).all()
        assert value_error <= value_bound + tiny


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bound_is_within_three_orders_of_the_error_for_half_of_the_networks(dtype):
    ratios = []
    for case in cases(1.0):
        errors, bounds, *_ = evaluated(case, dtype)
        ratios.append(np.linalg.norm(bounds) / np.linalg.norm(errors) if errors.any() else 1.0)
    assert np.median(ratios) < 1000


def test_a_fault_of_one_part_in_a_million_is_not_excused():
    """Planted: the whole gradient scaled; only a badly conditioned network may be off by as much by rounding alone."""
    bounds = [np.linalg.norm(evaluated(case, "float64")[1]) for case in cases(1.0)]
    faults = [np.linalg.norm(1e-6 * truth.gradient) for *_, truth in cases(1.0)]
    excused = [fault <= bound for fault, bound in zip(faults, bounds, strict=True)]
    assert np.mean(excused) <= 0.1


def test_cancellation_in_the_residual_of_a_squared_error_is_foreseen():
    """z - y keeps few digits where z is nearly y: the gradient is inexact, and the bound says so."""
    net = dl.MLP(1, [dl.Dense(1)], loss="squared_error")
    theta, x = np.array([0.1, 0.2]), np.array([[0.7]])
    y = np.array([[0.1 * 0.7 + 0.2 + 1e-15]])
    truth = dl.reference_gradient(net, theta, x, y)
    prepared = dl.Backprop().prepare(net)
    found = dl.discrepancy(prepared.value_and_gradient(theta, x, y)[1], truth)
    assert found.error_relative <= naive.predicted(prepared, truth, theta, x, y)


def test_textbook_forms_have_absolute_errors():
    """1 - tanh**2 of a saturated unit may be all error; the stable rule may not."""
    net = dl.MLP(1, [dl.Dense(1, "tanh"), dl.Dense(1)], loss="squared_error")
    arguments = np.array([1.0, 20.0, 1.0, 0.0]), np.ones((1, 1)), np.zeros((1, 1))
    stable, textbook = (rounding_errors(net, *arguments, "float64", textbook=t).gradient[0] for t in (False, True))
    truth = abs(dl.reference_gradient(net, *arguments).gradient[0])
    assert stable < 1e-13 * truth
    assert textbook > truth


def test_a_sum_over_the_batch_is_charged_for_every_term():
    """A sum of n products is off by up to n unit roundoffs of the sum of magnitudes [Higham 2002, eq. 3.5]."""
    net = dl.MLP(1, [dl.Dense(1)], loss="squared_error", reduction="sum")
    rng = np.random.default_rng(4)
    theta, x, y = np.array([0.5, 0.1]), rng.standard_normal((1000, 1)), rng.standard_normal((1000, 1))
    cotangents = theta[0] * x + theta[1] - y
    a_priori = 1000 * np.finfo(float).eps / 2 * np.array([np.abs(cotangents * x).sum(), np.abs(cotangents).sum()])
    assert (rounding_errors(net, theta, x, y, "float64").gradient >= a_priori).all()


# --- every operation

D = dl.Dense
WIDTH, BATCH, N_PROBLEMS = 6, 4, 12
CANCELLED = 1e3
"""How much larger than their sum the products of the first layer are, so that errors of values outweigh all others."""

LAYERS = {
    "affine": [D(4), D(4)],
    "activation": [D(4, "prelu"), dl.Elementwise("swish", per_unit=False), D(4, "gelu"), D(4, "elu(0.5)")],
    "add": [D(4), dl.Residual([D(4, "tanh")]), dl.Residual([D(4)], project=True)],
    "multiply": [D(6), dl.Multiply(2)],
    "maxout": [D(4), dl.Maxout(4, 3)],
    "softmax": [D(4), dl.Softmax()],
    "batch_norm": [D(4), dl.BatchNorm()],
    "batch_norm_inference": [D(4), dl.BatchNorm([0.5, -0.25, 0.0, 1.0], [2.0, 0.5, 1.0, 0.01])],
    "dropout": [D(8), dl.Dropout(0.4, seed=2)],
    "loss": [D(4)],
}
LOOSENESS = 1e4
"""Of the bound of a gradient beside its error, in norm, for half of the problems; a batch norm's is half of it."""

every_operation = pytest.mark.parametrize("operation", LAYERS)


def in_float32(numbers: np.ndarray) -> np.ndarray:
    return numbers.astype(np.float32).astype(float)


@cache
def cancelling(operation: str) -> list:
    """Problems whose samples come twice, with weights that nearly cancel each other."""
    net, found = dl.MLP(WIDTH, [*LAYERS[operation], D(3)], label_smoothing=0.1, l1=0.01, l2=0.1), []
    for seed in range(N_PROBLEMS):
        rng = np.random.default_rng([3, seed])
        half, theta = rng.normal(size=(BATCH, WIDTH // 2)), rng.normal(size=net.n_params)
        weight = net.view(theta)["dense1.weight"]
        left, right = np.split(weight, 2, axis=1)
        left[:] *= CANCELLED
        right[:] -= left
        theta, x, y = map(in_float32, (theta, np.hstack([half, half]), rng.dirichlet(np.ones(3), BATCH)))
        found.append((net, theta, x, y, dl.reference_gradient(net, theta, x, y)))
    return found


@every_operation
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_entry_of_every_operation_is_within_its_bound(operation, dtype):
    for case in cancelling(operation):
        assert (case[4].status == "rounded").all()
        errors, bounds, value_error, value_bound = evaluated(case, dtype)
        assert (errors <= bounds).all()
        assert value_error <= value_bound


@every_operation
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bound_of_every_operation_stays_of_use(operation, dtype):
    ratios = []
    for case in cancelling(operation):
        errors, bounds, *_ = evaluated(case, dtype)
        ratios.append(np.linalg.norm(bounds) / np.linalg.norm(errors))
    assert np.median(ratios) < LOOSENESS


def forgetful(row: Operation) -> Operation:
    """The operation with rules that forget the errors of what it reads and of the cotangent it is given."""

    def exact_inputs(rounded: Rounded) -> Rounded:
        return replace(rounded, errors=[0 * error for error in rounded.errors], error=0 * rounded.error)

    return replace(
        row,
        forward_error=lambda step, rounded: row.forward_error(step, exact_inputs(rounded)),
        reverse_error=lambda step, rounded, bar, error: row.reverse_error(step, exact_inputs(rounded), bar, 0 * error),
    )


@every_operation
def test_a_rule_that_forgets_the_errors_of_its_inputs_is_caught(operation, monkeypatch):
    monkeypatch.setitem(OPERATIONS, operation, forgetful(OPERATIONS[operation]))
    too_small = [(errors > bounds).any() for errors, bounds, *_ in map(in_double, cancelling(operation))]
    assert np.mean(too_small) >= 0.5


def in_double(case: tuple) -> tuple:
    return evaluated(case, "float64")


def test_a_penalty_taken_for_exact_is_caught(monkeypatch):
    """Of samples of zeros alone nothing but the penalty is left in the gradient of a weight."""
    net = dl.MLP(3, [D(30)], "squared_error", l1=0.1, l2=0.3)
    theta, x, y = in_float32(np.random.default_rng(0).normal(size=net.n_params)), np.zeros((1, 3)), np.zeros((1, 30))
    case = net, theta, x, y, dl.reference_gradient(net, theta, x, y)
    errors, bounds, *_ = evaluated(case, "float64")
    assert (errors <= bounds).all()
    exact = replace(
        OPERATIONS["penalty"], reverse_error=lambda step, *_: Bars([], [np.zeros(step.parameters[0].shape)])
    )
    monkeypatch.setitem(OPERATIONS, "penalty", exact)
    assert (evaluated(case, "float64")[0] > evaluated(case, "float64")[1]).any()


@cache
def mixed(first: int) -> list:
    """Random networks of all layers in float32 numbers."""
    found = []
    for seed in range(first, first + 20):
        rng = np.random.default_rng([11, seed])
        net = naive.random_mixed_network(rng)
        theta, x, y = naive.random_problem(net, rng, int(rng.integers(2, 5)))
        y = y if y.ndim == 1 else in_float32(y)
        made = dl.Certified(max_bits=512).prepare(net).enclose(in_float32(theta), in_float32(x), y)
        if (made.status == "rounded").all():
            found.append((net, in_float32(theta), in_float32(x), y, made))
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("first", range(0, 100, 20))
def test_every_entry_of_random_networks_of_all_layers_is_within_its_bound(first, dtype):
    assert len(mixed(first)) >= 10
    for case in mixed(first):
        if not overflows(case, dtype):
            errors, bounds, *_ = evaluated(case, dtype)
            assert (errors <= bounds).all(), case[0]
