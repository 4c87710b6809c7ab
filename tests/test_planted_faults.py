"""Every checker is itself checked: faults planted into the sweeps that it must catch, and no false alarm without."""

import sys
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
from difflab import kernels
from difflab.enclosures import sweep as ball_sweep
from difflab.kernels import rules, sweeps
from difflab.number_systems import ball_precision
from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.losses import LOSSES


# --- Backprop, judged by the certified reference ---

NET = dl.MLP.dense([3, 3, 3, 3], hidden="tanh", loss="softmax_cross_entropy")
RELU_NET = dl.MLP.dense([3, 4, 2], hidden="relu", loss="squared_error")

Problem = tuple[np.ndarray, np.ndarray, np.ndarray]


def problem(net: dl.MLP) -> Problem:
    return naive.random_problem(net, np.random.default_rng(5), 4)


Edit = tuple[str, str]
BLOCK = "block(state.values, state.batch, row[OUTPUT], row[WIDTH])"
EDITS: dict[str, Edit] = {
    "rule off by 0.1 %": ("a_bar[i] * derivative(np.float64(z[i]))", "a_bar[i] * derivative(np.float64(z[i])) * 1.001"),
    "transposed weight": ("np.dot(z_bar, weight, product", "np.dot(z_bar, weight.T, product"),
    "missing bias": ("bias_bar[j] += z_bar[i, j]", "pass"),
    "missing weight": ("weight_bar[i] += product[i]", "pass"),
    "missing cotangent": ("a_bar[i] += product[i]", "pass"),
    "sum for mean": ("z_bar[i, k] /= state.parts", "pass"),
    "stale cotangents": ("    cotangents[:] = 0\n", ""),
    "stale gradient": ("    gradient[:] = 0\n", ""),
    "bias of the first sample alone": ("bias_bar[j] += z_bar[i, j]", "bias_bar[j] += z_bar[0, j]"),
    "slope at the activation's value": ("_reverse(row[FUNCTION], z, a_bar", f"_reverse(row[FUNCTION], {BLOCK}, a_bar"),
}


def rebuilt(original: ModuleType, edit: Edit | tuple, planting: pytest.MonkeyPatch) -> ModuleType:
    """A module made anew from its source, in its own place while planting, one piece replaced if it has that piece."""
    source = Path(original.__file__).read_text()
    module = ModuleType(original.__name__)
    planting.setitem(sys.modules, original.__name__, module)
    planting.setattr(kernels, original.__name__.rpartition(".")[2], module)
    exec(compile(source.replace(*edit) if edit else source, original.__file__, "exec"), module.__dict__)
    return module


@pytest.fixture
def plain_python(monkeypatch) -> Callable[..., ModuleType]:
    """Builds the rules and the sweeps anew as plain Python, one piece of their sources replaced."""
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)

    def build(*edit: str) -> ModuleType:
        occurrences = sum(Path(module.__file__).read_text().count(edit[0]) for module in (rules, sweeps) if edit)
        assert occurrences == bool(edit), f"{edit[0]!r} must occur once in rules.py and sweeps.py"
        with monkeypatch.context() as planting:
            rebuilt(rules, edit, planting)
            return rebuilt(sweeps, edit, planting)

    return build


def is_caught(net: dl.MLP, arguments: Problem, planted: ModuleType) -> bool:
    """Whether the judge finds a gradient of the planted sweeps wrong, at the second call on used memory."""
    prepared = dl.Backprop().prepare(net)
    prepared._sweeps = planted
    out = np.zeros(net.n_params)
    with np.errstate(all="ignore"):
        for _ in range(2):
            value, gradient = prepared.value_and_gradient(*arguments, out=out, allow_nonfinite=True)
    reference = dl.reference_gradient(net, *arguments)
    found = dl.discrepancy(gradient, reference)
    return found.error_relative > naive.predicted(prepared, reference, *arguments)


@pytest.mark.parametrize("net", [NET, RELU_NET], ids=str)
def test_sweeps_without_a_fault_satisfy_the_judge(plain_python, net):
    assert not is_caught(net, problem(net), plain_python())


@pytest.mark.parametrize("fault", EDITS)
def test_a_fault_in_the_sweeps_is_caught(plain_python, fault):
    assert is_caught(NET, problem(NET), plain_python(*EDITS[fault]))


# --- every rule of the sweeps ---

