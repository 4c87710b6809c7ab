"""Forecasts against what happened: their laws fitted to recorded rows, and how often they were kept."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from difflab.derivation.forecasting import FIGURES, Cost, CostLaw, columns_of, forecast
from difflab.study.columns import Column, lines_of, number
from difflab.study.growth import slope
from difflab.study.names import network_name


Row = dict[str, Any]
LEAST = 4
"""Cases that a law is fitted to."""

LEAST_BYTES = 2_000_000
"""What a process holds beyond its libraries before anything is derived comes and goes by as much."""

CONFIDENCE = 0.95
LEGEND = (
    "forecast: from the network alone, by laws fitted to results/expression_swell, with the interval that is to hold "
    "19 of 20 cases; took: to derive, share, print and compile, and beyond the memory of loaded libraries; kept: what "
    "it took lies in the interval or, of cells that met their limit of time, the interval reaches beyond that."
)


def fitted(rows: list[Row]) -> dict[str, Cost]:
    """Laws of every back-end of symbolic derivatives that has enough rows, by its label."""
    labels = dict.fromkeys(row["method"] for row in rows if row["method"].startswith("Symbolic("))
    found = {}
    for label in labels:
        mine = [row for row in rows if row["method"] == label]
        seconds, extra = (_law(mine, figure) for figure in FIGURES)
        if seconds is not None:
            found[label] = Cost(seconds, extra)
    return found


def with_forecast(row: Row) -> Row:
    """With the columns of a forecast, where laws were fitted only after it had been recorded."""
    if row.get("forecast_seconds") is not None or not (row.get("forecast_ops") or row.get("forecast_tree_ops")):
        return row
    return row | forecast(row["method"], size(row))


def size(row: Row) -> int:
    """What a forecast goes by."""
    return int(row["forecast_ops"] if row.get("forecast_ops") else row["forecast_tree_ops"])


def seconds_to_prepare(row: Row) -> float | None:
    """Without counting operations, which is for the study alone; some libraries compile only at the first call."""
    if row.get("prepare_seconds") is None:
        return None
    parts = [row.get(f"{stage}_seconds") or 0.0 for stage in ("derive", "compile")]
    apart = sum(parts) if all(parts) else 0.0
    return float(max(row["prepare_seconds"] - row.get("count_seconds", 0.0), apart))


def took(row: Row, figure: str) -> float | None:
    """What deriving and compiling took, if it did and that is more than nothing."""
    if figure == "seconds":
        return seconds_to_prepare(row)
    if not row.get("peak_bytes") or row["peak_bytes"] - row["loaded_bytes"] < LEAST_BYTES:
        return None
    return float(row["peak_bytes"] - row["loaded_bytes"])


def _law(rows: list[Row], figure: str) -> CostLaw | None:
    """By largest likelihood in logarithms; None of too few cases.

    Cells that met their limit of time took at least that: left out, they would make the law one of survivors
    [Tobin 1958]. Count, centre and scatter, by which the interval widens, are those of the cells that ended.
    """
    from scipy.stats import t

    stopped = [row for row in rows if row["status"] == "timeout"]
    ended = [(size(row), took(row, figure)) for row in rows if row not in stopped and took(row, figure) is not None]
    if len(ended) < LEAST:
        return None
    cut = [(size(row), row["limit_seconds"]) for row in stopped if figure == "seconds"]
    points, beyond = (np.log(np.array(cases, float)).reshape(-1, 2) for cases in (ended, cut))
    x = points[:, 0]
    offset, exponent, deviation = _censored_line(points, beyond)
    return CostLaw(
        factor=math.exp(offset),
        exponent=exponent,
        quantile=float(t.ppf((1 + CONFIDENCE) / 2, len(x) - 2)) * deviation * math.sqrt(len(x) / (len(x) - 2)),
        count=len(x),
        centre=float(x.mean()),
        scatter=float(np.sum((x - x.mean()) ** 2)),
    )


def _censored_line(points: np.ndarray, beyond: np.ndarray) -> tuple[float, float, float]:
    """Offset, slope and deviation of a line through points, (n, 2), with others that are known to lie higher."""
    from scipy.optimize import minimize
    from scipy.stats import norm

    x, y = points.T
    exponent = slope(x, y)[0]
    offset = float(y.mean() - exponent * x.mean())
    deviation = float(np.sqrt(np.mean((y - offset - exponent * x) ** 2)))
    if not len(beyond) or not deviation:
        return offset, exponent, deviation

    def surprise(line: np.ndarray) -> float:
        of_points, of_others = ((a[:, 1] - line[0] - line[1] * a[:, 0]) / np.exp(line[2]) for a in (points, beyond))
        return float(-norm.logpdf(of_points).sum() + len(x) * line[2] - norm.logsf(of_others).sum())

    found = minimize(surprise, (offset, exponent, math.log(deviation)), method="Nelder-Mead", options=SEARCH).x
    return float(found[0]), float(found[1]), math.exp(found[2])


SEARCH = {"xatol": 1e-6, "fatol": 1e-9, "maxiter": 10_000}


def kept(row: Row, figure: str) -> bool | None:
    """Whether a forecast held; None where there was none, or nothing to hold it against."""
    value, low, high = (row.get(name) for name in columns_of(figure))
    if value is None or low is None or high is None:
        return None
    if row["status"] == "timeout" and figure == "seconds":
        return bool(high >= row["limit_seconds"])
    found = took(row, figure)
    return None if found is None else bool(low <= found <= high)


def _interval(row: Row, figure: str, scale: float = 1.0) -> str:
    value, low, high = (row.get(name) for name in columns_of(figure))
    if value is None or low is None or high is None:
        return "—"
    return f"{number(value / scale)} ({number(low / scale)} … {number(high / scale)})"


def _took(row: Row, figure: str, scale: float = 1.0) -> str:
    if row["status"] == "timeout" and figure == "seconds":
        return f"more than {number(row['limit_seconds'])}"
    found = took(row, figure)
    return number(found if found is None else found / scale)


def _kept(row: Row) -> str:
    answers = [kept(row, figure) for figure in FIGURES]
    return ", ".join("—" if answer is None else ("yes" if answer else "no") for answer in answers)


COLUMNS = (
    Column("network", lambda row: network_name(row)),
    Column("method", lambda row: row["method"]),
    Column("status", lambda row: row["status"]),
    Column("forecast s", lambda row: _interval(row, "seconds")),
    Column("took s", lambda row: _took(row, "seconds")),
    Column("forecast MB", lambda row: _interval(row, "extra_bytes", 1e6)),
    Column("took MB", lambda row: _took(row, "extra_bytes", 1e6)),
    Column("kept", _kept),
)


def share_kept(rows: list[Row], figure: str) -> tuple[int, int]:
    """How many forecasts held, and of how many."""
    answers = [answer for row in rows if (answer := kept(row, figure)) is not None]
    return sum(answers), len(answers)


def lines(rows: list[Row]) -> list[str]:
    """Forecasts as lines of Markdown, and how many held; none where nothing was forecast."""
    ahead = [row for row in map(with_forecast, rows) if row.get("forecast_seconds") is not None]
    if not ahead:
        return []
    (seconds, of_seconds), (held, of_held) = (share_kept(ahead, figure) for figure in FIGURES)
    said = f"Kept: {seconds} of {of_seconds} forecasts of time, {held} of {of_held} of memory."
    return [*lines_of(COLUMNS, ahead), "", said]
