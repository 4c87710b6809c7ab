"""Activations of one's own: what is taken is right on every back-end, what is wrong is refused with its worst point."""

import math
from dataclasses import replace

import naive
import numpy as np
import pytest
import sympy

import difflab as dl
from difflab import registration
from difflab.number_systems import BALLS, COMPLEX128, FLOAT64, SERIES, Symbols, ball_precision, coefficient
from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.translation import FUNCTIONS, formula


Z, P = sympy.symbols("z p", real=True)


def cubic_value(z):
    return z * z * z


def cubic_derivative(z):
    return 3.0 * z * z


def cubic_second_derivative(z):
    return 6.0 * z


def softened_value(z, p):
    return z / (1.0 + p * p * z * z)


def square_of(z):
    return z * z


def softened_derivative(z, p):
    squares = square_of(p * z)
    return (1.0 - squares) / square_of(1.0 + squares)


def softened_parameter_derivative(z, p):
    return -2.0 * p * z * z * z / square_of(1.0 + square_of(p * z))


CUBIC = dl.Activation("cubic", Z**3, cubic_value, cubic_derivative)
SOFTENED = dl.Activation(
    "softened",
    Z / (1 + P**2 * Z**2),
    softened_value,
    softened_derivative,
    derivative_ulp=1e6,
    parameter_derivative_ulp=16.0,
    parameter="p",
    start=0.75,
    is_learnable=True,
    parameter_derivative=softened_parameter_derivative,
)


@pytest.fixture
def registered():
    """The table as it was, when the test is over."""
    rows = dict(ACTIVATIONS)
    yield dl.register_activation
    ACTIVATIONS.clear()
    ACTIVATIONS.update(rows)


def judged(net, backend):
    prepared, rng = backend.prepare(net), np.random.default_rng(3)
    dtype = prepared.dtypes[0]
    theta, x = (rng.normal(size=shape).astype(dtype) for shape in (net.n_params, (5, net.n_inputs)))
    y = rng.integers(net.n_outputs, size=5)
    truth = dl.reference_gradient(net, theta, x, y)
    _, gradient = prepared.value_and_gradient(theta, x, y)
    return dl.discrepancy(gradient, truth).error_relative, naive.predicted(prepared, truth, theta, x, y)


def test_every_backend_has_it_and_networks_prepared_before_stay_right(registered):
    plain = dl.MLP.dense([2, 3, 2])
    arguments = plain.init(0), np.ones((1, 2)), np.array([1])
    before = dl.Backprop().prepare(plain)
    expected = before.value_and_gradient(*arguments)
    registered(CUBIC)
    registered(SOFTENED)
    net = dl.MLP(2, [dl.Dense(2, "cubic"), dl.Dense(2, "softened"), dl.Dense(2, "softened(0.5)"), dl.Dense(2)])
    for backend in (*dl.BACKENDS.values(), dl.FiniteDifference("complex"), dl.Backprop("float32")):
        error, predicted = judged(net, backend)
        assert error <= min(predicted, 1e-5), backend
    value, gradient = before.value_and_gradient(*arguments)
    assert value == expected[0]
    assert (gradient == expected[1]).all()


def test_a_function_of_number_systems_does_as_well(registered):
    registered(dl.Activation("cubic", lambda m, z: z * z * z, cubic_value, cubic_derivative))
    assert judged(dl.MLP.dense([2, 3, 2], hidden="cubic"), dl.Symbolic())[0] < 1e-12


def off_by_a_thousandth(z):
    return 3.003 * z * z


def with_a_wrong_sign_far_out(z):
    return 3.0 * z * z if z < 29.9 else -3.0 * z * z


def nan_somewhere(z):
    return math.nan if z == 1.0 else 3.0 * z * z


@pytest.mark.parametrize("rule", [off_by_a_thousandth, with_a_wrong_sign_far_out, nan_somewhere, cubic_value])
def test_a_wrong_derivative_is_refused_with_its_worst_point(registered, rule):
    with pytest.raises(ValueError, match="derivative of 'cubic' must be within 4 ulp of its expression, got .* at "):
        registered(dl.Activation("cubic", Z**3, cubic_value, rule))
    assert "cubic" not in ACTIVATIONS


