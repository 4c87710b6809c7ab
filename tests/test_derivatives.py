"""Every certified derivative, beside routes that share nothing with it: differences of the twin at 80 digits, power
series of the primal, and identities between derivatives; and kinks, worked by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import ml_dtypes
import mpmath
import naive
import numpy as np
import pytest
from flint import arb

import difflab as dl
from difflab.backends import certified
from difflab.backends.certified import ENCLOSED, KINK, ROUNDED, PreparedCertified
from difflab.enclosures import derivatives, slopes
from difflab.enclosures import sweep as ball_sweep
from difflab.enclosures.derivatives import Point
from difflab.enclosures.enclosed import Enclosed
from difflab.enclosures.precision import FIRST_BITS
from difflab.number_systems import BALLS, SERIES, ball_precision, coefficient
from difflab.primitives.losses import LOSSES
from difflab.primitives.operations import INPUTS, OPERATIONS
from difflab.program import primal


N_NETWORKS = 24
N_SERIES = 60
STEP, SECOND_STEP = "1e-25", "1e-20"
DIFFERENCE_ERROR = mpmath.mpf("1e-20")
"""Of the differences, relative and absolute, while higher derivatives are below 1e20."""


class Problem(NamedTuple):
    """A network, where it is differentiated, and along what."""

    net: dl.MLP
    arguments: tuple[np.ndarray, np.ndarray, np.ndarray]
    theta_dot: np.ndarray
    x_dot: np.ndarray
    outputs_bar: np.ndarray

    @property
    def prepared(self) -> PreparedCertified:
        return dl.Certified().prepare(self.net)


def with_directions(net: dl.MLP, arguments: tuple[np.ndarray, ...], rng: np.random.Generator) -> Problem:
    """Along numbers of 20 bits, to which 1 can be added exactly."""
    theta, x, _ = arguments
    shapes = theta.shape, x.shape, (len(x), net.n_outputs)
    return Problem(net, arguments, *(np.round(rng.normal(size=shape) * 2**16) / 2**16 for shape in shapes))


@cache
def problem(seed: int) -> Problem:
    rng = np.random.default_rng([10, seed])
    net = naive.random_mixed_network(rng, most_layers=4, most_units=3)
    return with_directions(net, naive.random_problem(net, rng, batch=2), rng)


def dense() -> Problem:
    net, rng = dl.MLP.dense([2, 3, 2], "tanh"), np.random.default_rng(0)
    return with_directions(net, naive.random_problem(net, rng, batch=2), rng)


each_network = pytest.mark.parametrize("seed", range(N_NETWORKS))


def test_the_networks_hold_every_row_of_every_table():
    nets = [problem(seed).net for seed in range(N_SERIES)]
    steps = [step for net in nets for step in net.program.instructions]
    assert {step.operation for step in steps} == set(OPERATIONS)
    functions = {step.function for step in steps if step.operation == "activation"}
    assert functions == set(naive.ACTIVATION_NAMES) - {"identity"}
    assert {net.loss for net in nets} == set(LOSSES)
    assert {net.reduction for net in nets} == set(naive.REDUCTIONS)
    assert sum(net.program.couples_samples for net in nets[:N_NETWORKS]) > 3
    assert any(net.l1 or net.l2 for net in nets)
    assert any(net.label_smoothing for net in nets)
    assert any(is_shared(net) for net in nets)


def is_shared(net: dl.MLP) -> bool:
    """Whether two operations use one parameter."""
    steps = [step for step in net.program.instructions if step.operation != "penalty"]
    used = [parameter for step in steps for parameter in step.parameters]
    return len(set(used)) < len(used)


# --- differences of the twin at 80 digits


Along = Callable[[Problem, np.ndarray, np.ndarray, Any], Any]


def of_loss(p: Problem, theta_dot: np.ndarray, x_dot: np.ndarray, t: Any) -> Any:
    return naive.evaluated_along(p.net, p.arguments, theta_dot, x_dot, t).loss


def of_losses(p: Problem, theta_dot: np.ndarray, x_dot: np.ndarray, t: Any) -> Any:
    return np.array(naive.evaluated_along(p.net, p.arguments, theta_dot, x_dot, t).losses, object)


def of_outputs(p: Problem, theta_dot: np.ndarray, x_dot: np.ndarray, t: Any) -> Any:
    return np.array(naive.evaluated_along(p.net, p.arguments, theta_dot, x_dot, t).outputs, object)


def first_difference(f: Along, p: Problem, theta_dot: np.ndarray, x_dot: np.ndarray) -> Any:
    h = mpmath.mpf(STEP)
    return (f(p, theta_dot, x_dot, h) - f(p, theta_dot, x_dot, -h)) / (2 * h)


def mixed_difference(p: Problem, theta_dot: np.ndarray, x_dot: np.ndarray, axis: np.ndarray) -> Any:
    """Of the loss along the direction and along an axis of theta; scaled so that both have one size."""
    h = mpmath.mpf(SECOND_STEP)
    ahead = of_loss(p, theta_dot + axis, x_dot, h) + of_loss(p, theta_dot + axis, x_dot, -h)
    back = of_loss(p, theta_dot - axis, x_dot, h) + of_loss(p, theta_dot - axis, x_dot, -h)
    return (ahead - back) / (4 * h**2)


def units(like: np.ndarray) -> list[np.ndarray]:
    return list(np.eye(like.size).reshape(-1, *like.shape))


def still(p: Problem) -> tuple[np.ndarray, np.ndarray]:
    theta, x, _ = p.arguments
    return np.zeros_like(theta), np.zeros_like(x)


def input_differences(p: Problem) -> np.ndarray:
    theta, x = still(p)
    return np.array([first_difference(of_loss, p, theta, axis) for axis in units(x)], object).reshape(x.shape)


def example_differences(p: Problem) -> np.ndarray:
    theta, x = still(p)
    return np.array([first_difference(of_losses, p, axis, x) for axis in units(theta)], object).T


def output_differences(p: Problem) -> np.ndarray:
    return first_difference(of_outputs, p, p.theta_dot, p.x_dot)


def bar_differences(p: Problem) -> np.ndarray:
    theta, x = still(p)
    bar = np.frompyfunc(mpmath.mpf, 1, 1)(p.outputs_bar)
    return np.array([(first_difference(of_outputs, p, axis, x) * bar).sum() for axis in units(theta)], object)


def second_differences(p: Problem) -> np.ndarray:
    return np.array([mixed_difference(p, p.theta_dot, p.x_dot, axis) for axis in units(p.theta_dot)], object)


class Method(NamedTuple):
    """A certified derivative, what it is called with, and its differences."""

    enclose: Callable[[Problem], Enclosed]
    differences: Callable[[Problem], np.ndarray]


METHODS: dict[str, Method] = {
    "input gradient": Method(lambda p: p.prepared.enclose_input_gradient(*p.arguments), input_differences),
    "per-example gradients": Method(
        lambda p: p.prepared.enclose_per_example_gradients(*p.arguments), example_differences
    ),
    "jvp": Method(lambda p: p.prepared.enclose_jvp(*p.arguments[:2], p.theta_dot, p.x_dot), output_differences),
    "vjp": Method(lambda p: p.prepared.enclose_vjp(*p.arguments[:2], p.outputs_bar), bar_differences),
    "hvp": Method(lambda p: p.prepared.enclose_hvp(*p.arguments, p.theta_dot, p.x_dot), second_differences),
}
each_method = pytest.mark.parametrize("method", METHODS)


@cache
def differences(method: str, seed: int) -> np.ndarray:
    with mpmath.workdps(naive.DIGITS):
        return METHODS[method].differences(problem(seed))


def violations(found: Enclosed, truth: np.ndarray) -> list[str]:
    """Entries whose difference is out of bounds, or rounds to another float."""
    assert found.nearest.shape == truth.shape
    arrays = (found.nearest, found.residual, found.radius, found.lower, found.upper, found.status, truth)
    return [wrong for entry in zip(*(a.ravel() for a in arrays), strict=True) for wrong in _violations(*entry)]


def _violations(nearest, residual, radius, lower, upper, status, truth: Any) -> Iterator[str]:
    with mpmath.workdps(naive.DIGITS):
        doubt = DIFFERENCE_ERROR * (1 + abs(truth))
        if not float(lower) - doubt <= truth <= float(upper) + doubt:
            yield "bounds"
        if status != KINK and abs(truth - float(nearest) - float(residual)) > float(radius) + doubt:
            yield "radius"
        if status == ROUNDED and not float(truth - doubt) <= nearest <= float(truth + doubt):
            yield "rounding"


@each_network
@each_method
def test_it_encloses_the_differences_of_the_twin(method, seed):
    """At a kink the difference is the mean of both sides, but a second one has no limit there."""
    found = METHODS[method].enclose(problem(seed))
    assert KINK not in found.status or method != "hvp"
    assert violations(found, differences(method, seed)) == []


@each_method
def test_nearly_every_entry_is_rounded(method):
    found = np.concatenate([METHODS[method].enclose(problem(seed)).status.ravel() for seed in range(N_NETWORKS)])
    assert (found == ROUNDED).mean() > 0.95


@pytest.mark.parametrize("seed", range(4))
def test_the_hessian_encloses_the_differences_of_the_twin(seed):
    p = problem(seed)
    found, (_, x) = p.prepared.enclose_hessian(*p.arguments), still(p)
    with mpmath.workdps(naive.DIGITS):
        columns = [second_differences(p._replace(theta_dot=axis, x_dot=x)) for axis in units(p.theta_dot)[:3]]
    first = found.mapped(lambda a: a[:, :3])
    assert violations(first, np.stack(columns, axis=1)) == []


# --- faults that the differences must catch

CAUGHT_IN = 12
"""The first so many networks must show every fault, some of them."""


def is_caught(method: str) -> bool:
    return any(
        violations(METHODS[method].enclose(problem(seed)), differences(method, seed)) for seed in range(CAUGHT_IN)
    )


def seen_once(sweep: ball_sweep.Sweep, value: int, bar: np.ndarray) -> None:
    """Instead of adding up: what the last reader says of samples."""
    before = sweep.cotangents[value]
    sweep.cotangents[value] = bar if before is None or value == INPUTS else before + bar


def slopes_without_the_half(self: slopes.MovingSlopes, primal: Any, points: Any, place: int, axis: np.ndarray) -> Any:
    with ball_precision(order=2):
        ahead, back = (primal(self.series, self._lines(points, place, axis, sign)) for sign in (1, -1))
    found = (coefficient(ahead, 1) + coefficient(back, 1)) / 2
    return self.series.line(found, coefficient(ahead, 2) - coefficient(back, 2))


def slopes_that_stay(self: slopes.MovingSlopes, primal: Any, points: Any, place: int, axis: np.ndarray) -> Any:
    still = [(point, 0 * velocity) for point, velocity in points]
    return MOVING(self, primal, still, place, axis)


def seeds_changed(change: Callable[[np.ndarray], np.ndarray]) -> Callable:
    def wrong(program, theta, made, slopes, seeds, *others, **options):
        return REVERSE_SWEEP(
            program, theta, made, slopes, {k: change(seed) for k, seed in seeds.items()}, *others, **options
        )

    return wrong


def scaled(rule: Callable) -> Callable:
    """All of a rule's cotangents off by a millionth."""

    def wrong(sweep, instruction, number):
        before = [sweep.cotangents[i] for i in instruction.inputs]
        rule(sweep, instruction, number)
        for value, old in zip(instruction.inputs, before, strict=True):
            if sweep.wants(value):
                new = sweep.cotangents[value] - (0 if old is None else old)
                sweep.cotangents[value] = sweep.cotangents[value] + new * 1e-6

    return wrong


