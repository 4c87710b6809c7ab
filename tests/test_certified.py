"""The truth is judged by other means: mpmath differences, more precision, a forward pass, and cases worked by hand."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import mpmath
import naive
import numpy as np
import pytest

import difflab as dl
from difflab.backends.arguments import checked
from difflab.backends.certified import ENCLOSED, KINK, ROUNDED, Enclosure
from difflab.enclosures import kinks
from difflab.enclosures import sweep as ball_sweep
from difflab.enclosures.derivatives import gradient_sweep
from difflab.enclosures.precision import FIRST_BITS
from difflab.number_systems import BALLS, SERIES, ball_precision
from difflab.program import primal, values


EPS = float(np.finfo(float).eps)


N_NETWORKS = int(os.environ.get("DIFFLAB_CERTIFIED_NETWORKS", "200"))
N_PER_CASE = 10
MORE_BITS = 2000
"""Far beyond what any network here makes the back-end ask for, but the saturated ones."""

DIFFERENCE_ERROR = mpmath.mpf("1e-40")
"""Of the central difference, relative and absolute: its step is 1e-25, third derivatives are below 1e9."""


@cache
def problem(seed: int) -> tuple[dl.MLP, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    net = naive.random_network(rng)
    return net, *naive.random_problem(net, rng, batch=1 + seed % 2)


@cache
def enclosed(seed: int) -> Enclosure:
    return enclose(*problem(seed))


def enclose(net: dl.MLP, theta: np.ndarray, x: np.ndarray, y: np.ndarray, **options: int) -> Enclosure:
    return dl.Certified(**options).prepare(net).enclose(theta, x, y)


def gradient_balls(net: dl.MLP, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The balls of the reverse sweep at the working precision."""
    arguments = checked(net, theta, x, y, ("float64", "float32"))
    centre, *inputs = (BALLS.array(a) for a in (arguments.theta, arguments.x, arguments.y))
    return gradient_sweep(net.program, centre, values(net.program, BALLS, centre, *inputs), SERIES).gradient


def loss_along(net: dl.MLP, theta: np.ndarray, x: np.ndarray, y: np.ndarray, v: np.ndarray) -> Any:
    """The power series of the loss at theta + t v."""
    arguments = checked(net, theta, x, y, ("float64", "float32"))
    line = SERIES.line(BALLS.array(arguments.theta), BALLS.array(v))
    return primal(net.program, SERIES, line, BALLS.array(arguments.x), BALLS.array(arguments.y))


def both_passes_agree(net: dl.MLP, theta: np.ndarray, x: np.ndarray, y: np.ndarray, v: np.ndarray) -> bool:
    with ball_precision(FIRST_BITS):
        forward = loss_along(net, theta, x, y, v)[1]
        return (gradient_balls(net, theta, x, y) * BALLS.array(v)).sum().overlaps(forward)


def is_nearest(number: float, truth: Any) -> bool:
    """Whether no float64 is nearer to the ball ``truth`` than ``number``, in exact arithmetic."""
    distance = abs(truth - number)
    return all(not distance > abs(truth - float(np.nextafter(number, way))) for way in (-np.inf, np.inf))


@cache
def possible_truths(seed: int) -> tuple[list, list]:
    """The central differences less and plus their own error."""
    with mpmath.workdps(naive.DIGITS):
        found = naive.central_difference_80_digits(*problem(seed))
        doubts = [DIFFERENCE_ERROR * (1 + abs(truth)) for truth in found]
        return [t - d for t, d in zip(found, doubts, strict=True)], [t + d for t, d in zip(found, doubts, strict=True)]


# --- a difference with another library


@pytest.mark.parametrize("first", range(0, N_NETWORKS, N_PER_CASE))
def test_no_entry_lies_outside_an_independent_80_digit_central_difference(first):
    for seed in range(first, min(first + N_PER_CASE, N_NETWORKS)):
        made = enclosed(seed)
        bounds = zip(made.lower.tolist(), made.upper.tolist(), *possible_truths(seed), strict=True)
        assert [i for i, (lower, upper, least, most) in enumerate(bounds) if most < lower or upper < least] == [], seed


