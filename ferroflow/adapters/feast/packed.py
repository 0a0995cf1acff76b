"""The packed online store: one row an entity and view in a SQLite file, its features packed by their kinds.

Read by the prediction service, written by materialization (ours or Feast's): the standard library alone. A write never
replaces a newer value by an older one: rows are ordered by (event time, created time), so that a correction (same
event time, created later) does replace what it corrects.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

from ferroflow.adapters.feast.rows import RowLayout, Value, Watermark
from ferroflow.adapters.write_ahead import log_ahead
from ferroflow.core.errors import DataError, NotFound

Key: TypeAlias = int | str | bytes
"""An entity's key: a number and a text of the same digits are two entities. Several keys, or one of another type, are
Feast's serialized entity key (version 3)."""

Row: TypeAlias = tuple[Key, int, int, Sequence[Value | None]]
"""Key, event time and created time (microseconds since 1970, UTC), one value for each feature."""

VERSION = 2
"""Of the file's layout (``PRAGMA user_version``)."""

_CHUNK = 400  # keys asked for at once: below SQLite's limit of bound values
_BATCH = 10_000  # rows given to SQLite at once

_TABLES = (
    "CREATE TABLE layouts (id INTEGER PRIMARY KEY AUTOINCREMENT, view TEXT NOT NULL, features TEXT NOT NULL, "
    "UNIQUE (view, features))",
    "CREATE TABLE entries (view TEXT NOT NULL, key NOT NULL, event INTEGER NOT NULL, created INTEGER NOT NULL, "
    "layout INTEGER NOT NULL, packed BLOB NOT NULL, PRIMARY KEY (view, key)) WITHOUT ROWID",
    "CREATE TABLE watermarks (view TEXT PRIMARY KEY, event INTEGER NOT NULL, ingested INTEGER)",
)

_UPSERT = """
INSERT INTO entries (view, key, event, created, layout, packed) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (view, key) DO UPDATE SET
    event = excluded.event, created = excluded.created, layout = excluded.layout, packed = excluded.packed
WHERE (excluded.event, excluded.created) >= (entries.event, entries.created)
"""

_ADVANCE = """
INSERT INTO watermarks (view, event, ingested) VALUES (?, ?, ?)
ON CONFLICT (view) DO UPDATE SET
    event = max(event, excluded.event),
    ingested = coalesce(max(ingested, excluded.ingested), ingested, excluded.ingested)
"""


class OutdatedStore(DataError, sqlite3.DatabaseError):
    """The file has the layout of another version; the next materialization replaces it."""


class PackedStore:
    """Values of entities, by view. One writer and any number of readers may have the file open.

    Args:
        path: the SQLite file; made when it is opened for writing. A file of another version is then replaced.
        read_only: never write. A file that is not there then answers as an empty store, and is looked for again
            at each read, so that a service may start before the first materialization.
    """

    def __init__(self, path: Path, read_only: bool = False) -> None:
        self.path = path
        self.read_only = read_only
        self._connection: sqlite3.Connection | None = None
        self._layouts: dict[int, RowLayout] = {}
        self._readers: dict[tuple[str, ...], dict[int, Callable[[bytes], list[Value | None]]]] = {}
        if not read_only:
            self._connection = _open_for_writing(path)

    def write(self, view: str, layout: RowLayout, rows: Iterable[Row]) -> int:
        """Write rows in one transaction; missing values are None or NaN.

        Returns:
            How many rows were written: those that are not older than what the store has.
        """
        pack = layout.pack
        return self._write(view, layout, ((key, event, created, pack(values)) for key, event, created, values in rows))

    def write_packed(
        self,
        view: str,
        layout: RowLayout,
        keys: Sequence[Key],
        events: Sequence[int],
        created: Sequence[int],
        blobs: Iterable[bytes],
        progress: Callable[[int], Any] | None = None,
        replaced_until: int | None = None,
    ) -> int:
        """Write rows that ``layout`` packed already, in one transaction; ``progress`` is told how many were seen.

        Given ``replaced_until`` (microseconds since 1970), nothing else is left of the view up to then.

        Returns:
            How many rows were written: those that are not older than what the store has.
        """
        return self._write(view, layout, zip(keys, events, created, blobs, strict=True), progress, replaced_until)

    def _write(
        self,
        view: str,
        layout: RowLayout,
        rows: Iterable[tuple[Key, int, int, bytes]],
        progress: Callable[[int], Any] | None = None,
        replaced_until: int | None = None,
    ) -> int:
        connection = self._writable()
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            if replaced_until is not None:
                connection.execute("DELETE FROM entries WHERE view = ? AND event <= ?", (view, replaced_until))
            number = _layout(connection, view, layout)
            entries = ((view, key, event, created, number, blob) for key, event, created, blob in rows)
            written = 0
            while batch := list(islice(entries, _BATCH)):
                written += connection.executemany(_UPSERT, batch).rowcount
                if progress:
                    progress(len(batch))
        return written

    def read(
        self, view: str, keys: Sequence[Key], features: Sequence[str]
    ) -> dict[Key, tuple[int, list[Value | None]]]:
        """The latest value of each entity that the store has; unknown entities are left out.

        Returns:
            For each key, its event time (microseconds since 1970, UTC) and its values in the order of ``features``
            (None: missing, or a feature that the stored row does not have).

        Raises:
            OutdatedStore: the file is of another version.
        """
        asked = tuple(features)
        readers = self._readers.setdefault(asked, {})
        found: dict[Key, tuple[int, list[Value | None]]] = {}
        for connection, rows in self._rows(view, keys):
            for key, event, layout, packed in rows:
                reader = readers.get(layout)
                if reader is None:
                    reader = readers[layout] = self._layout(connection, layout).reader(asked)
                found[key] = (event, reader(packed))
        return found

    def read_rows(self, view: str, keys: Sequence[Key]) -> dict[Key, tuple[int, RowLayout, bytes]]:
        """Each known entity's event time, with its row as it is stored and the layout that unpacks it.

        Raises:
            OutdatedStore: the file is of another version.
        """
        return {
            key: (event, self._layout(connection, layout), packed)
            for connection, rows in self._rows(view, keys)
            for key, event, layout, packed in rows
        }

    def watermark(self, view: str) -> Watermark | None:
        """How far the view is complete; None when nobody said."""
        connection = self._readable()
        if connection is None:
            return None
        row = connection.execute("SELECT event, ingested FROM watermarks WHERE view = ?", (view,)).fetchone()
        return None if row is None else Watermark(*row)

    def advance(self, view: str, event: int, ingested: int | None = None) -> None:
        """Say how far the view is complete (microseconds since 1970, UTC); neither watermark ever moves back."""
        self._writable().execute(_ADVANCE, (view, event, ingested))

    def drop(self, view: str) -> None:
        """Forget a view with all its entities."""
        with self._writable() as connection:
            connection.execute("BEGIN IMMEDIATE")
            # Its layouts stay: a reader may just have read a row, and looks the row's layout up afterwards.
            for table in ("entries", "watermarks"):
                connection.execute(f"DELETE FROM {table} WHERE view = ?", (view,))

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

    def _rows(self, view: str, keys: Sequence[Key]) -> Iterator[tuple[sqlite3.Connection, list[Any]]]:
        connection = self._readable()
        if connection is None:
            return
        distinct = list(dict.fromkeys(keys))
        for start in range(0, len(distinct), _CHUNK):
            chunk = distinct[start : start + _CHUNK]
            yield connection, connection.execute(_select(len(chunk)), [view, *chunk]).fetchall()

    def _layout(self, connection: sqlite3.Connection, number: int) -> RowLayout:
        known = self._layouts.get(number)
        if known is None:
            # A writer of another version may have replaced the tables: its numbers are all new, so it is seen here.
            row = connection.execute("SELECT features FROM layouts WHERE id = ?", (number,)).fetchone()
            version = _version(connection)
            if row is None or version != VERSION:
                raise _outdated(self.path, version)
            known = self._layouts[number] = RowLayout.from_json(row[0])
        return known


