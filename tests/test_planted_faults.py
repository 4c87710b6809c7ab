"""Every checker is itself checked: faults planted into the sweeps that it must catch, and no false alarm without."""

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import naive
import numba
import numpy as np
import pytest
from flint import arb

import difflab as dl
from difflab.backends import certified
from difflab.kernels import sweeps
from difflab.number_systems import ball_precision
from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.losses import LOSSES


# --- Backprop, judged by the certified reference ---

NET = dl.MLP.dense([3, 3, 3, 3], hidden="tanh", loss="softmax_cross_entropy")
RELU_NET = dl.MLP.dense([3, 4, 2], hidden="relu", loss="squared_error")

Problem = tuple[np.ndarray, np.ndarray, np.ndarray]


def problem(net: dl.MLP) -> Problem:
    return naive.random_problem(net, np.random.default_rng(5), 4)


A = "block(values, batch, row[OUTPUT], row[WIDTH])"
EDITS = {
    "rule off by 0.1 %": ("a_bar[i] * derivative(np.float64(z[i]))", "a_bar[i] * derivative(np.float64(z[i])) * 1.001"),
    "transposed weight": ("np.dot(z_bar, weight, product", "np.dot(z_bar, weight.T, product"),
    "missing bias": ("bias_bar[j] += z_bar[i, j]", "pass"),
    "missing weight": ("weight_bar[i] += product[i]", "pass"),
    "missing cotangent": ("a_bar[i] += product[i]", "pass"),
    "sum for mean": ("z_bar[i, k] /= parts", "pass"),
    "stale cotangents": ("    cotangents[:] = 0\n", ""),
    "stale gradient": ("    gradient[:] = 0\n", ""),
    "bias of the first sample alone": ("bias_bar[j] += z_bar[i, j]", "bias_bar[j] += z_bar[0, j]"),
    "slope at the activation's value": ("_reverse(row[FUNCTION], z, a_bar", f"_reverse(row[FUNCTION], {A}, a_bar"),
}


@pytest.fixture
def plain_python(monkeypatch) -> Callable[..., ModuleType]:
    """Builds the sweeps anew as plain Python, one piece of their source replaced."""
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    source = Path(sweeps.__file__).read_text()

    def build(right: str = "", wrong: str = "") -> ModuleType:
        assert not right or source.count(right) == 1, f"{right!r} must occur once in sweeps.py"
        spec = importlib.util.spec_from_loader("planted", loader=None)
        module = importlib.util.module_from_spec(spec)
        exec(compile(source.replace(right, wrong) if right else source, sweeps.__file__, "exec"), module.__dict__)
        return module

    return build


def is_caught(net: dl.MLP, arguments: Problem, planted: ModuleType) -> bool:
    """Whether the judge finds a gradient of the planted sweeps wrong, at the second call on used memory."""
    prepared = dl.Backprop().prepare(net)
    prepared._sweeps = planted
    out = np.zeros(net.n_params)
    for _ in range(2):
        value, gradient = prepared.value_and_gradient(*arguments, out=out)
    reference = dl.reference_gradient(net, *arguments)
    found = dl.discrepancy(gradient, reference)
    return found.error_relative > naive.predicted(prepared, reference, *arguments)


@pytest.mark.parametrize("net", [NET, RELU_NET], ids=str)
def test_sweeps_without_a_fault_satisfy_the_judge(plain_python, net):
    assert not is_caught(net, problem(net), plain_python())


@pytest.mark.parametrize("fault", EDITS)
def test_a_fault_in_the_sweeps_is_caught(plain_python, fault):
    assert is_caught(NET, problem(NET), plain_python(*EDITS[fault]))


Rule = Callable[[float], float]