@pytest.mark.parametrize("first", range(0, N_NETWORKS, N_PER_CASE))
def test_rounded_entries_are_the_float_nearest_to_the_80_digit_difference(first):
    for seed in range(first, min(first + N_PER_CASE, N_NETWORKS)):
        made = enclosed(seed)
        least, most = (np.array([float(end) for end in ends]) for ends in possible_truths(seed))
        assert (made.status == ROUNDED).all()
        assert (least <= made.gradient).all()
        assert (made.gradient <= most).all()


@pytest.mark.parametrize("seed", range(30))
def test_the_value_is_the_float_nearest_to_an_80_digit_loss(seed):
    loss = naive.loss_mpmath(*problem(seed))
    with mpmath.workdps(naive.DIGITS):
        rounding = mpmath.mpf(10) ** (5 - naive.DIGITS)
        assert float(loss - rounding) <= enclosed(seed).value <= float(loss + rounding)


@pytest.mark.parametrize("first", range(0, 40, 4))
def test_networks_of_all_layers_are_enclosed_around_the_80_digit_difference(first):
    """A dropped unit may well sit on a kink: there the central difference is the mean of both sides."""
    for seed in range(first, first + 4):
        rng = np.random.default_rng([2, seed])
        net = naive.random_mixed_network(rng, most_layers=4, most_units=3)
        arguments = naive.random_problem(net, rng, batch=3)
        made = enclose(net, *arguments)
        assert ENCLOSED not in made.status
        truth = naive.central_difference_80_digits(net, *arguments)
        with mpmath.workdps(naive.DIGITS):
            for i, (entry, lower, upper) in enumerate(
                zip(truth, made.lower.tolist(), made.upper.tolist(), strict=True)
            ):
                doubt = DIFFERENCE_ERROR * (1 + abs(entry))
                assert lower - doubt <= entry <= upper + doubt, (seed, net.name_of(i))


# --- the same sweep at much higher precision


@pytest.mark.parametrize("seed", range(60))
def test_every_entry_is_correctly_rounded_as_a_rerun_at_2000_bits_shows(seed):
    made = enclosed(seed)
    with ball_precision(MORE_BITS):
        for i, truth in enumerate(gradient_balls(*problem(seed))):
            assert made.status[i] == ROUNDED
            assert is_nearest(float(made.gradient[i]), truth), made.net.name_of(i)
            assert made.lower[i] <= truth <= made.upper[i]


@pytest.mark.parametrize("seed", range(30))
def test_gradient_plus_residual_is_the_truth_to_twice_the_digits(seed):
    made = enclosed(seed)
    with ball_precision(MORE_BITS):
        for truth, number, residual in zip(gradient_balls(*problem(seed)), made.gradient, made.residual, strict=True):
            assert abs(residual) <= np.spacing(abs(number)) / 2
            assert abs(truth - float(number) - float(residual)) <= float(np.spacing(abs(residual)))


@pytest.mark.parametrize("seed", range(30))
def test_bounds_are_at_most_one_ulp_to_either_side_of_a_rounded_entry(seed):
    made = enclosed(seed)
    assert (made.lower >= np.nextafter(made.gradient, -np.inf)).all()
    assert (made.upper <= np.nextafter(made.gradient, np.inf)).all()
    assert (made.lower <= made.gradient).all()
    assert (made.gradient <= made.upper).all()


def test_both_float_formats_are_taken_as_the_exact_rationals_they_are():
    net, theta, x, y = problem(3)
    narrow = [a.astype(np.float32) if a.dtype.kind == "f" else a for a in (theta, x, y)]
    wide = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in narrow]
    from_narrow, from_wide = enclose(net, *narrow), enclose(net, *wide)
    assert (from_narrow.gradient == from_wide.gradient).all()
    assert (from_narrow.residual == from_wide.residual).all()
    assert from_narrow.value == from_wide.value


# --- saturation


