"""Expressions as C: the numbers of NumPy, no names but our own, and clear words where there is no compiler."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
import sympy

import difflab as dl
from difflab import c_code, expressions
from difflab.backends import symbolic
from difflab.layers import BatchNorm, Dense, Dropout, Elementwise, Maxout, Multiply, Residual, Softmax
from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.losses import LOSSES
from difflab.sharing import Way


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


def evaluators(kind: str, way: str) -> tuple:
    """In NumPy and in C, of the same expressions."""
    derivation = expressions.derive_sample(NETS[kind], WAYS[way])
    parts = derivation, expressions.share(derivation, WAYS[way]), expressions.share_loss(derivation, WAYS[way])
    return expressions.InNumpy(*parts), c_code.InC(*parts)


def problem(kind: str, batch: int = 7) -> tuple[np.ndarray, np.ndarray]:
    net, rng = NETS[kind], np.random.default_rng(0)
    masks = [mask.T for mask in net.program.draw_masks(batch)]
    y = rng.dirichlet(np.ones(net.n_outputs), batch)
    return rng.normal(size=net.n_params), np.concatenate([rng.normal(size=(net.n_inputs, batch)), y.T, *masks])


def disagreement(kind: str, way: str) -> float:
    """Of sums in C and in NumPy, in eps of the largest."""
    numpy, c = evaluators(kind, way)
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


def test_a_wrong_power_is_caught(monkeypatch):
    right = c_code._Printer._print_Pow
    monkeypatch.setattr(c_code._Printer, "_print_Pow", lambda self, e: f"({right(self, e)}*1.001)")
    assert disagreement("softplus", "during") > ROUNDINGS


@pytest.mark.parametrize("power", [-9, -8, -3, -2, -1, 2, 3, 8, 9])
def test_powers_are_what_they_say(power):
    w = sympy.Symbol("w0", real=True)
    derivation = expressions.Derivation([w], [], w**power, [sympy.diff(w**power, w)])
    parts = expressions.Shared([], [derivation.loss, *derivation.gradient]), expressions.Shared([], [derivation.loss])
    value, slope = c_code.InC(derivation, *parts).sums(np.array([1.5]), np.zeros((0, 1)))
    assert value == pytest.approx(1.5**power, rel=8 * EPS)
    assert slope == pytest.approx(power * 1.5 ** (power - 1), rel=8 * EPS)


def test_constants_are_the_nearest_doubles():
    w = sympy.Symbol("w0", real=True)
    for number in (0.1, 1e-310, 5e-324, 1.7e308, 1 / 3):
        derivation = expressions.Derivation([w], [], w * sympy.Rational(number), [sympy.Rational(number)])
        outputs = [derivation.loss, *derivation.gradient]
        parts = expressions.Shared([], outputs), expressions.Shared([], outputs[:1])
        assert c_code.InC(derivation, *parts).sums(np.ones(1), np.zeros((0, 1))).tolist() == [number, number]


OURS = {"void", "loss_and_gradient", "loss", "const", "double", "theta", "samples", "long", "batch", "out", "for", "i"}
FUNCTIONS = {"exp", "log", "tanh", "sqrt", "erfc", "pow", "M_PI", "M_SQRT2", "M_SQRT1_2", "e"}


@each_way
def test_code_holds_no_names_but_our_own(way, monkeypatch):
    sources = []
    right = c_code._compiled
    monkeypatch.setattr(c_code, "_compiled", lambda source, compiler: sources.append(source) or right(source, compiler))
    for kind in ("gelu", "elu", "swish", "maxout", "penalties"):
        evaluators(kind, way)
    names = set(re.findall(r"[A-Za-z_]\w*", "".join(source.split("\n", 1)[1] for source in sources)))
    assert {name for name in names - OURS - FUNCTIONS if not re.fullmatch(r"[vx]\d+", name)} == set()


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
