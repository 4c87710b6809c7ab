"""Study and network files, read and validated; nothing in them is ever executed."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import msgspec

from difflab.backends import BACKENDS, Backend
from difflab.datasets import DIGIT_SIZES, N_DIGITS, N_SAMPLES
from difflab.errors import known
from difflab.network import MLP, REDUCTIONS
from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.losses import LOSSES
from difflab.study.declaration import Network, Study, build_backend


MAX_FILE_BYTES = 1_000_000
MAX_MESSAGE = 300
"""Characters of a message that repeats what a file says."""

WORDS: dict[str, tuple[str, Collection[str]]] = {
    "hidden": ("activation", ACTIVATIONS),
    "output": ("activation", ACTIVATIONS),
    "loss": ("loss", LOSSES),
    "reduction": ("reduction", REDUCTIONS),
    "data": ("dataset", DIGIT_SIZES),
}
"""What each name in a network must be one of."""

LIMITS: dict[str, tuple[float, float]] = {
    "batch": (1, N_SAMPLES),
    "seed": (0, 2**63 - 1),
    "limit_seconds": (0.1, 10**7),
    "limit_bytes": (10**9, 2**62),
}
"""Least and greatest value of each number in a study."""


Path_ = tuple[str | int, ...]
Lines = dict[Path_, int]
T = TypeVar("T")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a file, and where."""

    line: int
    message: str


class InvalidStudy(ValueError):
    """A study or network file with problems; ``str`` lists them all, a line each."""

    def __init__(self, path: Path, problems: list[Problem]) -> None:
        self.path = path
        self.problems = sorted(problems, key=lambda problem: problem.line)
        super().__init__("\n".join(f"{path}:{p.line}: {p.message}" for p in self.problems))


def read_study(path: Path) -> Study:
    """Read a study file.

    Raises
    ------
    InvalidStudy
        With every problem found, each with its line.
    """
    return _read(path, Study, _study_problems)


def read_network(path: Path) -> Network:
    """Read a network file: the fields of one ``[[networks]]`` entry of a study.

    Raises
    ------
    InvalidStudy
        With every problem found, each with its line.
    """
    return _read(path, Network, lambda table, lines: _network_problems(table, (), lines))


def _read(path: Path, kind: type[T], problems: Callable[[dict[str, Any], Lines], Iterator[Problem]]) -> T:
    table, lines = _parse(path)
    if found := list(problems(table, lines)):
        raise InvalidStudy(path, found)
    return msgspec.convert(table, kind)


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


def _parse(path: Path) -> tuple[dict[str, Any], Lines]:
    try:
        content = path.read_bytes()
        if len(content) > MAX_FILE_BYTES:
            raise InvalidStudy(path, [Problem(1, f"must have at most {MAX_FILE_BYTES} bytes, got {len(content)}")])
        text = content.decode()
        return tomllib.loads(text), _positions(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        raise InvalidStudy(path, [Problem(int(line[1]) if line else 1, f"not TOML: {error}")]) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise InvalidStudy(path, [Problem(1, f"not TOML: {error}")]) from error


def _positions(text: str) -> Lines:
    """The line of every table header and key that stands on a line of its own."""
    lines: Lines = {}
    counts: dict[str, int] = {}
    prefix: Path_ = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\[\s*([\w-]+)\s*\]\]", line):
            index = counts[header[1]] = counts.get(header[1], -1) + 1
            prefix = (header[1], index)
            lines.setdefault((header[1],), number)
            lines[prefix] = number
        elif header := re.match(r"\s*\[\s*([\w-]+)\s*\]", line):
            prefix = (header[1],)
            lines[prefix] = number
        elif key := re.match(r"\s*\"?([\w-]+)\"?\s*=", line):
            lines.setdefault((*prefix, key[1]), number)
    return lines


def _line_of(path: Path_, lines: Lines) -> int:
    while path not in lines and path:
        path = path[:-1]
    return lines.get(path, 1)


def _place(path: Path_) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def _field_problems(table: Any, kind: type, path: Path_, lines: Lines) -> Iterator[Problem]:
    """Unknown, missing and wrongly typed fields of one table, all of them."""
    if not isinstance(table, dict):
        got = type(table).__name__
        yield Problem(_line_of(path, lines), f"{_place(path)} must be a table, got {got}; write [[{path[0]}]]")
        return
    types = {name: hint for name, hint in get_type_hints(kind).items() if name in _fields(kind)}
    for name, value in table.items():
        line = _line_of((*path, name), lines)
        try:
            known(name, types, "field")
            msgspec.convert(value, types[name])
        except msgspec.ValidationError as error:
            yield Problem(
                line, f"{_place((*path, name))}: {str(error).replace(' - at `$`', '')}, got {value!r}"[:MAX_MESSAGE]
            )
        except ValueError as error:
            yield Problem(line, f"{_place(path) or 'top level'}: {error}")
    for name in _required(kind):
        if name not in table:
            yield Problem(_line_of(path, lines), f"{_place((*path, name))} is required; add {name} = ...")


