"""Discrepancies of gradients whose distance from the truth is known by construction."""

from __future__ import annotations

import dataclasses

import ml_dtypes
import numpy as np
import pytest

import difflab as dl
from difflab.backends.certified import ENCLOSED, KINK, ROUNDED, Enclosure
from difflab.discrepancy import percentiles


NET = dl.MLP.dense([2, 1], loss="squared_error")
TRUTH = np.array([0.75, -3.0, 1e-3])
HALF_AN_ULP = 0.5


def enclosure(truth: np.ndarray = TRUTH, residual: np.ndarray | None = None, **changed: np.ndarray) -> Enclosure:
    """A made-up truth of three entries: weight[0,0], weight[0,1] and bias[0]."""
    truth = np.asarray(truth, float)
    fields = {
        "gradient": truth,
        "residual": np.zeros(3) if residual is None else residual,
        "radius": np.zeros(3),
        "lower": truth,
        "upper": truth,
        "status": np.full(3, ROUNDED),
    }
    return Enclosure(net=NET, value=0.0, value_lower=0.0, value_upper=0.0, bits=128, **{**fields, **changed})


def certified(seed: int) -> dl.Reference:
    net, rng = dl.MLP.dense([3, 4, 2]), np.random.default_rng(seed)
    return dl.reference_gradient(net, rng.normal(size=net.n_params), rng.normal(size=(2, 3)), np.array([0, 1]))


# --- distances known by construction


def test_the_truth_itself_has_no_error():
    found = dl.discrepancy(TRUTH, enclosure())
    assert (found.error_relative, found.error_ulp_median, found.error_ulp_max) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("seed", range(5))
def test_a_rounded_truth_is_off_by_its_residual_and_never_more_than_half_an_ulp(seed):
    truth = certified(seed)
    found = dl.discrepancy(truth.gradient, truth)
    assert found.error_ulp_max == (np.abs(truth.residual) / np.spacing(np.abs(truth.gradient))).max()
    assert found.error_ulp_max <= HALF_AN_ULP


@pytest.mark.parametrize("n_ulp", [1, 2, 7, -3])
def test_a_shift_by_ulps_counts_these_ulps(n_ulp):
    shifted = TRUTH + n_ulp * np.spacing(np.abs(TRUTH))
    assert dl.discrepancy(shifted, enclosure()).error_ulp_max == abs(n_ulp)
    assert dl.discrepancy(shifted, enclosure()).error_ulp_median == abs(n_ulp)


@pytest.mark.parametrize("fraction", [-0.5, -0.125, 0.25, 0.5])
def test_the_residual_counts_as_part_of_the_truth(fraction):
    ulp = np.spacing(np.abs(TRUTH))
    found = dl.discrepancy(TRUTH + ulp, enclosure(residual=fraction * ulp))
    assert found.error_ulp_max == 1 - fraction


def test_an_ulp_is_that_of_the_gradients_own_dtype():
    narrow = TRUTH.astype(np.float32)
    shifted = np.nextafter(narrow, np.float32(np.inf))
    assert dl.discrepancy(shifted, enclosure(narrow)).error_ulp_max == 1
    assert dl.discrepancy(shifted.astype(np.float64), enclosure(narrow)).error_ulp_max == 2.0**29


def test_the_relative_error_is_that_of_the_norms():
    found = dl.discrepancy(np.array([3.0, 8.0, 12.0]), enclosure(np.array([3.0, 4.0, 12.0])))
    assert found.error_relative == 4.0 / 13.0


def test_the_median_is_over_all_entries():
    ulps = np.array([0.0, 3.0, 1000.0])
    found = dl.discrepancy(TRUTH + ulps * np.spacing(np.abs(TRUTH)), enclosure())
    assert (found.error_ulp_median, found.error_ulp_max) == (3.0, 1000.0)


# --- numbers that are not finite, and zero


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_infinitely_far_off(bad):
    gradient = TRUTH.copy()
    gradient[1] = bad
    found = dl.discrepancy(gradient, enclosure())
    assert found.error_relative == found.error_ulp_max == np.inf
    assert found.error_ulp_median == 0
    assert found.worst[0].name == "dense1.weight[0,1]"


def test_a_zero_truth_is_met_exactly_or_missed_by_subnormal_ulps():
    zero = enclosure(np.zeros(3))
    assert dl.discrepancy(np.zeros(3), zero).error_relative == 0
    assert dl.discrepancy(-np.zeros(3), zero).error_ulp_max == 0
    missed = dl.discrepancy(np.array([0.0, 1e-30, 0.0]), zero)
    assert missed.error_relative == np.inf
    assert missed.error_ulp_max == 1e-30 / 5e-324


