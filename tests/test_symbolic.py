"""Symbolic derivatives: how large they are, that this is foreseen, and what the textbook formulas cannot do."""

from __future__ import annotations

import inspect
import re
import sys
import threading
from dataclasses import replace
from functools import cache
from time import perf_counter

import numpy as np
import pytest
import sympy

import difflab as dl
from difflab import layers
from difflab.backends.symbolic import EVALUATIONS, KEPT_SIZES, forecast_tree_ops
from difflab.counting import loss_tree_operations
from difflab.derivation import expressions, numpy_code, straight_lines
from difflab.derivation.expressions import (
    RECURSION_LIMIT,
    Derivation,
    Shared,
    share,
    shared_operations,
    tree_operations,
)
from difflab.derivation.sharing import SHARING, Way
from difflab.enclosures import symbolic_balls
from difflab.number_systems import Symbols
from difflab.primitives.activations import ACTIVATIONS
from difflab.program import primal
from difflab.program import values as program_values


WIDTHS = ([1, 2], [3, 2], [2, 2, 2], [3, 4, 3], [1, 2, 2, 2], [2, 3, 3, 2], [1, 1, 1, 1, 2], [2, 2, 2, 2, 2])
SMALL = [
    dl.MLP.dense(widths, hidden=hidden, loss=loss)
    for loss in ("squared_error", "softmax_cross_entropy")
    for hidden in ("identity", "sigmoid", "tanh", "relu", "softplus")
    for widths in WIDTHS
    if not (hidden == "relu" and len(widths) * max(widths) > 8)  # SymPy takes up to 8 s for its nested cases.
]
FORECAST_FACTOR = 3
"""What the forecast promises."""


@cache
def derive(net: dl.MLP) -> Derivation:
    return expressions.derive_sample(net)


def label(net: dl.MLP) -> str:
    return f"{net.label} {net.layers[0].activation} {net.loss}"


def naive_operations(expression: sympy.Expr) -> int:
    """Of the tree, node by node, with no memory, a product as what is multiplied over what is divided by."""
    if isinstance(expression, sympy.Piecewise):
        return sum(naive_operations(branch) for branch, _ in expression.args)
    if not expression.args:
        return 0
    if isinstance(expression, sympy.Mul):
        above = [factor for factor in expression.args if factor != -1 and not is_reciprocal(factor)]
        below = [factor.args[0] for factor in expression.args if is_reciprocal(factor)]
        multiplied = max(0, len(above) - 1)
        divided = len(below)
        return multiplied + divided + sum(map(naive_operations, above + below))
    own = len(expression.args) - 1 if isinstance(expression, sympy.Add) else 1
    return own + sum(map(naive_operations, expression.args))


def is_reciprocal(expression: sympy.Expr) -> bool:
    return isinstance(expression, sympy.Pow) and expression.args[1] == -1


# --- forecasts


def forecast_ratio(net: dl.MLP) -> float:
    return forecast_tree_ops(net) / tree_operations(derive(net).gradient)


@pytest.mark.parametrize("net", SMALL, ids=label)
def test_the_forecast_is_within_a_factor_of_3_of_the_derived_gradient(net):
    assert 1 / FORECAST_FACTOR <= forecast_ratio(net) <= FORECAST_FACTOR


@pytest.mark.parametrize("widths", [[2, 6], [2, 10], [2, 2, 12]])
def test_the_forecast_of_a_sum_over_outputs_errs_to_the_large_side_by_at_most_their_number(widths):
    """Weights of the last layer copy one term of the squared error, not all."""
    assert 1 <= forecast_ratio(dl.MLP.dense(widths, hidden="sigmoid", loss="squared_error")) <= widths[-1]


@pytest.mark.parametrize("net", SMALL, ids=label)
def test_the_size_of_the_loss_is_known_before_it_is_written_out(net):
    """But for what SymPy tidies up by itself: signs, and factors it joins."""
    assert loss_tree_operations(net.program, net.n_params) == pytest.approx(
        tree_operations([derive(net).loss]), rel=0.2
    )


def test_sympy_joins_factors_that_the_program_writes_apart():
    net = dl.MLP(2, [dl.Dense(2, "elu"), dl.Dropout(0.5, seed=1), dl.Dense(2)])
    assert loss_tree_operations(net.program, net.n_params) == 146
    assert tree_operations([derive(net).loss]) == 130


def test_a_forecast_beyond_the_limit_is_refused_with_the_forecast():
    net = dl.MLP.dense([8, 8, 8])
    with pytest.raises(dl.Refused) as raised:
        dl.Symbolic(max_ops=1000).prepare(net)
    forecast = forecast_tree_ops(net)
    assert str(raised.value) == (
        f"Symbolic() refuses MLP 8-8-8: forecast {forecast:.1e} operations in the gradient, limit 1.0e+03"
    )