def _fields(kind: type) -> tuple[str, ...]:
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    return kind.__struct_fields__  # type: ignore[attr-defined]


def _required(kind: type) -> tuple[str, ...]:
    if dataclasses.is_dataclass(kind):
        return ()
    return tuple(field.name for field in msgspec.structs.fields(kind) if field.required)


def _study_problems(table: dict[str, Any], lines: Lines) -> Iterator[Problem]:
    """Problems of the fields on their own, then of every entry of the grid."""
    shallow = {k: ([] if k in GRID and isinstance(v, list) else v) for k, v in table.items()}
    yield from _field_problems(shallow, Study, (), lines)
    for name, message in _value_problems(table):
        yield Problem(_line_of((name,), lines), message[:MAX_MESSAGE])
    for name, problems in GRID.items():
        entries = table.get(name)
        yield from _entry_problems(name, entries if isinstance(entries, list) else [], problems, lines)


def _value_problems(table: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Fields of the right type with a value that will not do, each with what is wrong."""
    for name, (least, most) in LIMITS.items():
        value = table.get(name, least)
        if isinstance(value, int | float) and not isinstance(value, bool) and not least <= value <= most:
            yield name, f"{name} must be from {least:g} to {most:g}, got {value!r}"
    question, measures = table.get("question"), table.get("measures")
    if isinstance(question, str) and not question.isprintable():
        yield "question", f"question must be one line of plain text, got {question!r}"
    if isinstance(measures, list) and any(measure in measures[:i] for i, measure in enumerate(measures)):
        yield "measures", f"measures must not repeat, got {measures!r}"
    for name in ("measures", *GRID):
        if table.get(name) == []:
            yield name, f"{name} must have at least one entry, got none"


def _entry_problems(name: str, entries: list[Any], problems: EntryCheck, lines: Lines) -> Iterator[Problem]:
    """Problems of each entry of the grid, and entries that mean the same as an earlier one."""
    seen: dict[str, int] = {}
    for index, entry in enumerate(entries):
        path: Path_ = (name, index)
        found = list(problems(entry, path, lines))
        if name == "networks" and isinstance(entry, dict) and "data" not in entry:
            known_data = ", ".join(DIGIT_SIZES)
            found.append(Problem(_line_of(path, lines), f"{_place(path)}.data is required; known: {known_data}"))
        yield from found
        if not found and (first := seen.setdefault(_meaning(name, entry), index)) != index:
            yield Problem(_line_of(path, lines), f"{_place(path)} repeats {name}[{first}]; remove one")


def _meaning(kind: str, entry: dict[str, Any]) -> str:
    """Equal for declarations that mean the same, whatever defaults they write out."""
    return repr(build_backend(entry)) if kind == "backends" else repr(msgspec.convert(entry, Network))


def _network_problems(entry: Any, path: Path_, lines: Lines) -> Iterator[Problem]:
    """Problems of every field on its own, and of the whole only if there are none."""
    found = list(_field_problems(entry, Network, path, lines))
    yield from found
    if found:
        return
    network = msgspec.convert(entry, Network)
    wrong = list(_word_problems(network, path, lines))
    yield from wrong
    try:
        MLP.dense(network.widths)
        if not wrong and network.data is not None:
            _check_data(tuple(network.widths), network.data)
    except (ValueError, TypeError) as error:
        yield Problem(_line_of((*path, "widths"), lines), f"{_place((*path, 'widths'))}: {error}")


def _word_problems(network: Network, path: Path_, lines: Lines) -> Iterator[Problem]:
    """Names that no table has."""
    for name, (kind, table) in WORDS.items():
        word = getattr(network, name)
        try:
            if word is not None:
                known(word, table, kind)
        except ValueError as error:
            yield Problem(_line_of((*path, name), lines), f"{_place((*path, name))}: {error}")


def _check_data(widths: tuple[int, ...], data: str) -> None:
    size = DIGIT_SIZES[data]
    if (widths[0], widths[-1]) != (size * size, N_DIGITS):
        raise ValueError(f"must start with {size * size} and end with {N_DIGITS} for {data}, got {list(widths)}")


def _backend_problems(entry: Any, path: Path_, lines: Lines) -> Iterator[Problem]:
    if not isinstance(entry, dict) or "name" not in entry:
        hint = f"known: {', '.join(BACKENDS)}"
        yield Problem(_line_of(path, lines), f"{_place(path)}.name is required; {hint}")
        return
    try:
        kind = type(BACKENDS[known(entry["name"], BACKENDS, "backend")])
    except (ValueError, TypeError) as error:
        yield Problem(_line_of((*path, "name"), lines), f"{_place(path)}: {error}")
        return
    options = {key: value for key, value in entry.items() if key != "name"}
    found = list(_field_problems(options, kind, path, lines))
    yield from found
    if not found:
        try:
            kind(**options)
        except (ValueError, TypeError) as error:
            yield Problem(_line_of(path, lines), f"{_place(path)}: {error}")


EntryCheck = Callable[[Any, Path_, Lines], Iterator[Problem]]
GRID: dict[str, EntryCheck] = {"networks": _network_problems, "backends": _backend_problems}
