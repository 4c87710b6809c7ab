"""Calls bound to arrays: those of the prepared network, at whatever the arrays hold by then."""

import gc

import naive
import numpy as np
import pytest
from test_modes import NETS, each_kind, problem

import difflab as dl
from difflab.backends.backprop import PreparedBackprop
from difflab.primitives.activations import ACTIVATIONS


OPTIONS = [{}, {"dtype": "float32"}, {"threads": 2}, {"mode": "reproducible"}]
each_option = pytest.mark.parametrize("options", OPTIONS, ids=str)


pytestmark = pytest.mark.usefixtures("threads_at_once")


def arguments(kind: str, batch: int, dtype: str) -> list[np.ndarray]:
    """Of their own, to be changed."""
    return [np.array(a) for a in problem(kind, batch, dtype)]


@each_option
@each_kind
def test_they_have_the_bits_of_the_calls_with_arguments(kind, options):
    for batch in (1, 33, 300):
        prepared = dl.Backprop(**options).prepare(NETS[kind])
        given = arguments(kind, batch, options.get("dtype", "float64"))
        out = np.empty_like(given[0])
        bound = prepared.bound_to(*given, out)
        expected = prepared.value_and_gradient(*given)
        value, gradient = bound.value_and_gradient()
        assert gradient is out
        assert (value, gradient.tobytes(), bound.value()) == (
            expected[0],
            expected[1].tobytes(),
            prepared.value(*given),
        )


@each_option
@each_kind
def test_they_follow_their_arrays_whatever_else_is_called(kind, options):
    prepared, rng = dl.Backprop(**options).prepare(NETS[kind]), np.random.default_rng(0)
    theta, x, y = arguments(kind, 33, options.get("dtype", "float64"))
    bound = prepared.bound_to(theta, x, y)
    for _ in range(3):
        theta += rng.normal(size=theta.shape).astype(theta.dtype) / 8
        x *= 0.75
        y[:] = y[::-1].copy()
        prepared.value_and_gradient(*problem(kind, 7, theta.dtype.name))
        value, gradient = bound.value_and_gradient()
        fresh = dl.Backprop(**options).prepare(NETS[kind])
        expected = fresh.value_and_gradient(theta, x, y)
        assert (value, gradient.tobytes()) == (expected[0], expected[1].tobytes())
        assert bound.value() == fresh.value(theta, x, y)


@pytest.mark.parametrize("targets", ["classes", "rows"])
def test_plain_arrays_are_never_looked_at_again(monkeypatch, targets):
    theta, x, y = of_classes(300)
    bound = dl.Backprop().prepare(CLASSIFIER).bound_to(theta, x, y if targets == "classes" else np.eye(2)[y])
    monkeypatch.setattr(PreparedBackprop, "value_and_gradient", lambda *_: pytest.fail("looked at"))
    monkeypatch.setattr(PreparedBackprop, "value", lambda *_: pytest.fail("looked at"))
    first = bound.value_and_gradient()[0]
    assert [bound.value_and_gradient()[0] for _ in range(3)] == [bound.value() for _ in range(3)] == [first] * 3


CLASSIFIER = dl.MLP.dense([3, 4, 2])


def of_classes(batch: int = 6) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [CLASSIFIER.init(0), rng.normal(size=(batch, 3)), rng.integers(2, size=batch)]


def changed(index: int, place: object, number: float, words: str):
    return pytest.param(index, place, number, words, id=words)


@pytest.mark.parametrize(
    ("index", "place", "number", "words"),
    [
        changed(0, 5, np.nan, "theta must be finite"),
        changed(1, (2, 1), np.inf, "x must be finite"),
        changed(2, 3, 2, "class indices y must be from 0 to 1"),
        changed(2, 3, -1, "class indices y must be from 0 to 1"),
    ],
)
def test_what_arrays_hold_is_looked_at_by_every_call(index, place, number, words):
    given = of_classes()
    bound = dl.Backprop().prepare(CLASSIFIER).bound_to(*given)
    before = bound.value_and_gradient()[0]
    kept = given[index][place].copy()
    given[index][place] = number
    for call in (bound.value, bound.value_and_gradient):
        with pytest.raises(ValueError, match=words):
            call()
    given[index][place] = kept
    assert bound.value_and_gradient()[0] == bound.value() == before