MOVING = slopes.MovingSlopes._along
REVERSE_SWEEP = derivatives.reverse_sweep
JVP, HVP = derivatives.jvp, derivatives.hvp


def rule_scaled(name: str) -> Callable[[Any], None]:
    rule = ball_sweep.RULES.get(name, ball_sweep.by_series)
    return lambda patch: patch.setitem(ball_sweep.RULES, name, scaled(rule))


def sweep_with(seeding: Callable[[np.ndarray], np.ndarray]) -> Callable[[Any], None]:
    return lambda patch: patch.setattr(derivatives, "reverse_sweep", seeds_changed(seeding))


def no_totals(*arguments: Any, **options: Any) -> ball_sweep.Sweep:
    return REVERSE_SWEEP(*arguments, **{**options, "with_totals": False})


def all_totals(*arguments: Any, **options: Any) -> ball_sweep.Sweep:
    return REVERSE_SWEEP(*arguments, **{**options, "with_totals": True})


FAULTS: dict[tuple[str, str], Callable[[Any], None]] = {
    ("input gradient", "samples that are read twice count once"): lambda patch: patch.setattr(
        ball_sweep.Sweep, "add", seen_once
    ),
    ("input gradient", "seeds of a sum"): lambda patch: patch.setattr(
        derivatives, "loss_seeds", lambda program, system, batch: {program.losses: system.array(np.ones(batch))}
    ),
    ("input gradient", "samples swapped"): sweep_with(lambda seed: seed * BALLS.array(np.array([1.0, 1 + 1e-6]))),
    ("input gradient", "affine off by a millionth"): rule_scaled("affine"),
    ("per-example gradients", "seeds off by a millionth"): sweep_with(lambda seed: seed * (1 + 1e-6)),
    ("per-example gradients", "the other sample's seed"): sweep_with(lambda seed: seed[::-1]),
    ("per-example gradients", "penalties in every sample"): lambda patch: patch.setattr(
        derivatives, "reverse_sweep", all_totals
    ),
    ("jvp", "x stays"): lambda patch: patch.setattr(
        derivatives, "jvp", lambda point, theta_dot, x_dot, bits: JVP(point, theta_dot, 0 * x_dot, bits)
    ),
    ("jvp", "theta stays"): lambda patch: patch.setattr(
        derivatives, "jvp", lambda point, theta_dot, x_dot, bits: JVP(point, 0 * theta_dot, x_dot, bits)
    ),
    ("vjp", "samples swapped"): sweep_with(lambda seed: seed[::-1]),
    ("vjp", "outputs swapped"): sweep_with(lambda seed: seed[:, ::-1]),
    ("vjp", "the loss off by a millionth"): rule_scaled("activation"),
    ("hvp", "polarisation without the half"): lambda patch: patch.setattr(
        slopes.MovingSlopes, "_along", slopes_without_the_half
    ),
    ("hvp", "points that do not move"): lambda patch: patch.setattr(slopes.MovingSlopes, "_along", slopes_that_stay),
    ("hvp", "x stays"): lambda patch: patch.setattr(
        derivatives, "hvp", lambda point, theta_dot, x_dot, bits: HVP(point, theta_dot, 0 * x_dot, bits)
    ),
    ("hvp", "no penalties"): lambda patch: patch.setattr(derivatives, "reverse_sweep", no_totals),
    ("hvp", "the loss off by a millionth"): rule_scaled("loss"),
    ("hvp", "affine off by a millionth"): rule_scaled("affine"),
}


