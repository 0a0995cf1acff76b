"""Columns that hold a moment, in whatever form, and how ``derive`` makes an event time of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import polars as pl

EVENT_AT = ("event_at", "event_time", "happened_at", "event_at_utc")
"""Names of the derived event time: the first that no column has."""

_DATES = ("%Y-%m-%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%Y/%m/%d", "%d-%m-%Y", "%Y%m%d", "%d-%b-%Y", "%d %b %Y")
_CLOCKS = (" %H:%M:%S%.f", " %H:%M", "T%H:%M:%S%.f", "T%H:%M", " %I:%M %p", " %I:%M:%S %p")
_ZONES = ("%#z", " %#z", " UTC")
_FORMS = (*_DATES, *map("".join, product(_DATES, _CLOCKS)), *map("".join, product(_DATES[:1], _CLOCKS[:4], _ZONES)))
_READ = 0.99
_FEW = 2_000
Unit = Literal["s", "ms", "us"]
_EPOCHS: dict[Unit, int] = {"s": 1, "ms": 1_000, "us": 1_000_000}
_FIRST, _LAST = 315_532_800, 4_102_444_800  # 1980 and 2100
_TIME_WORDS = ("time", "date", "stamp", "epoch", "when")
_HOUR_NAMES = ("hr", "hour", "hours", "hour_of_day", "stunde", "heure")


@dataclass(frozen=True)
class Moment:
    """A column with a moment, and how it is read.

    ``form`` is the strptime pattern of a text, ``unit`` that of an epoch. ``hour`` names a column with the hour of a
    day that has no clock. ``ambiguous``: day and month could be the other way round.
    """

    column: str
    kind: Literal["text", "epoch", "naive", "date", "utc"]
    form: str = ""
    unit: Unit = "us"
    hour: str | None = None
    ambiguous: bool = False
    name: str = EVENT_AT[0]

    @property
    def derived(self) -> str:
        """The name of the event time: the column itself where it is in UTC already."""
        return self.column if self.kind == "utc" else self.name

    def code(self, name: str) -> str:
        """The event time as Polars code; ``name`` is the column's name as a literal."""
        cell = f"pl.col({name})"
        if self.kind == "text":
            return f'{cell}.str.to_datetime("{self.form}", time_unit="us", time_zone="UTC", strict=False)'
        if self.kind == "epoch":
            made = f'pl.from_epoch({cell}, time_unit="{self.unit}").dt.cast_time_unit("us")'
        else:
            made = f'{cell}.cast(pl.Datetime("us"))'
        return f'{made}.dt.replace_time_zone("UTC")'

    def expression(self) -> pl.Expr:
        """The same as an expression."""
        cell = pl.col(self.column)
        if self.kind == "utc":
            return cell
        if self.kind == "text":
            made = cell.str.to_datetime(self.form, time_unit="us", time_zone="UTC", strict=False)
        else:
            read = pl.from_epoch(cell, time_unit=self.unit) if self.kind == "epoch" else cell
            made = read.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
        return made if self.hour is None else made + pl.duration(hours=pl.col(self.hour))


def moment_of(frame: pl.DataFrame, column: str, *, told: bool = False) -> Moment | None:
    """How a column is read as a moment, or None; ``told``: a person says that it is one."""
    cells, kind = frame[column].drop_nulls(), frame[column].dtype
    if kind == pl.Datetime:
        return Moment(column, "utc" if getattr(kind, "time_zone", None) else "naive")
    if kind == pl.Date:
        return _with_hour(frame, Moment(column, "date"))
    if cells.is_empty():
        return None
    if kind == pl.String:
        found = _from_text(column, cells)
        dated = found is not None and found.form in _DATES
        return _with_hour(frame, found) if found is not None and dated else found
    if kind.is_integer() and (told or _named_like_a_time(column)):
        return _from_number(column, cells)
    return None


def moments(frame: pl.DataFrame, columns: Sequence[str]) -> list[Moment]:
    """All columns that hold a moment."""
    return [found for column in columns if (found := moment_of(frame, column)) is not None]


def earliest(frame: pl.DataFrame, found: Sequence[Moment]) -> Moment:
    """The one that comes first in most rows: what a later one says may not be known yet."""
    times = frame.select(moment.expression().alias(str(place)) for place, moment in enumerate(found))
    first = pl.min_horizontal(pl.all())
    wins = times.select((pl.col(name) == first).sum() for name in times.columns).row(0)
    return found[max(range(len(found)), key=lambda place: wins[place])]


def _from_text(column: str, cells: pl.Series) -> Moment | None:
    some = cells.gather_every(max(1, len(cells) // _FEW)).rename("cell")
    if not some.str.contains(r"\d").mean() >= _READ:  # type: ignore[operator]
        return None
    fitting = [form for form in _FORMS if _reads(some, form)]
    if not fitting:
        return None
    other = next((form for form in fitting if fitting[0].startswith("%d/%m") and form.startswith("%m/%d")), None)
    if other is None:
        return Moment(column, "text", fitting[0])
    # Sorted rows tell which is the day; otherwise it is taken to come first.
    month_first = not _sorted(cells, fitting[0]) and _sorted(cells, other)
    return Moment(column, "text", other if month_first else fitting[0], ambiguous=True)


def _read(cells: pl.Series, form: str) -> pl.Series:
    return cells.str.to_datetime(form, time_unit="us", time_zone="UTC", strict=False)


def _reads(cells: pl.Series, form: str) -> bool:
    years = _read(cells, form).dt.year()
    return bool(years.is_between(1900, 2199).fill_null(False).mean() >= _READ)  # type: ignore[operator]


def _sorted(cells: pl.Series, form: str) -> bool:
    return _read(cells, form).drop_nulls().is_sorted()


def _from_number(column: str, cells: pl.Series) -> Moment | None:
    for unit, size in _EPOCHS.items():
        inside = cells.is_between(_FIRST * size, _LAST * size).mean()
        if inside >= _READ:  # type: ignore[operator]
            return Moment(column, "epoch", unit=unit)
    return None


def _named_like_a_time(column: str) -> bool:
    name = column.lower()
    return any(word in name for word in _TIME_WORDS) or name.endswith(("_at", "_ts", "_on")) or name == "ts"


def _with_hour(frame: pl.DataFrame, day: Moment) -> Moment:
    """A day with the column that holds its hour, where there is one by name and values."""
    for name in frame.columns:
        cells = frame[name]
        named = name.lower() in _HOUR_NAMES and cells.dtype.is_integer() and not cells.null_count()
        if named and cells.is_between(0, 23).all() and cells.n_unique() > 1:
            return replace(day, hour=name)
    return day
