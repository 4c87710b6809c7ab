"""Listings: one operation a line, nothing twice, the derivatives SymPy gives, and how many operations they take."""

from __future__ import annotations

from functools import cache

import pytest
import sympy

import difflab as dl
from difflab.backends.symbolic import CHEAP_GRADIENT
from difflab.counting import primal_operations
from difflab.derivation import expressions, listings
from difflab.derivation.expressions import Derivation, deep_recursion, share, shared_operations, tree_operations
from difflab.derivation.listings import ACCUMULATIONS, Listing, needed
from difflab.derivation.sharing import Way


a, b, c, d = sympy.symbols("a b c d", real=True)
EXPRESSIONS = [
    a,
    -a,
    sympy.Integer(3),
    a - b,
    a + a * b + 3,
    2 * a * b * c - a * b,
    a / b,
    (a + b) ** 3 / (a - b) ** 2,
    sympy.exp(-a * b) + sympy.tanh(a * b),
    sympy.sqrt(a**2 + b**2),
    sympy.log(1 + sympy.exp(a)) - sympy.erfc(-a / sympy.sqrt(2)) / sympy.sqrt(sympy.pi),
    sympy.tanh(-a) * sympy.tanh(a),
    sympy.Piecewise((a * b, c + a <= 0), (sympy.exp(a), True)),
    sympy.Piecewise((a, (a * b <= 1) & (c <= a + b)), (sympy.Piecewise((b, c <= 0), (c, True)), True)),
    a * b * c * d * (a + b) * (c + d),
]
PLACES = [{a: 0.5, b: 0.25, c: -1.0, d: 2.0}, {a: -1.5, b: 0.75, c: 3.0, d: 0.5}, {a: 0.0, b: -2.0, c: 1.0, d: -0.5}]
DIGITS = 40

each_expression = pytest.mark.parametrize("expression", EXPRESSIONS, ids=str)
each_order = pytest.mark.parametrize("order", ACCUMULATIONS)


def is_plain(operand: sympy.Expr) -> bool:
    return operand.is_Atom or (operand.is_Mul and operand.args[0] == -1 and operand.args[1].is_Symbol)


def expanded(expression: sympy.Expr, listing: Listing) -> sympy.Expr:
    """With every symbol of a line replaced by what it stands for."""
    for symbol, line in reversed(listing.lines):
        expression = expression.subs(symbol, line)
    return expression


def number(expression: sympy.Expr, place: dict) -> sympy.Float:
    exact = {symbol: sympy.Rational(value) for symbol, value in place.items()}
    return sympy.N(expression.subs(exact), DIGITS)


def are_equal(found: sympy.Expr, expected: sympy.Expr, listing: Listing) -> bool:
    """At places where both are numbers: lines may not be what SymPy would write, but mean the same."""
    found = expanded(found, listing)
    pairs = [(number(found, place), number(expected, place)) for place in PLACES]
    return all(
        x == y or not y.is_finite or abs(x - y) <= 10.0 ** (5 - DIGITS) * (1 + abs(y)) for x, y in pairs
    ) and any(y.is_finite for _, y in pairs)


@each_expression
def test_a_line_is_one_operation_on_what_came_before(expression):
    listing = Listing()
    assert is_plain(listing.name(expression))
    before = {a, b, c, d}
    for symbol, line in listing.lines:
        assert line.free_symbols <= before
        if line.is_Piecewise:
            assert all(is_plain(branch) for branch, _ in line.args)
        else:
            assert all(map(is_plain, line.args))
            assert len(line.args) <= 2 or line.is_Add
        before.add(symbol)


@each_expression
def test_a_name_stands_for_its_expression(expression):
    listing = Listing()
    assert are_equal(listing.name(expression), expression, listing)


@each_expression
def test_nothing_is_listed_twice(expression):
    listing = Listing()
    first = listing.name(expression)
    lines = len(listing.lines)
    assert listing.name(expression) == first
    assert len(listing.lines) == lines == len({line for _, line in listing.lines})


@each_expression
@each_order
def test_derivatives_along_lines_are_those_of_the_whole(expression, order):
    listing = Listing()
    output = listing.name(expression)
    found = ACCUMULATIONS[order](listing, listing.lines.copy(), output, [a, b, c, d])
    for one, derivative in zip((a, b, c, d), found, strict=True):
        assert are_equal(derivative, sympy.diff(expression, one), listing), one


@each_order
def test_a_wrong_slope_is_caught(order, monkeypatch):
    right = listings.slopes
    monkeypatch.setattr(
        listings, "slopes", lambda e, by: ((s, slope * sympy.Rational(1001, 1000)) for s, slope in right(e, by))
    )
    with pytest.raises(AssertionError):
        test_derivatives_along_lines_are_those_of_the_whole(EXPRESSIONS[4], order)


def test_lines_that_nothing_needs_are_left_out():
    listing = Listing()
    kept, _ = listing.name(sympy.exp(a * b)), listing.name(sympy.tanh(a + c))
    assert [line for _, line in needed(listing.lines, [kept])] == [a * b, sympy.exp(listing.lines[0][0])]
    assert needed(listing.lines, [a]) == []


