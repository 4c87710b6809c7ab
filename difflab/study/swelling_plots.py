"""What symbolic derivatives take as figures: operations, and time against its limit."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from difflab.backends.symbolic import CHEAP_GRADIENT
from difflab.derivation.forecasting import columns_of
from difflab.study.drawing import REFERENCE, STOPPED, Row, Styles, figure_of_panels, only, over_numbers
from difflab.study.families import Family
from difflab.study.forecasts import seconds_to_prepare


if TYPE_CHECKING:
    from difflab.study.drawing import Axes, Figure


def figure_of_swelling(found: list[Family], styles: Styles) -> Figure:
    """Operations of loss and gradient by those of the loss, a panel for each thing that networks differ in."""
    return figure_of_panels(
        [partial(_draw_swelling, family=family, styles=styles) for family in found],
        styles,
        "operations ÷ those of the loss alone",
        "solid: loss and gradient as computed; dotted: the gradient as a tree; "
        f"dashed: {CHEAP_GRADIENT} times the loss [Baur, Strassen 1983]; ×: could not go on",
    )


def _draw_swelling(axes: Axes, family: Family, styles: Styles) -> None:
    axes.axhline(CHEAP_GRADIENT, **REFERENCE)
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
    over_numbers(axes, family)
    axes.set(yscale="log")


def figure_of_walls(found: list[Family], rows: list[Row], styles: Styles) -> Figure:
    """Seconds to derive and compile, forecast and as it was, against the limit of a cell."""
    styles = only(styles, rows)
    return figure_of_panels(
        [partial(_draw_wall, family=family, styles=styles) for family in found],
        styles,
        "seconds to derive and compile",
        "bands: forecast, to hold 19 of 20; markers: as it was; dashed: limit of time, at which × were stopped; "
        "+: stopped for memory",
    )


def _draw_wall(axes: Axes, family: Family, styles: Styles) -> None:
    members = [(float(setting), row) for setting, rows in family.members.items() for row in rows]
    limit = max(row["limit_seconds"] for _, row in members)
    axes.axhline(limit, **REFERENCE)
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
    over_numbers(axes, family)
    axes.set(yscale="log", ylim=(1e-3, 1e6))
