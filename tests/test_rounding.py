"""The bounds of roundings hold in every entry, over every scale of weights, and stay of use.

``DIFFLAB_ROUNDING_NETWORKS=10000 python tests/test_rounding.py`` makes a campaign of it, and prints its figures;
with ``DIFFLAB_CAMPAIGN_RESULTS=results/campaigns`` it records them there.
"""

import math
import os
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import campaigns
import naive
import numba
import numpy as np
import pytest
from flint import arb

import difflab as dl
from difflab.backends.certified import ENCLOSED
from difflab.enclosures.rounding import rounding_errors
from difflab.number_systems import BALLS, FLOAT64, SERIES, ball_precision, coefficient
from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.losses import LOSSES
from difflab.primitives.operations import OPERATIONS, Bars, Instruction, Operation
from difflab.primitives.rounded import EXACT, LIBRARY_ULP, Arithmetic, Rounded, Sum, arithmetic_of, product, term


N_NETWORKS = int(os.environ.get("DIFFLAB_ROUNDING_NETWORKS", "160"))
N_BLOCKS = 8
DTYPES = ("float64", "float32")
TRUTH_BITS = 2048
MEDIAN_LOOSENESS = 1000
"""What half of all entries may at most have between their error and its bound."""

Arguments = tuple[np.ndarray, np.ndarray, np.ndarray]

each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def in_float32(numbers: np.ndarray) -> np.ndarray:
    """Numbers that float32 holds exactly."""
    return numbers if numbers.dtype.kind == "i" else numbers.astype(np.float32).astype(np.float64)


def in_dtype(arguments: Arguments, dtype: str) -> list[np.ndarray]:
    return [a if a.dtype.kind == "i" else a.astype(dtype) for a in arguments]


# --- random networks


def problem(seed: int) -> tuple[dl.MLP, Arguments]:
    """A network of dense layers or of any, with weights scaled by 1e-3 to 1e3 and one to five samples."""
    rng = np.random.default_rng([21, seed])
    net = naive.random_mixed_network(rng) if seed % 2 else naive.random_network(rng)
    theta, x, y = naive.random_problem(net, rng, int(rng.integers(1, 6)))
    return net, (in_float32(theta * 10.0 ** rng.uniform(-3, 3)), in_float32(x), in_float32(y))


@dataclass
class Figures:
    """What was seen of one arithmetic.

    Attributes
    ----------
    refused : networks whose loss or gradient is not finite, as the back-end says.
    entries, infinite : entries whose truth is known, and those among them without a finite bound.
    violations : entries and losses beyond their bounds, by seed and name.
    looseness : bound over error of all entries that have an error and a finite bound.
    """

    networks: int = 0
    refused: int = 0
    entries: int = 0
    infinite: int = 0
    violations: list[str] = field(default_factory=list)
    looseness: list[np.ndarray] = field(default_factory=list)

    def add(self, seed: int, net: dl.MLP, arguments: list[np.ndarray], truth: dl.Reference) -> None:
        self.networks += 1
        try:
            value, gradient = dl.Backprop(arguments[0].dtype.name).prepare(net).value_and_gradient(*arguments)
        except dl.NotFinite:
            self.refused += 1
            return
        bounds = rounding_errors(net, *arguments, arguments[0].dtype.name)
        known = truth.status != ENCLOSED
        errors = absolute_error(gradient, truth)[known]
        wrong = ~(errors <= bounds.gradient[known])
        self.violations += [f"{seed} {net.name_of(int(i))}" for i in np.flatnonzero(known)[wrong]]
        if max(truth.value_lower - value, value - truth.value_upper, 0.0) > bounds.value:
            self.violations.append(f"{seed} loss")
        is_finite = np.isfinite(bounds.gradient[known])
        self.entries += len(errors)
        self.infinite += int((~is_finite).sum())
        some = is_finite & (errors > 0)
        self.looseness.append(bounds.gradient[known][some] / errors[some])

    def __str__(self) -> str:
        looseness = np.concatenate(self.looseness)
        return (
            f"{self.networks} networks, {self.refused} not finite; {self.entries} entries, {self.infinite} without a "
            f"bound, {len(self.violations)} violations; bound / error: median {np.median(looseness):.3g}, "
            f"99 % {np.percentile(looseness, 99):.3g}; largest error / bound {1 / looseness.min():.4f}"
        )

    def as_table(self) -> dict[str, Any]:
        looseness = np.concatenate(self.looseness)
        return {
            "networks": self.networks,
            "networks_not_finite": self.refused,
            "entries": self.entries,
            "entries_without_a_bound": self.infinite,
            "violations": len(self.violations),
            "bound_per_error_median": float(np.median(looseness)),
            "error_per_bound_max": float(1 / looseness.min()),
            "violations_by_name": self.violations[:100],
        }


