"""Operations of gradients as figures, by those of the loss alone."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from difflab.backends.symbolic import CHEAP_GRADIENT
from difflab.study.drawing import (
    LEVEL,
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


if TYPE_CHECKING:
    from difflab.study.drawing import Axes, Figure

COUNTED: Styles = {"gradient_ops": {}, "gradient_tree_ops": {"ls": ":"}}
"""Operations of loss and gradient as computed, in the line of the method, and of the gradient as a tree."""


def figure_of_swelling(found: list[Family], styles: Styles) -> Figure:
    """Operations by those of the loss, a column for each thing that networks differ in; below, those within the bound.

    Marks along the upper edge, a line for each method, show where it could not go on.
    """
    rows = [row for family in found for _, row in family.numbered]
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
    for setting, row in family.numbered:
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
        mine = [(setting, row) for setting, row in family.numbered if row["method"] == method]
        points = [(setting, row[name] / row["own_loss_ops"]) for setting, row in mine if name in row and _ratios(row)]
        if points:
            axes.plot(*zip(*points, strict=True), **style | dashes)
