"""Figures: one per measure, drawn from rows alone, the same bytes for the same rows."""

import itertools
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from difflab.study import drawing, error_plots, plots, speed_plots
from difflab.study.cells import PRESENTATION
from difflab.study.drawing import STOPPED, write


pytest.importorskip("matplotlib", reason="figures need the extra [report]")

MEASURES = ["accuracy", "speed", "swell"]
ROWS = [
    {"network": f"{n}", "parameters": n, "method": method, "status": "ok", "error_relative": error * n}
    | {"gradient_seconds": n * 1e-6, "gradient_ops": 10 * n, "gradient_tree_ops": n**2, "loss_tree_ops": 5 * n}
    for n in (10, 100, 1000)
    for method, error in (("A()", 1e-16), ("B()", 1e-10))
] + [{"network": "x", "parameters": 10_000, "method": "B()", "status": "timeout", "forecast_tree_ops": 10**20}]


def lines(figure):
    return {line.get_label(): line.get_xydata().tolist() for line in figure.axes[0].get_lines()}


def test_edits_of_figures_leave_recorded_rows_as_true_as_they_were():
    drawing = {file.name for file in Path(plots.__file__).parent.glob("*plots.py")} | {"drawing.py"}
    assert len(drawing) == 6
    assert drawing <= set(PRESENTATION)


def test_every_measure_has_its_figure(tmp_path):
    paths = write(plots.figures(MEASURES, ROWS), tmp_path)
    names = {f"{name}.{kind}" for name in ("error", "time", "operations") for kind in ("svg", "png")}
    assert {path.name for path in paths} == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths if path.suffix == ".png")
    assert all(ElementTree.parse(path).getroot().tag.endswith("svg") for path in paths if path.suffix == ".svg")


def test_the_points_are_the_recorded_figures():
    drawn = lines(plots.figures(MEASURES, ROWS)["error"])
    assert drawn["A()"] == [[n, 1e-16 * n] for n in (10, 100, 1000)]


def test_axes_are_named_and_logarithmic():
    for figure in plots.figures(MEASURES, ROWS).values():
        axes = figure.axes[0]
        assert axes.get_xlabel() == "parameters of the network"
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        assert axes.get_ylabel()


def test_a_wall_is_marked_where_a_method_stopped():
    texts = [text.get_text() for text in plots.figures(MEASURES, ROWS)["time"].axes[0].texts]
    assert texts == ["timeout"]


def test_methods_that_coincide_share_a_line():
    drawn = lines(plots.figures(["speed"], ROWS[:6])["time"])
    assert list(drawn) == ["A(),\nB()"]


def test_equal_rows_give_equal_bytes(tmp_path):
    first, second = (write(plots.figures(MEASURES, ROWS), tmp_path / name) for name in "ab")
    for one, other in zip(first, second, strict=True):
        if one.suffix == ".svg":
            assert one.read_bytes() == other.read_bytes()


def test_networks_that_differ_in_more_than_size_have_lines_of_their_own():
    skip = '[{"kind": "residual", "layers": [{"kind": "dense", "units": 4, "activation": "relu"}]}]'
    plain = [row | {"hidden": "tanh"} for row in ROWS[:6]]
    full = [row | {"network": "4-res(4)", "layers": skip, "l2": 0.5, "error_relative": 1e-3} for row in ROWS[:6]]
    drawn = lines(plots.figures(["accuracy"], plain + full)["error"])
    assert list(drawn) == ["A(), tanh", "B(), tanh", "A(), residual, relu, l2 0.5,\nB(), residual, relu, l2 0.5"]


def kinds_of_network():
    """A row for each of four kinds, and one that was refused."""
    rows = [row | {"hidden": hidden, "parameters": 9} for hidden in ("tanh", "relu", "gelu", "elu") for row in ROWS[:2]]
    return [*rows, rows[0] | {"method": "C()", "status": "refused", "error_relative": None}]