def test_a_wrong_value_is_refused(registered):
    with pytest.raises(ValueError, match="value of 'cubic'"):
        registered(dl.Activation("cubic", Z**3, cubic_derivative, cubic_derivative))


def test_a_wrong_second_derivative_is_refused(registered):
    with pytest.raises(ValueError, match="second_derivative of 'cubic'"):
        registered(dl.Activation("cubic", Z**3, cubic_value, cubic_derivative, cubic_value))
    registered(dl.Activation("cubic", Z**3, cubic_value, cubic_derivative, cubic_second_derivative))


def test_a_wrong_parameter_derivative_is_refused(registered):
    from dataclasses import replace

    with pytest.raises(ValueError, match="parameter_derivative of 'softened'"):
        registered(replace(SOFTENED, parameter_derivative=softened_value))


def hill(z, p):
    return p * p * z * z


def hill_by_z(z, p):
    return 2.0 * p * p * z


def hill_by_p(z, p):
    return 2.0 * p * z * z


def hill_mixed(z, p):
    return 4.0 * p * z


def hill_by_p_twice(z, p):
    return 2.0 * z * z


@pytest.mark.parametrize("name", ["mixed_derivative", "parameter_second_derivative"])
def test_a_wrong_second_derivative_of_the_parameter_is_refused(registered, name):
    given = {"parameter": "p", "start": 0.75, "is_learnable": True, "parameter_derivative": hill_by_p}
    second = {"mixed_derivative": hill_mixed, "parameter_second_derivative": hill_by_p_twice}
    expected = rf"^{name} of 'hill' must be within 8 ulp .* state the second_derivative_ulp it can keep$"
    with pytest.raises(ValueError, match=expected):
        registered(dl.Activation("hill", P**2 * Z**2, hill, hill_by_z, **given, **second | {name: hill}))
    registered(dl.Activation("hill", P**2 * Z**2, hill, hill_by_z, **given, **second))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (dl.Activation("tanh", Z**3, cubic_value, cubic_derivative), "not taken"),
        (dl.Activation("my cubic", Z**3, cubic_value, cubic_derivative), "identifier"),
        (dl.Activation("cubic", Z**3 + P, cubic_value, cubic_derivative), "must be in z, got p as well"),
        (dl.Activation("cubic", sympy.gamma(Z), cubic_value, cubic_derivative), "got gamma"),
        (dl.Activation("cubic", Z ** sympy.Rational(1, 3), cubic_value, cubic_derivative), "got z"),
        (dl.Activation("cubic", sympy.Max(Z, Z**2), cubic_value, cubic_derivative), "got Max"),
        (dl.Activation("cubic", sympy.pi * Z, cubic_value, cubic_derivative), "got pi"),
        (dl.Activation("cubic", Z**3, softened_value, softened_derivative, is_learnable=True), "give both"),
    ],
)
def test_what_is_no_activation_is_refused_in_words(registered, row, message):
    with pytest.raises(ValueError, match=message):
        registered(row)
    assert "cubic" not in ACTIVATIONS


def test_something_else_is_refused(registered):
    with pytest.raises(TypeError, match="takes a difflab.Activation"):
        registered("cubic")


def test_all_rows_of_the_table_pass_the_check_of_registration():
    for row in ACTIVATIONS.values():
        registration.check(row)


# --- expressions in the vocabulary


