"""TOML and JSON files as plain tables: the line of every field, and all that is wrong in them; nothing is executed."""

from __future__ import annotations

import dataclasses
import itertools
import json
import operator
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from difflab.errors import known, unknown


MAX_FILE_BYTES = 1_000_000
MAX_NESTING = 150
"""Tables and arrays within one another."""
MAX_MESSAGE = 300
"""Characters of a message that repeats what a file says."""

Place = tuple[str | int, ...]
"""Keys and indices that lead to a field."""
Lines = dict[Place, int]
Table = dict[str, Any]

TOKEN = re.compile(
    r'''"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?'{3,5}|"(?:\\.|[^"\\])*"|'[^']*'|#[^\n]*|[\[\]{},=:\n]|[^\s\[\]{},=:#"']+''',
    re.DOTALL,
)
KEY_PART = re.compile(r"\"((?:\\.|[^\"\\])*)\"|'([^']*)'|([\w-]+)")
VALIDATION = re.compile(r"(.*?)(?: - at `\$([^`]*)`)?", re.DOTALL)
WRONG_CHOICE = "Invalid enum value"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a file, and where."""

    line: int
    message: str


class InvalidFile(ValueError):
    """A study or network file with problems; ``str`` lists them all, a line each."""

    def __init__(self, path: Path, problems: list[Problem]) -> None:
        self.path = path
        self.problems = sorted(problems, key=lambda problem: problem.line)
        super().__init__("\n".join(f"{path}:{p.line}: {p.message}" for p in self.problems))


def parse(path: Path) -> tuple[Table, Lines]:
    """The table that a file holds, TOML or by its suffix JSON, and the line of every field.

    Raises
    ------
    InvalidFile
        If the file is too large, nested too deeply, or not of its format.
    """
    is_json = path.suffix == ".json"
    language = "JSON" if is_json else "TOML"
    content = _content(path)
    try:
        text = content.decode()
        table = _from_json(text) if is_json else tomllib.loads(text)
    except RecursionError:
        table = _TOO_DEEP
    except ValueError as error:
        line = re.search(r"line (\d+)", str(error))
        raise InvalidFile(path, [Problem(int(line[1]) if line else 1, f"not {language}: {error}")]) from error
    if table is _TOO_DEEP or _is_too_deep(table):
        raise InvalidFile(path, [Problem(1, f"tables and arrays must be nested at most {MAX_NESTING} deep, got more")])
    if not isinstance(table, dict):
        raise InvalidFile(path, [Problem(1, f"must be a table, got {type(table).__name__}; write {{...}}")])
    return table, _Scanner.of(text, ":" if is_json else "=").lines


_TOO_DEEP = object()


def _content(path: Path) -> bytes:
    with path.open("rb") as stream:
        content = stream.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise InvalidFile(path, [Problem(1, f"must have at most {MAX_FILE_BYTES} bytes, got more")])
    return content


def _from_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)


def _without_repeats(pairs: list[tuple[str, Any]]) -> Table:
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"a field must be given once, got {max(names, key=names.count)!r} twice; remove one")
    return table


def _refuse_constant(word: str) -> float:
    raise ValueError(f"numbers must be finite, got {word}")


def _is_too_deep(table: Any) -> bool:
    """Level by level, as what is nested deeply cannot be walked through by recursion."""
    level = [table]
    for _ in range(MAX_NESTING):
        level = [child for value in level for child in _children(value)]
    return bool(level)


def _children(value: Any) -> list[Any]:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [child for child in children if isinstance(child, dict | list)]


# --- lines


@dataclass
class _Scanner:
    """Notes the line of every field in a text that has been parsed before, and so is known to be well-formed."""

    tokens: list[tuple[str, int]]
    separator: str
    at: int = 0
    lines: Lines = field(default_factory=dict)
    last: dict[Place, int] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str, separator: str) -> _Scanner:
        made = cls(list(_tokens(text)), separator)
        if separator == "=":
            made.statements()
        else:
            made.value(())
        return made

    def peek(self) -> str:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else ""

    def take(self) -> tuple[str, int]:
        self.at += 1
        return self.tokens[self.at - 1]

    def take_blanks(self) -> None:
        while self.peek() == "\n":
            self.take()

    def take_until(self, end: str) -> str:
        start = self.at
        while self.peek() != end:
            self.take()
        self.take()
        return "".join(text for text, _ in self.tokens[start : self.at - 1])

    def note(self, place: Place, line: int) -> None:
        for n in range(1, len(place) + 1):
            self.lines.setdefault(place[:n], line)

    def statements(self) -> None:
        """A TOML file: headers, each with its pairs."""
        prefix: Place = ()
        self.take_blanks()
        while self.peek():
            if self.peek() == "[":
                prefix = self.header()
            else:
                self.pair(prefix)
            self.take_blanks()

    def header(self) -> Place:
        _, line = self.take()
        is_entry = self.peek() == "["
        *parts, name = _key(self.take_until("]").lstrip("["))
        if is_entry:
            self.take()
        place = (*self.latest(parts), name)
        self.note(place, line)
        if is_entry:
            self.last[place] = self.last.get(place, -1) + 1
            place = (*place, self.last[place])
            self.note(place, line)
        return place

    def latest(self, parts: list[str]) -> Place:
        """A header speaks of the last entry of every array of tables that it passes through."""
        place: Place = ()
        for part in parts:
            place = (*place, part)
            place = (*place, self.last[place]) if place in self.last else place
        return place

    def pair(self, prefix: Place) -> None:
        line = self.tokens[self.at][1]
        place = (*prefix, *_key(self.take_until(self.separator)))
        self.note(place, line)
        self.value(place)

    def value(self, place: Place) -> None:
        self.take_blanks()
        if self.peek() == "[":
            self.entries(place, "]")
        elif self.peek() == "{":
            self.entries(place, "}")
        else:
            while self.peek() not in (",", "]", "}", "\n", ""):
                self.take()

    def entries(self, place: Place, end: str) -> None:
        self.take()
        for index in itertools.count():
            self.take_blanks()
            if self.peek() == end:
                break
            if end == "}":
                self.pair(place)
            else:
                self.note((*place, index), self.tokens[self.at][1])
                self.value((*place, index))
            self.take_blanks()
            if self.peek() == ",":
                self.take()
        self.take()


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    line, counted = 1, 0
    for match in TOKEN.finditer(text):
        line += text.count("\n", counted, match.start())
        counted = match.start()
        if not match[0].startswith("#"):
            yield match[0], line


def _key(text: str) -> list[str]:
    return [match[match.lastindex or 0] for match in KEY_PART.finditer(text)]


def line_of(place: Place, lines: Lines) -> int:
    """The line of a field, or of the nearest table around it that is known."""
    while place not in lines and place:
        place = place[:-1]
    return lines.get(place, 1)


def spelled(place: Place) -> str:
    """``networks[0].widths``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")