def absolute_error(gradient: np.ndarray, truth: dl.Reference) -> np.ndarray:
    """The distance from the truth, which at a kink has the slope from the left."""
    return np.abs((gradient.astype(np.float64) - truth.gradient) - truth.residual)


@cache
def campaign(block: int, n_blocks: int = N_BLOCKS) -> dict[str, Figures]:
    """Each arithmetic on its part of the random networks."""
    found = {dtype: Figures() for dtype in DTYPES}
    for seed in range(block, N_NETWORKS, n_blocks):
        net, arguments = problem(seed)
        truth = dl.Certified(max_bits=TRUTH_BITS).prepare(net).enclose(*arguments)
        for dtype, figures in found.items():
            figures.add(seed, net, in_dtype(arguments, dtype), truth)
    return found


@pytest.mark.parametrize("block", range(N_BLOCKS))
def test_every_entry_is_within_its_bound(block):
    for figures in campaign(block).values():
        assert figures.violations == []
        assert figures.infinite <= figures.entries / 10


@each_dtype
def test_the_bound_is_within_three_orders_of_the_error_for_half_of_the_entries(dtype):
    looseness = [ratios for block in range(2) for ratios in campaign(block)[dtype].looseness]
    assert np.median(np.concatenate(looseness)) <= MEDIAN_LOOSENESS


def test_the_default_networks_hold_every_row_of_every_table():
    nets = [problem(seed)[0] for seed in range(N_NETWORKS)]
    steps = [step for net in nets for step in net.program.instructions]
    assert {step.operation for step in steps} == set(OPERATIONS)
    assert {step.function for step in steps if step.operation == "activation"} >= set(naive.ACTIVATION_NAMES[1:])
    assert {net.loss for net in nets} == set(LOSSES)


@pytest.mark.parametrize("share", [0.01, 0.5])
def test_a_hundredth_of_the_bound_does_not_hold(share):
    """Nor, in some entry, half of it."""
    looseness = np.concatenate([ratios for block in range(2) for ratios in campaign(block)["float64"].looseness])
    assert (share * looseness < 1).any()


def test_a_fault_of_one_part_in_a_million_is_not_excused():
    """Planted in the largest entry; only a badly conditioned network may be off by as much by rounding alone."""
    excused, n = 0, 60
    for seed in range(n):
        rng = np.random.default_rng([9, seed])
        net = naive.random_network(rng)
        arguments = naive.random_problem(net, rng, int(rng.integers(1, 6)))
        _, gradient = dl.Backprop().prepare(net).value_and_gradient(*arguments)
        i = int(np.abs(gradient).argmax())
        excused += bool(1e-6 * abs(gradient[i]) <= 2 * rounding_errors(net, *arguments, "float64").gradient[i])
    assert excused <= n / 20


# --- by hand


UNIT = 2.0**-53


def one_weight(w: float, b: float, x: list[float], y: list[float]) -> tuple[dl.MLP, np.ndarray, np.ndarray, np.ndarray]:
    """Half of (w x + b - y)**2, summed over samples."""
    net = dl.MLP(1, [dl.Dense(1)], "squared_error", reduction="sum")
    return net, np.array([w, b]), np.array(x)[:, None], np.array(y)[:, None]


