"""One contract, kept by every back-end with every option on every kind of network, batch and target."""

from collections.abc import Callable
from functools import cache
from itertools import product

import naive
import numpy as np
import pytest

import difflab as dl
from difflab import expressions
from difflab.backends import finite_difference
from difflab.counting import loss_tree_operations
from difflab.number_systems import FLOAT64
from difflab.program import values


LABELS = {
    "Symbolic()": dl.Symbolic(),
    "FiniteDifference('forward')": dl.FiniteDifference("forward"),
    "FiniteDifference('central')": dl.FiniteDifference(),
    "FiniteDifference('complex')": dl.FiniteDifference("complex"),
    "Backprop('float64')": dl.Backprop(),
    "Backprop('float32')": dl.Backprop("float32"),
    "Certified()": dl.Certified(),
}

NETS = {
    **{
        f"{activation}, {loss}": dl.MLP.dense([2, 3, 2], hidden=activation, loss=loss)
        for activation, loss in product(naive.ACTIVATION_NAMES, naive.LOSS_NAMES)
    },
    **{f"sum, {loss}": dl.MLP.dense([2, 2, 3], loss=loss, reduction="sum") for loss in naive.LOSS_NAMES},
    **{f"output {name}": dl.MLP.dense([2, 2], output=name, loss="squared_error") for name in naive.ACTIVATION_NAMES},
    "one weight": dl.MLP.dense([1, 1], loss="squared_error"),
    "a chain of ones": dl.MLP.dense([1, 1, 1, 1], loss="squared_error"),
    "one input": dl.MLP.dense([1, 3], loss="softmax_cross_entropy"),
    "bottleneck": dl.MLP.dense([3, 1, 3], hidden="sigmoid"),
    "mixed": dl.MLP(2, [dl.Dense(2, "softplus"), dl.Dense(2, "sigmoid"), dl.Dense(2, "tanh")]),
}
BATCHES = (1, 33)
TARGETS = ("classes", "rows")

Problem = tuple[np.ndarray, np.ndarray, np.ndarray]

each_backend = pytest.mark.parametrize("label", LABELS)
each_net = pytest.mark.parametrize("kind", NETS)


def away_from_kinks(net: dl.MLP, theta: np.ndarray, x: np.ndarray) -> bool:
    """Whether no pre-activation of a relu is within a step of finite differences of 0, several times over."""
    made = values(net.program, FLOAT64, theta, x, np.zeros((len(x), net.n_outputs)))
    relus = [i.inputs[0] for i in net.program.instructions if i.function == "relu"]
    return all(np.abs(made[z]).min() > 1e-3 for z in relus)


@cache
def problem(kind: str, batch: int, targets: str) -> Problem:
    """Arguments that float32 holds exactly."""
    net = NETS[kind]
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        theta, x = (0.7 * rng.normal(size=n).astype(np.float32) for n in (net.n_params, (batch, net.n_inputs)))
        theta, x = theta.astype(np.float32).astype(np.float64), x.astype(np.float32).astype(np.float64)
        if away_from_kinks(net, theta, x):
            break
    if net.loss == "squared_error":
        y = rng.normal(size=(batch, net.n_outputs)).astype(np.float32).astype(np.float64)
    else:
        classes = rng.integers(net.n_outputs, size=batch)
        y = classes if targets == "classes" else (0.25 + 0.5 * np.eye(net.n_outputs)[classes])
    return theta, x, y


@cache
def reference(kind: str, batch: int, targets: str) -> dl.Reference:
    return dl.reference_gradient(NETS[kind], *problem(kind, batch, targets))


@cache
def prepared_for(label: str, kind: str) -> dl.Prepared:
    return LABELS[label].prepare(NETS[kind])


def in_dtype(prepared: dl.Prepared, arguments: Problem) -> list[np.ndarray]:
    return [a if a.dtype.kind == "i" else a.astype(prepared.dtypes[0]) for a in arguments]


def cases(kind: str) -> list[tuple[int, str]]:
    takes_classes = NETS[kind].loss == "softmax_cross_entropy"
    return list(product(BATCHES, TARGETS if takes_classes else ("rows",)))


@each_backend
@each_net
def test_gradient_is_within_the_predicted_error_of_the_truth(label, kind):
    prepared = prepared_for(label, kind)
    for batch, targets in cases(kind):
        theta, x, y = in_dtype(prepared, problem(kind, batch, targets))
        value, gradient = prepared.value_and_gradient(theta, x, y)
        truth = reference(kind, batch, targets)
        found = dl.discrepancy(gradient, truth)
        assert found.error_relative <= naive.predicted(prepared, truth, theta, x, y), (batch, targets, str(found))