EXPRESSIONS = [
    Z**3 - 2 * Z + sympy.Rational(1, 3),
    1 / (1 + Z**2),
    sympy.sqrt(1 + Z**2),
    1 / sympy.sqrt(2 + sympy.sin(Z)),
    sympy.exp(-(Z**2)) * sympy.cos(3 * Z),
    sympy.log(2 + sympy.tanh(Z)) * 0.1,
    sympy.erf(Z) + sympy.erfc(Z / 2),
    sympy.Max(0, Z - 1) + sympy.Abs(Z + sympy.Rational(1, 2)),
]
POINTS = np.array([-2.0, -0.75, 0.25, 1.5])


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=str)
def test_an_expression_means_the_same_in_every_number_system(expression):
    over = formula(expression, ("z",))
    exact = [float(expression.subs(Z, sympy.Rational(z)).evalf(30)) for z in POINTS]
    slopes = [float(sympy.diff(expression, Z).subs(Z, sympy.Rational(z)).doit().evalf(30)) for z in POINTS]
    # Some ten operations on numbers of order 1 to 10.
    bound = 10 * 10 * 2.0**-52
    assert np.abs(over(FLOAT64, POINTS) - exact).max() <= bound
    assert np.abs(over(COMPLEX128, POINTS + 1e-60j).imag / 1e-60 - slopes).max() <= bound
    with ball_precision(128):
        values = over(BALLS, BALLS.array(POINTS))
        along = over(SERIES, SERIES.line(BALLS.array(POINTS), np.ones(len(POINTS), object)))
        assert np.abs([float(v) for v in values] - np.array(exact)).max() <= bound
        assert np.abs([float(s) for s in coefficient(along, 1)] - np.array(slopes)).max() <= bound
    symbolic = over(Symbols(), np.array([sympy.Rational(z) for z in POINTS], object))
    assert np.abs([float(s) for s in symbolic] - np.array(exact)).max() <= bound


def test_every_function_of_the_vocabulary_is_tried():
    tried = {type(part).__name__ for expression in EXPRESSIONS for part in sympy.preorder_traversal(expression)}
    assert set(FUNCTIONS) | {"erf", "Abs", "Max"} <= tried


# --- rows that would take others with them


def derivative_of_tanh(z):
    tail = math.exp(-2.0 * abs(z))
    return 4.0 * tail / ((1.0 + tail) * (1.0 + tail))


def test_rules_borrowed_from_the_table_are_compiled_with_those_that_are_not(registered):
    """Kernels that are kept on disk know nothing of this row."""
    from difflab.primitives.activations import tanh_value

    dl.Backprop().prepare(dl.MLP.dense([2, 2]))
    registered(dl.Activation("mine", lambda m, z: m.tanh(z), tanh_value, derivative_of_tanh, derivative_ulp=8))
    error, predicted = judged(dl.MLP.dense([2, 3, 2], hidden="mine"), dl.Backprop())
    assert error <= min(predicted, 1e-12)


class Cube:
    def __call__(self, z):
        return z * z * z


@pytest.mark.parametrize("rule", [Cube(), math.sin])
def test_a_rule_that_is_no_function_is_refused(registered, rule):
    with pytest.raises(TypeError, match="must be plain functions"):
        registered(dl.Activation("cubic", Z**3, rule, cubic_derivative))


def by_text(z):
    return float(f"{z}") ** 3


def test_a_rule_that_does_not_compile_is_refused_and_takes_nothing_with_it(registered):
    with pytest.raises(ValueError, match="plain Python on math that Numba compiles, got by_text"):
        registered(dl.Activation("cubic", Z**3, by_text, cubic_derivative))
    assert judged(dl.MLP.dense([2, 3, 2]), dl.Backprop())[0] < 1e-12


def magnitude(z):
    return abs(z)


def left_slope(z):
    return 1.0 if z > 0 else -1.0


def slope_at_rest(z):
    return 1.0 if z > 0 else (0.0 if z == 0 else -1.0)


@pytest.mark.parametrize("at", [0.0, 0.25, -7.25])
def test_a_kink_that_the_row_does_not_tell_of_is_refused(registered, at):
    """Bounds of roundings and of one-sided derivatives rely on it."""

    def shifted(z):
        return abs(z - at)

    def slope(z):
        return 1.0 if z > at else -1.0

    expression = sympy.Abs(Z - sympy.Rational(str(at)))
    with pytest.raises(ValueError, match=rf"kinks of 'shifted' must hold all of its expression, got \(\); add {at}"):
        registered(dl.Activation("shifted", expression, shifted, slope, value_ulp=1e9))
    registered(dl.Activation("shifted", expression, shifted, slope, value_ulp=1e9, kinks=(at,)))


def test_a_bend_is_no_kink(registered):
    """Its two slopes are one."""

    def value(z):
        return z * abs(z)

    def slope(z):
        return 2 * abs(z)

    registered(dl.Activation("bend", Z * sympy.Abs(Z), value, slope))