def _select(keys: int) -> str:
    return f"SELECT key, event, layout, packed FROM entries WHERE view = ? AND key IN ({','.join('?' * keys)})"


def _open_for_writing(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Autocommit between explicit transactions; a service may use the connection from a worker thread.
    connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    log_ahead(connection)
    connection.execute("PRAGMA synchronous = NORMAL")
    if _version(connection) != VERSION:
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            if _version(connection) != VERSION:  # nobody else did it in between
                _start_anew(connection)
    return connection


def _start_anew(connection: sqlite3.Connection) -> None:
    used = _used_layouts(connection)
    for name in _tables(connection):
        connection.execute(f'DROP TABLE "{name}"')
    for table in _TABLES:
        connection.execute(table)
    # Readers that have the file open know layouts by their numbers: none may come to mean another one.
    connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('layouts', ?)", (used,))
    connection.execute(f"PRAGMA user_version = {VERSION}")


def _used_layouts(connection: sqlite3.Connection) -> int:
    """The greatest number that a layout of the file ever had."""
    found = [0]
    for query in ("SELECT seq FROM sqlite_sequence WHERE name = 'layouts'", "SELECT max(id) FROM layouts"):
        with suppress(sqlite3.OperationalError):  # a file of another version need not have it
            found += [int(number) for (number,) in connection.execute(query) if number is not None]
    return max(found)


def _open_for_reading(path: Path) -> sqlite3.Connection | None:
    address = f"{path.resolve().as_uri()}?mode=ro"
    connection = sqlite3.connect(address, uri=True, timeout=5, isolation_level=None, check_same_thread=False)
    try:
        with connection:
            connection.execute("BEGIN")  # one view of the file: a writer may be making it just now
            version, empty = _version(connection), not _tables(connection)
    except sqlite3.Error:
        connection.close()
        raise
    if version == VERSION:
        return connection
    connection.close()
    if empty:  # the writer makes the file before its tables
        return None
    raise _outdated(path, version)


def _outdated(path: Path, version: int) -> OutdatedStore:
    if version == VERSION:
        return OutdatedStore(f"The online store {path.name} was replaced while it was read. Read again.")
    return OutdatedStore(
        f"The online store {path.name} has layout {version}, this version reads {VERSION}. Materialize again."
    )


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _tables(connection: sqlite3.Connection) -> list[str]:
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    return [name for (name,) in connection.execute(query)]


def _layout(connection: sqlite3.Connection, view: str, layout: RowLayout) -> int:
    """The number of a view's layout; one that was never seen gets a new one."""
    text = layout.to_json()
    connection.execute("INSERT OR IGNORE INTO layouts (view, features) VALUES (?, ?)", (view, text))
    row = connection.execute("SELECT id FROM layouts WHERE view = ? AND features = ?", (view, text)).fetchone()
    return int(row[0])
