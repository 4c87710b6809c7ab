"""Columns of tables: a title, and the text of a figure of a row."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any


Row = dict[str, Any]
MISSING = "—"
TEXTS = (
    "network",
    "method",
    "status",
    "worst entry",
    "agrees with",
    "entry",
    "dtype",
    "fastest other",
    "claim",
    "over",
    "networks",
)
"""Titles of columns that hold words."""


@dataclass(frozen=True)
class Column:
    """One column of a table: its title, its text from a row, and the measures it belongs to, none for all."""

    title: str
    text: Callable[[Row], str]
    measures: tuple[str, ...] = ()
    narrow: bool = True
    """Whether it has a place in a terminal."""

    @property
    def is_text(self) -> bool:
        return self.title in TEXTS


def figure(name: str, digits: int = 2) -> Callable[[Row], str]:
    return lambda row: number(row.get(name), digits)


def number(value: Any, digits: int = 2) -> str:
    """Short text of a figure: plain between 0.01 and 9999, else scientific."""
    if value is None:
        return MISSING
    if isinstance(value, int):
        return str(value) if value < 100_000 else _scientific(Decimal(value), digits)
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if 999.5 <= abs(value) < 9999.5:
        return f"{value:.0f}"
    if 0.01 <= abs(value) < 999.5:
        return f"{value:.{digits + 1}g}"
    return _scientific(value, digits)


def _scientific(value: float | Decimal, digits: int) -> str:
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def ratio(over: str, under: str) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        if row.get(over) is None or not row.get(under):
            return MISSING
        return number(_quotient(row[over], row[under]))

    return text


def _quotient(over: float, under: float) -> float:
    """Whole where it is beyond all floats."""
    try:
        return over / under
    except OverflowError:
        return int(over) // int(under)


def percent(part: str, whole: str) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        if row.get(part) is None or not row.get(whole):
            return MISSING
        return number(100 * row[part] / row[whole])

    return text


def inverse(name: str) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        if row.get(name) is None:
            return MISSING
        return number(1 / row[name] if row[name] else math.inf)

    return text


def count(name: str) -> Callable[[Row], str]:
    """To the last digit."""
    return lambda row: MISSING if row.get(name) is None else str(row[name])


def kilo(name: str) -> Callable[[Row], str]:
    return lambda row: MISSING if row.get(name) is None else number(row[name] / 1e3)


def mega(name: str) -> Callable[[Row], str]:
    return lambda row: MISSING if row.get(name) is None else number(row[name] / 1e6)


def giga(name: str) -> Callable[[Row], str]:
    return lambda row: MISSING if row.get(name) is None else number(row[name] / 1e9)


def hundredfold(name: str) -> Callable[[Row], str]:
    return lambda row: MISSING if row.get(name) is None else number(100 * row[name])


def words(name: str) -> Callable[[Row], str]:
    return lambda row: str(row.get(name) or MISSING)


def lines_of(shown: Sequence[Column], rows: list[Row]) -> list[str]:
    """Rows in columns, as lines of Markdown."""
    lines = [[column.title for column in shown], ["---" if column.is_text else "---:" for column in shown]]
    return [_pipes(line) for line in (*lines, *([column.text(row) for column in shown] for row in rows))]


def _pipes(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
