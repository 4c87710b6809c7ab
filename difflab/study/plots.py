"""Recorded rows as figures, SVG for print and PNG for pages."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from difflab.backends.symbolic import CHEAP_GRADIENT
from difflab.derivation.forecasting import columns_of
from difflab.errors import MissingExtra
from difflab.files import write_atomically
from difflab.study import growth, swelling
from difflab.study.families import KNOBS, Family, families
from difflab.study.forecasts import seconds_to_prepare, with_forecast
from difflab.study.names import made_of, network_name, term_words
from difflab.study.tables import unit_roundoff


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, Any]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Told apart by people who do not see all colours [Okabe, Ito 2008]."""
MARKERS = "osD^vP*"
LINE = {"markersize": 5, "lw": 1.3}
STOPPED = ("refused", "timeout", "memory", "crashed", "wrong")
"""Statuses of rows without figures."""
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.hashsalt": "difflab",
    "figure.dpi": 150,
}


MAX_KINDS = 3
"""Kinds of network that can have lines of their own; more of them are listed one below the other."""
LEAST_ULP, MOST_ULP = 0.05, 1e18
"""Errors that have a place in a figure; those beyond are at its edge."""
FARTHEST = 1e-6, 1e9
"""Ratios of a reported error to the true one that have a place in a figure; those beyond are at its edge."""


def figures(measures: list[str], rows: list[Row]) -> dict[str, Figure]:
    """One figure per measure that has rows, by file name."""
    drawn = _figures_of_networks(measures, rows)
    found = families([row for row in rows if row.get("error_ulp_median") is not None or row["status"] in STOPPED])
    if "accuracy" in measures and found:
        drawn["families"] = _figure_of_families(found, rows)
        if not {network_name(row) for row in rows} - _networks(found):
            del drawn["error"]
    if "condition" in measures:
        drawn["condition"] = _figure_of_conditions(rows)
    if "error_estimates" in measures:
        drawn["estimates"] = _figure_of_estimates(rows)
    if "contest" in measures:
        drawn["contest"] = _figure_of_contest(rows)
    if "roofline" in measures:
        drawn["roofline"] = _figure_of_roofline(rows)
    if "derivation" in measures and (found := [f for f in families(rows) if f.knob in swelling.KNOBS]):
        drawn["swelling"] = _figure_of_swelling(found, rows)
    ahead = [row for row in map(with_forecast, rows) if row.get("forecast_seconds") is not None]
    if "forecast" in measures and (found := [f for f in families(ahead) if f.knob in swelling.KNOBS]):
        drawn["wall"] = _figure_of_walls(found, ahead)
    if laws := growth.laws(rows):
        drawn["growth"] = _figure_of_growth(laws)
    return drawn


def _networks(found: list[Family]) -> set[str]:
    """The names of all networks that belong to a family."""
    return {network_name(row) for family in found for members in family.members.values() for row in members}


def _figures_of_networks(measures: list[str], rows: list[Row]) -> dict[str, Figure]:
    """Figures by the size of networks of a few kinds, or by network."""
    if len({tuple(_kind(row)) for row in rows}) > MAX_KINDS:
        listed = {
            "accuracy": ("error", "error_relative", "relative error against the certified gradient"),
            "speed": ("time", "gradient_seconds", "seconds per gradient"),
            "swell": ("operations", "gradient_ops", "operations of the gradient of one sample, as computed"),
        }
        return {listed[m][0]: _figure_of_list(rows, *listed[m][1:]) for m in measures if m in listed}
    draw: dict[str, tuple[str, Callable[[Axes, list[Row]], None]]] = {
        "accuracy": ("error", _error),
        "speed": ("time", _time),
        "swell": ("operations", _operations),
    }
    return {draw[m][0]: _figure(draw[m][1], rows) for m in measures if m in draw}