@pytest.mark.parametrize(("method", "fault"), FAULTS)
def test_a_fault_shows_in_the_differences(method, fault, monkeypatch):
    FAULTS[method, fault](monkeypatch)
    assert is_caught(method)


@each_method
def test_without_a_fault_the_same_networks_pass(method):
    assert not is_caught(method)


# --- power series of the primal, in balls


def point_of(p: Problem) -> Point:
    return certified._exactly(p.net, certified.checked(p.net, *p.arguments, certified.DTYPES))


def loss_along(p: Problem, theta_dot: np.ndarray, x_dot: np.ndarray) -> Any:
    """The power series of the loss at theta + t theta_dot, x + t x_dot, up to second order."""
    theta, x, y = point_of(p).balls()
    lines = SERIES.line(theta, BALLS.array(theta_dot)), SERIES.line(x, BALLS.array(x_dot)), SERIES.array(y)
    return primal(p.net.program, SERIES, *lines)


def stated(found: Enclosed) -> np.ndarray:
    radii = np.frompyfunc(lambda radius: arb(0, radius), 1, 1)(found.radius)
    return BALLS.array(found.nearest) + BALLS.array(found.residual) + radii


def inner(found: Enclosed, weights: np.ndarray) -> Any:
    return (stated(found) * BALLS.array(weights)).sum()


