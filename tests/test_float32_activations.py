"""Activations at float32: value and derivative as the float32 sweep gives them, over all of float32.

The default run strides through the 2**32 bit patterns, and ``DIFFLAB_EXHAUSTIVE=1`` takes every one.
The truth is the expression over float64 and its complex step, far sharper than float32, and Arb where that cancels.
"""

import math
import os

import numba
import numpy as np
import pytest
from test_activations import balls_of, exact_derivative, exact_value

from difflab.kernels.flags import ENTERED
from difflab.kernels.target import compiled_rule
from difflab.number_systems import COMPLEX128, FLOAT64
from difflab.primitives.activations import ACTIVATIONS


EXHAUSTIVE = os.environ.get("DIFFLAB_EXHAUSTIVE") == "1"
STRIDE = 1 if EXHAUSTIVE else 211
STRIDE_OF_STRAIGHT = 1 if EXHAUSTIVE else 15
COARSE = 2**15 + 1
BLOCK = 2**18
STEP = 2.0**-200

SHARPNESS = 1e-5
"""Bound on the error of the truth, in ulp of float32."""

ROOTS = {"silu": -1.2784645427610738, "swish": -1.2784645427610738, "gelu": -0.7517915246935645}
SPECIAL = (
    0.0,
    2.0**-126,
    2.0**-24,
    3.4028234663852886e38,
    1.0,
    *(1.2784645427610738, 2.3993572805154675, 0.7517915246935645, 0.5017915246935645, 1.0017915246935645, 2.0**0.5),
    # Where results become 1, the smallest normal number, or 0.
    *(5.5, 9.01, 13.0, 14.2, 16.64, 43.67, 52.3, 87.34, 103.97, 109.0, 2.0**24, 2.0**63, 2.0**74.5, 40.0, 1500.0),
)

RECORDED = [row for row in ACTIVATIONS.values() if row.float32_worst]
rows = pytest.mark.parametrize("row", RECORDED, ids=lambda row: row.name)


def start_of(row):
    return (np.float64(row.start),) if row.parameter else ()


def number_of(row):
    """The arithmetic in which the float32 sweep evaluates the rules of a row."""
    return np.float64 if row.float32_domain is None else np.float32


def rounded_rule(rule, p, number, fused=False):
    """The rule as the float32 sweep applies it, over an array."""
    rule, p = compiled_rule(rule, number, fused), tuple(number(q) for q in p)

    @numba.njit(**ENTERED)
    def over(z, out):
        for i in range(z.size):
            out[i] = np.float32(rule(number(z[i]), *p))

    def apply(z):
        out = np.empty(z.size, np.float32)
        over(z, out)
        return out

    return apply


def true_value(row, z):
    return row.expression(FLOAT64, z, *start_of(row))


def true_derivative(row, z):
    """By complex step, but for softsign, whose complex step cancels far out: there it is (f(z) / z)**2."""
    if row.name == "softsign":
        return np.where(z == 0, 1.0, true_value(row, z) / np.where(z == 0, 1.0, z)) ** 2
    slopes = row.expression(COMPLEX128, z + 1j * STEP, *start_of(row)) + 0j * z
    slopes = slopes.imag / STEP
    # At 0 the branches meet, and a complex step may take one part from either.
    near = (np.abs(z - ROOTS.get(row.name, np.inf)) < 0.005) | (z == 0)
    if near.any():
        slopes[near] = balls_of(exact_derivative, row, z[near], start_of(row)).astype(np.float64)
    return slopes


def spacing32(exact):
    """Spacing of float32 in the binade of exact numbers."""
    return np.maximum(np.spacing(np.abs(exact)) * 2.0**29, 2.0**-149)


def errors32(got, exact):
    """Errors in ulp of float32 at the exact result; NaN counts as infinite."""
    errors = np.abs(got.astype(np.float64) - exact) / spacing32(exact)
    return np.where(np.isnan(errors), np.inf, errors)


def floats_of(patterns):
    z = patterns.astype(np.uint32).view(np.float32)
    return z[np.isfinite(z)]


def special_floats(row):
    """The 1000 neighbours on either side of special points of either sign."""
    middles = np.array([*SPECIAL, *np.abs(row.kinks)], np.float32).view(np.uint32).astype(np.int64)
    patterns = np.abs(middles[:, None] + np.arange(-1000, 1001)).ravel()
    return floats_of(np.concatenate([patterns, patterns + 2**31]))


