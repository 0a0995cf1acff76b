"""The latest rows of a view into PostgreSQL, in the table of Feast's own PostgreSQL store.

Slice by slice the rows go into a temporary table by a binary COPY, one record an entity; a statement then spreads them
over a row a feature and writes what is not older than what is there. All are one transaction: readers see all of it or
nothing. While the server works at a slice the next one is encoded here. A table that is empty is filled under a lock,
without looking for what is there, which is half of the server's work.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast import FeatureView
from feast.infra.online_stores.helpers import compute_table_id
from feast.infra.online_stores.postgres_online_store.postgres import PostgreSQLOnlineStore
from feast.repo_config import RepoConfig
from psycopg import Connection, Cursor, OperationalError, Rollback, sql
from psycopg.errors import LockNotAvailable

from ferroflow.adapters.feast.bulk_rows import LatestRows, Progress
from ferroflow.adapters.feast.encode import NULL_TIME, Ints, fixed_width, values_and_texts
from ferroflow.adapters.feast.replacement import FOREVER, replacement

_HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_END = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_EPOCH = 946_684_800_000_000  # PostgreSQL counts microseconds since 2000
_BYTEA, _TEXT = 17, 25
_FIELDS = struct.pack(">h", 5)
_LENGTHS = [struct.pack(">I", size) for size in range(256)]

_CREATE = """
CREATE TEMPORARY TABLE ferroflow_rows (
    entity_key bytea, event_ts timestamptz, created_ts timestamptz, contents bytea[], texts text[]
) ON COMMIT DROP
"""
_COPY = "COPY ferroflow_rows FROM STDIN (FORMAT BINARY)"
_EMPTY = "TRUNCATE ferroflow_rows"
_INSERT = """
INSERT INTO {table} AS known (entity_key, feature_name, value, value_text, event_ts, created_ts)
SELECT latest.entity_key, feature.name, feature.value, feature.value_text, latest.event_ts, latest.created_ts
FROM (
    SELECT DISTINCT ON (entity_key) * FROM ferroflow_rows
    ORDER BY entity_key, event_ts DESC, created_ts DESC NULLS LAST
) AS latest, unnest(%s::text[], latest.contents, latest.texts) AS feature (name, value, value_text)
"""
_UPSERT = f"""{_INSERT}ON CONFLICT (entity_key, feature_name) DO UPDATE SET
    value = excluded.value, value_text = excluded.value_text, vector_value = excluded.vector_value,
    event_ts = excluded.event_ts, created_ts = excluded.created_ts
WHERE (excluded.event_ts, coalesce(excluded.created_ts, '-infinity'))
    >= (coalesce(known.event_ts, '-infinity'), coalesce(known.created_ts, '-infinity'))
"""


_REPLACED = """
DELETE FROM {table} WHERE %s::bigint = %s::bigint OR event_ts IS NULL
    OR event_ts <= timestamptz 'epoch' + %s * interval '1 microsecond'
"""
_IS_EMPTY = "SELECT NOT EXISTS (SELECT FROM {table})"
# Other writers wait until we are done; readers do not. Where one is at work already, nobody waits: we upsert.
_LOCK = "LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE NOWAIT"


def can_write(store: PostgreSQLOnlineStore, config: RepoConfig, view: FeatureView) -> bool:
    """Whether the view's table is the plain one: without vectors, and without numbers to search by."""
    if config.online_store.vector_enabled or config.online_store.enable_openai_compatible_store:
        return False
    with _connected(store, config) as connection, connection.transaction(), connection.cursor() as cursor:
        return not store._check_table_has_value_num(cursor, _table(config, view), config)


def write(
    store: PostgreSQLOnlineStore, config: RepoConfig, view: FeatureView, rows: LatestRows, progress: Progress
) -> int:
    """Write the rows in one transaction, through the store's own connection.

    Returns:
        How many rows of the table were written (a row is one feature of one entity).

    Raises:
        psycopg.Error: PostgreSQL is away or refuses; nothing was written then.
    """
    with _connected(store, config) as connection, connection.transaction():
        return _upserted(connection, _table(config, view), rows, progress)


@contextmanager
def _connected(store: PostgreSQLOnlineStore, config: RepoConfig) -> Iterator[Connection]:
    """The store's connection, given back to its pool whatever happens; a new one where it was lost meanwhile."""
    manager = store._get_conn(config)
    connection = manager.__enter__()
    if _is_lost(connection):
        manager.__exit__(None, None, None)  # a pool throws it away
        store._conn = None
        manager = store._get_conn(config)
        connection = manager.__enter__()
    try:
        yield connection
    finally:
        # Not with the error: Feast gives a connection back only where none passes through.
        manager.__exit__(None, None, None)