@pytest.mark.parametrize("missed_by", [1e-10, 1.0])
def test_a_zero_truth_missed_by_far_is_infinitely_many_ulps_off(missed_by):
    assert dl.discrepancy(np.array([0.0, missed_by, 0.0]), enclosure(np.zeros(3))).error_ulp_max == np.inf


# --- kinks


def at_a_kink() -> Enclosure:
    """The second entry lies anywhere from -3 to 5; its left slope is -3."""
    bounds = {"lower": np.array([0.75, -3.0, 1e-3]), "upper": np.array([0.75, 5.0, 1e-3])}
    return enclosure(status=np.array([ROUNDED, KINK, ROUNDED]), **bounds)


@pytest.mark.parametrize("slope", [-3.0, -1.0, 0.0, 5.0])
def test_any_slope_between_the_one_sided_derivatives_is_right_at_a_kink(slope):
    assert dl.discrepancy(np.array([0.75, slope, 1e-3]), at_a_kink()).error_ulp_max == 0


@pytest.mark.parametrize(("slope", "outside"), [(-4.0, 1.0), (7.0, 2.0)])
def test_outside_of_a_kink_the_distance_is_that_from_the_nearer_side(slope, outside):
    found = dl.discrepancy(np.array([0.75, slope, 1e-3]), at_a_kink())
    assert found.error_ulp_max == outside / np.spacing(3.0)
    assert found.error_relative == outside / np.linalg.norm(TRUTH)


def test_nan_is_wrong_even_at_a_kink():
    assert dl.discrepancy(np.array([0.75, np.nan, 1e-3]), at_a_kink()).error_ulp_max == np.inf


def test_an_interval_excuses_no_entry_that_is_rounded():
    wide = enclosure(lower=TRUTH - 1, upper=TRUTH + 1)
    assert dl.discrepancy(TRUTH + np.array([0.0, 0.5, 0.0]), wide).error_ulp_max == 0.5 / np.spacing(3.0)


# --- what it says


def test_the_worst_entries_come_first_and_by_name():
    found = dl.discrepancy(TRUTH + np.array([2.0, 0.0, 9.0]) * np.spacing(np.abs(TRUTH)), enclosure())
    assert [entry.name for entry in found.worst] == ["dense1.bias[0]", "dense1.weight[0,0]", "dense1.weight[0,1]"]
    assert [entry.error_ulp for entry in found.worst] == [9, 2, 0]


def test_only_the_five_worst_entries_are_listed():
    truth = certified(0)
    rng = np.random.default_rng(1)
    ulps = rng.permutation(len(truth.gradient))
    found = dl.discrepancy(truth.gradient + ulps * np.spacing(np.abs(truth.gradient)), truth)
    expected = [truth.net.name_of(int(i)) for i in np.argsort(-ulps)[:5]]
    assert [entry.name for entry in found.worst] == expected


def test_equal_errors_are_listed_in_the_order_of_theta():
    found = dl.discrepancy(TRUTH, enclosure())
    assert [entry.name for entry in found.worst] == [NET.name_of(i) for i in range(3)]


def test_the_sentence_names_the_worst_entry_with_what_it_got_and_the_truth():
    found = dl.discrepancy(np.array([0.75, -3.5, 1e-3]), enclosure())
    assert str(found) == (
        "relative error 1.62e-01; ulp: median 0, max 1.13e+15; "
        "worst: dense1.weight[0,1] = -3.5, truth -3.0, 1.13e+15 ulp"
    )


# --- what it refuses


@pytest.mark.parametrize(
    "judge",
    [TRUTH, TRUTH.tolist(), (0.0, TRUTH), None, dl.Backprop(), dl.Backprop().prepare(NET)],
    ids=lambda judge: type(judge).__name__,
)
def test_a_gradient_is_never_judged_by_anything_but_a_certified_truth(judge):
    kind = type(judge).__name__
    message = f"reference must be certified, got {kind}; make one with difflab.reference_gradient"
    with pytest.raises(TypeError, match=message):
        dl.discrepancy(TRUTH, judge)


@pytest.mark.parametrize("shape", [(2,), (4,), (1, 3), (3, 1), ()])
def test_a_gradient_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError) as raised:
        dl.discrepancy(np.zeros(shape), enclosure())
    assert str(raised.value) == f"gradient must have shape (3,), got {shape}"


