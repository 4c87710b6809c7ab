"""One contract, kept by every back-end with every option on every kind of network, batch and target.

Every activation meets one loss, and with ``DIFFLAB_EXHAUSTIVE=1`` in the environment every loss.
"""

import importlib.util
import os
from collections.abc import Callable
from functools import cache
from itertools import cycle, product
from typing import Any

import naive
import numpy as np
import pytest
from flint import arb

import difflab as dl
from difflab.backends import finite_difference
from difflab.backends.arguments import checked
from difflab.counting import loss_tree_operations
from difflab.derivation import expressions, forecasting
from difflab.derivation.sharing import SHARING, Way
from difflab.discrepancy import relative_in_norm
from difflab.enclosures import symbolic_balls
from difflab.enclosures.derivatives import Point
from difflab.layers import BatchNorm, Dense, Dropout, Elementwise, Maxout, Multiply, Residual, Softmax
from difflab.number_systems import FLOAT64, ball_precision
from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.losses import LOSSES
from difflab.primitives.operations import OPERATIONS
from difflab.program import values


LABELS = {
    "Symbolic()": dl.Symbolic(),
    "Symbolic('during')": dl.Symbolic("during"),
    "FiniteDifference('forward')": dl.FiniteDifference("forward"),
    "FiniteDifference('central')": dl.FiniteDifference(),
    "FiniteDifference('complex')": dl.FiniteDifference("complex"),
    "Backprop('float64')": dl.Backprop(),
    "Backprop('float32')": dl.Backprop("float32"),
    "Certified()": dl.Certified(),
}

LAYERS = {
    "no bias": [Dense(2, "tanh", bias=False)],
    "one weight twice": [Dense(2, "swish", share="tied"), Dense(2, "prelu", share="tied")],
    "maxout": [Maxout(2, pieces=3)],
    "softmax": [Softmax()],
    "products": [Dense(4), Multiply(2)],
    "one slope for all": [Elementwise("prelu", per_unit=False)],
    "dropout": [Dense(2, "softsign"), Dropout(0.3, seed=1)],
    "dropout in inference": [Dropout(0.3, training=False)],
    "batch norm": [BatchNorm(), Elementwise("tanh")],
    "batch norm in inference": [BatchNorm((0.5, -0.2), (0.3, 2.0)), Elementwise("tanh")],
    "skip": [Residual((Dense(2, "tanh"),))],
    "projection": [Residual((Dense(3, "tanh"),), project=True)],
}


def ending(loss: str, units: int = 2) -> list:
    """The last layers, with outputs that the loss takes."""
    row = LOSSES[loss]
    if row.outputs != (0.0, 1.0):
        return [Dense(units)]
    return [Dense(units), Softmax()] if row.accepts_classes else [Dense(units, "sigmoid")]


def ended(loss: str, *layers: Any, **options: Any) -> dl.MLP:
    return dl.MLP(2, [*layers, *ending(loss)], loss, **options)


EXHAUSTIVE = os.environ.get("DIFFLAB_EXHAUSTIVE") == "1"
PAIRS = list(product(ACTIVATIONS, LOSSES) if EXHAUSTIVE else zip(ACTIVATIONS, cycle(LOSSES), strict=False))
NETS = {
    **{f"{activation}, {loss}": ended(loss, Dense(2, activation)) for activation, loss in PAIRS},
    **{f"sum, {loss}": ended(loss, Dense(2, "tanh"), reduction="sum") for loss in LOSSES},
    **{
        f"smoothed, {loss}": ended(loss, label_smoothing=0.1)
        for loss, row in LOSSES.items()
        if row.smoothing_classes is not None
    },
    **{f"output {name}": dl.MLP.dense([2, 2], output=name, loss="squared_error") for name in ACTIVATIONS},
    **{
        f"{name}(0.6)": dl.MLP.dense([2, 2, 1], hidden=f"{name}(0.6)", loss="squared_error")
        for name, row in ACTIVATIONS.items()
        if row.parameter is not None
    },
    **{
        f"{kind}, {reduction}": dl.MLP(2, [*layers, Dense(2)], "squared_error", reduction)
        for (kind, layers), reduction in product(LAYERS.items(), naive.REDUCTIONS)
    },
    **{
        f"penalties, {reduction}": ended("softmax_cross_entropy", Dense(2, "tanh"), reduction=reduction, l1=0.1, l2=0.3)
        for reduction in naive.REDUCTIONS
    },
    "one weight": dl.MLP.dense([1, 1], loss="squared_error"),
    "a chain of ones": dl.MLP.dense([1, 1, 1, 1], loss="squared_error"),
    "one input": dl.MLP.dense([1, 3], loss="softmax_cross_entropy"),
    "bottleneck": dl.MLP.dense([3, 1, 3], hidden="sigmoid"),
    "mixed": dl.MLP(2, [Dense(2, "softplus"), Dense(2, "sigmoid"), Dense(2, "tanh")]),
}
COUPLED = [kind for kind, net in NETS.items() if net.program.couples_samples]
BATCHES = (1, 33)
SMALL_BATCHES = (1, 2, 3)
"""Batches whose coupled samples SymPy can differentiate."""

