"""Growth laws: by which power the time of a gradient grows with width, depth or batch, fitted to recorded rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from difflab.study.columns import Column, lines_of, number
from difflab.study.families import Family, families


Row = dict[str, Any]
KNOBS = ("width", "depth", "batch")
LEAST = 4
"""Settings that a law is fitted to at least."""
CONFIDENCE = 0.95
LEGEND = (
    "exponent: p of the time c nᵖ, by least squares in logarithms, with its 95 % interval [Student's t, which supposes "
    "that what is left over is noise]; upper half: the same over the larger half of n, where what does not grow counts "
    "less."
)


@dataclass(frozen=True)
class Law:
    """The time of one method over one family of networks.

    Attributes
    ----------
    knob : what the networks differ in.
    family : what they have in common.
    points : settings of the knob and seconds.
    exponent, low, high : of the power law over all points, with its interval.
    upper : exponent over the upper half of the points.
    """

    knob: str
    family: str
    method: str
    points: tuple[tuple[float, float], ...]
    exponent: float
    low: float
    high: float
    upper: float


def laws(rows: list[Row], name: str = "gradient_seconds") -> list[Law]:
    """The laws of all families that are large enough, by method; rows that waited for other programs have no part."""
    found = []
    for family in families([row for row in rows if row.get(name) and not row.get("contended")]):
        if family.knob in KNOBS:
            for method, points in by_method(family, name).items():
                if len(points) >= LEAST:
                    found.append(_law(family, method, points))
    return found


def by_method(family: Family, name: str) -> dict[str, list[tuple[float, float]]]:
    points: dict[str, list[tuple[float, float]]] = {}
    for setting, row in family.numbered:
        points.setdefault(row["method"], []).append((setting, row[name]))
    return points


def _law(family: Family, method: str, points: list[tuple[float, float]]) -> Law:
    upper = points[len(points) // 2 :]
    return Law(family.knob, family.name, method, tuple(points), *power_law(points), power_law(upper)[0])


def power_law(points: Sequence[tuple[float, float]], confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """The exponent of the power law through points, and its interval, which is without bounds for two points."""
    x, y = np.log(np.array(points)).T
    return slope(x, y, confidence)


def slope(x: np.ndarray, y: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """Of the line through points by least squares, with its interval."""
    from scipy.stats import t

    x, y = x - x.mean(), y - y.mean()
    found = float(x @ y / (x @ x))
    freedom = len(x) - 2
    if freedom < 1:
        return found, -np.inf, np.inf
    deviation = np.sqrt(np.sum((y - found * x) ** 2) / freedom / (x @ x))
    half = float(t.ppf((1 + confidence) / 2, freedom) * deviation)
    return found, found - half, found + half


COLUMNS = (
    Column("over", lambda row: row["knob"]),
    Column("networks", lambda row: row["family"]),
    Column("method", lambda row: row["method"]),
    Column("from", lambda row: number(row["points"][0][0])),
    Column("to", lambda row: number(row["points"][-1][0])),
    Column("exponent", lambda row: number(row["exponent"])),
    Column("interval", lambda row: f"{number(row['low'])} … {number(row['high'])}"),
    Column("upper half", lambda row: number(row["upper"])),
)


def lines(found: list[Law]) -> list[str]:
    """Laws as lines of Markdown."""
    return lines_of(COLUMNS, [vars(law) for law in found])