def test_many_kinds_of_network_are_listed_one_below_the_other():
    axes = plots.figures(["accuracy"], kinds_of_network())["error"].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["10 tanh", "10 relu", "10 gelu", "10 elu"]
    drawn = {line.get_label(): list(line.get_xdata()) for line in axes.get_lines()}
    assert (drawn["A()"], drawn["B()"], drawn["C()"]) == ([1e-15] * 4, [1e-9] * 4, [])
    assert axes.get_xlabel() == "relative error against the certified gradient"


def texts_of(artist):
    return [text.get_text() for text in artist.get_texts()]


def visible_texts(axes):
    """Without those that only keep a place in the layout."""
    return [text for text in axes.texts if text.get_alpha() != 0]


def test_methods_that_stopped_have_a_mark_each_in_a_column_for_how():
    rows = [*kinds_of_network(), ROWS[0] | {"method": "Certified()", "error_relative": None}]
    for method, status in (("D()", "timeout"), ("E()", "timeout"), ("F()", "memory")):
        rows += [row | {"method": method, "status": status, "error_relative": None} for row in rows[:3:2]]
    figure = plots.figures(["accuracy"], rows)["error"]
    axes = figure.axes[0]
    assert [text.get_text() for text in visible_texts(axes)] == ["refused", "timeout", "memory"]
    crosses = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.get_lines() if line.get_marker() == "x"]
    assert len(crosses) == len(set(crosses)) == 7
    assert sorted(y for _, y in crosses) == [0, 0, 0, 0, 1, 1, 1]
    assert min(x for x, _ in crosses) > 1
    assert texts_of(figure.legends[0]) == ["A()", "B()", "C()", "D()", "E()", "F()"]


def boxes_of(figure):
    """Where the texts of all axes are, in pixels."""
    figure.canvas.draw()
    return [text.get_window_extent() for axes in figure.axes for text in visible_texts(axes)]


def test_texts_beside_a_list_do_not_overlap():
    rows = kinds_of_network()
    rows += [rows[0] | {"method": f"{n}()", "status": status} for n, status in enumerate(STOPPED)]
    boxes = boxes_of(plots.figures(["accuracy"], rows)["error"])
    assert len(boxes) == len(STOPPED)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def estimated(method, quantiles, understated=20, **names):
    found = {f"reported_to_true_{name}": ratio for name, ratio in quantiles.items()}
    counts = {"judged_entries": 200, "understated_entries": understated}
    return {"network": "4-3-10", "parameters": 200, "method": method, "status": "ok"} | found | counts | names


SPREAD = {"min": 1e-3, "q05": 0.5, "q25": 2.0, "median": 8.0, "q75": 20.0, "q95": 50.0, "max": 1e3}
WITHOUT_BOUND = {"min": 0.0, "q05": 0.0, "q25": 0.1, "median": 1.0, "q75": 2.0, "q95": float("inf"), "max": 1e300}
ESTIMATES = [
    estimated("A()", SPREAD),
    estimated("B()", WITHOUT_BOUND, 1),
    estimated("A()", SPREAD, 0, hidden="relu"),
    {"network": "4-3-10", "hidden": "relu", "parameters": 200, "method": "B()", "status": "refused", "reason": "no"},
]


def test_estimates_are_drawn_by_network_and_method():
    (figure,) = plots.figures(["error_estimates"], ESTIMATES).values()
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["4-3-10", "4-3-10 relu"]
    assert [text.get_text() for text in axes.texts] == ["10 %", "<1 %", "0 %", "refused"]
    assert [line.get_ydata()[0] for line in axes.get_lines() if line.get_marker() == "x"] == [4]
    drawn = [line.get_xdata() for line in axes.get_lines()]
    for points in ([0.5, 50.0], [2.0, 20.0], [8.0], [1e-3]):
        assert sum(list(line) == points for line in drawn) == 2, points
    assert "understated" in axes.get_xlabel()


def test_ratios_without_bound_end_at_the_edge():
    axes = plots.figures(["error_estimates"], ESTIMATES)["estimates"].axes[0]
    assert axes.get_xlim() == error_plots.FARTHEST
    assert any(list(line.get_xdata()) == list(error_plots.FARTHEST) for line in axes.get_lines())
    assert [line.get_xdata()[0] for line in axes.get_lines() if line.get_marker() == "<"] == [error_plots.FARTHEST[0]]