TARGETS = ("hard", "soft")
KINK_DISTANCE = 1e-3
"""More than a hundred steps of central differences, whose step is 6e-6."""

DIFFERENCE_ERROR = 1e-40
"""Of a central difference at 80 digits, whose step is 1e-25."""

BALL_BITS = 256
BALL_RADIUS = 2.0**-150
"""What evaluation of a small expression in balls of 256 bits leaves unknown, with room for 100 bits of cancellation."""

Problem = tuple[np.ndarray, np.ndarray, np.ndarray]

each_backend = pytest.mark.parametrize("label", LABELS)
each_net = pytest.mark.parametrize("kind", NETS)


def away_from_kinks(net: dl.MLP, theta: np.ndarray, x: np.ndarray) -> bool:
    """Whether nothing is within a step of finite differences of where it has no derivative, many times over."""
    made = values(net.program, FLOAT64, theta, x, np.zeros((len(x), net.n_outputs)))
    return all(
        np.abs(distance).min() > KINK_DISTANCE
        for step in net.program.instructions
        for distance in OPERATIONS[step.operation].kinks(
            step, [made[i] for i in step.inputs], [parameter.of(theta) for parameter in step.parameters]
        )
    )


def in_float32(numbers: np.ndarray) -> np.ndarray:
    """Numbers that float32 holds exactly."""
    return numbers.astype(np.float32).astype(np.float64)


def drawn_targets(net: dl.MLP, rng: np.random.Generator, batch: int, targets: str) -> np.ndarray:
    """Numbers for a regression; classes, or labels that are 0 or 1, if hard; shares of labels if soft."""
    row, shape = LOSSES[net.loss], (batch, net.n_outputs)
    if row.smoothing_classes is None:
        return in_float32(rng.normal(size=shape))
    if row.accepts_classes:
        classes = rng.integers(net.n_outputs, size=batch)
        return classes if targets == "hard" else 0.25 + 0.5 * np.eye(net.n_outputs)[classes]
    return rng.integers(2, size=shape).astype(np.float64) if targets == "hard" else in_float32(rng.random(shape))


@cache
def problem(kind: str, batch: int, targets: str) -> Problem:
    """Arguments that float32 holds exactly, away from kinks."""
    net = NETS[kind]
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        theta, x = (in_float32(0.7 * rng.normal(size=n)) for n in (net.n_params, (batch, net.n_inputs)))
        if away_from_kinks(net, theta, x):
            return theta, x, drawn_targets(net, rng, batch, targets)
    raise AssertionError(f"{net} has no problem away from kinks")


@cache
def reference(kind: str, batch: int, targets: str) -> dl.Reference:
    return dl.reference_gradient(NETS[kind], *problem(kind, batch, targets))


@cache
def prepared_for(label: str, kind: str, batch: int = 0) -> dl.Prepared:
    """Where samples are coupled, Symbolic derives for one size of batch, and each size has an object of its own."""
    return LABELS[label].prepare(NETS[kind])


