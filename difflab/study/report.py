"""What a study leaves behind: tables, figures and provenance, written from rows alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from difflab.files import write_atomically
from difflab.study import plots, runner, tables
from difflab.study.declaration import Study


Row = dict[str, Any]


def recorded_rows(study: Study, directory: Path) -> list[Row]:
    """Rows from the store of finished cells, or from ``rows.csv`` where there is no store."""
    if (directory / "store.sqlite").exists():
        return runner.finished_rows(study, directory)
    path = directory / "rows.csv"
    return tables.from_csv(path) if path.exists() else []


def recorded_environments(study: Study, directory: Path) -> list[dict[str, Any]]:
    """Where the recorded rows were measured, from the same place as the rows."""
    if (directory / "store.sqlite").exists():
        return runner.environments(study, directory)
    return json.loads((directory / "provenance.json").read_text())


def machine(records: list[dict[str, Any]]) -> str:
    """One sentence on where figures were measured."""
    return " ".join(_machine(record) for record in _distinct(records))


def _distinct(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One record per machine and commit; what else differs stays in provenance.json."""
    return list({_machine(record): record for record in records}.values())


def _machine(record: dict[str, Any]) -> str:
    packages = record["packages"]
    versions = ", ".join(f"{name} {packages[name]}" for name in ("numpy", "numba", "sympy", "python-flint"))
    return (
        f"Measured on {record['processor']}, {record['logical_cores']} cores, "
        f"{record['memory_bytes'] / 2**30:.0f} GiB, {record['python']}, {versions}, one thread, "
        f"at commit {record['commit']}."
    )


def write_tables(study: Study, directory: Path, rows: list[Row]) -> list[Path]:
    """Write table.md, table.tex, rows.csv and provenance.json of the rows of a run."""
    records = runner.environments(study, directory)
    contents = {
        "table.md": tables.markdown(study.question, list(study.measures), rows, machine(records)),
        "table.tex": tables.latex(list(study.measures), rows),
        "rows.csv": tables.csv(rows),
        "provenance.json": json.dumps(records, indent=1, sort_keys=True) + "\n",
    }
    for name, content in contents.items():
        write_atomically(directory / name, content.encode())
    return [directory / name for name in contents]


def write_figures(study: Study, directory: Path) -> list[Path]:
    """Write the figures of recorded rows.

    Raises
    ------
    MissingExtra
        If matplotlib is not installed.
    """
    rows = recorded_rows(study, directory)
    return plots.write(plots.figures(list(study.measures), rows), directory)
