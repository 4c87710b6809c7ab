"""Recorded rows as CSV, and back."""

from __future__ import annotations

from typing import Any

import pandas as pd


Row = dict[str, Any]


def csv(rows: list[Row]) -> str:
    """Every recorded figure, exactly; a text that a spreadsheet would run is quoted."""
    frame = pd.DataFrame([{name: _inert(value) for name, value in row.items()} for row in rows])
    return frame.to_csv(index=False, lineterminator="\n")


def _inert(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def from_csv(path: Any) -> list[Row]:
    """Rows that :func:`csv` wrote; what is missing there is missing here."""
    frame = pd.read_csv(path, dtype={"network": str, "layers": str})
    if not {"network", "parameters", "method", "status"} <= set(frame.columns):
        raise ValueError(f"{path} must hold recorded rows, got columns {list(frame.columns)[:5]}")
    rows = []
    for record in frame.to_dict("records"):
        present = {
            str(name): value for name, value in record.items() if not (isinstance(value, float) and value != value)
        }
        rows.append({name: _whole(name, value) for name, value in present.items()})
    return rows


COUNTS = ("parameters", "batch", "own_batch", "seed", "threads", "rounds")


def _whole(name: str, value: Any) -> Any:
    """Counts that shared a column with gaps come back as floats."""
    counts = name.endswith(("_ops", "_calls", "_bytes", "_bits", "_entries")) or name in COUNTS
    return int(value) if counts and isinstance(value, float | str) else value