def prepared_on(label: str, kind: str, batch: int) -> dl.Prepared:
    return prepared_for(label, kind, batch if label.startswith("Symbolic") and kind in COUPLED else 0)


def in_dtype(prepared: dl.Prepared, arguments: Problem) -> list[np.ndarray]:
    return [a if a.dtype.kind == "i" else a.astype(prepared.dtypes[0]) for a in arguments]


@cache
def answer(label: str, kind: str, batch: int, targets: str) -> tuple[float, np.ndarray]:
    prepared = prepared_on(label, kind, batch)
    return prepared.value_and_gradient(*in_dtype(prepared, problem(kind, batch, targets)))


@cache
def predicted_error(label: str, kind: str, batch: int, targets: str) -> np.ndarray:
    prepared = prepared_on(label, kind, batch)
    return prepared.predicted_error(*in_dtype(prepared, problem(kind, batch, targets)))


def targets_of(kind: str) -> tuple[str, ...]:
    return TARGETS if LOSSES[NETS[kind].loss].smoothing_classes is not None else TARGETS[-1:]


def cases(label: str, kind: str) -> list[tuple[int, str]]:
    """Batches and targets on which a back-end is tried."""
    is_small = label.startswith("Symbolic") and kind in COUPLED
    return list(product(SMALL_BATCHES if is_small else BATCHES, targets_of(kind)))


def test_every_row_of_every_table_is_in_some_network():
    steps = [step for net in NETS.values() for step in net.program.instructions]
    named = {net.layers[0].activation for kind, net in NETS.items() if kind.startswith("output")}
    assert {step.operation for step in steps} == set(OPERATIONS)
    assert {step.function for step in steps if step.operation == "activation"} | {"identity"} == named
    assert named == set(ACTIVATIONS)
    assert {step.function for step in steps if step.operation == "loss"} == set(LOSSES)


@each_backend
@each_net
def test_gradient_is_within_the_predicted_error_of_the_truth(label, kind):
    for case in cases(label, kind):
        truth = reference(kind, *case)
        found = dl.discrepancy(answer(label, kind, *case)[1], truth)
        bound = relative_in_norm(predicted_error(label, kind, *case), truth.gradient)
        assert found.error_relative <= bound, (case, str(found))


@each_backend
@each_net
def test_every_entry_is_within_its_predicted_error(label, kind):
    """No cancellation between entries: what analyses of rounding promise, they promise of each."""
    for case in cases(label, kind):
        truth, (_, gradient) = reference(kind, *case), answer(label, kind, *case)
        error = np.abs((gradient.astype(np.float64) - truth.gradient) - truth.residual)
        assert (error <= predicted_error(label, kind, *case)).all(), case


@each_backend
@each_net
def test_predicted_error_is_worth_something(label, kind):
    """A prediction of 1 % or more would let a rule that is off by as much pass; only forward differences come near."""
    for case in cases(label, kind):
        assert relative_in_norm(predicted_error(label, kind, *case), reference(kind, *case).gradient) < 1e-2


@each_backend
@each_net
def test_value_is_the_loss(label, kind):
    for batch, targets in cases(label, kind):
        prepared = prepared_on(label, kind, batch)
        truth = reference(kind, batch, targets).value
        parts = batch if NETS[kind].reduction == "sum" else 1
        # Some 50 roundings of figures up to 10 per sample, and the sum over the batch.
        bound = (50 + batch) * float(np.finfo(prepared.dtypes[0]).eps) * 10 * parts
        assert abs(answer(label, kind, batch, targets)[0] - truth) <= bound
        assert abs(prepared.value(*in_dtype(prepared, problem(kind, batch, targets))) - truth) <= bound


@each_backend
@each_net
def test_answers_are_a_float_and_a_float_array(label, kind):
    prepared = prepared_on(label, kind, 1)
    for case in cases(label, kind):
        value, gradient = answer(label, kind, *case)
        assert type(value) is float
        assert type(gradient) is np.ndarray
        assert (gradient.shape, gradient.dtype) == ((NETS[kind].n_params,), prepared.dtypes[0])
    assert type(prepared.value(*in_dtype(prepared, problem(kind, 1, "soft")))) is float


