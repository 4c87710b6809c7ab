"""Number systems: each agrees with mpmath on the whole vocabulary; balls enclose, series differentiate, trees count."""

from collections.abc import Callable
from itertools import product

import mpmath
import numpy as np
import pytest
import sympy
from flint import arb, ctx

import difflab as dl
from difflab.counting import loss_tree_operations
from difflab.derivation import expressions
from difflab.number_systems import (
    BALLS,
    COMPLEX128,
    FLOAT32,
    FLOAT64,
    SERIES,
    SERIES_AHEAD,
    TREE_SIZES,
    Balls,
    Series,
    Symbols,
    TreeSize,
    ball_precision,
    coefficient,
)


DIGITS = 120
BITS = 128

VALUES: dict[str, Callable] = {
    "exp": mpmath.exp,
    "log": mpmath.log,
    "tanh": mpmath.tanh,
    "expit": lambda z: 1 / (1 + mpmath.exp(-z)),
    "log1pexp": lambda z: mpmath.log1p(mpmath.exp(z)),
    "positive_part": lambda z: max(z, mpmath.mpf(0)),
    "square": lambda z: z**2,
    "sqrt": mpmath.sqrt,
    "expm1": mpmath.expm1,
    "sin": mpmath.sin,
    "cos": mpmath.cos,
    "erfc": mpmath.erfc,
    "xlogx": lambda z: z * mpmath.log(z),
}
SLOPES: dict[str, Callable] = {
    "exp": mpmath.exp,
    "log": lambda z: 1 / z,
    "tanh": lambda z: mpmath.sech(z) ** 2,
    "expit": lambda z: mpmath.exp(-z) / (1 + mpmath.exp(-z)) ** 2,
    "log1pexp": VALUES["expit"],
    "positive_part": lambda z: mpmath.mpf(z > 0),
    "square": lambda z: 2 * z,
    "sqrt": lambda z: 1 / (2 * mpmath.sqrt(z)),
    "expm1": mpmath.exp,
    "sin": mpmath.cos,
    "cos": lambda z: -mpmath.sin(z),
    "erfc": lambda z: -2 / mpmath.sqrt(mpmath.pi) * mpmath.exp(-(z**2)),
    "xlogx": lambda z: 1 + mpmath.log(z),
}
POSITIVE = ("log", "sqrt", "xlogx")
"""Words for positive arguments alone."""

FLOATS = {"float32": FLOAT32, "float64": FLOAT64, "complex128": COMPLEX128}

words = pytest.mark.parametrize("word", VALUES)
floats = pytest.mark.parametrize("system", FLOATS.values(), ids=FLOATS)


def arguments(word: str, n: int = 400) -> np.ndarray:
    """Numbers that float32 holds exactly, as do the results; positive ones where there is no other result."""
    rng, most = np.random.default_rng(0), 8 if word == "erfc" else 80
    z = np.concatenate([rng.uniform(-most, most, n), rng.normal(size=n), 10.0 ** rng.uniform(-18, 1, n)])
    z = np.clip(z, -most, most).astype(np.float32).astype(np.float64)
    return np.abs(z) if word in POSITIVE else z


def exact(functions: dict[str, Callable], word: str, z: np.ndarray) -> list:
    with mpmath.workdps(DIGITS):
        return [functions[word](mpmath.mpf(number)) for number in z.tolist()]


def contains(ball: arb, number: mpmath.mpf) -> bool:
    """Whether the ball holds a number known to DIGITS digits; its own uncertainty is below any radius here."""
    return bool(ball.overlaps(arb(number) * arb(1, 1e-110)))


def each_word_of_each_float() -> list:
    return [pytest.param(system, word, id=f"{name}-{word}") for name, system in FLOATS.items() for word in VALUES]


@pytest.mark.parametrize(("system", "word"), each_word_of_each_float())
def test_floats_are_right_to_a_few_ulp(system, word):
    z = arguments(word)
    got = getattr(system, word)(system.array(z))
    assert got.dtype == system.dtype
    eps = np.finfo(system.dtype).eps
    for argument, number, truth in zip(z, got.real.tolist(), exact(VALUES, word, z), strict=True):
        # A library function is within 4 ulp, but for SciPy's erfc, which is within 8.
        assert abs(number - truth) <= (8 if word == "erfc" else 4) * eps * abs(truth), argument


