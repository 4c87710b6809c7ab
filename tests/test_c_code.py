"""Expressions as C and as loops for Numba: the numbers of NumPy, no names but our own, and clear words without them."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import sympy

import difflab as dl
from difflab.backends import symbolic
from difflab.derivation import c_code, expressions, generation, loop_code, numpy_code, scalar_code
from difflab.derivation.sharing import Way
from difflab.derivation.straight_lines import InNumba
from difflab.layers import BatchNorm, Dense, Dropout, Elementwise, Maxout, Multiply, Residual, Softmax
from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.losses import LOSSES


pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="a C compiler called cc is not there")
EPS = 2.0**-52
NETS = {
    **{name: dl.MLP.dense([2, 2, 2], hidden=name) for name in ACTIVATIONS},
    **{f"loss {name}": dl.MLP(2, [Dense(2), Softmax()], loss=name) for name in LOSSES},
    "penalties": dl.MLP(2, [Dense(2, "tanh")], l1=0.25, l2=0.5),
    "maxout": dl.MLP(2, [Maxout(2, pieces=3)]),
    "products": dl.MLP(2, [Dense(4), Multiply(2)]),
    "dropout": dl.MLP(2, [Dense(3, "tanh"), Dropout(0.5, seed=1), Dense(2)]),
    "batch norm in inference": dl.MLP(2, [BatchNorm((0.5, -0.2), (0.3, 2.0)), Elementwise("tanh")]),
    "skip": dl.MLP(2, [Residual((Dense(2, "tanh"),)), Dense(2)]),
}
WAYS = {"after": Way(), "during": Way("during")}
each_net = pytest.mark.parametrize("kind", NETS)
each_way = pytest.mark.parametrize("way", WAYS)


LANGUAGES = {"c": c_code, "numba": loop_code}
each_language = pytest.mark.parametrize("language", LANGUAGES)


def in_c(*parts) -> c_code.InC:
    return c_code.InC(c_code.library("\n".join(c_code.source(*parts)), "cc"), len(parts[1].outputs))


def in_numba(*parts) -> InNumba:
    return InNumba("\n".join(loop_code.source(*parts)), len(parts[1].outputs))


MADE = {"c": in_c, "numba": in_numba}


def expressions_of(kind: str, way: str) -> tuple:
    derivation = expressions.derive_sample(NETS[kind], WAYS[way])
    return derivation, expressions.share(derivation, WAYS[way]), expressions.share_loss(derivation, WAYS[way])


def evaluators(kind: str, way: str, language: str = "c") -> tuple:
    """In NumPy and in another language, of the same expressions."""
    parts = expressions_of(kind, way)
    return numpy_code.InNumpy("\n".join(numpy_code.source(*parts))), MADE[language](*parts)


def problem(kind: str, batch: int = 7) -> tuple[np.ndarray, np.ndarray]:
    net, rng = NETS[kind], np.random.default_rng(0)
    masks = [mask.T for mask in net.program.draw_masks(batch)]
    y = rng.dirichlet(np.ones(net.n_outputs), batch)
    return rng.normal(size=net.n_params), np.concatenate([rng.normal(size=(net.n_inputs, batch)), y.T, *masks])


def disagreement(kind: str, way: str, language: str = "c") -> float:
    """Of sums in another language and in NumPy, in eps of the largest."""
    numpy, c = evaluators(kind, way, language)
    arguments = problem(kind)
    expected = numpy.sums(*arguments)
    difference = np.append(c.sums(*arguments) - expected, c.loss(*arguments) - numpy.loss(*arguments))
    return float(np.abs(difference).max() / np.abs(expected).max() / EPS)


ROUNDINGS = 64
"""Of functions of the C library, of NumPy's own, and of sums in another order."""


@each_net
@each_way
def test_sums_are_those_of_numpy(kind, way):
    assert disagreement(kind, way) <= ROUNDINGS


@pytest.mark.parametrize("kind", ["tanh", "gelu", "elu", "maxout", "penalties", "dropout"])
def test_sums_of_numba_are_those_of_numpy(kind):
    """A few networks, since each takes a second to compile."""
    assert disagreement(kind, "during", "numba") <= ROUNDINGS


@each_language
def test_a_wrong_power_is_caught(monkeypatch, language):
    right = scalar_code.ScalarPrinter._print_Pow
    monkeypatch.setattr(scalar_code.ScalarPrinter, "_print_Pow", lambda self, e: f"({right(self, e)}*1.001)")
    assert disagreement("softplus", "during", language) > ROUNDINGS


@each_language
@pytest.mark.parametrize("power", [-9, -3, -1, 2, 8, 9])
def test_powers_are_what_they_say(power, language):
    w = sympy.Symbol("w0", real=True)
    derivation = expressions.Derivation([w], [], w**power, [sympy.diff(w**power, w)])
    parts = expressions.Shared([], [derivation.loss, *derivation.gradient]), expressions.Shared([], [derivation.loss])
    value, slope = MADE[language](derivation, *parts).sums(np.array([1.5]), np.zeros((0, 1)))
    assert value == pytest.approx(1.5**power, rel=8 * EPS)
    assert slope == pytest.approx(power * 1.5 ** (power - 1), rel=8 * EPS)