@each_backend
@each_net
def test_the_same_call_gives_the_same_bits_in_a_fresh_array_and_leaves_its_arguments(label, kind):
    for batch, targets in cases(label, kind):
        prepared = prepared_on(label, kind, batch)
        arguments = in_dtype(prepared, problem(kind, batch, targets))
        before = [a.tobytes() for a in arguments]
        value, gradient = prepared.value_and_gradient(*arguments)
        earlier_value, earlier = answer(label, kind, batch, targets)
        assert (value, gradient.tobytes()) == (earlier_value, earlier.tobytes())
        assert not np.shares_memory(gradient, earlier)
        assert [a.tobytes() for a in arguments] == before


# --- symbolic derivatives in balls ---


WAYS = [
    *(Way(sharing) for sharing in SHARING),
    Way("during", "forward"),
    Way("layerwise", "forward"),
    Way(simplification="factor_terms"),
    *([Way(engine="symengine")] if importlib.util.find_spec("symengine") else []),
]


def symbolic(kind: str, batch: int, targets: str, way: Way) -> np.ndarray:
    """What SymPy derives, evaluated in balls at exactly the floats of a problem: loss and gradient."""
    net, (theta, x, y) = NETS[kind], problem(kind, batch, targets)
    rows = np.eye(net.n_outputs)[y] if y.ndim == 1 else y
    return symbolic_balls.value_and_gradient(net, Point(net.program, theta, x, rows), way)


def is_certified(ball: arb, lower: float, nearest: float, upper: float) -> bool:
    """Whether a narrow ball meets the proven bounds, and lies within one rounding of the nearest float."""
    assert ball.rad() <= BALL_RADIUS
    rounding = arb(float(np.spacing(abs(nearest)))) / 2
    return bool(not ball < lower and not ball > upper and not abs(ball - nearest) > rounding)


@pytest.mark.parametrize("way", WAYS, ids=str)
@each_net
def test_symbolic_derivatives_in_balls_lie_in_the_certified_bounds(kind, way):
    """Two proofs of one number, by other rules and by other code."""
    for case in cases("Symbolic()", kind):
        truth = reference(kind, *case)
        with ball_precision(BALL_BITS):
            loss, *entries = symbolic(kind, *case, way)
            assert is_certified(loss, truth.value_lower, truth.value, truth.value_upper), case
            bounds = (truth.lower.tolist(), truth.gradient.tolist(), truth.upper.tolist())
            assert all(map(is_certified, entries, *bounds)), case


@pytest.mark.parametrize("kind", COUPLED)
def test_symbolic_refuses_to_couple_a_larger_batch(kind):
    prepared = prepared_for("Symbolic()", kind, 33)
    for evaluate in (prepared.value_and_gradient, prepared.value):
        with pytest.raises(dl.Refused, match=r"forecast .* operations in the gradient, whose 33 samples are coupled,"):
            evaluate(*problem(kind, 33, "soft"))


@pytest.mark.parametrize("kind", COUPLED)
def test_what_a_coupled_batch_takes_is_forecast_by_its_size(kind, monkeypatch):
    """A law of a millisecond for each operation, by which a batch is refused that is larger than another."""
    law = forecasting.CostLaw(1e-3, 1.0, 0.1, 10, 5.0, 10.0)
    backend = dl.Symbolic("during", limit_seconds=20.0)
    monkeypatch.setattr(forecasting, "COSTS", {repr(backend): forecasting.Cost(law)})
    small, large = (backend.forecast(NETS[kind], batch)["forecast_seconds"] for batch in (3, 300))
    assert large == pytest.approx(100 * small)
    prepared = backend.prepare(NETS[kind])
    prepared.value_and_gradient(*problem(kind, 3, "soft"))
    with pytest.raises(dl.Refused, match="forecast .* s to derive and compile, limit 20 s"):
        prepared.value_and_gradient(*problem(kind, 300, "soft"))


# --- arguments ---


