"""Laws of swell: by which power, or on which base, operations grow with depth or width, fitted to recorded rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from difflab.study.columns import Column, lines_of, number
from difflab.study.families import families
from difflab.study.growth import LEAST, by_method, slope


Row = dict[str, Any]
KNOBS = ("depth", "width")
COUNTED = {"gradient_tree_ops": "as a tree", "gradient_ops": "as computed"}
LEGEND = (
    "law: a polynomial of at most the third degree, by its first term, where one goes through all points and there are "
    "points to spare, exactly, without an interval; else c n**p or c b**n, whichever leaves least of the logarithms of "
    "operations unexplained, fitted by least squares, with the 95 % interval of p or b [Student's t, which supposes "
    "that what is left over is noise]; "
    "as a tree: the gradient written out; as computed: loss and gradient with what they share."
)


@dataclass(frozen=True)
class Swelling:
    """How operations of one method grow over networks that differ in one thing.

    Attributes
    ----------
    knob : ``"depth"`` or ``"width"``.
    family : what the networks have in common.
    counted : one of ``COUNTED``.
    points : settings of the knob and operations.
    form : of the law; braces are where its figure belongs.
    figure, low, high : what belongs there, with its interval, which is of no width where the law is exact.
    """

    knob: str
    family: str
    method: str
    counted: str
    points: tuple[tuple[float, float], ...]
    form: str
    figure: float
    low: float
    high: float

    @property
    def law(self) -> str:
        """In signs."""
        return self.form.format(number(self.figure))


def laws(rows: list[Row]) -> list[Swelling]:
    """The laws of all families that are large enough, by what is counted and by method."""
    found = []
    for name in COUNTED:
        for family in families([row for row in rows if row.get("own_loss_ops") and row.get(name)]):
            if family.knob in KNOBS:
                for method, points in by_method(family, name).items():
                    if len(points) >= LEAST:
                        fitted = law(points)
                        found.append(Swelling(family.knob, family.name, method, name, tuple(points), *fitted))
    return found


POWER, EXPONENTIAL, POLYNOMIAL = "n**{}", "{}**n", "… + {} n"
MOST_DEGREE = 3


def law(points: Sequence[tuple[float, float]]) -> tuple[str, float, float, float]:
    """The form of the law, and its exponent, base or first coefficient with the interval of that."""
    if exact := polynomial(points):
        degree, first = exact
        form = POLYNOMIAL + (f"**{degree}" if degree > 1 else "")
        return form, first, first, first
    n = np.array([setting for setting, _ in points])
    logarithms = np.array([math.log(operations) for _, operations in points])
    if _unexplained(n, logarithms) < _unexplained(np.log(n), logarithms):
        base, low, high = np.exp(slope(n, logarithms)).tolist()
        return EXPONENTIAL, base, low, high
    return POWER, *slope(np.log(n), logarithms)


def polynomial(points: Sequence[tuple[float, float]]) -> tuple[int, float] | None:
    """Degree and first coefficient of the polynomial on which all points lie, by divided differences, exactly.

    One whose degree leaves no point to spare is none: some polynomial goes through any points.
    """
    settings = [Fraction(setting) for setting, _ in points]
    column = [Fraction(operations) for _, operations in points]
    for degree in range(min(MOST_DEGREE, len(points) - 2) + 1):
        if len(set(column)) == 1:
            return (degree, float(column[0])) if degree else None
        ahead = degree + 1
        column = [(column[i + 1] - column[i]) / (settings[i + ahead] - settings[i]) for i in range(len(column) - 1)]
    return None


def _unexplained(x: np.ndarray, y: np.ndarray) -> float:
    """The sum of squares that a line leaves."""
    x, y = x - x.mean(), y - y.mean()
    return float(np.sum((y - slope(x, y)[0] * x) ** 2))


def _interval(low: float, high: float) -> str:
    return "exact" if low == high else f"{number(low)} … {number(high)}"


COLUMNS = (
    Column("over", lambda row: row["knob"]),
    Column("networks", lambda row: row["family"]),
    Column("method", lambda row: row["method"]),
    Column("operations", lambda row: COUNTED[row["counted"]]),
    Column("from", lambda row: number(row["points"][0][0])),
    Column("to", lambda row: number(row["points"][-1][0])),
    Column("law", lambda row: row["law"]),
    Column("interval", lambda row: _interval(row["low"], row["high"])),
)


def lines(found: list[Swelling]) -> list[str]:
    """Laws as lines of Markdown."""
    return lines_of(COLUMNS, [vars(one) | {"law": one.law} for one in found])