each_series = pytest.mark.parametrize("first", range(0, N_SERIES, 20))


@each_series
def test_a_direction_through_the_hvp_is_twice_the_second_order_coefficient(first):
    for p in map(problem, range(first, first + 20)):
        found = p.prepared.enclose_hvp(*p.arguments, p.theta_dot)
        with ball_precision(4 * FIRST_BITS, order=2):
            curvature = 2 * loss_along(p, p.theta_dot, 0 * p.x_dot)[2]
            assert inner(found, p.theta_dot).overlaps(curvature), p.net
            assert curvature.rad() < 1e-20 * (1 + abs(curvature))


@each_series
def test_the_hvp_knows_that_samples_move(first):
    """Along (v, u) less along (v, -u), the terms of second order leave twice v^T H u."""
    for p in map(problem, range(first, first + 20)):
        ahead, back = (p.prepared.enclose_hvp(*p.arguments, p.theta_dot, sign * p.x_dot) for sign in (1, -1))
        with ball_precision(4 * FIRST_BITS, order=2):
            terms = [loss_along(p, p.theta_dot, sign * p.x_dot)[2] for sign in (1, -1)]
            difference = inner(ahead, p.theta_dot) - inner(back, p.theta_dot)
            assert difference.overlaps(terms[0] - terms[1]), p.net


