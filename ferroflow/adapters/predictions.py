"""The prediction log: what was asked, what was fed to the model, what was answered, and the label that came later.

One SQLite file a pipeline (WAL, ``synchronous=FULL``): a row that ``append`` returned for survives a power cut.
Imported by the prediction service: the standard library and Polars only.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from ferroflow.adapters.write_ahead import log_ahead

_SCHEMA = """
CREATE TABLE IF NOT EXISTS predictions (
    id TEXT PRIMARY KEY, at INTEGER NOT NULL, version TEXT NOT NULL, event_time INTEGER, inputs TEXT NOT NULL,
    features TEXT NOT NULL, prediction REAL NOT NULL, degraded INTEGER NOT NULL, watermarks TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS predictions_by_moment ON predictions (coalesce(event_time, at));
CREATE TABLE IF NOT EXISTS labels (
    id TEXT PRIMARY KEY REFERENCES predictions (id), value REAL NOT NULL, labelled_at INTEGER NOT NULL
) WITHOUT ROWID;
"""
_COLUMNS = ("id", "at", "version", "event_time", "inputs", "features", "prediction", "degraded", "watermarks")
_INSERT = f"INSERT INTO predictions ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_SELECTED = ", ".join(f"p.{name}" for name in _COLUMNS)
_SELECT = f"SELECT {_SELECTED}, l.value, l.labelled_at FROM predictions p LEFT JOIN labels l USING (id)"
_MOMENT = "coalesce(p.event_time, p.at)"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = pl.Datetime("us", "UTC")
_FRAME: dict[str, Any] = {
    "id": pl.String,
    "at": pl.Int64,
    "version": pl.String,
    "event_time": pl.Int64,
    "inputs": pl.String,
    "features": pl.String,
    "prediction": pl.Float64,
    "degraded": pl.Boolean,
    "watermarks": pl.String,
    "label": pl.Float64,
    "labelled_at": pl.Int64,
}
_BUSY_SECONDS = 5.0


class PredictionLog:
    """The log of one pipeline. Asking makes no file; the first ``append`` does.

    One object may be used by several threads, one file by several processes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._inode: int | None = None

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep predictions, all or none; when this returns they are on the disk.

        Args:
            rows: ``id``, ``at`` (UTC), ``version``, ``event_time`` (UTC or None), ``inputs``, ``features`` and
                ``watermarks`` (JSON text), ``prediction`` and ``degraded``.

        Raises:
            sqlite3.Error: the log cannot be written, or an id is already there.
        """
        values = [tuple(_stored(row.get(name, "{}")) for name in _COLUMNS) for row in rows]
        with self._lock:
            connection = self._writer()
            try:
                with connection:
                    connection.execute("BEGIN IMMEDIATE")
                    connection.executemany(_INSERT, values)
            except sqlite3.IntegrityError:
                raise
            except sqlite3.Error:
                self._forget()  # the next attempt starts from a fresh connection
                raise

    def add_labels(self, labels: Iterable[tuple[str, float]], at: datetime) -> tuple[int, list[str], list[str]]:
        """Keep true values: target units, or 1 and 0 for a class; the first one told for an id stays.

        Returns:
            How many were kept, the ids that are in no log, and the ids that had a label already.
        """
        accepted, unknown, repeated = 0, [], []
        pairs = list(labels)
        if not self.path.exists():
            return 0, [name for name, _ in pairs], []
        with self._lock:
            connection = self._writer()
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                for name, value in pairs:
                    if connection.execute("SELECT 1 FROM predictions WHERE id = ?", (name,)).fetchone() is None:
                        unknown.append(name)
                        continue
                    told = connection.execute(
                        "INSERT INTO labels VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (name, value, microseconds(at))
                    )
                    if told.rowcount:
                        accepted += 1
                    else:
                        repeated.append(name)
        return accepted, unknown, repeated

    def read(self, since: datetime | None = None, until: datetime | None = None) -> pl.DataFrame:
        """Predictions whose moment (event time where there is one, else ``at``) lies in ``[since, until)``.

        Returns:
            ``id, at, version, event_time, inputs, features, prediction, degraded, watermarks, label, labelled_at``,
            oldest moment first; times in UTC, JSON as text; empty when there is no log.
        """
        low = -(2**63) if since is None else microseconds(since)
        high = 2**63 - 1 if until is None else microseconds(until)
        query = f"{_SELECT} WHERE {_MOMENT} >= ? AND {_MOMENT} < ? ORDER BY {_MOMENT}, p.id"
        return _frame(self._query(query, (low, high)))

    def newest(self, until: datetime) -> datetime | None:
        """The latest event time (UTC) not after ``until`` that a prediction was asked for; None when there is none."""
        query = (
            f"SELECT p.event_time FROM predictions p WHERE {_MOMENT} <= ? AND p.event_time IS NOT NULL "
            f"ORDER BY {_MOMENT} DESC LIMIT 1"
        )
        rows = self._query(query, (microseconds(until),))
        return _EPOCH + timedelta(microseconds=rows[0][0]) if rows else None

    def get(self, prediction_id: str) -> dict[str, Any] | None:
        """One prediction with its label, as a row of ``read``; None when it is not here."""
        rows = self._query(f"{_SELECT} WHERE p.id = ?", (prediction_id,))
        return _frame(rows).row(0, named=True) if rows else None

    def close(self) -> None:
        """Let go of the file; it is opened again when needed."""
        with self._lock:
            self._forget()

    def _query(self, query: str, values: tuple[Any, ...]) -> list[Any]:
        if not self.path.exists():
            return []
        address = f"{self.path.absolute().as_uri()}?mode=ro"  # quoted: a home may hold '#', '?' or '%'
        with closing(sqlite3.connect(address, uri=True, timeout=_BUSY_SECONDS)) as connection:
            try:
                return connection.execute(query, values).fetchall()
            except sqlite3.OperationalError as error:
                # Another process is just making the file: it has no table yet, hence no row.
                if "no such table" in str(error):
                    return []
                raise

    def _writer(self) -> sqlite3.Connection:
        if self._connection is not None and self._inode != _inode(self.path):
            # The file was moved or deleted: rows written to it would be acknowledged and lost.
            self._forget()
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(
                self.path, timeout=_BUSY_SECONDS, check_same_thread=False, isolation_level=None
            )
            log_ahead(connection, _BUSY_SECONDS)
            connection.execute("PRAGMA synchronous=FULL")
            connection.executescript(_SCHEMA)
            self._connection, self._inode = connection, _inode(self.path)
        return self._connection

    def _forget(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._inode = None


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970 of a moment (UTC-aware), exactly."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _stored(value: Any) -> Any:
    if isinstance(value, datetime):
        return microseconds(value)
    return int(value) if isinstance(value, bool) else value


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _frame(rows: list[Any]) -> pl.DataFrame:
    columns = list(zip(*rows, strict=True)) or [()] * len(_FRAME)
    data = {
        name: pl.Series(name, values, dtype=pl.Int64 if kind == pl.Boolean else kind)
        for (name, kind), values in zip(_FRAME.items(), columns, strict=True)
    }
    return pl.DataFrame(data).with_columns(
        pl.col("at", "event_time", "labelled_at").cast(_TIME), pl.col("degraded").cast(pl.Boolean)
    )
