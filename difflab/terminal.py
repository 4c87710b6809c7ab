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
    from rich.console import Console
    from rich.table import Table

    from difflab.network import MLP
    from difflab.program import Program
    from difflab.study.columns import Column
    from difflab.study.declaration import Study
    from difflab.study.runner import Listener, Row
    from difflab.summary import LayerRow

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
    from difflab.study.columns import number

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
    from difflab.study import tables

    screen = _screen()
    screen.print(f"\n{study.question}\n", style="bold")
    parts = [_table(tables.columns(study.measures, narrow=True), rows)]
    if _natural_width(parts[0], screen) > screen.width:
        parts = [_table(tables.columns([measure], narrow=True), rows) for measure in study.measures]
    for part in parts:
        _print_whole(part, screen)
    for note in tables.notes(rows):
        screen.print(f"* {note}", soft_wrap=True)


def _console(width: int | None) -> Console:
    from rich.console import Console

    return Console(width=width, markup=False, highlight=False)


def _screen() -> Console:
    return _console(None if sys.stdout.isatty() else UNBOUNDED)


def _natural_width(table: Table, screen: Console) -> int:
    return screen.measure(table, options=screen.options.update(max_width=UNBOUNDED)).maximum


def _print_whole(table: Table, screen: Console) -> None:
    """A terminal that is too narrow wraps lines."""
    _console(max(_natural_width(table, screen), screen.width)).print(table)


def print_network(net: MLP, terms: dict[str, Any]) -> None:
    """Layers with their parameters and operations, loss and penalties, and the program."""
    from difflab import summary

    screen, layers = _screen(), summary.layer_rows(net)
    totals = summary.totals(net, layers)
    screen.print(f"\n{net}\n", style="bold", soft_wrap=True)
    _print_whole(_layer_table(layers, totals), screen)
    screen.print(
        "\nmultiply-adds: multiplications and additions for one sample, 2MN for W a + b with M units and N inputs, "
        "2MN - M without b\n",
        soft_wrap=True,
    )
    for name, value in {"inputs": net.n_inputs, "outputs": net.n_outputs, **terms}.items():
        screen.print(f"{name:<16} {summary.number(value)}", soft_wrap=True)
    screen.print()
    _print_whole(_program_table(net.program), screen)
    screen.print(
        f"\noperations of one sample: {totals['loss_ops']} for the loss, {totals['gradient_ops']} for loss and gradient"
        " by one reverse sweep\n",
        soft_wrap=True,
    )


def print_forecasts(found: dict[str, dict[str, float]]) -> None:
    """What deriving the gradient as an expression would take, by where subexpressions are shared."""
    from difflab.study.columns import number

    if not found:
        return
    screen = _screen()
    table = _plain_table({"to derive and compile": "left", "operations": "right", "seconds": "right", "MB": "right"})
    for method, columns in found.items():
        size = columns.get("forecast_ops", columns.get("forecast_tree_ops"))
        table.add_row(method, number(size), _range(columns, "seconds", 1.0), _range(columns, "extra_bytes", 1e6))
    _print_whole(table, screen)
    screen.print(
        "\nforecast from the network alone: operations of the gradient, as a tree where nothing is shared from the "
        "start, and what is to hold 19 of 20 networks on a machine like that of results/expression_swell\n",
        soft_wrap=True,
    )


def _range(columns: dict[str, float], figure: str, unit: float) -> str:
    from difflab.derivation.forecasting import columns_of
    from difflab.study.columns import number

    _, low, high = (columns.get(name) for name in columns_of(figure))
    return "—" if low is None or high is None else f"{number(low / unit)} to {number(high / unit)}"


def _layer_table(layers: list[LayerRow], totals: dict[str, int]) -> Table:
    table = _plain_table({"layer": "left", "kind": "left", "what": "left", "width": "right"})
    shown = {"parameters": "parameters", "shared": "shared", "multiply_adds": "multiply-adds"}
    if not any(row.shared for row in layers):
        del shown["shared"]
    for title in shown.values():
        table.add_column(title, justify="right", no_wrap=True)
    for row in layers:
        figures = (getattr(row, name) for name in shown)
        table.add_row("  " * row.depth + row.name, row.kind, row.what, str(row.width), *(f"{n or ''}" for n in figures))
    table.add_section()
    table.add_row("total", "", "", "", *(str(totals.get(name, "")) for name in shown))
    return table


def _program_table(program: Program) -> Table:
    from difflab import summary

    texts = summary.parameter_texts(program)
    table = _plain_table(
        {
            "value": "left",
            "operation": "left",
            "function": "left",
            "reads": "left",
            "parameters": "left",
            "width": "right",
        }
    )
    for row in summary.step_rows(program):
        parameters = ", ".join(texts[name] for name in row.parameters)
        reads = ", ".join(row.reads)
        table.add_row(row.value, row.operation, summary.function_text(row), reads, parameters, str(row.width))
    return table


def _plain_table(columns: dict[str, Literal["left", "right"]]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for title, justify in columns.items():
        made.add_column(title, justify=justify, no_wrap=True)
    return made


def _table(shown: list[Column], rows: list[Row]) -> Table:
    from difflab.study.names import network_name

    made = _plain_table({column.title.replace(" ", "\n"): "left" if column.is_text else "right" for column in shown})
    before = None
    for row in rows:
        if network_name(row) != before:
            before = network_name(row)
            made.add_section()
            made.add_row(f"{before}, {row['parameters']} params", style="bold")
        made.add_row(*(column.text(row) for column in shown))
    return made