def test_the_limit_is_the_largest_forecast_that_is_not_refused():
    net = dl.MLP.dense([2, 2, 2])
    forecast = forecast_tree_ops(net)
    assert dl.Symbolic(max_ops=forecast).refusal(net) is None
    assert dl.Symbolic(max_ops=forecast - 1).refusal(net)
    assert dl.Symbolic().forecast(net)["forecast_tree_ops"] == forecast


@pytest.mark.parametrize(("widths", "seconds"), [([64, 128, 128, 10], 0.5), ([784, 1024, 1024, 10], 1.0)])
def test_a_refusal_is_quick(widths, seconds):
    net = dl.MLP.dense(widths)
    started = perf_counter()
    with pytest.raises(dl.Refused):
        dl.Symbolic().prepare(net)
    assert perf_counter() - started < seconds


# --- counting


@pytest.mark.parametrize("net", [net for net in SMALL if net.n_params <= 18], ids=label)
def test_operations_of_a_tree_are_those_of_a_naive_walk(net):
    derivation = derive(net)
    assert tree_operations([derivation.loss]) == naive_operations(derivation.loss)
    assert tree_operations(derivation.gradient) == sum(map(naive_operations, derivation.gradient))


a, b, c = sympy.symbols("a b c")
KNOWN_SIZES = [
    (a, 0),
    (sympy.Integer(7), 0),
    (-a, 0),
    (a + b + c, 2),
    (a - b, 1),
    (2 * a * b, 2),
    (a / b, 1),
    (1 / a, 1),
    (-1 / a, 1),
    (3 / a, 1),
    (1 / (a * b), 2),
    (a / b / c, 2),
    (a / b**2, 2),
    (a / sympy.sqrt(b), 2),
    (a - 1, 1),
    (sympy.exp(a) - 1, 2),
    (-a * b, 1),
    (a - b - 1, 2),
    (sympy.exp(-a), 1),
    ((a + b) ** 2, 2),
    (sympy.Piecewise((a * b, c + a > 0), (0, True)), 1),
    ((a + b) * sympy.exp(a + b), 4),
]


@pytest.mark.parametrize(("expression", "operations"), KNOWN_SIZES, ids=str)
def test_operations_of_known_expressions_are_counted_by_the_stated_convention(expression, operations):
    assert tree_operations([expression]) == naive_operations(expression) == operations


def test_sharing_is_counted_once_and_trees_are_counted_out():
    doubled = a + b
    for _ in range(200):
        doubled = sympy.Mul(doubled, doubled + 1, evaluate=False)
    assert tree_operations([doubled]) > 2**200


@pytest.mark.parametrize("net", [net for net in SMALL if len(net.layers) > 1], ids=label)
def test_common_subexpressions_make_fewer_operations(net):
    derivation = derive(net)
    shared = share(derivation)
    assert shared_operations(shared) < tree_operations([derivation.loss, *derivation.gradient])


def test_the_facts_are_the_counts():
    net = dl.MLP.dense([2, 3, 2])
    facts, derivation = dl.Symbolic().prepare(net).facts, derive(net)
    assert facts["gradient_tree_ops"] == tree_operations(derivation.gradient)
    assert facts["gradient_ops"] == shared_operations(share(derivation))
    assert all(facts[f"{part}_seconds"] > 0 for part in ("derive", "cse", "compile"))


def test_swell_outgrows_the_network():
    """Twice the depth, more than 2**2 times the operations per parameter."""
    shallow, deep = (dl.MLP.dense([2] * (depth + 1), loss="squared_error") for depth in (2, 4))
    per_parameter = [tree_operations(derive(net).gradient) / net.n_params for net in (shallow, deep)]
    assert per_parameter[1] > 4 * per_parameter[0]


# --- generated code


def test_symbols_are_named_by_a_letter_and_a_number():
    derivation = derive(dl.MLP.dense([2, 2, 2]))
    free = set().union(*(entry.free_symbols for entry in (derivation.loss, *derivation.gradient)))
    assert free <= {*derivation.theta, *derivation.samples}
    assert [w.name for w in derivation.theta] == [f"w{i}" for i in range(12)]
    assert [s.name for s in derivation.samples] == ["x0", "x1", "y0", "y1"]


@pytest.fixture
def witness(tmp_path):
    return tmp_path / "witness"


@pytest.fixture
def hostile(witness):
    """Text that makes the witness where it is run."""
    return f"__import__('pathlib').Path('{witness}').touch()"