@each_backend
def test_read_only_arguments_are_taken(label):
    prepared = prepared_for(label, "one weight")
    arguments = in_dtype(prepared, problem("one weight", 1, "soft"))
    expected = prepared.value_and_gradient(*arguments)
    for a in arguments:
        a.flags.writeable = False
    value, gradient = prepared.value_and_gradient(*arguments)
    assert value == expected[0]
    assert (gradient == expected[1]).all()


def test_compiled_code_reads_read_only_arguments_where_they_lie():
    theta, x, y = problem("one weight", 1, "soft")
    for a in (theta, x, y):
        a.flags.writeable = False
    given = checked(NETS["one weight"], theta, x, y, ("float64",))
    assert given.theta is theta
    assert given.x is x
    assert given.y is y


@each_backend
def test_an_empty_batch_has_no_predicted_error_either(label):
    prepared = prepared_for(label, "one weight")
    theta, x, y = in_dtype(prepared, problem("one weight", 1, "soft"))
    for ask in (prepared.value_and_gradient, prepared.value, prepared.predicted_error):
        with pytest.raises(ValueError, match="with batch 1 or more"):
            ask(theta, x[:0], y[:0])


@each_backend
def test_out_is_filled_and_returned(label):
    prepared = prepared_for(label, "bottleneck")
    arguments = in_dtype(prepared, problem("bottleneck", 33, "hard"))
    out = np.full(prepared.net.n_params, np.nan, prepared.dtypes[0])
    value, gradient = prepared.value_and_gradient(*arguments, out=out)
    assert gradient is out
    assert (out == prepared.value_and_gradient(*arguments)[1]).all()


@each_backend
def test_a_label_is_the_repr_and_makes_the_back_end(label):
    assert repr(LABELS[label]) == label
    assert eval(label, vars(dl)) == LABELS[label]  # noqa: S307


@each_backend
def test_classes_are_one_hot_rows(label):
    prepared = prepared_for(label, "bottleneck")
    theta, x, y = in_dtype(prepared, problem("bottleneck", 33, "hard"))
    rows = np.eye(3, dtype=theta.dtype)[y]
    by_class, by_row = (prepared.value_and_gradient(theta, x, targets) for targets in (y, rows))
    assert by_class[0] == by_row[0]
    assert (by_class[1] == by_row[1]).all()


def test_certified_is_judged_by_differences_at_80_digits():
    for kind in NETS:
        for case in product((3 if kind in COUPLED else 1,), targets_of(kind)):
            found = reference(kind, *case)
            truth = naive.central_difference_80_digits(NETS[kind], *problem(kind, *case))
            for derivative, nearest in zip(truth, found.gradient.tolist(), strict=True):
                assert abs(nearest - derivative) <= np.spacing(abs(nearest)) / 2 + DIFFERENCE_ERROR, (kind, case)


@pytest.mark.parametrize("backend", dl.BACKENDS.values(), ids=dl.BACKENDS)
def test_the_defaults_of_the_table_are_among_those_tried(backend):
    if backend.unsupported(NETS["one weight"]):
        pytest.skip(f"{backend!r} has no device here")
    assert backend in LABELS.values()


# --- facts ---


def counted(monkeypatch: pytest.MonkeyPatch, module: object, name: str) -> list[int]:
    """A list that grows by one entry at each call of a module's function."""
    calls, function = [], getattr(module, name)

    def counting(*arguments: object) -> object:
        calls.append(1)
        return function(*arguments)

    monkeypatch.setattr(module, name, counting)
    return calls


@pytest.mark.parametrize("label", [label for label in LABELS if label.startswith("FiniteDifference")])
@pytest.mark.parametrize("kind", ["one weight", "bottleneck"])
def test_calls_of_the_primal_are_those_stated(monkeypatch, label, kind):
    calls = counted(monkeypatch, finite_difference, "primal")
    prepared = LABELS[label].prepare(NETS[kind])
    assert not calls
    prepared.value_and_gradient(*problem(kind, 33, "soft"))
    assert len(calls) == prepared.facts["primal_calls"]


