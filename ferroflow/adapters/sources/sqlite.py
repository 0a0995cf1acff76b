"""Read SQLite. Any cell may have any type there, so a column's type is that of all of its cells, not the declared one.

Whole numbers stay whole, numbers of both kinds become 64-bit floats where that changes none of them, bytes stay bytes.
Any other mixture becomes text, each number as it reads back exactly. A row with bytes where the others have text, or
with text that is no UTF-8, has no lossless cells: it is kept whole as its line, with the problem, for quarantine.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import polars as pl

from ferroflow.adapters.sources.tables import Window, checked, quoted, unordered
from ferroflow.adapters.sources.watermarks import Mark
from ferroflow.core.errors import SourceUnavailable, SpecError
from ferroflow.core.validation import LINE, PROBLEM

_BATCH = 20_000
_EXACT = 2**53  # beyond it not every whole number is a 64-bit float


class _BadText(bytes):
    """A text cell that is no UTF-8."""


class SqliteReading:
    """A SQLite file within one reading transaction; ``relation`` stands after FROM."""

    def __init__(self, connection: sqlite3.Connection, address: str, relation: str) -> None:
        self._connection = connection
        self._address = address
        self._relation = relation

    def highest(self, since: str) -> tuple[Mark | None, bool]:
        """See ``Reading``; a column of texts among numbers is refused."""
        column = quoted(since)
        checked(self._names(), since)
        kinds = {row[0] for row in self._run(f"SELECT DISTINCT typeof({column}) FROM {self._relation}")}
        values = kinds - {"null"}
        if "blob" in values or ("text" in values and len(values) > 1):
            raise unordered(since, " and ".join(sorted(values)))
        top = next(self._run(f"SELECT MAX({column} COLLATE BINARY) FROM {self._relation}"))[0]
        if isinstance(top, _BadText) or top == float("inf"):
            raise unordered(since, repr(top))
        return top, "null" in kinds

    def rows(self, window: Window | None) -> Iterator[pl.DataFrame]:
        """See ``Reading``."""
        names = checked(self._names(), window.since if window else None)
        condition, bounds = "", {}
        if window is not None:
            column = f"{quoted(window.since)} COLLATE BINARY"
            condition = f"WHERE {window.condition(column, ':lower', ':upper')}"
            bounds = {"lower": _plain(window.lower), "upper": _plain(window.upper)}
        types = self._types(names, condition, bounds)
        order = f"ORDER BY {quoted(window.since)} COLLATE BINARY" if window else ""
        cursor = self._run(f"SELECT * FROM {self._relation} {condition} {order}", bounds)
        while rows := self._few(cursor):
            yield _frame(rows, types)

    def _names(self) -> list[str]:
        cursor = self._run(f"SELECT * FROM {self._relation} LIMIT 0")
        return [column[0] for column in cursor.description]

    def _types(self, names: list[str], condition: str, bounds: dict[str, Any]) -> dict[str, type[pl.DataType]]:
        """Each column's type, by all cells that are going to be read (in the same transaction)."""
        found = {}
        for name in names:
            cell = quoted(name)
            whole = f"CASE WHEN typeof({cell}) = 'integer' THEN {cell} END"
            told = f"SELECT GROUP_CONCAT(DISTINCT typeof({cell})), MIN({whole}), MAX({whole})"
            kinds, low, high = next(self._run(f"{told} FROM {self._relation} {condition}", bounds))
            exact = (low or 0) >= -_EXACT and (high or 0) <= _EXACT
            found[name] = _type(set((kinds or "").split(",")) - {"null", ""}, exact)
        return found

    def _run(self, statement: str, bounds: dict[str, Any] | None = None) -> sqlite3.Cursor:
        try:
            return self._connection.execute(statement, bounds or {})
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _few(self, cursor: sqlite3.Cursor) -> list[tuple[Any, ...]]:
        try:
            return cursor.fetchmany(_BATCH)
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _failed(self, error: sqlite3.Error) -> Exception:
        wrong = isinstance(error, sqlite3.OperationalError) and error.sqlite_errorname == "SQLITE_ERROR"
        if wrong or isinstance(error, sqlite3.ProgrammingError):
            return SpecError(f"{self._address} cannot be read as described: {error}. Correct name=, query= or since=.")
        return SourceUnavailable(f"{self._address} cannot be read: {error}. Check that it is a whole SQLite file.")


@contextmanager
def opened(address: str, relation: str) -> Iterator[SqliteReading]:
    """A SQLite file (``sqlite:///relative.db``, ``sqlite:////absolute.db``), opened for reading only.

    Raises:
        SourceUnavailable: there is no such file, or it cannot be opened.
    """
    path = Path(unquote(address.removeprefix("sqlite://").split("?")[0]).removeprefix("/"))
    if not path.is_file():
        raise SourceUnavailable(
            f"There is no SQLite file {path} (address {address}). A relative path has three slashes, an absolute one "
            f"four: sqlite:////data/shop.db."
        )
    # Polars' writer reads in a thread of its own, one at a time.
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None)) as connection:
        connection.text_factory = _text
        reading = SqliteReading(connection, address, relation)
        reading._run("BEGIN")
        yield reading


def _text(data: bytes) -> str | _BadText:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return _BadText(data)


def _plain(mark: Mark | None) -> Any:
    """A bound as SQLite compares it: what is no text must not become one."""
    return float(mark) if isinstance(mark, Decimal) else mark


def _type(kinds: set[str], exact: bool) -> type[pl.DataType]:
    if kinds == {"integer"}:
        return pl.Int64
    if kinds == {"real"} or (kinds == {"integer", "real"} and exact):
        return pl.Float64
    return pl.Binary if kinds == {"blob"} else pl.String


def _frame(rows: list[tuple[Any, ...]], types: dict[str, type[pl.DataType]]) -> pl.DataFrame:
    texts = [place for place, dtype in enumerate(types.values()) if dtype == pl.String]
    problems: list[str | None] = [None] * len(rows)
    lines: list[str | None] = [None] * len(rows)
    for number, row in enumerate(rows):
        odd = [place for place in texts if isinstance(row[place], bytes)]
        if odd:
            names = list(types)
            what = "text that is no UTF-8" if isinstance(row[odd[0]], _BadText) else "bytes among text"
            problems[number] = f"{what} in {', '.join(names[place] for place in odd)}"
            lines[number] = json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False, default=_hex)
            rows[number] = (None,) * len(row)
    columns = zip(*rows, strict=True)
    cells = [_series(name, dtype, list(column)) for (name, dtype), column in zip(types.items(), columns, strict=True)]
    return pl.DataFrame([*cells, pl.Series(PROBLEM, problems, pl.String), pl.Series(LINE, lines, pl.String)])


def _series(name: str, dtype: type[pl.DataType], cells: list[Any]) -> pl.Series:
    if dtype == pl.String:
        cells = [cell if cell is None or isinstance(cell, str) else repr(cell) for cell in cells]
    if dtype == pl.Float64:
        cells = [None if cell is None else float(cell) for cell in cells]
    return pl.Series(name, cells, dtype)


def _hex(cell: bytes) -> dict[str, str]:
    return {"hex": cell.hex()}
