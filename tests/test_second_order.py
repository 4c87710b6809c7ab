"""Every derivative of Backprop beside its certified enclosure, and identities between derivatives."""

from __future__ import annotations

import inspect
import os
from dataclasses import replace
from typing import Any

import naive
import numpy as np
import pytest
import sympy
from backprop_derivatives import (
    BATCH,
    DENSE,
    DTYPES,
    KINDS,
    METHODS,
    NORMED,
    SMALL,
    Problem,
    assert_right,
    bound,
    drawn,
    each_dtype,
    each_method,
    each_small,
    each_uncoupled,
    error,
    found,
    gradient_size,
    known_bound,
    known_truth,
    prepared,
    problem,
    takes,
)
from test_derivatives import BAD, CLASSIFIER, GOOD, SHAPES, second_entry
from test_registration import hill, hill_by_p, hill_by_p_twice, hill_by_z, hill_mixed

import difflab as dl
from difflab.backends import backprop
from difflab.backends.certified import KINK, ROUNDED
from difflab.discrepancy import relative_in_norm
from difflab.kernels.rules import RULES
from difflab.layers import Dense, Elementwise, Maxout, Softmax
from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.losses import LOSSES
from difflab.primitives.operations import OPERATIONS


def test_the_networks_hold_every_row_of_every_table():
    nets = [problem(kind).net for kind in KINDS]
    steps = [step for net in nets for step in net.program.instructions]
    assert {step.operation for step in steps} == set(OPERATIONS) == set(RULES)
    assert {step.function for step in steps if step.operation == "activation"} == set(ACTIVATIONS) - {"identity"}
    assert {step.function for step in steps if step.operation == "loss"} == set(LOSSES)
    assert sum(net.program.couples_samples for net in nets) > 5


EXHAUSTIVE = os.environ.get("DIFFLAB_EXHAUSTIVE") == "1"
IN_FLOAT32 = set(KINDS if EXHAUSTIVE else KINDS[::3])
"""Kinds that are also tried in float32."""


@each_method
@pytest.mark.parametrize(
    ("kind", "dtype"), [(kind, dtype) for kind in KINDS for dtype in DTYPES if dtype == "float64" or kind in IN_FLOAT32]
)
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


def test_a_derivative_that_nobody_wrote_is_no_number_if_asked_for(monkeypatch):
    """Another rule in its place would pass for a Hessian; the check before it is taken away here."""
    row = replace(ACTIVATIONS["tanh"], name="once", second_derivative=None)
    monkeypatch.setitem(ACTIVATIONS, "once", row)
    net = dl.MLP(2, [Dense(3, "once"), Dense(2)])
    p = drawn(net)
    with pytest.raises(ValueError, match="must have a second derivative for a Hessian"):
        prepared(p).hvp(*p.arguments, p.theta_dot)
    monkeypatch.setattr(backprop.PreparedBackprop, "_check_twice_differentiable", lambda self: None)
    with pytest.raises(FloatingPointError):
        prepared(p).hvp(*p.arguments, p.theta_dot)


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
    assert ours - {"value", "value_and_gradient", "bound_to", "predicted_error"} == set(TAKES)
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
    wanted = "samples must not depend on one another for gradients of each"
    expected = f"{wanted}, got {NORMED}; give BatchNorm its statistics"
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


def test_lists_are_as_good_as_tuples(registered):
    """Rows are looked up by what they hold."""
    registered(replace(CUBE, kinks=[], domain=[-np.inf, np.inf], range=[-np.inf, np.inf]))
    assert_right("input gradient", of("cube"))


def test_a_learnable_activation_without_all_second_derivatives_has_no_hessian(registered):
    """Those with respect to the parameter are second derivatives too: another rule must not stand in for them."""
    registered(HILL)
    p = of("hill")
    with pytest.raises(ValueError, match="^hill must have"):
        prepared(p).hvp(*p.arguments, p.theta_dot)


def test_a_learnable_activation_with_all_second_derivatives_has_a_hessian(registered):
    registered(replace(HILL, mixed_derivative=hill_mixed, parameter_second_derivative=hill_by_p_twice))
    assert_right("hvp", of("hill"))
