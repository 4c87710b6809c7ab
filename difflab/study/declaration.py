"""A study file, read and validated; nothing in it is ever executed."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_type_hints

import msgspec

from difflab.backends import BACKENDS, Backend
from difflab.datasets import DIGIT_SIZES, N_DIGITS, N_SAMPLES
from difflab.errors import known
from difflab.network import MLP, REDUCTIONS
from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.losses import LOSSES


MAX_FILE_BYTES = 1_000_000
Measure = Literal["accuracy", "speed", "swell"]


class Network(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A dense network and the data set it reads, as a study or network file declares it."""

    widths: list[int]
    hidden: str = "tanh"
    loss: str = "softmax_cross_entropy"
    output: str = "identity"
    reduction: str = "mean"
    data: str | None = None

    def build(self) -> MLP:
        """The network itself; raises what ``MLP.dense`` raises."""
        return MLP.dense(self.widths, self.hidden, self.loss, self.output, self.reduction)


class Study(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One question, its measures and its grid; limits are per cell."""

    question: str
    measures: list[Measure]
    networks: list[Network]
    backends: list[dict[str, Any]]
    batch: int = 128
    seed: int = 0
    limit_seconds: float = 60.0
    limit_bytes: int = 4_000_000_000


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
    table, lines = _parse(path)
    problems = list(_study_problems(table, lines))
    if problems:
        raise InvalidStudy(path, problems)
    return msgspec.convert(table, Study)


def read_network(path: Path) -> Network:
    """Read a network file: the fields of one ``[[networks]]`` entry of a study.

    Raises
    ------
    InvalidStudy
        With every problem found, each with its line.
    """
    table, lines = _parse(path)
    problems = list(_network_problems(table, (), lines))
    if problems:
        raise InvalidStudy(path, problems)
    return msgspec.convert(table, Network)


def build_backend(declared: dict[str, Any]) -> Backend:
    """The back-end that ``{"name": ..., options...}`` declares."""
    options = {key: value for key, value in declared.items() if key != "name"}
    return type(BACKENDS[declared["name"]])(**options)


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


Path_ = tuple[str | int, ...]
Lines = dict[Path_, int]


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
            yield Problem(line, f"{_place((*path, name))}: {str(error).replace(' - at `$`', '')}, got {value!r}"[:300])
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


LIMITS: dict[str, tuple[float, float]] = {
    "batch": (1, N_SAMPLES),
    "seed": (0, 2**63 - 1),
    "limit_seconds": (0.1, 10**7),
    "limit_bytes": (10**8, 2**62),
}
"""Least and greatest value of each number in a study."""


def _study_problems(table: dict[str, Any], lines: Lines) -> Iterator[Problem]:
    shallow = {k: ([] if k in ("networks", "backends") and isinstance(v, list) else v) for k, v in table.items()}
    yield from _field_problems(shallow, Study, (), lines)
    for name, (least, most) in LIMITS.items():
        value = table.get(name, least)
        if isinstance(value, int | float) and not isinstance(value, bool) and not least <= value <= most:
            yield Problem(_line_of((name,), lines), f"{name} must be from {least:g} to {most:g}, got {value!r}")
    question = table.get("question")
    if isinstance(question, str) and not question.isprintable():
        yield Problem(
            _line_of(("question",), lines), f"question must be one line of plain text, got {question!r}"[:300]
        )
    for name in ("measures", "networks", "backends"):
        if table.get(name) == []:
            yield Problem(_line_of((name,), lines), f"{name} must have at least one entry, got none")
    measures = table.get("measures")
    if isinstance(measures, list) and any(measure in measures[:i] for i, measure in enumerate(measures)):
        yield Problem(_line_of(("measures",), lines), f"measures must not repeat, got {measures!r}"[:300])
    for name, problems in (("networks", _network_problems), ("backends", _backend_problems)):
        entries = table.get(name, [])
        seen: dict[str, int] = {}
        for index, entry in enumerate(entries if isinstance(entries, list) else []):
            found = list(problems(entry, (name, index), lines))
            if name == "networks" and isinstance(entry, dict) and "data" not in entry:
                found.append(
                    Problem(_line_of((name, index), lines), f"{name}[{index}].data is required; {_known_data()}")
                )
            yield from found
            if not found and seen.setdefault(_meaning(name, entry), index) != index:
                first = seen[_meaning(name, entry)]
                line = _line_of((name, index), lines)
                yield Problem(line, f"{name}[{index}] repeats {name}[{first}]; remove one")


def _meaning(kind: str, entry: dict[str, Any]) -> str:
    """Equal for declarations that mean the same, whatever defaults they write out."""
    return repr(build_backend(entry)) if kind == "backends" else repr(msgspec.convert(entry, Network))


def _known_data() -> str:
    return f"known: {', '.join(DIGIT_SIZES)}"


def _network_problems(entry: Any, path: Path_, lines: Lines) -> Iterator[Problem]:
    """Problems of every field on its own, and of the whole only if there are none."""
    found = list(_field_problems(entry, Network, path, lines))
    yield from found
    if found:
        return
    network = msgspec.convert(entry, Network)
    names: dict[str, Collection[str]] = {"hidden": ACTIVATIONS, "output": ACTIVATIONS, "loss": LOSSES}
    names |= {"reduction": REDUCTIONS, "data": DIGIT_SIZES}
    kinds = {"hidden": "activation", "output": "activation", "data": "dataset"}
    sound = True
    for name, table in names.items():
        word = getattr(network, name)
        if word is not None and word not in table:
            sound = False
            try:
                known(word, table, kinds.get(name, name))
            except ValueError as error:
                yield Problem(_line_of((*path, name), lines), f"{_place((*path, name))}: {error}")
    try:
        widths = MLP.dense(network.widths).widths
        if sound and network.data is not None:
            _check_data(widths, network.data)
    except (ValueError, TypeError) as error:
        yield Problem(_line_of((*path, "widths"), lines), f"{_place((*path, 'widths'))}: {error}")


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