@pytest.mark.parametrize(
    "make",
    [
        lambda text: dl.Dense(2, text),
        lambda text: dl.Dense(2, share=text),
        lambda text: dl.MLP.dense([1, 1], loss=text),
        lambda text: dl.MLP.dense([1, text]),
        lambda text: dl.MLP(text, [dl.Dense(1)]),
        lambda text: dl.MLP.dense([1, 1], reduction=text),
        lambda text: dl.register_activation(replace(ACTIVATIONS["tanh"], name=text)),
    ],
)
def test_no_text_of_a_user_gets_into_a_network(make, hostile, witness):
    with pytest.raises(
        (ValueError, TypeError), match="unknown|must be an integer|must be a name|must be an identifier"
    ):
        make(hostile)
    assert not witness.exists()


def differentiate_with_text_in_names(text: str, way: Way, evaluation: str) -> None:
    """Names of shared parameters, of an activation's parameter, and of an activation, which all get into a network."""
    net = dl.MLP(1, [dl.Dense(1, "hostile", share=text), dl.Dense(1, share=text)], "squared_error")
    assert sum(text in parameter.name for parameter in net.parameters) == 3
    backend = dl.Symbolic(way.sharing, way.order, evaluation, engine=way.engine)
    if reason := backend.unsupported(net):
        pytest.skip(reason)
    backend.prepare(net).value_and_gradient(np.full(net.n_params, 0.5), np.ones((2, 1)), np.zeros((2, 1)))


@pytest.fixture
def text_in_names(monkeypatch, hostile):
    """Where no name is checked any more: that of a weight, and all of an activation."""
    row = replace(ACTIVATIONS["swish"], name=hostile, parameter=hostile)
    for name in ("hostile", row.name):
        monkeypatch.setitem(ACTIVATIONS, name, row)
    monkeypatch.setattr(layers, "_check_share", lambda share: None)


WAYS = [*map(Way, SHARING), Way("during", "forward"), Way(engine="symengine")]


@pytest.mark.parametrize("evaluation", EVALUATIONS)
@pytest.mark.parametrize("way", WAYS, ids=repr)
@pytest.mark.usefixtures("text_in_names")
def test_names_of_a_network_are_never_run(way, evaluation, hostile, witness):
    differentiate_with_text_in_names(hostile, way, evaluation)
    assert not witness.exists()


@pytest.mark.usefixtures("text_in_names")
def test_a_derivation_that_reads_names_as_sympy_does_is_caught(monkeypatch, hostile, witness):
    right = expressions.derive_sample

    def wrong(net, way):
        sympy.sympify(net.parameters[0].name.removesuffix(".weight"))
        return right(net, way)

    monkeypatch.setattr(expressions, "derive_sample", wrong)
    differentiate_with_text_in_names(hostile, Way(), "numpy")
    assert witness.exists()


# --- depth


@pytest.fixture
def shallow_stack():
    """Little recursion for the test, so that a net of some depth needs more than there is."""
    before, used = sys.getrecursionlimit(), len(inspect.stack(0))
    sys.setrecursionlimit(used + 110)
    yield
    sys.setrecursionlimit(before)


def deep(depth: int) -> dl.MLP:
    return dl.MLP.dense([1] * (depth + 1), hidden="tanh", loss="squared_error")


def loss_on_symbols(net: dl.MLP) -> sympy.Expr:
    theta, x, y = (np.array(sympy.symbols(f"{s}:{n}"), object) for s, n in (("w", net.n_params), ("x", 1), ("y", 1)))
    return primal(net.program, Symbols(), theta, x[None], y[None])


def test_a_net_60_layers_deep_is_differentiated():
    """With respect to its outermost weights: all 120 derivatives take SymPy the better part of a minute."""
    before = sys.getrecursionlimit()
    with expressions.deep_recursion():
        assert sys.getrecursionlimit() >= RECURSION_LIMIT
        loss = loss_on_symbols(deep(60))
        slopes = [sympy.diff(loss, f"w{i}") for i in (0, 118)]
        assert all(tree_operations([slope]) > tree_operations([loss]) / 3 for slope in slopes)
    assert sys.getrecursionlimit() == before


def test_depth_beyond_the_recursion_limit_is_derived_shared_and_counted(shallow_stack):
    limit = sys.getrecursionlimit()
    net = deep(16)
    with pytest.raises(RecursionError):
        sympy.diff(loss_on_symbols(net), "w0")
    derivation = expressions.derive_sample(net)
    assert len(derivation.gradient) == net.n_params
    assert shared_operations(share(derivation)) > net.n_params
    assert sys.getrecursionlimit() == limit


def test_the_recursion_limit_is_restored_after_an_error():
    before = sys.getrecursionlimit()
    with pytest.raises(RuntimeError, match="planted"), expressions.deep_recursion():
        raise RuntimeError("planted")
    assert sys.getrecursionlimit() == before


