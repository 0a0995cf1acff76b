"""The packed online store: one row an entity and view in a SQLite file, its features packed as doubles.

Read by the prediction service, written by materialization (ours or Feast's): the standard library and orjson only.
A write never replaces a newer value by an older one: rows are ordered by (event time, created time), so that a
correction (same event time, created later) does replace what it corrects.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType

import orjson

from ferroflow.core.errors import NotFound

Key = int | str
"""An entity's key: a number and a text of the same digits are different entities."""

Row = tuple[Key, int, int, Sequence[float | None]]
"""Key, event time and created time (microseconds since 1970, UTC), one value for each feature."""

_CHUNK = 400  # keys asked for at once: below SQLite's limit of bound values
_BATCH = 10_000  # rows given to SQLite at once
_MISSING = float("nan")

_TABLES = """
CREATE TABLE IF NOT EXISTS layouts (id INTEGER PRIMARY KEY AUTOINCREMENT, view TEXT NOT NULL,
                                    features TEXT NOT NULL, UNIQUE (view, features));
CREATE TABLE IF NOT EXISTS entries (view TEXT NOT NULL, key NOT NULL, event INTEGER NOT NULL, created INTEGER NOT NULL,
                                    layout INTEGER NOT NULL, packed BLOB NOT NULL,
                                    PRIMARY KEY (view, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS watermarks (view TEXT PRIMARY KEY, event INTEGER NOT NULL);
"""

_UPSERT = """
INSERT INTO entries (view, key, event, created, layout, packed) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (view, key) DO UPDATE SET
    event = excluded.event, created = excluded.created, layout = excluded.layout, packed = excluded.packed
WHERE (excluded.event, excluded.created) >= (entries.event, entries.created)
"""


class PackedStore:
    """Values of entities, by view. One writer and any number of readers may have the file open.

    Args:
        path: the SQLite file; made when it is opened for writing.
        read_only: never write. A file that is not there then answers as an empty store, and is looked for again
            at each read, so that a service may start before the first materialization.
    """

    def __init__(self, path: Path, read_only: bool = False) -> None:
        self.path = path
        self.read_only = read_only
        self._connection: sqlite3.Connection | None = None
        self._layouts: dict[int, tuple[str, ...]] = {}
        if not read_only:
            self._connection = _open_for_writing(path)

    def write(self, view: str, features: Sequence[str], rows: Iterable[Row]) -> int:
        """Write rows in one transaction; missing values are None or NaN.

        Returns:
            How many rows were written: those that are not older than what the store has.
        """
        connection = self._writable()
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            layout = _layout(connection, view, features)
            entries = _packed(view, layout, len(features), rows)
            written = 0
            while batch := list(islice(entries, _BATCH)):
                written += connection.executemany(_UPSERT, batch).rowcount
        return written

    def read(
        self, view: str, keys: Sequence[Key], features: Sequence[str]
    ) -> dict[Key, tuple[int, list[float | None]]]:
        """The latest value of each entity that the store has; unknown entities are left out.

        Returns:
            For each key, its event time (microseconds since 1970, UTC) and its values in the order of ``features``
            (None: missing, or a feature that the stored row does not have).
        """
        connection = self._readable()
        if connection is None:
            return {}
        found: dict[Key, tuple[int, list[float | None]]] = {}
        distinct = list(dict.fromkeys(keys))
        for start in range(0, len(distinct), _CHUNK):
            chunk = distinct[start : start + _CHUNK]
            marks = ",".join("?" * len(chunk))
            query = f"SELECT key, event, layout, packed FROM entries WHERE view = ? AND key IN ({marks})"
            for key, event, layout, packed in connection.execute(query, [view, *chunk]):
                found[key] = (event, self._values(connection, layout, packed, features))
        return found

    def watermark(self, view: str) -> int | None:
        """Up to which moment (microseconds since 1970, UTC) the view is complete; None when nobody said."""
        connection = self._readable()
        if connection is None:
            return None
        row = connection.execute("SELECT event FROM watermarks WHERE view = ?", (view,)).fetchone()
        return None if row is None else int(row[0])

    def advance(self, view: str, event: int) -> None:
        """Say that the view is complete up to ``event``; a watermark never moves back."""
        with self._writable() as connection:
            connection.execute(
                "INSERT INTO watermarks (view, event) VALUES (?, ?) "
                "ON CONFLICT (view) DO UPDATE SET event = max(event, excluded.event)",
                (view, event),
            )

    def drop(self, view: str) -> None:
        """Forget a view with all its entities."""
        with self._writable() as connection:
            for table in ("entries", "watermarks", "layouts"):
                connection.execute(f"DELETE FROM {table} WHERE view = ?", (view,))
        self._layouts.clear()

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> PackedStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _writable(self) -> sqlite3.Connection:
        if self.read_only or self._connection is None:
            raise NotFound(f"The online store {self.path.name} is not open for writing. Open it without read_only.")
        return self._connection

    def _readable(self) -> sqlite3.Connection | None:
        if self._connection is None and self.read_only and self.path.is_file():
            self._connection = _open_for_reading(self.path)
        return self._connection

    def _values(
        self, connection: sqlite3.Connection, layout: int, packed: bytes, features: Sequence[str]
    ) -> list[float | None]:
        names = self._layouts.get(layout)
        if names is None:
            (text,) = connection.execute("SELECT features FROM layouts WHERE id = ?", (layout,)).fetchone()
            names = self._layouts[layout] = tuple(orjson.loads(text))
        values = struct.unpack(f"<{len(names)}d", packed)
        if tuple(features) != names:  # a model may ask for fewer features, or in another order
            row = dict(zip(names, values, strict=True))
            values = tuple(row.get(name, _MISSING) for name in features)
        return [None if value != value else value for value in values]


def _open_for_writing(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Autocommit between explicit transactions; a service may use the connection from a worker thread.
    connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.executescript(_TABLES)
    return connection


def _open_for_reading(path: Path) -> sqlite3.Connection | None:
    address = f"{path.resolve().as_uri()}?mode=ro"
    connection = sqlite3.connect(address, uri=True, timeout=5, isolation_level=None, check_same_thread=False)
    # The writer makes the file before its tables: until it has, the store counts as empty.
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if {"entries", "layouts", "watermarks"} <= tables:
        return connection
    connection.close()
    return None


def _layout(connection: sqlite3.Connection, view: str, features: Sequence[str]) -> int:
    """The number of a view's list of features; a list that was never seen gets a new one."""
    text = orjson.dumps(list(features)).decode()
    connection.execute("INSERT OR IGNORE INTO layouts (view, features) VALUES (?, ?)", (view, text))
    row = connection.execute("SELECT id FROM layouts WHERE view = ? AND features = ?", (view, text)).fetchone()
    return int(row[0])


def _packed(view: str, layout: int, width: int, rows: Iterable[Row]) -> Iterator[tuple[str, Key, int, int, int, bytes]]:
    pack = struct.Struct(f"<{width}d").pack
    for key, event, created, values in rows:
        doubles = [_MISSING if value is None else value for value in values]
        yield view, key, event, created, layout, pack(*doubles)