def _is_lost(connection: Connection) -> bool:
    """Whether the server ended the connection: it is asked, for nothing else tells."""
    try:
        connection.execute("SELECT 1")
        connection.rollback()  # of a transaction that psycopg began
    except OperationalError:
        return True
    return False


def _table(config: RepoConfig, view: FeatureView) -> str:
    found: str = compute_table_id(config.project, view, config.registry.enable_online_feature_view_versioning)
    return found


def _upserted(connection: Connection, table: str, rows: LatestRows, progress: Progress) -> int:
    ordered, distinct = _in_order(rows)
    place, features = sql.Identifier(table), list(rows.features)
    if (replaced := replacement()) is not None:
        connection.execute(sql.SQL(_REPLACED).format(table=place), (replaced.until, FOREVER, replaced.until))
    statement = sql.SQL(_INSERT if distinct and _is_ours(connection, place) else _UPSERT).format(table=place)

    def send(cursor: Cursor, records: bytes) -> int:
        with cursor.copy(_COPY) as copy:
            copy.write(records)
        written = cursor.execute(statement, (features,)).rowcount
        cursor.execute(_EMPTY)
        return written

    written, sent = 0, deque[tuple[int, Future[int]]]()
    with connection.cursor() as cursor, ThreadPoolExecutor(1, "postgres") as server:
        cursor.execute(_CREATE)
        for part in ordered.slices():
            records = b"".join((_HEADER, *_records(part), _END))
            if sent:  # one slice ahead, no more: they take memory
                written += _answered(sent, progress)
            sent.append((len(part), server.submit(send, cursor, records)))
        while sent:
            written += _answered(sent, progress)
    return written


def _is_ours(connection: Connection, table: sql.Identifier) -> bool:
    """Whether the table is empty, and no other writer comes before this transaction ends."""

    def is_empty() -> bool:
        row = connection.execute(sql.SQL(_IS_EMPTY).format(table=table)).fetchone()
        return bool(row and row[0])

    if is_empty():
        with suppress(LockNotAvailable), connection.transaction():
            connection.execute(sql.SQL(_LOCK).format(table=table))
            if is_empty():  # nobody wrote before we had the lock
                return True
            raise Rollback  # which gives the lock back
    return False


def _answered(sent: deque[tuple[int, Future[int]]], progress: Progress) -> int:
    rows, answer = sent.popleft()
    written = answer.result()
    progress(rows)
    return written


def _in_order(rows: LatestRows) -> tuple[LatestRows, bool]:
    """The rows by their entity keys' bytes, so that all writers lock in one order; whether no key is there twice."""
    keys = pa.chunked_array(
        [pa.array(part.entity_keys(), pa.large_binary()) for part in rows.slices()], pa.large_binary()
    )
    distinct = len(pc.unique(keys)) == len(rows)
    return rows.taken(pc.sort_indices(keys).to_numpy().astype(np.int64)), distinct


def _records(rows: LatestRows) -> Iterator[bytes]:
    """One record an entity: key, times, the values and their texts as arrays in the features' order."""
    contents, texts = [], []
    for feature in rows.features:
        values, words = rows.of(feature, values_and_texts)
        contents.append(_framed(values))
        texts.append(_framed(None if word is None else word.encode() for word in words))
    created = [_NULL] * len(rows) if rows.created is None else _times(rows.created)
    return map(
        b"".join,
        zip(
            (_FIELDS,) * len(rows),
            _framed(rows.entity_keys()),
            _times(rows.events),
            created,
            _arrays(contents, _BYTEA),
            _arrays(texts, _TEXT),
            strict=True,
        ),
    )


def _framed(values: Iterable[bytes | None]) -> list[bytes]:
    """Each value after its length, as the binary formats have it."""
    lengths = _LENGTHS
    return [
        _NULL if value is None else (lengths[len(value)] if len(value) < 256 else struct.pack(">I", len(value))) + value
        for value in values
    ]


def _times(moments: Ints) -> list[bytes]:
    found = fixed_width(struct.pack(">I", 8), (moments - _EPOCH).astype(">i8"))
    for row in np.flatnonzero(moments == NULL_TIME).tolist():
        found[row] = _NULL
    return found


def _arrays(columns: Sequence[Sequence[bytes]], kind: int) -> list[bytes]:
    """A one-dimensional array a row, from the framed elements of each column."""
    head = struct.pack(">iIIii", 1, 1, kind, len(columns), 1)
    found = [head + b"".join(row) for row in zip(*columns, strict=True)]
    return _framed(found)