def test_a_higher_recursion_limit_is_left_alone():
    before = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(RECURSION_LIMIT + 1)
        with expressions.deep_recursion():
            assert sys.getrecursionlimit() == RECURSION_LIMIT + 1
    finally:
        sys.setrecursionlimit(before)


# --- where subexpressions are shared


CHOICES = [
    dl.Symbolic("none"),
    dl.Symbolic("after"),
    dl.Symbolic("during"),
    dl.Symbolic("during", "forward"),
    dl.Symbolic("layerwise"),
    dl.Symbolic("layerwise", "forward"),
    dl.Symbolic(evaluation="c"),
    dl.Symbolic("during", evaluation="c"),
    dl.Symbolic("during", evaluation="numba"),
    dl.Symbolic(evaluation="balls"),
    dl.Symbolic("during", evaluation="balls"),
    dl.Symbolic(simplification="factor_terms"),
    dl.Symbolic("none", engine="symengine"),
    dl.Symbolic(engine="symengine"),
    dl.Symbolic("during", limit_seconds=60.0),
    dl.Symbolic(evaluation="c", limit_bytes=4_000_000_000),
]
HERE = [backend for backend in CHOICES if backend.unsupported(dl.MLP.dense([1, 1])) is None]
each_choice = pytest.mark.parametrize("backend", HERE, ids=repr)


def test_labels_tell_choices_apart_and_leave_the_usual_out():
    assert [repr(backend) for backend in CHOICES] == [
        "Symbolic('none')",
        "Symbolic()",
        "Symbolic('during')",
        "Symbolic('during', order='forward')",
        "Symbolic('layerwise')",
        "Symbolic('layerwise', order='forward')",
        "Symbolic(evaluation='c')",
        "Symbolic('during', evaluation='c')",
        "Symbolic('during', evaluation='numba')",
        "Symbolic(evaluation='balls')",
        "Symbolic('during', evaluation='balls')",
        "Symbolic(simplification='factor_terms')",
        "Symbolic('none', engine='symengine')",
        "Symbolic(engine='symengine')",
        "Symbolic('during')",
        "Symbolic(evaluation='c')",
    ]
    assert repr(dl.Symbolic("during", max_ops=9)) == "Symbolic('during')"


@pytest.mark.parametrize("sharing", SHARING)
def test_balls_around_zero_have_squares(sharing):
    """The middle one of three samples is the mean, so that a square is of nothing but a radius."""
    net, x = dl.MLP(1, [dl.BatchNorm(), dl.Dense(1)], loss="squared_error"), np.array([[0.0], [1.0], [2.0]])
    value, gradient = dl.Symbolic(sharing, evaluation="balls").prepare(net).value_and_gradient(net.init(0), x, x)
    truth = dl.reference_gradient(net, net.init(0), x, x)
    assert value == pytest.approx(truth.value, rel=1e-15)
    assert (gradient == truth.gradient).all()


def test_labels_are_calls_that_make_the_same_choices():
    for backend in CHOICES:
        assert repr(eval(repr(backend), {"Symbolic": dl.Symbolic})) == repr(backend)  # noqa: S307


def test_conditions_that_choose_are_written_as_they_are(monkeypatch):
    """SymPy simplified them, which took a minute for three pieces of a maxout."""

    def simplified(*_: object) -> None:
        raise AssertionError("conditions must not be simplified")

    monkeypatch.setattr("sympy.logic.boolalg.simplify_logic", simplified)
    net = dl.MLP(2, [dl.Maxout(1, 3), dl.Dense(2)])
    theta, x, y = net.init(0), np.random.default_rng(0).normal(size=(7, 2)), np.array([0, 1, 0, 1, 1, 0, 0])
    value, gradient = dl.Symbolic("none").prepare(net).value_and_gradient(theta, x, y)
    expected = dl.Backprop().prepare(net).value_and_gradient(theta, x, y)
    assert value == pytest.approx(expected[0], rel=1e-14)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-12, atol=1e-15)


@each_choice
@pytest.mark.parametrize("hidden", ["tanh", "relu", "softplus", "swish"])
def test_every_choice_gives_the_gradient(backend, hidden):
    net = dl.MLP(2, [dl.Dense(2, hidden), dl.Dense(2, "sigmoid"), dl.Dense(2)], l2=0.25)
    rng = np.random.default_rng(0)
    arguments = rng.normal(size=net.n_params), rng.normal(size=(5, 2)), rng.integers(2, size=5)
    prepared, truth = backend.prepare(net), dl.reference_gradient(net, *arguments)
    value, gradient = prepared.value_and_gradient(*arguments)
    assert (np.abs(gradient - truth.gradient) <= prepared.predicted_error(*arguments)).all()
    assert value == pytest.approx(truth.value, rel=1e-14)  # 50 roundings
    assert prepared.value(*arguments) == pytest.approx(value, rel=1e-15)  # two orders of the same sums