def write(drawn: dict[str, Figure], directory: Path) -> list[Path]:
    """Write every figure as SVG and PNG; equal rows give equal SVG bytes."""
    from matplotlib import rc_context

    paths = []
    for name, figure in drawn.items():
        for kind, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
            buffer = io.BytesIO()
            with rc_context(STYLE):
                figure.savefig(buffer, format=kind, metadata=metadata)
            paths.append(directory / f"{name}.{kind}")
            write_atomically(paths[-1], buffer.getvalue())
    return paths


@contextmanager
def _new_figure(height: float, panels: tuple[int, int] = (1, 1)) -> Iterator[tuple[Figure, Any]]:
    """An empty figure in the style of the lab, with its axes, or rows of them that share their scale of heights."""
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("report", "matplotlib") from error
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, figure.subplots(*panels, sharey=True) if panels != (1, 1) else figure.subplots()


def _figure(draw: Callable[[Axes, list[Row]], None], rows: list[Row]) -> Figure:
    """Figures by the number of parameters."""
    with _new_figure(4.4) as (figure, axes):
        axes.set(xscale="log", yscale="log", xlabel="parameters of the network")
        draw(axes, _with_series(rows))
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
        return figure


def _figure_of_list(rows: list[Row], name: str, label: str) -> Figure:
    """Figures by network, one below the other; at the right edge, where a method could not go on."""
    networks = list(dict.fromkeys(map(network_name, rows)))
    rows = [row | {"series": row["method"]} for row in rows]
    with _new_figure(1.2 + 0.32 * len(networks)) as (figure, axes):
        for method, style in _styles(rows).items():
            points = [(r[name], networks.index(network_name(r))) for r in rows if r["series"] == method and r.get(name)]
            if points:
                axes.plot(*zip(*points, strict=True), label=method, **style | {"ls": "none"})
        for row in rows:
            if row["status"] in STOPPED:
                at = (1.01, networks.index(network_name(row)))
                text, colour = f"{row['method']} {row['status']}", _styles(rows)[row["series"]]["color"]
                axes.annotate(text, at, xycoords=axes.get_yaxis_transform(), va="center", fontsize=7.5, color=colour)
        axes.set(xscale="log", xlabel=label, yticks=range(len(networks)), yticklabels=networks)
        axes.set_ylim(len(networks) - 0.5, -0.5)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=8)
        return figure


def _figure_of_families(found: list[Family], rows: list[Row]) -> Figure:
    """Median, p99 and largest error of an entry by method, a panel for each thing that networks differ in."""
    judged = {row["method"] for row in rows if row.get("error_ulp_median") is not None}
    styles = _styles([row | {"series": row["method"]} for row in rows if row["method"] in judged])
    lines = -(-len(found) // 2)
    with _new_figure(1.0 + 2.5 * lines, (lines, 2)) as (figure, grid):
        axes = grid.ravel()
        for panel, family in zip(axes, found, strict=False):
            _draw_family(panel, family, styles)
        for panel in axes[len(found) :]:
            panel.set_axis_off()
        for method, style in styles.items():
            axes[0].plot([], [], label=method, **style)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=8)
        figure.supylabel("error of an entry, in ulp of the method's own dtype", fontsize=9)
        figure.supxlabel(
            "marker: median of the entries; tick: 99 of 100 are no further off; end of the line: the largest; "
            "dashed: no digit of a float64 is right",
            fontsize=7.5,
        )
        return figure


def _draw_family(axes: Axes, family: Family, styles: dict[str, dict[str, Any]]) -> None:
    methods, settings = list(styles), list(family.members)
    axes.axhline(2.0**52, color="#888888", lw=0.8, ls="--", zorder=0)
    for i, setting in enumerate(settings):
        for row in family.members[setting]:
            if row["method"] in methods:
                at = i + 0.8 * ((methods.index(row["method"]) + 0.5) / len(methods) - 0.5)
                _draw_errors(axes, row, at, styles[row["method"]])
    axes.set(yscale="log", ylim=(LEAST_ULP, MOST_ULP), xlim=(-0.5, len(settings) - 0.5), xlabel=KNOBS[family.knob])
    axes.set_xticks(range(len(settings)), settings, fontsize=8)
    axes.set_title(family.name, fontsize=8.5)
    axes.grid(False, axis="x")


