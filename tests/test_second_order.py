"""Every derivative of Backprop beside its certified enclosure, on every operation, activation and loss; identities
between derivatives; tiles; and faults planted into every step along a tangent.
"""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import naive
import numpy as np
import pytest
import sympy
import test_contract
from test_derivatives import BAD, CLASSIFIER, GOOD, SHAPES, second_entry
from test_registration import hill, hill_by_p, hill_by_p_twice, hill_by_z, hill_mixed
from test_sweeps import child

import difflab as dl
from difflab import kernels
from difflab.backends import backprop
from difflab.backends.certified import KINK, ROUNDED
from difflab.discrepancy import relative_in_norm
from difflab.enclosures.enclosed import Enclosed
from difflab.kernels import plans
from difflab.kernels.rules import RULES
from difflab.layers import BatchNorm, Dense, Dropout, Elementwise, Maxout, Multiply, Residual, Softmax
from difflab.number_systems import BALLS, SERIES, ball_precision, coefficient
from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.losses import LOSSES
from difflab.primitives.operations import OPERATIONS
from difflab.program import values


N_RANDOM = 40
BATCH = 3
DTYPES = ("float64", "float32")
BITS = 400


class Problem(NamedTuple):
    """A network, where it is differentiated, and along what: numbers that float32 holds."""

    net: dl.MLP
    theta: np.ndarray
    x: np.ndarray
    y: np.ndarray
    theta_dot: np.ndarray
    x_dot: np.ndarray
    outputs_bar: np.ndarray

    @property
    def arguments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.theta, self.x, self.y

    def cast(self, dtype: str) -> Problem:
        return Problem(self.net, *(a if a.dtype.kind == "i" else a.astype(dtype) for a in self[1:]))


def narrow(numbers: np.ndarray) -> np.ndarray:
    return numbers if numbers.dtype.kind == "i" else test_contract.in_float32(numbers)


def with_directions(net: dl.MLP, arguments: tuple[np.ndarray, ...], seed: int = 0) -> Problem:
    """Along normal numbers, at the float32 that are nearest."""
    theta, x, y = map(narrow, arguments)
    rng = np.random.default_rng(seed)
    shapes = theta.shape, x.shape, (len(x), net.n_outputs)
    return Problem(net, theta, x, y, *(narrow(rng.normal(size=shape)) for shape in shapes))


def drawn(net: dl.MLP, batch: int = BATCH, seed: int = 0) -> Problem:
    return with_directions(net, naive.random_problem(net, np.random.default_rng(seed), batch))


@cache
def problem(kind: str) -> Problem:
    """Of the networks of the contract, with hard and soft targets by turns, and of random ones."""
    if kind in test_contract.NETS:
        net, targets = test_contract.NETS[kind], test_contract.targets_of(kind)
        turn = list(test_contract.NETS).index(kind) % len(targets)
        return with_directions(net, test_contract.problem(kind, BATCH, targets[turn]))
    rng = np.random.default_rng([10, int(kind.split()[1])])
    net = naive.random_mixed_network(rng, most_layers=4, most_units=3)
    return with_directions(net, naive.random_problem(net, rng, BATCH))


KINDS = [*test_contract.NETS, *(f"random {seed}" for seed in range(N_RANDOM))]


def test_the_networks_hold_every_row_of_every_table():
    nets = [problem(kind).net for kind in KINDS]
    steps = [step for net in nets for step in net.program.instructions]
    assert {step.operation for step in steps} == set(OPERATIONS) == set(RULES)
    assert {step.function for step in steps if step.operation == "activation"} == set(ACTIVATIONS) - {"identity"}
    assert {step.function for step in steps if step.operation == "loss"} == set(LOSSES)
    assert sum(net.program.couples_samples for net in nets) > 5


# --- the methods and their truth


class Method(NamedTuple):
    """A derivative, as Backprop makes it and as it is enclosed, and what its cotangents are before they cancel."""

    of: Callable[[dl.Prepared, Problem], np.ndarray]
    truth: Callable[[Any, Problem], Enclosed]
    size: Callable[[Any, Problem], float]


def gradient_size(certified: Any, p: Problem) -> float:
    return float(np.linalg.norm(certified.enclose(*p.arguments).gradient))


def gauss_newton_truth(certified: Any, p: Problem) -> Enclosed:
    """J^T H u with u = J theta_dot: two enclosures, and between them the loss in balls, at the float next to H u."""
    along = certified.enclose_jvp(p.theta, p.x, p.theta_dot).nearest
    return certified.enclose_vjp(p.theta, p.x, curved(p, along))


def curved(p: Problem, along: np.ndarray) -> np.ndarray:
    """The Hessian of the loss in the outputs times a direction: e^T H u = (f(u + e) - f(u - e)) / 2 for every axis e,
    with f the coefficient of second order.
    """
    program, parts = p.net.program, p.net.program.divisor(len(p.x))
    rows = np.eye(p.net.n_outputs)[p.y] if p.y.ndim == 1 else p.y
    expression = LOSSES[p.net.loss].expression
    with ball_precision(BITS, order=2):
        made = values(program, BALLS, *map(BALLS.array, (p.theta, p.x, rows)))
        outputs, targets = made[program.outputs], made[program.instructions[program.losses - program.n_given].inputs[1]]

        def second_order(axis: np.ndarray) -> np.ndarray:
            lines = SERIES.line(outputs, BALLS.array(along + axis))
            return coefficient(expression(SERIES, lines, SERIES.array(targets)), 2)

        columns = [(second_order(axis) - second_order(-axis)) / 2 / parts for axis in np.eye(p.net.n_outputs)]
    return np.stack(columns, axis=1).astype(np.float64)