@each_choice
def test_what_is_forecast_is_not_exceeded_where_it_is_a_bound(backend):
    for widths in ([2, 3, 2], [2, 2, 2, 2], [3, 4, 3]):
        net = dl.MLP.dense(widths, hidden="tanh")
        facts, forecast = backend.prepare(net).facts, backend.forecast(net)
        if backend.evaluation == "balls":
            assert "gradient_ops" not in facts
        elif "forecast_ops" in forecast:
            assert facts["gradient_ops"] <= forecast["forecast_ops"]
        else:
            assert facts["gradient_tree_ops"] <= FORECAST_FACTOR * forecast["forecast_tree_ops"]


def test_what_simplifies_is_said_and_what_is_left_is_fewer_operations():
    net = dl.MLP.dense([3, 3, 2], hidden="sigmoid")
    plain, factored = (dl.Symbolic(simplification=name).prepare(net).facts for name in ("none", "factor_terms"))
    assert factored["gradient_ops"] < plain["gradient_ops"]
    assert factored["simplify_seconds"] > 0
    assert "simplify_seconds" not in plain


@pytest.mark.parametrize("simplification", ["simplify", "horner"])
def test_slow_simplifications_give_the_gradient_of_a_layer(simplification):
    """Of one unit: two of two inputs take them minutes."""
    net, rng = dl.MLP(1, [dl.Dense(1, "tanh")], "squared_error"), np.random.default_rng(0)
    arguments = rng.normal(size=net.n_params), rng.normal(size=(5, 1)), rng.normal(size=(5, 1))
    prepared, truth = dl.Symbolic(simplification=simplification).prepare(net), dl.reference_gradient(net, *arguments)
    _, gradient = prepared.value_and_gradient(*arguments)
    assert (np.abs(gradient - truth.gradient) <= prepared.predicted_error(*arguments)).all()


@pytest.mark.parametrize("evaluation", ["numpy", "numba", "balls"])
@pytest.mark.parametrize("hidden", sorted(ACTIVATIONS))
def test_what_simplify_makes_of_an_activation_is_evaluated(hidden, evaluation):
    """SymPy brings in functions that no primitive has, hyperbolic ones among them."""
    net, rng = dl.MLP(1, [dl.Dense(1, hidden)], "squared_error"), np.random.default_rng(0)
    arguments = net.init(rng) + 0.25, rng.uniform(0.25, 1, size=(5, 1)), rng.uniform(0.25, 0.5, size=(5, 1))
    prepared = dl.Symbolic(simplification="simplify", evaluation=evaluation).prepare(net)
    value, gradient = prepared.value_and_gradient(*arguments)
    truth = dl.reference_gradient(net, *arguments)
    assert (np.abs(gradient - truth.gradient) <= prepared.predicted_error(*arguments)).all()


@pytest.mark.parametrize("load", [numpy_code.InNumpy, lambda text: straight_lines.InNumba(text, 1)])
def test_a_function_that_is_not_given_is_named_before_anything_runs(load):
    text = (
        "def loss_and_gradient(theta, samples):\n    return [bessel(theta[0])]\n\ndef loss(theta, samples):\n    pass\n"
    )
    with pytest.raises(NotImplementedError, match="functions of expressions must be of .*, got bessel$"):
        load(text)


def test_sums_of_thousands_of_terms_are_written_and_loaded():
    """A penalty is one sum over all weights of a matrix; Python's compiler recurses on its terms."""
    symbols = sympy.symbols("w:3200", real=True)
    loss = sympy.Add(*(w**2 for w in symbols))
    derivation, shared = Derivation(list(symbols), [], loss, []), Shared([], [loss])
    text = "\n".join(numpy_code.source(derivation, shared, shared))
    theta = np.arange(3200.0)
    assert numpy_code.InNumpy(text).loss(theta, np.zeros((0, 1))) == theta @ theta


def test_nodes_are_counted_once_and_operations_of_each():
    net = dl.MLP.dense([2, 2, 2])
    derivation = derive(net)
    nodes = set()
    for expression in (derivation.loss, *derivation.gradient):
        nodes |= {node for node in sympy.preorder_traversal(expression) if node.args and node.is_Boolean is not True}
    found, operations = expressions.graph(derivation)
    assert found == len(nodes)
    assert shared_operations(share(derivation)) <= operations < tree_operations(derivation.gradient)
    doubled = replace(derivation, gradient=derivation.gradient * 2)
    assert expressions.graph(doubled) == (found, operations)