def _draw_errors(axes: Axes, row: Row, at: float, style: dict[str, Any]) -> None:
    """A line from the median to the largest error; where a method could not go on, its status instead."""
    if row.get("error_ulp_median") is None:
        axes.text(at, 0.02, row["status"], transform=axes.get_xaxis_transform(), rotation=90, fontsize=6.5,
                  color=style["color"], ha="center", va="bottom")  # fmt: skip
        return
    errors = [row["error_ulp_median"], row.get("error_ulp_p99", row["error_ulp_max"]), row["error_ulp_max"]]
    median, p99, largest = (min(max(error, LEAST_ULP), MOST_ULP) for error in errors)
    axes.plot([at, at], [median, largest], color=style["color"], lw=1)
    axes.plot([at], [p99], color=style["color"], marker="_", ms=4, ls="none")
    axes.plot([at], [median], **style | {"ls": "none", "markersize": 3.2})


def _figure_of_swelling(found: list[Family], rows: list[Row]) -> Figure:
    """Operations of loss and gradient by those of the loss, a panel for each thing that networks differ in."""
    styles, lines = _styles([row | {"series": row["method"]} for row in rows]), -(-len(found) // 2)
    with _new_figure(1.0 + 2.5 * lines, (lines, 2)) as (figure, grid):
        axes = np.atleast_1d(grid).ravel()
        for panel, family in zip(axes, found, strict=False):
            _draw_swelling(panel, family, styles)
        for panel in axes[len(found) :]:
            panel.set_axis_off()
        for method, style in styles.items():
            axes[0].plot([], [], label=method, **style)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=8)
        figure.supylabel("operations ÷ those of the loss alone", fontsize=9)
        figure.supxlabel(
            "solid: loss and gradient as computed; dotted: the gradient as a tree; "
            f"dashed: {CHEAP_GRADIENT} times the loss [Baur, Strassen 1983]; ×: could not go on",
            fontsize=7.5,
        )
        return figure


def _draw_swelling(axes: Axes, family: Family, styles: dict[str, dict[str, Any]]) -> None:
    axes.axhline(CHEAP_GRADIENT, color="#888888", lw=0.8, ls="--", zorder=0)
    for method, style in styles.items():
        for name, dashes in (("gradient_ops", "-"), ("gradient_tree_ops", ":")):
            points = [
                (float(setting), row[name] / row["own_loss_ops"])
                for setting, members in family.members.items()
                for row in members
                if row["method"] == method and row.get(name) and row.get("own_loss_ops")
            ]
            if points:
                axes.plot(*zip(*points, strict=True), **style | {"ls": dashes, "markersize": 3})
        stopped = [
            float(setting)
            for setting, members in family.members.items()
            for row in members
            if row["method"] == method and row["status"] in STOPPED
        ]
        for setting in stopped:
            axes.text(setting, 0.98 - 0.06 * list(styles).index(method), "×", transform=axes.get_xaxis_transform(),
                      color=style["color"], ha="center", va="top", fontsize=9)  # fmt: skip
    axes.set(yscale="log", xlabel=KNOBS[family.knob])
    axes.set_xticks([float(setting) for setting in family.members], list(family.members), fontsize=8)
    axes.set_title(family.name, fontsize=8.5)


def _figure_of_walls(found: list[Family], rows: list[Row]) -> Figure:
    """Seconds to derive and compile, forecast and as it was, against the limit of a cell."""
    styles, lines = _styles([row | {"series": row["method"]} for row in rows]), -(-len(found) // 2)
    with _new_figure(1.0 + 2.5 * lines, (lines, 2)) as (figure, grid):
        axes = np.atleast_1d(grid).ravel()
        for panel, family in zip(axes, found, strict=False):
            _draw_wall(panel, family, styles)
        for panel in axes[len(found) :]:
            panel.set_axis_off()
        for method, style in styles.items():
            axes[0].plot([], [], label=method, **style)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=8)
        figure.supylabel("seconds to derive and compile", fontsize=9)
        figure.supxlabel(
            "bands: forecast, to hold 19 of 20; markers: as it was; dashed: limit of time, at which × were stopped; "
            "+: stopped for memory",
            fontsize=7.5,
        )
        return figure