def test_a_kink_of_a_registered_activation_is_bounded_from_both_sides(registered):
    registered(dl.Activation("magnitude", sympy.Abs(Z), magnitude, left_slope, kinks=(0.0,)))
    net = dl.MLP(1, [dl.Dense(1, "magnitude"), dl.Dense(1)], loss="squared_error")
    theta, x, y = np.array([1.0, 0.0, 1.0, 0.0]), np.array([[0.0], [2.0]]), np.array([[1.0], [0.0]])
    truth = dl.reference_gradient(net, theta, x, y)
    # The first sample sits on the kink with cotangent -1, the second has slope 1 and cotangent 2; half of each counts.
    assert truth.status[1] == "kink"
    assert (truth.lower[1], truth.upper[1]) == (0.5, 1.5)


def test_a_slope_against_the_convention_is_refused(registered):
    with pytest.raises(ValueError, match="derivative of 'magnitude'"):
        registered(dl.Activation("magnitude", sympy.Abs(Z), magnitude, slope_at_rest, kinks=(0.0,)))


def test_a_range_that_values_leave_is_refused(registered):
    with pytest.raises(ValueError, match="range of 'cubic' must hold its values"):
        registered(dl.Activation("cubic", Z**3, cubic_value, cubic_derivative, range=(0.0, 1.0)))


def logarithm(z):
    return math.log(z)


def reciprocal(z):
    return 1.0 / z


def test_arguments_without_a_value_ask_for_a_domain(registered):
    with pytest.raises(ValueError, match="must have a value at every argument|must be a number at"):
        registered(dl.Activation("logarithm", sympy.log(Z), logarithm, reciprocal))
    registered(dl.Activation("logarithm", sympy.log(Z), logarithm, reciprocal, value_ulp=64, domain=(0.001, math.inf)))


@pytest.mark.parametrize("number", [sympy.Integer(2**53 + 1), sympy.Rational(1, 3**40), sympy.Float("0.1", 40)])
def test_numbers_that_floats_do_not_hold_are_refused(number):
    with pytest.raises(ValueError, match="expression must be of"):
        formula(number * Z, ("z",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parameter": "bias"}, "must not be called as that of a layer"),
        ({"domain": (5.0, 2.0)}, "domain of 'softened' must hold numbers"),
        ({"domain": (100.0, 200.0)}, "domain of 'softened' must hold numbers"),
        ({"domain": (math.nan, 1.0)}, "domain of 'softened' must hold numbers"),
        ({"expression": sympy.Integer(3)}, "must depend on z"),
    ],
)
def test_odd_rows_are_refused_in_words(registered, changes, message):
    from dataclasses import replace

    with pytest.raises(ValueError, match=message):
        registered(replace(SOFTENED, **changes))


def test_a_plain_number_is_no_expression(registered):
    with pytest.raises(TypeError, match="must be a SymPy expression or a function"):
        registered(dl.Activation("three", 3, cubic_value, cubic_derivative))


def hypotenuse(z):
    return math.hypot(1.0, z)


def slope_of_hypotenuse(z):
    return z / math.hypot(1.0, z)


def test_numbers_first_in_a_sum_are_no_obstacle(registered):
    registered(dl.Activation("hypotenuse", sympy.sqrt(1 + Z**2), hypotenuse, slope_of_hypotenuse))
    assert judged(dl.MLP.dense([2, 2, 2], hidden="hypotenuse"), dl.Symbolic())[0] < 1e-12


def test_a_row_with_lists_in_it_is_compiled_as_any_other(registered):
    rows = {name: list(value) for name, value in vars(CUBIC).items() if isinstance(value, tuple)}
    registered(replace(CUBIC, name="listed", **rows | {"known_values": [[1.0, 1.0, 3.0]]}))
    net = dl.MLP(1, [dl.Dense(2, "listed")], "squared_error")
    value, _ = dl.value_and_gradient(net, np.ones(net.n_params), np.ones((1, 1)), np.zeros((1, 2)), dl.Backprop())
    assert value == 64.0  # Both outputs are (1 + 1)**3, and half their squares add up.