D = dl.Dense
STATISTICS = dl.BatchNorm((0.5, -0.25, 0.0), (2.0, 0.5, 1.0))
NETS = {
    "affine": dl.MLP(3, [D(3, "tanh", share="tied"), D(3, "tanh", share="tied"), D(2)]),
    "without bias": dl.MLP(3, [D(3, "tanh", bias=False), D(2)]),
    "activation": dl.MLP(3, [D(3, "prelu"), D(3, "elu(0.5)"), D(2)]),
    "one slope for all": dl.MLP(3, [D(3), dl.Elementwise("prelu", per_unit=False), D(2)]),
    "add": dl.MLP(3, [D(3, "tanh"), dl.Residual([D(3, "tanh")]), D(2)]),
    "multiply": dl.MLP(3, [D(6), dl.Multiply(2)], "squared_error"),
    "maxout": dl.MLP(3, [D(2, "tanh"), dl.Maxout(3, 3), D(2)]),
    "softmax": dl.MLP(3, [D(3), dl.Softmax()], "kl_divergence"),
    "batch_norm": dl.MLP(3, [D(3, "tanh"), dl.BatchNorm(), D(2)]),
    "batch_norm_inference": dl.MLP(3, [D(3, "tanh"), STATISTICS, D(2)]),
    "dropout": dl.MLP(3, [D(6, "tanh"), dl.Dropout(0.4, seed=2), D(2)]),
    "label_smoothing": dl.MLP(3, [D(3)], label_smoothing=0.1),
    "loss": dl.MLP(3, [D(3)]),
    "sum": dl.MLP(3, [D(3)], reduction="sum"),
    "penalty": dl.MLP(3, [D(2, "tanh"), D(3)], l1=0.01, l2=0.1),
}