def confident(gap: float) -> tuple[dl.MLP, np.ndarray, np.ndarray, np.ndarray]:
    """Logits (gap, 0) for class 0: the derivatives are +-exp(-gap) / (1 + exp(-gap)), the loss log1p(exp(-gap))."""
    return dl.MLP(1, [dl.Dense(2)]), np.array([0.0, 0.0, gap, 0.0]), np.ones((1, 1)), np.array([0])


def exact_probability_of_error(gap: float) -> float:
    with mpmath.workdps(400):
        return float(mpmath.exp(-gap) / (1 + mpmath.exp(-gap)))


@pytest.mark.parametrize("gap", [50.0, 100.0, 300.0, 700.0])
def test_cancellation_raises_the_precision_until_every_entry_is_rounded(gap):
    made = enclose(*confident(gap))
    p = exact_probability_of_error(gap)
    assert made.bits > gap / np.log(2)
    assert (made.status == ROUNDED).all()
    assert made.gradient.tolist() == [-p, p, -p, p]


def test_a_derivative_below_every_float_is_rounded_to_zero():
    made = enclose(*confident(2000.0))
    assert (made.status == ROUNDED).all()
    assert not made.gradient.any()
    assert (made.lower[[0, 2]] < 0).all()
    assert (made.upper[[1, 3]] > 0).all()


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softplus", "relu"])
@pytest.mark.parametrize("loss", naive.LOSS_NAMES)
@pytest.mark.parametrize("seed", range(3))
def test_saturated_networks_are_still_rounded_or_say_that_they_are_only_enclosed(activation, loss, seed):
    rng = np.random.default_rng(seed)
    net = dl.MLP.dense([2, 3, 3, 2], hidden=activation, loss=loss)
    theta, x, y = naive.random_problem(net, rng, batch=2)
    theta *= 1e3
    made = enclose(net, theta, x, y)
    assert set(made.status) <= {ROUNDED, ENCLOSED}
    with ball_precision(4 * made.bits):
        for i, truth in enumerate(gradient_balls(net, theta, x, y)):
            assert not truth < float(made.lower[i])
            assert not truth > float(made.upper[i])
            if made.status[i] == ROUNDED:
                assert is_nearest(float(made.gradient[i]), truth)


def test_too_little_precision_leaves_an_interval_that_says_so_and_contains_the_truth():
    gap = 100.0
    made = enclose(*confident(gap), max_bits=FIRST_BITS)
    p = exact_probability_of_error(gap)
    truth = np.array([-p, p, -p, p])
    assert made.status.tolist() == [ENCLOSED, ROUNDED] * 2
    assert made.bits == FIRST_BITS
    assert (made.lower <= truth).all()
    assert (truth <= made.upper).all()
    assert (made.upper - made.lower < 2.0 ** (4 - FIRST_BITS)).all()


def test_precision_stops_at_the_limit_that_was_asked_for():
    assert enclose(*confident(300.0), max_bits=200).bits == 200


def test_less_than_the_first_precision_is_refused():
    with pytest.raises(ValueError, match="max_bits must be an integer from 128 to 2\\*\\*24, got 64"):
        dl.Certified(max_bits=64)


@pytest.mark.parametrize("gap", [100.0, 300.0])
def test_the_value_alone_is_the_value_that_comes_with_the_gradient(gap):
    net, *arguments = confident(gap)
    prepared = dl.Certified().prepare(net)
    assert prepared.value(*arguments) == prepared.value_and_gradient(*arguments)[0]


@pytest.mark.parametrize(("activation", "weight"), [("tanh", 1e300), ("sigmoid", -1e300)])
def test_a_weight_of_any_size_gives_an_enclosure(activation, weight):
    net = dl.MLP(1, [dl.Dense(1, activation), dl.Dense(1)], loss="squared_error")
    made = enclose(net, np.array([weight, 0.0, 1.0, 0.0]), np.ones((1, 1)), np.ones((1, 1)))
    assert not np.isnan(made.lower).any()
    assert (made.lower[:2] <= 0).all()
    assert (made.upper[:2] >= 0).all()


# --- kinks, worked by hand