def _draw_wall(axes: Axes, family: Family, styles: dict[str, dict[str, Any]]) -> None:
    members = [(float(setting), row) for setting, rows in family.members.items() for row in rows]
    limit = max(row["limit_seconds"] for _, row in members)
    axes.axhline(limit, color="#888888", lw=0.8, ls="--", zorder=0)
    for method, style in styles.items():
        mine = [(setting, row) for setting, row in members if row["method"] == method]
        settings = [setting for setting, _ in mine]
        low, high = ([row[name] for _, row in mine] for name in columns_of("seconds")[1:])
        axes.fill_between(settings, low, high, color=style["color"], alpha=0.15, lw=0)
        measured = [(setting, seconds_to_prepare(row)) for setting, row in mine if row["status"] == "ok"]
        if measured:
            axes.plot(*zip(*measured, strict=True), **style | {"ls": "-", "markersize": 3})
        for status, sign in (("timeout", "x"), ("memory", "+")):
            stopped = [setting for setting, row in mine if row["status"] == status]
            axes.plot(stopped, [limit] * len(stopped), sign, color=style["color"], ms=5)
    axes.set(yscale="log", xlabel=KNOBS[family.knob], ylim=(1e-3, 1e6))
    axes.set_xticks([float(setting) for setting in family.members], list(family.members), fontsize=8)
    axes.set_title(family.name, fontsize=8.5)


def _figure_of_conditions(rows: list[Row]) -> Figure:
    """Relative error by condition number, beside what one rounding of everything that comes in would make of it."""
    rows = [row | {"series": row["method"]} for row in rows if row.get("error_relative")]
    known = [row for row in rows if row.get("condition")]
    with _new_figure(4.4) as (figure, axes):
        for method, style in _styles(rows).items():
            points = [(row["condition"], row["error_relative"]) for row in known if row["series"] == method]
            if points:
                axes.plot(*zip(*points, strict=True), label=method, **style | {"ls": "none", "markersize": 4})
        ends = [least(row["condition"] for row in known) for least in (min, max)] if known else []
        for dtype, dashes in (("float64", "-"), ("float32", "--")):
            if units := {unit_roundoff(row) for row in known if row.get("dtype", "float64") == dtype}:
                line = [units.copy().pop() * end for end in ends]
                axes.plot(ends, line, color="#555555", lw=1, ls=dashes, zorder=0, label=f"condition · u of {dtype}")
        axes.set(xscale="log", yscale="log", xlabel="condition number of the gradient")
        axes.set(ylabel="relative error against the certified gradient", title="Error by method and condition")
        if known:
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
        return figure


def _figure_of_estimates(rows: list[Row]) -> Figure:
    """What is reported of the true error, by network and method: quantiles over the entries of a gradient."""
    rows = [row | {"series": row["method"]} for row in rows]
    networks, styles, limits = list(dict.fromkeys(map(network_name, rows))), _styles(rows), _ratio_limits(rows)
    lines = len(styles) + 1
    with _new_figure(1.3 + 0.135 * lines * len(networks)) as (figure, axes):
        axes.axvspan(limits[0], 1, color="#f3f3f3", lw=0, zorder=0)
        axes.axvline(1, color="black", lw=1)
        for row in rows:
            at = lines * networks.index(network_name(row)) + list(styles).index(row["method"])
            _draw_ratios(axes, row, at, limits, styles[row["method"]])
        for method, style in styles.items():
            axes.plot([], [], label=method, **style)
        axes.set(xscale="log", xlim=limits, ylim=(lines * len(networks) - 1, -1))
        axes.set_xlabel("reported error ÷ true error of an entry (below 1: understated)")
        axes.set_yticks([lines * k + lines / 2 - 1 for k in range(len(networks))], networks)
        axes.grid(False, axis="y")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=8)
        figure.supxlabel(
            "marker: median; thick: half of the entries; thin: 90 % of them; |: the most understated one, "
            "< where it is beyond the edge; right: understated entries",
            fontsize=7.5,
        )
        return figure