@pytest.mark.parametrize("dtype", ["int64", "bool", "complex128", "object", "U8"])
def test_a_gradient_of_no_real_floating_point_dtype_is_refused(dtype):
    with pytest.raises(TypeError, match="gradient must be floating-point, got "):
        dl.discrepancy(np.zeros(3).astype(dtype), enclosure())


def test_a_masked_gradient_is_refused():
    with pytest.raises(TypeError, match="mask"):
        dl.discrepancy(np.ma.array(TRUTH, mask=[True, False, False]), enclosure())


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_sequence_of_floats_will_do(kind):
    assert dl.discrepancy(kind(TRUTH.tolist()), enclosure()).error_relative == 0


def test_nothing_is_changed():
    gradient, truth = TRUTH + 1, certified(0)
    before = gradient.copy(), {field.name: np.copy(getattr(truth, field.name)) for field in dataclasses.fields(truth)}
    dl.discrepancy(gradient, enclosure())
    dl.discrepancy(truth.gradient, truth)
    assert (gradient == before[0]).all()
    assert all((getattr(truth, name) == values).all() for name, values in before[1].items() if name != "net")


# --- norms that under- or overflow


@pytest.mark.parametrize("size", [1e-300, 1e-173, 1.0, 1e200, 1e308])
def test_a_gradient_of_zeros_is_wholly_wrong_at_any_size_of_the_truth(size):
    """Planted: squares of such numbers under- or overflow, and an error would seem to be none."""
    found = dl.discrepancy(np.zeros(3), enclosure(np.array([size, -size, size / 2])))
    assert found.error_relative == 1.0


def test_a_truth_beyond_float32_is_infinitely_far_from_every_float32():
    for got in (np.inf, 0.0):
        found = dl.discrepancy(np.full(3, got, np.float32), enclosure(np.array([1e90, 1e90, -1e90])))
        assert found.error_ulp_max == found.error_ulp_median == np.inf


# --- formats, bounds and percentiles


def test_an_ulp_may_be_that_of_another_arithmetic():
    """As of a sum in bfloat16 that is handed on in float32."""
    shifted = (TRUTH + 2.0**-8).astype(np.float32)
    found = dl.discrepancy(shifted, enclosure(shifted.astype(float) - 2.0**-8), arithmetic="bfloat16")
    assert found.arithmetic == "bfloat16"
    assert found.error_ulp[0] == 2.0**-8 / 2.0**-8
    assert found.error_ulp[1] == 2.0**-8 / 2.0**-6


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16])
def test_narrow_gradients_are_judged_in_their_own_ulp(dtype):
    narrow = TRUTH.astype(dtype)
    found = dl.discrepancy(np.nextafter(narrow, np.array(np.inf, dtype)), enclosure(narrow.astype(float)))
    assert (found.error_ulp == 1).all()


def test_an_unknown_arithmetic_is_refused():
    with pytest.raises(ValueError, match="unknown arithmetic 'float8'; known: bfloat16, float16"):
        dl.discrepancy(TRUTH, enclosure(), arithmetic="float8")


def test_percentiles_are_errors_of_entries():
    ulps = np.arange(1.0, 201.0)
    assert percentiles(np.random.default_rng(0).permutation(ulps)) == {50: 100, 90: 180, 99: 198, 100: 200}
    assert percentiles(np.array([0.0, np.inf, 2.0])) == {50: 2, 90: np.inf, 99: np.inf, 100: np.inf}


def test_errors_are_measured_by_their_bounds():
    error = np.array([1.0, 2.0, 0.0])
    truth = np.array([8.0, -4.0, 1.0])
    found = dl.discrepancy(truth + error, enclosure(truth), bound=np.array([2.0, 1.0, 0.0]))
    assert found.error_per_bound.tolist() == [0.5, 2.0, 0.0]
    assert not found.is_within_bound
    assert "1 of 3 entries outside of their bounds" in str(found)
    assert found.worst[0].error_per_bound == 2.0


def test_an_infinite_bound_excludes_nothing_and_a_bound_of_zero_every_error():
    found = dl.discrepancy(TRUTH + 1, enclosure(), bound=np.array([np.inf, 0.0, np.inf]))
    assert found.error_per_bound.tolist() == [0.0, np.inf, 0.0]
    assert dl.discrepancy(TRUTH, enclosure(), bound=np.zeros(3)).is_within_bound


@pytest.mark.parametrize("bad", [-1.0, np.nan])
def test_a_bound_that_is_none_is_refused(bad):
    with pytest.raises(ValueError, match=r"bound must not be negative or NaN, got -?(1.0|nan) at bound\[1\]"):
        dl.discrepancy(TRUTH, enclosure(), bound=np.array([1.0, bad, 1.0]))