@pytest.fixture
def with_slope(monkeypatch, plain_python) -> Callable[[Callable[[Rule], Rule]], ModuleType]:
    """Builds the sweeps with another derivative of relu; the table is as before afterwards."""

    def build(wrong: Callable[[Rule], Rule]) -> ModuleType:
        row = ACTIVATIONS["relu"]
        with monkeypatch.context() as planting:
            planting.setitem(ACTIVATIONS, "relu", replace(row, derivative=wrong(row.derivative)))
            return plain_python()

    return build


SLOPE_FAULTS = {
    "off by 0.1 %": lambda rule: lambda z: 1.001 * rule(z),
    "off by a billionth": lambda rule: lambda z: (1 + 1e-9) * rule(z),
    "of the other side": lambda rule: lambda z: rule(-z),
    "left out": lambda rule: lambda z: 1.0,
}


def test_an_error_where_the_truth_is_zero_is_infinite_in_ulp_and_no_warning():
    theta, x, y = problem(RELU_NET)
    reference = dl.reference_gradient(RELU_NET, theta, x, y)
    assert (reference.gradient == 0).any()
    assert dl.discrepancy(reference.gradient + 1.0, reference).error_ulp_max == np.inf


@pytest.mark.parametrize("fault", SLOPE_FAULTS)
def test_a_wrong_slope_of_relu_is_caught(with_slope, fault):
    assert is_caught(RELU_NET, problem(RELU_NET), with_slope(SLOPE_FAULTS[fault]))


def kink_problem() -> Problem:
    """Zero biases and a zero sample: every pre-activation of the hidden layer is exactly 0."""
    theta, x, y = problem(RELU_NET)
    RELU_NET.view(theta)["dense1.bias"][:] = 0
    return theta, np.zeros_like(x), y


def gradient_at_kink(planted: ModuleType) -> np.ndarray:
    prepared = dl.Backprop().prepare(RELU_NET)
    prepared._sweeps = planted
    return prepared.value_and_gradient(*kink_problem())[1]


def test_the_wrong_side_of_a_kink_differs_from_the_convention_and_stays_between_the_slopes(plain_python, with_slope):
    reference = dl.reference_gradient(RELU_NET, *kink_problem())
    kinks = reference.status == "kink"
    assert kinks.any()
    right = gradient_at_kink(plain_python())
    planted = with_slope(lambda rule: lambda z: 1.0 if z >= 0 else 0.0)
    wrong = gradient_at_kink(planted)
    assert (right[kinks] == reference.gradient[kinks]).all()
    assert (wrong[kinks] != reference.gradient[kinks]).all()
    assert not is_caught(RELU_NET, kink_problem(), planted)


@pytest.mark.parametrize("slope", [-0.5, 1.5])
def test_a_slope_outside_of_both_sides_of_a_kink_is_caught(plain_python, with_slope, slope):
    assert not is_caught(RELU_NET, kink_problem(), plain_python())
    planted = with_slope(lambda rule: lambda z: slope if z == 0 else rule(z))
    assert is_caught(RELU_NET, kink_problem(), planted)


LOSS_FAULTS = {
    "cotangent off by 0.1 %": lambda z_bar: 1.001 * z_bar,
    "cotangent with its sign turned": lambda z_bar: -z_bar,
    "cotangents of neighbours": lambda z_bar: np.roll(z_bar, 1),
}


@pytest.mark.parametrize("net", [NET, RELU_NET], ids=lambda net: net.loss)
@pytest.mark.parametrize("fault", LOSS_FAULTS)
def test_a_wrong_loss_rule_is_caught(plain_python, monkeypatch, net, fault):
    row = LOSSES[net.loss]

    def wrong(z: np.ndarray, y: np.ndarray, z_bar: np.ndarray) -> float:
        loss = row.value_and_cotangent(z, y, z_bar)
        z_bar[:] = LOSS_FAULTS[fault](z_bar)
        return loss

    with monkeypatch.context() as planting:
        planting.setitem(LOSSES, net.loss, replace(row, value_and_cotangent=wrong))
        planted = plain_python()
    assert is_caught(net, problem(net), planted)


