"""Kinks, worked by hand in numbers so short that all arithmetic is exact: both sides, and the convention."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import pytest

import difflab as dl
from difflab.backends.certified import KINK, ROUNDED, Enclosure


D = dl.Dense
Sides = tuple[float, float, float]
"""The lower and the upper one-sided derivative, and what convention takes."""


class Case(NamedTuple):
    """A problem with the derivatives of all its entries."""

    net: dl.MLP
    theta: list[float]
    x: list[list[float]]
    y: list[list[float]]
    kinks: dict[str, Sides]
    smooth: dict[str, float]

    @property
    def arguments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return np.array(self.theta), np.array(self.x), np.array(self.y)


def regression(*layers: object, **terms: object) -> dl.MLP:
    return dl.MLP(1, layers, "squared_error", **terms)


def one_unit(activation: str, x: float, left: float, right: float, **more: float) -> Case:
    """Half of (2 f(x + b) + 1)**2 at x + b = 0."""
    net, rest = regression(D(1, activation), D(1)), list(more.values())
    sides = min(2 * left, 2 * right), max(2 * left, 2 * right)
    by_weight = sorted((x * sides[0], x * sides[1]))
    kinks = {
        "dense1.weight[0,0]": (*by_weight, 2 * left * x),
        "dense1.bias[0]": (*sides, 2 * left),
    }
    smooth = {"dense2.weight[0,0]": 0.0, "dense2.bias[0]": 1.0} | {f"dense1.{name}[0]": 0.0 for name in more}
    return Case(net, [1.0, -x, *rest, 2.0, 0.0], [[x]], [[-1.0]], kinks, smooth)


def two_samples(reduction: str, parts: int) -> Case:
    """Relu of 0 and of 2; both residuals are 1."""
    kinks = {
        "dense1.weight[0,0]": (8 / parts, 12 / parts, 8 / parts),
        "dense1.bias[0]": (2 / parts, 4 / parts, 2 / parts),
    }
    net = regression(D(1, "relu"), D(1), reduction=reduction)
    smooth = {"dense2.weight[0,0]": 2 / parts, "dense2.bias[0]": 2 / parts}
    return Case(net, [1.0, -2.0, 2.0, 0.0], [[2.0], [4.0]], [[-1.0], [3.0]], kinks, smooth)


CASES = {
    "relu": one_unit("relu", 2.0, 0.0, 1.0),
    "relu of a negative input": one_unit("relu", -2.0, 0.0, 1.0),
    "leaky_relu": one_unit("leaky_relu(0.25)", 2.0, 0.25, 1.0),
    "leaky_relu steeper to the left": one_unit("leaky_relu(4)", 2.0, 4.0, 1.0),
    "leaky_relu that folds": one_unit("leaky_relu(-1)", 0.5, -1.0, 1.0),
    "prelu": one_unit("prelu", 2.0, 0.25, 1.0, slope=0.25),
    "elu": one_unit("elu(0.5)", 2.0, 0.5, 1.0),
    "max(2 a, a + 1) at a = 1": Case(
        regression(D(1), dl.Maxout(1), D(1)),
        [1.0, 0.0, 2.0, 1.0, 0.0, 1.0, 1.0, 0.0],
        [[1.0]],
        [[1.0]],
        {
            "dense1.weight[0,0]": (1.0, 2.0, 2.0),
            "dense1.bias[0]": (1.0, 2.0, 2.0),
            "maxout1.weight[0,0]": (0.0, 1.0, 1.0),
            "maxout1.weight[1,0]": (0.0, 1.0, 0.0),
            "maxout1.bias[0]": (0.0, 1.0, 1.0),
            "maxout1.bias[1]": (0.0, 1.0, 0.0),
        },
        {"dense2.weight[0,0]": 2.0, "dense2.bias[0]": 1.0},
    ),
    "max(0, 2, 2 x) at x = 1": Case(
        regression(dl.Maxout(1, 3)),
        [0.0, 0.0, 2.0, 0.0, 2.0, 0.0],
        [[1.0]],
        [[1.0]],
        {
            "maxout1.weight[1,0]": (0.0, 1.0, 1.0),
            "maxout1.weight[2,0]": (0.0, 1.0, 0.0),
            "maxout1.bias[1]": (0.0, 1.0, 1.0),
            "maxout1.bias[2]": (0.0, 1.0, 0.0),
        },
        {"maxout1.weight[0,0]": 0.0, "maxout1.bias[0]": 0.0},
    ),
    "|w| at 0": Case(
        regression(D(1), l1=0.5),
        [0.0, 0.0],
        [[1.0]],
        [[-1.0]],
        {"dense1.weight[0,0]": (0.5, 1.5, 1.0)},
        {"dense1.bias[0]": 1.0},
    ),
    "|w| at 0 beside a w that is not": Case(
        regression(D(1), D(1), l1=0.5, l2=0.25),
        [0.0, 1.0, -2.0, 0.0],
        [[1.0]],
        [[-3.0]],
        {"dense1.weight[0,0]": (-2.5, -1.5, -2.0)},
        {"dense1.bias[0]": -2.0, "dense2.weight[0,0]": 1.0 - 0.5 - 0.5, "dense2.bias[0]": 1.0},
    ),
    "relu(w) + |w| / 2 at 0": Case(
        regression(D(1, "relu", bias=False), l1=0.5),
        [0.0],
        [[1.0]],
        [[-1.0]],
        {"dense1.weight[0,0]": (-0.5, 1.5, 0.0)},
        {},
    ),
    "relu(a) + relu(-a)": Case(
        regression(D(1), D(2, "relu", bias=False), D(1, bias=False)),
        [1.0, 0.0, 1.0, -1.0, 1.0, 1.0],
        [[0.0]],
        [[-1.0]],
        {"dense1.bias[0]": (-1.0, 1.0, 0.0)},
        {
            "dense1.weight[0,0]": 0.0,
            **{f"dense2.weight[{i},0]": 0.0 for i in (0, 1)},
            **{f"dense3.weight[0,{i}]": 0.0 for i in (0, 1)},
        },
    ),
    "relu below relu, of one weight": Case(
        regression(D(1, "relu", share="w"), D(1, "relu", share="w")),
        [1.0, 0.0],
        [[0.0]],
        [[-1.0]],
        {"w.bias[0]": (0.0, 2.0, 0.0)},
        {"w.weight[0,0]": 0.0},
    ),
    "in a skip connection": Case(
        regression(D(1), dl.Residual([D(1, "relu")])),
        [1.0, 0.0, 1.0, -1.0],
        [[1.0]],
        [[0.0]],
        {
            "dense1.weight[0,0]": (1.0, 2.0, 1.0),
            "dense1.bias[0]": (1.0, 2.0, 1.0),
            "dense2.weight[0,0]": (0.0, 1.0, 0.0),
            "dense2.bias[0]": (0.0, 1.0, 0.0),
        },
        {},
    ),
    "after a sum that is 0": Case(
        regression(D(1), dl.Residual([D(1)]), dl.Elementwise("relu")),
        [1.0, 0.0, -1.0, 0.0],
        [[1.0]],
        [[-1.0]],
        {"dense2.weight[0,0]": (0.0, 1.0, 0.0), "dense2.bias[0]": (0.0, 1.0, 0.0)},
        {"dense1.weight[0,0]": 0.0, "dense1.bias[0]": 0.0},
    ),
    "in one of two samples, mean": two_samples("mean", 2),
    "in one of two samples, sum": two_samples("sum", 1),
    "after a batch norm": Case(
        regression(D(1), dl.BatchNorm(eps=0.5), dl.Elementwise("relu"), reduction="sum"),
        [1.0, 0.0, 1.0, 0.0],
        [[-1.0], [0.0], [0.0], [1.0]],
        [[0.0], [-1.0], [-1.0], [0.0]],
        {"batchnorm1.beta[0]": (1.0, 3.0, 1.0)},
        {"batchnorm1.gamma[0]": 1.0, "dense1.weight[0,0]": 0.5, "dense1.bias[0]": 0.0},
    ),
}
every_case = pytest.mark.parametrize("case", CASES)


@cache
def enclosed(case: str) -> Enclosure:
    return dl.Certified().prepare(CASES[case].net).enclose(*CASES[case].arguments)


def named(net: dl.MLP, entries: np.ndarray) -> dict[str, object]:
    return {net.name_of(i): entry for i, entry in enumerate(entries.tolist())}


def by_convention(case: str) -> dict[str, float]:
    _, _, _, _, kinks, smooth = CASES[case]
    return {name: convention for name, (_, _, convention) in kinks.items()} | smooth


@every_case
def test_every_entry_is_worked_out(case):
    net, *_, kinks, smooth = CASES[case]
    assert sorted([*kinks, *smooth]) == sorted(net.name_of(i) for i in range(net.n_params))


@every_case
def test_a_kink_has_both_one_sided_derivatives(case):
    made, net = enclosed(case), CASES[case].net
    status, lower, upper = (named(net, entries) for entries in (made.status, made.lower, made.upper))
    for name, (low, high, _) in CASES[case].kinks.items():
        assert (status[name], lower[name], upper[name]) == (KINK, low, high), name


@every_case
def test_entries_with_one_derivative_are_enclosed_in_a_point(case):
    made, net = enclosed(case), CASES[case].net
    lower, upper = (named(net, entries) for entries in (made.lower, made.upper))
    for name, slope in CASES[case].smooth.items():
        assert lower[name] == slope == upper[name], name


HULL_ALONE = {"after a sum that is 0", "relu below relu, of one weight", "after a batch norm"}
"""Where all slopes together make an entry look as if it had two, until each side is worked out."""


@pytest.mark.parametrize("case", [case for case in CASES if case not in HULL_ALONE])
def test_entries_that_no_kink_reaches_stay_rounded(case):
    status = named(CASES[case].net, enclosed(case).status)
    assert {status[name] for name in CASES[case].smooth} <= {ROUNDED}


BY_RULE = (dl.Backprop(), dl.Symbolic(), dl.FiniteDifference("complex"), dl.Certified())


@every_case
@pytest.mark.parametrize("backend", BY_RULE, ids=repr)
def test_rules_follow_the_convention(case, backend):
    """The left slope of an activation, the first of the largest pieces, and 0 for the magnitude of a weight."""
    _, gradient = dl.value_and_gradient(CASES[case].net, *CASES[case].arguments, backend)
    assert named(CASES[case].net, gradient) == by_convention(case)


@every_case
def test_float32_follows_the_convention_too(case):
    narrow = (argument.astype(np.float32) for argument in CASES[case].arguments)
    _, gradient = dl.value_and_gradient(CASES[case].net, *narrow, dl.Backprop("float32"))
    assert named(CASES[case].net, gradient) == by_convention(case)


@every_case
@pytest.mark.parametrize("backend", BY_RULE, ids=repr)
def test_the_judge_finds_nothing_wrong_with_the_convention(case, backend):
    _, gradient = dl.value_and_gradient(CASES[case].net, *CASES[case].arguments, backend)
    assert dl.discrepancy(gradient, enclosed(case)).error_relative == 0


@every_case
@pytest.mark.parametrize("scheme", ["forward", "central"])
def test_differences_lie_between_the_one_sided_derivatives(case, scheme):
    """To their rounding, and to what each side bends over a step: its slope squared, where the residual is 1."""
    prepared = dl.FiniteDifference(scheme).prepare(CASES[case].net)
    _, gradient = prepared.value_and_gradient(*CASES[case].arguments)
    made, room = enclosed(case), prepared.predicted_error(*CASES[case].arguments)
    room = room + 4 * prepared.step * np.abs([made.lower, made.upper]).max() ** 2
    assert (made.lower - room <= gradient).all()
    assert (gradient <= made.upper + room).all()


@pytest.mark.parametrize("backend", BY_RULE, ids=repr)
def test_elu_has_no_kink_where_both_slopes_are_one(backend):
    case = one_unit("elu", 2.0, 1.0, 1.0)
    truth = dl.reference_gradient(case.net, *case.arguments)
    prepared = backend.prepare(case.net)
    _, gradient = prepared.value_and_gradient(*case.arguments)
    assert truth.lower.tolist() == truth.upper.tolist() == [4.0, 2.0, 0.0, 1.0]
    assert (np.abs(gradient - truth.gradient) <= prepared.predicted_error(*case.arguments)).all()


def test_a_kink_right_behind_the_samples_is_no_obstacle():
    net = dl.MLP(1, [dl.Elementwise("relu"), dl.Dense(1, "relu")], loss="squared_error")
    truth = dl.reference_gradient(net, np.zeros(2), np.zeros((1, 1)), np.ones((1, 1)))
    assert truth.status.tolist() == ["rounded", "kink"]
    assert (truth.lower[1], truth.upper[1]) == (-1.0, 0.0)


def test_the_square_of_a_complex_step_tips_no_later_kink():
    """The first unit's output has a real part of second order in the step, which a kink at 0 must not see."""
    net = dl.MLP(1, [dl.Dense(1, "elu"), dl.Dense(1, "relu", bias=False)], loss="squared_error")
    arguments = np.array([1.0, 0.0, -1.0]), np.zeros((1, 1)), np.ones((1, 1))
    for backend in (dl.FiniteDifference("complex"), dl.Backprop(), dl.Symbolic(), dl.Certified()):
        assert dl.value_and_gradient(net, *arguments, backend)[1].tolist() == [0.0, 0.0, 0.0], backend
