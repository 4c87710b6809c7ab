"""What symbolic derivatives take as figures: operations, and time against its limit."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from difflab.backends.symbolic import CHEAP_GRADIENT
from difflab.derivation.forecasting import columns_of
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
from difflab.study.forecasts import seconds_to_prepare


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


def figure_of_walls(found: list[Family], rows: list[Row], styles: Styles) -> Figure:
    """Seconds to derive and compile, forecast and as it was, against the limit of a cell."""
    styles = only(styles, rows)
    return figure_of_panels(
        [partial(_draw_wall, family=family, styles=styles) for family in found],
        styles,
        "seconds to derive and compile",
        "bands: forecast, to hold 19 of 20; markers: as it was; grey: limit of time, at which those crossed out were "
        "stopped; +: stopped for memory",
    )


def _draw_wall(axes: Axes, family: Family, styles: Styles) -> None:
    members = _members(family)
    limit = max(row["limit_seconds"] for _, row in members)
    axes.axhline(limit, **REFERENCE)
    for method, style in styles.items():
        mine = [(setting, row) for setting, row in members if row["method"] == method]
        settings = [setting for setting, _ in mine]
        low, high = ([row[name] for _, row in mine] for name in columns_of("seconds")[1:])
        axes.fill_between(settings, low, high, color=style["color"], alpha=0.15, lw=0)
        measured = [(setting, seconds_to_prepare(row)) for setting, row in mine if row["status"] == "ok"]
        if measured:
            axes.plot(*zip(*measured, strict=True), **style)
        for setting, row in mine:
            if row["status"] in ("timeout", "memory"):
                mark_stopped(axes, setting, limit, style)
    over_numbers(axes, family)
    axes.set(yscale="log", ylim=(1e-3, 1e6))
