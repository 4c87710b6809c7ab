"""Extremes: every back-end is right to within what it predicts, or says that it is not; nothing is NaN in silence."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import naive
import numpy as np
import pytest

import difflab as dl
from difflab.backends.certified import ENCLOSED, ROUNDED, Enclosure
from difflab.backends.symbolic import EVALUATIONS
from difflab.derivation.sharing import SHARING, Way
from difflab.discrepancy import least_and_greatest_error, relative_in_norm
from difflab.primitives.activations import ACTIVATIONS


D = dl.Dense


class Problem(NamedTuple):
    net: dl.MLP
    theta: np.ndarray
    x: np.ndarray
    y: np.ndarray


def problem(net: dl.MLP, theta: object, x: object, y: object) -> Problem:
    return Problem(net, *(np.array(numbers, float) for numbers in (theta, x, y)))


def one_unit(activation: str, weight: float, x: float) -> Problem:
    """Half of (f(weight x) - 1/2)**2; learnable parameters where they start."""
    net = dl.MLP(1, [D(1, activation), D(1)], "squared_error")
    theta = net.init(0)
    theta[0], theta[-2] = weight, 1
    return problem(net, theta, [[x]], [[0.5]])


def logits(loss: str, z: list[float], y: list[float]) -> Problem:
    net = dl.MLP(1, [D(len(z))], loss)
    return problem(net, [0.5] * len(z) + z, [[1.0]], [y])


def probability(z: float, y: float) -> Problem:
    return problem(dl.MLP(1, [D(1, "sigmoid")], "binary_cross_entropy"), [1.0, 0.0], [[z]], [[y]])


def lead(by: float, y: list[float]) -> Problem:
    net = dl.MLP(1, [D(2), dl.Softmax()], "kl_divergence")
    return problem(net, [by, 0.0, 0.0, 0.0], [[1.0]], [y])


def product(*factors: float) -> Problem:
    n = len(factors)
    net = dl.MLP(n, [D(n), dl.Multiply(1)], "squared_error")
    return problem(net, np.append(np.eye(n), np.zeros(n)), [factors], [[1.0]])


def normalised(x: object, eps: float = 1e-5) -> Problem:
    net = dl.MLP(2, [D(2), dl.BatchNorm(eps=eps), D(2, "tanh")], "squared_error")
    theta, _, _ = naive.random_problem(net, np.random.default_rng(1), 1)
    return problem(net, theta, x, np.eye(2)[np.arange(len(x)) % 2])


def dead() -> Problem:
    """Two layers of relu whose every unit is at -1 or below."""
    net = dl.MLP(2, [D(2, "relu"), D(2, "relu"), D(2)])
    theta = np.ones(net.n_params)
    for name in ("dense1.bias", "dense2.bias"):
        net.view(theta)[name][:] = -5
    net.view(theta)["dense3.bias"][1] = 3
    return problem(net, theta, [[1.0, 1.0], [0.5, 0.25]], np.eye(2))


LABELS = {"right": [1.0, 0.0, 0.0], "wrong": [0.0, 1.0, 0.0], "soft": [0.25, 0.5, 0.25]}
SAMPLES = np.array([[0.3, 0.7], [-0.1, 0.2], [0.5, 0.5]])
CASES: dict[str, Problem] = {
    **{f"{f} at {z:g}": one_unit(f, 1.0, z) for f in ACTIVATIONS for z in (800.0, -800.0)},
    **{f"{f} with a weight of {w:g}": one_unit(f, w, 1.0) for f in ACTIVATIONS for w in (1e150, -1e300)},
    **{f"{f}(1e200)": one_unit(f"{f}(1e200)", 1.0, -3.0) for f in ("leaky_relu", "prelu", "elu", "silu", "swish")},
    **{
        f"{loss} with {label} logits of 1000": logits(loss, [1000.0, -1000.0, 999.0], y)
        for loss in naive.LOSS_NAMES
        for label, y in LABELS.items()
    },
    **{f"sigmoid of {z:g} for {y:g}": probability(z, y) for z in (40, 800, -40, -800) for y in (0, 0.5, 1)},
    **{f"a lead of {by} for {y}": lead(by, y) for by in (40.0, 900.0) for y in ([1, 0], [0, 1], [0.5, 0.5])},
    **{f"product of {factors}": product(*factors) for factors in ((1e200, 1e200), (1e-200, 1e-200), (1e160, 1.0))},
    **{f"product of {factors}": product(*factors) for factors in ((1e200, 1e200, 0.0), (1e200, 1e200, 1e-200))},
    "dead relu": dead(),
    "equal samples": normalised([[0.3, 0.7]] * 4),
    "equal samples and next to no eps": normalised([[0.3, 0.7]] * 3, eps=1e-300),
    "nearly equal samples": normalised([[0.3, 0.7], [0.3, 0.7 + 1e-13]]),
    "one sample": normalised([[0.3, 0.7]]),
    **{f"samples of {size:g}": normalised(size * SAMPLES) for size in (1e-200, 1e100, 1e200, 1e300)},
    "a given variance of 0": problem(
        dl.MLP(1, [D(1), dl.BatchNorm([0.0], [0.0], eps=1e-300), D(1, "tanh")], "squared_error"),
        *([1e10, 0.0, 1.0, 0.0, 1.0, 0.0], [[1.0]], [[0.0]]),
    ),
    "a penalty that overflows": problem(dl.MLP(1, [D(1)], "squared_error", l2=1.0), [1e200, 0.0], [[0.0]], [[0.0]]),
    "a penalty that does not": problem(dl.MLP(1, [D(1)], "squared_error", l1=1.0), [1e300, 0.0], [[0.0]], [[0.0]]),
    "a skip connection that overflows": problem(
        dl.MLP(1, [D(1), dl.Residual([D(1)])], "squared_error"), [1e200, 0.0, 1e200, 0.0], [[1.0]], [[0.0]]
    ),
}
BACKENDS = (
    *(dl.Backprop(), dl.Backprop("float32"), dl.Symbolic(), dl.Certified()),
    *(dl.FiniteDifference(scheme) for scheme in ("forward", "central", "complex")),
)


def in_dtype_of(backend: dl.Backend, given: Problem) -> Problem:
    with np.errstate(over="ignore", under="ignore"):
        return Problem(given.net, *(a.astype(getattr(backend, "dtype", "float64")) for a in given[1:]))


@cache
def truth(case: str, dtype: str) -> Enclosure:
    net, *arguments = CASES[case]
    return dl.reference_gradient(net, *(argument.astype(dtype) for argument in arguments))


def is_right_or_says_so(backend: dl.Backend, case: str) -> bool:
    """Whether each entry is exact or within the error predicted for it, or the answer is NotFinite."""
    net, *arguments = in_dtype_of(backend, CASES[case])
    prepared = backend.prepare(net)
    try:
        value, gradient = prepared.value_and_gradient(*arguments)
    except dl.NotFinite:
        return True
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    errors, _ = least_and_greatest_error(gradient, truth(case, gradient.dtype.name))
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(((errors == 0) | (errors <= prepared.predicted_error(*arguments))).all())


def fits(backend: dl.Backend, case: str) -> bool:
    """Whether the arguments are numbers of the back-end's dtype."""
    return all(np.isfinite(argument).all() for argument in in_dtype_of(backend, CASES[case])[1:])