def test_symbolic_runs_the_primal_once_and_before_it_evaluates(monkeypatch):
    calls = counted(monkeypatch, expressions, "values")
    prepared = dl.Symbolic().prepare(NETS["one weight"])
    assert len(calls) == prepared.facts["primal_calls"] == 1
    prepared.value_and_gradient(*problem("one weight", 33, "soft"))
    assert len(calls) == 1


def test_stencils_call_the_primal_once_or_twice_per_parameter():
    n = NETS["bottleneck"].n_params
    expected = {"forward": n + 1, "central": 2 * n + 1, "complex": n + 1}
    for scheme, calls in expected.items():
        assert dl.FiniteDifference(scheme).prepare(NETS["bottleneck"]).facts["primal_calls"] == calls


FACTS = {
    "Symbolic()": {
        "derive_seconds",
        "cse_seconds",
        "compile_seconds",
        "gradient_tree_ops",
        "gradient_ops",
        "primal_calls",
    },
    "FiniteDifference('central')": {"gradient_ops", "primal_calls"},
    "Backprop('float64')": {"gradient_ops", "primal_calls"},
    "Certified()": {"primal_calls"},
}


@pytest.mark.parametrize("label", FACTS)
def test_facts_are_present_and_positive(label):
    facts = prepared_for(label, "mixed").facts
    assert FACTS[label] <= set(facts)
    assert all(fact > 0 for fact in facts.values())


def test_operations_are_those_counted_by_hand():
    net = dl.MLP.dense([2, 3, 2], hidden="tanh", loss="squared_error")
    # Forward: 12 and 12 for the layers, 3 tanh, 4 * 2 for the loss, which leaves its cotangent behind.
    primal = 12 + 3 + 12 + 8
    # Reverse: W_bar 6; slope of tanh 7 and its product, for 3; W_bar 6 and a_bar 9. No sum over one sample.
    assert dl.Backprop().prepare(net).facts["gradient_ops"] == primal + 6 + 3 * 8 + 15
    assert dl.FiniteDifference("forward").prepare(net).facts["gradient_ops"] == primal * (net.n_params + 1)


def test_sharing_never_adds_operations():
    for kind, net in NETS.items():
        batch = 2 if kind in COUPLED else 1
        answer("Symbolic()", kind, batch, "soft")
        facts = prepared_on("Symbolic()", kind, batch).facts
        assert facts["gradient_ops"] <= facts["gradient_tree_ops"] + loss_tree_operations(net.program, net.n_params)


# --- refusals ---


def test_symbolic_refuses_beyond_its_limit_in_one_sentence():
    backend = dl.Symbolic(max_ops=10)
    with pytest.raises(dl.Refused, match=r"^Symbolic\(\) refuses MLP 3-1-3: forecast .* limit 1\.0e\+01$"):
        backend.prepare(NETS["bottleneck"])


@pytest.mark.parametrize(
    "make",
    [
        lambda: dl.Backprop("float16"),
        lambda: dl.FiniteDifference("backward"),
        lambda: dl.FiniteDifference(step=0.0),
        lambda: dl.FiniteDifference(step=-1e-6),
        lambda: dl.FiniteDifference(step=float("nan")),
        lambda: dl.Symbolic(max_ops=0),
        lambda: dl.Symbolic("before"),
        lambda: dl.Symbolic("after", "forward"),
        lambda: dl.Symbolic("during", "sideways"),
        lambda: dl.Certified(max_bits=1),
    ],
)
def test_options_out_of_range_are_refused(make: Callable[[], dl.Backend]):
    with pytest.raises(ValueError, match="known|must"):
        make()


@each_backend
def test_one_class_alone_has_a_gradient_of_zero(label):
    net = dl.MLP.dense([2, 2, 1], hidden="tanh", loss="softmax_cross_entropy")
    prepared = LABELS[label].prepare(net)
    arguments = in_dtype(prepared, naive.random_problem(net, np.random.default_rng(0), 3)[:2]) + [np.zeros(3, int)]
    value, gradient = prepared.value_and_gradient(*arguments)
    assert value == 0.0
    assert not gradient.any()