@floats
def test_floats_do_not_overflow_where_the_result_does_not(system):
    z = system.array([-1e4, 1e4])
    with np.errstate(over="raise", invalid="raise"):
        assert system.expit(z).real.tolist() == [0.0, 1.0]
        assert system.log1pexp(z).real.tolist() == [0.0, 1e4]
        assert system.tanh(z).real.tolist() == [-1.0, 1.0]
        assert system.shift(z[None]).tolist() == [[1e4]]


@pytest.mark.parametrize("word", ["exp", "tanh", "expit", "log1pexp", "positive_part"])
def test_complex_step_carries_the_derivative(word):
    z, step = arguments(word), 2.0**-200
    got = getattr(COMPLEX128, word)(z + 1j * step).imag / step
    for argument, slope, truth in zip(z, got.tolist(), exact(SLOPES, word, z), strict=True):
        # The slope is a few products away from functions of arguments up to 80, and expit and tanh saturate.
        assert abs(slope - truth) <= (8 + abs(argument)) * 2.0**-52 * max(abs(truth), mpmath.mpf(2.0**-1000)), argument


@words
def test_balls_enclose_the_truth_and_are_tight(word):
    z = arguments(word)
    with ball_precision(BITS):
        for ball, truth in zip(getattr(BALLS, word)(BALLS.array(z)), exact(VALUES, word, z), strict=True):
            assert contains(ball, truth)
            # log near 1 and exp of 80 lose some bits of 128, never half.
            assert ball.rad() <= abs(ball.mid()) * arb(2) ** -64


@words
@pytest.mark.parametrize("system", [SERIES, SERIES_AHEAD], ids=["left", "ahead"])
def test_series_enclose_value_and_derivative(system, word):
    z = arguments(word)
    ones = np.ones(z.shape, object)
    with ball_precision(BITS):
        series = getattr(system, word)(system.line(BALLS.array(z), ones))
        for degree, functions in enumerate((VALUES, SLOPES)):
            for ball, truth in zip(coefficient(series, degree), exact(functions, word, z), strict=True):
                assert contains(ball, truth)


@words
def test_derivatives_from_series_do_not_cancel(word):
    z = arguments(word)
    with ball_precision(BITS):
        series = getattr(SERIES, word)(SERIES.line(BALLS.array(z), np.ones(z.shape, object)))
        assert all(ball.rad() <= abs(ball.mid()) * arb(2) ** -64 for ball in coefficient(series, 1) if ball != 0)


@words
def test_symbols_mean_the_same_functions(word):
    z = sympy.Symbol("z", real=True)
    made = getattr(Symbols(), word)(np.array([z], object))[0]
    numbers = arguments(word, n=4)
    for number, truth in zip(numbers.tolist(), exact(VALUES, word, numbers), strict=True):
        got = sympy.N(made.subs(z, sympy.Rational(number)), 50, maxn=600)
        with mpmath.workdps(DIGITS):
            assert abs(mpmath.mpf(got) - truth) <= abs(truth) * mpmath.mpf("1e-49")


@pytest.mark.parametrize("system", [FLOAT64, FLOAT32, COMPLEX128, BALLS, Symbols()], ids=lambda m: type(m).__name__)
def test_products_and_sums_of_small_integers_are_exact_everywhere(system):
    rng = np.random.default_rng(3)
    a, b = rng.integers(-9, 9, (3, 4)), rng.integers(-9, 9, (4, 2))
    if isinstance(system, Symbols):
        left, right = (np.vectorize(sympy.Integer, otypes=[object])(factor) for factor in (a, b))
    else:
        left, right = system.array(a), system.array(b)
    assert (system.matmul(left, right) == a @ b).all()
    assert (system.sum(left) == a.sum(axis=1)).all()


def test_products_of_series_carry_the_product_rule():
    a, a_dot = np.array([[2.0, 3.0]]), np.array([[1.0, -1.0]])
    b = np.array([[5.0], [7.0]])
    made = SERIES.matmul(SERIES.line(BALLS.array(a), BALLS.array(a_dot)), SERIES.array(BALLS.array(b)))
    assert made[0, 0][0] == 31
    assert made[0, 0][1] == -2


