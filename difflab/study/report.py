"""What a study leaves behind: tables, figures and provenance, written from rows alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from difflab.files import write_atomically
from difflab.study import break_even, csv_rows, forecasts, growth, plots, runner, swelling, tables
from difflab.study.declaration import Study
from difflab.study.drawing import write


Row = dict[str, Any]


def recorded_rows(study: Study, directory: Path) -> list[Row]:
    """Rows from the store of finished cells, or from ``rows.csv`` where there is no store."""
    if (directory / "store.sqlite").exists():
        return runner.finished_rows(study, directory)
    path = directory / "rows.csv"
    return csv_rows.from_csv(path) if path.exists() else []


def recorded_environments(study: Study, directory: Path) -> list[dict[str, Any]]:
    """Where the recorded rows were measured, from the same place as the rows."""
    if (directory / "store.sqlite").exists():
        return runner.environments(study, directory)
    return json.loads((directory / "provenance.json").read_text())


def machine(records: list[dict[str, Any]]) -> str:
    """One sentence on where figures were measured, per machine and commit; what else differs is in provenance.json."""
    found: dict[str, set[str]] = {}
    for record in records:
        found.setdefault(_machine(record), set()).add(record["threads"].get("OMP_NUM_THREADS") or "any number of")
    return " ".join(sentence.format(threads=_in_words(threads)) for sentence, threads in found.items())


def _in_words(threads: set[str]) -> str:
    return "one thread" if threads == {"1"} else f"{' or '.join(sorted(threads))} threads"


def _machine(record: dict[str, Any]) -> str:
    """With a place for the number of threads."""
    packages = record["packages"]
    versions = ", ".join(f"{name} {packages[name]}" for name in ("numpy", "numba", "sympy", "python-flint"))
    return (
        f"Measured on {record['processor']}, {record['logical_cores']} cores, "
        f"{record['memory_bytes'] / 2**30:.0f} GiB, {record['python']}, {versions}, {{threads}}, "
        f"at commit {record['commit']}."
    )


def write_tables(study: Study, directory: Path, rows: list[Row]) -> list[Path]:
    """Write table.md, table.tex, rows.csv and provenance.json of the rows of a run, and the laws that they have."""
    records = runner.environments(study, directory)
    contents = {
        "table.md": tables.markdown(study.question, list(study.measures), rows, machine(records)),
        "table.tex": tables.latex(list(study.measures), rows),
        "rows.csv": csv_rows.csv(rows),
        "provenance.json": json.dumps(records, indent=1, sort_keys=True) + "\n",
    }
    for name, lines, legend in _pages(list(study.measures), rows):
        if lines:
            contents[name] = "\n".join([*lines, "", legend, "", machine(records), ""])
    for name, content in contents.items():
        write_atomically(directory / name, content.encode())
    return [directory / name for name in contents]


def _pages(measures: list[str], rows: list[Row]) -> Iterator[tuple[str, list[str], str]]:
    """Further pages, by file name, with their lines, none where rows say nothing of the kind, and legends."""
    yield "growth.md", growth.lines(laws) if (laws := growth.laws(rows)) else [], growth.LEGEND
    yield "swelling.md", swelling.lines(swell) if (swell := swelling.laws(rows)) else [], swelling.LEGEND
    if "derivation" in measures:
        yield "break_even.md", break_even.lines(rows), break_even.LEGEND
    if "forecast" in measures:
        yield "forecast.md", forecasts.lines(rows), forecasts.LEGEND


def write_figures(study: Study, directory: Path) -> list[Path]:
    """Write the figures of recorded rows.

    Raises
    ------
    MissingExtra
        If matplotlib is not installed.
    """
    rows = recorded_rows(study, directory)
    return write(plots.figures(list(study.measures), rows), directory)