def _ratio_limits(rows: list[Row]) -> tuple[float, float]:
    """Whole powers of ten around what there is to see, and around 1."""
    seen = [row[f"reported_to_true_{name}"] for row in rows for name in ("min", "q95") if "judged_entries" in row]
    seen = [min(max(ratio, FARTHEST[0]), FARTHEST[1]) for ratio in [*seen, 0.1, 10.0]]
    return 10.0 ** math.floor(math.log10(min(seen))), 10.0 ** math.ceil(math.log10(max(seen)))


def _draw_ratios(axes: Axes, row: Row, at: float, limits: tuple[float, float], style: dict[str, Any]) -> None:
    colour, edge = style["color"], axes.get_yaxis_transform()
    if row.get("reported_to_true_median") is None:
        axes.text(1.01, at, row["status"], transform=edge, va="center", fontsize=7, color=colour)
        return
    low, high = limits
    least, q05, q25, median, q75, q95 = (
        min(max(row[f"reported_to_true_{name}"], low), high) for name in ("min", "q05", "q25", "median", "q75", "q95")
    )
    axes.plot([q05, q95], [at, at], color=colour, lw=1)
    axes.plot([q25, q75], [at, at], color=colour, lw=3, solid_capstyle="butt")
    axes.plot([median], [at], **style | {"ls": "none", "markersize": 4})
    axes.plot([least], [at], color=colour, marker="<" if least == low else "|", ms=5, clip_on=False)
    share = 100 * row["understated_entries"] / row["judged_entries"]
    text = "<1 %" if 0 < share < 1 else f"{share:.0f} %"
    axes.text(1.01, at, text, transform=edge, va="center", fontsize=7, color=colour)


