"""A feature service's values for serving: read and decoded directly, without Feast, pandas or protobuf."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from ferroflow.adapters.feast import keys as entity_keys
from ferroflow.adapters.feast.cache import CachedRows
from ferroflow.adapters.feast.plan import (
    NO_ENTITY,
    Entry,
    Key,
    PackedPlan,
    ReadPlan,
    RedisPlan,
    Rows,
    ViewPlan,
)
from ferroflow.core.errors import DataError

if TYPE_CHECKING:
    import polars as pl

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

MOST_ENTITIES = 10_000
"""Rows of one read, unless the reader is told otherwise."""


class ViewAnswer(NamedTuple):
    """What was noticed of one view."""

    missing: int
    """Rows whose entity is not in the store, or has no key."""
    stale: int
    """Rows whose entity's values are older than the time-to-live; they are None in the answer."""
    newest: int | None
    """Event time of the newest values found, stale ones included: microseconds since 1970, UTC."""
    oldest: int | None
    """Event time of the oldest values found, stale ones included."""


_ABSENT = ViewAnswer(1, 0, None, None)


class FeatureAnswer(NamedTuple):
    """Values of some entities."""

    entities: Mapping[str, Sequence[Any]]
    """The join keys as they were asked by."""
    columns: Mapping[str, list[Any]]
    """Feature -> its value in each row, in the order of the rows; None where there is none."""
    views: Mapping[str, ViewAnswer]
    """View -> what was noticed."""
    moments: Sequence[int]
    """The clock of each row, microseconds since 1970."""

    def to_dict(self) -> dict[str, list[Any]]:
        """Join keys and features by column, as ``get_online_features(...).to_dict()`` gives them."""
        found = {name: list(values) for name, values in self.entities.items()}
        found.update(self.columns)
        return found

    def to_polars(self) -> pl.DataFrame:
        """Join keys and features as a frame; types by the values."""
        import polars as pl

        return pl.DataFrame({name: pl.Series(name, values, strict=False) for name, values in self.to_dict().items()})

    def ages(self, view: str) -> tuple[float, float] | None:
        """Seconds from the newest and from the oldest value of a view to the latest clock; None: nothing was found."""
        found = self.views[view]
        if found.newest is None or found.oldest is None:
            return None
        now = max(self.moments)
        return (now - found.newest) / 1e6, (now - found.oldest) / 1e6


