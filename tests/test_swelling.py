"""Laws of swell: powers and exponentials told apart, with intervals that hold, and no law from too little."""

import numpy as np
import pytest

from difflab.backends.symbolic import CHEAP_GRADIENT
from difflab.study import plots, swelling, tables
from difflab.study.families import KNOBS


def rows(knob: str, operations, method: str = "A()"):
    for n in (1, 2, 3, 4, 6, 8):
        label = "-".join(["4", *["2"] * n, "10"]) if knob == "depth" else f"4-{n}-{n}-10"
        yield {
            "network": label, "parameters": n, "method": method, "status": "ok", "hidden": "tanh", "batch": 16,
            "own_loss_ops": 10 * n, "gradient_ops": 25 * n, "gradient_tree_ops": operations(n),
        }  # fmt: skip


@pytest.mark.parametrize("exponent", [0.5, 2.5, 3.5])
def test_a_power_is_found_as_it_is(exponent):
    form, *found = swelling.law([(n, 7 * n**exponent) for n in range(1, 9)])
    assert form == swelling.POWER
    assert found == pytest.approx([exponent] * 3, abs=1e-12)  # roundings of logarithms


@pytest.mark.parametrize("base", [1.5, 2, 9])
def test_a_base_is_found_as_it_is(base):
    form, *found = swelling.law([(n, 7 * base**n) for n in range(1, 9)])
    assert form == swelling.EXPONENTIAL
    assert found == pytest.approx([base] * 3, rel=1e-12)


@pytest.mark.parametrize(
    ("operations", "form", "first"),
    [
        (lambda n: 176 + 26 * n, "… + {} n", 26),
        (lambda n: (2 * (34 + 6 * n) + 1) * (82 + 18 * n), "… + {} n**2", 216),  # Central differences over depth.
        (lambda n: n**3 - 7, "… + {} n**3", 1),
        (lambda n: 10**400 + 5 * n, "… + {} n", 5),
    ],
)
@pytest.mark.parametrize("settings", [range(1, 9), (1, 2, 4, 8, 16)])
def test_what_lies_on_a_polynomial_is_no_power_and_grows_on_no_base(operations, form, first, settings):
    assert swelling.law([(n, operations(n)) for n in settings]) == (form, first, first, first)


@pytest.mark.parametrize(
    "points", [[(1, 5), (2, 7), (3, 11)], [(n, 2**n) for n in range(1, 9)], [(n, n**4) for n in range(1, 9)]]
)
def test_what_any_points_lie_on_is_no_law_of_theirs(points):
    assert swelling.polynomial(points) is None
    nearly = [(n, 26 * n + (n == 5)) for n in range(1, 9)]
    assert swelling.polynomial(nearly) is None


def test_operations_beyond_any_float_have_a_law():
    assert swelling.law([(n, 10 ** (200 * n)) for n in range(1, 5)])[0] == swelling.EXPONENTIAL


def test_the_interval_of_a_base_holds_it_as_often_as_it_says():
    """1000 trials at 95 % have 50 misses and a deviation of 7."""
    rng, misses = np.random.default_rng(0), 0
    for _ in range(1000):
        _, _, low, high = swelling.law([(n, 3.0**n * np.exp(0.1 * rng.normal())) for n in range(1, 9)])
        misses += not low <= 3 <= high
    assert abs(misses - 50) <= 4 * 7


@pytest.mark.parametrize("knob", swelling.KNOBS)
def test_trees_and_what_is_computed_have_laws_of_their_own(knob):
    tree, computed = swelling.laws(list(rows(knob, lambda n: 5 * 4**n)))
    assert (tree.knob, tree.counted, tree.law) == (knob, "gradient_tree_ops", "4**n")
    assert (computed.counted, computed.law) == ("gradient_ops", "… + 25 n")
    assert len(swelling.lines([tree, computed])) == 4


def test_few_networks_and_other_studies_have_no_law():
    found = list(rows("width", lambda n: n))
    assert swelling.laws(found[:3]) == []
    assert swelling.laws([{**row, "own_loss_ops": None} for row in found]) == []


STUDY = [
    *rows("depth", lambda n: 5 * 4**n),
    *rows("depth", lambda n: 50 * n, "B()"),
    *rows("width", lambda n: n**3),
    {"network": "4-2-2-2-2-2-10", "parameters": 9, "method": "A()", "status": "timeout", "hidden": "tanh", "batch": 16},
]


def test_swelling_is_drawn_with_the_bound_of_cheap_gradients_and_the_wall():
    figure = plots.figures(["swell", "derivation"], STUDY)["swelling"]
    depth = next(axes for axes in figure.axes if axes.get_xlabel() == "hidden layers")
    heights = [line.get_ydata()[0] for line in depth.lines if len(set(line.get_ydata())) == 1]
    assert CHEAP_GRADIENT in heights
    assert 2.5 in [round(height, 9) for height in heights]
    assert [list(line.get_xdata()) for line in depth.lines if line.get_marker() == "x"] == [[5.0]]


def test_what_is_within_the_bound_is_drawn_once_more_on_a_scale_of_its_own():
    near = [row | {"method": "C()", "gradient_ops": row["gradient_ops"] + row["parameters"]} for row in STUDY[:6]]
    figure = plots.figures(["swell", "derivation"], STUDY + near)["swelling"]
    below = [axes for axes in figure.axes if axes.get_yscale() == "linear"]
    assert [axes.get_xlabel() for axes in below] == [KNOBS[knob] for knob in swelling.KNOBS]
    low, high = below[0].get_ylim()
    assert 2 < low < 2.5 < 2.6 < CHEAP_GRADIENT < high < CHEAP_GRADIENT + 1
    drawn = {round(line.get_ydata()[0], 9) for line in below[0].lines if len(line.get_ydata()) == 6}
    assert drawn == {2.5, 2.6}


def test_marks_of_what_stopped_lie_above_the_data_and_apart():
    stopped = [STUDY[-1] | {"method": method} for method in ("A()", "B()", "C()")]
    figure = plots.figures(["swell", "derivation"], STUDY + stopped[1:])["swelling"]
    axes = figure.axes[0]
    to_share = axes.transData + axes.transAxes.inverted()
    data = [
        to_share.transform(point)[1] for line in axes.lines if len(line.get_xdata()) > 2 for point in line.get_xydata()
    ]
    marks = sorted({line.get_ydata()[0] for line in axes.lines if line.get_marker() == "x"})
    assert len(marks) == 3
    assert max(data) < marks[0] < marks[-1] < 1


def test_the_table_has_the_ratio_to_the_own_loss():
    text = tables.markdown("Why?", ["derivation"], STUDY, "Measured here.")
    assert "÷ own loss" in text
    assert "| 2.5 |" in text
    assert "Baur, Strassen 1983" in text