# --- fields


def field_problems(table: Any, kind: type, place: Place, lines: Lines) -> Iterator[Problem]:
    """Unknown, missing and wrongly typed fields of one table, all of them."""
    if not isinstance(table, dict):
        header = ".".join(part for part in place if isinstance(part, str))
        message = f"{spelled(place)} must be a table, got {type(table).__name__}; write [[{header}]] or {{...}}"
        yield Problem(line_of(place, lines), message)
        return
    types = {name: hint for name, hint in get_type_hints(kind).items() if name in _fields(kind)}
    for name, value in table.items():
        line = line_of((*place, name), lines)
        try:
            known(name, types, "field")
            msgspec.convert(value, types[name])
        except msgspec.ValidationError as error:
            what, within = VALIDATION.fullmatch(str(error)).groups(default="")  # type: ignore[union-attr]
            if what.startswith(WRONG_CHOICE):
                said = unknown(_entry(value, within), _choices(types[name]), name.removesuffix("s") if within else name)
            else:
                said = f"{what}, got {value!r}"
            yield Problem(line, f"{spelled((*place, name))}{within}: {said}"[:MAX_MESSAGE])
        except ValueError as error:
            yield Problem(line, f"{spelled(place) or 'top level'}: {error}"[:MAX_MESSAGE])
    for name in _required(kind):
        if name not in table:
            yield Problem(line_of(place, lines), f"{spelled((*place, name))} is required; add {name} = ...")


def _entry(value: Any, within: str) -> Any:
    """What stands at ``[3][0]`` of nested lists."""
    return reduce(operator.getitem, map(int, re.findall(r"\[(\d+)\]", within)), value)


def _choices(hint: Any) -> list[str]:
    """The words that a type has, those of a list, or none at all, among them."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    return [word for part in get_args(hint) for word in _choices(part)]


def _fields(kind: type) -> tuple[str, ...]:
    if dataclasses.is_dataclass(kind):
        return tuple(entry.name for entry in dataclasses.fields(kind))
    return kind.__struct_fields__  # type: ignore[attr-defined]


def _required(kind: type) -> tuple[str, ...]:
    if dataclasses.is_dataclass(kind):
        return ()
    return tuple(entry.name for entry in msgspec.structs.fields(kind) if entry.required)
