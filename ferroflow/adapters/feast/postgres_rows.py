"""Online rows in PostgreSQL as Feast lays them out: a table a view, a row a feature of an entity."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql

from ferroflow.adapters.feast import keys as entity_keys
from ferroflow.adapters.feast.connections import Connections
from ferroflow.adapters.feast.plan import (
    Entry,
    Key,
    OnlineStoreAway,
    PostgresPlan,
    ReadPlan,
    ViewPlan,
    postgres_table,
)
from ferroflow.adapters.feast.rows import Watermark
from ferroflow.adapters.feast.values import decode
from ferroflow.core.errors import DataError, SpecError

WATERMARKS = "ferroflow_watermarks"
"""The table of all views' watermarks: project, view, event, ingested."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class PostgresRows:
    """Rows of a plan whose store is PostgreSQL: one prepared statement a view, one read-only connection a thread.

    A connection that was lost is made again once. After a failure the server is left in peace for ``rest_seconds``.

    Args:
        connect_seconds: how long a connection may take (whole seconds).
        read_seconds: how long a statement may take.

    Raises:
        SpecError: the plan is of another store, its address lacks a part, or a view's table has too long a name.
    """

    def __init__(
        self,
        plan: ReadPlan,
        connect_seconds: int = 2,
        read_seconds: float = 1.0,
        rest_seconds: float = 0.25,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not isinstance(plan.store, PostgresPlan):
            raise SpecError(f"The plan's store is {plan.store.type!r}; rows in PostgreSQL need 'postgres'.")
        self.plan = plan
        self.rest_seconds = rest_seconds
        self._shown, self._address = plan.store.shown, plan.store.address
        self._clock = clock
        self._connect_seconds = connect_seconds
        self._silent_ms = int(read_seconds * 2000)
        self._options = (
            f"-c statement_timeout={int(read_seconds * 1000)} -c default_transaction_read_only=on "
            f"-c search_path={_escaped(plan.store.schema_name)} -c TimeZone=UTC"
        )
        self._local = threading.local()
        self._open = Connections()
        self._away_until = 0.0
        self._views = {view.view: _View(plan, view) for view in plan.views}

    def read(self, view: str, keys: Sequence[Key], features: Sequence[str]) -> Mapping[Key, Entry]:
        """The newest row of each entity that is there; None for a feature whose event time is older than the newest.

        Raises:
            OnlineStoreAway: PostgreSQL does not answer, not in time, or has no such table.
            DataError: a key is of another type than the plan says, or a stored value is none of Feast's.
        """
        reader = self._views.get(view)
        if reader is None:
            reader = self._views[view] = _View(self.plan, self.plan.of(view))
        by_bytes = {reader.key(key): key for key in keys}
        if not by_bytes:
            return {}
        rows = self._ask(reader.query, (list(features), list(by_bytes)))
        return reader.entries(rows, by_bytes, features)

    def watermark(self, view: str) -> Watermark | None:
        """How far the view is complete; None when nobody said."""
        try:
            found = self._ask(_WATERMARK, (self.plan.project, self.plan.of(view).table))
        except OnlineStoreAway as error:
            if isinstance(error.__cause__, psycopg.errors.UndefinedTable):
                return None
            raise
        return Watermark(*found[0]) if found else None

    def close(self) -> None:
        """Give the connections back; a later read makes new ones."""
        self._local = threading.local()  # first: who connects meanwhile keeps what it made
        self._open.close()

    def _ask(self, query: sql.Composed, given: Sequence[Any]) -> list[Any]:
        if self._clock() < self._away_until:
            raise OnlineStoreAway(f"The online store {self._shown} is away; it is asked again soon.")
        try:
            return self._answer(query, given)
        except psycopg.errors.QueryCanceled as error:
            raise self._refused(error) from error
        except psycopg.OperationalError as lost:
            try:
                return self._answer(query, given)
            except psycopg.OperationalError as error:
                self._away_until = self._clock() + self.rest_seconds
                raise self._refused(error) from lost
        except psycopg.Error as error:
            raise self._refused(error) from error

    def _answer(self, query: sql.Composed, given: Sequence[Any]) -> list[Any]:
        with self._cursor() as cursor:
            return cursor.execute(query, given, prepare=True).fetchall()

    def _cursor(self) -> psycopg.Cursor[Any]:
        """On this thread's connection, in this process: a fork must not share it."""
        local = self._local
        if getattr(local, "process", None) != os.getpid() or local.connection.closed:
            # Autocommit: a statement is a transaction, and none is left open.
            given = self._address.keywords | {
                "autocommit": True,
                "connect_timeout": self._connect_seconds,
                "tcp_user_timeout": self._silent_ms,  # a machine that vanished cancels no statement
                "options": self._options,
            }
            local.connection = psycopg.connect(**given)
            local.process = os.getpid()
            local.mark = self._open.add(local.connection.close)
        connection: psycopg.Connection[Any] = local.connection
        return connection.cursor(binary=True)

    def _refused(self, error: psycopg.Error) -> OnlineStoreAway:
        told = self._address.without_password(str(error)).strip().partition("\n")[0]
        return OnlineStoreAway(f"The online store {self._shown} gives no rows: {told}")


_WATERMARK = sql.SQL("SELECT event, ingested FROM {} WHERE project = %s AND view = %s").format(
    sql.Identifier(WATERMARKS)
)


# Each feature has an event time of its own; they are told where an entity's are not all the same. The features that are
# not asked for count too: whether a value is of the newest row must not depend on who asks.
_QUERY = """
SELECT entity_key, max(event_ts), array_agg(feature_name) FILTER (WHERE asked), array_agg(value) FILTER (WHERE asked),
    CASE WHEN min(event_ts) < max(event_ts) THEN array_agg(event_ts) FILTER (WHERE asked) END
FROM (SELECT *, feature_name = ANY(%b) AS asked FROM {} WHERE entity_key = ANY(%b)) AS known
GROUP BY entity_key
"""


class _View:
    """The statement that reads a view, and what makes entries of its rows."""

    def __init__(self, plan: ReadPlan, view: ViewPlan) -> None:
        # The answer has one row an entity: fewer rows cost both sides less.
        self.query = sql.SQL(_QUERY).format(sql.Identifier(postgres_table(plan.project, view)))
        self._single = entity_keys.single_encoder(view.keys[0].name, view.keys[0].kind) if len(view.keys) == 1 else None

    def key(self, key: Key) -> bytes:
        if isinstance(key, bytes):
            return key
        if self._single is None:
            raise DataError(f"The key {key!r} is one value where the view has several. Give the serialized entity key.")
        return self._single(key)

    def entries(self, rows: Sequence[Any], by_bytes: Mapping[bytes, Key], features: Sequence[str]) -> dict[Key, Entry]:
        found: dict[Key, Entry] = {}
        for entity, moment, names, stored, moments in rows:
            if moment is None:
                continue
            values = dict(zip(names or (), stored or (), strict=True))
            for name, own in zip(names or (), moments or (), strict=False):
                if own != moment:  # of another row than the newest: together they never were
                    values[name] = None
            found[by_bytes[bytes(entity)]] = (
                (moment - _EPOCH) // _MICROSECOND,
                [decode(values.get(name)) for name in features],
            )
        return found


def _escaped(schema: str) -> str:
    """A schema as one word of libpq's options."""
    quoted = '"' + schema.replace('"', '""') + '"'
    return quoted.replace("\\", "\\\\").replace(" ", "\\ ")
