"""Laws of swell: by which power, or on which base, operations grow with depth or width, fitted to recorded rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from difflab.study.columns import Column, lines_of, number
from difflab.study.families import families
from difflab.study.growth import LEAST, by_method, slope


Row = dict[str, Any]
KNOBS = ("depth", "width")
COUNTED = {"gradient_tree_ops": "as a tree", "gradient_ops": "as computed"}
LEGEND = (
    "law: c n**p, c b**n or a + d n, whichever leaves least of the logarithms of operations unexplained, fitted by "
    "least squares, with the 95 % interval of p, b or d [Student's t, which supposes that what is left over is noise]; "
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
    form : ``"n**{}"``, ``"{}**n"`` or ``"a + {} n"``.
    figure, low, high : what belongs there, with its interval.
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


POWER, EXPONENTIAL, LINE = "n**{}", "{}**n", "a + {} n"
NOTHING_LEFT = 1e-20
"""Of squares of logarithms: what roundings leave of a law that holds exactly."""


def law(points: Sequence[tuple[float, float]]) -> tuple[str, float, float, float]:
    """The form of the law, and its exponent, base or slope with the interval of that."""
    n = np.array([setting for setting, _ in points])
    logarithms = np.array([math.log(operations) for _, operations in points])
    left = {POWER: _unexplained(np.log(n), logarithms), EXPONENTIAL: _unexplained(n, logarithms)}
    if min(left.values()) > NOTHING_LEFT:
        left[LINE] = _unexplained_by_a_line(n, logarithms)
    form = min(left, key=lambda form: left[form])
    if form == EXPONENTIAL:
        base, low, high = np.exp(slope(n, logarithms)).tolist()
        return form, base, low, high
    return form, *(slope(n, np.exp(logarithms)) if form == LINE else slope(np.log(n), logarithms))


def _unexplained(x: np.ndarray, y: np.ndarray) -> float:
    """The sum of squares that a line leaves."""
    x, y = x - x.mean(), y - y.mean()
    return float(np.sum((y - slope(x, y)[0] * x) ** 2))


def _unexplained_by_a_line(n: np.ndarray, logarithms: np.ndarray) -> float:
    """What a line through the operations themselves leaves of their logarithms."""
    if logarithms.max() > math.log(1e300):
        return math.inf
    operations = np.exp(logarithms)
    line = operations.mean() + slope(n, operations)[0] * (n - n.mean())
    return float(np.sum((logarithms - np.log(line)) ** 2)) if (line > 0).all() else math.inf


COLUMNS = (
    Column("over", lambda row: row["knob"]),
    Column("networks", lambda row: row["family"]),
    Column("method", lambda row: row["method"]),
    Column("operations", lambda row: COUNTED[row["counted"]]),
    Column("from", lambda row: number(row["points"][0][0])),
    Column("to", lambda row: number(row["points"][-1][0])),
    Column("law", lambda row: row["law"]),
    Column("interval", lambda row: f"{number(row['low'])} … {number(row['high'])}"),
)


def lines(found: list[Swelling]) -> list[str]:
    """Laws as lines of Markdown."""
    return lines_of(COLUMNS, [vars(one) | {"law": one.law} for one in found])