def _figure_of_contest(rows: list[Row]) -> Figure:
    """Times of all methods by that of Backprop, network by network, a panel for each dtype and number of threads."""
    rows = [row | {"series": _without_arithmetic(row)} for row in rows if row.get("ratio")]
    networks, styles = list(dict.fromkeys(map(network_name, rows))), _styles(rows)
    settings = sorted({(row["dtype"], row["threads"]) for row in rows}, key=lambda s: (s[1], s[0] != "float64"))
    lines = max(1, -(-len(settings) // 2))
    ratios = [1.0, *(row["ratio"] for row in rows)]
    limits = 0.8 * min(ratios), 1.25 * max(ratios)
    with _new_figure(1.2 + lines * (0.6 + 0.2 * len(networks)), (lines, 2)) as (figure, grid):
        for panel, setting in zip(grid.ravel(), settings, strict=False):
            mine = [row for row in rows if (row["dtype"], row["threads"]) == setting]
            _draw_contest(panel, mine, networks, limits, styles)
            panel.set_title(f"{setting[0]}, {setting[1]} thread{'s' * (setting[1] > 1)}", fontsize=9)
        for panel in grid.ravel()[len(settings) :]:
            panel.set_axis_off()
        for method, style in styles.items():
            grid.ravel()[0].plot([], [], label=method, **style | {"ls": "none"})
        figure.legend(*grid.ravel()[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=8)
        figure.supxlabel("time of a gradient ÷ that of Backprop (right of the line: Backprop is faster)", fontsize=9)
        return figure


def _draw_contest(
    axes: Axes, rows: list[Row], networks: list[str], limits: tuple[float, float], styles: dict[str, dict[str, Any]]
) -> None:
    axes.axvline(1, color="black", lw=1, zorder=0)
    for row in rows:
        at, style = networks.index(network_name(row)), styles[row["series"]]
        axes.plot([row["ratio_low"], row["ratio_high"]], [at, at], color=style["color"], lw=1)
        axes.plot([row["ratio"]], [at], **style | {"ls": "none", "markersize": 4})
    axes.set(xscale="log", xlim=limits, ylim=(len(networks) - 0.5, -0.5), yticks=range(len(networks)))
    axes.set_yticklabels(networks, fontsize=7.5)
    ticks = [tick for tick in _round_numbers(*limits) if limits[0] <= tick <= limits[1]]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=7.5)
    axes.minorticks_off()


def _round_numbers(low: float, high: float) -> list[float]:
    """Powers of ten, and 2 and 5 times these where there is room for them."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if last - first <= 2 else (1,)
    return [step * 10.0**power for power in range(first, last + 1) for step in steps]


def _without_arithmetic(row: Row) -> str:
    """The method without its dtype and threads."""
    left = row["method"].replace(f"'{row['dtype']}'", "").replace(f"threads={row['threads']}", "")
    return left.replace(", ,", ",").replace("(, ", "(")


def _figure_of_roofline(rows: list[Row]) -> Figure:
    """Rates of arithmetic by operations per byte, below the roofs that BLAS and memory set."""
    rows = [row | {"series": row["method"]} for row in rows if row.get("gemm_flops_per_second")]
    with _new_figure(4.4) as (figure, axes):
        for method, style in _styles(rows).items():
            mine = [row for row in rows if row["series"] == method]
            points = [
                (r["product_ops"] / r["traffic_bytes"], r["product_ops"] / r["roofline_gradient_seconds"]) for r in mine
            ]
            axes.plot(*zip(*points, strict=True), label=method, **style | {"ls": "none", "markersize": 4})
            _draw_roof(axes, mine, [point[0] for point in points], style["color"])
        axes.set(xscale="log", yscale="log", xlabel="multiplications and additions of products, per byte of memory")
        axes.set(ylabel="of these per second", title="Gradients below the roofline")
        if rows:
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
        return figure


def _draw_roof(axes: Axes, rows: list[Row], intensities: list[float], colour: str) -> None:
    """Of the median rates of all rows of a method."""
    rate, bandwidth = (
        sorted(row[name] for row in rows)[len(rows) // 2]
        for name in ("gemm_flops_per_second", "bandwidth_bytes_per_second")
    )
    ends = sorted([min(intensities), rate / bandwidth, max(*intensities, rate / bandwidth)])
    axes.plot(ends, [min(rate, bandwidth * at) for at in ends], color=colour, lw=1, zorder=0)


def _figure_of_growth(found: list[growth.Law]) -> Figure:
    """Seconds of a gradient over width, depth and batch, with the exponent of every line."""
    families_found = list(dict.fromkeys((law.knob, law.family) for law in found))
    lines = -(-len(families_found) // 2)
    styles = _styles([{"series": law.method} for law in found])
    with _new_figure(0.8 + 3.0 * lines, (lines, 2)) as (figure, grid):
        for panel, (knob, family) in zip(grid.ravel(), families_found, strict=False):
            for law in found:
                if (law.knob, law.family) == (knob, family):
                    label = f"{law.method}: {law.exponent:.2f}, upper half {law.upper:.2f}"
                    panel.plot(*zip(*law.points, strict=True), label=label, **styles[law.method])
            panel.set(xscale="log", yscale="log", xlabel=KNOBS[knob])
            settings = sorted({n for law in found if (law.knob, law.family) == (knob, family) for n, _ in law.points})
            panel.set_xticks(settings, [f"{n:g}" for n in settings], fontsize=7.5)
            panel.minorticks_off()
            panel.set_title(family, fontsize=8.5)
            panel.legend(fontsize=6.5, title="exponent", title_fontsize=6.5)
        for panel in grid.ravel()[len(families_found) :]:
            panel.set_axis_off()
        figure.supylabel("seconds per gradient", fontsize=9)
        return figure


def _kind(row: Row) -> list[str]:
    """What tells networks apart beside their size."""
    return [*made_of(row), *term_words(row)]


def _methods(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(row["series"] for row in rows))


def _with_series(rows: list[Row]) -> list[Row]:
    """Rows with the name of the line they belong to: the method, and what else tells networks apart in this study."""
    names = [_kind(row) for row in rows]
    if len({tuple(name) for name in names}) == 1:
        return [row | {"series": row["method"]} for row in rows]
    return [row | {"series": ", ".join([row["method"], *name])} for row, name in zip(rows, names, strict=True)]


def _styles(rows: list[Row]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each method, the same in every figure of one study."""
    return {
        method: {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[(i + i // len(COLOURS)) % len(MARKERS)]} | LINE
        for i, method in enumerate(_methods(rows))
    }


def _lines(axes: Axes, rows: list[Row], name: str, suffix: str = "") -> None:
    """One line per method through its rows that have the figure ``name``, and one for methods that coincide.

    Zero has no place on a log axis.
    """
    lines: dict[tuple[tuple[int, float], ...], list[str]] = {}
    for method in _methods(rows):
        points = tuple(sorted((r["parameters"], r[name]) for r in rows if r["series"] == method and r.get(name)))
        lines.setdefault(points, []).append(method)
    for points, methods in lines.items():
        if points:
            axes.plot(*zip(*points, strict=True), label=",\n".join(methods) + suffix, **_styles(rows)[methods[0]])


def _walls(axes: Axes, rows: list[Row]) -> None:
    """Crosses along the upper edge where a method could not go on."""
    styles = _styles(rows)
    stopped = [row for row in rows if row["status"] in STOPPED]
    seen: dict[int, int] = {}
    for row in stopped:
        level = seen[row["parameters"]] = seen.get(row["parameters"], -1) + 1
        axes.annotate(
            f"× {row['status']}",
            (row["parameters"], 1.0),
            xycoords=axes.get_xaxis_transform(),
            color=styles[row["series"]]["color"],
            fontsize=7.5,
            annotation_clip=False,
            xytext=(0, -4 - 11 * level),
            textcoords="offset points",
            ha="center",
            va="top",
        )


def _error(axes: Axes, rows: list[Row]) -> None:
    _lines(axes, rows, "error_relative")
    axes.set(ylabel="relative error against the certified gradient", title="Error by method and size")
    _headroom(axes, rows)


def _time(axes: Axes, rows: list[Row]) -> None:
    _lines(axes, rows, "gradient_seconds")
    axes.set(ylabel="seconds per gradient", title="Time of one gradient by number of parameters")
    _headroom(axes, rows)


def _headroom(axes: Axes, rows: list[Row]) -> None:
    """Room above the data for what is written there."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * (high / low) ** 0.3)
    _walls(axes, rows)


def _operations(axes: Axes, rows: list[Row]) -> None:
    """Symbolic expressions are shown twice: written out as a tree, and as computed after sharing."""
    loss = sorted({(row["parameters"], row["loss_tree_ops"]) for row in rows if row.get("loss_tree_ops")})
    if loss:
        axes.plot(*zip(*loss, strict=True), color="#888888", lw=1, ls="--", label="loss: tree")
    styles = _styles(rows)
    for method, style in styles.items():
        mine = sorted((row for row in rows if row["series"] == method), key=lambda row: row["parameters"])
        tree = [(row["parameters"], row["gradient_tree_ops"]) for row in mine if row.get("gradient_tree_ops")]
        if tree:
            axes.plot(*zip(*tree, strict=True), label=f"{method}: tree", **style | {"ls": ":"})
        ahead = [(row["parameters"], row["forecast_tree_ops"]) for row in mine if row.get("forecast_tree_ops")]
        if ahead:
            hollow = style | {"ls": "none", "markerfacecolor": "none", "markersize": 8}
            axes.plot(*zip(*ahead, strict=True), label=f"{method}: tree, forecast", **hollow)
    _lines(axes, rows, "gradient_ops", ": computed")
    axes.set(ylabel="operations for one sample", title="Size of the gradient by method and size")