def test_estimates_of_refused_rows_alone_are_a_figure(tmp_path):
    (path, _) = write(plots.figures(["error_estimates"], ESTIMATES[3:]), tmp_path)
    assert path.name == "estimates.svg"


def of_truth(method, scale, median, **changes):
    ulps = {"error_ulp_median": median, "error_ulp_p99": 10 * median, "error_ulp_max": 100 * median}
    names = {"network": "4-3-10", "hidden": "tanh", "parameters": 55, "method": method, "status": "ok", "scale": scale}
    return names | ulps | {"error_relative": 1e-16 * scale, "condition": scale, "dtype": "float64"} | changes


NOTHING = dict.fromkeys(["error_ulp_median", "error_ulp_p99", "error_ulp_max", "error_relative"])
FAMILY = [
    *(of_truth("A()", scale, 2.0) for scale in (16.0, 1.0, 4.0)),
    *(of_truth("B()", scale, 1e6) for scale in (1.0, 4.0)),
    of_truth("B()", 16.0, 0, **NOTHING | {"status": "refused"}),
    *(of_truth("Certified()", scale, 0, **NOTHING) for scale in (1.0, 4.0, 16.0)),
    of_truth("A()", 1.0, 0.0, hidden="relu", error_ulp_p99=0.0, error_ulp_max=float("inf")),
]


def test_networks_that_differ_in_one_thing_have_a_panel():
    figure = plots.figures(["accuracy"], FAMILY)["families"]
    axes = figure.axes[0]
    assert axes.get_title() == "4-3-10 tanh"
    assert axes.get_xlabel().startswith("scale")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "4", "16"]
    assert axes.get_yscale() == "log"
    (cross,) = [line for line in axes.get_lines() if line.get_marker() == "x"]
    assert 1.5 < cross.get_xdata()[0] < 2.5
    place = cross.get_transform() + axes.transData.inverted()
    assert place.transform(cross.get_xydata()[0])[1] < error_plots.LEAST_ULP
    drawn = [line.get_ydata() for line in axes.get_lines()]
    assert sum(list(line) == [2.0, 200.0] for line in drawn) == 3
    assert sum(list(line) == [20.0] for line in drawn) == 3
    assert texts_of(figure.legends[0]) == ["A()", "B()"]


def test_many_methods_have_a_panel_to_a_line():
    rows = [row | {"method": f"{n}()"} for n in range(9) for row in FAMILY[:3]]
    rows += [row | {"hidden": "relu"} for row in rows]
    for methods, places in ((9, 1), (8, 2)):
        shown = [row for row in rows if int(row["method"][0]) < methods]
        figure = plots.figures(["accuracy"], shown)["families"]
        assert len({axes.get_position().x0 for axes in figure.axes}) == places


def test_errors_beyond_the_panel_are_at_its_edge():
    rows = [of_truth("A()", scale, 0.0, error_ulp_max=float("inf")) for scale in (1.0, 4.0, 16.0)]
    drawn = [list(line.get_ydata()) for line in plots.figures(["accuracy"], rows)["families"].axes[0].get_lines()]
    assert drawn.count([error_plots.LEAST_ULP, error_plots.MOST_ULP]) == 3


def test_networks_that_all_have_a_panel_are_not_listed_as_well():
    alone = FAMILY[-1]
    assert set(plots.figures(["accuracy"], FAMILY)) == {"error", "families"}
    assert set(plots.figures(["accuracy"], [row for row in FAMILY if row is not alone])) == {"families"}


def test_errors_are_drawn_by_condition_beside_what_rounding_makes_of_it():
    single = [of_truth("C()", scale, 1.0, dtype="float32", error_relative=1e-7) for scale in (1.0, 4.0)]
    axes = plots.figures(["condition"], FAMILY + single)["condition"].axes[0]
    drawn = lines_of(axes)
    assert drawn["A()"] == [[16.0, 1.6e-15], [1.0, 1e-16], [4.0, 4e-16], [1.0, 1e-16]]
    assert drawn["condition · u of float64"] == [[1.0, 2.0**-53], [16.0, 2.0**-49]]
    assert drawn["condition · u of float32"] == [[1.0, 2.0**-24], [16.0, 2.0**-20]]
    assert "Certified()" not in drawn
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def lines_of(axes):
    return {line.get_label(): line.get_xydata().tolist() for line in axes.get_lines()}


