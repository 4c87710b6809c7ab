"""Forecasts: laws with intervals that hold as often as they say, refusals by them, and what counts as kept."""

from __future__ import annotations

import fit_costs
import msgspec
import numpy as np
import pytest

import difflab as dl
from difflab.derivation.costs import PROCESSOR
from difflab.derivation.forecasting import COSTS, FIGURES, Cost, CostLaw, beyond, columns_of, forecast
from difflab.derivation.sharing import SHARING
from difflab.study import csv_rows, forecasts, plots, runner, worker
from difflab.study.cells import Cell, Task, resolved
from difflab.study.declaration import PlacedNetwork
from difflab.study.forecasts import fitted, kept, lines, share_kept
from difflab.study.reading import read_study


RECORDS = fit_costs.RECORD.parents[1]
LABEL = "Symbolic('during')"
FIXED = CostLaw(1e-3, 1.0, 0.0, 10, 0.0, 1.0)


def row(size: float, seconds: float, extra: float, **others) -> dict:
    names = {"network": "4-2-10", "method": LABEL, "status": "ok", "limit_seconds": 12.0}
    return (
        names
        | {"forecast_ops": size, "prepare_seconds": seconds, "peak_bytes": 2e8 + extra, "loaded_bytes": 2e8}
        | others
    )


def noisy(count: int, rng: np.random.Generator, noise: float = 0.3) -> list[dict]:
    """Of a law with the exponent 1.25, and noise in every figure."""
    sizes = np.exp(rng.uniform(3, 10, count))
    seconds, extra = (a * sizes**1.25 * np.exp(noise * rng.standard_normal(count)) for a in (1e-3, 1e6))
    return [row(*case) for case in zip(sizes, seconds, extra, strict=True)]


def test_laws_are_found_again_and_their_intervals_hold_19_of_20():
    """Of 40 laws with 50 further cases each; 100 misses are expected, and no more than 150 allowed."""
    misses = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        law = fitted(noisy(12, rng))[LABEL].seconds
        assert law.exponent == pytest.approx(1.25, abs=0.25)
        for further in noisy(50, rng):
            _, low, high = law.at(further["forecast_ops"])
            misses += not low <= further["prepare_seconds"] <= high
    assert 50 <= misses <= 150


def test_what_met_its_limit_makes_no_law_of_survivors():
    """Half of the large cases are cut off at a limit; without these the exponent would come out too small."""
    found, of_survivors = list[float](), list[float]()
    for seed in range(40):
        rows = [one | {"limit_seconds": 5.0} for one in noisy(30, np.random.default_rng(seed), 0.8)]
        ended = [one for one in rows if one["prepare_seconds"] <= 5.0]
        cut = [one | {"status": "timeout", "prepare_seconds": None} for one in rows if one not in ended]
        found.append(fitted([*ended, *cut])[LABEL].seconds.exponent)
        of_survivors.append(fitted(ended)[LABEL].seconds.exponent)
    assert np.mean(found) == pytest.approx(1.25, abs=0.05)
    assert np.mean(of_survivors) < 1.15


def test_sizes_beyond_any_float_are_forecast_as_beyond_any_limit():
    law = fitted(noisy(12, np.random.default_rng(0)))[LABEL].seconds
    assert law.at(10**400) == (np.inf, np.inf, np.inf)
    deep = dl.MLP.dense([64] * 180)
    assert dl.Symbolic("none").forecast(deep)["forecast_tree_ops"] > 10**308
    with pytest.raises(dl.Refused, match=r"forecast \d\.\de\+\d{3} operations"):
        dl.Symbolic("none").prepare(deep)