METHODS: dict[str, Method] = {
    "input gradient": Method(
        lambda backprop, p: backprop.input_gradient(*p.arguments),
        lambda certified, p: certified.enclose_input_gradient(*p.arguments),
        gradient_size,
    ),
    "per-example gradients": Method(
        lambda backprop, p: backprop.per_example_gradients(*p.arguments),
        lambda certified, p: certified.enclose_per_example_gradients(*p.arguments),
        lambda certified, p: 0.0,
    ),
    "jvp": Method(
        lambda backprop, p: backprop.jvp(p.theta, p.x, p.theta_dot, p.x_dot),
        lambda certified, p: certified.enclose_jvp(p.theta, p.x, p.theta_dot, p.x_dot),
        lambda certified, p: 0.0,
    ),
    "vjp": Method(
        lambda backprop, p: backprop.vjp(p.theta, p.x, p.outputs_bar),
        lambda certified, p: certified.enclose_vjp(p.theta, p.x, p.outputs_bar),
        lambda certified, p: 0.0,
    ),
    "hvp": Method(
        lambda backprop, p: backprop.hvp(*p.arguments, p.theta_dot, p.x_dot),
        lambda certified, p: certified.enclose_hvp(*p.arguments, p.theta_dot, p.x_dot),
        gradient_size,
    ),
    "Gauss-Newton product": Method(
        lambda backprop, p: backprop.gauss_newton_product(*p.arguments, p.theta_dot),
        gauss_newton_truth,
        lambda certified, p: 0.0,
    ),
}
each_method = pytest.mark.parametrize("method", METHODS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
each_kind = pytest.mark.parametrize("kind", KINDS)


def takes(method: str, net: dl.MLP) -> bool:
    return method != "per-example gradients" or not net.program.couples_samples


def prepared(p: Problem, dtype: str = "float64", **options: Any) -> dl.Prepared:
    return dl.Backprop(dtype, **options).prepare(p.net)


def found(method: str, p: Problem, dtype: str = "float64", **options: Any) -> np.ndarray:
    return METHODS[method].of(prepared(p, dtype, **options), p.cast(dtype))


@cache
def known_truth(method: str, kind: str) -> Enclosed:
    return METHODS[method].truth(dl.Certified().prepare(problem(kind).net), problem(kind))


@cache
def known_size(method: str, kind: str) -> float:
    return METHODS[method].size(dl.Certified().prepare(problem(kind).net), problem(kind))


def error(made: np.ndarray, truth: Enclosed) -> float:
    """Relative in norm, over the entries that have one value."""
    assert made.shape == truth.nearest.shape
    is_one = truth.status == ROUNDED
    distance = np.linalg.norm(((made.astype(np.float64) - truth.nearest) - truth.residual)[is_one])
    return float(distance)


def bound(p: Problem, dtype: str, truth: Enclosed, size: float) -> float:
    """Every sweep has the roundings of the gradient's, and about as many more along a tangent: a chain of them, or what
    the analysis of the gradient says if that is more, relative to the derivative and to what it is the difference of.
    """
    eps = float(np.finfo(dtype).eps)
    gradient = dl.Certified().prepare(p.net).enclose(*p.arguments).gradient
    analysed = relative_in_norm(prepared(p, dtype).predicted_error(*p.cast(dtype).arguments), gradient)
    chain = naive.accumulated_rounding(p.net, len(p.x), eps)
    return max(chain, analysed) * (float(np.linalg.norm(truth.nearest[truth.status == ROUNDED])) + size)


@cache
def known_bound(method: str, kind: str, dtype: str) -> float:
    return bound(problem(kind), dtype, known_truth(method, kind), known_size(method, kind))


def assert_right(method: str, p: Problem, dtype: str = "float64", **options: Any) -> None:
    certified = dl.Certified().prepare(p.net)
    truth, size = METHODS[method].truth(certified, p), METHODS[method].size(certified, p)
    assert error(found(method, p, dtype, **options), truth) <= bound(p, dtype, truth, size), (method, p.net)


@each_dtype
@each_method
@each_kind
def test_it_is_within_its_bound_of_the_truth(method, dtype, kind):
    p = problem(kind)
    if takes(method, p.net):
        made = found(method, p, dtype)
        assert made.dtype == dtype
        assert error(made, known_truth(method, kind)) <= known_bound(method, kind, dtype)


@each_method
def test_bounds_are_worth_something(method):
    """Nearly always below a hundredth of the derivative, be it in float32."""
    shares = [
        known_bound(method, kind, "float32") / np.linalg.norm(known_truth(method, kind).nearest)
        for kind in KINDS[::4]
        if takes(method, problem(kind).net) and known_truth(method, kind).nearest.any()
    ]
    assert np.mean(np.array(shares) < 1e-2) > 0.9


@each_method
def test_nearly_every_entry_has_one_value(method):
    statuses = [known_truth(method, kind).status.ravel() for kind in KINDS[::4] if takes(method, problem(kind).net)]
    assert (np.concatenate(statuses) == ROUNDED).mean() > 0.95


DENSE = dl.MLP.dense([2, 3, 2], "tanh")
SHARED = dl.MLP(2, [Dense(2, "swish", share="tied"), Dense(2, "prelu", share="tied"), Dense(2)], l1=0.1, l2=0.3)
RESIDUAL = dl.MLP(3, [Residual((Dense(3, "gelu"), Dense(3, "softsign"))), Dense(2, "silu")], "squared_error", "sum")
NORMED = dl.MLP(3, [Dense(3, "tanh"), BatchNorm(), Dense(2)])
DROPPED = dl.MLP(3, [Dense(4, "tanh"), Dropout(0.4, seed=2), Dense(2)])
TILED = dl.MLP(
    2, [Dense(6), Multiply(3), Elementwise("prelu"), Residual((Maxout(3, 2),)), Dense(3), Softmax()], "kl_divergence"
)
SHARES = dl.MLP(3, [Dense(3), Softmax(), Elementwise("tanh"), Dense(2)])
SMALL = (DENSE, SHARED, RESIDUAL, TILED, SHARES, DROPPED, NORMED)
each_small = pytest.mark.parametrize("net", SMALL, ids=str)
each_uncoupled = pytest.mark.parametrize("net", SMALL[:-1], ids=str)


# --- the Hessian


@each_dtype
@each_small
def test_the_hessian_is_the_certified_one(net, dtype):
    p = drawn(net)
    certified = dl.Certified().prepare(net)
    truth = certified.enclose_hessian(*p.arguments)
    made = prepared(p, dtype).hessian(*p.cast(dtype).arguments)
    assert (made.shape, made.dtype) == ((net.n_params, net.n_params), dtype)
    assert error(made, truth) <= bound(p, dtype, truth, gradient_size(certified, p))


def hvp_bound(p: Problem, *directions: np.ndarray) -> float:
    """Of the sum of products along some directions, each with its magnitudes |H| |v|."""
    certified, eps = dl.Certified().prepare(p.net), float(np.finfo(np.float64).eps)
    hessian = np.abs(certified.enclose_hessian(*p.arguments).nearest)
    size = sum(np.linalg.norm(hessian @ np.abs(v)) for v in directions)
    analysed = relative_in_norm(prepared(p).predicted_error(*p.arguments), certified.enclose(*p.arguments).gradient)
    return max(naive.accumulated_rounding(p.net, len(p.x), eps), analysed) * float(size)


@each_small
def test_the_hessian_is_symmetric(net):
    p = drawn(net)
    made = prepared(p).hessian(*p.arguments)
    assert np.linalg.norm(made - made.T) <= hvp_bound(p, *np.eye(net.n_params))


@each_small
def test_rows_of_the_hessian_are_products_along_axes(net):
    p = drawn(net)
    whole = prepared(p)
    for row, axis in zip(whole.hessian(*p.arguments), np.eye(net.n_params), strict=True):
        assert (row == whole.hvp(*p.arguments, axis)).all()


@each_small
def test_products_are_linear_in_the_direction(net):
    p, rng = drawn(net), np.random.default_rng(9)
    along, other, whole = p.theta_dot, rng.normal(size=net.n_params), prepared(p)
    first, second = whole.hvp(*p.arguments, along), whole.hvp(*p.arguments, other)
    both = whole.hvp(*p.arguments, along + other)
    assert np.linalg.norm(both - (first + second)) <= hvp_bound(p, along, other, along + other)
    assert (whole.hvp(*p.arguments, 4 * along) == 4 * first).all()


@each_small
def test_a_direction_of_theta_and_one_of_x_add_up(net):
    p = drawn(net)
    still, whole = np.zeros_like(p.theta), prepared(p)
    of_x = whole.hvp(*p.arguments, still, p.x_dot)
    apart = whole.hvp(*p.arguments, p.theta_dot) + of_x
    certified = dl.Certified().prepare(net)
    truth = certified.enclose_hvp(*p.arguments, still, p.x_dot)
    size = gradient_size(certified, p)
    assert of_x.any()
    assert error(of_x, truth) <= bound(p, "float64", truth, size)
    joint = certified.enclose_hvp(*p.arguments, p.theta_dot, p.x_dot)
    assert error(apart, joint) <= bound(p, "float64", joint, size + 2 * float(np.linalg.norm(truth.nearest)))


@pytest.mark.parametrize("n", [backprop.MAX_HESSIAN, backprop.MAX_HESSIAN + 1])
def test_a_hessian_that_would_not_fit_is_refused_before_it_is_made(monkeypatch, n):
    net = dl.MLP(1, [Dense(n, bias=False)], "squared_error")
    p = drawn(net, 1)
    monkeypatch.setattr(backprop.PreparedBackprop, "_check_twice_differentiable", lambda self: pytest.fail("began"))
    expected = f"a full Hessian must have at most {backprop.MAX_HESSIAN} parameters, got {n}; use hvp"
    with pytest.raises((ValueError, pytest.fail.Exception)) as raised:
        prepared(p).hessian(*p.arguments)
    assert str(raised.value) == (expected if n > backprop.MAX_HESSIAN else "began")


@each_dtype
@each_small
def test_the_gradient_is_the_certified_one(net, dtype):
    p = drawn(net)
    truth = dl.Certified().prepare(net).enclose(*p.arguments).entries
    assert error(prepared(p, dtype).value_and_gradient(*p.cast(dtype).arguments)[1], truth) <= bound(p, dtype, truth, 0)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_network_without_parameters_has_derivatives_along_its_samples(threads):
    net = dl.MLP(3, [Softmax()], "kl_divergence")
    p = drawn(net)
    whole = prepared(p, threads=threads)
    value, gradient = whole.value_and_gradient(*p.arguments)
    assert (value, gradient.size) == (whole.value(*p.arguments), 0)
    for method in ("jvp", "input gradient"):
        assert_right(method, p)


def test_of_a_network_of_nothing_outputs_are_its_samples():
    p = drawn(dl.MLP(3, [Elementwise("identity")], "squared_error"))
    assert (prepared(p).jvp(p.theta, p.x, p.theta_dot, p.x_dot) == p.x_dot).all()


# --- identities


@each_small
def test_jvp_and_vjp_are_adjoint(net):
    """Both sides are off by no more than the bounds of the two products, times the other vector."""
    p, certified = drawn(net), dl.Certified().prepare(net)
    forward, reverse = found("jvp", p._replace(x_dot=0 * p.x)), found("vjp", p)
    allowed = sum(
        bound(p, "float64", truth, 0.0) * np.linalg.norm(other)
        for truth, other in (
            (certified.enclose_jvp(p.theta, p.x, p.theta_dot), p.outputs_bar),
            (certified.enclose_vjp(p.theta, p.x, p.outputs_bar), p.theta_dot),
        )
    )
    assert abs((forward * p.outputs_bar).sum() - reverse @ p.theta_dot) <= allowed


@each_uncoupled
def test_gradients_of_examples_add_up_to_the_gradient_without_penalties(net):
    net = dl.MLP(net.n_inputs, net.layers, net.loss, net.reduction)
    p = drawn(net)
    whole = prepared(p)
    summed = whole.per_example_gradients(*p.arguments).sum(axis=0) / net.program.divisor(BATCH)
    certified = dl.Certified().prepare(net).enclose(*p.arguments).entries
    magnitudes = float(np.linalg.norm(np.abs(whole.per_example_gradients(*p.arguments)).sum(axis=0)))
    gradient = whole.value_and_gradient(*p.arguments)[1]
    assert np.linalg.norm(summed - gradient) <= 2 * bound(p, "float64", certified, magnitudes)


@each_method
@each_uncoupled
def test_a_sum_over_a_batch_of_four_is_four_means_to_the_bit(net, method):
    """A power of 2 divides exactly; gradients of examples, and what has no loss, are the same."""
    mean, total = (dl.MLP(net.n_inputs, net.layers, net.loss, how) for how in naive.REDUCTIONS)
    p = drawn(mean, 4)
    factor = 1 if method in ("per-example gradients", "jvp", "vjp") else 4
    assert (found(method, p._replace(net=total)) == factor * found(method, p)).all()


PENALISED = dl.MLP(2, [Dense(2, "tanh"), Dense(2)], l1=0.5, l2=0.25)
BARE = dl.MLP(2, [Dense(2, "tanh"), Dense(2)])


def test_penalties_bend_the_loss_by_l2_of_each_weight_once():
    p = drawn(PENALISED)
    bare, penalised = (prepared(p._replace(net=net)) for net in (BARE, PENALISED))
    is_weight = np.zeros(PENALISED.n_params, bool)
    for name, part in PENALISED.view(is_weight).items():
        part[...] = name.endswith("weight")
    difference = penalised.hvp(*p.arguments, p.theta_dot) - bare.hvp(*p.arguments, p.theta_dot)
    sizes = np.abs(bare.hvp(*p.arguments, p.theta_dot)) + np.abs(p.theta_dot)
    assert (np.abs(difference - 0.25 * p.theta_dot * is_weight) <= 4 * np.finfo(float).eps * sizes).all()
    difference = penalised.hessian(*p.arguments) - bare.hessian(*p.arguments)
    assert np.abs(difference - 0.25 * np.diag(is_weight)).max() <= 8 * np.finfo(float).eps


@pytest.mark.parametrize("method", ["per-example gradients", "jvp", "vjp", "Gauss-Newton product", "input gradient"])
def test_penalties_have_no_part_in_what_is_not_of_theta(method):
    p = drawn(PENALISED)
    assert (found(method, p) == found(method, p._replace(net=BARE))).all()


@each_method
@pytest.mark.parametrize("net", [net for net in SMALL if LOSSES[net.loss].accepts_classes], ids=str)
def test_classes_are_one_hot_rows(net, method):
    p = drawn(net)._replace(y=np.array([1, 0, 1]))
    if takes(method, net):
        assert (found(method, p) == found(method, p._replace(y=np.eye(net.n_outputs)[p.y]))).all()


@each_method
@each_small
def test_nothing_moves_along_nothing(net, method):
    p = drawn(net)
    nowhere = p._replace(theta_dot=0 * p.theta, x_dot=0 * p.x, outputs_bar=0 * p.outputs_bar)
    if method in ("jvp", "vjp", "hvp", "Gauss-Newton product"):
        assert not found(method, nowhere).any()


@each_method
@each_small
def test_no_argument_is_changed_and_the_same_call_has_the_same_bits_in_a_fresh_array(net, method):
    p = drawn(net)
    if takes(method, net):
        before, whole = [a.tobytes() for a in p[1:]], prepared(p)
        first = METHODS[method].of(whole, p)
        for other in METHODS:
            if takes(other, net):
                METHODS[other].of(whole, p)
        second = METHODS[method].of(whole, p)
        assert [a.tobytes() for a in p[1:]] == before
        assert first.tobytes() == second.tobytes() == found(method, p).tobytes()
        assert not np.shares_memory(first, second)


@each_method
@each_small
def test_strided_and_read_only_arguments_give_the_answer_of_plain_ones(net, method):
    p = drawn(net)
    if takes(method, net):
        wide = Problem(net, *(np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim == 2 else a for a in p[1:]))
        for a in wide[1:]:
            a.flags.writeable = False
        assert (found(method, wide) == found(method, p)).all()


def test_without_x_dot_samples_stay():
    p = drawn(DENSE)
    whole, still = prepared(p), np.zeros_like(p.x)
    assert (whole.jvp(p.theta, p.x, p.theta_dot) == whole.jvp(p.theta, p.x, p.theta_dot, still)).all()
    whole.hvp(*p.arguments, p.theta_dot, p.x_dot)
    assert (whole.hvp(*p.arguments, p.theta_dot) == whole.hvp(*p.arguments, p.theta_dot, still)).all()


# --- batches of many tiles


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


def test_a_large_network_has_tiles_of_64():
    assert plans._tile(LARGE.program, sum(LARGE.program.widths), 8) < 150


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


# --- kinks, worked by hand


def one_unit(layers: list, theta: list[float], target: float = -1.0) -> Problem:
    net = dl.MLP(1, layers, "squared_error")
    ones = np.ones((1, 1))
    return Problem(net, np.array(theta), ones, np.full((1, 1), target), np.eye(net.n_params)[-1], ones, ones)


BENDS = {
    "relu": (one_unit([Dense(1, "relu")], [1.0, -1.0]), 0.0),
    "leaky relu": (one_unit([Dense(1, "leaky_relu(0.5)")], [1.0, -1.0]), 0.25),
    "elu": (one_unit([Dense(1, "elu(0.5)")], [1.0, -1.0]), 0.25 + 0.5),
    "softsign": (one_unit([Dense(1, "softsign")], [1.0, -1.0]), 1.0 + 2.0),
    "first piece": (one_unit([Dense(1), Maxout(1, 2)], [1.0, 0.0, 1.0, 2.0, 0.0, -1.0]), 0.0),
}
"""Derivatives along the bias whose pre-activation is 0, or along the second of two pieces that are as large."""


@pytest.mark.parametrize("case", BENDS)
def test_at_a_kink_the_curvature_is_that_of_the_left_piece(case):
    p, expected = BENDS[case]
    assert KINK in dl.Certified().prepare(p.net).enclose_hvp(*p.arguments, p.theta_dot).status
    assert prepared(p).hvp(*p.arguments, p.theta_dot)[-1] == expected


def test_at_a_kink_of_a_penalty_there_is_the_bend_of_l2_alone():
    net = dl.MLP(1, [Dense(1)], "squared_error", l1=0.5, l2=0.25)
    p = one_unit(list(net.layers), [0.0, 0.0], 1.0)._replace(net=net, theta_dot=np.array([1.0, 0.0]))
    assert prepared(p).hvp(*p.arguments, p.theta_dot).tolist() == [1.25, 1.0]


# --- bad input


TAKES = {
    "input_gradient": ("theta", "x", "y"),
    "per_example_gradients": ("theta", "x", "y"),
    "jvp": ("theta", "x", "theta_dot", "x_dot"),
    "vjp": ("theta", "x", "outputs_bar"),
    "hvp": ("theta", "x", "y", "theta_dot", "x_dot"),
    "gauss_newton_product": ("theta", "x", "y", "theta_dot"),
    "hessian": ("theta", "x", "y"),
}


def test_no_method_is_forgotten():
    ours = {name for name, _ in inspect.getmembers(backprop.PreparedBackprop, inspect.isfunction) if name[0] != "_"}
    assert ours - {"value", "value_and_gradient", "predicted_error"} == set(TAKES)
    for method, names in TAKES.items():
        assert tuple(inspect.signature(getattr(backprop.PreparedBackprop, method)).parameters)[1:] == names


@pytest.fixture
def nothing_computed(monkeypatch):
    monkeypatch.setattr(backprop.PreparedBackprop, "_run", lambda *_, **__: pytest.fail("computed"))


def complaint(method: str, error: type[Exception], net: dl.MLP = CLASSIFIER, **changed: Any) -> str:
    given = {**GOOD, **changed}
    with pytest.raises(error) as raised:
        getattr(dl.Backprop().prepare(net), method)(*(given[name] for name in TAKES[method]))
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.usefixtures("nothing_computed")
@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize(("method", "name"), [(method, name) for method in TAKES for name in TAKES[method]])
def test_a_bad_argument_gets_one_sentence_and_nothing_is_computed(method, name, case):
    if (name, case) == ("x_dot", "nothing"):
        pytest.skip("x_dot=None is a direction along which samples stay")
    change, error, words = BAD[case]
    place = "1" if GOOD[name].ndim == 1 else "0,1"
    expected = words.format(name=name, shape=SHAPES[name], place=place)
    assert expected in complaint(method, error, **{name: change(GOOD[name])})


@pytest.mark.usefixtures("nothing_computed")
@pytest.mark.parametrize("method", [method for method in TAKES if "y" in TAKES[method]])
@pytest.mark.parametrize(
    ("y", "words"),
    [
        (np.array([0, 2]), "class indices y must be from 0 to 1, got 2 at y[1]"),
        (np.array([0, -1]), "class indices y must be from 0 to 1, got -1 at y[1]"),
        (np.array([0, 1, 0]), "class indices y must have shape (2,), one per row of x, got (3,)"),
    ],
)
def test_labels_that_are_no_classes_are_refused(method, y, words):
    assert words in complaint(method, ValueError, y=y)


@pytest.mark.parametrize(("method", "name"), [(method, name) for method in TAKES for name in TAKES[method]])
def test_no_remedy_is_named_that_there_is_not(method, name):
    assert "allow_nonfinite" not in complaint(method, ValueError, **{name: second_entry(GOOD[name], np.nan)})


def test_coupled_samples_have_no_gradients_of_their_own():
    p = drawn(NORMED)
    expected = f"samples must not depend on one another for gradients of each, got {NORMED}"
    with pytest.raises(ValueError, match="^samples") as raised:
        prepared(p).per_example_gradients(*p.arguments)
    assert str(raised.value) == expected


@pytest.mark.parametrize("method", TAKES)
def test_what_overflows_is_an_error_that_says_what(method):
    net = dl.MLP(1, [Dense(1), Dense(1)], "squared_error")
    huge = {"theta": np.full(4, 1e200), "x": np.full((1, 1), 1e200), "y": np.ones((1, 1))}
    huge |= {"theta_dot": np.full(4, 1e200), "x_dot": np.full((1, 1), 1e200), "outputs_bar": np.full((1, 1), 1e200)}
    with pytest.raises(FloatingPointError, match=r"^Backprop\('float64'\) got .* not finite for MLP 1-1-1$"):
        getattr(dl.Backprop().prepare(net), method)(*(huge[name] for name in TAKES[method]))


# --- activations of one's own


def cube(z):
    return z * z * z


def cube_slope(z):
    return 3.0 * z * z


def cube_bend(z):
    return 6.0 * z


def hill_bend(z, p):
    return 2.0 * p * p


Z, P = sympy.symbols("z p", real=True)
CUBE = dl.Activation("cube", Z**3, cube, cube_slope)
HILL = dl.Activation(
    "hill",
    P**2 * Z**2,
    hill,
    hill_by_z,
    hill_bend,
    parameter="p",
    start=0.75,
    is_learnable=True,
    parameter_derivative=hill_by_p,
)


@pytest.fixture
def registered():
    before = dict(ACTIVATIONS)
    yield dl.register_activation
    ACTIVATIONS.clear()
    ACTIVATIONS.update(before)


def of(name: str) -> Problem:
    return drawn(dl.MLP(2, [Dense(2, name), Dense(2)]))


def test_an_activation_without_a_second_derivative_has_no_hessian_and_all_else(registered):
    registered(CUBE)
    p = of("cube")
    for refused in (lambda: prepared(p).hessian(*p.arguments), lambda: prepared(p).hvp(*p.arguments, p.theta_dot)):
        with pytest.raises(ValueError, match="^cube must have a second derivative for a Hessian, got none"):
            refused()
    for method in set(METHODS) - {"hvp"}:
        assert_right(method, p)


def test_an_activation_with_a_second_derivative_has_a_hessian(registered):
    registered(replace(CUBE, second_derivative=cube_bend))
    assert_right("hvp", of("cube"))


def test_a_learnable_activation_without_all_second_derivatives_has_no_hessian(registered):
    """Those with respect to the parameter are second derivatives too: another rule must not stand in for them."""
    registered(HILL)
    p = of("hill")
    with pytest.raises(ValueError, match="^hill must have"):
        prepared(p).hvp(*p.arguments, p.theta_dot)


def test_a_learnable_activation_with_all_second_derivatives_has_a_hessian(registered):
    registered(replace(HILL, mixed_derivative=hill_mixed, parameter_second_derivative=hill_by_p_twice))
    assert_right("hvp", of("hill"))


# --- faults planted into every step along a tangent

NETS = {
    "affine": dl.MLP(3, [Dense(3, "tanh", share="tied"), Dense(3, "tanh", share="tied"), Dense(2)]),
    "without bias": dl.MLP(3, [Dense(3, "tanh", bias=False), Dense(2)]),
    "activation": dl.MLP(3, [Dense(3, "tanh"), Dense(2)]),
    "read twice": dl.MLP(3, [Dense(3), Residual((Elementwise("tanh"),)), Dense(2)]),
    "learnable": dl.MLP(3, [Dense(3, "swish"), Dense(2)]),
    "add": RESIDUAL,
    "multiply": dl.MLP(3, [Dense(6, "tanh"), Multiply(2)], "squared_error"),
    "maxout": dl.MLP(3, [Dense(2, "tanh"), Maxout(3, 3), Dense(2)]),
    "softmax": dl.MLP(3, [Dense(3), Softmax()], "kl_divergence"),
    "activation of shares": SHARES,
    "batch_norm": dl.MLP(3, [Dense(3, "tanh"), BatchNorm(), Dense(2)]),
    "batch_norm_inference": dl.MLP(3, [Dense(3, "tanh"), BatchNorm((0.5, -0.25, 0.0), (2.0, 0.5, 1.0)), Dense(2)]),
    "dropout": dl.MLP(3, [Dense(6, "tanh"), Dropout(0.4, seed=2), Dense(2)]),
    "penalty": dl.MLP(3, [Dense(2, "tanh"), Dense(3)], l1=0.01, l2=0.1),
    **{name: test_contract.ended(name, Dense(2, "tanh")) for name in LOSSES},
}


class Fault(NamedTuple):
    """Which source is edited, how, and on what network and in which derivatives it must show."""

    source: str
    old: str
    new: str
    net: str
    shows_in: tuple[str, ...]


TANGENT, HVP, BOTH = ("jvp",), ("hvp",), ("jvp", "hvp")
SLOPE_DOT = "by_zz(at, q) * z_dot[i, j] + mixed * p_dot[k]"
BEND_DOT = "mixed * z_dot[i, j] + by_pp(at, q) * p_dot[k]"
NORMAL_DOT = "                normal_dot = (z_dot[i, j] - share * z_total - normal * (share * z_along)) / deviation\n"
FAULTS: dict[str, Fault] = {
    "affine: no tangent of the weight": Fault(
        "affine",
        "add_outputs(row, state, z_dot, bias_dot, 0, a,",
        "add_outputs(row, state, z_dot, bias_dot, 0, a_dot,",
        "affine",
        BOTH,
    ),
    "affine: no tangent of the bias": Fault(
        "affine", "at(row, state, THETA_DOT, SECOND) if row[SECOND] >= 0", "0 if row[SECOND] >= 0", "affine", BOTH
    ),
    "affine: the tangent of inputs in place of that of the weight": Fault(
        "affine", "z_dot, z_dot, pitch, a_dot,", "z_dot, 0, pitch, a_dot,", "affine", BOTH
    ),
    "affine: weight_bar_dot without z_bar_dot": Fault(
        "affine", "GRADIENT_DOT, FIRST), z_bar_dot, a, keeps", "GRADIENT_DOT, FIRST), z_bar, a, keeps", "affine", HVP
    ),
    "affine: weight_bar_dot without a_dot": Fault("affine", "z_bar, a_dot, True", "z_bar, a, True", "affine", HVP),
    "affine: shared weight_bar_dot overwritten": Fault(
        "affine",
        "GRADIENT_DOT, FIRST), z_bar_dot, a, keeps",
        "GRADIENT_DOT, FIRST), z_bar_dot, a, False",
        "affine",
        HVP,
    ),
    "affine: bias_bar_dot from z_bar": Fault("affine", "GRADIENT_DOT, BAR_DOTS", "GRADIENT_DOT, BARS", "affine", HVP),
    "affine: a_bar_dot without the tangent of the weight": Fault(
        "affine", "at(row, state, THETA_DOT, FIRST), True", "at(row, state, THETA, FIRST), True", "affine", HVP
    ),
    "activation: slope off by 0.1 %": Fault(
        "activation",
        "a_dot[i] = slopes[i] * z_dot[i]",
        "a_dot[i] = 1.001 * slopes[i] * z_dot[i]",
        "activation",
        TANGENT,
    ),
    "activation: tangent off by 0.1 %": Fault(
        "activation", "a_dot[i] = steep * z_dot[i]", "a_dot[i] = 1.001 * steep * z_dot[i]", "activation", HVP
    ),
    "activation: curvature off by 0.1 %": Fault(
        "activation", "curvature(at, p) * z_dot[i]", "1.001 * curvature(at, p) * z_dot[i]", "activation", HVP
    ),
    "activation: curvature left out in reverse": Fault(
        "activation",
        "z_bar_dot[i] = a_bar_dot[i] * slopes[i] + a_bar[i] * slopes_dot[i]",
        "z_bar_dot[i] = a_bar_dot[i] * slopes[i]",
        "activation",
        HVP,
    ),
    "activation: read twice, written once": Fault(
        "activation", "z_bar_dot[i] += a_bar_dot", "z_bar_dot[i] = a_bar_dot", "read twice", HVP
    ),
    "learnable: tangent without the parameter": Fault("activation", " + by_p(at, q) * q_dot", "", "learnable", BOTH),
    "learnable: slope_dot without the parameter": Fault(
        "activation", SLOPE_DOT, "by_zz(at, q) * z_dot[i, j]", "learnable", HVP
    ),
    "learnable: slope_dot without z": Fault("activation", SLOPE_DOT, "mixed * p_dot[k]", "learnable", HVP),
    "learnable: parameter's slope without z": Fault(
        "activation", BEND_DOT, "by_pp(at, q) * p_dot[k]", "learnable", HVP
    ),
    "learnable: parameter's slope without itself": Fault(
        "activation", BEND_DOT, "mixed * z_dot[i, j]", "learnable", HVP
    ),
    "learnable: p_bar_dot without a_bar_dot": Fault(
        "activation", "p_bar_dot[k] += a_bar_dot[i, j] * by_p(at, q) + ", "p_bar_dot[k] += ", "learnable", HVP
    ),
    "loss: cotangents in place of their tangents": Fault(
        "loss", "curve(row, state, BAR_DOTS, zero)", "curve(row, state, BARS, zero)", "activation", HVP
    ),
    "loss: not divided": Fault(
        "loss", "        divide(row, state, part, zero)", "        pass", "activation", ("hvp", "Gauss-Newton product")
    ),
    "softmax: tangent without the sum": Fault(
        "softmax", "_add_product(a_dot[i], a[i], z_dot[i])", "a_dot[i] += a[i] * z_dot[i]", "softmax", BOTH
    ),
    "softmax: shares that stay": Fault(
        "softmax", "a_dot[i, k] * ((a_bar[i, k] - top) - mean) - a[i, k] * change", "- a[i, k] * change", "softmax", HVP
    ),
    "softmax: mean that stays": Fault("softmax", " - a[i, k] * change", "", "softmax", HVP),
    "softmax: bars for their tangents": Fault(
        "softmax",
        "_add_product(z_bar_dot[i], a[i], a_bar_dot[i])",
        "_add_product(z_bar_dot[i], a[i], a_bar[i])",
        "softmax",
        HVP,
    ),
    "batch norm: tangent of a mean that stays": Fault(
        "batch_norm",
        "(z_dot[i, j] - share * total -",
        "(z_dot[i, j] -",
        "batch_norm",
        BOTH,
    ),
    "batch norm: tangent of a deviation that stays": Fault(
        "batch_norm",
        " - normal * (share * dot)) / deviation\n                a_dot",
        ") / deviation\n                a_dot",
        "batch_norm",
        BOTH,
    ),
    "batch norm: tangent without gamma_dot": Fault(
        "batch_norm", " + normal * gamma_dot[j]", "", "batch_norm_inference", BOTH
    ),
    "batch norm: tangent without beta_dot": Fault("batch_norm", " + beta_dot[j]", "", "batch_norm", BOTH),
    "batch norm: gamma_bar_dot without the tangent of normal": Fault(
        "batch_norm", "    dot_dot += a_bar[i, j] *", "    0.0 * a_bar[i, j] *", "batch_norm_inference", HVP
    ),
    "batch norm: beta_bar_dot from bars": Fault(
        "batch_norm", "beta_bar_dot[j] += total_dot", "beta_bar_dot[j] += total", "batch_norm", HVP
    ),
    "batch norm: scale without gamma_dot": Fault(
        "batch_norm",
        "(gamma_dot[j] - scale * (share * z_along)) / deviation",
        "-scale * (share * z_along) / deviation",
        "batch_norm_inference",
        HVP,
    ),
    "batch norm: scale whose deviation stays": Fault(
        "batch_norm",
        "(gamma_dot[j] - scale * (share * z_along)) / deviation",
        "gamma_dot[j] / deviation",
        "batch_norm",
        HVP,
    ),
    "batch norm: normal that stays in reverse": Fault(
        "batch_norm", " - normal_dot * (share * dot)", "", "batch_norm", HVP
    ),
    "batch norm: projection that stays": Fault(
        "batch_norm", "                inner_dot -= normal * (share * dot_dot)\n", "", "batch_norm", HVP
    ),
    "batch norm: tangent of normal without the mean": Fault(
        "batch_norm", NORMAL_DOT, NORMAL_DOT.replace(" - share * z_total", ""), "batch_norm", HVP
    ),
    "add: the skip has no tangent": Fault(
        "add", "_sum(row, state, DOTS, zero)", "_sum(row, state, VALUES, zero)", "add", BOTH
    ),
    "add: bars for their tangents": Fault(
        "add", "_add_to_both(row, state, BAR_DOTS, zero)", "_add_to_both(row, state, BARS, zero)", "add", HVP
    ),
    "multiply: the last factor alone moves": Fault(
        "multiply", "            product_dot = product_dot * z[k] + ", "            product_dot = ", "multiply", TANGENT
    ),
    "multiply: factors before stay": Fault("multiply", "before_dot[k] * after + ", "", "multiply", HVP),
    "multiply: factors after stay": Fault("multiply", " + after * z_dot[j * n + k]", "", "multiply", HVP),
    "multiply: the cotangent stays": Fault(
        "multiply", "1.0 * a_bar[j], 1.0 * a_bar_dot[j]", "1.0 * a_bar[j], 0.0", "multiply", HVP
    ),
    "softmax: shares are written over": Fault(
        "softmax", ", rereads=True", "", "activation of shares", ("input gradient", "vjp", "hvp")
    ),
    "maxout: the first piece moves": Fault(
        "maxout",
        "a[j] = of_inputs[_first_largest(z, j * n, n)]",
        "a[j] = of_inputs[_first_largest(z, j * n, n) if part == VALUES else j * n]",
        "maxout",
        BOTH,
    ),
    "maxout: bars for their tangents": Fault(
        "maxout",
        "_add_to_largest(row, state, BAR_DOTS, zero)",
        "_add_to_largest(row, state, BARS, zero)",
        "maxout",
        HVP,
    ),
    "dropout: tangents of all": Fault(
        "dropout", "_masked(row, state, DOTS, zero)", "_masked(row, state, VALUES, zero)", "dropout", BOTH
    ),
    "dropout: bars for their tangents": Fault(
        "dropout",
        "_add_to_masked(row, state, BAR_DOTS, zero)",
        "_add_to_masked(row, state, BARS, zero)",
        "dropout",
        HVP,
    ),
    "penalty: no bend": Fault("penalty", "weight_bar_dot[k] += l2 * weight_dot[k]", "pass", "penalty", HVP),
    "penalty: in every tile": Fault(
        "penalty",
        "    l2 = constants(row, state, 2)[1]\n    if state[IS_FIRST] != 0:",
        "    l2 = constants(row, state, 2)[1]\n    if True:",
        "penalty",
        HVP,
    ),
    "sweep: x_dot of the first tile again": Fault(
        "sweeps", "        plan[X_DOT] += n * plan[X_DOT_STEP]\n", "", "activation", BOTH
    ),
    "sweep: x_bar of the first tile again": Fault(
        "sweeps", "        plan[X_BAR] += n * plan[X_BAR_STEP]\n", "", "activation", ("input gradient",)
    ),
    "sweep: gradients of examples all in one": Fault(
        "sweeps", "        plan[GRADIENT] += n * plan[GRADIENT_STEP]\n", "", "activation", ("per-example gradients",)
    ),
    "sweep: gradients of examples added up": Fault(
        "sweeps", " or plan[GRADIENT_STEP] != 0", "", "activation", ("per-example gradients",)
    ),
    "sweep: cotangents of the first outputs again": Fault(
        "sweeps", "    offset = begin * n * state[ITEM]\n", "    offset = 0\n", "activation", ("vjp", "jvp")
    ),
}
LOSS_FAULTS = {f"{name}: curvature off by 0.1 %": name for name in LOSSES}
SOUND = {f"{net}: nothing": net for net in NETS}


def edited(fault: Fault) -> types.ModuleType:
    """The module made anew from its source with one piece replaced."""
    file = Path(kernels.__file__).parent / ("sweeps.py" if fault.source == "sweeps" else f"rules/{fault.source}.py")
    text = file.read_text()
    assert fault.old in text, fault
    made = types.ModuleType(fault.source)
    exec(compile(text.replace(fault.old, fault.new), str(file), "exec"), made.__dict__)
    return made


def planted_rules(made: types.ModuleType) -> dict[str, Any]:
    """The rules of a module under the names of their operations."""
    found = {name.lower(): rule for name, rule in vars(made).items() if name.lower() in RULES and name.isupper()}
    found = {name: lambda function, kind, dtype, rule=rule: rule for name, rule in found.items()}
    if made.__name__ == "activation":
        found["activation"] = lambda function, kind, dtype: made.activation(ACTIVATIONS[function], kind, dtype)
    if made.__name__ == "loss":
        found["loss"] = lambda function, kind, dtype: made.loss(LOSSES[function], kind, dtype)
    return found


def plant(name: str, patch: pytest.MonkeyPatch) -> tuple[str, tuple[str, ...]]:
    """Put a fault where the next plans find it; the network and the derivatives that must show it."""
    if name in SOUND:
        return SOUND[name], tuple(METHODS)
    if name in LOSS_FAULTS:
        row = LOSSES[LOSS_FAULTS[name]]

        def wrong(z, y, z_dot, z_bar_dot):
            row.cotangent_tangent(z, y, z_dot, z_bar_dot)
            z_bar_dot *= 1.001

        patch.setitem(LOSSES, row.name, replace(row, cotangent_tangent=wrong))
        return row.name, ("hvp", "Gauss-Newton product")
    fault = FAULTS[name]
    made = edited(fault)
    if fault.source == "sweeps":
        patch.setattr(plans, "run_plan", made.run_plan)
    for operation, rule in planted_rules(made).items():
        patch.setitem(RULES, operation, rule)
    return fault.net, fault.shows_in


def verdicts(name: str) -> list[bool]:
    """Whether the judge finds each derivative wrong; tiles hold two of five samples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "_MADE", {})
        patch.setattr(plans, "LEAST_TILE", 2)
        patch.setattr(plans, "MOST_TILE", 2)
        net, shows_in = plant(name, patch)
        p = drawn(NETS[net], 5, seed=5)
        made = {m: _second_answer(m, p) for m in shows_in if takes(m, p.net)}
    certified = dl.Certified().prepare(p.net)
    return [
        not (
            np.isfinite(found).all()
            and error(found, truth := METHODS[m].truth(certified, p))
            <= bound(p, "float64", truth, METHODS[m].size(certified, p))
        )
        for m, found in made.items()
    ]


def _second_answer(method: str, p: Problem) -> np.ndarray:
    """On used memory; NaN where the answer is refused, as one that was never written may be by chance."""
    whole = prepared(p)
    with np.errstate(all="ignore"):
        try:
            METHODS[method].of(whole, p)
            return METHODS[method].of(whole, p)
        except FloatingPointError:
            return np.array(np.nan)


ALL_VERDICTS = """
import json
from test_second_order import FAULTS, LOSS_FAULTS, SOUND, verdicts
print(json.dumps({name: verdicts(name) for name in (*FAULTS, *LOSS_FAULTS, *SOUND)}))
"""


@pytest.fixture(scope="module")
def judged():
    """The sweeps as plain Python, in a process where nothing is compiled."""
    tests = Path(__file__).parent
    return json.loads(child(ALL_VERDICTS, tests, tests.parent, NUMBA_DISABLE_JIT="1", DIFFLAB_NO_CACHE="1"))


@pytest.mark.parametrize("fault", [*FAULTS, *LOSS_FAULTS])
def test_a_planted_fault_is_caught(judged, fault):
    assert judged[fault]
    assert all(judged[fault])


@pytest.mark.parametrize("net", SOUND)
def test_without_a_fault_nothing_is_caught(judged, net):
    assert not any(judged[net])


def test_faults_are_planted_into_every_step_along_a_tangent():
    sources = {fault.source for fault in FAULTS.values()}
    files = {file.stem for file in (Path(kernels.__file__).parent / "rules").glob("*.py")}
    assert sources == files - {"__init__", "rule", "label_smoothing"} | {"sweeps"}
