"""Recorded rows as figures, SVG for print and PNG for pages."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difflab.errors import MissingExtra
from difflab.files import write_atomically
from difflab.study.tables import made_of, network_name, term_words


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, Any]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Told apart by people who do not see all colours [Okabe, Ito 2008]."""
MARKERS = "osD^vP*"
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
FARTHEST = 1e-6, 1e9
"""Ratios of a reported error to the true one that have a place in a figure; those beyond are at its edge."""


def figures(measures: list[str], rows: list[Row]) -> dict[str, Figure]:
    """One figure per measure that has rows, by file name."""
    estimates = {"estimates": _figure_of_estimates(rows)} if "error_estimates" in measures else {}
    return _figures_of_sizes(measures, rows) | estimates


def _figures_of_sizes(measures: list[str], rows: list[Row]) -> dict[str, Figure]:
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
def _new_figure(height: float) -> Iterator[tuple[Figure, Axes]]:
    """An empty figure in the style of the lab."""
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("report", "matplotlib") from error
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, figure.subplots()


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
        method: {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "markersize": 5, "lw": 1.3}
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