@pytest.mark.parametrize("n", [2, 3, 10, 100])
def test_the_bound_of_a_sum_is_attained(n):
    """To 1, each unit roundoff is added in vain: halves of the last bit are rounded to even."""
    net, *arguments = one_weight(0.0, 0.0, [0.0] * n, [-1.0] + [-UNIT] * (n - 1))
    _, gradient = dl.Backprop().prepare(net).value_and_gradient(*arguments)
    error, bound = (n - 1) * UNIT, rounding_errors(net, *arguments, "float64").gradient
    assert gradient.tolist() == [0.0, 1.0]
    assert bound[0] == 0
    assert error <= bound[1] <= error * (1 + 2.0**-20)


def test_the_bound_of_a_product_is_attained():
    """(1 + 2**-26)**2 is 1 + 2**-25 + 2**-52, and a last bit below: (1 + 2**-27)**2 loses 2**-54."""
    x = 1 + 2.0**-27
    net, *arguments = one_weight(0.0, 0.0, [x], [-x])
    _, gradient = dl.Backprop().prepare(net).value_and_gradient(*arguments)
    assert gradient.tolist() == [1 + 2.0**-26, x]
    assert rounding_errors(net, *arguments, "float64").gradient == pytest.approx([UNIT, 0.0], rel=1e-7)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_small_integers_have_no_errors(dtype):
    """Nothing rounds, in whatever order: even at a kink it is known on which side a number is."""
    net = dl.MLP(2, [dl.Dense(2, "relu"), dl.Maxout(2, 2), dl.Residual([dl.Dense(2)]), dl.Multiply(1)], "squared_error")
    rng = np.random.default_rng(0)
    theta, x, y = (rng.integers(-1, 2, size=shape).astype(float) for shape in (net.n_params, (2, 2), (2, 1)))
    found = rounding_errors(net, theta, x, y, dtype)
    assert (found.value, found.gradient.any()) == (0.0, False)


def test_a_sum_with_more_bits_than_the_format_has_an_error():
    found = [
        rounding_errors(*one_weight(0.0, 0.0, [1.0, 1.0], [-256.0, -1.0]), d).gradient for d in ("bfloat16", *DTYPES)
    ]
    assert found[0].all()
    assert not np.any(found[1:])


def test_where_the_side_of_a_kink_is_open_both_slopes_are_allowed():
    """0.1 times 3 less its double is 0 or not, as it happens to be rounded; the loss is half of (relu(z) - 1)**2."""
    net = dl.MLP(1, [dl.Dense(1, "relu")], "squared_error")
    arguments = np.array([0.1, -0.1 * 3]), np.array([[3.0]]), np.array([[1.0]])
    assert rounding_errors(net, *arguments, "float64").gradient == pytest.approx([3.0, 1.0], rel=1e-6)


def test_the_sum_of_two_cotangents_is_rounded():
    """A skip connection around the identity doubles, and around a weight of one unit roundoff adds it in vain."""
    net = dl.MLP(1, [dl.Dense(1), dl.Residual([dl.Dense(1)])], "squared_error", reduction="sum")
    arguments = np.array([0.0, 0.0, UNIT, 0.0]), np.zeros((1, 1)), np.array([[-1.0]])
    _, gradient = dl.Backprop().prepare(net).value_and_gradient(*arguments)
    assert gradient[1] == 1.0
    assert rounding_errors(net, *arguments, "float64").gradient[1] == pytest.approx(UNIT, rel=1e-7)


def test_a_shared_parameter_is_charged_for_the_sum_of_its_uses():
    net = dl.MLP(1, [dl.Dense(1, share="a"), dl.Dense(1, share="a")], "squared_error", reduction="sum")
    arguments = np.array([UNIT, 0.0]), np.zeros((1, 1)), np.array([[-1.0]])
    _, gradient = dl.Backprop().prepare(net).value_and_gradient(*arguments)
    assert gradient[1] == 1.0
    assert rounding_errors(net, *arguments, "float64").gradient[1] == pytest.approx(UNIT, rel=1e-7)