def one_relu(weights: list[float], x: list[float]) -> tuple[dl.MLP, np.ndarray, np.ndarray, np.ndarray]:
    """Half of (2 relu(weights . x) + 1)**2: each one-sided slope is 2 times that of relu, times x, with out - y = 1."""
    net = dl.MLP(len(x), [dl.Dense(1, "relu"), dl.Dense(1)], loss="squared_error")
    return net, np.array([*weights, 0.0, 2.0, 0.0]), np.array([x]), np.array([[-1.0]])


def assert_kink_of_one_relu(made: Enclosure, x: list[float]) -> None:
    slopes = 2 * np.array([*x, 1.0])
    bent = slice(0, len(x) + 1)
    assert (made.status[bent] == KINK).all()
    assert made.lower[bent].tolist() == np.minimum(slopes, 0).tolist()
    assert made.upper[bent].tolist() == np.maximum(slopes, 0).tolist()
    assert not made.gradient[bent].any()


def test_relu_exactly_at_zero_is_a_kink_with_both_one_sided_derivatives():
    made = enclose(*one_relu([1.0, 2.0], [1.0, -0.5]))
    assert_kink_of_one_relu(made, [1.0, -0.5])


def test_entries_that_a_kink_does_not_reach_stay_rounded():
    made = enclose(*one_relu([1.0, 2.0], [1.0, -0.5]))
    assert made.status[3:].tolist() == [ROUNDED, ROUNDED]
    assert made.gradient[3:].tolist() == made.lower[3:].tolist() == made.upper[3:].tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("weights", "x"),
    [([0.1, -0.3], [0.3, 0.1]), ([3.3, 0.7, -3.3], [0.7, 2.6, 3.3]), ([1.0] * 4, [1e200, 1e-200, -1e200, -1e-200])],
    ids=["two products", "products that do not cancel", "400 orders of magnitude apart"],
)
def test_a_pre_activation_is_a_kink_exactly_if_its_products_cancel_exactly(weights, x):
    made = enclose(*one_relu(weights, x))
    with mpmath.workdps(900):
        exact = sum(mpmath.mpf(w) * mpmath.mpf(x_i) for w, x_i in zip(weights, x, strict=True))
    if exact == 0:
        assert_kink_of_one_relu(made, x)
    else:
        assert KINK not in made.status


def test_a_zero_that_no_precision_can_prove_leaves_an_interval_around_both_sides():
    """Relu of tanh(u) - tanh(u), u = 1."""
    layers = [dl.Dense(2, "tanh"), dl.Dense(1, "relu"), dl.Dense(1)]
    theta = np.array([1.0, 1.0, 0.0, 0.0, 1.0, -1.0, 0.0, 2.0, 0.0])
    net = dl.MLP(1, layers, loss="squared_error")
    made = enclose(net, theta, np.ones((1, 1)), np.array([[-1.0]]), max_bits=2 * FIRST_BITS)
    bias = 6
    assert made.status[bias] == ENCLOSED
    assert made.lower[bias] <= 0
    assert made.upper[bias] >= 2


KINKS_THAT_MEET = {
    "|a| as relu(a) + relu(-a)": (
        dl.MLP(1, [dl.Dense(1), dl.Dense(2, "relu"), dl.Dense(1)], loss="squared_error"),
        [1.0, 0.0, 1.0, -1.0, 0.0, 0.0, 1.0, 1.0, 0.0],
        ([[0.0]], [[-1.0]]),
        (1, -1.0, 1.0),
    ),
    "two samples on either side": (
        dl.MLP(1, [dl.Dense(1, "relu"), dl.Dense(1)], loss="squared_error"),
        [0.0, 0.0, 1.0, 0.0],
        ([[1.0], [-1.0]], [[-1.0], [-1.0]]),
        (0, -0.5, 0.5),
    ),
}


@pytest.mark.parametrize("case", KINKS_THAT_MEET)
def test_kinks_that_meet_in_one_entry_do_not_hide_each_other(case):
    net, theta, data, (entry, left, right) = KINKS_THAT_MEET[case]
    made = enclose(net, np.array(theta), *map(np.array, data))
    assert made.status[entry] != ROUNDED
    assert made.lower[entry] <= left
    assert made.upper[entry] >= right