# --- how many operations there are


@cache
def derived(widths: tuple[int, ...], sharing: str, hidden: str = "tanh", order: str = "reverse") -> Derivation:
    return expressions.derive_sample(dl.MLP.dense(list(widths), hidden=hidden), Way(sharing, order))


def operations(derivation: Derivation) -> int:
    return shared_operations(share(derivation, Way("during")))


DEEP = [(4, *[width] * depth, 3) for depth in range(1, 9) for width in (1, 2, 4)]
WIDE = [(16, 16, 10), (64, 32, 10)]


@pytest.mark.parametrize("sharing", ["during", "layerwise"])
@pytest.mark.parametrize("widths", DEEP + WIDE, ids=str)
def test_the_gradient_is_cheap_at_every_depth_and_width(widths, sharing):
    net = dl.MLP.dense(list(widths), hidden="tanh")
    assert operations(derived(widths, sharing)) <= CHEAP_GRADIENT * primal_operations(net.program)


@pytest.mark.parametrize("hidden", ["identity", "sigmoid", "tanh", "relu", "softplus", "elu", "gelu", "softsign"])
def test_the_gradient_is_cheap_for_every_activation(hidden):
    net = dl.MLP.dense([4, 6, 6, 3], hidden=hidden)
    derivation = expressions.derive_sample(net, Way("during"))
    of_loss = sum(tree_operations([line]) for _, line in needed(derivation.lines, [derivation.loss]))
    assert operations(derivation) <= CHEAP_GRADIENT * of_loss


@pytest.mark.parametrize("widths", DEEP[:12], ids=str)
def test_lines_share_what_common_subexpressions_miss(widths):
    """Found afterwards, sharing is incomplete where a derivative regroups the factors of another."""
    if max(widths[1:-1]) > 2 or len(widths) > 5:
        pytest.skip("SymPy takes long")
    after = shared_operations(share(derived(widths, "after")))
    assert operations(derived(widths, "during")) <= 1.1 * after


def test_lines_grow_with_the_network_and_no_faster():
    """Twice as deep, at most twice the lines and what the ends need; twice as wide, four times as many weights."""
    deep = [len(derived((4, *[4] * depth, 3), "during").lines) for depth in (2, 4, 8)]
    assert deep[1] - deep[0] == (deep[2] - deep[1]) / 2
    wide = [len(derived((2, width, width, 2), "during").lines) for width in (4, 8, 16)]
    assert wide[2] <= 4 * wide[1] <= 16 * wide[0]


def walked(expression: sympy.Expr, lines: dict) -> int:
    """Operations of the tree, node by node, with no memory."""
    if expression in lines:
        return walked(lines[expression], lines)
    if isinstance(expression, sympy.Piecewise):
        return sum(walked(branch, lines) for branch, _ in expression.args)
    below = sum(walked(operand, lines) for operand in expression.args)
    if isinstance(expression, sympy.Add):
        return len(expression.args) - 1 + below
    if isinstance(expression, sympy.Mul):
        quotients = sum(operand.is_Pow and operand.exp == -1 for operand in expression.args)
        products = len(expression.args) - 1 - (expression.args[0] == -1)
        return products - min(products, quotients) + below
    return below + bool(expression.args)


@pytest.mark.parametrize("widths", [(2, 3, 2), (2, 2, 2, 2), (3, 1, 1, 2)], ids=str)
@pytest.mark.parametrize("order", ACCUMULATIONS)
def test_trees_are_counted_without_being_written_out(widths, order):
    derivation = derived(widths, "during", order=order)
    lines = dict(derivation.lines)
    expected = sum(walked(entry, lines) for entry in derivation.gradient)
    assert tree_operations(derivation.gradient, derivation.lines) == expected


def test_a_tree_of_more_operations_than_there_are_atoms_is_counted_exactly():
    """A square of a square of a square: 2**n - 1 operations for n squares, as products."""
    lines, last = [], a
    for i in range(300):
        symbol = sympy.Symbol(f"v{i}")
        lines.append((symbol, sympy.Mul(last, last + 0, evaluate=False)))
        last = symbol
    assert tree_operations([last], lines) == 2**300 - 1


# --- the classical examples


def test_all_derivatives_of_a_product_take_three_operations_a_factor():
    """Speelpenning's product [Speelpenning 1980]: n - 1 products ahead, and at most two for each on the way back."""
    for n in (3, 10, 100):
        factors = sympy.symbols(f"x:{n}", real=True)
        listing = Listing()
        with deep_recursion():
            output = listing.name(sympy.Mul(*factors))
            gradient = ACCUMULATIONS["reverse"](listing, listing.lines.copy(), output, factors)
        assert len(listing.lines) <= 3 * (n - 1)
        place = dict(zip(factors, map(sympy.Integer, range(1, n + 1)), strict=True))
        values = dict(place)
        for symbol, line in listing.lines:
            values[symbol] = line.xreplace(values)
        product = sympy.factorial(n)
        assert [values[entry] for entry in gradient] == [product / place[factor] for factor in factors]
