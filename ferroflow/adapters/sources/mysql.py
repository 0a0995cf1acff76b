"""Read MariaDB and MySQL by connectorx. What connectorx would change or stumble over is cast to text by the server:
DECIMAL (it keeps 28 digits), times of day (up to 838 hours), and dates where one of them is no day of the calendar
(0000-00-00). TIMESTAMP is read as UTC.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import polars as pl

from ferroflow.adapters.sources.connections import shown, without_secrets
from ferroflow.adapters.sources.tables import Window, checked, quoted, unordered
from ferroflow.adapters.sources.watermarks import Mark, written
from ferroflow.core.errors import SettingsError, SourceUnavailable, SpecError

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH = 50_000
_SESSION = ["SET SESSION TRANSACTION READ ONLY", "SET time_zone = '+00:00'"]
_ISO = re.compile(r"[0-9A-Za-z :.,+_/-]*")
_WRONG = re.compile(r"\((42|22)\w{3}\)")  # the statement's fault, not the server's


class MysqlReading:
    """A database, read by read-only sessions; ``relation`` stands after FROM.

    connectorx opens a session for each statement, so there is no one moment that all of them see: rows that are
    committed meanwhile lie above the bound, and are taken by the next run.
    """

    def __init__(self, address: str, relation: str) -> None:
        self._address = address
        self._relation = relation

    def highest(self, since: str) -> tuple[Mark | None, bool]:
        """See ``Reading``."""
        import pyarrow as pa

        schema = self._schema()
        checked(schema.names, since)
        kind = schema.field(since).type
        column = _ordered(since, kind)
        # A 32-bit float is spelt with six digits, its double with all.
        top = f"MAX({column}) + 0e0" if pa.types.is_floating(kind) else f"MAX({column})"
        row = self._one(
            f"SELECT CAST({top} AS CHAR) AS top, "
            f"EXISTS (SELECT 1 FROM {self._relation} WHERE {column} IS NULL) AS nulls FROM {self._relation}"
        )
        text = row["top"]
        return None if text is None else _mark(since, kind, text), bool(row["nulls"])

    def rows(self, window: Window | None) -> Iterator[pl.DataFrame]:
        """See ``Reading``."""
        schema = self._schema()
        checked(schema.names)
        condition, order = "", ""
        if window is not None:
            column = _ordered(window.since, schema.field(window.since).type)
            condition = f"WHERE {window.condition(column, _literal(window.lower), _literal(window.upper))}"
            order = f"ORDER BY {column}"
        cells = self._cells(schema, condition)
        yield from self._batches(f"SELECT {', '.join(cells)} FROM {self._relation} {condition} {order}")

    def _schema(self) -> pa.Schema:
        return self._read(f"SELECT * FROM {self._relation} LIMIT 0").schema

    def _cells(self, schema: pa.Schema, condition: str) -> list[str]:
        """What is selected: a column as it is where that is exact, else its text."""
        import pyarrow as pa

        times = [quoted(field.name, "`") for field in schema if _is_day(field.type)]
        odd: dict[str, Any] = {}
        if times:
            tests = ", ".join(f"MAX({_no_day(name)}) AS t{place}" for place, name in enumerate(times))
            odd = dict(zip(times, self._one(f"SELECT {tests} FROM {self._relation} {condition}").values(), strict=True))
        cells = []
        for field in schema:
            column = quoted(field.name, "`")
            text = pa.types.is_decimal(field.type) or pa.types.is_time(field.type) or odd.get(column)
            cells.append(f"CAST({column} AS CHAR) AS {column}" if text else column)
        return cells

    def _one(self, statement: str) -> dict[str, Any]:
        with self._translated():
            rows: list[dict[str, Any]] = self._read(statement).read_all().to_pylist()
            return rows[0]

    def _batches(self, statement: str) -> Iterator[pl.DataFrame]:
        import pyarrow as pa

        with self._translated():
            for batch in self._read(statement):
                yield pl.DataFrame(pl.from_arrow(pa.Table.from_batches([batch])))

    def _read(self, statement: str) -> pa.RecordBatchReader:
        import connectorx as cx

        with self._translated():
            return cx.read_sql(
                self._address, statement, return_type="arrow_stream", batch_size=_BATCH, pre_execution_query=_SESSION
            )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what connectorx raises into our errors, without the address's secrets."""
        try:
            yield
        except BaseException as error:
            # A broken assumption inside connectorx is a PanicException, which is no Exception.
            if not isinstance(error, RuntimeError) and type(error).__name__ != "PanicException":
                raise
            said = without_secrets(error, self._address)
            if _WRONG.search(said) or "not implemented" in said:
                raise SpecError(
                    f"{shown(self._address)} cannot be read as described: {said}. Correct the Table(...); a column "
                    f"of a type without text (a geometry) needs a function in query=, such as ST_AsText(place)."
                ) from None
            raise SourceUnavailable(
                f"{shown(self._address)} cannot be read: {said}. Check that the server runs, and the address, user and "
                f"password."
            ) from None