SLOPE = "p_bar[k] += a_bar[i] * parameter_derivative(np.float64(z[i]), p[k])"
SOFTMAX = "z_bar[i, k] += a[i, k] * ((a_bar[i, k] - top) - mean)"
NORM = "(a_bar[i, j] - share * total - normal * (share * dot))"
PRODUCT = "z_bar[j * n + k] += before[k] * after"
WINNER = "z_bar[j * n + _first_largest(z[j * n : (j + 1) * n])] += a_bar[j]"
PENALTY = "state.gradient[k] += l1 * np.sign(w) + l2 * w"
RULE_FAULTS: dict[str, tuple[str, Edit]] = {
    "shared weight overwritten": ("affine", ("weight_bar[i] += product[i]", "weight_bar[i] = product[i]")),
    "shared bias overwritten": ("affine", ("bias_bar[j] += z_bar[i, j]", "bias_bar[j] = z_bar[:, j].sum()")),
    "slope of prelu missing": ("activation", (SLOPE, "pass")),
    "slope of prelu of one unit for all": ("activation", ("            k = i % p.size\n", "            k = 0\n")),
    "slope of prelu of one sample": ("one slope for all", (SLOPE, SLOPE.replace("+=", "="))),
    "alpha of elu left out": (
        "activation",
        ("derivative(np.float64(z[i]), p[0])", "derivative(np.float64(z[i]), 1.0)"),
    ),
    "skip left out": ("add", ("for column in (row[INPUT], row[OTHER]):", "for column in (row[OTHER],):")),
    "branch left out": ("add", ("for column in (row[INPUT], row[OTHER]):", "for column in (row[INPUT],):")),
    "product of a skip": ("add", ("z[i] = a[i] + b[i]", "z[i] = a[i] * b[i]")),
    "product by division": (
        "multiply",
        (PRODUCT, "z_bar[j * n + k] += a_bar[j] * z[j * n : j * n + n].prod() / z[j * n + k]"),
    ),
    "product of the factors before": ("multiply", (PRODUCT, "z_bar[j * n + k] += before[k] * a_bar[j]")),
    "product with the factor itself": ("multiply", (PRODUCT, "z_bar[j * n + k] += before[k] * after * z[j * n + k]")),
    "smallest piece": ("maxout", ("pieces[k] > pieces[best]", "pieces[k] < pieces[best]")),
    "first piece": ("maxout", (WINNER, "z_bar[j * n] += a_bar[j]")),
    "all pieces": ("maxout", (WINNER, "z_bar[j * n : j * n + n] += a_bar[j]")),
    "diagonal of the Jacobian alone": ("softmax", (SOFTMAX, "z_bar[i, k] += a[i, k] * (1 - a[i, k]) * a_bar[i, k]")),
    "sum over outputs without their weights": (
        "softmax",
        (SOFTMAX, "z_bar[i, k] += a[i, k] * (a_bar[i, k] - a_bar[i].sum())"),
    ),
    "no sum over outputs": ("softmax", (SOFTMAX, "z_bar[i, k] += a[i, k] * a_bar[i, k]")),
    "variance a constant": ("batch_norm", (NORM, "(a_bar[i, j] - share * total)")),
    "mean a constant": ("batch_norm", (NORM, "(a_bar[i, j] - normal * (share * dot))")),
    "statistics constants": ("batch_norm", (NORM, "a_bar[i, j]")),
    "sample variance": ("batch_norm", ("squares / z.shape[0] + eps", "squares / (z.shape[0] - 1) + eps")),
    "eps left out": ("batch_norm", ("squares / z.shape[0] + eps / scale / scale", "squares / z.shape[0]")),
    "gamma left out of the cotangent": ("batch_norm", ("state.theta[row[FIRST] + j] / deviation", "1.0 / deviation")),
    "gamma for beta": (
        "batch_norm",
        ("state.gradient[row[SECOND] + j] += total", "state.gradient[row[SECOND] + j] += dot"),
    ),
    "given statistics differentiated": ("batch_norm_inference", (" if row[OPERATION] == BATCH_NORM else 0.0", "")),
    "statistics of the batch for given ones": (
        "batch_norm_inference",
        ("    if row[OPERATION] == BATCH_NORM:", "    if True:"),
    ),
    "variance of the neighbour": ("batch_norm_inference", ("+ 1 + row[WIDTH] + j]", "+ 1 + row[WIDTH]]")),
    "dropped units scaled in no pass": (
        "dropout",
        (
            "    kept = 1.0 - state.constants[row[CONSTANT]]\n    for i in range(z.size)",
            "    kept = 1.0\n    for i in range(z.size)",
        ),
    ),
    "dropped units not scaled in reverse": (
        "dropout",
        ("a_bar[i] += z_bar[i] * mask[i] / kept", "a_bar[i] += z_bar[i] * mask[i]"),
    ),
    "dropped units alive in reverse": (
        "dropout",
        ("a_bar[i] += z_bar[i] * mask[i] / kept", "a_bar[i] += z_bar[i] / kept"),
    ),
    "mask of the first sample for all": ("dropout", ("z[i] = a[i] * mask[i]", "z[i] = a[i] * mask[i % row[WIDTH]]")),
    "labels not smoothed": (
        "label_smoothing",
        ("smooth[i] = y[i] * (1.0 - share) + share / classes", "smooth[i] = y[i]"),
    ),
    "labels smoothed over two classes": ("label_smoothing", ("+ share / classes", "+ share / 2.0")),
    "labels smoothed by the share of all": ("label_smoothing", ("+ share / classes", "+ share")),
    "sum for mean": ("loss", ("z_bar[i, k] /= state.parts", "pass")),
    "mean for sum": ("sum", ("z_bar[i, k] /= state.parts", "z_bar[i, k] /= state.batch")),
    "penalty missing": ("penalty", (PENALTY, "pass")),
    "penalty on a bias too": (
        "penalty",
        ("range(row[FIRST], row[FIRST] + row[SIZE])", "range(row[FIRST], row[FIRST] + row[SIZE] + 1)"),
    ),
    "penalty twice": ("penalty", (PENALTY, "state.gradient[k] += l1 * np.sign(w) + 2 * l2 * w")),
    "sign left out": ("penalty", (PENALTY, "state.gradient[k] += l1 + l2 * w")),
    "penalty shared by the batch": (
        "penalty",
        (PENALTY, "state.gradient[k] += (l1 * np.sign(w) + l2 * w) / state.batch"),
    ),
}


def rule_problem(name: str) -> Problem:
    """A random problem; a product has a factor of 0."""
    net = NETS[name]
    theta, x, y = problem(net)
    if name == "multiply":
        net.view(theta)["dense1.weight"][0], net.view(theta)["dense1.bias"][0] = 0, 0
    return theta, x, y


def test_every_rule_has_a_planted_fault():
    planted = {step.operation for name, _ in RULE_FAULTS.values() for step in NETS[name].program.instructions}
    assert planted == set(rules.RULES)


@pytest.mark.parametrize("name", NETS)
def test_rules_without_a_fault_satisfy_the_judge(plain_python, name):
    assert not is_caught(NETS[name], rule_problem(name), plain_python())