EVERY = [(backend, case) for backend in BACKENDS for case in CASES if fits(backend, case)]


@pytest.mark.parametrize(("backend", "case"), EVERY, ids=lambda item: str(item))
def test_a_gradient_is_right_or_its_back_end_says_that_it_is_not(backend, case):
    assert is_right_or_says_so(backend, case)


@pytest.mark.parametrize("case", CASES)
def test_the_truth_is_rounded_or_enclosed(case):
    made = truth(case, "float64")
    assert set(made.status) <= {ROUNDED, ENCLOSED}
    assert (made.lower <= made.upper).all()


STABLE = [
    *(f"{f} at {z:g}" for f in ACTIVATIONS for z in (800.0, -800.0)),
    *(f"{loss} with {label} logits of 1000" for loss in naive.LOSS_NAMES for label in LABELS),
    *(
        "dead relu",
        "equal samples",
        "nearly equal samples",
        "one sample",
        "samples of 1e+100",
        "a penalty that does not",
    ),
]


@pytest.mark.parametrize("case", STABLE)
def test_back_propagation_overflows_nowhere_that_the_gradient_does_not(case):
    net, *arguments = CASES[case]
    prepared = dl.Backprop().prepare(net)
    _, gradient = prepared.value_and_gradient(*arguments)
    assert np.isfinite(gradient).all()
    assert naive.predicted(prepared, truth(case, "float64"), *arguments) < 1


@pytest.mark.parametrize("backend", BACKENDS, ids=repr)
def test_dead_units_have_gradients_of_exactly_zero(backend):
    net, *arguments = in_dtype_of(backend, CASES["dead relu"])
    _, gradient = backend.prepare(net).value_and_gradient(*arguments)
    views = net.view(gradient)
    assert views.pop("dense3.bias").all()
    assert not any(view.any() for view in views.values())