def test_what_overflows_is_an_error_of_the_call():
    net = dl.MLP.dense([3, 2], loss="squared_error")
    theta, x, y = naive.random_problem(net, np.random.default_rng(0), 4)
    bound = dl.Backprop().prepare(net).bound_to(theta, x, y)
    x[:] = 1e300
    with pytest.raises(FloatingPointError, match="got a loss of inf"):
        bound.value_and_gradient()


UNUSUAL = {
    "strided": lambda theta, x, y: (np.repeat(theta, 2)[::2], np.asfortranarray(x), np.repeat(y, 2)[::2]),
    "of narrow classes": lambda theta, x, y: (theta, x, y.astype(np.int32)),
    "read-only": lambda theta, x, y: tuple(map(read_only, (theta, x, y))),
}


def read_only(a: np.ndarray) -> np.ndarray:
    a = a.copy()
    a.flags.writeable = False
    return a


@pytest.mark.parametrize("how", UNUSUAL)
def test_unusual_arrays_are_taken_too(how):
    given = UNUSUAL[how](*of_classes())
    value, gradient = dl.Backprop().prepare(CLASSIFIER).bound_to(*given).value_and_gradient()
    expected = dl.Backprop().prepare(CLASSIFIER).value_and_gradient(*of_classes())
    assert (value, gradient.tobytes()) == (expected[0], expected[1].tobytes())


def test_arrays_that_are_no_arguments_are_refused_when_they_are_bound():
    theta, x, y = of_classes()
    with pytest.raises(ValueError, match="theta must have shape"):
        dl.Backprop().prepare(CLASSIFIER).bound_to(theta[1:], x, y)


def test_arrays_and_workspace_live_as_long_as_the_calls():
    expected = dl.Backprop().prepare(CLASSIFIER).value_and_gradient(*of_classes())
    bounds = [dl.Backprop().prepare(CLASSIFIER).bound_to(*of_classes()) for _ in range(50)]
    gc.collect()
    scribbled = [np.full(CLASSIFIER.n_params, np.nan) for _ in range(200)]
    for bound in bounds:
        value, gradient = bound.value_and_gradient()
        assert (value, gradient.tobytes()) == (expected[0], expected[1].tobytes())
    assert len(scribbled) == 200


def failing(z: float) -> float:
    if z > 100.0:
        raise ValueError("planted")
    return z


@pytest.mark.parametrize("options", [{}, {"threads": 2}], ids=str)
def test_after_an_error_in_a_rule_they_begin_at_their_arrays_again(monkeypatch, options):
    """Samples come from amidst an array, so that reading on from where an error was met would give a number."""
    row = dl.Activation("failing", expression=lambda m, z: z, value=failing, derivative=lambda z: 1.0)
    monkeypatch.setitem(ACTIVATIONS, "failing", row)
    net, rng = dl.MLP(2, [dl.Dense(2, "failing"), dl.Dense(2)]), np.random.default_rng(0)
    theta, x, y = net.init(0), rng.normal(size=(9000, 2))[3000:6000], rng.integers(2, size=3000)
    prepared = dl.Backprop(**options).prepare(net)
    bound, good = prepared.bound_to(theta, x, y), x[2500].copy()
    value, gradient = prepared.value_and_gradient(theta, x, y)
    for call in (bound.value, bound.value_and_gradient):
        x[2500] = 1e6 * np.sign(theta[:2])
        with pytest.raises((ArithmeticError, ValueError), match="a rule raised an error|planted"):
            call()
        x[2500] = good
        assert bound.value() == pytest.approx(value, rel=1e-13)
        found = bound.value_and_gradient()
        assert found[0] == pytest.approx(value, rel=1e-13)
        np.testing.assert_allclose(found[1], gradient, rtol=1e-11, atol=1e-13)