@each_series
def test_the_input_gradient_is_the_first_order_coefficient(first):
    for p in map(problem, range(first, first + 20)):
        found = p.prepared.enclose_input_gradient(*p.arguments)
        with ball_precision(2 * FIRST_BITS):
            assert inner(found, p.x_dot).overlaps(loss_along(p, 0 * p.theta_dot, p.x_dot)[1]), p.net


# --- identities


@each_series
def test_jvp_and_vjp_are_adjoint(first):
    for p in map(problem, range(first, first + 20)):
        theta, x, _ = p.arguments
        forward = p.prepared.enclose_jvp(theta, x, p.theta_dot)
        reverse = p.prepared.enclose_vjp(theta, x, p.outputs_bar)
        with ball_precision(2 * FIRST_BITS):
            assert inner(forward, p.outputs_bar).overlaps(inner(reverse, p.theta_dot)), p.net


@each_series
def test_gradients_of_examples_and_of_penalties_add_up_to_the_gradient(first):
    for p in map(problem, range(first, first + 20)):
        found = p.prepared.enclose_per_example_gradients(*p.arguments)
        whole = p.prepared.enclose(*p.arguments).entries
        with ball_precision(2 * FIRST_BITS):
            divisor = p.net.program.divisor(len(p.arguments[1]))
            summed = stated(found).sum(axis=0) / divisor + of_penalties(p)
            pairs = zip(summed, stated(whole), strict=True)
            assert all(a.overlaps(b) for a, b in pairs), p.net


def of_penalties(p: Problem) -> np.ndarray:
    """l1 sign(w) + l2 w for every weight, each penalty once."""
    gradient = BALLS.array(np.zeros(p.net.n_params))
    theta = BALLS.array(p.arguments[0])
    for number in p.net.program.totals:
        step = p.net.program.instructions[number - p.net.program.n_given]
        (weight,), (l1, l2) = step.parameters, step.constants
        signs = BALLS.array(np.sign(weight.of(p.arguments[0])))
        weight.of(gradient)[...] += l1 * signs + l2 * weight.of(theta)
    return gradient


@pytest.mark.parametrize("seed", range(12))
def test_the_hessian_is_symmetric_and_made_of_products(seed):
    p = problem(seed)
    found = p.prepared.enclose_hessian(*p.arguments)
    with ball_precision(FIRST_BITS):
        balls = stated(found)
        assert np.frompyfunc(lambda a, b: a.overlaps(b), 2, 1)(balls, balls.T).all()
        product, whole = stated(p.prepared.enclose_hvp(*p.arguments, p.theta_dot)), balls @ BALLS.array(p.theta_dot)
        assert all(a.overlaps(b) for a, b in zip(whole, product, strict=True))
    assert (found.lower <= found.upper.T).all()
    assert (found.lower.T <= found.upper).all()


def test_a_wrong_column_breaks_the_symmetry(monkeypatch):
    p = dense()
    monkeypatch.setattr(derivatives, "hvp", lambda point, axis, *more: HVP(point, axis * (1 + 1e-6 * axis[0]), *more))
    balls = stated(p.prepared.enclose_hessian(*p.arguments))
    assert not np.frompyfunc(lambda a, b: a.overlaps(b), 2, 1)(balls, balls.T).all()


def test_a_still_direction_has_no_derivative():
    p = problem(0)
    theta, x = still(p)
    for found in (p.prepared.enclose_jvp(*p.arguments[:2], theta), p.prepared.enclose_hvp(*p.arguments, theta)):
        assert not np.any([found.nearest, found.residual, found.radius, found.lower, found.upper])