def test_figures_of_truth_are_written_even_where_nothing_is_known(tmp_path):
    unknown = [row | {"condition": None} for row in FAMILY]
    paths = write(plots.figures(["accuracy", "condition", "agreement"], unknown), tmp_path)
    names = {path.name for path in paths if path.suffix == ".svg"}
    assert names == {"error.svg", "families.svg", "condition.svg"}


CONTEST = [
    {"network": "4-8-8-3", "hidden": hidden, "parameters": 139, "method": f"{name}('{dtype}'{more})", "status": "ok"}
    | {"dtype": dtype, "threads": threads, "ratio": ratio, "ratio_low": 0.9 * ratio, "ratio_high": 1.1 * ratio}
    for hidden in ("tanh", "relu")
    for dtype in ("float64", "float32")
    for threads, more in ((1, ""), (2, ", threads=2"))
    for name, ratio in (("Jax", 2.0), ("Torch", 20.0))
]


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("Torch('float64', threads=2, compiled=True)", "Torch(compiled=True)"),
        ("Torch('float64', compiled=True)", "Torch(compiled=True)"),
        ("Jax('float64', threads=2)", "Jax()"),
        ("Jax('float64')", "Jax()"),
        ("Casadi()", "Casadi()"),
    ],
)
def test_a_method_has_one_name_whatever_its_arithmetic_and_threads(method, name):
    threads = 2 if "threads" in method else 1
    assert speed_plots.without_arithmetic({"method": method, "dtype": "float64", "threads": threads}) == name


def test_a_contest_has_a_panel_for_each_arithmetic_and_number_of_threads():
    figure = plots.figures(["contest"], CONTEST)["contest"]
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["float64, 1 thread", "float32, 1 thread", "float64, 2 threads", "float32, 2 threads"]
    assert texts_of(figure.legends[0]) == ["Jax()", "Torch()"]
    for axes in figure.axes:
        assert sorted(line.get_xdata()[0] for line in axes.get_lines() if len(line.get_xdata()) == 1) == [2, 2, 20, 20]
        assert [1, 1] in [list(line.get_xdata()) for line in axes.get_lines()]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["4-8-8-3 tanh", "4-8-8-3 relu"]


def test_a_contest_without_times_is_a_figure(tmp_path):
    rows = [{"network": "4-3", "parameters": 9, "method": "A()", "status": "refused"}]
    assert write(plots.figures(["contest", "roofline"], rows), tmp_path)


ROOFLINE = [
    {"network": f"4-{n}-10", "hidden": "tanh", "parameters": n, "method": "A()", "status": "ok", "batch": 8}
    | {"gradient_seconds": 1e-6 * n**2, "product_ops": 1000 * n, "traffic_bytes": 100, "gemm_flops_per_second": 1e10}
    | {"bandwidth_bytes_per_second": 1e8, "roofline_gradient_seconds": 1e-6 * n}
    for n in (2, 4, 8, 16)
]


def test_gradients_are_drawn_below_their_roof():
    drawn = lines(plots.figures(["roofline"], ROOFLINE)["roofline"])
    assert drawn["A()"] == [[10.0 * n, pytest.approx(1e9)] for n in (2, 4, 8, 16)]
    roof = next(points for name, points in drawn.items() if name.startswith("_"))
    assert roof == [[20.0, 2e9], [100.0, 1e10], [160.0, 1e10]]


def test_growth_is_drawn_with_its_exponent():
    figure = plots.figures(["speed", "roofline"], ROOFLINE)["growth"]
    (axes,) = figure.axes
    assert axes.get_legend_handles_labels()[1] == ["A(): 2.00, upper half 2.00"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "4", "8", "16"]


