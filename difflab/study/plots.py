"""Recorded rows as figures: which a study has, and those by network."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from difflab.study import growth, swelling
from difflab.study.drawing import (
    REFERENCE,
    STOPPED,
    Row,
    Styles,
    legend_above,
    legend_beside,
    mark_stopped,
    new_figure,
    only,
    styles_of,
)
from difflab.study.error_plots import figure_of_conditions, figure_of_estimates, figure_of_families
from difflab.study.families import Family, families
from difflab.study.forecast_plots import figure_of_forecasts, figure_of_walls
from difflab.study.forecasts import with_forecast
from difflab.study.names import made_of, network_name, term_words
from difflab.study.speed_plots import figure_of_contest, figure_of_growth, figure_of_roofline
from difflab.study.swelling_plots import figure_of_swelling


if TYPE_CHECKING:
    from difflab.study.drawing import Axes, Figure

KINDS: tuple[dict[str, Any], ...] = (
    {},
    {"fillstyle": "bottom", "markerfacecoloralt": "white"},
    {"fillstyle": "left", "markerfacecoloralt": "white"},
)
"""Markers of the kinds of network that can have lines of their own; more are listed one below the other."""


def figures(measures: list[str], rows: list[Row]) -> dict[str, Figure]:
    """One figure per measure that has rows, by file name; a method looks the same in all of them."""
    styles = styles_of(row["method"] for row in rows)
    drawn = _figures_of_networks(measures, rows, styles)
    found = families([row for row in rows if row.get("error_ulp_median") is not None or row["status"] in STOPPED])
    if "accuracy" in measures and found:
        drawn["families"] = figure_of_families(found, rows, styles)
        if not {network_name(row) for row in rows} - _networks(found):
            del drawn["error"]
    if "condition" in measures:
        drawn["condition"] = figure_of_conditions(rows, styles)
    if "error_estimates" in measures:
        drawn["estimates"] = figure_of_estimates(rows, styles)
    if "contest" in measures:
        drawn["contest"] = figure_of_contest(rows)
    if "roofline" in measures:
        drawn["roofline"] = figure_of_roofline(rows, styles)
    if {"swell", "derivation"} <= set(measures) and (found := _by_size(rows)):
        drawn["swelling"] = figure_of_swelling(found, styles)
    ahead = [row for row in map(with_forecast, rows) if row.get("forecast_seconds") is not None]
    if "forecast" in measures and ahead:
        drawn["forecasts"] = figure_of_forecasts(ahead, styles)
    if "forecast" in measures and (found := _by_size(ahead)):
        drawn["wall"] = figure_of_walls(found, ahead, styles)
    if laws := growth.laws(rows):
        drawn["growth"] = figure_of_growth(laws, styles)
    return drawn


def _by_size(rows: list[Row]) -> list[Family]:
    """Networks that differ in depth or width alone."""
    return [family for family in families(rows) if family.knob in swelling.KNOBS]


def _networks(found: list[Family]) -> set[str]:
    """The names of all networks that belong to a family."""
    return {network_name(row) for family in found for members in family.members.values() for row in members}


def _figures_of_networks(measures: list[str], rows: list[Row], styles: Styles) -> dict[str, Figure]:
    """Figures by the size of networks of a few kinds, or by network."""
    if len({tuple(_kind(row)) for row in rows}) > len(KINDS):
        listed = {
            "accuracy": ("error", "error_relative", "relative error against the certified gradient"),
            "speed": ("time", "gradient_seconds", "seconds per gradient"),
            "swell": ("operations", "gradient_ops", "operations of the gradient of one sample, as computed"),
        }
        return {listed[m][0]: _figure_of_list(rows, *listed[m][1:], styles) for m in measures if m in listed}
    draw: dict[str, tuple[str, Callable[[Axes, list[Row], Styles], None]]] = {
        "accuracy": ("error", _error),
        "speed": ("time", _time),
        "swell": ("operations", _operations),
    }
    return {draw[m][0]: _figure(draw[m][1], rows, styles) for m in measures if m in draw}


def _figure(draw: Callable[[Axes, list[Row], Styles], None], rows: list[Row], styles: Styles) -> Figure:
    """Figures by the number of parameters."""
    with new_figure(4.4) as figure:
        axes = figure.subplots()
        axes.set(xscale="log", yscale="log", xlabel="parameters of the network")
        draw(axes, *_series(rows, styles))
        legend_beside(axes)
        return figure


def _figure_of_list(rows: list[Row], name: str, label: str, styles: Styles) -> Figure:
    """Figures by network, one below the other, a little lower for each method; beside them, where one stopped."""
    networks = list(dict.fromkeys(map(network_name, rows)))
    shown = only(styles, [row for row in rows if row.get(name) or row["status"] in STOPPED])
    styles = {method: style | {"ls": "none", "markersize": 4.5} for method, style in shown.items()}
    with new_figure(1.2 + (0.28 + 0.012 * len(styles)) * len(networks)) as figure:
        axes = figure.subplots()
        for k, (method, style) in enumerate(styles.items()):
            lower = LINES_APART * ((k + 0.5) / len(styles) - 0.5)
            mine = [row for row in rows if row["method"] == method and row.get(name)]
            heights = [networks.index(network_name(row)) + lower for row in mine]
            axes.plot([row[name] for row in mine], heights, label=method, **style)
        _stopped_beside(axes, rows, networks, styles)
        axes.set(xscale="log", xlabel=label, yticks=range(len(networks)), yticklabels=networks)
        axes.set_ylim(len(networks) - 0.5, -0.5)
        axes.grid(False, axis="y")
        for line in range(0, len(networks), 2):
            axes.axhspan(line - 0.5, line + 0.5, color="#f3f3f3", lw=0, zorder=0)
        legend_above(figure, styles)
        return figure


LINES_APART = 0.7
"""Of the height of a line in a list, what its methods take up."""
STEP = 0.027
"""Between marks beside a list, as a share of the width of its axes."""


def _stopped_beside(axes: Axes, rows: list[Row], networks: list[str], styles: Styles) -> None:
    """A column for each way to stop, with marks of the methods that did so, one beside the other."""
    left = 1 + STEP
    for status in STOPPED:
        most = 0
        for line, network in enumerate(networks):
            stopped = [r["method"] for r in rows if r["status"] == status and network_name(r) == network]
            for k, method in enumerate(stopped):
                mark_stopped(axes, left + k * STEP, line, styles[method], transform=axes.get_yaxis_transform())
            most = max(most, len(stopped))
        if most:
            axes.text(left - STEP / 2, 1, status, transform=axes.transAxes, va="bottom", fontsize=7.5)
            left += STEP * max(most + 1, len(status))
    axes.text(left, 1, "·", transform=axes.transAxes, alpha=0)  # A layout has room for texts, not for marks.


def _kind(row: Row) -> list[str]:
    """What tells networks apart beside their size."""
    return [*made_of(row), *term_words(row)]


def _series(rows: list[Row], styles: Styles) -> tuple[list[Row], Styles]:
    """Rows with the name of the line they belong to: the method, and what else tells networks apart in this study.

    Lines of one method have its colour and markers of its shape, filled in another way for each kind of network.
    """
    kinds = list(dict.fromkeys(tuple(_kind(row)) for row in rows))
    named, looks = [], {}
    for row in rows:
        kind = tuple(_kind(row))
        name = ", ".join([row["method"], *kind]) if len(kinds) > 1 else row["method"]
        named.append(row | {"series": name})
        looks[name] = styles[row["method"]] | KINDS[kinds.index(kind)]
    return named, looks


def _lines(axes: Axes, rows: list[Row], name: str, styles: Styles, suffix: str = "") -> None:
    """One line per method through its rows that have the figure ``name``, and one for methods that coincide.

    Zero has no place on a log axis.
    """
    lines: dict[tuple[tuple[int, float], ...], list[str]] = {}
    for method in styles:
        points = tuple(sorted((r["parameters"], r[name]) for r in rows if r["series"] == method and r.get(name)))
        lines.setdefault(points, []).append(method)
    for points, methods in lines.items():
        if points:
            axes.plot(*zip(*points, strict=True), label=",\n".join(methods) + suffix, **styles[methods[0]])


def _walls(axes: Axes, rows: list[Row], styles: Styles) -> None:
    """Marks along the upper edge where a method could not go on, and how."""
    seen: dict[int, int] = {}
    for row in rows:
        if row["status"] in STOPPED:
            level = seen[row["parameters"]] = seen.get(row["parameters"], -1) + 1
            at, edge = (row["parameters"], 0.975 - 0.042 * level), axes.get_xaxis_transform()
            mark_stopped(axes, *at, styles[row["series"]], transform=edge)
            axes.annotate(row["status"], at, (-7, 0), edge, "offset points", ha="right", va="center", fontsize=7.5)


def _error(axes: Axes, rows: list[Row], styles: Styles) -> None:
    _lines(axes, rows, "error_relative", styles)
    axes.set(ylabel="relative error against the certified gradient", title="Error by method and size")
    _headroom(axes, rows, styles)


def _time(axes: Axes, rows: list[Row], styles: Styles) -> None:
    _lines(axes, rows, "gradient_seconds", styles)
    axes.set(ylabel="seconds per gradient", title="Time of one gradient by number of parameters")
    _headroom(axes, rows, styles)


def _headroom(axes: Axes, rows: list[Row], styles: Styles) -> None:
    """Room above the data for marks of what stopped."""
    if any(row["status"] in STOPPED for row in rows):
        low, high = axes.get_ylim()
        axes.set_ylim(low, high * (high / low) ** 0.3)
        _walls(axes, rows, styles)


def _operations(axes: Axes, rows: list[Row], styles: Styles) -> None:
    """Symbolic expressions are shown twice: written out as a tree, and as computed after sharing."""
    loss = sorted({(row["parameters"], row["loss_tree_ops"]) for row in rows if row.get("loss_tree_ops")})
    if loss:
        axes.plot(*zip(*loss, strict=True), label="loss: tree", **REFERENCE)
    for method, style in styles.items():
        mine = sorted((row for row in rows if row["series"] == method), key=lambda row: row["parameters"])
        tree = [(row["parameters"], row["gradient_tree_ops"]) for row in mine if row.get("gradient_tree_ops")]
        if tree:
            axes.plot(*zip(*tree, strict=True), label=f"{method}: tree", **style | {"ls": ":"})
        ahead = [(row["parameters"], row["forecast_tree_ops"]) for row in mine if row.get("forecast_tree_ops")]
        if ahead:
            hollow = style | {"ls": "none", "markerfacecolor": "none", "markersize": 8}
            axes.plot(*zip(*ahead, strict=True), label=f"{method}: tree, forecast", **hollow)
    _lines(axes, rows, "gradient_ops", styles, ": computed")
    axes.set(ylabel="operations for one sample", title="Size of the gradient by method and size")
