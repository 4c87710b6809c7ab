"""Study files, read and validated; nothing in them is ever executed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from difflab.backends import Backend
from difflab.backends.symbolic import LIMIT_SECONDS
from difflab.datasets import SHAPES
from difflab.documents import (
    MAX_MESSAGE,
    InvalidFile,
    Lines,
    Place,
    Problem,
    field_problems,
    line_of,
    parse,
    spelled,
)
from difflab.errors import known
from difflab.network_files import network_problems
from difflab.primitives.losses import LOSSES
from difflab.study.declaration import METHODS, PlacedNetwork, Study, build_backend


MAX_BATCH = 2**16
"""Samples of a batch; more than the data set has are taken from it more than once."""

NO_CHOICE = {"networks": ("widths", "layers"), "backends": ("name",)}
"""Fields of which a list does not stand for one entry after the other."""
MAX_ENTRIES = 1000
"""That one entry with lists can stand for."""

LIMITS: dict[str, tuple[float, float]] = {
    "batch": (1, MAX_BATCH),
    "seed": (0, 2**63 - 1),
    "limit_seconds": LIMIT_SECONDS,
    "limit_bytes": (10**9, 2**62),
}
"""Least and greatest value of each number in a study."""

PLACE_LIMITS: dict[str, tuple[float, float]] = {
    "scale": (1e-6, 1e6),
    "x_shift": (-1e6, 1e6),
    "y_shift": (-1e6, 1e6),
    "batch": LIMITS["batch"],
}
"""Beyond a million, inputs and targets would lose their last digits to float32."""


def read_study(path: Path) -> Study:
    """Read a study file.

    Raises
    ------
    InvalidFile
        With every problem found, each with its line.
    """
    table, lines = parse(path)
    if found := list(dict.fromkeys(_study_problems(table, lines))):
        raise InvalidFile(path, found)
    grid = {name: [one for _, one in _single(name, table[name])] for name in GRID}
    return msgspec.convert(table | grid, Study)


def checked_backend(declared: dict[str, Any]) -> Backend:
    """The back-end that ``{"name": ..., options...}`` declares, from an untrusted source.

    Raises
    ------
    ValueError
        With the first problem.
    """
    for problem in _backend_problems(declared, ("backend",), {}):
        raise ValueError(problem.message)
    return build_backend(declared)


def _study_problems(table: dict[str, Any], lines: Lines) -> Iterator[Problem]:
    """Problems of the fields on their own, then of every entry of the grid."""
    shallow = {k: ([] if k in GRID and isinstance(v, list) else v) for k, v in table.items()}
    yield from field_problems(shallow, Study, (), lines)
    for name, message in _value_problems(table):
        yield Problem(line_of((name,), lines), message[:MAX_MESSAGE])
    for name, problems in GRID.items():
        entries = table.get(name)
        yield from _entry_problems(name, entries if isinstance(entries, list) else [], problems, lines)


def _single(name: str, entries: list[Any]) -> Iterator[tuple[int, Any]]:
    """The entries that those of a file stand for, each with the index of the one it comes from.

    A list where one value is declared stands for each of its values; too many of them are left as they are, which is
    a problem of its own.
    """
    for index, entry in enumerate(entries):
        fields = entry.items() if isinstance(entry, dict) else ()
        lists = {field: value for field, value in fields if _is_many(name, field, value)}
        if math.prod(map(len, lists.values())) > MAX_ENTRIES:
            lists = {}
        for values in itertools.product(*lists.values()):
            yield index, entry | dict(zip(lists, values, strict=True)) if lists else entry


def _is_many(name: str, field: str, value: Any) -> bool:
    return isinstance(value, list) and value != [] and field not in NO_CHOICE[name]


def _value_problems(table: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Fields of the right type with a value that will not do, each with what is wrong."""
    yield from _out_of_range(table, LIMITS)
    question, measures = table.get("question"), table.get("measures")
    if isinstance(question, str) and not question.isprintable():
        yield "question", f"question must be one line of plain text, got {question!r}"
    if isinstance(measures, list) and any(measure in measures[:i] for i, measure in enumerate(measures)):
        yield "measures", f"measures must not repeat, got {measures!r}"
    if isinstance(measures, list) and "contest" in measures and len(measures) > 1:
        yield "measures", f"contest runs in processes of its own and stands alone, got {measures!r}"
    for name in ("measures", *GRID):
        if table.get(name) == []:
            yield name, f"{name} must have at least one entry, got none"


