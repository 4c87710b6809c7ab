"""The classical examples of expression swell: their printed derivatives exactly, and how they grow by what is shared.

A campaign goes on to n = 12 and further, and leaves a record in ``results/campaigns/classics.json``::

    export DIFFLAB_CLASSICS=12 DIFFLAB_CAMPAIGN_RESULTS=results/campaigns
    python -m pytest tests/test_classics.py
"""

from __future__ import annotations

import campaigns
import numpy as np
import pytest
import sympy

from difflab.derivation.expressions import deep_recursion, tree_operations
from difflab.derivation.listings import ACCUMULATIONS, Listing, needed
from difflab.study.swelling import law


MOST = campaigns.size("DIFFLAB_CLASSICS", 7)
x = sympy.Symbol("x", real=True)


def logistic(n: int) -> sympy.Expr:
    """l_1 = x, l_{n+1} = 4 l_n (1 - l_n) [Baydin, Pearlmutter, Radul, Siskind 2018, table 1]."""
    made = x
    for _ in range(n - 1):
        made = 4 * made * (1 - made)
    return made


def product(n: int) -> sympy.Expr:
    """Speelpenning's, of n factors that depend on x [Speelpenning 1980], so that there is one derivative."""
    return sympy.Mul(*(x + i for i in range(n)))


def chain(n: int) -> sympy.Expr:
    """Sigmoids of one another, the innermost of 20 x, where it is saturated."""
    made = 20 * x
    for _ in range(n):
        made = 1 / (1 + sympy.exp(-made))
    return made


EXAMPLES = {"logistic map": logistic, "Speelpenning's product": product, "chain of sigmoids": chain}
TABLE_1 = {
    1: "1",
    2: "4*(1 - x) - 4*x",
    3: "16*(1 - x)*(1 - 2*x)**2 - 16*x*(1 - 2*x)**2 - 64*x*(1 - x)*(1 - 2*x)",
    4: "128*x*(1 - x)*(-8 + 16*x)*(1 - 2*x)**2*(1 - 8*x + 8*x**2)"
    " + 64*(1 - x)*(1 - 2*x)**2*(1 - 8*x + 8*x**2)**2"
    " - 64*x*(1 - 2*x)**2*(1 - 8*x + 8*x**2)**2"
    " - 256*x*(1 - x)*(1 - 2*x)*(1 - 8*x + 8*x**2)**2",
}
"""The derivatives that the table prints."""

FACTORED = {
    1: "x",
    2: "4*x*(1 - x)",
    3: "16*x*(1 - x)*(1 - 2*x)**2",
    4: "64*x*(1 - x)*(1 - 2*x)**2*(1 - 8*x + 8*x**2)**2",
}
"""The functions that it prints."""


def read(text: str) -> sympy.Expr:
    return sympy.parsing.sympy_parser.parse_expr(text, {"x": x})


def by_product_rule(n: int) -> sympy.Expr:
    """What the table differentiates is the function as it prints it; unlike SymPy, it does not group the terms."""
    return sympy.diff(read(FACTORED[n]), x)


@pytest.mark.parametrize("n", TABLE_1)
def test_the_table_prints_the_map_and_its_derivative(n):
    assert sympy.expand(logistic(n) - read(FACTORED[n])) == 0
    assert sympy.expand(sympy.diff(logistic(n), x) - read(TABLE_1[n])) == 0


@pytest.mark.parametrize("n", TABLE_1)
def test_the_rows_of_the_table_come_out_term_by_term(n):
    """The sum of the same terms: SymPy's product rule on the function that is printed, before anything is grouped."""
    found, printed = (sympy.Add.make_args(e) for e in (by_product_rule(n), read(TABLE_1[n])))
    assert {sympy.expand(term) for term in found} == {sympy.expand(term) for term in printed}


def operations(expression: sympy.Expr) -> dict[str, int]:
    """Of a function and of its derivative, by what is shared, and the terms of that multiplied out."""
    derivative = sympy.diff(expression, x)
    found, outputs = sympy.cse([expression, derivative], order="none")
    listing = Listing()
    output = listing.name(expression)
    own = len(listing.lines)
    (slope,) = ACCUMULATIONS["reverse"](listing, listing.lines.copy(), output, [x])
    return {
        "function": tree_operations([expression]),
        "as_a_tree": tree_operations([derivative]),
        "by_sympy_as_a_tree": int(sympy.count_ops(derivative)),
        "function_and_derivative_after": sum(tree_operations([e]) for e in (*(e for _, e in found), *outputs)),
        "function_as_lines": own,
        "function_and_derivative_during": len(needed(listing.lines, [output, slope])),
    }


def test_the_examples_swell_as_trees_and_not_as_lines():
    """Baydin's map by a base, lines of all three by a constant a step."""
    figures = {}
    with deep_recursion():
        for name, example in EXAMPLES.items():
            figures[name] = {n: operations(example(n)) for n in range(1, MOST + 1)}
    for name, rows in figures.items():
        lines = [row["function_and_derivative_during"] for row in rows.values()]
        assert len(set(np.diff(lines[3:]))) == 1, name
        assert all(
            row["function_and_derivative_during"] <= 5 * row["function_as_lines"] for row in list(rows.values())[2:]
        )
    form, base, *_ = law([(n, row["as_a_tree"]) for n, row in figures["logistic map"].items() if n > 3])
    assert form == "{}**n"
    assert 2 < base < 4
    laws = {}
    for name, rows in figures.items():
        for counted in ("as_a_tree", "function_and_derivative_after", "function_and_derivative_during"):
            form, figure, low, high = law([(n, row[counted]) for n, row in rows.items() if n > 3])
            laws[f"{name}, {counted}"] = {"law": form.format(f"{figure:.3g}"), "low": low, "high": high}
    campaigns.record("classics", {"operations": figures, "laws": laws})