def test_recursion_is_deep_until_the_last_thread_is_done():
    before, is_inside, may_leave = sys.getrecursionlimit(), threading.Event(), threading.Event()

    def derive_slowly():
        with expressions.deep_recursion():
            is_inside.set()
            may_leave.wait(10)

    other = threading.Thread(target=derive_slowly)
    with expressions.deep_recursion():
        other.start()
        assert is_inside.wait(10)
    assert sys.getrecursionlimit() == RECURSION_LIMIT
    may_leave.set()
    other.join()
    assert sys.getrecursionlimit() == before


def test_a_wrong_simplification_is_caught(monkeypatch):
    net, rng = dl.MLP.dense([2, 2, 2], hidden="tanh"), np.random.default_rng(0)
    arguments = rng.normal(size=net.n_params), rng.normal(size=(3, 2)), rng.integers(2, size=3)
    monkeypatch.setitem(expressions.SIMPLIFIERS, "horner", lambda expression: expression * sympy.Rational(1001, 1000))
    prepared = dl.Symbolic(simplification="horner").prepare(net)
    _, gradient = prepared.value_and_gradient(*arguments)
    truth = dl.reference_gradient(net, *arguments)
    assert (np.abs(gradient - truth.gradient) > prepared.predicted_error(*arguments)).any()


def test_in_balls_expressions_are_evaluated_to_the_nearest_float():
    net, *arguments = saturated("tanh", 20.0)
    truth = dl.reference_gradient(net, *arguments)
    for sharing in ("none", "after", "during"):
        prepared = dl.Symbolic(sharing, evaluation="balls").prepare(net)
        value, gradient = prepared.value_and_gradient(*arguments)
        assert (value, gradient.tolist()) == (truth.value, truth.gradient.tolist())
        assert (prepared.predicted_error(*arguments) <= np.spacing(np.abs(gradient))).all()


def test_a_batch_of_coupled_samples_is_evaluated_in_balls_too():
    net, rng = dl.MLP(2, [dl.BatchNorm(), dl.Dense(2)]), np.random.default_rng(0)
    arguments = rng.normal(size=net.n_params), rng.normal(size=(2, 2)), np.array([0, 1])
    _, gradient = dl.value_and_gradient(net, *arguments, dl.Symbolic(evaluation="balls"))
    assert gradient.tolist() == dl.reference_gradient(net, *arguments).gradient.tolist()


PIECEWISE = {
    "two layers of relu": dl.MLP.dense([2, 2, 2, 2], hidden="relu"),
    "two layers of elu": dl.MLP.dense([2, 2, 2, 2], hidden="elu"),
    "maxout": dl.MLP(2, [dl.Maxout(2, 2), dl.Dense(2)]),
    "penalties": dl.MLP(2, [dl.Dense(2, "leaky_relu"), dl.Dense(2)], l1=0.125, l2=0.25),
}


@pytest.mark.parametrize("kind", PIECEWISE)
@pytest.mark.parametrize("evaluation", ["numpy", "numba", "c", "balls"])
def test_symengine_gives_what_is_made_of_pieces(kind, evaluation):
    if evaluation == "numba" and kind != "maxout":
        pytest.skip("Numba takes long to compile many branches")
    net, rng = PIECEWISE[kind], np.random.default_rng(0)
    backend = dl.Symbolic(engine="symengine", evaluation=evaluation)
    if reason := backend.unsupported(net):
        pytest.skip(reason)
    arguments = rng.normal(size=net.n_params), rng.normal(size=(5, 2)), rng.integers(2, size=5)
    prepared, truth = backend.prepare(net), dl.reference_gradient(net, *arguments)
    _, gradient = prepared.value_and_gradient(*arguments)
    assert (np.abs(gradient - truth.gradient) <= prepared.predicted_error(*arguments)).all()


def test_operations_of_penalties_are_among_those_of_the_gradient():
    plain, penalised = (dl.MLP(4, [dl.Dense(8, "tanh"), dl.Dense(3)], l2=l2) for l2 in (0.0, 0.1))
    for backend in (dl.Symbolic("during"), dl.Backprop()):
        before, after = (backend.prepare(net).facts["gradient_ops"] for net in (plain, penalised))
        assert after - before >= 2 * penalised.n_params - 30  # squares summed, and a slope each, but of biases


def test_operations_of_coupled_samples_are_those_of_one():
    net = dl.MLP(2, [dl.Dense(2), dl.BatchNorm(), dl.Dense(2)])
    counts = []
    for batch in (2, 4):
        prepared = dl.Symbolic("during").prepare(net)
        prepared.value(np.full(net.n_params, 0.5), np.arange(2.0 * batch).reshape(batch, 2), np.zeros(batch, int))
        counts.append(prepared.facts["gradient_ops"])
    assert counts[1] < 1.5 * counts[0]