@pytest.mark.parametrize("backend", [b for b in BACKENDS if b.name != "finite_difference"], ids=repr)
def test_of_one_sample_a_batch_norm_leaves_nothing_but_beta(backend):
    """Its normal value is 0 whatever comes before."""
    net, *arguments = in_dtype_of(backend, CASES["one sample"])
    _, gradient = backend.prepare(net).value_and_gradient(*arguments)
    views = net.view(gradient)
    assert views["batchnorm1.beta"].all()
    assert not any(views[name].any() for name in ("dense1.weight", "dense1.bias", "batchnorm1.gamma"))


@pytest.mark.parametrize("backend", BACKENDS, ids=repr)
@pytest.mark.parametrize("case", ["product of (1e+200, 1e+200)", "a penalty that overflows"])
def test_a_loss_beyond_all_floats_is_never_returned(backend, case):
    if not fits(backend, case):
        pytest.skip("beyond float32")
    net, *arguments = in_dtype_of(backend, CASES[case])
    with pytest.raises(dl.NotFinite, match="got a loss of inf"):
        backend.prepare(net).value_and_gradient(*arguments)


def test_on_request_what_overflows_is_let_through():
    net, *arguments = CASES["product of (1e+200, 1e+200)"]
    value, _ = dl.Backprop().prepare(net).value_and_gradient(*arguments, allow_nonfinite=True)
    assert value == np.inf


def test_a_symbolic_batch_too_large_to_write_out_is_refused():
    net = dl.MLP(1, [D(1), dl.BatchNorm()], "squared_error")
    prepared = dl.Symbolic(max_ops=1000).prepare(net)
    theta, x = net.init(0), np.zeros((20, 1))
    prepared.value(theta, x[:1], x[:1])
    with pytest.raises(dl.Refused, match="in the gradient, whose 20 samples are coupled, limit 1.0e[+]03"):
        prepared.value(theta, x, x)


@pytest.mark.parametrize("backend", [backend for backend in BACKENDS if backend != dl.Certified()], ids=repr)
def test_predictions_of_extremes_warn_of_nothing(backend):
    for case in ("samples of 1e+200", "identity with a weight of -1e+300", "a given variance of 0"):
        if fits(backend, case):
            net, *arguments = in_dtype_of(backend, CASES[case])
            backend.prepare(net).predicted_error(*arguments)


# --- biases before a batch norm

NORM = dl.BatchNorm()
VANISHING: dict[str, tuple[list, list[str]]] = {
    "right before": ([D(2), NORM], ["dense1.bias"]),
    "two layers before": ([D(2), D(2), NORM], ["dense1.bias", "dense2.bias"]),
    "beta before another": ([NORM, NORM], ["batchnorm1.beta"]),
    "beta of given statistics": ([dl.BatchNorm([0, 1], [1, 2]), NORM], ["batchnorm1.beta"]),
    "before a skip connection": ([D(2), dl.Residual([D(2)]), NORM], ["dense1.bias", "dense2.bias"]),
    "with a weight in the skip": ([dl.Residual([D(3)], project=True), NORM], ["dense1.bias"]),
    "inside of a skip connection": ([dl.Residual([D(2), NORM])], ["dense1.bias"]),
    "shared by two that vanish": ([D(2, share="w"), NORM, D(2, share="w"), NORM], ["w.bias"]),
    "read by two batch norms": ([D(2), dl.Residual([NORM], project=False), NORM], ["dense1.bias", "batchnorm1.beta"]),
}
NOT_VANISHING: dict[str, tuple[list, list[str]]] = {
    "an activation between": ([D(2, "tanh"), NORM], ["dense1.bias"]),
    "a maximum between": ([dl.Maxout(2), NORM], ["maxout1.bias"]),
    "a product between": ([D(4), dl.Multiply(2), NORM], ["dense1.bias"]),
    "a softmax between": ([D(3), dl.Softmax(), NORM], ["dense1.bias"]),
    "a dropout between": ([D(2), dl.Dropout(0.5, seed=3), NORM], ["dense1.bias"]),
    "given statistics alone": ([D(2), dl.BatchNorm([0, 1], [1, 2])], ["dense1.bias"]),
    "read by a skip connection too": ([D(2), dl.Residual([NORM])], ["dense1.bias"]),
    "shared with a layer elsewhere": ([D(2, share="w"), NORM, D(2, share="w")], ["w.bias"]),
    "an activation in the branch": ([D(2), dl.Residual([D(2, "tanh")]), NORM], ["dense1.bias"]),
    "beta of the last": ([NORM], ["batchnorm1.beta"]),
}