def test_without_bounds_nothing_is_said_of_them():
    found = dl.discrepancy(TRUTH, enclosure())
    assert found.error_per_bound is found.is_within_bound is None


@pytest.mark.parametrize("arithmetic", ["float64", "float32"])
def test_the_derived_tolerance_holds_backprop_and_no_fault_of_a_millionth(arithmetic):
    net, rng = dl.MLP.dense([3, 4, 2]), np.random.default_rng(0)
    theta, x = (a.astype(np.float32) for a in (rng.normal(size=net.n_params), rng.normal(size=(2, 3))))
    truth = dl.reference_gradient(net, theta, x, np.array([0, 1]))
    arguments = (theta.astype(arithmetic), x.astype(arithmetic), np.array([0, 1]))
    _, gradient = dl.Backprop(arithmetic).prepare(net).value_and_gradient(*arguments)
    bound = dl.rounding_bound(truth, arithmetic)
    assert dl.discrepancy(gradient, truth, bound=bound).is_within_bound
    gradient[3] *= 1 + (1e-6 if arithmetic == "float64" else 1e-2)
    found = dl.discrepancy(gradient, truth, bound=bound)
    assert not found.is_within_bound
    assert found.worst[0].name == net.name_of(3)


def test_the_worst_entry_shows_the_interval_where_the_truth_is_one():
    wide = enclosure(lower=TRUTH - 1, upper=TRUTH + 1, status=np.full(3, ENCLOSED))
    assert "truth in [-0.25, 1.75]" in str(dl.discrepancy(TRUTH + np.array([1.5, 0, 0]), wide))


def test_an_entry_that_is_only_enclosed_is_judged_by_its_bounds():
    wide = enclosure(lower=TRUTH - 1, upper=TRUTH + 1, status=np.full(3, ENCLOSED))
    found = dl.discrepancy(TRUTH + np.array([0.5, 1.0, 3.0]), wide, bound=np.full(3, 2.5))
    assert found.error.tolist() == [0.0, 0.0, 2.0]
    assert found.n_undecided == 1
    assert found.is_within_bound is None
    assert "1 entries undecided" in str(found)
    assert dl.discrepancy(TRUTH, wide, bound=np.ones(3)).is_within_bound
    assert dl.discrepancy(TRUTH + 3, wide, bound=np.ones(3)).is_within_bound is False


def test_a_relu_on_a_kink_that_no_precision_tells_is_undecided():
    """relu(tanh(1) - tanh(1)): its ball never leaves 0."""
    net = dl.MLP(1, [dl.Dense(2, "tanh"), dl.Dense(1, "relu"), dl.Dense(1)], "squared_error")
    theta = np.array([1.0, 1.0, 0.0, 0.0, 1.0, -1.0, 0.0, 1.0, 0.0])
    truth = dl.reference_gradient(net, theta, np.ones((1, 1)), np.ones((1, 1)))
    _, gradient = dl.value_and_gradient(net, theta, np.ones((1, 1)), np.ones((1, 1)))
    found = dl.discrepancy(gradient, truth)
    assert (truth.status == ENCLOSED).any()
    assert found.n_undecided
    assert found.error_ulp_max <= 1


def test_a_bound_is_for_arguments_of_its_own_format():
    """Rounding them would be one more error, which nothing in the bound stands for."""
    net = dl.MLP.dense([1, 1], loss="squared_error")
    truth = dl.reference_gradient(net, np.array([1 + 2.0**-40, 0.0]), np.ones((1, 1)), np.ones((1, 1)))
    assert dl.rounding_bound(truth, "float64").shape == (2,)
    sentence = r"theta must hold numbers of float32, got 1.0000000000009095 at theta\[0\]; take the reference of"
    with pytest.raises(ValueError, match=sentence):
        dl.rounding_bound(truth, "float32")


def test_classes_are_no_numbers_of_a_format():
    """bfloat16 does not hold 257."""
    net = dl.MLP.dense([1, 260])
    truth = dl.reference_gradient(net, np.zeros(net.n_params), np.ones((1, 1)), np.array([257]))
    assert dl.rounding_bound(truth, "bfloat16").shape == (net.n_params,)


def test_a_bound_is_made_of_a_reference_only():
    with pytest.raises(TypeError, match="reference must have its arguments, got Enclosure"):
        dl.rounding_bound(enclosure(), "float32")