@pytest.mark.parametrize("evaluation", ["numpy", "balls"])
def test_expressions_of_the_last_few_sizes_of_coupled_batches_are_kept(monkeypatch, evaluation):
    """A last batch that is smaller, in every epoch, is derived once."""
    derived, right = list[int](), expressions.derive_batch

    def counted(net, batch, way):
        derived.append(batch)
        return right(net, batch, way)

    for module in (expressions, symbolic_balls):
        monkeypatch.setattr(module, "derive_batch", counted)
    net = dl.MLP(1, [dl.BatchNorm(), dl.Dense(1)], "squared_error")
    prepared, x = dl.Symbolic("during", evaluation=evaluation).prepare(net), 0.3 + np.arange(9.0)[:, None]
    once = [prepared.value(net.init(0), x[:batch], x[:batch]) for batch in (3, 2)]
    assert [prepared.value(net.init(0), x[:batch], x[:batch]) for batch in (3, 2) * 2] == once * 2
    assert derived == [3, 2]
    for batch in range(4, 4 + KEPT_SIZES):
        prepared.value(net.init(0), x[:batch], x[:batch])
    prepared.value(net.init(0), x[:3], x[:3])
    assert derived == [3, 2, *range(4, 4 + KEPT_SIZES), 3]


def test_facts_are_those_of_the_size_last_asked_for():
    net = dl.MLP(1, [dl.BatchNorm(), dl.Dense(1)], "squared_error")
    prepared, x, found = dl.Symbolic("during").prepare(net), np.arange(9.0)[:, None], []
    for batch in (2, 8, 2):
        prepared.value(net.init(0), x[:batch], x[:batch])
        found.append(prepared.facts["source_bytes"])
    assert found[0] == found[2] < found[1]


