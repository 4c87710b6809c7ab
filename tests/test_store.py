"""The store: what has been added is there, whatever happens next."""

import json
import sqlite3
import subprocess
import sys
import textwrap

import pytest

from difflab.study.store import InvalidStore, Store


HERE = ("here", {"processor": "some"})


def test_rows_come_back_as_they_went_in(tmp_path):
    store = Store(tmp_path / "store.sqlite")
    row = {"status": "ok", "error_relative": 1.1e-16, "error_ulp_max": float("inf"), "loss_tree_ops": 10**50}
    store.add("a", {"cell": 1}, row, HERE)
    assert Store(store.path).rows() == {"a": row}
    assert store.environments(["a"]) == [HERE[1]]


def test_a_key_is_stored_once(tmp_path):
    store = Store(tmp_path / "store.sqlite")
    store.add("a", {}, {"status": "timeout"}, HERE)
    store.add("a", {}, {"status": "ok"}, HERE)
    assert store.rows() == {"a": {"status": "ok"}}


@pytest.mark.parametrize("row", ["{bad", "{}", "[1]", "null"])
def test_a_row_that_is_none_is_named(tmp_path, row):
    store = Store(tmp_path / "store.sqlite")
    with sqlite3.connect(store.path) as connection:
        connection.execute("INSERT INTO cells VALUES ('a', '{}', ?, 'here')", (row,))
    connection.close()
    with pytest.raises(InvalidStore, match="must hold rows of finished cells"):
        store.rows()


WRITER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from difflab.study.store import Store
    store = Store(Path(sys.argv[1]))
    for i in range(10_000):
        store.add(f"{sys.argv[2]}-{i}", {}, {"i": i}, ("here", {}))
        print(i, flush=True)
    """
)


def writer(path, name):
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), name], stdout=subprocess.PIPE, text=True)


def test_no_acknowledged_row_is_lost_to_kill_nine(tmp_path):
    path = tmp_path / "store.sqlite"
    for attempt in range(5):
        with writer(path, f"w{attempt}") as process:
            for _ in range(3 + 4 * attempt):
                process.stdout.readline()
            process.kill()
            count = 3 + 4 * attempt + process.stdout.read().count("\n")
        rows = Store(path).rows()
        assert all(f"w{attempt}-{i}" in rows for i in range(count))


def test_two_writers_lose_nothing(tmp_path):
    path = tmp_path / "store.sqlite"
    Store(path)
    processes = [writer(path, name) for name in "ab"]
    for process in processes:
        for _ in range(50):
            process.stdout.readline()
    for process in processes:
        process.kill()
        process.communicate()
    rows = Store(path).rows()
    assert all(f"{name}-{i}" in rows for name in "ab" for i in range(50))


def test_a_file_that_is_no_store_is_named(tmp_path):
    path = tmp_path / "store.sqlite"
    path.write_bytes(b"not a database, though long enough to look at" * 50)
    with pytest.raises(InvalidStore, match="must be a store of finished cells"):
        Store(path)


def test_a_store_of_another_version_is_refused(tmp_path):
    path = tmp_path / "store.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(InvalidStore, match="must have version 1, got 99"):
        Store(path)


def test_rows_are_json_that_any_language_reads(tmp_path):
    store = Store(tmp_path / "store.sqlite")
    store.add("a", {"x": 1}, {"status": "ok"}, HERE)
    with sqlite3.connect(store.path) as connection:
        cell, row = connection.execute("SELECT cell, row FROM cells").fetchone()
    connection.close()
    assert json.loads(cell) == {"x": 1}
    assert json.loads(row) == {"status": "ok"}