def blocks(row, stride):
    """Every stride-th float32 from a seeded start, then the neighbours of special points."""
    first = int(np.random.default_rng(32).integers(stride))
    for start in range(first, 2**32, stride * BLOCK):
        yield floats_of(np.arange(start, min(start + stride * BLOCK, 2**32), stride))
    yield special_floats(row)


def worst(row, rule, truth, stride, fused=False):
    """Argument and error where a rule errs most."""
    apply = rounded_rule(rule, start_of(row), number_of(row), fused)
    found = (0.0, 0.0)
    for z in blocks(row, stride):
        if z.size:
            with np.errstate(under="ignore"):
                errors = errors32(apply(z), truth(row, z.astype(np.float64)))
            at = int(errors.argmax())
            found = max(found, (float(z[at]), float(errors[at])), key=lambda pair: pair[1])
    return found


def columns(row):
    return (row.value, true_value, exact_value), (row.derivative, true_derivative, exact_derivative)


@rows
def test_truth_is_sharp(row):
    rng = np.random.default_rng(7)
    z = np.concatenate([floats_of(rng.integers(0, 2**32, 1500)), rng.choice(special_floats(row), 500)])
    z = np.concatenate([z, rng.normal(size=500), rng.uniform(-110, 110, 500)]).astype(np.float32).astype(np.float64)
    z = z[~np.isin(z, row.kinks)]
    for _, truth, exact in columns(row):
        balls = balls_of(exact, row, z, start_of(row)).astype(np.float64)
        assert (np.abs(truth(row, z) - balls) <= SHARPNESS * spacing32(balls)).all()


def test_the_rows_of_the_lectures_are_recorded():
    assert len(RECORDED) >= 12


def test_twenty_million_floats_are_tried():
    assert 2**32 // STRIDE >= 2 * 10**7


@rows
def test_recorded_worst_errors_are_reproduced(row):
    for (rule, _, exact), (z, error) in zip(columns(row), row.float32_worst, strict=True):
        assert z == np.float32(z)
        got = rounded_rule(rule, start_of(row), number_of(row))(np.array([z], np.float32))
        truth = balls_of(exact, row, np.array([z]), start_of(row)).astype(np.float64)
        assert errors32(got, truth)[0] == pytest.approx(error, rel=1e-3)


@pytest.mark.timeout(0 if EXHAUSTIVE else 300)
@rows
def test_nothing_worse_is_found(row):
    for (rule, truth, _), (_, error) in zip(columns(row), row.float32_worst, strict=True):
        assert worst(row, rule, truth, STRIDE)[1] <= error * 1.001


def allowed(row, ulp, z):
    """The error of one rounding, or what the bound of a rule comes to at z."""
    if row.float32_domain is None:
        return 0.5 + SHARPNESS
    low, high = row.float32_domain
    of_constant = 1.0 if row.parameter else 0.0
    beyond = 0.0 if low <= z <= high else row.beyond_domain * 2.0**925 * (1 + abs(z)) / 2.0**-149
    return ulp + of_constant + beyond + SHARPNESS


@rows
def test_recorded_errors_are_those_of_one_rounding_or_within_the_bounds_of_the_rules(row):
    for ulp, (z, error) in zip((row.value_ulp, row.derivative_ulp), row.float32_worst, strict=True):
        assert error <= allowed(row, ulp, z)


@pytest.mark.timeout(0 if EXHAUSTIVE else 300)
@rows
def test_fused_rules_are_within_the_bounds_too(row):
    for (rule, truth, _), ulp in zip(columns(row), (row.value_ulp, row.derivative_ulp), strict=True):
        z, error = worst(row, rule, truth, STRIDE, fused=True)
        assert error <= allowed(row, ulp, z)


@rows
def test_a_fused_rule_that_is_off_by_a_thousandth_is_beyond_its_bound(row):
    for (rule, truth, _), ulp in zip(columns(row), (row.value_ulp, row.derivative_ulp), strict=True):
        z, error = worst(row, off_by_a_thousandth(rule), truth, COARSE, fused=True)
        assert error > allowed(row, ulp, z)


HUNDREDTH = float(np.float32(0.01))
"""The slope that a network has in float32."""


@numba.njit(**ENTERED)
def line(z):
    return z


@numba.njit(**ENTERED)
def one(z):
    return 1.0


@numba.njit(**ENTERED)
def half_line(z):
    return z if z > 0 else 0.0


@numba.njit(**ENTERED)
def step(z):
    return 1.0 if z > 0 else 0.0