def integer_problem(seed: int) -> tuple[dl.MLP, np.ndarray, np.ndarray, np.ndarray]:
    """Weights, samples and targets from -1, 0 and 1, so that many pre-activations of relu are exactly 0."""
    rng = np.random.default_rng(seed)
    widths = [2, *rng.integers(1, 4, rng.integers(1, 3)).tolist(), 1]
    net = dl.MLP.dense(widths, hidden="relu", loss="squared_error")
    shapes = net.n_params, (2, 2), (2, 1)
    return net, *(rng.integers(-1, 2, shape).astype(float) for shape in shapes)


def one_sided_derivatives(net: dl.MLP, theta: np.ndarray, x: np.ndarray, y: np.ndarray, sign: int) -> np.ndarray:
    """Exact: along an entry every piece is a parabola, of slope a multiple of 1/2 and bend below 2**20."""
    step, slopes = sign * 2.0**-40, []
    with mpmath.workdps(naive.DIGITS):
        here = naive.loss_mpmath(net, theta, x, y)
        for i in range(len(theta)):
            moved = theta.copy()
            moved[i] += step
            slopes.append(float((naive.loss_mpmath(net, moved, x, y) - here) / step))
    return np.round(2 * np.array(slopes)) / 2


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_kinks_of_random_integer_networks_are_bounded_by_their_one_sided_differences(first):
    n_kinks = 0
    for seed in range(first, first + 50):
        made = enclose(*integer_problem(seed))
        left, right = (one_sided_derivatives(*integer_problem(seed), sign) for sign in (-1, 1))
        assert (made.lower == np.minimum(left, right)).all(), seed
        assert (made.upper == np.maximum(left, right)).all(), seed
        assert (made.status[left != right] == KINK).all(), seed
        n_kinks += int((left != right).sum())
    assert n_kinks > 50


def test_too_many_kinks_to_go_through_one_by_one_are_bounded_together(monkeypatch):
    monkeypatch.setattr(kinks, "MAX_ONE_SIDED_WORK", 0)
    for seed in range(50):
        made = enclose(*integer_problem(seed))
        left, right = (one_sided_derivatives(*integer_problem(seed), sign) for sign in (-1, 1))
        assert (made.lower <= np.minimum(left, right)).all(), seed
        assert (made.upper >= np.maximum(left, right)).all(), seed
        assert (made.status[left != right] == KINK).all(), seed


# --- the forward pass


def directions(net: dl.MLP, seed: int, n: int) -> np.ndarray:
    return np.random.default_rng([seed, 1]).normal(size=(n, net.n_params))


@pytest.mark.parametrize("seed", range(60))
def test_the_forward_series_along_random_directions_overlaps_the_gradient(seed):
    for v in directions(problem(seed)[0], seed, n=2):
        assert both_passes_agree(*problem(seed), v)


def wrong_affine(fault: str) -> Any:
    def rule(sweep, instruction, number):
        weight, bias = instruction.parameters
        source, z_bar = instruction.inputs[0], sweep.cotangents[number]
        weight_bar = BALLS.matmul(z_bar.T, sweep.made[source])
        weight.of(sweep.gradient)[...] += weight_bar[::-1] if fault == "rows swapped" else weight_bar
        bias.of(sweep.gradient)[...] += 0 if fault == "bias forgotten" else z_bar.sum(axis=0)
        a_bar = BALLS.matmul(z_bar, weight.of(sweep.theta))
        if fault == "off by one part in 2**100":
            a_bar = a_bar * (1 + BALLS.array(np.array(2.0**-100)))
        if fault == "cotangent not added up":
            a_bar = 0 * a_bar
        sweep.add(source, a_bar)

    return rule


