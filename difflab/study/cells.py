"""The grid of a study: one cell is one network by one back-end, and the problem both work on."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from difflab import datasets
from difflab.network import MLP
from difflab.primitives.losses import LOSSES
from difflab.study.declaration import PlacedNetwork, Study, build_backend


PRESENTATION = (
    "__main__.py",
    "cli.py",
    "terminal.py",
    "tables.py",
    "columns.py",
    "names.py",
    "csv_rows.py",
    "families.py",
    "growth.py",
    "swelling.py",
    "break_even.py",
    "forecasts.py",
    "plots.py",
    "drawing.py",
    "error_plots.py",
    "forecast_plots.py",
    "speed_plots.py",
    "swelling_plots.py",
    "report.py",
    "diagram.py",
    "summary.py",
)
"""Files whose edits leave recorded rows as true as they were."""


OF_TIME = {"speed", "roofline", "contest"}
"""Measures of time, which need a gradient to be right and not how right it is."""
MOST_CERTIFIED = 10**8
"""Parameters times samples that are certified where only time is asked for: within half a minute."""
FEW_SAMPLES = 8


class Task(msgspec.Struct, frozen=True):
    """A network with parameters, samples and targets, drawn from a seed."""

    network: PlacedNetwork
    batch: int
    seed: int


class Cell(msgspec.Struct, frozen=True):
    """One row to be: a task, a back-end, the measures, and the limits it runs under."""

    task: Task
    backend: dict[str, Any]
    measures: list[str]
    limit_seconds: float
    limit_bytes: int


def cells(study: Study) -> list[Cell]:
    """Every network by every back-end, in the order of the file."""
    return [
        Cell(Task(network, network.batch or study.batch, study.seed), resolved(backend), *_settings(study))
        for network, backend in itertools.product(study.networks, study.backends)
    ]


def certified_task(cell: Cell) -> Task:
    """The task whose gradient is certified: the cell's own, or one of a few samples where only time is asked for.

    All numbers of it are among those of the cell's own task.
    """
    entries = cell.task.network.build().n_params * cell.task.batch
    if set(cell.measures) <= OF_TIME and entries > MOST_CERTIFIED:
        return msgspec.structs.replace(cell.task, batch=min(cell.task.batch, FEW_SAMPLES))
    return cell.task


def resolved(declared: dict[str, Any]) -> dict[str, Any]:
    """The declaration of a back-end with every option written out."""
    backend = build_backend(declared)
    return {"name": backend.name} | dataclasses.asdict(backend)


@cache
def sources() -> str:
    """A digest of all code that a row can depend on: everything but what shows rows."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        if file.name not in PRESENTATION:
            digest.update(f"{file.relative_to(package)}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def _settings(study: Study) -> tuple[list[str], float, int]:
    return list(study.measures), study.limit_seconds, study.limit_bytes


def key(of: Task | Cell) -> str:
    """What identifies a finished cell or task: equal declarations, computed by equal sources."""
    content = msgspec.json.encode([sources(), type(of).__name__, of], order="deterministic")
    return hashlib.sha256(content).hexdigest()[:24]


def label(cell: Cell) -> str:
    """Network and method, as a person would say them."""
    return f"{cell.task.network.build()} {build_backend(cell.backend)!r}"


def problem(task: Task) -> tuple[MLP, np.ndarray, np.ndarray, np.ndarray]:
    """Network, theta, x and targets of a task: class indices, or one-hot rows where the loss takes no classes.

    Samples are those of the data set in random order, over again where a batch has more.

    All numbers are float32 numbers held in float64, so that float32 and float64 methods differentiate the same
    function at the same point.
    """
    network, net = task.network, task.network.build()
    data = datasets.load(str(network.data))
    rng = np.random.default_rng(task.seed)
    rows = np.resize(rng.permutation(len(data.x)), task.batch)
    theta = _to_float32_numbers(network.scale * net.init(rng, network.init))
    x = _to_float32_numbers(data.x[rows] + network.x_shift)
    y = data.targets(LOSSES[net.loss].accepts_classes)[rows]
    return net, theta, x, y if y.ndim == 1 else _to_float32_numbers(y + network.y_shift)


def cast(arguments: tuple[np.ndarray, ...], dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Theta, x and targets in another dtype; class indices stay what they are."""
    theta, x, y = arguments
    return theta.astype(dtype), x.astype(dtype), y if y.ndim == 1 else y.astype(dtype)


def _to_float32_numbers(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32).astype(np.float64)
