"""Reported errors beside the true ones: what is understated is counted, whoever reports it."""

import dataclasses
import math
import sys
from fractions import Fraction

import numpy as np
import pytest

from difflab import MLP, Certified, FiniteDifference, Symbolic, reference_gradient
from difflab.backends import Unsupported
from difflab.backends.certified import ENCLOSED, KINK
from difflab.discrepancy import least_and_greatest_error
from difflab.peers import PEERS, Answer, Numdifftools, Peer, ScipyDifferentiate, entrywise, ready
from difflab.study.measures import error_estimates
from difflab.study.measures.error_estimates import compared
from difflab.study.measures.subject import Subject


NET = MLP.dense([2, 3, 2], hidden="tanh")
THETA = NET.init(seed=0)
X, Y = np.array([[0.5, -1.0], [0.25, 2.0]]), np.array([1, 0])
TRUTH = reference_gradient(NET, THETA, X, Y)
OFF = 1e-6 * (1 + np.arange(NET.n_params))
GRADIENT = TRUTH.gradient + OFF


def errors_rounded_up():
    """The true errors of ``GRADIENT``, each the next number above, in exact arithmetic."""
    exact = [
        abs(Fraction(got) - Fraction(nearest) - Fraction(rest))
        for got, nearest, rest in zip(GRADIENT, TRUTH.gradient, TRUTH.residual, strict=True)
    ]
    return np.array([math.nextafter(float(error), math.inf) for error in exact])


def installed(peer):
    """A parameter that is skipped where the library is missing."""
    reason = peer.unsupported(NET)
    return pytest.param(peer, id=peer.name, marks=pytest.mark.skipif(reason is not None, reason=str(reason)))


LIBRARIES = [peer for peer in PEERS.values() if isinstance(peer, Peer)]
EVERY_PEER = [installed(peer) for peer in LIBRARIES]


# --- the measure


def test_what_is_ten_times_too_small_is_understated_everywhere():
    found = compared(GRADIENT, errors_rounded_up() / 10, TRUTH)
    assert found["understated_entries"] == found["judged_entries"] == NET.n_params
    assert 0.1 <= found["reported_to_true_min"] <= found["reported_to_true_max"] < 0.1 * (1 + 1e-9)


def test_what_is_exactly_right_is_no_understatement():
    found = compared(GRADIENT, errors_rounded_up(), TRUTH)
    assert (found["judged_entries"], found["understated_entries"]) == (NET.n_params, 0)
    assert 1 <= found["reported_to_true_min"] <= found["reported_to_true_max"] < 1 + 1e-9


def test_one_entry_that_is_understated_is_found_and_named():
    reported = 8 * errors_rounded_up()
    reported[5] /= 64
    found = compared(GRADIENT, reported, TRUTH)
    assert (found["understated_entries"], found["most_understated_entry"]) == (1, NET.name_of(5))
    assert found["most_understated_reported"] / found["most_understated_true"] == found["reported_to_true_min"]
    assert found["reported_to_true_min"] == pytest.approx(1 / 8, rel=1e-9)
    assert found["reported_to_true_median"] == pytest.approx(8, rel=1e-9)


@pytest.mark.parametrize("nothing", [math.nan, math.inf])
def test_what_says_nothing_is_silent_and_neither_right_nor_understated(nothing):
    reported = errors_rounded_up()
    reported[:4] = nothing
    found = compared(GRADIENT, reported, TRUTH)
    assert (found["silent_entries"], found["judged_entries"]) == (4, NET.n_params - 4)
    assert found["understated_entries"] == 0


def test_an_entry_that_is_no_number_is_silent_whatever_is_reported_of_it():
    broken = GRADIENT.copy()
    broken[0] = math.nan
    assert compared(broken, np.ones(NET.n_params), TRUTH)["silent_entries"] == 1


def test_an_infinite_entry_of_finite_error_is_understated_without_bound():
    broken = GRADIENT.copy()
    broken[0] = math.inf
    found = compared(broken, np.ones(NET.n_params), TRUTH)
    assert (found["understated_entries"], found["reported_to_true_min"]) == (1, 0.0)
    assert found["most_understated_entry"] == NET.name_of(0)


def test_an_error_of_zero_that_is_not_zero_is_understated_without_bound():
    found = compared(GRADIENT, np.zeros(NET.n_params), TRUTH)
    assert found["understated_entries"] == NET.n_params
    assert found["reported_to_true_min"] == found["reported_to_true_max"] == 0.0


def exact_truth():
    """A truth of numbers that float64 has."""
    nothing = np.zeros(NET.n_params)
    return dataclasses.replace(TRUTH, residual=nothing, lower=TRUTH.gradient, upper=TRUTH.gradient)


