"""Every checker is itself checked: faults planted into the sweeps that it must catch, and no false alarm without."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import naive
import numba
import numpy as np
import pytest
from flint import arb
from planting import ORIGINALS, Edit, Prepare, with_fault

import difflab as dl
from difflab.enclosures import sweep as ball_sweep
from difflab.enclosures.rounding import rounding_errors
from difflab.kernels import layout, rules
from difflab.number_systems import ball_precision
from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.losses import LOSSES


# --- Backprop, judged by the certified reference ---

NET = dl.MLP.dense([3, 3, 3, 3], hidden="tanh", loss="softmax_cross_entropy")
RELU_NET = dl.MLP.dense([3, 4, 2], hidden="relu", loss="squared_error")

Problem = tuple[np.ndarray, np.ndarray, np.ndarray]


def problem(net: dl.MLP, batch: int = 4) -> Problem:
    return naive.random_problem(net, np.random.default_rng(5), batch)


def test_faults_are_planted_into_all_that_a_sweep_is_made_of():
    folder = Path(ORIGINALS[0].__file__).parent
    assert {Path(module.__file__) for module in ORIGINALS} | {folder / "__init__.py"} == set(folder.rglob("*.py"))


WEIGHT = "    add_to_weight(row, state, parameter_at(state, GRADIENT, row[FIRST]), z_bar, a, keeps_weight, zero)\n"
COTANGENT = (
    "        add_to_inputs(row, state, a_bar, z_bar, parameter_at(state, THETA, row[FIRST]), keeps_input, zero)\n"
)
DIVIDED = "divide(z_bar, state[PARTS], number)"
INPUT_KEPT = "place(state, BARS, row[INPUT_BAR]), row[KEEPS] & KEEPS_INPUT != 0"
ACTIVATION_KEPT = "    if row[KEEPS] & KEEPS_INPUT != 0:\n        for i in range(slopes.size):\n            z_bar[i] +="
BEGUN = "is_begun(row, state, KEEPS_FIRST)"
WEIGHT_KEPT = f"place(state, BARS, row[OUTPUT_BAR])\n    keeps_weight = {BEGUN}"
OPENED_PARAMETER = "if not is_begun(row, state, bit):"
BITS = "row[KEEPS] |= bit if value in begun else 0"
FREE_ROOM = "all(b + width <= room.start or room.stop <= b for room in taken)"
READ = "if number in self.of or OPERATIONS[step.operation].is_total:"
EDITS: dict[str, Edit] = {
    "rule off by 0.1 %": ("z_bar[i] = a_bar[i] * slopes[i]", "z_bar[i] = a_bar[i] * slopes[i] * 1.001"),
    "transposed weight": ("z_bar, 0, weight, 0, batch, m, n", "z_bar, 0, weight, 1, batch, m, n"),
    "weight transposed forward": ("a, 0, weight, 1, batch, n, m", "a, 0, weight, 0, batch, n, m"),
    "missing bias": ("bias_bar[j] += z_bar[i, j]", "pass"),
    "missing weight": (WEIGHT, ""),
    "missing cotangent": (COTANGENT, ""),
    "sum for mean": (DIVIDED, "pass"),
    "stale cotangents": (INPUT_KEPT, INPUT_KEPT.replace("row[KEEPS] & KEEPS_INPUT != 0", "True")),
    "stale cotangents of an activation": (
        ACTIVATION_KEPT,
        ACTIVATION_KEPT.replace("row[KEEPS] & KEEPS_INPUT != 0", "1"),
    ),
    "stale gradient": (WEIGHT_KEPT, WEIGHT_KEPT.replace(BEGUN, "True")),
    "stale gradient of a bias": (OPENED_PARAMETER, "if False:"),
    "all cotangents begun": (BITS, "row[KEEPS] |= bit"),
    "bias of the first sample alone": ("bias_bar[j] += z_bar[i, j]", "bias_bar[j] += z_bar[0, j]"),
    "slope at the activation's value": ("z[i] = slope(at, p)", "z[i] = slope(value(at, p), p)"),
    "no cotangents but of inputs": ("step.inputs[:1] == (INPUTS,)", "step.inputs[:1] != (INPUTS,)"),
    "a wanted cotangent taken for one that nobody wants": (
        "if row[KEEPS] & HAS_NO_BAR == 0:\n        a_bar, keeps_input",
        "if 0:\n        a_bar, keeps_input",
    ),
}


@pytest.fixture
def plain_python(monkeypatch) -> Callable[..., Prepare]:
    """Prepares networks on kernels in plain Python, with an edit of their sources."""
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    return lambda *edit, tile=None: with_fault(edit, tile)


def is_caught(net: dl.MLP, arguments: Problem, prepare: Prepare) -> bool:
    """Whether the judge finds a gradient of the planted sweeps wrong, at the second call on used memory."""
    prepared, out = prepare(net), np.zeros(net.n_params)
    with np.errstate(all="ignore"):
        for _ in range(2):
            value, gradient = prepared.value_and_gradient(*arguments, out=out, allow_nonfinite=True)
    reference = dl.reference_gradient(net, *arguments)
    found = dl.discrepancy(gradient, reference)
    return found.error_relative > naive.predicted(prepared, reference, *arguments)


@pytest.mark.parametrize("tile", [None, 3])
@pytest.mark.parametrize("net", [NET, RELU_NET], ids=str)
def test_sweeps_without_a_fault_satisfy_the_judge(plain_python, net, tile):
    assert not is_caught(net, problem(net), plain_python(tile=tile))


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
    "activation of what a skip reads": dl.MLP(3, [D(3), dl.Residual([dl.Elementwise("tanh"), D(3)]), D(2)]),
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

OPENED = "    if row[KEEPS] & bit == 0:\n        clear(made)\n"
SLOPE = "p_bar[k] += a_bar[i, j] * by_p(at, q)"
OF_UNIT = "k = j % p.size\n                at, q = np.float64(z[i, j]), np.float64(p[k])\n                z_bar[i, j]"
SOFTMAX = "made[k] += a[k] * ((lead[k] - top) - mean)"
NORM = "scale * _projected(a_bar[i, j], normal, share * total, share * dot)"
BETA = "beta_bar[j] += total\n            scale = gamma[j] / _deviation(found)"
PRODUCT = "z_bar[j * n + k] += before[k] * after"
WINNER = "z_bar[_first_largest(z, j * n, n)] += a_bar[j]"
PENALTY = "weight_bar[k] += l1 * np.sign(weight[k]) + l2 * weight[k]"
SIZE = "row[place], row[SIZE] = parameter.offset, parameter.size"
PART = "part = slice(parameter.offset, parameter.offset + parameter.size"
OVERLAP = "a.start < b.stop and b.start < a.stop"
READERS = " and _is_needed(step.inputs[0], program, choice)"
RULE_FAULTS: dict[str, tuple[str, Edit]] = {
    "cotangents in the room of others": ("add", (FREE_ROOM, "True")),
    "room of a cotangent given back before it is read": (
        "add",
        (READ, f"{READ}\n{' ' * 16}self._taken.pop(number, None)"),
    ),
    "shared weight overwritten": ("affine", (WEIGHT_KEPT, WEIGHT_KEPT.replace("KEEPS_FIRST", "0"))),
    "shared bias overwritten": ("affine", (OPENED_PARAMETER, OPENED_PARAMETER.replace("bit", "0"))),
    "shared parameters taken for two": ("affine", (OVERLAP, "False")),
    "slope of prelu missing": ("activation", (SLOPE, "pass")),
    "slope of prelu of one unit for all": ("activation", (OF_UNIT, OF_UNIT.replace("j % p.size", "0"))),
    "slope of prelu of one sample": ("one slope for all", (SLOPE, SLOPE.replace("+=", "="))),
    "stale slope of prelu": ("activation", (OPENED_PARAMETER, "if False:")),
    "alpha of elu left out": ("activation", ("z[i] = slope(at, p)", "z[i] = slope(at, 1.0)")),
    "slope left where a skip reads": ("activation of what a skip reads", (READERS, " and False")),
    "cotangents of a skip overwritten by those of an activation": (
        "activation of what a skip reads",
        (ACTIVATION_KEPT, ACTIVATION_KEPT.replace("row[KEEPS] & KEEPS_INPUT != 0", "0")),
    ),
    "skip left out": ("add", ("a_bar[i] += z_bar[i]\n", "pass\n")),
    "branch left out": ("add", ("b_bar[i] += z_bar[i]\n", "pass\n")),
    "product of a skip": ("add", ("z[i] = a[i] + b[i]", "z[i] = a[i] * b[i]")),
    "skip overwritten by its branch": ("add", (BITS, "pass")),
    "stale cotangents of a skip": ("add", (OPENED, "")),
    "product by division": (
        "multiply",
        (PRODUCT, "z_bar[j * n + k] += a_bar[j] * z[j * n : j * n + n].prod() / z[j * n + k]"),
    ),
    "product of the factors before": ("multiply", (PRODUCT, "z_bar[j * n + k] += before[k] * a_bar[j]")),
    "product with the factor itself": ("multiply", (PRODUCT, "z_bar[j * n + k] += before[k] * after * z[j * n + k]")),
    "smallest piece": ("maxout", ("pieces[k] > pieces[best]", "pieces[k] < pieces[best]")),
    "first piece": ("maxout", (WINNER, "z_bar[j * n] += a_bar[j]")),
    "all pieces": ("maxout", (WINNER, "z_bar[j * n : j * n + n] += a_bar[j]")),
    "diagonal of the Jacobian alone": ("softmax", (SOFTMAX, "made[k] += a[k] * (1 - a[k]) * lead[k]")),
    "sum over outputs without their weights": ("softmax", (SOFTMAX, "made[k] += a[k] * (lead[k] - lead.sum())")),
    "no sum over outputs": ("softmax", (SOFTMAX, "made[k] += a[k] * lead[k]")),
    "variance a constant": ("batch_norm", (NORM, NORM.replace("share * dot", "0.0"))),
    "mean a constant": ("batch_norm", (NORM, NORM.replace("share * total", "0.0"))),
    "statistics constants": ("batch_norm", (NORM, "scale * a_bar[i, j]")),
    "sample variance": ("batch_norm", ("squares / z.shape[0] + eps", "squares / (z.shape[0] - 1) + eps")),
    "eps left out": ("batch_norm", ("squares / z.shape[0] + eps / scale / scale", "squares / z.shape[0]")),
    "gamma left out of the cotangent": ("batch_norm", (BETA, BETA.replace("gamma[j]", "1.0"))),
    "gamma for beta": ("batch_norm", (BETA, BETA.replace("total", "dot"))),
    "given statistics differentiated": ("batch_norm_inference", ("_batch_norm(_given, 0.0", "_batch_norm(_given, 1.0")),
    "statistics of the batch for given ones": (
        "batch_norm_inference",
        ("_batch_norm(_given, 0.0", "_batch_norm(_of_batch, 0.0"),
    ),
    "variance of the neighbour": ("batch_norm_inference", ("variance[1 + n + j]", "variance[1 + n]")),
    "dropped units scaled in no pass": (
        "dropout",
        (
            "    kept = 1.0 - constants(row, state, 1)[0]\n    for i in range(z.size)",
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
    "sum for mean": ("loss", (DIVIDED, "pass")),
    "mean for sum": ("sum", (DIVIDED, DIVIDED.replace("PARTS", "BATCH"))),
    "divisor of a sum ignored": ("sum", ("plan[DIVISOR] if plan[DIVISOR] != 0 else plan[TOTAL]", "plan[TOTAL]")),
    "penalty missing": ("penalty", (PENALTY, "pass")),
    "penalty on a bias too": (
        "penalty",
        (SIZE, f"{SIZE} + (step.operation == 'penalty')", PART, f"{PART} + (step.operation == 'penalty')"),
    ),
    "penalty twice": ("penalty", (PENALTY, PENALTY.replace("l2", "2 * l2"))),
    "sign left out": ("penalty", (PENALTY, "weight_bar[k] += l1 + l2 * weight[k]")),
    "penalty shared by the batch": (
        "penalty",
        (PENALTY, f"weight_bar[k] += (l1 * np.sign(weight[k]) + l2 * weight[k]) / state[{layout.BATCH}]"),
    ),
    "penalty overwritten by the loss": ("penalty", (WEIGHT_KEPT, WEIGHT_KEPT.replace("KEEPS_FIRST", "0"))),
}


def rule_problem(name: str, batch: int = 4) -> Problem:
    """A random problem; a product has a factor of 0."""
    net = NETS[name]
    theta, x, y = problem(net, batch)
    if name == "multiply":
        net.view(theta)["dense1.weight"][0], net.view(theta)["dense1.bias"][0] = 0, 0
    return theta, x, y


def test_every_rule_has_a_planted_fault():
    assert set(rules.RULES) <= {name for name, _ in RULE_FAULTS.values()}


@pytest.mark.parametrize("tile", [None, 3])
@pytest.mark.parametrize("name", NETS)
def test_rules_without_a_fault_satisfy_the_judge(plain_python, name, tile):
    assert not is_caught(NETS[name], rule_problem(name), plain_python(tile=tile))


@pytest.mark.parametrize("fault", RULE_FAULTS)
def test_a_fault_in_a_rule_is_caught(plain_python, fault):
    name, edit = RULE_FAULTS[fault]
    assert is_caught(NETS[name], rule_problem(name), plain_python(*edit))


# --- the walk over tiles of samples ---

BATCH, TILE = 8, 3
"""Two full tiles and a part of one."""

ADVANCE = "plan[X] += n * plan[N_INPUTS] * plan[ITEM]"
FIRST = "plan[IS_FIRST] = begin == 0 or plan[GRADIENT_STEP] != 0"
LABELS = "            for k in range(n):\n                there[i, k] = 0\n"
PENALTY_ONCE = "    if state[IS_FIRST] != 0:\n        weight = parameter("
TILES = "range(0, plan[TOTAL], most)"
TILE_FAULTS: dict[str, tuple[str, Edit]] = {
    "samples of the first tile for all": ("loss", (ADVANCE, "pass")),
    "samples of tiles overlap": ("loss", (ADVANCE, f"{ADVANCE} // 2")),
    "part of a tile left out": ("loss", (TILES, "range(0, plan[TOTAL] - most + 1, most)")),
    "tile for all but the first left out": ("loss", (TILES, "range(most, plan[TOTAL], most)")),
    "every tile the first": ("loss", (FIRST, "plan[IS_FIRST] = 1")),
    "no tile the first": ("loss", (FIRST, "plan[IS_FIRST] = 0")),
    "weight of the last tile alone": (
        "loss",
        (WEIGHT_KEPT, WEIGHT_KEPT.replace(BEGUN, "row[KEEPS] & KEEPS_FIRST != 0")),
    ),
    "bias of the last tile alone": ("loss", (OPENED_PARAMETER, "if row[KEEPS] & bit == 0:")),
    "slope of the last tile alone": ("activation", (OPENED_PARAMETER, "if row[KEEPS] & bit == 0:")),
    "mean over a tile": ("loss", (DIVIDED, DIVIDED.replace("PARTS", "BATCH"))),
    "penalty in every tile": ("penalty", (PENALTY_ONCE, PENALTY_ONCE.replace("state[IS_FIRST] != 0", "True"))),
    "cotangents of the tile before": ("softmax", (OPENED, "")),
    "classes of the first tile for all": ("loss", ("words(state[Y] + 8 * begin, batch)", "words(state[Y], batch)")),
    "classes of the tile before": ("loss", (LABELS, "")),
    "class beside the right one": ("loss", ("there[i, classes[i]] = 1", "there[i, classes[i] - 1] = 1")),
    "rows of the first tile for all": ("multiply", ("state[Y] + begin * n * state[ITEM]", "state[Y]")),
}


def tile_problem(name: str) -> Problem:
    """As before; classes are given by their indices, none the neighbour of itself."""
    theta, x, y = rule_problem(name, BATCH)
    return theta, x, np.arange(BATCH) // 2 % 3 if name == "loss" else y


@pytest.mark.parametrize("name", sorted({name for name, _ in TILE_FAULTS.values()}))
def test_tiles_without_a_fault_satisfy_the_judge(plain_python, name):
    assert not is_caught(NETS[name], tile_problem(name), plain_python(tile=TILE))


@pytest.mark.parametrize("fault", TILE_FAULTS)
def test_a_fault_between_tiles_is_caught(plain_python, fault):
    name, edit = TILE_FAULTS[fault]
    assert is_caught(NETS[name], tile_problem(name), plain_python(*edit, tile=TILE))


LOSS = "losses[OF_BATCH] = losses[OF_SAMPLES] / plan[PARTS] + losses[OF_TOTALS]"
OF_WEIGHTS = "    if state[IS_FIRST] != 0:\n        for w in"
VALUE_FAULTS: dict[str, Edit] = {
    "loss of the last sample alone": ("total += losses[i]", "total = losses[i]"),
    "losses of the call before": ("losses[OF_SAMPLES], losses[OF_TOTALS] = 0.0, 0.0", "pass"),
    "sum for mean": (LOSS, "losses[OF_BATCH] = losses[OF_SAMPLES] + losses[OF_TOTALS]"),
    "mean over a tile": (LOSS, "losses[OF_BATCH] = losses[OF_SAMPLES] / plan[BATCH] + losses[OF_TOTALS]"),
    "penalty left out": (LOSS, "losses[OF_BATCH] = losses[OF_SAMPLES] / plan[PARTS]"),
    "penalty divided by the batch": (LOSS, "losses[OF_BATCH] = (losses[OF_SAMPLES] + losses[OF_TOTALS]) / plan[PARTS]"),
    "penalty of every tile": (OF_WEIGHTS, OF_WEIGHTS.replace("state[IS_FIRST] != 0", "True")),
    "half left out": ("l2 * w * w / 2.0", "l2 * w * w"),
}


def is_value_caught(net: dl.MLP, arguments: Problem, prepare: Prepare) -> bool:
    """Whether the judge finds the loss of the planted sweeps wrong, at the second call on used memory."""
    prepared = prepare(net)
    value, _ = [prepared.value_and_gradient(*arguments) for _ in range(2)][1]
    allowed = float(rounding_errors(net, *arguments, prepared.dtypes[0]).value)
    return not abs(value - dl.reference_gradient(net, *arguments).value) <= allowed


def test_losses_without_a_fault_satisfy_the_judge(plain_python):
    assert not is_value_caught(NETS["penalty"], rule_problem("penalty", BATCH), plain_python(tile=TILE))


@pytest.mark.parametrize("fault", VALUE_FAULTS)
def test_a_fault_in_a_loss_is_caught(plain_python, fault):
    planted = plain_python(*VALUE_FAULTS[fault], tile=TILE)
    assert is_value_caught(NETS["penalty"], rule_problem("penalty", BATCH), planted)


# --- slopes and losses of the tables ---

Rule = Callable[[float], float]


@pytest.fixture
def with_slope(monkeypatch, plain_python) -> Callable[[Callable[[Rule], Rule]], Prepare]:
    """Prepares networks with another derivative of relu; the table is as before afterwards."""

    def build(wrong: Callable[[Rule], Rule]) -> Prepare:
        row = ACTIVATIONS["relu"]

        def prepare(net: dl.MLP) -> dl.Prepared:
            with monkeypatch.context() as planting:
                planting.setitem(ACTIVATIONS, "relu", replace(row, derivative=wrong(row.derivative)))
                return plain_python()(net)

        return prepare

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


def gradient_at_kink(prepare: Prepare) -> np.ndarray:
    return prepare(RELU_NET).value_and_gradient(*kink_problem())[1]


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
        planted = plain_python(*edit)
        slopes.append(planted(TIE_NET).value_and_gradient(*TIE)[1][0])
        assert not is_caught(TIE_NET, TIE, planted)
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

    def wrong(z: np.ndarray, y: np.ndarray, z_bar: np.ndarray, losses: np.ndarray, room: np.ndarray) -> None:
        row.value_and_cotangent(z, y, z_bar, losses, room)
        for of_sample in z_bar.T:
            of_sample[:] = LOSS_FAULTS[fault](of_sample)

    def prepare(net: dl.MLP) -> dl.Prepared:
        with monkeypatch.context() as planting:
            planting.setitem(LOSSES, net.loss, replace(row, value_and_cotangent=wrong))
            return plain_python()(net)

    assert is_caught(net, problem(net), prepare)


def test_one_wrong_class_is_caught(plain_python):
    theta, x, y = naive.random_problem(NET, np.random.default_rng(6), 4)
    y = np.arange(4) % 3
    prepared, reference = plain_python()(NET), dl.reference_gradient(NET, theta, x, y)
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
