"""Agreement that misleads is found: two methods with the same wrong entry, whoever they are."""

import dataclasses

import numpy as np
import pytest

from difflab import MLP, Backprop, BatchNorm, Certified, Dense, FiniteDifference, reference_gradient
from difflab.backends.certified import ENCLOSED, KINK
from difflab.peers import Handwritten
from difflab.study.measures import agreement
from difflab.study.measures.agreement import compared
from difflab.study.measures.subject import Subject


NET = MLP.dense([2, 3, 2], hidden="tanh")
THETA = NET.init(seed=0)
X, Y = np.array([[0.5, -1.0], [0.25, 2.0]]), np.array([1, 0])
TRUTH = reference_gradient(NET, THETA, X, Y)
RIGHT = TRUTH.gradient
PLACE = 5


def moved(ulps, place=PLACE):
    """The truth with one entry that is off by so many ulp."""
    gradient = RIGHT.copy()
    gradient[place] += ulps * np.spacing(abs(gradient[place]))
    return gradient


def test_a_companion_with_the_same_wrong_entry_is_noticed():
    """Planted: both have an entry a percent off, 10^13 ulp, and agree to 2 ulp."""
    others = {"right": RIGHT, "accomplice": moved(1e13 + 2)}
    found = compared(moved(1e13), others, TRUTH)
    assert found["falsely_agreeing_entries"] == 1
    assert (found["agrees_with"], found["agreement_entry"]) == ("accomplice", NET.name_of(PLACE))
    assert found["agreement_ulp"] == 2
    assert found["agreement_error_ulp"] == pytest.approx(1e13, rel=1e-9)
    assert found["agreement_truth"] == RIGHT[PLACE]
    assert found["agreement_got"] == moved(1e13)[PLACE]


@pytest.mark.parametrize(
    "other",
    [RIGHT, moved(-1e13), moved(1e13, place=6), moved(1e13 + 100), moved(999)],
    ids=["right", "wrong the other way", "wrong elsewhere", "not that near", "not that far"],
)
def test_what_is_no_agreement_on_a_wrong_number_is_not_counted(other):
    assert compared(moved(1e13), {"other": other}, TRUTH)["falsely_agreeing_entries"] == 0


def test_it_is_the_smaller_error_of_the_two_that_counts():
    found = compared(moved(2e4), {"other": moved(2e4 + 3), "farther": moved(1e13)}, TRUTH)
    assert (found["agrees_with"], found["agreement_ulp"]) == ("other", 3)
    assert found["agreement_error_ulp"] == pytest.approx(2e4, abs=1)


def test_entries_that_have_no_error_in_ulp_are_left_out():
    """Kinks, intervals, and a derivative of 0."""
    wrong = moved(1e13)
    for changed in (
        {"status": np.where(np.arange(len(RIGHT)) == PLACE, status, "rounded")} for status in (KINK, ENCLOSED)
    ):
        truth = dataclasses.replace(TRUTH, **changed)
        assert compared(wrong, {"other": wrong}, truth)["falsely_agreeing_entries"] == 0
    zeros = RIGHT.copy()
    zeros[PLACE] = 0.0
    truth = dataclasses.replace(TRUTH, gradient=zeros)
    assert compared(wrong, {"other": wrong}, truth)["falsely_agreeing_entries"] == 0


def test_numbers_that_are_none_agree_with_nothing():
    broken = RIGHT.copy()
    broken[PLACE] = np.nan
    found = compared(broken, {"other": broken}, TRUTH)
    assert found["falsely_agreeing_entries"] == 0
    assert found["agreement_entry"] != NET.name_of(PLACE)


def test_without_companions_nothing_is_said():
    assert compared(RIGHT, {}, TRUTH) == {}


def measured(backend, file):
    prepared = backend.prepare(NET)
    dtype = prepared.dtypes[0]
    theta, x = THETA.astype(dtype), X.astype(dtype)
    value, gradient = prepared.value_and_gradient(theta, x, Y)
    return agreement.measure(Subject(prepared, TRUTH, theta, x, Y, value, gradient, 0), file)


@pytest.fixture(scope="module")
def panel(tmp_path_factory):
    file = agreement.path(tmp_path_factory.mktemp("references") / "task.npz")
    agreement.prepare(TRUTH, 0, file)
    return file


@pytest.mark.parametrize("backend", agreement.PANEL, ids=repr)
def test_every_member_is_held_against_the_others_and_never_against_itself(backend, panel):
    found = measured(backend, panel)
    assert found["agrees_with"] in {repr(member) for member in agreement.PANEL} - {repr(backend)}
    assert found["falsely_agreeing_entries"] == 0


def test_what_is_certified_or_of_another_dtype_is_not_compared(panel):
    assert measured(Certified(), panel) == measured(Backprop("float32"), panel) == {}


def test_a_method_outside_of_the_panel_is_held_against_all_of_it(panel):
    assert measured(FiniteDifference("forward"), panel)["agrees_with"]


def test_members_that_cannot_differentiate_a_network_are_not_asked(tmp_path):
    net = MLP.dense([2, 3, 2], hidden="gelu")
    truth = reference_gradient(net, THETA, X, Y)
    agreement.prepare(truth, 0, tmp_path / "panel.npz")
    with np.load(tmp_path / "panel.npz") as made:
        assert set(made) == {repr(member) for member in agreement.PANEL} - {"Handwritten('float64')"}


def test_two_textbook_forms_agree_on_a_wrong_slope():
    """A saturated tanh: SymPy and a person both write 1 - tanh**2, of which 18 leaves the last three bits."""
    net = MLP(1, [Dense(1, "tanh"), Dense(2)])
    truth = reference_gradient(net, np.array([18.0, 0.0, 1.0, -1.0, 0.0, 0.0]), np.ones((1, 1)), np.array([0]))
    others = {repr(b): agreement._gradient(b, truth) for b in agreement.PANEL if b != Handwritten()}
    found = compared(agreement._gradient(Handwritten(), truth), others, truth)
    assert (found["agrees_with"], found["agreement_entry"]) == ("Symbolic()", "dense1.weight[0,0]")
    assert found["falsely_agreeing_entries"] == 2
    assert found["agreement_ulp"] <= agreement.AGREE_ULP
    assert found["agreement_error_ulp"] > 1e13


def test_members_that_refuse_a_batch_are_left_out(tmp_path):
    """SymPy says so only when it sees how many samples a batch norm couples."""
    net = MLP(2, [Dense(2, bias=False), BatchNorm(), Dense(2)])
    rng = np.random.default_rng(0)
    truth = reference_gradient(net, net.init(rng), rng.normal(size=(40, 2)), rng.integers(2, size=40))
    agreement.prepare(truth, 0, tmp_path / "panel.npz")
    with np.load(tmp_path / "panel.npz") as made:
        assert "Symbolic()" not in made
        assert "FiniteDifference('complex')" in made
