"""What deriving and compiling takes as figures: against its limits, and against its forecast."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

from difflab.derivation.forecasting import FIGURES, columns_of
from difflab.study.drawing import (
    LEVEL,
    REFERENCE,
    Row,
    Styles,
    figure_of_panels,
    log_limits,
    mark_stopped,
    only,
    over_numbers,
)
from difflab.study.families import Family
from difflab.study.forecasts import LEAST_BYTES, share_kept, took


if TYPE_CHECKING:
    from difflab.study.drawing import Axes, Figure

WALLS = {
    "seconds": ("limit_seconds", "timeout", "seconds to derive and compile"),
    "extra_bytes": ("limit_bytes", "memory", "bytes beyond loaded libraries"),
}
"""Of each figure that is forecast: the limit of a cell, the status of a cell that met it, and words for an axis."""
LAWS = "laws fitted before to expression_swell, whose own figure shows the networks they were fitted to"


def figure_of_walls(found: list[Family], rows: list[Row], styles: Styles) -> Figure:
    """What it takes to derive and compile, forecast and as it was, against the limits of a cell.

    Time above and memory below, a column for each thing that networks differ in.
    """
    styles = only(styles, rows)
    panels = []
    for figure in FIGURES:
        limits = _wall_limits([row for family in found for _, row in family.numbered], figure)
        panels += [partial(_draw_wall, family=f, styles=styles, figure=figure, limits=limits) for f in found]
    note = (
        f"bands: forecast, to hold 19 of 20, by {LAWS};\n"
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
    members, (_, status, words) = family.numbered, WALLS[figure]
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


def figure_of_forecasts(rows: list[Row], styles: Styles) -> Figure:
    """What it took to derive and compile by its forecast, all networks of a study, time and memory."""
    styles = only(styles, rows)
    panels = [partial(_draw_forecasts, rows=rows, figure=figure, styles=styles) for figure in FIGURES]
    note = (
        f"lines: interval of the forecast, to hold 19 of 20, by {LAWS};\n"
        f"grey: as forecast; memory from {LEAST_BYTES / 1e6:g} MB on; crossed out: stopped at a limit, "
        f"{_limit_words(rows)}, took more"
    )
    return figure_of_panels(panels, styles, note=note, height=3.4, sharey="none")


def _draw_forecasts(axes: Axes, rows: list[Row], figure: str, styles: Styles) -> None:
    value, low, high = columns_of(figure)
    limit, status, words = WALLS[figure]
    ahead = [row for row in rows if row.get(value) is not None and row[value] < math.inf]
    ended = [(row, found) for row in ahead if (found := took(row, figure)) is not None]
    stopped = [(row, row[limit]) for row in ahead if row["status"] == status and row.get(limit)]
    for row, found in ended:
        style = styles[row["method"]]
        axes.plot([row[low], row[high]], [found, found], color=style["color"], lw=0.8, alpha=0.5, zorder=1)
        axes.plot([row[value]], [found], **style | {"ls": "none", "markersize": 4.5})
    for row, found in stopped:
        mark_stopped(axes, row[value], found, styles[row["method"]])
    axes.set(xscale="log", yscale="log", xlabel=f"forecast of {words}", ylabel=words)
    axes.xaxis.set_minor_formatter("")  # Its numbers would lie over one another.
    if seen := [*ended, *stopped]:
        across, up = log_limits(row[value] for row, _ in seen), log_limits(found for _, found in seen)
        ends = [min(across[0], up[0]), max(across[1], up[1])]
        axes.plot(ends, ends, **REFERENCE)
        axes.set(xlim=across, ylim=up)
    kept, of = share_kept(ahead, figure)
    axes.set_title(f"{kept} of {of} in the interval of their forecast", fontsize=8.5)