def test_a_method_looks_the_same_in_every_figure_whichever_methods_that_shows():
    once = ROOFLINE[0] | {"method": "Once()", "gemm_flops_per_second": None}
    drawn = plots.figures(["speed", "roofline"], [once, *ROOFLINE])
    assert set(drawn) == {"time", "roofline", "growth"}
    shown = [line for figure in drawn.values() for line in figure.axes[0].get_lines()]
    mine = [line for line in shown if line.get_label().startswith("A()")]
    assert len(mine) == 3
    assert len({(line.get_color(), line.get_marker()) for line in mine}) == 1


def test_kinds_of_network_differ_in_how_markers_are_filled():
    rows = [row | {"hidden": hidden, "error_relative": (n + 1) * row["error_relative"]}
            for n, hidden in enumerate(("tanh", "relu", "gelu")) for row in ROWS[:6]]  # fmt: skip
    axes = plots.figures(["accuracy"], rows)["error"].axes[0]
    drawn = [line for line in axes.get_lines() if line.get_label().startswith("A()")]
    assert len({line.get_fillstyle() for line in drawn}) == len(drawn) == 3
    assert len({(line.get_color(), line.get_marker()) for line in drawn}) == 1


def test_the_legend_of_growth_covers_no_curve():
    figure = plots.figures(["speed", "roofline"], ROOFLINE)["growth"]
    figure.canvas.draw()
    (axes,) = figure.axes
    assert axes.get_legend().get_window_extent().x0 >= axes.get_window_extent().x1


def test_there_is_room_above_the_data_only_where_something_stopped():
    tops = [plots.figures(["speed"], rows)["time"].axes[0].get_ylim()[1] for rows in (ROWS[:6], ROWS)]
    assert tops[0] < 2e-3 < 4e-3 < tops[1]


NAMES = [f"{n}()" for n in range(24)]


def test_methods_are_told_apart_by_colour_and_marker_and_by_line_and_marker():
    looks = list(drawing.styles_of(NAMES).values())
    assert len({(look["color"], look["marker"]) for look in looks}) == len(NAMES)
    assert len({(look["marker"], look["ls"]) for look in looks}) == len(NAMES)
    assert sorted((look["lw"] for look in looks), reverse=True) == [look["lw"] for look in looks]
    assert drawing.styles_of(["A()", "A()", "B()"]) == drawing.styles_of(["A()", "B()"])


def test_what_stopped_is_told_apart_by_its_marker():
    figure = plots.figures(["speed"], ROWS)["time"]
    look = drawing.styles_of(row["method"] for row in ROWS)["B()"]
    hollow, cross = (line for line in figure.axes[0].get_lines() if list(line.get_xdata()) == [10_000])
    assert (hollow.get_color(), hollow.get_marker(), hollow.get_markerfacecolor()) == (
        look["color"],
        look["marker"],
        "white",
    )
    assert (cross.get_color(), cross.get_marker()) == (look["color"], "x")


SEEN = {
    "all": np.eye(3),
    "no red": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
    "no green": np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
    "no blue": np.array([[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]]),
}
"""What is left of red, green and blue light for people who do not see all colours [Machado 2009]."""
WHITE = np.array([0.9505, 1.0, 1.089])
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
NOTICED = 2.3
"""Distance of colours side by side that is just noticed [Mahy 1994]; markers lie apart, and are small."""


def lab(colour, seen):
    """Lightness and two hues, in which distances are what eyes tell apart [CIE 1976]."""
    light = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    light = np.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055) ** 2.4)
    x, y, z = np.cbrt(TO_XYZ @ np.clip(seen @ light, 0, 1) / WHITE)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def least_distance(colours, seen):
    return min(np.linalg.norm(lab(a, seen) - lab(b, seen)) for a, b in itertools.combinations(colours, 2))


@pytest.mark.parametrize("seen", SEEN.values(), ids=SEEN)
def test_colours_are_told_apart_by_people_who_do_not_see_all_of_them(seen):
    assert least_distance(drawing.COLOURS, seen) > 5 * NOTICED


def test_colours_that_some_do_not_tell_apart_are_noticed():
    assert least_distance(("#E69F00", "#B5A900"), SEEN["all"]) > 5 * NOTICED > 5
    assert least_distance(("#E69F00", "#B5A900"), SEEN["no red"]) < NOTICED