@pytest.mark.parametrize(
    "layer", [dl.Softmax(), dl.Elementwise("tanh"), dl.Dropout(0.5, seed=1), dl.Multiply(2)], ids=repr
)
@pytest.mark.parametrize("sharing", SHARING)
def test_networks_without_parameters_are_forecast_and_derived(layer, sharing):
    net, backend = dl.MLP(4, [layer], "squared_error"), dl.Symbolic(sharing)
    assert 0 < backend.forecast(net)["forecast_seconds_low"] < 1
    prepared = backend.prepare(net)
    value, gradient = prepared.value_and_gradient(np.zeros(0), np.ones((3, 4)), np.ones((3, net.n_outputs)))
    assert value == prepared.value(np.zeros(0), np.ones((3, 4)), np.ones((3, net.n_outputs))) >= 0
    assert gradient.shape == (0,)


def test_intervals_are_wider_away_from_what_was_fitted():
    law = fitted(noisy(12, np.random.default_rng(0)))[LABEL].seconds
    widths = [high / low for _, low, high in map(law.at, (np.exp(law.centre), 1e6, 1e9))]
    assert widths == sorted(widths)
    assert widths[0] < widths[-1]


def test_too_few_cases_give_no_law():
    assert fitted(noisy(forecasts.LEAST - 1, np.random.default_rng(0))) == {}
    assert fitted([one | {"status": "timeout"} for one in noisy(20, np.random.default_rng(0))]) == {}


def with_costs(monkeypatch, seconds: CostLaw = FIXED, extra: CostLaw = FIXED) -> None:
    monkeypatch.setitem(COSTS, LABEL, Cost(seconds, extra))


def test_columns_are_the_law_at_the_size_of_the_network(monkeypatch):
    with_costs(monkeypatch)
    net = dl.MLP.dense([64, 32, 10], hidden="tanh")
    columns = dl.Symbolic("during").forecast(net)
    assert columns["forecast_seconds"] == pytest.approx(1e-3 * columns["forecast_ops"])
    assert columns == dl.Symbolic("during", max_ops=10**18, limit_seconds=60.0).forecast(net)
    assert set(columns) == {"forecast_ops", *(name for figure in FIGURES for name in columns_of(figure))}
    assert forecast("Symbolic('of another kind')", 10.0) == {}


@pytest.mark.parametrize(("seconds", "limit_bytes", "words"), [(1.0, 10**6, "24 s"), (10**6, 1, "24 bytes")])
def test_what_is_beyond_a_limit_at_its_low_end_is_refused_in_words(monkeypatch, seconds, limit_bytes, words):
    with_costs(monkeypatch)
    backend = dl.Symbolic("during", limit_seconds=float(seconds), limit_bytes=limit_bytes)
    with pytest.raises(dl.Refused, match=f"forecast .* to .*{words.split()[1]} to derive and compile, limit"):
        backend.prepare(dl.MLP.dense([64, 32, 10], hidden="tanh"))


def test_what_may_keep_its_limit_is_not_refused():
    columns = {"forecast_seconds": 20.0, "forecast_seconds_low": 9.0, "forecast_seconds_high": 40.0}
    assert beyond(columns, 10.0, None) is None
    assert (
        beyond(columns, 8.0, 10**9)
        == f"forecast 9 to 40 s to derive and compile, limit 8 s, by what it took on {PROCESSOR}"
    )
    assert beyond({}, 1e-9, 1) is None


def test_a_study_refuses_by_the_forecast_unless_it_is_about_that(monkeypatch, tmp_path):
    network = PlacedNetwork(widths=[4, 2, 10], data="digits-2x2")
    cell = Cell(Task(network, 4, 0), resolved({"name": "symbolic", "sharing": "during"}), ["swell"], 1e-3, 10**10)
    with_costs(monkeypatch)
    path = tmp_path / "reference.npz"
    worker.make_reference(cell.task, path)
    refused = worker.run_cell(cell, path)
    assert refused["status"] == "refused"
    assert "to derive and compile, limit 0.001 s" in refused["reason"]
    about = msgspec.structs.replace(cell, measures=["swell", "forecast"])
    assert worker.run_cell(about, path)["status"] == "ok"


