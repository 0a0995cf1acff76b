"""Window features: what an entity did in the last hour, day, or n events; written once, computed in three ways.

One definition gives the batch query (``compute``), the streaming update (``state().push``) and the computation at
request time (``at``). All three merge the same integers, so their values are equal, not close.
This module may be imported by the prediction service: Polars and the standard library only.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from ferroflow.core.aggregates import AT, Aggregate, Part
from ferroflow.core.definitions import Feature, arguments_of, inlined, placed, refuse_hidden, unique
from ferroflow.core.durations import duration
from ferroflow.core.errors import DataError, SchemaError, SpecError
from ferroflow.core.features import AVAILABLE_AT, StoredFeatures
from ferroflow.core.spans import EventSpan, Span, TimeSpan

if TYPE_CHECKING:
    from ferroflow.core.window_state import WindowState

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Window:
    """A window's definition: whose events, by which time, how far back, and what is told of them."""

    entity: str
    by: str
    time: str
    span: Span
    aggregates: Mapping[str, Aggregate]

    @property
    def parts(self) -> dict[str, Part]:
        """Column of a partial aggregate -> what it is; a column is called ``feature.part``."""
        return {
            f"{name}.{key}": part
            for name, aggregate in self.aggregates.items()
            for key, part in aggregate.parts.items()
        }

    @property
    def merges(self) -> dict[str, str]:
        """Column of a partial aggregate -> how it merges."""
        return {name: part.merge for name, part in self.parts.items()}

    def partials(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Each event as a partial aggregate; without an entity or a time it is none."""
        return (
            rows.filter(pl.col(self.by).is_not_null() & pl.col(self.time).is_not_null())
            .with_columns(pl.col(self.time).dt.epoch("us").alias(AT))
            .select(
                pl.col(self.by).alias(self.entity), AT, *(part.row.alias(name) for name, part in self.parts.items())
            )
        )

    def values(self, windows: pl.LazyFrame) -> pl.LazyFrame:
        """Merged parts as the entity, ``available_at`` and one Float64 column for each feature."""
        return windows.select(
            self.entity,
            pl.col(AT).cast(pl.Datetime("us", "UTC")).alias(AVAILABLE_AT),
            *(
                aggregate.value({key: pl.col(f"{name}.{key}") for key in aggregate.parts}).alias(name)
                for name, aggregate in self.aggregates.items()
            ),
        )

    def compute(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Every window of these rows."""
        condensed = self.span.condensed(self.partials(rows), self.entity, self.merges)
        return self.values(self.span.windows(condensed, self.entity, self.merges))


@dataclass(frozen=True)
class WindowFeatures(StoredFeatures):
    """Stored features that were written as functions of a window's events.

    ``compute`` gives one row for an entity and moment while its window holds an event. When it becomes empty nothing
    is written: the last row ages until ``ttl`` makes it count as missing.
    """

    window: Window = field(kw_only=True, compare=False, repr=False)
    parts: tuple[Feature, ...] = field(default=(), compare=False, repr=False)
    """One for each column, with name, description and owner."""

    @property
    def history(self) -> timedelta | None:
        """How far back ``at`` needs events; None: as far as the last n events reach."""
        span = self.window.span
        return self.ttl + timedelta(microseconds=span.last) if isinstance(span, TimeSpan) else None

    def evaluate(self, rows: pl.DataFrame) -> pl.DataFrame:
        """All rows of these events, by entity and time: for tests and a look.

        Raises:
            SchemaError: a column is missing.
            DataError: a value is too great to be counted exactly.
        """
        with told(self.name):
            return self.compute(rows.lazy()).sort(self.entity, AVAILABLE_AT).collect()

    def at(self, events: pl.DataFrame, moment: datetime) -> pl.DataFrame:
        """What a look-up at ``moment`` finds: each entity's latest row, no older than ``ttl``.

        Args:
            events: of one entity or several, reaching back ``history`` at least; later ones change nothing.
            moment: with a time zone.

        Raises:
            SchemaError, DataError: see ``evaluate``.
        """
        now = microseconds(moment)
        window, oldest = self.window, now - self.ttl // timedelta(microseconds=1)
        with told(self.name):
            known = window.partials(events.lazy()).filter(pl.col(AT) <= now)
            condensed = window.span.condensed(known, window.entity, window.merges)
            found = window.span.windows(condensed, window.entity, window.merges, after=oldest - 1)
            return (
                window.values(found.filter(pl.col(AT).is_between(oldest, now)))
                .sort(self.entity, AVAILABLE_AT)
                .unique(self.entity, keep="last", maintain_order=True)
                .collect()
            )

    def state(self, *, late: str = "0s") -> WindowState:
        """An empty state for updates by push, which takes events up to ``late`` behind its watermark."""
        from ferroflow.core.window_state import WindowState

        return WindowState(self, late=duration(late))


def windows(
    name: str,
    *,
    entity: str,
    on: str,
    time: str,
    ttl: str,
    features: Sequence[Feature],
    last: str | None = None,
    every: str | None = None,
    events: int | None = None,
    by: str | None = None,
    intermediate: Sequence[Feature] = (),
    description: str = "",
) -> WindowFeatures:
    """Stored features of an entity over a window of its events.

    Args:
        name: of the variable that holds them; Feast's view is called so.
        entity: what the key is called, in the result and in Feast.
        on: the request field that holds the entity at prediction time.
        time: the events' time column; a naive time is UTC.
        ttl: how long a row may be used, such as ``"2h"``.
        features: functions of event columns that give an aggregate.
        last: a stretch of time: the window [T - last, T), available at T.
        every: the grid of T, counted from 1970 (UTC); ``last`` is a multiple of it, and by default the same.
        events: instead of ``last``: the last n events, the one at T included; a row for each moment with an event.
        by: the events' column that holds the entity, where it is not called as ``on``.
        intermediate: functions that give a column for ``features`` to use.

    Raises:
        SpecError: the description contradicts itself.
    """
    span = _span(name, last, every, events)
    lifetime = duration(ttl)
    if isinstance(span, TimeSpan) and lifetime < timedelta(microseconds=span.every):
        raise SpecError(f"Windows {name!r}: a row lives {ttl} but the next one comes after {every or last}. Raise ttl.")
    window = Window(entity, by or on, time, span, _aggregates(name, features, intermediate))
    taken = {entity, AVAILABLE_AT} & set(window.aggregates)
    if taken:
        raise SpecError(f"Windows {name!r} have a feature named {', '.join(sorted(taken))}. Rename it.")

    def compute(rows: pl.LazyFrame) -> pl.LazyFrame:
        return window.compute(rows)

    function = placed(compute, name, description, sys._getframe(1))
    return WindowFeatures(function, entity=entity, on=on, ttl=lifetime, window=window, parts=tuple(features))


def microseconds(moment: datetime) -> int:
    """A moment as microseconds since 1970.

    Raises:
        DataError: it has no time zone.
    """
    if moment.tzinfo is None:
        raise DataError(f"The moment {moment} has no time zone. Give it one: datetime(..., tzinfo=UTC).")
    return (moment - _EPOCH) // timedelta(microseconds=1)


@contextmanager
def told(name: str) -> Iterator[None]:
    """Polars' errors about the data as ours.

    Raises:
        SchemaError: a column is missing, or has a type that cannot be counted.
        DataError: a value is too great to be counted exactly.
    """
    try:
        yield
    except (pl.exceptions.ColumnNotFoundError, pl.exceptions.SchemaError) as error:
        raise SchemaError(
            f"Windows {name!r}: {_first_line(error)}. Events need the columns of its functions."
        ) from error
    except pl.exceptions.InvalidOperationError as error:
        raise DataError(
            f"Windows {name!r}: {_first_line(error)}. It is no number that can be counted exactly: leave it out with "
            "where=, or give the aggregate a smaller per_unit."
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _span(name: str, last: str | None, every: str | None, events: int | None) -> Span:
    if (last is None) == (events is None):
        raise SpecError(f"Windows {name!r}: give either last, such as last='1h', or events, such as events=10.")
    if events is not None:
        if isinstance(events, bool) or not isinstance(events, int) or events < 1:
            raise SpecError(f"Windows {name!r}: events is {events!r}; it is a whole number from 1 on.")
        if every is not None:
            raise SpecError(f"Windows {name!r}: every is for windows of time. Leave it out beside events.")
        return EventSpan(events)
    width, step = (duration(str(text)) // timedelta(microseconds=1) for text in (last, every or last))
    if step == 0 or width == 0 or width % step:
        raise SpecError(f"Windows {name!r}: last={last!r} is no multiple of every={every or last!r}.")
    return TimeSpan(width, step)


def _aggregates(name: str, features: Sequence[Feature], intermediate: Sequence[Feature]) -> dict[str, Aggregate]:
    unique(name, [*intermediate, *features])
    if not features:
        raise SpecError(f"Windows {name!r} have no function. Give at least one.")
    made = inlined(name, intermediate)
    names = {part.name for part in features}
    found = {}
    for part in features:
        if inner := names & set(part.arguments):
            raise SpecError(
                f"Window feature {part.name!r} depends on {', '.join(sorted(inner))}, which is another window feature. "
                "Its arguments are columns of events, or intermediate functions."
            )
        aggregate = part(*arguments_of(part, made))
        if not isinstance(aggregate, Aggregate):
            raise SpecError(
                f"Window feature {part.name!r} gives {type(aggregate).__name__}, not an aggregate such as count() "
                "or mean(...). A function that gives a column belongs into intermediate=."
            )
        rows = [entry.row for entry in aggregate.parts.values()]
        refuse_hidden(part, rows, made, allowed=[AT])
        found[part.name] = aggregate
    return found
