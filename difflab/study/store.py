"""Finished cells, safe against crashes: one SQLite file per study."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any


SCHEMA_VERSION = 1
BUSY_SECONDS = 30.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS cells (
    key TEXT PRIMARY KEY,
    cell TEXT NOT NULL,
    row TEXT NOT NULL,
    environment TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS environments (id TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT;
"""


class InvalidStore(ValueError):
    """A file that is no store of this version."""


class Store:
    """Rows of finished cells by key; a row is there once :meth:`add` has returned, whatever happens next."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, SCHEMA_VERSION):
                raise InvalidStore(f"{path} must have version {SCHEMA_VERSION}, got {version}; move it away")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(_SCHEMA)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection that trusts nothing the file could bring along, and waits for other writers."""
        try:
            with closing(sqlite3.connect(self.path, timeout=BUSY_SECONDS)) as connection:
                connection.execute("PRAGMA trusted_schema = OFF")
                connection.execute("PRAGMA synchronous = FULL")
                yield connection
        except sqlite3.OperationalError as error:
            raise OSError(f"{self.path} must be a store that can be read and written here, got: {error}") from error
        except sqlite3.DatabaseError as error:
            raise InvalidStore(f"{self.path} must be a store of finished cells, got: {error}; move it away") from error

    def add(self, key: str, cell: dict[str, Any], row: dict[str, Any], environment: tuple[str, dict[str, Any]]) -> None:
        """Record a finished cell, in one transaction."""
        name, record = environment
        with self._open() as connection, connection:
            connection.execute("INSERT OR IGNORE INTO environments VALUES (?, ?)", (name, json.dumps(record)))
            connection.execute(
                "INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?)", (key, json.dumps(cell), json.dumps(row), name)
            )

    def rows(self) -> dict[str, dict[str, Any]]:
        """The rows of all finished cells by key."""
        with self._open() as connection:
            return {key: self._table(row) for key, row in connection.execute("SELECT key, row FROM cells")}

    def _table(self, text: str) -> dict[str, Any]:
        try:
            table = json.loads(text)
        except ValueError:
            table = None
        if not isinstance(table, dict) or not table:
            raise InvalidStore(f"{self.path} must hold rows of finished cells, got {text[:40]!r}; move it away")
        return table

    def environments(self, keys: list[str]) -> list[dict[str, Any]]:
        """The distinct environments in which these cells were measured."""
        marks = ", ".join("?" * len(keys))
        query = f"SELECT record FROM environments WHERE id IN (SELECT environment FROM cells WHERE key IN ({marks}))"
        with self._open() as connection:
            return [self._table(record) for (record,) in connection.execute(query, keys)]