AHEAD = {"forecast_seconds": 2.0, "forecast_seconds_low": 1.0, "forecast_seconds_high": 4.0}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (row(10, 2.5, 1e7) | AHEAD, True),
        (row(10, 4.5, 1e7) | AHEAD, False),
        (row(10, 0.5, 1e7) | AHEAD, False),
        (row(10, 0.0, 0.0, status="timeout") | AHEAD, False),
        (row(10, 0.0, 0.0, status="timeout") | AHEAD | {"forecast_seconds_high": 13.0}, True),
        (row(10, 2.5, 1e7), None),
    ],
)
def test_a_forecast_is_kept_in_its_interval_or_beyond_a_limit_that_was_met(found, expected):
    assert kept(found, "seconds") is expected


def test_the_page_says_how_many_were_kept():
    rows = [row(10, seconds, 1e7) | AHEAD for seconds in (2.0, 3.0, 5.0)]
    assert share_kept(rows, "seconds") == (2, 3)
    assert lines(rows)[-1] == "Kept: 2 of 3 forecasts of time, 0 of 0 of memory."
    assert lines([row(10, 1.0, 1e7, method="Backprop('float64')")]) == []


def wall_of(statuses: list[str], **others):
    """The figure of networks of 1, 2, 3 ... layers, which took 0.1, 1, 10 ... seconds if they were derived."""
    rows = []
    for depth, status in enumerate(statuses, start=1):
        network = "-".join(["4", *["2"] * depth, "10"])
        names = {"network": network, "hidden": "tanh", "data": "digits-2x2", "batch": 16, "parameters": 9}
        found = row(10, 0.01 * 10**depth, 10.0 ** (6 + depth), status=status, **names) | AHEAD | AHEAD_BYTES | others
        stopped = {"prepare_seconds": None, "peak_bytes": None} if status in ("timeout", "memory") else {}
        rows.append(found | stopped)
    return plots.figures(["forecast"], rows)["wall"]


AHEAD_BYTES = {"forecast_extra_bytes": 1e7, "forecast_extra_bytes_low": 5e6, "forecast_extra_bytes_high": 1e14}


def heights(axes) -> list[list[float]]:
    return [list(np.atleast_1d(line.get_ydata())) for line in axes.get_lines()]


def test_the_wall_is_drawn_in_time_and_memory_with_the_limits_of_a_cell():
    figure = wall_of(["ok", "ok", "timeout"], limit_bytes=2_000_000_000)
    time, memory = figure.axes
    assert [0.1, 1.0] in heights(time)
    assert [12.0, 12.0] in heights(time)
    assert [1e7, 1e8] in heights(memory)
    assert [2e9, 2e9] in heights(memory)
    assert "12 s and 2 GB of address space" in figure.get_supxlabel()
    assert "laws fitted before to expression_swell" in figure.get_supxlabel()


def test_a_wall_whose_limit_of_memory_was_not_recorded_has_none():
    figure = wall_of(["ok", "ok", "memory"])
    assert not any(line.get_color() == "#888888" for line in figure.axes[1].get_lines())
    assert "12 s; crossed out" in figure.get_supxlabel()


@pytest.mark.parametrize(("status", "panel", "limit"), [("timeout", 0, 12.0), ("memory", 1, 2e9)])
def test_a_cell_is_crossed_out_just_above_the_limit_that_it_met(status, panel, limit):
    figure = wall_of(["ok", "ok", status], limit_bytes=2_000_000_000)
    crosses = [[line for line in axes.get_lines() if line.get_marker() == "x"] for axes in figure.axes]
    assert list(map(len, crosses)) == ([1, 0] if panel == 0 else [0, 1])
    (mark,) = crosses[panel]
    assert mark.get_xdata()[0] == 3
    assert limit < mark.get_ydata()[0] < 3 * limit