def test_a_ball_around_the_kink_gives_the_hull_of_both_branches():
    around = arb(0, 1)
    made = BALLS.positive_part(np.array([around]))[0]
    assert all(made.contains(arb(value)) for value in (0, 0.5, 1))
    series = SERIES.positive_part(SERIES.line(np.array([around]), np.array([1])))[0]
    assert all(series[1].contains(arb(slope)) for slope in (0, 1))


def test_a_series_at_the_kink_takes_the_side_it_is_told():
    at = np.array([arb(0)]), np.array([3])
    assert SERIES.positive_part(SERIES.line(*at))[0][1] == 0
    assert SERIES_AHEAD.positive_part(SERIES_AHEAD.line(*at))[0][1] == 3


def test_floats_become_balls_exactly():
    numbers = np.array([0.1, -1e-300, 3e300, 5e-324])
    for dtype in (np.float64, np.float32):
        with np.errstate(over="ignore", under="ignore"):
            finite = [number for number in numbers.astype(dtype).tolist() if np.isfinite(number)]
        with ball_precision(2):
            balls = BALLS.array(finite)
            assert all(ball.is_exact() for ball in balls)
            assert [float(ball) for ball in balls] == finite


def test_precision_is_restored():
    before = ctx.prec, ctx.cap
    with ball_precision(777):
        assert (ctx.prec, ctx.cap) == (777, 2)
        with ball_precision(99):
            assert ctx.prec == 99
        assert ctx.prec == 777
    assert (ctx.prec, ctx.cap) == before


def test_precision_is_restored_when_the_block_raises():
    before = ctx.prec, ctx.cap
    with pytest.raises(ZeroDivisionError), ball_precision(777):
        raise ZeroDivisionError
    assert (ctx.prec, ctx.cap) == before


def test_symbols_and_tree_sizes_do_not_shift():
    assert Symbols().shift(np.array([[1, 2]], object)) == TREE_SIZES.shift(TREE_SIZES.array([[1, 2]])) == 0


@pytest.mark.parametrize("system", [Balls(), Series()], ids=lambda m: type(m).__name__)
def test_balls_shift_by_exact_numbers_so_that_exp_does_not_overflow(system):
    z = system.array(BALLS.array([[1e300, 2.0], [-1e300, -1e299]]))
    shift = system.shift(z)
    assert [float(s) for s in shift[:, 0]] == [1e300, -1e299]
    assert all(s.is_exact() for s in shift.flat)


TINY_NETS = [
    dl.MLP(n, [dl.Dense(h, hidden), dl.Dense(k, output)], loss)
    for n, h, k in ((1, 1, 1), (2, 1, 2), (1, 2, 2), (3, 2, 1))
    for hidden, output, loss in product(
        ("identity", "sigmoid", "tanh", "relu", "softplus"),
        ("identity", "sigmoid", "relu"),
        ("squared_error", "softmax_cross_entropy"),
    )
    # SymPy folds log(exp(z)) of one class alone.
    if not (k == 1 and loss == "softmax_cross_entropy")
]


@pytest.mark.parametrize("net", TINY_NETS, ids=lambda net: f"{net}-{'-'.join(a.activation for a in net.layers)}")
def test_tree_sizes_are_those_of_sympys_expression(net):
    loss = expressions.derive_sample(net).loss
    assert loss_tree_operations(net.program, net.n_params) == expressions.tree_operations([loss])


def test_tree_sizes_follow_the_convention_of_one_operation_each():
    z = TREE_SIZES.array([0.0])
    assert TREE_SIZES.expit(z)[0].operations == 3
    assert (TreeSize(2) + TreeSize(3)).operations == 6
    assert (-TreeSize(2)).operations == 2
    assert (TreeSize(2) - 0).operations == 2
    assert (TreeSize(2) / 2).operations == 3
    assert (TreeSize(2) / TreeSize(2)).operations == 5
    reciprocal = 1 / TreeSize(2)
    assert reciprocal.operations == 3
    assert (TreeSize(2) * reciprocal).operations == (reciprocal * TreeSize(2)).operations == 5
    assert (reciprocal * reciprocal).operations == 6
    assert (TreeSize(1) * (reciprocal * reciprocal)).operations == 7
    assert (reciprocal**2).operations == 3
    assert (TreeSize(2) / reciprocal).operations == 5
    assert (2 / TreeSize(2) * TreeSize(2)).operations == 6
