"""Read what is new in a table as one batch, in one reading transaction.

Rows are read from the watermark (less the look-back) up to the highest value that the incremental column has when the
run begins; the boundary itself is read again, because a row with an equal value may have been committed late. What was
taken before is left out by the hash of the whole row, as often as it was taken. A row without a value in that column
stands beyond every watermark: it is looked for by every run, and taken once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import polars as pl

from ferroflow.adapters.sources.connections import address_of
from ferroflow.adapters.sources.download import Progress
from ferroflow.adapters.sources.journal import Journal
from ferroflow.adapters.sources.taken_rows import TakenRows, rows_taken, same_rows
from ferroflow.adapters.sources.watermarks import Mark, below, read, written
from ferroflow.core.errors import SchemaError, SpecError
from ferroflow.core.records import Part
from ferroflow.core.sources import Table, reserved

_ENOUGH = 32 * 2**20  # bytes of rows that are looked up together


@dataclass(frozen=True)
class Window:
    """Which rows are read: those of ``lower`` to ``upper``, and with ``nulls`` those that have no such value."""

    since: str
    lower: Mark | None
    upper: Mark | None
    nulls: bool

    def condition(self, column: str, lower: str, upper: str) -> str:
        """The window in SQL, for a quoted column and what stands for the two bounds."""
        bounds = [f"{column} >= {lower}"] if self.lower is not None else []
        bounds += [f"{column} <= {upper}"] if self.upper is not None else []
        wanted = [" AND ".join(bounds)] if bounds else []
        wanted += [f"{column} IS NULL"] if self.nulls else []
        return "(" + ") OR (".join(wanted) + ")"


class Reading(Protocol):
    """A database within one reading transaction."""

    def highest(self, since: str) -> tuple[Mark | None, bool]:
        """The highest value of a column (None: it has none), and whether any row is without one."""

    def rows(self, window: Window | None) -> Iterator[pl.DataFrame]:
        """The rows of a window in the order of its column; of the whole table without one. All of one schema."""


def take_table(table: Table, journal: Journal, now: datetime, progress: Progress | None) -> list[Part]:
    """Read what is new; give the parts of all batches so far, of a table without ``since`` the last one only.

    Raises:
        SourceUnavailable: the server cannot be reached, or stops answering.
        SpecError: there is no such table, column or kind of database.
        SchemaError: the incremental column holds what cannot be ordered, or a column what cannot be kept exactly.
    """
    if table.since is None:
        with _opened(table) as reading:
            return _whole(reading, journal, now, progress)
    known = journal.parts()
    with _opened(table) as reading:
        new = _new(table, table.since, reading, journal, known, now, progress)
    return known if new is None else [*known, new]


def _new(
    table: Table,
    since: str,
    reading: Reading,
    journal: Journal,
    known: list[Part],
    now: datetime,
    progress: Progress | None,
) -> Part | None:
    watermark = known[-1].upto or "" if known else ""
    upper, nulls = reading.highest(since)
    if upper is None and not nulls:
        return None
    mark = read(watermark, upper) if watermark and upper is not None else None
    if mark is not None and isinstance(upper, str):
        _check_text(known[-1], since, watermark)
    lower = None if mark is None else below(mark, table.lookback)
    window = Window(since, lower, upper, nulls)
    frames = _told(reading.rows(window), journal.name, progress)
    if known:
        taken = rows_taken(known, journal.home, since, "" if lower is None else lower, nulls=nulls)
        frames = _untaken(frames, taken)
    upto = watermark if upper is None or (mark is not None and mark > upper) else written(upper)  # type: ignore[operator]
    return journal.append(frames, after=len(known), since=watermark or None, upto=upto, now=now)


def _check_text(last: Part, since: str, watermark: str) -> None:
    """A number or time as text would be compared letter by letter."""
    if last.columns[since] != "String":
        raise SchemaError(
            f"The incremental column {since!r} was read up to {watermark!r} as {last.columns[since]}, and holds text "
            f"now. Name another column in since=, or read the table under a new name."
        )


def _untaken(frames: Iterator[pl.DataFrame], taken: TakenRows) -> Iterator[pl.DataFrame]:
    for frame in _larger(frames):
        yield taken.new(frame)


def _larger(frames: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The same rows in fewer frames: each is joined with all rows that were taken."""
    held: list[pl.DataFrame] = []
    for frame in frames:
        held.append(frame)
        if sum(one.estimated_size() for one in held) > _ENOUGH:
            yield pl.concat(held)
            held = []
    if held:
        yield pl.concat(held)


def _whole(reading: Reading, journal: Journal, now: datetime, progress: Progress | None) -> list[Part]:
    """The table as it is now: the last part when that holds the same rows, else a new one."""
    number, last = journal.newest()
    new = journal.draft(_told(reading.rows(None), journal.name, progress), after=number, now=now)
    if new is None:
        return []
    if last is not None and same_rows(last, new, journal.home):
        journal.home.absolute(new.path).unlink()
        return [last]
    journal.vouch(new, after=number)
    return [new]


def _told(frames: Iterator[pl.DataFrame], name: str, progress: Progress | None) -> Iterator[pl.DataFrame]:
    size = 0
    for frame in frames:
        if progress is not None:
            size += int(frame.estimated_size())
            progress(name, size, None)
        yield frame


# ----------------------------------------------------------------------------------------------------------- databases


def _opened(table: Table) -> AbstractContextManager[Reading]:
    address = address_of(table.url)
    kind = address.partition(":")[0]
    relation = _relation(table, '"')
    if kind == "sqlite":
        from ferroflow.adapters.sources import sqlite

        return sqlite.opened(address, relation)
    if kind in ("postgresql", "postgres"):
        from ferroflow.adapters.sources import postgres

        return postgres.opened(address, relation)
    if kind in ("mysql", "mariadb"):
        from ferroflow.adapters.sources import mysql

        return mysql.opened("mysql" + address.removeprefix(kind), _relation(table, "`"))
    raise SpecError(
        f"Table(url=...) begins with {kind!r}. Known: sqlite://, postgresql://, mysql://, or env:NAME for a variable "
        f"that holds one of them."
    )


def _relation(table: Table, quote: str) -> str:
    """What stands after FROM: each part of the name quoted, or the query in brackets."""
    if table.query is not None:
        return f"({table.query.strip().rstrip(';')}\n) AS q"  # a comment at its end must not take the bracket along
    return ".".join(quoted(part, quote) for part in (table.name or "").split("."))


def quoted(name: str, quote: str = '"') -> str:
    """A name as SQL takes it for a name, whatever is in it."""
    return quote + name.replace(quote, quote * 2) + quote


def checked(names: Sequence[str], since: str | None = None) -> list[str]:
    """The names of a table's columns.

    Raises:
        SchemaError: one is there twice, or is a reserved one; or there is no incremental column of that name.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    ours = reserved(names)
    if twice or ours:
        told = f"{', '.join(ours)} is kept for Ferroflow" if ours else "each needs a name of its own"
        raise SchemaError(
            f"The table has columns {', '.join(names)}: {told}. Rename them in Table(query='SELECT ... AS ...')."
        )
    if since is not None and since not in names:
        raise SpecError(f"Table(since={since!r}): there is no such column. There are: {', '.join(names)}.")
    return list(names)


def unordered(since: str, what: str) -> SchemaError:
    """The error of an incremental column that cannot be one."""
    return SchemaError(
        f"The incremental column {since!r} holds {what}; numbers, dates, times or ISO texts can be ordered. Name "
        f"another column in since=, or leave it out to read the whole table by each run."
    )