def before_a_norm(layers: list) -> Problem:
    """Six samples: of two alone, each normal value would be 1 or -1, and its derivative tiny."""
    net = dl.MLP(2, [*layers, D(2)])
    theta, x, _ = naive.random_problem(net, np.random.default_rng(4), 6)
    return problem(net, theta, x, np.eye(2)[[0, 1, 1, 0, 1, 0]])


def derivatives(layers: list, names: list[str]) -> tuple[Enclosure, np.ndarray, np.ndarray]:
    """The certified truth, 80-digit differences, and the indices of the named parameters."""
    net, *arguments = before_a_norm(layers)
    made = dl.Certified().prepare(net).enclose(*arguments)
    differences = np.array(naive.central_difference_80_digits(net, *arguments))
    places = [i for i in range(net.n_params) if net.name_of(i).split("[")[0] in names]
    return made, differences, np.array(places)


DIFFERENCE_ERROR = 1e-40


@pytest.mark.parametrize("case", VANISHING)
def test_a_shift_before_a_batch_norm_has_a_derivative_of_exactly_zero(case):
    made, differences, places = derivatives(*VANISHING[case])
    assert (np.abs(differences[places]) < DIFFERENCE_ERROR).all()
    for entries in (made.gradient, made.residual, made.lower, made.upper):
        assert not entries[places].any()
    assert set(made.status) == {ROUNDED}


@pytest.mark.parametrize("case", NOT_VANISHING)
def test_what_is_no_mere_shift_has_another_derivative(case):
    made, differences, places = derivatives(*NOT_VANISHING[case])
    assert (np.abs(differences[places]) > 1e-6).any()
    assert (np.abs(differences - made.gradient - made.residual) < DIFFERENCE_ERROR).all()
    assert set(made.status) == {ROUNDED}


def test_a_zero_that_only_a_proof_could_show_is_enclosed():
    """Where each relu is active it passes shifts on too; balls cannot know that, and say so."""
    net, theta, x, y = before_a_norm([D(2, "relu"), NORM])
    net.view(theta)["dense1.bias"][:] = 10
    made = dl.Certified(max_bits=256).prepare(net).enclose(theta, x, y)
    status, lower, upper = (net.view(entries)["dense1.bias"] for entries in (made.status, made.lower, made.upper))
    assert (status == ENCLOSED).all()
    assert (lower < 0).all()
    assert (upper > 0).all()


def normalised(weight):
    """Samples whose spread before the batch norm is of the order of ``weight``."""
    net = dl.MLP(1, [dl.Dense(1), dl.BatchNorm(), dl.Dense(1)], loss="squared_error")
    x, y = np.array([[1.0], [-1.0], [0.5]]), np.array([[1.0], [2.0], [3.0]])
    return net, np.array([weight, 0.0, 1.0, 0.0, 1.0, 0.0]), x, y


@pytest.mark.parametrize("weight", [5e-324, 1e-160, 1e-150, 1e-20, 1e20, 1e150])
@pytest.mark.parametrize("backend", [dl.Backprop(), dl.FiniteDifference("complex")], ids=repr)
def test_no_spread_is_too_small_or_large_for_a_batch_norm(backend, weight):
    net, *arguments = normalised(weight)
    value, gradient = dl.value_and_gradient(net, *arguments, backend)
    truth = dl.reference_gradient(net, *arguments)
    # Some ten operations for each of the figures, which are of order 100 at most.
    assert abs(value - truth.value) <= 100 * 2.0**-52
    assert relative_in_norm(gradient - truth.gradient, truth.gradient) <= 100 * 2.0**-52


TO_FLOATS = [evaluation for evaluation in EVALUATIONS if evaluation != "balls"]
WAYS = [
    *map(Way, SHARING),
    *(Way(sharing, "forward") for sharing in ("during", "layerwise")),
    *(Way(sharing, engine="symengine") for sharing in ("none", "after")),
]


@pytest.mark.parametrize("evaluation", TO_FLOATS)
@pytest.mark.parametrize("way", WAYS, ids=repr)
def test_overflowed_squares_are_no_answer_of_symbolic(way, evaluation):
    net, *arguments = normalised(1e200)
    backend = dl.Symbolic(way.sharing, way.order, evaluation, engine=way.engine)
    if reason := backend.unsupported(net):
        pytest.skip(reason)
    with pytest.raises(dl.NotFinite):
        dl.value_and_gradient(net, *arguments, backend)


def test_statistics_whose_sum_overflows_are_refused():
    with pytest.raises(ValueError, match="must be finite with eps added"):
        dl.BatchNorm((0.0,), (1.797e308,), eps=1e307)