FAULTS = ("none", "rows swapped", "bias forgotten", "off by one part in 2**100", "cotangent not added up")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_adjoint_breaks_the_forward_check(fault, monkeypatch):
    net = dl.MLP.dense([2, 3, 2], hidden="tanh")
    theta, x, y = naive.random_problem(net, np.random.default_rng(0), batch=2)
    monkeypatch.setitem(ball_sweep.RULES, "affine", wrong_affine(fault))
    assert both_passes_agree(net, theta, x, y, directions(net, 0, n=1)[0]) == (fault == "none")


# --- manners


@pytest.fixture
def flint_context():
    """Settings that no other test has left behind."""
    from flint import ctx

    before, ctx.prec, ctx.cap = (ctx.prec, ctx.cap), 77, 5
    yield lambda: (ctx.prec, ctx.cap)
    ctx.prec, ctx.cap = before


def test_the_precision_of_flint_is_restored(flint_context):
    assert enclose(*confident(300.0)).bits > FIRST_BITS
    assert flint_context() == (77, 5)


def test_the_precision_of_flint_is_restored_after_an_error(flint_context, monkeypatch):
    def broken(*_):
        raise RuntimeError("planted")

    monkeypatch.setitem(ball_sweep.RULES, "affine", broken)
    with pytest.raises(RuntimeError, match="planted"):
        enclose(*confident(1.0))
    assert flint_context() == (77, 5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_have_no_truth(bad):
    net, theta, x, y = confident(bad)
    with pytest.raises(ValueError, match=r"theta must be finite, got -?(nan|inf) at theta\[2\]"):
        enclose(net, theta, x, y)


def test_the_same_question_gets_the_same_answer_and_leaves_its_arguments_alone():
    net, *arguments = problem(5)
    before = [a.copy() for a in arguments]
    first, second = enclose(net, *arguments), enclose(net, *arguments)
    assert all((a == b).all() for a, b in zip(arguments, before, strict=True))
    for name in ("gradient", "residual", "lower", "upper", "status"):
        assert (getattr(first, name) == getattr(second, name)).all()


# --- the truth and the judge


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_the_reference_never_refutes_itself(first):
    """Integer relu networks meet kinks all the time; the convention of left slopes counts as right at each."""
    for seed in range(first, first + 50):
        rng = np.random.default_rng([5, seed])
        widths = [int(w) for w in rng.integers(1, 4, 3)]
        net = dl.MLP.dense(widths, "relu", "squared_error")
        theta = rng.integers(-1, 2, net.n_params).astype(float)
        x, y = (rng.integers(-1, 2, (3, n)).astype(float) for n in (widths[0], widths[-1]))
        truth = dl.reference_gradient(net, theta, x, y)
        for gradient in (truth.gradient, dl.value_and_gradient(net, theta, x, y)[1]):
            assert dl.discrepancy(gradient, truth).error_relative <= 8 * EPS  # thirds, summed, are all that rounds


def test_the_value_is_certified_where_the_residual_vanishes():
    """Arb's power of a ball around 0 is not a number; a product is."""
    net = dl.MLP(1, [dl.Dense(1, "sigmoid")], loss="squared_error")
    made = enclose(net, np.array([0.0, 1e5]), np.zeros((1, 1)), np.ones((1, 1)))
    assert made.value == 0.0
    assert made.value_lower <= 0.0 <= made.value_upper < 1e-300


def test_kinks_of_samples_in_a_real_sized_network_are_bounded_by_left_and_right():
    """Samples of zeros and zero biases: three of 64 samples have every hidden unit on its kink."""
    net = dl.MLP.dense([64, 32, 32, 10], "relu")
    theta, rng = net.init(0), np.random.default_rng(0)
    x = rng.standard_normal((64, 64))
    x[:3] = 0.0
    made = enclose(net, theta, x, rng.integers(0, 10, 64))
    assert (made.status == "kink").any()
    assert (made.lower <= made.upper).all()


def test_a_deep_network_needs_more_bits_not_an_excuse():
    """At 128 bits the balls of a hundred layers are too wide for Arb's quotient of series."""
    net = dl.MLP.dense([4, *[10] * 100, 10], "tanh")
    made = enclose(net, net.init(0), np.full((1, 4), 0.3), np.array([1]))
    assert made.bits > 128
    assert (made.status == "rounded").all()