class FeatureReader:
    """Reads the features of a plan.

    Args:
        plan: what ``resolve.read_plan`` made of a feature service.
        rows: where to read from; None: what the plan says.
        cache: seconds that rows may be kept in memory and how many of them; None: no cache. A packed file on this
            machine needs none.
        most: rows that one read may have.
    """

    def __init__(
        self,
        plan: ReadPlan,
        rows: Rows | None = None,
        cache: tuple[float, int] | None = None,
        most: int = MOST_ENTITIES,
    ) -> None:
        self.plan = plan
        self.most = most
        opened = open_rows(plan) if rows is None else rows
        self.rows: Rows = opened if cache is None else CachedRows(opened, *cache)
        asked = ((key.field, key.kind) for view in plan.views for key in view.keys if key.field != NO_ENTITY)
        self._asked_as = list(dict.fromkeys(asked))  # views may ask for one field by keys of several kinds
        self._fields = list(dict.fromkeys(field for field, _ in self._asked_as))
        self._views = [_View(view, self._asked_as) for view in plan.views]

    def read(
        self, columns: Mapping[str, Sequence[Any]], now: datetime | Sequence[datetime] | None = None
    ) -> FeatureAnswer:
        """The newest values of each row's entities, None where they are absent or older than the time-to-live.

        As in Feast, a row whose event lies after the clock is given too: no row is too new. The prediction service
        refuses those.

        Args:
            columns: each join key's values, one a row; other columns are not looked at.
            now: the clock, or that of each row, by which values are too old; None: this machine's.

        Raises:
            DataError: a join key is missing or of another type, columns differ in length, or there are too many rows.
            OnlineStoreAway: the store cannot be read.
        """
        asked, given, height = self._asked(columns)
        moments = _moments(now, height)
        if height == 1:
            return self._single(asked, given, moments)
        found: dict[str, list[Any]] = {}
        views = {}
        for view in self._views:
            entries_of = view.keys(asked, height)
            known = [key for key in dict.fromkeys(entries_of) if key is not None]
            entries = self.rows.read(view.name, known, view.names) if known else {}
            rows, views[view.name] = view.values(entries_of, entries, moments)
            found.update(zip(view.outputs, map(list, zip(*rows, strict=True)) if rows else view.empty(), strict=True))
        return FeatureAnswer(given, found, views, moments)

    def _single(
        self, asked: Sequence[list[Any]], given: Mapping[str, Sequence[Any]], moments: Sequence[int]
    ) -> FeatureAnswer:
        """``read`` of one row, the most frequent: without what many rows need, a third less of our own time."""
        found: dict[str, list[Any]] = {}
        views = {}
        for view in self._views:
            key = view.keys(asked, 1)[0]
            entry = None if key is None else self.rows.read(view.name, (key,), view.names).get(key)
            row, views[view.name] = view.value(entry, moments[0])
            for name, value in zip(view.outputs, row, strict=True):
                found[name] = [value]
        return FeatureAnswer(given, found, views, moments)

    def read_rows(
        self, rows: Sequence[Mapping[str, Any]], now: datetime | Sequence[datetime] | None = None
    ) -> FeatureAnswer:
        """``read`` for one mapping a row.

        Raises:
            DataError: a row lacks a join key, or as ``read`` does.
        """
        try:
            columns = {name: [row[name] for row in rows] for name in self._fields}
        except KeyError as error:
            raise DataError(f"A row has no join key {error}. Give each row {', '.join(self._fields)}.") from error
        return self.read(columns, now) if self._fields else self.read({"": [None] * len(rows)}, now)

    def close(self) -> None:
        """Give the store's connections back."""
        self.rows.close()

    def _asked(self, columns: Mapping[str, Sequence[Any]]) -> tuple[list[list[Any]], dict[str, Sequence[Any]], int]:
        """The join keys' columns as plain values of each kind and as they were given, and how many rows there are."""
        fields = self._fields
        given: dict[str, Sequence[Any]] = {}
        try:
            for name in fields:
                given[name] = columns[name]
        except KeyError:
            absent = ", ".join(name for name in fields if name not in columns)
            raise DataError(f"Join keys {absent} are missing. Given: {', '.join(columns) or 'none'}.") from None
        if len(fields) == 1:
            height = len(given[fields[0]])
        else:
            heights = set(map(len, given.values() if fields else columns.values()))
            if len(heights) > 1:
                raise DataError(f"Join keys have {sorted(heights)} values. Give one a row.")
            height = heights.pop() if heights else 0
        if height > self.most:
            raise DataError(f"{height} rows are more than one read may have, which is {self.most}. Read in parts.")
        asked = []
        for name, kind in self._asked_as:  # a comprehension would be one more call
            asked.append(_plain(name, kind, given[name]))
        return asked, given, height


def open_rows(plan: ReadPlan, read_seconds: float = 1.0) -> Rows:
    """The back-end of a plan's store; connections are made when they are first needed.

    Args:
        read_seconds: how long a server's answer may take.
    """
    if isinstance(plan.store, PackedPlan):
        from ferroflow.adapters.feast.packed_rows import PackedRows

        return PackedRows(plan)
    if isinstance(plan.store, RedisPlan):
        from ferroflow.adapters.feast.redis_rows import RedisRows

        return RedisRows(plan, read_seconds=read_seconds)
    from ferroflow.adapters.feast.postgres_rows import PostgresRows

    return PostgresRows(plan, read_seconds=read_seconds)


