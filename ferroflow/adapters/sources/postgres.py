"""Read PostgreSQL by ADBC. What ADBC would change is cast to text by the server: NUMERIC (its NaN is spelt otherwise),
intervals, arrays, JSON, UUIDs, times of day (24:00), money, ranges and all other types; so are dates and timestamps
where one of them is infinite or before the year 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import polars as pl

from ferroflow.adapters.sources.connections import shown, without_secrets
from ferroflow.adapters.sources.tables import Window, checked, quoted, unordered
from ferroflow.adapters.sources.watermarks import Mark, written
from ferroflow.core.errors import SourceUnavailable, SpecError

if TYPE_CHECKING:
    from adbc_driver_manager.dbapi import Connection

_EXACT = {"bool", "int2", "int4", "int8", "float4", "float8", "text", "varchar", "bpchar", "name", "bytea"}
_TIMES = {"date", "timestamp", "timestamptz"}
_MARKS: dict[str, Callable[[str], Mark]] = {
    "smallint": int,
    "integer": int,
    "bigint": int,
    "real": float,
    "double precision": float,
    "numeric": Decimal,
    "date": date.fromisoformat,
    "timestamp without time zone": datetime.fromisoformat,
    "timestamp with time zone": datetime.fromisoformat,
    "text": str,
    "character varying": str,
}
_SETTINGS = ("SET LOCAL TimeZone = 'UTC'", "SET LOCAL DateStyle = 'ISO'", "SET LOCAL synchronize_seqscans = off")


class PostgresReading:
    """A database within one read-only, repeatable-read transaction; ``relation`` stands after FROM."""

    def __init__(self, connection: Connection, address: str, relation: str) -> None:
        self._connection = connection
        self._address = address
        self._relation = relation
        self._kind = ""  # of the incremental column

    def highest(self, since: str) -> tuple[Mark | None, bool]:
        """See ``Reading``; infinite values are refused."""
        checked([name for name, _ in self._columns()], since)
        column = quoted(since)
        told = f"SELECT pg_typeof({column})::text FROM {self._relation} WHERE {column} IS NOT NULL LIMIT 1"
        none = self._one(f"SELECT EXISTS (SELECT 1 FROM {self._relation} WHERE {column} IS NULL)")[0]
        found = self._one(told)
        if found is None:
            return None, bool(none)
        self._kind = found[0]
        if self._kind not in _MARKS:
            raise unordered(since, f"values of type {self._kind}")
        top = self._one(f"SELECT MAX({self._ordered(column)})::text FROM {self._relation}")[0]
        try:
            mark = _MARKS[self._kind](top)
        except ValueError as error:
            raise unordered(since, repr(top)) from error
        if isinstance(mark, float | Decimal) and str(mark).lower() in ("nan", "inf", "infinity"):
            raise unordered(since, repr(top))
        return mark, bool(none)

    def rows(self, window: Window | None) -> Iterator[pl.DataFrame]:
        """See ``Reading``."""
        columns = self._columns()
        checked([name for name, _ in columns])
        condition = ""
        if window is not None:
            # A statement with parameters would be held whole in memory, COPY takes none: the transaction holds them.
            for name, mark in (("lower", window.lower), ("upper", window.upper)):
                if mark is not None:
                    self._one("SELECT set_config($1, $2, true)", (f"ferroflow.{name}", written(mark)))
            bounds = (f"current_setting('ferroflow.{name}')::{self._kind}" for name in ("lower", "upper"))
            column = self._ordered(quoted(window.since))
            condition = f"WHERE {window.condition(column, *bounds)} ORDER BY {column}"
        cells = self._cells(columns, condition.partition(" ORDER BY ")[0])
        yield from self._batches(f"SELECT {', '.join(cells)} FROM {self._relation} {condition}")

    def _ordered(self, column: str) -> str:
        """Texts are ordered by their bytes, as everywhere else."""
        return f'{column} COLLATE "C"' if _MARKS.get(self._kind) is str else column

    def _columns(self) -> list[tuple[str, str]]:
        """Name and type of each column."""
        import pyarrow as pa

        with self._asked(f"SELECT * FROM {self._relation} LIMIT 0") as cursor:
            schema: pa.Schema = cursor.fetch_record_batch().schema
        return [(field.name, (field.metadata or {}).get(b"POSTGRESQL:type", b"").decode()) for field in schema]

    def _cells(self, columns: list[tuple[str, str]], condition: str) -> list[str]:
        """What is selected: a column as it is where that is exact, else its text."""
        times = [quoted(name) for name, kind in columns if kind in _TIMES]
        odd: dict[str, bool | None] = {}
        if times:
            tests = (f"bool_or({name} < '0001-01-01' OR {name} > '9999-12-31')" for name in times)
            told = self._one(f"SELECT {', '.join(tests)} FROM {self._relation} {condition}")
            odd = dict(zip(times, told, strict=True))
        cells = []
        for name, kind in columns:
            column = quoted(name)
            exact = kind in _EXACT or (kind in _TIMES and not odd[column])
            cells.append(column if exact else f"{column}::text AS {column}")
        return cells

    def _one(self, statement: str, parameters: tuple[str, ...] | None = None) -> Any:
        with self._asked(statement, parameters) as cursor:
            return cursor.fetchone()

    def _batches(self, statement: str) -> Iterator[pl.DataFrame]:
        import pyarrow as pa

        with self._asked(statement) as cursor:
            for batch in cursor.fetch_record_batch():
                yield pl.DataFrame(pl.from_arrow(pa.Table.from_batches([batch])))

    @contextmanager
    def _asked(self, statement: str, parameters: tuple[str, ...] | None = None) -> Iterator[Any]:
        with translated(self._address), self._connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            yield cursor


@contextmanager
def opened(address: str, relation: str) -> Iterator[PostgresReading]:
    """A PostgreSQL database, in one transaction that can only read and sees one moment.

    Raises:
        SourceUnavailable: the server cannot be reached or refuses.
    """
    from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped]

    with translated(address):
        connection = dbapi.connect(address)
    try:
        with translated(address), connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            for setting in _SETTINGS:
                cursor.execute(setting)
        yield PostgresReading(connection, address, relation)
    finally:
        connection.close()


@contextmanager
def translated(address: str) -> Iterator[None]:
    """Turn what ADBC raises into our errors, without the address's secrets."""
    from adbc_driver_manager import Error

    try:
        yield
    except (Error, OSError) as error:
        said = without_secrets(error, address)
        if (getattr(error, "sqlstate", None) or "").startswith(("42", "22", "0A", "25")):
            raise SpecError(f"{shown(address)} cannot be read as described: {said}. Correct the Table(...).") from None
        raise SourceUnavailable(
            f"{shown(address)} cannot be read: {said}. Check that the server runs, and the address, user and password."
        ) from None