@pytest.mark.parametrize(("reported", "ratio"), [(0.0, 1.0), (1e-9, math.inf)])
def test_a_derivative_without_error_has_no_error_that_is_understated(reported, ratio):
    found = compared(TRUTH.gradient, np.full(NET.n_params, reported), exact_truth())
    assert (found["judged_entries"], found["understated_entries"]) == (NET.n_params, 0)
    assert found["reported_to_true_min"] == found["reported_to_true_max"] == ratio
    assert found["true_error_relative_median"] == 0.0


def test_where_nothing_is_judged_there_are_no_figures():
    found = compared(GRADIENT, np.full(NET.n_params, math.nan), TRUTH)
    assert found["silent_entries"] == NET.n_params
    assert not any("reported" in name for name in found)


@pytest.mark.parametrize(
    ("reported", "counts"),
    [(1.9, (1, 1, 0)), (2.1, (0, 0, 1)), (3.9, (0, 0, 1)), (4.1, (1, 0, 0))],
    ids=["below all", "low inside", "high inside", "above all"],
)
def test_a_truth_that_is_an_interval_judges_only_what_lies_on_one_side(reported, counts):
    """Entry 0 is off by 2 to 4: ``judged``, ``understated`` and ``undecided`` of it alone."""
    status, lower, upper = TRUTH.status.copy(), TRUTH.lower.copy(), TRUTH.upper.copy()
    status[0], lower[0], upper[0] = ENCLOSED, GRADIENT[0] + 2, GRADIENT[0] + 4
    all_reported = np.full(NET.n_params, math.nan)
    all_reported[0] = reported
    truth = dataclasses.replace(TRUTH, status=status, lower=lower, upper=upper)
    found = compared(GRADIENT, all_reported, truth)
    assert (found["judged_entries"], found["understated_entries"], found["undecided_entries"]) == counts


def test_derivatives_at_a_kink_are_not_judged():
    status = TRUTH.status.copy()
    status[:3] = KINK
    found = compared(GRADIENT, np.zeros(NET.n_params), dataclasses.replace(TRUTH, status=status))
    assert (found["judged_entries"], found["undecided_entries"]) == (NET.n_params - 3, 3)


def test_errors_are_known_to_a_part_of_an_ulp():
    """The nearest float64 is off by the residual."""
    low, high = least_and_greatest_error(TRUTH.gradient, TRUTH)
    assert np.array_equal(low, high)
    assert np.array_equal(low, np.abs(TRUTH.residual))
    assert low.any()


def test_what_a_library_flags_is_counted_apart():
    reported, converged = errors_rounded_up(), np.ones(NET.n_params, bool)
    reported[:4] /= 2
    converged[2:8] = False
    found = compared(GRADIENT, reported, TRUTH, converged)
    assert (found["flagged_entries"], found["converged_entries"]) == (6, NET.n_params - 6)
    assert (found["understated_entries"], found["converged_understated_entries"]) == (4, 2)
    assert "flagged_entries" not in compared(GRADIENT, reported, TRUTH)


def measured(backend):
    prepared = backend.prepare(NET)
    value, gradient = prepared.value_and_gradient(THETA, X, Y, allow_nonfinite=True)
    return error_estimates.measure(Subject(prepared, TRUTH, THETA, X, Y, value, gradient, 0))


@pytest.mark.parametrize("scheme", ["forward", "central", "complex"])
def test_our_own_estimates_hold_on_a_smooth_network(scheme):
    found = measured(FiniteDifference(scheme))
    assert (found["judged_entries"], found["understated_entries"]) == (NET.n_params, 0)


def test_the_truth_is_not_held_against_itself():
    assert set(measured(Certified())) == {"certified_bits"}


# --- planted peers


@dataclasses.dataclass(frozen=True, repr=False)
class Planted(Peer):
    """A central difference of one step, which reports the same error of every entry."""

    error: float = 0.0
    raises_below: float = -math.inf
    name = "planted"
    module = "numpy"
    package = "numpy"
    flags = True

    def differentiate(self, f, at):
        if at < self.raises_below:
            raise ZeroDivisionError("planted")
        step = 2.0**-10
        return Answer((f(at + step) - f(at - step)) / (2 * step), self.error, at > 0)


def test_a_peer_that_reports_no_error_of_a_difference_is_found_out():
    found = measured(Planted())
    assert found["understated_entries"] == found["judged_entries"] == NET.n_params
    assert found["flagged_entries"] == (THETA <= 0).sum()
    assert found["library"].startswith("numpy ")


def test_a_peer_that_reports_a_bound_is_believed():
    assert measured(Planted(error=1.0))["understated_entries"] == 0


def test_an_entry_at_which_a_library_raises_is_silent_and_the_others_go_on():
    found = measured(Planted(error=1.0, raises_below=0.0))
    failed = int((THETA < 0).sum())
    assert (found["silent_entries"], found["judged_entries"]) == (failed, NET.n_params - failed)
    first = NET.name_of(int((THETA < 0).argmax()))
    assert found["raised"] == f"{failed} entries, first {first}: ZeroDivisionError: planted"


