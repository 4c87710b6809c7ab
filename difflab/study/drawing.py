"""What all figures have in common: their style, the look of every method, panels, and how they are written."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from difflab.errors import MissingExtra
from difflab.files import write_atomically
from difflab.study.families import KNOBS, Family


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, Any]
Styles = dict[str, dict[str, Any]]
"""What the lines of every method look like."""
Panel = Callable[["Axes"], None]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#882255")
"""Told apart by people who do not see all colours [Okabe, Ito 2008; the last one: Tol 2021]."""
MARKERS = "osD^vP*X"
LAPS: tuple[dict[str, Any], ...] = (
    {"ls": "-"},
    {"ls": "--", "fillstyle": "none"},
    {"ls": "-.", "fillstyle": "top", "markerfacecoloralt": "white"},
)
"""What tells methods of one colour apart, beside their markers."""
SIZES, WIDTHS = (6.0, 3.5), (1.9, 0.9)
"""Markers and lines of the first method, which lie below all others, and of the last: none hides another."""
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
LEVEL = 0.055
"""Between marks of what stopped, as a share of the height of a panel."""
REFERENCE: dict[str, Any] = {"color": "#888888", "lw": 0.8, "ls": "--", "zorder": 0}
"""Lines that figures are held against."""


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
def new_figure(height: float) -> Iterator[Figure]:
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
        yield figure


def figure_of_panels(
    panels: Sequence[Panel], styles: Styles, ylabel: str = "", note: str = "", height: float = 2.5, columns: int = 2,
    sharey: Literal["all", "row", "none"] = "all",
) -> Figure:  # fmt: skip
    """Panels in lines of this height, on one scale or more of them; methods above, and a note below."""
    lines = max(1, -(-len(panels) // columns))
    with new_figure(1.0 + height * lines) as figure:
        grid = figure.subplots(lines, columns, sharey=sharey, squeeze=False)
        for axes, panel in itertools.zip_longest(grid.ravel(), panels):
            panel(axes) if panel else axes.set_axis_off()
        legend_above(figure, styles)
        figure.supylabel(ylabel, fontsize=9)
        figure.supxlabel(note, fontsize=7.5)
        return figure


def legend_above(figure: Figure, styles: Styles) -> None:
    """The methods, once for all axes."""
    handles = [figure.axes[0].plot([], [], **style)[0] for style in styles.values()]
    if handles:
        figure.legend(handles, list(styles), loc="outside upper center", ncols=3, fontsize=8)


def legend_beside(axes: Axes, **look: Any) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), **{"fontsize": 8} | look)


def mark_stopped(axes: Axes, x: float, y: float, style: dict[str, Any], size: float = 6.5, **where: Any) -> None:
    """The mark of a method, hollow and crossed out, where it could not go on."""
    look = {"color": style["color"], "ls": "none", "clip_on": False, **where}
    axes.plot([x], [y], marker=style["marker"], ms=size, mew=0.8, markerfacecolor="white", **look)
    axes.plot([x], [y], marker="x", ms=size / 2, mew=0.8, **look)


def name_knob(axes: Axes, family: Family) -> None:
    """What the networks of a panel have in common, and what they differ in."""
    axes.set(xlabel=KNOBS[family.knob])
    axes.set_title(family.name, fontsize=8.5)


def over_numbers(axes: Axes, family: Family) -> None:
    """An axis of a knob whose settings are numbers: widths, which are doubled, are as far apart as depths."""
    name_knob(axes, family)
    axes.set(xscale="log" if family.knob == "width" else "linear")
    axes.set_xticks([float(setting) for setting in family.members], list(family.members), fontsize=8)
    axes.minorticks_off()


def log_limits(values: Iterable[float], room: float = 0.0) -> tuple[float, float]:
    """A little below and above what there is to see, with room above as a share of the whole."""
    seen = list(values)
    low, high = min(seen) / 1.5, max(seen) * 1.5
    return low, high * (high / low) ** (room / (1 - room))


def styles_of(names: Iterable[str]) -> Styles:
    """Colour, marker, line and size of each method, for every figure of one study."""
    methods = list(dict.fromkeys(names))
    return {method: _style(i, i / max(1, len(methods) - 1)) for i, method in enumerate(methods)}


def _style(i: int, share: float) -> dict[str, Any]:
    """No two have the colour and the marker in common."""
    lap = i // len(COLOURS)
    size, width = (first + share * (last - first) for first, last in (SIZES, WIDTHS))
    look = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[(i + 3 * lap) % len(MARKERS)]}
    return look | LAPS[lap % len(LAPS)] | {"markersize": size, "lw": width}


def only(styles: Styles, rows: list[Row]) -> Styles:
    """Those of the methods that some rows are of."""
    methods = {row["method"] for row in rows}
    return {method: style for method, style in styles.items() if method in methods}
