"""Errors of gradients as figures: by what networks differ in, by condition, and beside what is reported of them."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

from difflab.study.drawing import (
    REFERENCE,
    Row,
    Styles,
    figure_of_panels,
    legend_above,
    legend_beside,
    mark_stopped,
    name_knob,
    new_figure,
    only,
)
from difflab.study.families import Family
from difflab.study.names import network_name
from difflab.study.tables import unit_roundoff


if TYPE_CHECKING:
    from difflab.study.drawing import Axes, Figure

LEAST_ULP, MOST_ULP = 0.05, 1e18
"""Errors that have a place in a figure; those beyond are at its edge."""
FARTHEST = 1e-6, 1e9
"""Ratios of a reported error to the true one that have a place in a figure; those beyond are at its edge."""

CROWDED = 8
"""Methods beside each other that leave no room for two panels in a line."""


def figure_of_families(found: list[Family], rows: list[Row], styles: Styles) -> Figure:
    """Median, p99 and largest error of an entry by method, a panel for each thing that networks differ in."""
    styles = only(styles, [row for row in rows if row.get("error_ulp_median") is not None])
    return figure_of_panels(
        [partial(_draw_family, family=family, styles=styles) for family in found],
        styles,
        "error of an entry, in ulp of the method's own dtype",
        "marker: median of the entries; tick: 99 of 100 are no further off; end of the line: the largest; "
        "dashed: no digit of a\nfloat64 is right; crossed out, at the lower edge: could not go on",
        columns=1 if len(styles) > CROWDED else 2,
    )


def _draw_family(axes: Axes, family: Family, styles: Styles) -> None:
    methods, settings = list(styles), list(family.members)
    axes.axhline(2.0**52, **REFERENCE)
    for i, setting in enumerate(settings):
        for row in family.members[setting]:
            if row["method"] in methods:
                at = i + 0.8 * ((methods.index(row["method"]) + 0.5) / len(methods) - 0.5)
                _draw_errors(axes, row, at, styles[row["method"]])
    name_knob(axes, family)
    axes.set(yscale="log", ylim=(LEAST_ULP / 50, MOST_ULP), xlim=(-0.5, len(settings) - 0.5))
    axes.set_xticks(range(len(settings)), settings, fontsize=8)
    axes.grid(False, axis="x")


def _draw_errors(axes: Axes, row: Row, at: float, style: dict[str, Any]) -> None:
    """A line from the median to the largest error; a mark at the lower edge where a method could not go on."""
    if row.get("error_ulp_median") is None:
        mark_stopped(axes, at, 0.05, style, 5.0, transform=axes.get_xaxis_transform())
        return
    errors = [row["error_ulp_median"], row.get("error_ulp_p99", row["error_ulp_max"]), row["error_ulp_max"]]
    median, p99, largest = (min(max(error, LEAST_ULP), MOST_ULP) for error in errors)
    axes.plot([at, at], [median, largest], color=style["color"], lw=1)
    axes.plot([at], [p99], color=style["color"], marker="_", ms=4, ls="none")
    axes.plot([at], [median], **style | {"ls": "none", "markersize": 3.2})


def figure_of_conditions(rows: list[Row], styles: Styles) -> Figure:
    """Relative error by condition number, beside what one rounding of everything that comes in would make of it."""
    known = [row for row in rows if row.get("condition") and row.get("error_relative")]
    with new_figure(4.4) as figure:
        axes = figure.subplots()
        for method, style in only(styles, known).items():
            points = [(row["condition"], row["error_relative"]) for row in known if row["method"] == method]
            axes.plot(*zip(*points, strict=True), label=method, **style | {"ls": "none", "markersize": 4})
        ends = [least(row["condition"] for row in known) for least in (min, max)] if known else []
        for dtype, dashes in (("float64", "-"), ("float32", "--")):
            if units := {unit_roundoff(row) for row in known if row.get("dtype", "float64") == dtype}:
                line = [units.copy().pop() * end for end in ends]
                axes.plot(ends, line, color="#555555", lw=1, ls=dashes, zorder=0, label=f"condition · u of {dtype}")
        axes.set(xscale="log", yscale="log", xlabel="condition number of the gradient")
        axes.set(ylabel="relative error against the certified gradient", title="Error by method and condition")
        legend_beside(axes)
        return figure


def figure_of_estimates(rows: list[Row], styles: Styles) -> Figure:
    """What is reported of the true error, by network and method: quantiles over the entries of a gradient."""
    networks, limits = list(dict.fromkeys(map(network_name, rows))), _ratio_limits(rows)
    lines = len(styles) + 1
    with new_figure(1.3 + 0.135 * lines * len(networks)) as figure:
        axes = figure.subplots()
        axes.axvspan(limits[0], 1, color="#f3f3f3", lw=0, zorder=0)
        axes.axvline(1, color="black", lw=1)
        for row in rows:
            at = lines * networks.index(network_name(row)) + list(styles).index(row["method"])
            _draw_ratios(axes, row, at, limits, styles[row["method"]])
        axes.set(xscale="log", xlim=limits, ylim=(lines * len(networks) - 1, -1))
        axes.set_xlabel("reported error ÷ true error of an entry (below 1: understated)")
        axes.set_yticks([lines * k + lines / 2 - 1 for k in range(len(networks))], networks)
        axes.grid(False, axis="y")
        legend_above(figure, styles)
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
        mark_stopped(axes, 1.015, at, style, transform=edge)
        axes.text(1.03, at, row["status"], transform=edge, va="center", fontsize=7)
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