@each_method
def test_no_argument_is_changed_and_the_same_question_has_the_same_answer(method):
    p = problem(1)
    given = (*p.arguments, p.theta_dot, p.x_dot, p.outputs_bar)
    before = [a.tobytes() for a in given]
    first, second = (METHODS[method].enclose(p) for _ in range(2))
    assert [a.tobytes() for a in given] == before
    for name in ("nearest", "residual", "radius", "lower", "upper"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()


# --- saturation


def confident(gap: float) -> Problem:
    """Logits (gap, 0) for class 0, whose second derivatives are +-p (1 - p)."""
    net = dl.MLP(1, [dl.Dense(2)])
    arguments = np.array([0.0, 0.0, gap, 0.0]), np.ones((1, 1)), np.array([0])
    return with_directions(net, arguments, np.random.default_rng(0))


@pytest.mark.parametrize("gap", [50.0, 300.0, 700.0])
def test_precision_doubles_until_second_derivatives_are_rounded(gap):
    p = confident(gap)
    found = p.prepared.enclose_hvp(*p.arguments, np.array([1.0, 0.0, 0.0, 0.0]))
    with mpmath.workdps(700):
        q = mpmath.exp(-gap) / (1 + mpmath.exp(-gap))
        expected = float(q * (1 - q))
    assert found.bits > FIRST_BITS
    assert set(found.status) == {ROUNDED}
    assert found.nearest.tolist() == [expected, -expected, expected, -expected]


def test_too_little_precision_leaves_intervals_that_say_so():
    p = confident(300.0)
    found = dl.Certified(max_bits=FIRST_BITS).prepare(p.net).enclose_hvp(*p.arguments, p.theta_dot)
    assert ENCLOSED in found.status
    assert (found.lower <= found.upper).all()


# --- kinks, worked by hand


def one_unit(layers: list, theta: list[float], target: float = -1.0) -> Problem:
    net = dl.MLP(1, layers, "squared_error")
    arguments = np.array(theta), np.ones((1, 1)), np.full((1, 1), target)
    return Problem(net, arguments, np.eye(net.n_params)[0], np.ones((1, 1)), np.ones((1, 1)))


def sides(found: Enclosed) -> list[tuple[float, float]]:
    """Bounds, without the last bits of Arb's radii, which have 30."""
    return [(round(a, 6) + 0.0, round(b, 6) + 0.0) for a, b in zip(found.lower.flat, found.upper.flat, strict=True)]


RELU = one_unit([dl.Dense(1, "relu"), dl.Dense(1)], [1.0, -1.0, 2.0, 0.0])
"""2 relu(x - 1) at x = 1; the residual is 1."""


def test_an_input_gradient_at_a_kink_has_both_sides():
    found = RELU.prepared.enclose_input_gradient(*RELU.arguments)
    assert (found.status.tolist(), sides(found), found.nearest.tolist()) == ([[KINK]], [(0.0, 2.0)], [[0.0]])


def test_gradients_of_examples_at_a_kink_have_both_sides():
    found = RELU.prepared.enclose_per_example_gradients(*RELU.arguments)
    assert found.status.tolist() == [[KINK, KINK, ROUNDED, ROUNDED]]
    assert sides(found) == [(0.0, 2.0), (0.0, 2.0), (0.0, 0.0), (1.0, 1.0)]


def test_an_example_that_meets_no_kink_has_none():
    x, y = np.array([[1.0], [2.0]]), np.full((2, 1), -1.0)
    found = RELU.prepared.enclose_per_example_gradients(RELU.arguments[0], x, y)
    assert found.status[0].tolist() == [KINK, KINK, ROUNDED, ROUNDED]
    assert set(found.status[1]) == {ROUNDED}
    assert found.nearest[1].tolist() == [12.0, 6.0, 3.0, 3.0]


def test_a_jvp_at_a_kink_has_both_sides():
    found = RELU.prepared.enclose_jvp(*RELU.arguments[:2], RELU.theta_dot)
    assert (found.status.tolist(), sides(found), found.nearest.tolist()) == ([[KINK]], [(0.0, 2.0)], [[0.0]])


def test_a_jvp_along_which_nothing_reaches_the_kink_has_none():
    found = RELU.prepared.enclose_jvp(*RELU.arguments[:2], np.array([0.0, 0.0, 1.0, 1.0]))
    assert (found.status.tolist(), found.nearest.tolist()) == ([[ROUNDED]], [[1.0]])


def test_a_vjp_at_a_kink_has_both_sides():
    found = RELU.prepared.enclose_vjp(*RELU.arguments[:2], np.full((1, 1), 3.0))
    assert found.status.tolist() == [KINK, KINK, ROUNDED, ROUNDED]
    assert sides(found) == [(0.0, 6.0), (0.0, 6.0), (0.0, 0.0), (3.0, 3.0)]


def test_a_gradient_that_jumps_has_no_second_derivative():
    found = RELU.prepared.enclose_hvp(*RELU.arguments, RELU.theta_dot)
    assert found.status[:2].tolist() == [KINK, KINK]


def test_a_gradient_that_jumps_has_none_even_if_it_is_flat_on_both_sides():
    """Of |w| / 2 at 0; the bias is far from it."""
    net = dl.MLP(1, [dl.Dense(1)], "squared_error", l1=0.5)
    found = dl.Certified().prepare(net).enclose_hvp(np.zeros(2), np.ones((1, 1)), np.ones((1, 1)), np.array([0.0, 1.0]))
    assert found.status.tolist() == [KINK, ROUNDED]
    assert found.nearest.tolist() == [1.0, 1.0]


BENDS: dict[str, tuple[Problem, float, float]] = {
    "relu times relu": (
        one_unit([dl.Dense(2, "relu"), dl.Multiply(1)], [1.0, 1.0, -1.0, -1.0]),
        0.0,
        1.0,
    ),
    "softsign": (one_unit([dl.Dense(1, "softsign")], [1.0, -1.0]), 1.0 - 2.0, 1.0 + 2.0),
    "elu": (one_unit([dl.Dense(1, "elu")], [1.0, -1.0]), 1.0, 2.0),
}
"""Bounds of the second derivatives on both sides, where the gradient is continuous; the residual is 1."""


@pytest.mark.parametrize("case", BENDS)
def test_a_gradient_that_bends_has_second_derivatives_on_both_sides(case):
    p, low, high = BENDS[case]
    gradient = p.prepared.enclose(*p.arguments)
    along = np.eye(p.net.n_params)[-1]
    found = p.prepared.enclose_hvp(*p.arguments, along)
    assert (gradient.lower == gradient.upper).all()
    assert KINK in found.status
    torn = found.status == KINK
    assert (found.lower[torn] <= low + 1e-6).all()
    assert (found.upper[torn] >= high - 1e-6).all()


def test_away_from_the_bend_there_is_one_second_derivative():
    for shift, curvature in ((-0.5, np.exp(-0.5) * (2 * np.exp(-0.5))), (0.5, 1.0)):
        p = one_unit([dl.Dense(1, "elu")], [1.0, shift - 1.0])
        found = p.prepared.enclose_hvp(*p.arguments, np.array([0.0, 1.0]))
        assert set(found.status) == {ROUNDED}
        assert abs(found.nearest[1] - curvature) <= 4 * np.spacing(curvature)


def test_a_relu_that_is_off_its_kink_has_no_curvature_of_its_own():
    p = one_unit([dl.Dense(1, "relu")], [1.0, 0.0])
    assert p.prepared.enclose_hvp(*p.arguments, np.array([0.0, 1.0])).nearest.tolist() == [1.0, 1.0]


# --- all number formats


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@each_method
def test_narrow_numbers_are_taken_as_what_they_are(method, dtype):
    p = problem(2)
    narrow = [a if a.dtype.kind == "i" else a.astype(getattr(ml_dtypes, dtype, dtype)) for a in p.arguments]
    directions = [a.astype(narrow[0].dtype) for a in p[2:]]
    wide = [a if a.dtype.kind == "i" else a.astype(np.float64) for a in (*narrow, *directions)]
    found = METHODS[method].enclose(Problem(p.net, tuple(narrow), *directions))
    expected = METHODS[method].enclose(Problem(p.net, tuple(wide[:3]), *wide[3:]))
    for name in ("nearest", "residual", "radius", "lower", "upper"):
        assert getattr(found, name).tobytes() == getattr(expected, name).tobytes()
    assert found.nearest.dtype == np.float64


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_value_and_gradient_of_narrow_numbers_are_those_of_their_images(dtype):
    p = problem(2)
    narrow = [a if a.dtype.kind == "i" else a.astype(getattr(ml_dtypes, dtype, dtype)) for a in p.arguments]
    wide = [a if a.dtype.kind == "i" else a.astype(np.float64) for a in narrow]
    value, gradient = p.prepared.value_and_gradient(*narrow)
    expected_value, expected = p.prepared.value_and_gradient(*wide)
    assert value == expected_value
    assert gradient.dtype == narrow[0].dtype
    assert (gradient == expected.astype(gradient.dtype)).all()


# --- bad input

CLASSIFIER = dl.MLP.dense([3, 2, 2])
N = CLASSIFIER.n_params
GOOD = {
    "theta": np.linspace(-1, 1, N),
    "x": np.array([[1.0, 2.0, 3.0], [-1.0, 0.5, 0.0]]),
    "y": np.array([[1.0, 0.0], [0.25, 0.75]]),
    "theta_dot": np.ones(N),
    "x_dot": np.ones((2, 3)),
    "outputs_bar": np.ones((2, 2)),
}
TAKES = {
    "enclose": ("theta", "x", "y"),
    "enclose_input_gradient": ("theta", "x", "y"),
    "enclose_per_example_gradients": ("theta", "x", "y"),
    "enclose_jvp": ("theta", "x", "theta_dot", "x_dot"),
    "enclose_vjp": ("theta", "x", "outputs_bar"),
    "enclose_hvp": ("theta", "x", "y", "theta_dot", "x_dot"),
    "enclose_hessian": ("theta", "x", "y"),
}
SHAPES = {
    "theta": f"theta must have shape ({N},) for MLP 3-2-2, got ",
    "x": "x must have shape (batch, 3) with batch 1 or more for MLP 3-2-2, got ",
    "y": "y must have shape (2, 2), or (2,) of class indices for MLP 3-2-2, got ",
    "theta_dot": f"theta_dot must have shape ({N},), got ",
    "x_dot": "x_dot must have shape (2, 3), got ",
    "outputs_bar": "outputs_bar must have shape (2, 2), got ",
}


def second_entry(a: np.ndarray, number: float) -> np.ndarray:
    changed = a.copy()
    changed.flat[1] = number
    return changed


PLAIN = "{name} must be a plain numpy.ndarray, got "
BAD: dict[str, tuple[Callable[[np.ndarray], Any], type[Exception], str]] = {
    "too short": (lambda a: a[..., :-1], ValueError, "{shape}"),
    "of another rank": (lambda a: a[None], ValueError, "{shape}"),
    "a scalar": (lambda a: np.array(1.0), ValueError, "{shape}"),
    "empty": (lambda a: a[:0], ValueError, "{shape}"),
    "mixed formats": (lambda a: a.astype(np.float32), TypeError, " must be float"),
    "a format that is too narrow": (lambda a: a.astype(ml_dtypes.float8_e5m2), TypeError, "{name} must be float64"),
    "integers": (lambda a: a.astype(int), TypeError, "{name} must be float64"),
    "another byte order": (lambda a: a.astype(">f8"), TypeError, "{name} must be float64"),
    "a list": (lambda a: a.tolist(), TypeError, PLAIN + "builtins.list"),
    "nothing": (lambda a: None, TypeError, PLAIN + "builtins.NoneType"),
    "masked": (lambda a: np.ma.array(a, mask=a > 0), TypeError, PLAIN + "numpy.MaskedArray"),
    "not a number": (
        lambda a: second_entry(a, np.nan),
        ValueError,
        "{name} must be finite, got nan at {name}[{place}]",
    ),
    "infinite": (lambda a: second_entry(a, -np.inf), ValueError, "{name} must be finite, got -inf at {name}[{place}]"),
}


@pytest.fixture
def nothing_computed(monkeypatch):
    """Any derivative fails the test."""
    for name in ("input_gradient", "per_example_gradients", "jvp", "vjp", "hvp", "hessian", "value_and_gradient"):
        monkeypatch.setattr(derivatives, name, lambda *_: pytest.fail("computed"))


def complaint(method: str, error: type[Exception], net: dl.MLP = CLASSIFIER, **changed: Any) -> str:
    given = {**GOOD, **changed}
    with pytest.raises(error) as raised:
        getattr(dl.Certified().prepare(net), method)(*(given[name] for name in TAKES[method]))
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
    sentence = complaint(method, ValueError, **{name: second_entry(GOOD[name], np.nan)})
    assert "allow_nonfinite" not in sentence


@pytest.mark.usefixtures("nothing_computed")
def test_a_hessian_that_would_not_fit_is_refused():
    net = dl.MLP.dense([40, 40])
    sentence = complaint("enclose_hessian", ValueError, net, theta=net.init(0), x=np.ones((1, 40)), y=np.array([0]))
    assert sentence == "a full Hessian must have at most 1000 parameters, got 1640; use enclose_hvp"


def test_without_x_dot_samples_stay():
    p = dense()
    theta, x, y = p.arguments
    pairs = (
        (p.prepared.enclose_jvp(theta, x, p.theta_dot), p.prepared.enclose_jvp(theta, x, p.theta_dot, 0 * x)),
        (p.prepared.enclose_hvp(theta, x, y, p.theta_dot), p.prepared.enclose_hvp(theta, x, y, p.theta_dot, 0 * x)),
    )
    for without, still in pairs:
        assert (without.nearest == still.nearest).all()
        assert (without.residual == still.residual).all()


def test_derivatives_of_outputs_need_no_targets():
    """Of losses that take only probabilities, or only labels, either."""
    for loss in LOSSES:
        net = dl.MLP(2, [dl.Dense(2, "sigmoid")], loss, label_smoothing=0.1 if "error" not in loss else 0.0)
        found = dl.Certified().prepare(net).enclose_vjp(net.init(0), np.ones((1, 2)), np.ones((1, 2)))
        assert set(found.status) == {ROUNDED}