def test_a_branch_that_no_precision_tells_is_an_error_that_says_so():
    """Pieces of a maxout that are equal, but by numbers that no precision knows."""
    net = dl.MLP(1, [dl.Dense(2, "tanh"), dl.Maxout(1, 2)], "squared_error")
    theta = np.array([1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0])
    arguments = theta, np.array([[0.19]]), np.array([[0.5]])
    with pytest.raises(ArithmeticError, match="no precision tells which branch of the loss of"):
        dl.Symbolic(evaluation="balls").prepare(net).value(*arguments)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"evaluation": "fortran"}, "unknown evaluation 'fortran'; known: balls, c, numba, numpy"),
        ({"simplification": "simplfy"}, "did you mean 'simplify'"),
        ({"engine": "maxima"}, "unknown engine 'maxima'"),
        ({"sharing": "during", "engine": "symengine"}, "engine must be 'sympy' for sharing 'during', got 'symengine'"),
        ({"sharing": "during", "simplification": "horner"}, "simplification must be 'none' for sharing 'during'"),
        ({"engine": "symengine", "simplification": "horner"}, "simplification must be 'none' for engine 'symengine'"),
        ({"limit_seconds": 0}, "limit_seconds must be a number from 0.1 to 1e+06, got 0"),
        ({"limit_seconds": True}, "limit_seconds must be a number from 0.1 to 1e+06, got True"),
        ({"limit_seconds": np.inf}, "limit_seconds must be a number from 0.1 to 1e+06, got inf"),
        ({"limit_seconds": np.nan}, "limit_seconds must be a number from 0.1 to 1e+06, got nan"),
        ({"limit_seconds": "3"}, "limit_seconds must be a number from 0.1 to 1e+06, got '3'"),
        (
            {"limit_bytes": 2**63},
            "limit_bytes must be an integer from 1 to 9223372036854775807, got 9223372036854775808",
        ),
        ({"max_ops": None}, "max_ops must be an integer, 1 or more, got None"),
        ({"limit_bytes": 1.5}, "limit_bytes must be an integer from 1 to 9223372036854775807, got 1.5"),
        ({"limit_seconds": 1.0, "evaluation": "balls"}, "limits must come with evaluation 'numpy' or 'c', got 'balls'"),
    ],
)
def test_choices_that_do_not_go_together_are_refused(options, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        dl.Symbolic(**options)


@pytest.mark.parametrize("seconds", [np.float64(60), np.float32(60), np.int64(60), 60])
def test_numbers_of_numpy_are_limits_like_those_of_python(seconds):
    given = {"limit_seconds": seconds, "limit_bytes": np.int64(4_000_000_000), "max_ops": np.int32(10**6)}
    backend = dl.Symbolic("during", **given)
    assert [type(getattr(backend, name)) for name in given] == [float, int, int]
    assert backend == dl.Symbolic("during", limit_seconds=60.0, limit_bytes=4_000_000_000, max_ops=10**6)
    assert backend.prepare(dl.MLP.dense([1, 2])).facts["gradient_ops"] > 0


def test_an_engine_that_is_not_there_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr("difflab.backends.symbolic.find_spec", lambda name: None)
    with pytest.raises(dl.Unsupported, match=re.escape("symengine is not installed; install it with: pip install")):
        dl.Symbolic(engine="symengine").prepare(dl.MLP.dense([1, 1]))


def test_without_sharing_the_tree_is_computed():
    facts = dl.Symbolic("none").prepare(dl.MLP.dense([2, 3, 2])).facts
    assert facts["gradient_ops"] == facts["gradient_tree_ops"] + facts["own_loss_ops"]


def test_sharing_from_the_start_is_not_refused_for_the_size_of_a_tree():
    net = dl.MLP.dense([64, 32, 10], hidden="tanh")
    assert "forecast" in dl.Symbolic().refusal(net)
    assert dl.Symbolic("during").refusal(net) is None
    assert re.search(r"forecast .* limit 1\.0e\+02$", dl.Symbolic("during", max_ops=100).refusal(net))


# --- what the textbook formulas cannot do: known limitations, measured


def saturated(activation: str, z: float) -> tuple[dl.MLP, np.ndarray, np.ndarray, np.ndarray]:
    net = dl.MLP(1, [dl.Dense(1, activation), dl.Dense(1)], loss="squared_error")
    return net, np.array([z, 0.0, 1.0, 0.0]), np.ones((1, 1)), np.array([[2.0]])


def error_ulp(backend: dl.Backend, activation: str, z: float) -> float:
    net, *arguments = saturated(activation, z)
    _, gradient = backend.prepare(net).value_and_gradient(*arguments, allow_nonfinite=True)
    return dl.discrepancy(gradient, dl.reference_gradient(net, *arguments)).error_ulp_max


def test_the_textbook_sigmoid_overflows_to_nan_where_it_is_saturated():
    """exp(800) / (1 + exp(800))**2 is infinity by infinity; the truth is exp(-800), about 4e-348, that is, 0."""
    assert error_ulp(dl.Symbolic(), "sigmoid", -800.0) == np.inf
    assert error_ulp(dl.Backprop(), "sigmoid", -800.0) <= 1


def test_a_gradient_that_overflows_is_never_returned_unasked():
    net, *arguments = saturated("sigmoid", -800.0)
    words = r"Symbolic\(\) got a loss of 2.0 and 2 of 4 entries not finite, first dense1.weight\[0,0\] = nan"
    with pytest.raises(dl.NotFinite, match=f"^{words}"):
        dl.Symbolic().prepare(net).value_and_gradient(*arguments)


def test_the_textbook_tanh_loses_every_digit_where_it_is_saturated():
    """1 - tanh(z)**2 is a multiple of eps / 2; the truth at 20 is 1.7e-17, so that half of 2**53 ulp are lost."""
    assert error_ulp(dl.Symbolic(), "tanh", 20.0) > 2**50
    assert error_ulp(dl.Backprop(), "tanh", 20.0) < 32


def test_moderate_arguments_lose_nothing():
    assert max(error_ulp(dl.Symbolic(), name, 0.75) for name in ("sigmoid", "tanh", "softplus", "identity")) < 32


def test_every_value_of_the_primal_on_symbols_is_an_expression_of_the_net():
    net = dl.MLP.dense([1, 1], hidden="tanh", loss="squared_error")
    w0, w1, x0, y0 = sympy.symbols("w0 w1 x0 y0")
    made = program_values(net.program, Symbols(), np.array([w0, w1]), np.array([[x0]]), np.array([[y0]]))
    assert made[-1][0] == (w0 * x0 + w1 - y0) ** 2 / 2


def test_conditions_on_parameters_and_on_samples_go_together():
    layers = [
        *(dl.Dense(2, "relu", bias=False), dl.Multiply(1), dl.Dense(1, "relu")),
        *(dl.BatchNorm((0.0,), (2.0,), eps=1.0), dl.Dense(1, "relu")),
    ]
    net = dl.MLP(1, layers, loss="squared_error")
    arguments = np.ones(net.n_params), np.array([[1.0], [2.0]]), np.ones((2, 1))
    _, gradient = dl.value_and_gradient(net, *arguments, dl.Symbolic())
    prepared = dl.Symbolic().prepare(net)
    truth = dl.reference_gradient(net, *arguments)
    assert (np.abs(gradient - truth.gradient) <= prepared.predicted_error(*arguments)).all()
