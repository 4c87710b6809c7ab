"""Times as figures: against those of Backprop, below the roofline, and over the sizes of networks."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from difflab.study import growth
from difflab.study.drawing import (
    Row,
    Styles,
    figure_of_panels,
    legend_beside,
    new_figure,
    only,
    styles_of,
)
from difflab.study.families import KNOBS
from difflab.study.names import network_name


if TYPE_CHECKING:
    from difflab.study.drawing import Axes, Figure


def figure_of_contest(rows: list[Row]) -> Figure:
    """Times of all methods by that of Backprop, network by network, a panel for each dtype and number of threads."""
    rows = [row | {"series": without_arithmetic(row)} for row in rows if row.get("ratio")]
    networks, styles = list(dict.fromkeys(map(network_name, rows))), styles_of(row["series"] for row in rows)
    settings = sorted({(row["threads"], row["dtype"]) for row in rows}, key=lambda s: (s[0], s[1] != "float64"))
    groups = [[row for row in rows if (row["threads"], row["dtype"]) == setting] for setting in settings]
    ratios = [1.0, *(row["ratio"] for row in rows)]
    limits = 0.8 * min(ratios), 1.25 * max(ratios)
    return figure_of_panels(
        [partial(_draw_contest, rows=mine, networks=networks, limits=limits, styles=styles) for mine in groups],
        styles,
        note="right of the line, Backprop is faster",
        height=0.6 + 0.2 * len(networks),
    )


def _draw_contest(
    axes: Axes, rows: list[Row], networks: list[str], limits: tuple[float, float], styles: Styles
) -> None:
    axes.axvline(1, color="black", lw=1, zorder=0)
    for row in rows:
        at, style = networks.index(network_name(row)), styles[row["series"]]
        axes.plot([row["ratio_low"], row["ratio_high"]], [at, at], color=style["color"], lw=1)
        axes.plot([row["ratio"]], [at], **style | {"ls": "none", "markersize": 4})
    axes.set(xscale="log", xlim=limits, xlabel="time of a gradient ÷ that of Backprop")
    axes.set_ylim(len(networks) - 0.5, -0.5)
    axes.set_yticks(range(len(networks)), networks, fontsize=7.5)
    ticks = [tick for tick in _round_numbers(*limits) if limits[0] <= tick <= limits[1]]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=7.5)
    axes.minorticks_off()
    dtype, threads = rows[0]["dtype"], rows[0]["threads"]
    axes.set_title(f"{dtype}, {threads} thread{'s' * (threads > 1)}", fontsize=9)


def _round_numbers(low: float, high: float) -> list[float]:
    """Powers of ten, and 2 and 5 times these where there is room for them."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if last - first <= 2 else (1,)
    return [step * 10.0**power for power in range(first, last + 1) for step in steps]


def without_arithmetic(row: Row) -> str:
    """The method without its dtype and threads."""
    left = row["method"].replace(f"'{row['dtype']}'", "").replace(f"threads={row['threads']}", "")
    return left.replace(", ,", ",").replace("(, ", "(")


def figure_of_roofline(rows: list[Row], styles: Styles) -> Figure:
    """Rates of arithmetic by operations per byte, below the roofs that BLAS and memory set."""
    rows = [row for row in rows if row.get("gemm_flops_per_second")]
    with new_figure(4.4) as figure:
        axes = figure.subplots()
        for method, style in only(styles, rows).items():
            mine = [row for row in rows if row["method"] == method]
            points = [
                (r["product_ops"] / r["traffic_bytes"], r["product_ops"] / r["roofline_gradient_seconds"]) for r in mine
            ]
            axes.plot(*zip(*points, strict=True), label=method, **style | {"ls": "none", "markersize": 4})
            _draw_roof(axes, mine, [point[0] for point in points], style["color"])
        axes.set(xscale="log", yscale="log", xlabel="multiplications and additions of products, per byte of memory")
        axes.set(ylabel="of these per second", title="Gradients below the roofline")
        legend_beside(axes)
        return figure


def _draw_roof(axes: Axes, rows: list[Row], intensities: list[float], colour: str) -> None:
    """Of the median rates of all rows of a method."""
    rate, bandwidth = (
        sorted(row[name] for row in rows)[len(rows) // 2]
        for name in ("gemm_flops_per_second", "bandwidth_bytes_per_second")
    )
    ends = sorted([min(intensities), rate / bandwidth, max(*intensities, rate / bandwidth)])
    axes.plot(ends, [min(rate, bandwidth * at) for at in ends], color=colour, lw=1, zorder=0)


def figure_of_growth(found: list[growth.Law], styles: Styles) -> Figure:
    """Seconds of a gradient over width, depth and batch, with the exponent of every line."""
    groups: dict[tuple[str, str], list[growth.Law]] = {}
    for law in found:
        groups.setdefault((law.knob, law.family), []).append(law)
    panels = [partial(_draw_growth, laws=laws, styles=styles) for laws in groups.values()]
    note = "exponent: p of the time c nᵖ, over all points and over the larger half of n"
    return figure_of_panels(panels, {}, "seconds per gradient", note, height=2.8, columns=1)


def _draw_growth(axes: Axes, laws: list[growth.Law], styles: Styles) -> None:
    for law in laws:
        label = f"{law.method}: {law.exponent:.2f}, upper half {law.upper:.2f}"
        axes.plot(*zip(*law.points, strict=True), label=label, **styles[law.method])
    settings = sorted({n for law in laws for n, _ in law.points})
    axes.set(xscale="log", yscale="log", xlabel=KNOBS[laws[0].knob])
    axes.set_xticks(settings, [f"{n:g}" for n in settings], fontsize=7.5)
    axes.minorticks_off()
    axes.set_title(laws[0].family, fontsize=8.5)
    legend_beside(axes, title="exponent", fontsize=7, title_fontsize=7)