def test_constants_are_the_nearest_doubles():
    w = sympy.Symbol("w0", real=True)
    for number in (0.1, 1e-310, 5e-324, 1.7e308, 1 / 3):
        derivation = expressions.Derivation([w], [], w * sympy.Rational(number), [sympy.Rational(number)])
        outputs = [derivation.loss, *derivation.gradient]
        parts = expressions.Shared([], outputs), expressions.Shared([], outputs[:1])
        assert in_c(derivation, *parts).sums(np.ones(1), np.zeros((0, 1))).tolist() == [number, number]


@each_language
@pytest.mark.parametrize("power", ["1/2", "-1/2", "3/2", "-3/2", "1/3"])
def test_roots_are_what_they_say_and_of_what_overflowed_nothing_is_known(power, language):
    w, power = sympy.Symbol("w0", real=True), sympy.Rational(power)
    parts = expressions.Shared([], [(w**2 + 1) ** power]), expressions.Shared([], [(w**2 + 1) ** power])
    evaluator = MADE[language](expressions.Derivation([w], [], w, []), *parts)
    assert evaluator.loss(np.array([2.0]), np.zeros((0, 1))) == pytest.approx(5 ** float(power), rel=8 * EPS)
    assert np.isnan(evaluator.loss(np.array([1e200]), np.zeros((0, 1))))


OURS = {"loss_and_gradient", "loss", "theta", "samples", "batch", "out", "for", "i"}
FUNCTIONS = {"exp", "log", "tanh", "sqrt", "erfc", "e"}


OF_LANGUAGES = {
    "c": {"void", "const", "double", "long", "int", "M_PI", "M_SQRT2", "M_SQRT1_2", "pow"},
    "numba": {"def", "in", "range", "shape", "if", "else", "pi"},
    "numpy": {
        "def",
        "return",
        "select",
        "less",
        "less_equal",
        "greater",
        "greater_equal",
        "nan",
        "default",
        "True",
        "pi",
    }
    | {"logical_and", "logical_or", "logical_not", "reduce"},
}


@each_way
@pytest.mark.parametrize("language", OF_LANGUAGES)
def test_code_holds_no_names_but_our_own(way, language):
    source = {**LANGUAGES, "numpy": numpy_code}[language].source
    text = "".join(
        "".join(source(*expressions_of(kind, way))) for kind in ("gelu", "elu", "swish", "maxout", "penalties")
    )
    names = set(re.findall(r"[A-Za-z_]\w*", text)) - OURS - FUNCTIONS - OF_LANGUAGES[language]
    assert {name for name in names if not re.fullmatch(r"[wxyvs]\d+", name)} == set()


@pytest.mark.parametrize("evaluation", ["numpy", "numba", "c"])
def test_names_of_a_user_that_are_code_elsewhere_are_none_here(monkeypatch, evaluation):
    """A weight that is shared by name, and an activation of one's own with its parameter."""
    row = replace(ACTIVATIONS["swish"], name="exit", parameter="import_os")
    monkeypatch.setitem(ACTIVATIONS, "exit", row)
    net = dl.MLP(2, [Dense(2, "exit", share="system"), Dense(2, "tanh", share="system"), Dense(2)])
    assert {"system.weight", "system.bias"} <= {parameter.name for parameter in net.parameters}
    assert any("import_os" in parameter.name for parameter in net.parameters)
    for sharing in ("none", "after", "during", "layerwise"):
        recipe = generation.Recipe("sample", 1, Way(sharing), evaluation)
        text = generation.generate(net, recipe).text
        assert not re.search("exit|import|system", text)


def test_without_a_compiler_c_is_refused_in_one_sentence(monkeypatch):
    monkeypatch.setattr(symbolic, "COMPILER", "no-such-compiler")
    net = NETS["tanh"]
    with pytest.raises(dl.Unsupported, match="a C compiler called no-such-compiler is not there; install one"):
        dl.Symbolic(evaluation="c").prepare(net)
    assert dl.Symbolic().unsupported(net) is None


def test_what_the_compiler_says_is_passed_on(monkeypatch):
    monkeypatch.setattr(c_code, "FLAGS", ("-shared", "-DM_PI=)", "-no-such-flag"))
    with pytest.raises(RuntimeError, match="cc must compile what SymPy writes, got .*no-such-flag"):
        evaluators("tanh", "during")


def test_samples_that_are_not_contiguous_are_read_as_they_are_meant():
    numpy, c = evaluators("tanh", "during")
    theta, samples = problem("tanh")
    assert c.sums(theta, np.asfortranarray(samples)).tolist() == c.sums(theta, samples).tolist()
    assert c.sums(theta[::-1], samples) == pytest.approx(numpy.sums(theta[::-1], samples), rel=1e-13)
