"""Break-even: after how many gradients deriving and compiling has paid off, from recorded rows."""

from __future__ import annotations

import math
from typing import Any

from difflab.study.columns import Column, lines_of, number
from difflab.study.forecasts import seconds_to_prepare
from difflab.study.names import network_name


Row = dict[str, Any]
NEVER = "never"
LEGEND = (
    "gradients: how many of a batch, from which on deriving, compiling and evaluating takes less time in all than the "
    "other method does with its own preparation [(s - s') / (t' - t), s being the seconds to prepare and t those of a "
    "gradient]; never: a gradient takes no less. Backprop takes turns with the expressions, its kernels being there; "
    "both are called with all checks of their arguments."
)


def gradients(prepare: float, each: float, other_prepare: float, other_each: float) -> float:
    """From how many on the first of two methods has taken less time in all; infinity if it never has."""
    if each < other_each:
        return max(0, math.ceil((prepare - other_prepare) / (other_each - each)))
    return math.inf


def found(rows: list[Row]) -> list[Row]:
    """A row for each network and way to derive its gradient that has been timed."""
    made = []
    for row in rows:
        if row["method"].startswith("Symbolic(") and row.get("gradient_seconds"):
            beside = {other["method"].split("(")[0]: other for other in rows if _is_same_task(row, other)}
            made.append(
                {
                    **row,
                    "over_backprop": _over(row, row.get("backprop_seconds"), beside.get("Backprop", {})),
                    "over_differences": _over(row, None, beside.get("FiniteDifference", {})),
                }
            )
    return made


def _is_same_task(row: Row, other: Row) -> bool:
    return (network_name(row), row["batch"]) == (network_name(other), other["batch"])


def _over(row: Row, seconds: float | None, other: Row) -> float | None:
    """``seconds`` of the other's gradient are those measured in turns, if it had such."""
    each = seconds or other.get("gradient_seconds")
    if each is None:
        return None
    own, others = seconds_to_prepare(row), seconds_to_prepare(other)
    return gradients(own or 0.0, row["gradient_seconds"], others or 0.0, each)


def _count(row: Row, name: str) -> str:
    return NEVER if row[name] == math.inf else number(row[name])


COLUMNS = (
    Column("network", lambda row: network_name(row)),
    Column("method", lambda row: row["method"]),
    Column("prepare s", lambda row: number(seconds_to_prepare(row))),
    Column("gradient s", lambda row: number(row["gradient_seconds"])),
    Column("gradients to beat backprop", lambda row: _count(row, "over_backprop")),
    Column("gradients to beat differences", lambda row: _count(row, "over_differences")),
)


def lines(rows: list[Row]) -> list[str]:
    """As lines of Markdown; none where nothing was derived and timed."""
    made = found(rows)
    return lines_of(COLUMNS, made) if made else []
