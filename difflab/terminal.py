"""What a person sees at the command line: progress on standard error, tables and documents on standard output."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import click


if TYPE_CHECKING:
    from rich.table import Table

    from difflab.study.declaration import Study
    from difflab.study.runner import Listener, Row
    from difflab.study.tables import Column

UNBOUNDED = 1000
"""Columns of an output that is no terminal: tables take the width they need."""


@contextmanager
def progress(study: str) -> Iterator[Listener]:
    """A bar with the time left on a terminal, else a line per finished cell."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    shown = (
        TextColumn(study), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(), TextColumn("{task.description}"),
    )  # fmt: skip
    with Progress(*shown, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None)

        def listen(label: str, done: int, total: int, row: Row | None) -> None:
            bar.update(task, completed=done, total=total, description=label if row is None else "")
            if row is not None:
                bar.console.print(_line(label, row), markup=False, highlight=False)

        yield listen


class _Lines:
    """A line on standard error for every finished cell."""

    def __init__(self) -> None:
        self.started = time.monotonic()

    def __call__(self, label: str, done: int, total: int, row: Row | None) -> None:
        if row is not None:
            seconds = time.monotonic() - self.started
            click.echo(f"[{done:>3}/{total}] {seconds:6.1f} s  {_line(label, row)}", err=True)


def _line(label: str, row: Row) -> str:
    from difflab.study.tables import number

    parts = [row["status"]]
    if row.get("reason"):
        parts.append(row["reason"])
    if row.get("error_relative") is not None:
        parts.append(f"relative error {number(row['error_relative'])}")
    if row.get("gradient_seconds") is not None:
        parts.append(f"{number(row['gradient_seconds'])} s a gradient")
    return f"{label}: {', '.join(parts)}"


def print_json(document: dict[str, Any]) -> None:
    click.echo(json.dumps(_finite(document), allow_nan=False, indent=1, ensure_ascii=False))


def _finite(value: Any) -> Any:
    """JSON has no infinities and no NaN: they become texts."""
    if isinstance(value, dict):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def print_table(study: Study, rows: list[Row]) -> None:
    """One table where it fits, else one per measure; a narrower terminal wraps lines, no figure is ever cut."""
    from rich.console import Console

    from difflab.study import tables

    def console(width: int | None) -> Console:
        return Console(width=width, markup=False, highlight=False)

    screen = console(None if sys.stdout.isatty() else UNBOUNDED)

    def natural_width(table: Table) -> int:
        return screen.measure(table, options=screen.options.update(max_width=UNBOUNDED)).maximum

    screen.print(f"\n{study.question}\n", style="bold")
    parts = [_table(tables.columns(study.measures, narrow=True), rows)]
    if natural_width(parts[0]) > screen.width:
        parts = [_table(tables.columns([measure], narrow=True), rows) for measure in study.measures]
    for part in parts:
        console(max(natural_width(part), screen.width)).print(part)
    for note in tables.notes(rows):
        screen.print(f"* {note}", soft_wrap=True)


def _table(shown: list[Column], rows: list[Row]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from difflab.study.tables import network_name

    made = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for column in shown:
        justify: Literal["left", "right"] = "left" if column.is_text else "right"
        made.add_column(column.title.replace(" ", "\n"), justify=justify, no_wrap=True)
    before = None
    for row in rows:
        if network_name(row) != before:
            before = network_name(row)
            made.add_section()
            made.add_row(f"{before}, {row['parameters']} params", style="bold")
        made.add_row(*(column.text(row) for column in shown))
    return made