def test_lack_of_memory_is_no_matter_of_one_entry(monkeypatch):
    def exhausted(self, f, at):
        raise MemoryError

    monkeypatch.setattr(Planted, "differentiate", exhausted)
    with pytest.raises(MemoryError):
        measured(Planted())


# --- the peers there are


@pytest.mark.parametrize("peer", EVERY_PEER)
def test_a_peer_keeps_the_contract(peer):
    """As right as half of the digits: what they report is no bound to hold them to."""
    prepared = peer.prepare(NET)
    before = THETA.copy(), X.copy(), Y.copy()
    value, gradient = prepared.value_and_gradient(THETA, X, Y)
    assert all(map(np.array_equal, before, (THETA, X, Y)))
    assert value == FiniteDifference().prepare(NET).value(THETA, X, Y) == prepared.value(THETA, X, Y)
    error = np.linalg.norm(gradient - TRUTH.gradient) / np.linalg.norm(TRUTH.gradient)
    assert error <= math.sqrt(np.finfo(float).eps)
    assert np.array_equal(prepared.value_and_gradient(THETA, X, Y)[1], gradient)
    assert prepared.facts["library"].startswith(peer.package)
    assert not prepared.facts["raised"]


@pytest.mark.parametrize("peer", EVERY_PEER)
def test_the_error_is_that_of_the_gradient_that_was_given_and_costs_nothing_more(peer, monkeypatch):
    counted = []
    primal = entrywise.primal
    monkeypatch.setattr(entrywise, "primal", lambda *arguments: counted.append(1) or primal(*arguments))
    prepared = peer.prepare(NET)
    prepared.value_and_gradient(THETA, X, Y)
    assert len(counted) == prepared.facts["primal_calls"]
    reported = prepared.predicted_error(THETA, X, Y)
    assert len(counted) == prepared.facts["primal_calls"]
    assert reported.shape == (NET.n_params,)
    elsewhere = prepared.predicted_error(2 * THETA, X, Y)
    assert len(counted) > prepared.facts["primal_calls"]
    assert not np.array_equal(elsewhere, reported)
    assert np.array_equal(prepared.predicted_error(THETA, X, Y), reported)


def test_scipy_says_what_has_not_converged():
    """Beside targets of a million the loss is all noise."""
    net = MLP.dense([2, 3, 2], loss="squared_error")
    prepared = ScipyDifferentiate().prepare(net)
    for shift, is_noisy in ((0.0, False), (1e6, True)):
        prepared.value_and_gradient(THETA, X, np.eye(2)[Y] + shift)
        assert (not prepared.facts["converged"].all()) == is_noisy


@pytest.mark.parametrize("peer", EVERY_PEER[1:])
def test_what_a_library_gives_of_one_entry_is_what_it_gives_of_all(peer):
    """Of a whole gradient, which is how a person would ask for it; SciPy then sums in another order."""
    x, y, prepared = X, np.eye(2)[Y], peer.prepare(NET)
    loss = FiniteDifference().prepare(NET)
    _, gradient = prepared.value_and_gradient(THETA, X, Y)
    whole, errors = _whole_gradient(peer, lambda theta: loss.value(theta, x, y))
    assert np.array_equal(gradient, whole)
    assert np.array_equal(prepared.predicted_error(THETA, X, Y), np.ravel(errors))


def _whole_gradient(peer, loss):
    if isinstance(peer, Numdifftools):
        import numdifftools

        found = numdifftools.Gradient(loss, full_output=True)(THETA)
        return found.estimate, found.error_estimate
    import jacobi

    return jacobi.jacobi(loss, THETA)


@pytest.mark.parametrize("peer", LIBRARIES, ids=repr)
def test_a_peer_that_is_missing_says_how_to_install_it(peer, monkeypatch):
    monkeypatch.setitem(sys.modules, peer.module, None)
    monkeypatch.setattr(ready.importlib.util, "find_spec", lambda name: None)
    assert peer.unsupported(NET) == (
        f"{peer.module} is not installed; install it with: pip install 'difflab[estimates]'"
    )
    with pytest.raises(Unsupported, match="pip install"):
        peer.prepare(NET)


def test_labels_are_short_and_options_are_checked():
    assert [repr(peer) for peer in LIBRARIES] == ["ScipyDifferentiate()", "Numdifftools()", "Jacobi()"]
    assert repr(ScipyDifferentiate(order=4)) == "ScipyDifferentiate(order=4)"
    for kind in (ScipyDifferentiate, Numdifftools):
        with pytest.raises(ValueError, match="order must be even"):
            kind(order=3)


def test_predictions_of_other_methods_are_judged_as_well():
    found = measured(Symbolic())
    assert (found["judged_entries"], found["understated_entries"]) == (NET.n_params, 0)
