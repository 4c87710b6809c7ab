"""What symbolic derivatives take as figures: operations, and time and memory against their limits."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

from difflab.backends.symbolic import CHEAP_GRADIENT
from difflab.derivation.forecasting import FIGURES, columns_of
from difflab.study.drawing import (
    REFERENCE,
    STOPPED,
    Row,
    Styles,
    figure_of_panels,
    log_limits,
    mark_stopped,
    only,
    over_numbers,
)
from difflab.study.families import Family
from difflab.study.forecasts import LEAST_BYTES, took


if TYPE_CHECKING:
    from difflab.study.drawing import Axes, Figure

COUNTED: Styles = {"gradient_ops": {}, "gradient_tree_ops": {"ls": ":"}}
"""Operations of loss and gradient as computed, in the line of the method, and of the gradient as a tree."""
LEVEL = 0.055
"""Between marks of what stopped, as a share of the height of a panel."""


def _members(family: Family) -> list[tuple[float, Row]]:
    return [(float(setting), row) for setting, rows in family.members.items() for row in rows]


def figure_of_swelling(found: list[Family], styles: Styles) -> Figure:
    """Operations by those of the loss, a column for each thing that networks differ in; below, those within the bound.

    Marks along the upper edge, a line for each method, show where it could not go on.
    """
    rows = [row for family in found for _, row in _members(family)]
    stopped = list(only(styles, [row for row in rows if row["status"] in STOPPED]))
    limits = log_limits([CHEAP_GRADIENT, *(r for row in rows for r in _ratios(row))], LEVEL * (len(stopped) + 1))
    least = min([CHEAP_GRADIENT - 1, *(row["gradient_ops"] / row["own_loss_ops"] for row in rows if _ratios(row))])
    panels = [
        *(partial(_draw_swelling, family=f, styles=styles, limits=limits, stopped=stopped) for f in found),
        *(partial(_draw_within_bound, family=f, styles=styles, least=least) for f in found),
    ]
    note = (
        "dotted: the gradient as a tree; all other lines: loss and gradient as computed, and once more below, on a "
        "scale of\n"
        f"their own; grey: {CHEAP_GRADIENT} times the loss [Baur, Strassen 1983]; crossed out: could not go on"
    )
    return figure_of_panels(panels, styles, note=note, height=2.7, columns=len(found), sharey="row")


def _ratios(row: Row) -> list[float]:
    return [row[name] / row["own_loss_ops"] for name in COUNTED if row.get(name) and row.get("own_loss_ops")]


def _draw_swelling(
    axes: Axes, family: Family, styles: Styles, limits: tuple[float, float], stopped: list[str]
) -> None:  # fmt: skip
    for name, dashes in COUNTED.items():
        _draw_ratios(axes, family, styles, name, dashes)
    for setting, row in _members(family):
        if row["status"] in STOPPED:
            level, edge = 1 - LEVEL * (stopped.index(row["method"]) + 0.5), axes.get_xaxis_transform()
            mark_stopped(axes, setting, level, styles[row["method"]], transform=edge)
    over_numbers(axes, family)
    axes.set(yscale="log", ylim=limits, ylabel="operations ÷ those of the loss")


def _draw_within_bound(axes: Axes, family: Family, styles: Styles, least: float) -> None:
    _draw_ratios(axes, family, styles, "gradient_ops", {})
    over_numbers(axes, family)
    axes.set(ylim=(least - 0.15, CHEAP_GRADIENT + 0.15), ylabel="as computed, up to the bound")


def _draw_ratios(axes: Axes, family: Family, styles: Styles, name: str, dashes: dict[str, str]) -> None:
    axes.axhline(CHEAP_GRADIENT, **REFERENCE)
    for method, style in styles.items():
        mine = [(setting, row) for setting, row in _members(family) if row["method"] == method]
        points = [(setting, row[name] / row["own_loss_ops"]) for setting, row in mine if name in row and _ratios(row)]
        if points:
            axes.plot(*zip(*points, strict=True), **style | dashes)


WALLS = {
    "seconds": ("limit_seconds", "timeout", "seconds to derive and compile"),
    "extra_bytes": ("limit_bytes", "memory", "bytes beyond loaded libraries"),
}
"""Of each figure that is forecast: the limit of a cell, the status of a cell that met it, and words for an axis."""


def figure_of_walls(found: list[Family], rows: list[Row], styles: Styles) -> Figure:
    """What it takes to derive and compile, forecast and as it was, against the limits of a cell.

    Time above and memory below, a column for each thing that networks differ in.
    """
    styles = only(styles, rows)
    panels = []
    for figure in FIGURES:
        limits = _wall_limits([row for family in found for _, row in _members(family)], figure)
        panels += [partial(_draw_wall, family=f, styles=styles, figure=figure, limits=limits) for f in found]
    note = (
        "bands: forecast, to hold 19 of 20, by laws fitted to results/expression_swell, which in the figure of that "
        "study are the networks shown;\n"
        f"markers: what it took, memory from {LEAST_BYTES / 1e6:g} MB on; grey: the limit of a cell, "
        f"{_limit_words(rows)}; crossed out, above it: stopped there"
    )
    return figure_of_panels(panels, styles, note=note, height=2.7, columns=len(found), sharey="row")


def _limit(rows: list[Row], figure: str) -> float | None:
    """The limit of time or memory of a study, None where it was not recorded."""
    return max((row[WALLS[figure][0]] for row in rows if row.get(WALLS[figure][0])), default=None)


def _limit_words(rows: list[Row]) -> str:
    seconds, limit_bytes = (_limit(rows, figure) for figure in FIGURES)
    words = [f"{seconds:g} s"] if seconds else []
    return " and ".join([*words, *([f"{limit_bytes / 1e9:g} GB of address space"] if limit_bytes else [])])


def _wall_limits(rows: list[Row], figure: str) -> tuple[float, float]:
    """Of an axis: all that was measured, and of what is forecast no more than a little beyond the limit."""
    limit, bounds = _limit(rows, figure), columns_of(figure)
    most = math.inf if limit is None else 10 * limit
    measured = [took(row, figure) for row in rows]
    ahead = [min(row[name], most) for row in rows for name in bounds if row.get(name) is not None]
    return log_limits([value for value in (*measured, *ahead, limit) if value is not None and value < math.inf])


def _draw_wall(axes: Axes, family: Family, styles: Styles, figure: str, limits: tuple[float, float]) -> None:
    members, (_, status, words) = _members(family), WALLS[figure]
    stopped = list(only(styles, [row for _, row in members if row["status"] == status]))
    limit, step = _limit([row for _, row in members], figure), (limits[1] / limits[0]) ** LEVEL
    if limit is not None:
        axes.axhline(limit, **REFERENCE)
    for method, style in styles.items():
        mine = [(setting, row) for setting, row in members if row["method"] == method]
        _draw_forecast(axes, mine, figure, style)
        measured = [(setting, took(row, figure)) for setting, row in mine if took(row, figure) is not None]
        if measured:
            axes.plot(*zip(*measured, strict=True), **style)
        for setting, row in mine:
            if row["status"] == status and limit is not None:
                mark_stopped(axes, setting, limit * step ** (stopped.index(method) + 0.7), style)
    over_numbers(axes, family)
    axes.set(yscale="log", ylim=limits, ylabel=words)


def _draw_forecast(axes: Axes, mine: list[tuple[float, Row]], figure: str, style: dict[str, Any]) -> None:
    """The interval that is to hold 19 of 20."""
    _, low, high = columns_of(figure)
    ahead = [(setting, row[low], row[high]) for setting, row in mine if row.get(low) is not None]
    if ahead:
        settings, lows, highs = zip(*ahead, strict=True)
        axes.fill_between(settings, lows, highs, color=style["color"], alpha=0.12, lw=0)