class _View:
    """A view's keys and values, row by row."""

    def __init__(self, plan: ViewPlan, asked_as: Sequence[tuple[str, str]]) -> None:
        self.plan = plan
        self.name, self.names, self.outputs = plan.view, plan.names, plan.outputs
        self._ttl = None if plan.ttl_seconds is None else round(plan.ttl_seconds * 1e6)
        self._nothing = (None,) * len(plan.features)
        names, kinds = [key.name for key in plan.keys], [key.kind for key in plan.keys]
        self._places = [None if key.field == NO_ENTITY else asked_as.index((key.field, key.kind)) for key in plan.keys]
        self._encode = entity_keys.encoder(names, kinds)
        self._is_plain = len(kinds) == 1 and kinds[0] in ("int64", "int32", "text")

    def keys(self, asked: Sequence[list[Any]], height: int) -> Sequence[Key | None]:
        """Each row's key as the rows know it; None where a part of it is."""
        if self._is_plain:
            place = self._places[0]
            return [""] * height if place is None else asked[place]
        parts = [[""] * height if place is None else asked[place] for place in self._places]
        encode = self._encode
        return [None if None in row else encode(row) for row in zip(*parts, strict=True)]

    def value(self, entry: Entry | None, moment: int) -> tuple[Sequence[Any], ViewAnswer]:
        """``values`` of one row."""
        if entry is None:
            return self._nothing, _ABSENT
        event, row = entry
        if self._ttl is None or moment - event <= self._ttl:
            return row, ViewAnswer(0, 0, event, event)
        return self._nothing, ViewAnswer(0, 1, event, event)

    def values(
        self, keys: Sequence[Key | None], entries: Mapping[Key, Entry], moments: Sequence[int]
    ) -> tuple[list[Sequence[Any]], ViewAnswer]:
        """Each row's values, and what was noticed."""
        nothing, ttl = self._nothing, self._ttl
        rows: list[Sequence[Any]] = []
        missing = stale = 0
        newest = oldest = None
        for key, moment in zip(keys, moments, strict=True):
            entry = entries.get(key)  # type: ignore[arg-type] # no entry has the key None
            if entry is None:
                missing += 1
                rows.append(nothing)
                continue
            event, row = entry
            if newest is None or oldest is None:
                newest = oldest = event
            elif event > newest:
                newest = event
            elif event < oldest:
                oldest = event
            if ttl is None or moment - event <= ttl:
                rows.append(row)
            else:
                stale += 1
                rows.append(nothing)
        return rows, ViewAnswer(missing, stale, newest, oldest)

    def empty(self) -> list[list[Any]]:
        return [[] for _ in self.plan.features]


_NONE = type(None)
_TYPES = {
    "int64": frozenset((int, _NONE)),
    "int32": frozenset((int, _NONE)),
    "text": frozenset((str, _NONE)),
    "bytes": frozenset((bytes, _NONE)),
    "time": frozenset((int, _NONE)),
}


def _plain(name: str, kind: str, values: Sequence[Any]) -> list[Any]:
    """A join key's values as the store knows them; a number for a text would else only not be found."""
    plain = values if type(values) is list else list(values)
    if _TYPES[kind].issuperset(map(type, plain)):
        return plain
    convert = _CONVERSIONS[kind]
    try:
        return [None if value is None else convert(value) for value in plain]
    except (TypeError, ValueError, AttributeError) as error:
        types = ", ".join(sorted({found.__name__ for found in set(map(type, plain)) - _TYPES[kind]}))
        raise DataError(f"Join key {name!r} is {kind}, given are {types}: {error}.") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return str(value)


def _whole(value: Any) -> int:
    return int(operator.index(value))


def _moment(value: Any) -> int:
    return entity_keys.seconds(value) if isinstance(value, datetime) else _whole(value)


_CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "int64": _whole,
    "int32": _whole,
    "text": _text,
    "bytes": lambda value: memoryview(value).tobytes(),
    "time": _moment,
}


def _moments(now: datetime | Sequence[datetime] | None, height: int) -> Sequence[int]:
    if now is None:
        return [time.time_ns() // 1_000] * height
    if isinstance(now, datetime):
        return [_microseconds(now)] * height
    if len(now) != height:
        raise DataError(f"There are {len(now)} clocks for {height} rows. Give one a row, or one for all.")
    return [_microseconds(moment) for moment in now]


def _microseconds(moment: datetime) -> int:
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return (aware - _EPOCH) // _MICROSECOND