@contextmanager
def opened(address: str, relation: str) -> Iterator[MysqlReading]:
    """A MariaDB or MySQL database, for reading only.

    Raises:
        SettingsError: the address is none.
        SourceUnavailable: nobody listens there.
    """
    try:
        parts = urlsplit(address)
        place = parts.hostname or "localhost", parts.port or 3306
    except ValueError as error:
        raise SettingsError(f"{shown(address)} is no address: {error}. Write mysql://user:password@host/db.") from error
    try:  # connectorx tries for half a minute where nobody is
        socket.create_connection(place, timeout=5).close()
    except OSError as error:
        raise SourceUnavailable(f"{shown(address)} cannot be reached: {error}. Check that the server runs.") from error
    yield MysqlReading(address, relation)


def _is_day(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_date(kind) or pa.types.is_timestamp(kind))


def _no_day(column: str) -> str:
    """SQL that is 1 where a date is none of the calendar."""
    parts = f"YEAR({column}) = 0 OR MONTH({column}) = 0 OR DAYOFMONTH({column}) = 0"
    return f"{parts} OR DAYOFMONTH({column}) > DAYOFMONTH(LAST_DAY({column}))"


def _ordered(name: str, kind: pa.DataType) -> str:
    """Texts are ordered by their bytes, as everywhere else."""
    import pyarrow as pa

    column = quoted(name, "`")
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return f"CONVERT({column} USING utf8mb4) COLLATE utf8mb4_bin"
    return column


def _mark(since: str, kind: pa.DataType, text: str) -> Mark:
    import pyarrow as pa

    try:
        if pa.types.is_integer(kind):
            return int(text)
        if pa.types.is_floating(kind):
            return float(text)
        if pa.types.is_decimal(kind):
            return Decimal(text)
        if pa.types.is_timestamp(kind):
            return datetime.fromisoformat(text)
        if pa.types.is_date(kind):
            return date.fromisoformat(text)
        if pa.types.is_string(kind) and _ISO.fullmatch(text):
            return text
    except ValueError as error:
        raise unordered(since, repr(text)) from error
    raise unordered(since, f"{text!r} ({kind})")


def _literal(mark: Mark | None) -> str:
    """A bound in SQL: connectorx takes no parameters, so it is spelt from a typed value only."""
    if mark is None:
        return "NULL"
    if isinstance(mark, float):
        text = repr(mark)
        return text if "e" in text else f"{text}e0"
    if isinstance(mark, int | Decimal):
        return f"{mark:f}" if isinstance(mark, Decimal) else str(mark)
    text = written(mark).replace("T", " ") if isinstance(mark, datetime) else written(mark)
    if not _ISO.fullmatch(text):
        raise ValueError(f"{text!r} is no ISO text")  # it was checked when it was read
    return f"'{text}'"