@pytest.mark.parametrize(("dtype", "scale"), [("float16", 300.0), ("float32", 1e20), ("float64", 1e160)])
def test_what_may_overflow_has_no_bound(dtype, scale):
    """The square of the residual does; its derivative does not."""
    found = rounding_errors(*one_weight(scale, 0.0, [1.0], [0.0]), dtype)
    assert found.value == np.inf
    assert np.isfinite(found.gradient).all()


def test_cancellation_in_the_residual_of_a_squared_error_is_foreseen():
    """z - y keeps few digits where z is nearly y: the gradient is inexact, and the bound says so."""
    net, *arguments = one_weight(0.1, 0.2, [0.7], [0.1 * 0.7 + 0.2 + 1e-15])
    truth = dl.reference_gradient(net, *arguments)
    prepared = dl.Backprop().prepare(net)
    found = dl.discrepancy(prepared.value_and_gradient(*arguments)[1], truth)
    assert found.error_relative <= naive.predicted(prepared, truth, *arguments)


def test_textbook_forms_have_absolute_errors():
    """1 - tanh**2 of a saturated unit may be all error; the stable rule may not."""
    net = dl.MLP(1, [dl.Dense(1, "tanh"), dl.Dense(1)], loss="squared_error")
    arguments = np.array([1.0, 20.0, 1.0, 0.0]), np.ones((1, 1)), np.zeros((1, 1))
    stable, textbook = (rounding_errors(net, *arguments, "float64", textbook=t).gradient[0] for t in (False, True))
    truth = abs(dl.reference_gradient(net, *arguments).gradient[0])
    assert stable < 1e-13 * truth
    assert textbook > truth


def test_narrower_formats_have_larger_bounds():
    net, arguments = dl.MLP.dense([3, 4, 2], hidden="tanh"), (np.full(26, 0.5), np.ones((1, 3)), np.array([1]))
    found = [rounding_errors(net, *arguments, d).gradient for d in ("float64", "float32", "float16", "bfloat16")]
    units = [2.0**-53, 2.0**-24, 2.0**-11, 2.0**-8]
    for narrow, wide, ratio in zip(found[1:], found[:-1], np.divide(units[1:], units[:-1]), strict=True):
        assert (narrow > 0.2 * ratio * wide).all()


# --- every operation

D = dl.Dense
WIDTH, BATCH, N_PROBLEMS = 6, 4, 12
CANCELLED = 1e3
"""How much larger than their sum the products of the first layer are, so that errors of values outweigh all others."""

LAYERS = {
    "affine": [D(4), D(4)],
    "activation": [D(4, "prelu"), dl.Elementwise("swish", per_unit=False), D(4, "gelu"), D(4, "elu(0.5)")],
    "add": [D(4), dl.Residual([D(4, "tanh")]), dl.Residual([D(4)], project=True)],
    "multiply": [D(6), dl.Multiply(2)],
    "maxout": [D(4), dl.Maxout(4, 3)],
    "softmax": [D(4), dl.Softmax()],
    "batch_norm": [D(4), dl.BatchNorm()],
    "batch_norm_inference": [D(4), dl.BatchNorm([0.5, -0.25, 0.0, 1.0], [2.0, 0.5, 1.0, 0.01])],
    "dropout": [D(8), dl.Dropout(0.4, seed=2)],
    "loss": [D(4)],
}
LOOSENESS = 1e4
"""Of the bound of a gradient beside its error, in norm, for half of the problems; a batch norm's is half of it."""

every_operation = pytest.mark.parametrize("operation", LAYERS)