def test_one_wrong_class_is_caught(plain_python):
    theta, x, y = naive.random_problem(NET, np.random.default_rng(6), 4)
    y = np.arange(4) % 3
    prepared, reference = dl.Backprop().prepare(NET), dl.reference_gradient(NET, theta, x, y)
    for labels, wrong in ((y, False), (np.array([0, 1, 2, 1]), True)):
        value, gradient = prepared.value_and_gradient(theta, x, labels)
        error = dl.discrepancy(gradient, reference).error_relative
        assert (error > naive.predicted(prepared, reference, theta, x, labels)) == wrong


# --- Certified, judged by central differences at 80 digits ---


def is_refuted(net: dl.MLP, arguments: Problem) -> bool:
    """Whether some derivative by 80-digit differences lies outside of its proven enclosure."""
    enclosed = dl.Certified().prepare(net).enclose(*arguments)
    truth = naive.central_difference_80_digits(net, *arguments)
    return not all(map(may_be, truth, enclosed.gradient, enclosed.residual))


def may_be(derivative: object, gradient: float, residual: float) -> bool:
    """Whether gradient + residual is the derivative, to the 53 bits of the residual and the 1e-40 of the difference."""
    with ball_precision(300):
        distance = abs(arb(gradient) + arb(residual) - arb(derivative))
        return bool(distance <= abs(residual) * 2.0**-52 + 1e-40)


def cotangent_scaled(factor: float) -> Callable:
    """The rule, its contribution to the cotangent of its input times ``factor``."""

    def plant(rule: Callable) -> Callable:
        def wrong(instruction, theta, made, cotangents, bar, gradient, series):
            source = instruction.inputs[0]
            before = cotangents[source]
            rule(instruction, theta, made, cotangents, bar, gradient, series)
            cotangents[source] = before + (cotangents[source] - before) * factor

        return wrong

    return plant


def without_bias(rule: Callable) -> Callable:
    def wrong(instruction, theta, made, cotangents, bar, gradient, series):
        rule(instruction, theta, made, cotangents, bar, gradient, series)
        instruction.parameters[1].of(gradient)[...] = arb(0)

    return wrong


def with_transposed_weight(rule: Callable) -> Callable:
    def wrong(instruction, theta, made, cotangents, bar, gradient, series):
        turned, weight = theta.copy(), instruction.parameters[0]
        weight.of(turned)[...] = weight.of(theta).T
        rule(instruction, turned, made, cotangents, bar, gradient, series)

    return wrong


CERTIFIED_FAULTS = {
    "activation's slope off by a millionth": ("activation", cotangent_scaled(1 + 1e-6)),
    "bias dropped": ("affine", without_bias),
    "weight transposed": ("affine", with_transposed_weight),
    "loss's slope off by a millionth": ("loss", cotangent_scaled(1 + 1e-6)),
    "loss's slope off by 2**-60": ("loss", cotangent_scaled(arb(1) + arb(2) ** -60)),
}


def certified_problem(loss: str) -> tuple[dl.MLP, Problem]:
    net = dl.MLP(3, [dl.Dense(3, "tanh"), dl.Dense(3, "softplus"), dl.Dense(3)], loss)
    return net, naive.random_problem(net, np.random.default_rng(8), 3)


@pytest.mark.parametrize("loss", LOSSES)
def test_certified_without_a_fault_satisfies_the_differences(loss):
    assert not is_refuted(*certified_problem(loss))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("fault", CERTIFIED_FAULTS)
def test_a_fault_in_certified_is_refuted(monkeypatch, fault, loss):
    rule, plant = CERTIFIED_FAULTS[fault]
    monkeypatch.setitem(certified._RULES, rule, plant(certified._RULES[rule]))
    assert is_refuted(*certified_problem(loss))


def test_certified_survives_the_differences_on_random_networks():
    for seed in range(25):
        rng = np.random.default_rng(seed)
        net = naive.random_network(rng)
        assert not is_refuted(net, naive.random_problem(net, rng, 2)), (seed, net)