@each_backend
@each_net
def test_predicted_error_is_worth_something(label, kind):
    """A prediction of 1 % or more would let a rule that is off by as much pass; only forward differences come near."""
    prepared = prepared_for(label, kind)
    for batch, targets in cases(kind):
        theta, x, y = in_dtype(prepared, problem(kind, batch, targets))
        assert naive.predicted(prepared, reference(kind, batch, targets), theta, x, y) < 1e-2


@each_backend
@each_net
def test_value_is_the_loss(label, kind):
    prepared = prepared_for(label, kind)
    for batch, targets in cases(kind):
        arguments = in_dtype(prepared, problem(kind, batch, targets))
        truth = reference(kind, batch, targets).value
        eps = float(np.finfo(prepared.dtypes[0]).eps)
        parts = batch if NETS[kind].reduction == "sum" else 1
        # Some 50 roundings of figures up to 10 per sample, and the sum over the batch.
        bound = (50 + batch) * eps * 10 * parts
        assert abs(prepared.value_and_gradient(*arguments)[0] - truth) <= bound
        assert abs(prepared.value(*arguments) - truth) <= bound


@each_backend
@each_net
def test_answers_are_a_float_and_a_fresh_float_array(label, kind):
    prepared = prepared_for(label, kind)
    for batch, targets in cases(kind):
        arguments = in_dtype(prepared, problem(kind, batch, targets))
        value, gradient = prepared.value_and_gradient(*arguments)
        assert type(value) is float
        assert type(prepared.value(*arguments)) is float
        assert type(gradient) is np.ndarray
        assert (gradient.shape, gradient.dtype) == ((NETS[kind].n_params,), prepared.dtypes[0])
        again = prepared.value_and_gradient(*arguments)[1]
        assert not np.shares_memory(gradient, again)


@each_backend
@each_net
def test_the_same_call_gives_the_same_bits_and_leaves_its_arguments(label, kind):
    prepared = prepared_for(label, kind)
    for batch, targets in cases(kind):
        arguments = in_dtype(prepared, problem(kind, batch, targets))
        before = [a.tobytes() for a in arguments]
        answers = [prepared.value_and_gradient(*arguments) for _ in range(2)]
        assert len({(value, gradient.tobytes()) for value, gradient in answers}) == 1
        assert [a.tobytes() for a in arguments] == before


@each_backend
def test_read_only_arguments_are_taken(label):
    prepared = prepared_for(label, "one weight")
    arguments = in_dtype(prepared, problem("one weight", 1, "rows"))
    expected = prepared.value_and_gradient(*arguments)
    for a in arguments:
        a.flags.writeable = False
    value, gradient = prepared.value_and_gradient(*arguments)
    assert value == expected[0]
    assert (gradient == expected[1]).all()


@each_backend
def test_out_is_filled_and_returned(label):
    prepared = prepared_for(label, "bottleneck")
    arguments = in_dtype(prepared, problem("bottleneck", 33, "classes"))
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
    theta, x, y = in_dtype(prepared, problem("bottleneck", 33, "classes"))
    rows = np.eye(3, dtype=theta.dtype)[y]
    by_class, by_row = (prepared.value_and_gradient(theta, x, targets) for targets in (y, rows))
    assert by_class[0] == by_row[0]
    assert (by_class[1] == by_row[1]).all()


def test_certified_is_judged_by_differences_at_80_digits():
    for kind in NETS:
        for batch, targets in cases(kind)[:2]:
            if batch == 1:
                found = reference(kind, batch, targets)
                truth = naive.central_difference_80_digits(NETS[kind], *problem(kind, batch, targets))
                for derivative, nearest in zip(truth, found.gradient.tolist(), strict=True):
                    assert abs(nearest - derivative) <= np.spacing(abs(nearest)) / 2 + 1e-40


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
    prepared.value_and_gradient(*problem(kind, 33, "rows"))
    assert len(calls) == prepared.facts["primal_calls"]


def test_symbolic_runs_the_primal_once_and_before_it_evaluates(monkeypatch):
    calls = counted(monkeypatch, expressions, "primal")
    prepared = dl.Symbolic().prepare(NETS["one weight"])
    assert len(calls) == prepared.facts["primal_calls"] == 1
    prepared.value_and_gradient(*problem("one weight", 33, "rows"))
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
        facts = prepared_for("Symbolic()", kind).facts
        assert facts["gradient_ops"] <= facts["gradient_tree_ops"] + loss_tree_operations(net.program, net.n_params)


# --- refusals ---


def test_symbolic_refuses_beyond_its_limit_in_one_sentence():
    backend = dl.Symbolic(max_ops=10)
    with pytest.raises(dl.Refused, match=r"^Symbolic\(max_ops=10\) refuses MLP 3-1-3: forecast .* limit 1\.0e\+01$"):
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