@cache
def cancelling(operation: str) -> list:
    """Problems whose samples come twice, with weights that nearly cancel each other."""
    net, found = dl.MLP(WIDTH, [*LAYERS[operation], D(3)], label_smoothing=0.1, l1=0.01, l2=0.1), []
    for seed in range(N_PROBLEMS):
        rng = np.random.default_rng([3, seed])
        half, theta = rng.normal(size=(BATCH, WIDTH // 2)), rng.normal(size=net.n_params)
        weight = net.view(theta)["dense1.weight"]
        left, right = np.split(weight, 2, axis=1)
        left[:] *= CANCELLED
        right[:] -= left
        arguments = tuple(map(in_float32, (theta, np.hstack([half, half]), rng.dirichlet(np.ones(3), BATCH))))
        found.append((net, arguments, dl.reference_gradient(net, *arguments)))
    return found


def evaluated(case: tuple, dtype: str = "float64") -> tuple[np.ndarray, np.ndarray, float, float]:
    """Errors and bounds of the gradient, error and bound of the value."""
    net, arguments, truth = case
    arguments = in_dtype(arguments, dtype)
    value, gradient = dl.Backprop(dtype).prepare(net).value_and_gradient(*arguments)
    bounds = rounding_errors(net, *arguments, dtype)
    return absolute_error(gradient, truth), bounds.gradient, abs(value - truth.value), bounds.value


@every_operation
@each_dtype
def test_every_entry_of_every_operation_is_within_its_bound_which_stays_of_use(operation, dtype):
    looseness = []
    for case in cancelling(operation):
        errors, bounds, value_error, value_bound = evaluated(case, dtype)
        assert (errors <= bounds).all()
        assert value_error <= value_bound
        looseness.append(np.linalg.norm(bounds) / np.linalg.norm(errors))
    assert np.median(looseness) < LOOSENESS


def forgetful(row: Operation) -> Operation:
    """The operation with rules that forget the errors of what it reads and of the cotangent it is given."""

    def exact(number: Rounded) -> Rounded:
        return replace(number, error=0 * number.error)

    return replace(
        row,
        forward_error=lambda step, inputs, parameters: row.forward_error(step, [*map(exact, inputs)], parameters),
        reverse_error=lambda step, inputs, parameters, value, bar: row.reverse_error(
            step, [*map(exact, inputs)], parameters, exact(value), exact(bar)
        ),
    )


def violated(case: tuple) -> bool:
    errors, bounds, *_ = evaluated(case)
    return bool((errors > bounds).any())


@every_operation
def test_a_rule_that_forgets_the_errors_of_its_inputs_is_caught(operation, monkeypatch):
    monkeypatch.setitem(OPERATIONS, operation, forgetful(OPERATIONS[operation]))
    assert np.mean([violated(case) for case in cancelling(operation)]) >= 0.5


def roundless(row: Operation) -> Operation:
    """The operation with rules that pass on errors and forget their own roundings."""

    def without(number: Rounded) -> Rounded:
        return replace(number, arithmetic=EXACT)

    def back(number: Rounded, by: Arithmetic) -> Rounded:
        return replace(number, arithmetic=by)

    def forward(step: Instruction, inputs: list[Rounded], parameters: list[Rounded]) -> Rounded:
        by = [*inputs, *parameters][0].arithmetic
        return back(row.forward_error(step, [*map(without, inputs)], [*map(without, parameters)]), by)

    def reverse(
        step: Instruction, inputs: list[Rounded], parameters: list[Rounded], value: Rounded, bar: Rounded
    ) -> Bars:
        numbers = [*map(without, inputs)], [*map(without, parameters)], without(value), without(bar)
        made = row.reverse_error(step, *numbers)
        sums = [replace(s, exact=back(s.exact, bar.arithmetic), roundings=0 * s.roundings) for s in made.parameters]
        return Bars([a if a is None else back(a, bar.arithmetic) for a in made.inputs], sums)

    return replace(row, forward_error=forward, reverse_error=reverse)


ALONE = {
    "affine": ([D(4)], {}),
    "activation": ([D(4), dl.Elementwise("sigmoid")], {}),
    "multiply": ([D(6), dl.Multiply(2)], {}),
    "softmax": ([D(4), dl.Softmax()], {}),
    "batch_norm": ([D(4), dl.BatchNorm()], {}),
    "batch_norm_inference": ([D(4), dl.BatchNorm([0.5, -0.25, 0.0, 1.0], [2.0, 0.5, 1.0, 0.01])], {}),
    "dropout": ([D(4), dl.Dropout(0.4, seed=2)], {}),
    "loss": ([D(4)], {"loss": "softmax_cross_entropy"}),
    "penalty": ([D(4)], {"l2": 0.3}),
}
"""Networks where an operation meets numbers without errors."""


def alone(operation: str, seed: int) -> tuple:
    """Samples of ones and zeros, so that the first layer is exact."""
    layers, options = ALONE[operation]
    net = dl.MLP(2, layers, **({"loss": "squared_error", "reduction": "sum"} | options))
    rng = np.random.default_rng([5, seed])
    theta = in_float32(rng.normal(size=net.n_params))
    x = rng.integers(2, size=(3, 2)).astype(float)
    x = x if operation != "affine" else in_float32(rng.normal(size=(3, 2)))
    y = rng.integers(5, size=(3, net.n_outputs)) / 4
    return net, (theta, x, y), dl.reference_gradient(net, theta, x, y)


@pytest.mark.parametrize("operation", ALONE)
def test_a_rule_that_forgets_its_own_roundings_is_caught(operation, monkeypatch):
    cases = [alone(operation, seed) for seed in range(20)]
    assert not any(map(violated, cases))
    monkeypatch.setitem(OPERATIONS, operation, roundless(OPERATIONS[operation]))
    assert any(map(violated, cases))


def test_smoothed_labels_are_within_their_bounds_which_are_not_zero():
    row, labels = OPERATIONS["label_smoothing"], np.linspace(0, 1, 11)[:, None]
    for share in (0.1, 0.3, 0.7):
        step = Instruction("label_smoothing", (1,), 1, constants=(share, 3.0))
        got = row.primal(FLOAT64, step, [labels], [])
        made = row.forward_error(step, [arithmetic_of("float64").exact(labels)], [])
        with ball_precision(200):
            exact = row.primal(BALLS, step, [BALLS.array(labels)], [])
            errors = np.abs((BALLS.array(got) - exact).astype(float))
        assert (errors <= made.error).all()
        assert errors.any()


# --- numbers with errors


def a_number(rng: np.random.Generator, by: Arithmetic, is_positive: bool) -> Rounded:
    middle = rng.normal() * 10.0 ** rng.uniform(-3, 2)
    doubt, error = (abs(middle) * 10.0 ** rng.uniform(-18, -0.5) * rng.integers(2) for _ in range(2))
    return Rounded(by, *map(np.array, (abs(middle) if is_positive else middle, doubt, error)))


def ends(number: Rounded) -> list[tuple[arb, arb]]:
    """What a number may be in truth and for the arithmetic, at the ends of both intervals."""
    truths = [arb(float(number.middle)) + sign * arb(float(number.doubt)) for sign in (-1, 1)]
    return [(truth, truth + sign * arb(float(number.error))) for truth in truths for sign in (-1, 1)]


BINARY = {"add": "__add__", "sub": "__sub__", "mul": "__mul__", "truediv": "__truediv__"}
UNARY = {"sqrt": "sqrt", "exp": "exp", "log": "log", "log1p": "log1p", "abs": "__abs__"}


def allows(made: Rounded, true: arb, got: arb, roundings: float) -> bool:
    """Whether bounds hold for a true result and the arithmetic's, rounded to the worse side."""
    rounding = arb(roundings * made.arithmetic.unit) * abs(got)
    error = max(float(abs(got + side * rounding - true).lower()) for side in (-1, 1))
    doubt = float(abs(true - arb(float(made.middle))).lower())
    return error <= made.error and doubt <= made.doubt


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("name", [*BINARY, *UNARY])
def test_bounds_of_single_operations_hold_at_the_ends_of_what_is_possible(name, dtype):
    rng, by = np.random.default_rng(1), arithmetic_of(dtype)
    with ball_precision(200):
        for _ in range(150):
            operands = [a_number(rng, by, name in ("sqrt", "log", "log1p")) for _ in range(1 + (name in BINARY))]
            made = getattr(operands[0], (BINARY | UNARY)[name])(*operands[1:])
            for pairs in zip(*np.array([ends(o) for o in operands], object).transpose(0, 1, 2), strict=True):
                true, got = (getattr(pairs[0][k], (BINARY | UNARY)[name])(*(p[k] for p in pairs[1:])) for k in (0, 1))
                if np.isfinite(made.error) and np.isfinite(made.doubt):
                    assert allows(made, true, got, roundings=float(name not in ("abs",)))


def test_the_sum_of_terms_is_charged_whatever_the_order():
    by = arithmetic_of("float64")
    numbers = by.exact(np.random.default_rng(2).normal(size=50))
    summed = numbers.summands(axis=0)
    magnitude = np.abs(numbers.middle).sum()
    assert summed.rounded().error == pytest.approx(49 * UNIT * magnitude, rel=1e-8)
    assert (summed + term(by.exact(0.1))).rounded().error == pytest.approx(50 * UNIT * (magnitude + 0.1), rel=1e-8)


def test_zeros_in_a_product_of_matrices_are_not_charged():
    by = arithmetic_of("float64")
    made = product(by.exact(np.array([[0.1, 0.0, 0.3]])), by.exact(np.array([[0.7], [0.5], [0.0]])))
    assert isinstance(made, Sum)
    assert made.rounded().error == pytest.approx(0.07 * UNIT, rel=1e-7)


# --- what is supposed


@pytest.mark.parametrize("name", ["exp", "log", "log1p"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_library_is_as_near_as_is_supposed(name, dtype):
    function = getattr(math, name)
    kernel = numba.njit(lambda z: function(z))
    size = np.random.default_rng(3).uniform(-30, 30, 3000)
    arguments = (size if name == "exp" else np.exp(size)).astype(dtype)
    with ball_precision(200):
        for z in arguments:
            exact = getattr(arb(float(z)), name)()
            ulp = float(np.spacing(np.abs(np.array(float(exact), dtype))))
            assert abs(float(arb(float(kernel(z))) - exact)) <= LIBRARY_ULP * ulp + abs(float(exact)) * 2.0**-54


BEYOND = [row for row in ACTIVATIONS.values() if np.isfinite(row.beyond_domain)]


@pytest.mark.parametrize("row", BEYOND, ids=lambda row: row.name)
def test_rules_are_as_near_beyond_their_domain_as_is_said(row):
    rng = np.random.default_rng(4)
    far = 10.0 ** rng.uniform(np.log10(700), 100, 300) * rng.choice([-1, 1], 300)
    near = rng.uniform(-1600, 1600, 300)
    points = np.concatenate([far, near])
    p = [] if row.parameter is None else [row.start]
    with ball_precision(4000):
        along = row.expression(SERIES, SERIES.line(BALLS.array(points), np.ones(600, object)), *map(SERIES.array, p))
        for rule, exact, ulp in (
            (row.value, coefficient(along, 0), row.value_ulp),
            (row.derivative, coefficient(along, 1), row.derivative_ulp),
        ):
            for z, ball in zip(points.tolist(), exact, strict=True):
                off = abs(float(arb(rule(z, *p)) - ball))
                assert off <= ulp * math.ulp(float(ball)) + row.beyond_domain * (1 + abs(z)), (rule.__name__, z)


def test_both_tables_of_rows_are_complete():
    """Every domain with an end has a word on what is beyond it."""
    assert {row.name for row in BEYOND} == {r.name for r in ACTIVATIONS.values() if np.isfinite(r.domain).any()}


if __name__ == "__main__":
    _found = campaign(0, 1)
    campaigns.record("rounding", {dtype: figures.as_table() for dtype, figures in _found.items()})
    for _dtype, _figures in _found.items():
        print(f"{_dtype}: {_figures}", *_figures.violations, sep="\n  ")