@numba.njit(**ENTERED)
def bent_line(z):
    return z if z > 0 else HUNDREDTH * z


@numba.njit(**ENTERED)
def bent_step(z):
    return 1.0 if z > 0 else HUNDREDTH


STRAIGHT = {"identity": (line, one), "relu": (half_line, step), "leaky_relu": (bent_line, bent_step)}
"""Functions of straight pieces, from their definitions; prelu has the rules of leaky relu."""


def not_correctly_rounded(rule, truth, p, patterns=range(0, 2**32, 2**24)):
    """How many of all finite float32 get another result than the exact one, rounded."""
    rule = compiled_rule(rule, np.float32)
    p = tuple(np.float32(q) for q in p)

    @numba.njit(**ENTERED)
    def count(z):
        wrong = 0
        for i in range(z.size):
            exact = np.float64(z[i])
            if np.isfinite(z[i]) and np.float32(rule(z[i], *p)) != np.float32(truth(exact)):
                wrong += 1
        return wrong

    blocks = (np.arange(start, start + 2**24, STRIDE_OF_STRAIGHT, np.uint32) for start in patterns)
    return sum(count(block.view(np.float32)) for block in blocks)


@pytest.mark.parametrize("name", STRAIGHT)
def test_straight_pieces_are_correctly_rounded(name):
    row = ACTIVATIONS[name]
    for rule, truth in zip((row.value, row.derivative), STRAIGHT[name], strict=True):
        assert not_correctly_rounded(rule, truth, start_of(row)) == 0


def test_prelu_has_the_rules_of_leaky_relu():
    rows = ACTIVATIONS["prelu"], ACTIVATIONS["leaky_relu"]
    assert len({(row.value, row.derivative) for row in rows}) == 1


def wrong_at_one_float(z):
    return 1.0 if z >= 0 else 0.0


def test_one_wrong_float_in_all_of_them_is_counted():
    """Plus zero, where the slope is the left one; minus zero is another pattern."""
    assert not_correctly_rounded(wrong_at_one_float, step, (), patterns=[0]) == 1


def off_by_a_thousandth(rule):
    inner = compiled_rule(rule)
    return lambda z, *p: 1.001 * inner(z, *p)


@rows
def test_a_rule_that_is_off_by_a_thousandth_is_caught(row):
    for (rule, truth, _), (_, error) in zip(columns(row), row.float32_worst, strict=True):
        assert worst(row, off_by_a_thousandth(rule), truth, COARSE)[1] > error + 1000


def wrong_beyond_all_data(z):
    return math.tanh(z) if z < 1e38 else 0.999


def wrong_among_the_smallest(z):
    return math.tanh(z) if abs(z) > 1e-42 else 0.0


def gelu_by_erf(z):
    return 0.5 * z * (1.0 + math.erf(z / math.sqrt(2.0)))


def gelu_in_float32(z):
    return z * np.float32(0.5 * math.erfc(np.float32(-z / math.sqrt(2.0))))


PLANTED = [
    ("tanh", 0, wrong_beyond_all_data),
    ("tanh", 0, wrong_among_the_smallest),
    ("tanh", 1, lambda z: 1.0 - math.tanh(z) * math.tanh(z)),
    ("sigmoid", 0, lambda z: math.exp(z) / (1.0 + math.exp(z))),
    ("sigmoid", 1, lambda z: math.exp(-z) / ((1.0 + math.exp(-z)) * (1.0 + math.exp(-z)))),
    ("softplus", 0, lambda z: math.log(1.0 + math.exp(z))),
    ("elu", 0, lambda z, alpha: z if z > 0 else alpha * (math.exp(z) - 1.0)),
    ("silu", 0, lambda z, beta: z / (1.0 + math.exp(np.float32(-beta * z)))),
    ("gelu", 0, gelu_by_erf),
    ("gelu", 0, gelu_in_float32),
    ("softsign", 1, lambda z: 1.0 - abs(z) / (1.0 + abs(z)) * (2.0 - abs(z) / (1.0 + abs(z)))),
    ("relu", 1, lambda z: 0.0 if z < 0 else 1.0),
]


@pytest.mark.parametrize(("name", "column", "rule"), PLANTED)
def test_planted_faults_are_caught(name, column, rule):
    row = ACTIVATIONS[name]
    truth = columns(row)[column][1]
    assert worst(row, rule, truth, COARSE)[1] > 1.5 * row.float32_worst[column][1]