def _out_of_range(table: dict[str, Any], limits: dict[str, tuple[float, float]]) -> Iterator[tuple[str, str]]:
    for name, (least, most) in limits.items():
        value = table.get(name, least)
        if isinstance(value, int | float) and not isinstance(value, bool) and not least <= value <= most:
            yield name, f"{name} must be from {least:g} to {most:g}, got {value!r}"


def _entry_problems(name: str, entries: list[Any], problems: EntryCheck, lines: Lines) -> Iterator[Problem]:
    """Problems of each entry of the grid, and entries that mean the same as an earlier one."""
    seen: dict[str, tuple[int, int]] = {}
    for number, (index, entry) in enumerate(_single(name, entries)):
        place: Place = (name, index)
        found = list(problems(entry, place, lines))
        yield from found
        if not found and (first := seen.setdefault(_meaning(name, entry), (number, index)))[0] != number:
            yield Problem(line_of(place, lines), f"{spelled(place)} repeats {name}[{first[1]}]; remove one")


def _meaning(kind: str, entry: dict[str, Any]) -> str:
    """Equal for declarations that mean the same, whatever defaults they write out."""
    if kind == "backends":
        return repr(build_backend(entry))
    network = msgspec.convert(entry, PlacedNetwork)
    return repr((network.build(), network.init, network.data, [getattr(network, name) for name in PLACE_LIMITS]))


def _network_problems(entry: Any, place: Place, lines: Lines) -> Iterator[Problem]:
    """What is wrong with a network, with its data, and with where it is differentiated."""
    yield from network_problems(entry, place, lines, PlacedNetwork)
    if not isinstance(entry, dict):
        return
    if "data" not in entry:
        known_data = ", ".join(SHAPES)
        yield Problem(line_of(place, lines), f"{spelled(place)}.data is required; known: {known_data}")
    for name, message in (*_out_of_range(entry, PLACE_LIMITS), *_shift_problems(entry)):
        yield Problem(line_of((*place, name), lines), f"{spelled(place)}.{message}")


def _shift_problems(entry: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Targets that cannot be shifted: classes, and those between bounds."""
    loss = entry.get("loss", PlacedNetwork.loss)
    if entry.get("y_shift", 0.0) == 0.0 or not isinstance(loss, str) or loss not in LOSSES or _is_free(loss):
        return
    free = " or ".join(name for name in LOSSES if _is_free(name))
    what = "classes" if LOSSES[loss].accepts_classes else "from {:g} to {:g}".format(*LOSSES[loss].targets)
    yield "y_shift", f"y_shift has no place with {loss}, whose targets are {what}; use {free}"


def _is_free(loss: str) -> bool:
    """Whether its targets may be any numbers, and here are numbers."""
    return LOSSES[loss].targets == (-math.inf, math.inf) and not LOSSES[loss].accepts_classes


def _backend_problems(entry: Any, place: Place, lines: Lines) -> Iterator[Problem]:
    if not isinstance(entry, dict) or "name" not in entry:
        hint = f"known: {', '.join(METHODS)}"
        yield Problem(line_of(place, lines), f"{spelled(place)}.name is required; {hint}")
        return
    try:
        kind = type(METHODS[known(entry["name"], METHODS, "backend")])
    except (ValueError, TypeError) as error:
        yield Problem(line_of((*place, "name"), lines), f"{spelled(place)}: {error}")
        return
    options = {key: value for key, value in entry.items() if key != "name"}
    found = list(field_problems(options, kind, place, lines))
    yield from found
    if not found:
        try:
            kind(**options)
        except (ValueError, TypeError) as error:
            yield Problem(line_of(place, lines), f"{spelled(place)}: {error}")


EntryCheck = Callable[[Any, Place, Lines], Iterator[Problem]]
GRID: dict[str, EntryCheck] = {"networks": _network_problems, "backends": _backend_problems}