@pytest.mark.parametrize("fault", RULE_FAULTS)
def test_a_fault_in_a_rule_is_caught(plain_python, fault):
    name, edit = RULE_FAULTS[fault]
    assert is_caught(NETS[name], rule_problem(name), plain_python(*edit))


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


TIE_NET = dl.MLP(1, [D(1), dl.Maxout(1), D(1)], "squared_error")
"""With theta of ``TIE``: half of (max(2 a, a + 1) - 1)**2 at a = 1, of slopes 1 and 2."""

TIE = np.array([1.0, 0.0, 2.0, 1.0, 0.0, 1.0, 1.0, 0.0]), np.ones((1, 1)), np.ones((1, 1))
LAST_PIECE = ("pieces[k] > pieces[best] or", "pieces[k] >= pieces[best] or")
ALL_LARGEST = (
    WINNER,
    "pieces = z[j * n : (j + 1) * n]; z_bar[j * n : (j + 1) * n] += a_bar[j] * (pieces == max(pieces))",
)


def test_the_wrong_piece_at_a_tie_differs_from_the_convention_and_stays_between_the_slopes(plain_python):
    reference, slopes = dl.reference_gradient(TIE_NET, *TIE), []
    for edit in ((), LAST_PIECE):
        prepared = dl.Backprop().prepare(TIE_NET)
        prepared._sweeps = plain_python(*edit)
        slopes.append(prepared.value_and_gradient(*TIE)[1][0])
        assert not is_caught(TIE_NET, TIE, prepared._sweeps)
    assert (reference.status[0], reference.gradient[0], slopes) == ("kink", 2.0, [2.0, 1.0])


def test_two_pieces_at_a_tie_are_caught(plain_python):
    assert is_caught(TIE_NET, TIE, plain_python(*ALL_LARGEST))


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
        def wrong(sweep, instruction, number):
            source = instruction.inputs[0]
            before = sweep.cotangents[source]
            rule(sweep, instruction, number)
            if sweep.wants(source):
                added = sweep.cotangents[source] - (0 if before is None else before)
                sweep.cotangents[source] = sweep.cotangents[source] + added * (factor - 1)

        return wrong

    return plant


def without_bias(rule: Callable) -> Callable:
    def wrong(sweep, instruction, number):
        rule(sweep, instruction, number)
        instruction.parameters[1].of(sweep.gradient)[...] = arb(0)

    return wrong


def with_transposed_weight(rule: Callable) -> Callable:
    def wrong(sweep, instruction, number):
        turned, weight = sweep.theta.copy(), instruction.parameters[0]
        weight.of(turned)[...] = weight.of(sweep.theta).T
        rule(replace(sweep, theta=turned), instruction, number)

    return wrong


CERTIFIED_FAULTS = {
    "activation's slope off by a millionth": ("activation", cotangent_scaled(1 + 1e-6)),
    "bias dropped": ("affine", without_bias),
    "weight transposed": ("affine", with_transposed_weight),
    "loss's slope off by a millionth": ("loss", cotangent_scaled(1 + 1e-6)),
    "loss's slope off by 2**-60": ("loss", cotangent_scaled(arb(1) + arb(2) ** -60)),
}


def certified_problem(loss: str) -> tuple[dl.MLP, Problem]:
    output = "sigmoid" if loss in naive.PROBABILITY_LOSS_NAMES else "identity"
    net = dl.MLP(3, [dl.Dense(3, "tanh"), dl.Dense(3, "softplus"), dl.Dense(3, output)], loss)
    return net, naive.random_problem(net, np.random.default_rng(8), 3)


@pytest.mark.parametrize("loss", LOSSES)
def test_certified_without_a_fault_satisfies_the_differences(loss):
    assert not is_refuted(*certified_problem(loss))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("fault", CERTIFIED_FAULTS)
def test_a_fault_in_certified_is_refuted(monkeypatch, fault, loss):
    rule, plant = CERTIFIED_FAULTS[fault]
    monkeypatch.setitem(ball_sweep.RULES, rule, plant(ball_sweep.RULES.get(rule, ball_sweep.by_series)))
    assert is_refuted(*certified_problem(loss))


def test_certified_survives_the_differences_on_random_networks():
    for seed in range(25):
        rng = np.random.default_rng(seed)
        net = naive.random_network(rng)
        assert not is_refuted(net, naive.random_problem(net, rng, 2)), (seed, net)