def test_what_was_derived_has_its_marker_even_if_its_point_is_a_kink():
    time, memory = wall_of(["ok", "kink", "ok"]).axes
    assert [0.1, 1.0, 10.0] in heights(time)
    assert [1e7, 1e8, 1e9] in heights(memory)


def test_axes_of_the_wall_go_from_the_data_to_a_little_beyond_the_limit():
    time, memory = wall_of(["ok", "ok", "timeout"], limit_bytes=2_000_000_000).axes
    assert time.get_ylim() == pytest.approx((0.1 / 1.5, 12 * 1.5))
    assert memory.get_ylim() == pytest.approx((5e6 / 1.5, 10 * 2e9 * 1.5))


CASES = [
    row(10, 2.5, 2e7) | AHEAD | AHEAD_BYTES,
    row(10, 5.0, 3e6, network="4-3-10") | AHEAD | AHEAD_BYTES | {"forecast_seconds": 3.0},
    row(10, 0.0, 0.0, network="4-5-10", status="timeout", prepare_seconds=None, peak_bytes=None) | AHEAD,
]


def forecasts_of(cases):
    measures = ["derivation", "forecast"]
    return plots.figures(measures, [case | {"hidden": "tanh", "parameters": 9} for case in cases])["forecasts"]


def test_what_it_took_is_drawn_by_its_forecast_with_the_interval_and_the_diagonal():
    figure = forecasts_of(CASES)
    time, memory = figure.axes
    assert {axes.get_xscale() + axes.get_yscale() for axes in figure.axes} == {"loglog"}
    points = [line.get_xydata().tolist() for line in time.get_lines() if line.get_marker() not in (None, "None")]
    assert points[:2] == [[[2.0, 2.5]], [[3.0, 5.0]]]
    lines = [line.get_xydata().tolist() for line in time.get_lines() if len(line.get_xdata()) == 2]
    assert [[1.0, 2.5], [4.0, 2.5]] in lines
    (diagonal,) = [line for line in lines if line[0][0] == line[0][1]]
    assert diagonal[1][0] == diagonal[1][1]
    assert [axes.get_title()[:6] for axes in (time, memory)] == ["1 of 3", "1 of 2"]


def test_what_was_stopped_is_crossed_out_at_its_limit():
    time, _ = forecasts_of(CASES).axes
    (cross,) = [line for line in time.get_lines() if line.get_marker() == "x"]
    assert cross.get_xydata().tolist() == [[2.0, 12.0]]


def test_forecasts_of_what_was_all_stopped_are_a_figure():
    assert forecasts_of(CASES[2:]).axes[1].get_title().startswith("0 of 0")


def test_a_study_of_forecasts_has_the_figures_of_its_question_alone():
    study = read_study(fit_costs.ROOT / "studies" / "forecast.toml")
    rows = csv_rows.from_csv(RECORDS / "forecast" / "rows.csv")
    assert set(plots.figures(list(study.measures), rows)) == {"forecasts", "wall"}


def test_the_limits_of_a_cell_are_recorded_where_a_study_is_about_forecasts():
    network = PlacedNetwork(widths=[4, 2, 10], data="digits-2x2")
    cell = Cell(Task(network, 4, 0), resolved({"name": "symbolic"}), ["forecast"], 12.0, 2_000_000_000)
    names = runner._names(cell)
    assert (names["limit_seconds"], names["limit_bytes"]) == (12.0, 2_000_000_000)
    assert "limit_bytes" not in runner._names(msgspec.structs.replace(cell, measures=["swell"]))


def test_the_laws_are_those_of_the_recorded_study():
    assert fit_costs.COSTS.read_text() == fit_costs.text(fitted(csv_rows.from_csv(fit_costs.RECORD)))


def test_a_law_of_another_record_would_be_noticed():
    rows = csv_rows.from_csv(fit_costs.RECORD)
    rows[2] |= {"prepare_seconds": 10 * rows[2]["prepare_seconds"]}
    assert fit_costs.COSTS.read_text() != fit_costs.text(fitted(rows))
