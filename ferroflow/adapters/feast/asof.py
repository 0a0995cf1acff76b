"""The point-in-time join: for each entity row, a view's latest row that was known then.

Only one whole number a row is sorted and searched: its key's number, then its time. The features are gathered once, by
the row numbers found. That is faster and takes less memory than to sort wide tables, and the entity rows keep their
order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from ferroflow.core.errors import DataError, SpecError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.int64]

_UTC = pl.Datetime("us", "UTC")
_ROW, _KEY, _CODE, _FEATURE = "__row", "__key", "__code", "__feature"
_TIME, _CREATED, _USABLE = "__time", "__created", "__usable"
_LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BATCH = 1_000_000
_AT_ONCE = 2
_SLICE = 250_000
_A_DAY = 86_400_000_000
_FURTHEST = 2**63 - 1
_FEW = 2**31
_WIDE = (pl.UInt64, pl.Int128, pl.UInt128)
_NUMBERS = (pl.Int64, pl.Int32, pl.Int16, pl.Int8, pl.UInt32, pl.UInt16, pl.UInt8)


@dataclass(frozen=True)
class View:
    """One view of a point-in-time join.

    Attributes:
        rows: the stored rows, lazy and in any order.
        keys: column of the entity rows -> column of the stored rows.
        features: column of the result -> column of the stored rows.
        time: column of the stored rows: from when on a row may be used.
        created: column that decides between rows of the same time; the last one wins.
        ttl: how long after ``time`` a row may be used, bounds included; None: for ever.
        known: further columns of moments that must not be after the entity row's time either; a row without one of
            them was never known. They decide whether a row may be used, not which one is the latest.
        name: what messages call the view.
        place: what messages call the files that the rows are read from.
    """

    rows: pl.LazyFrame
    keys: Mapping[str, str]
    features: Mapping[str, str]
    time: str
    created: str | None = None
    ttl: timedelta | None = None
    known: Sequence[str] = ()
    name: str = "view"
    place: str = "its files"


def join_as_of(entities: pl.LazyFrame, time: str, views: Sequence[View]) -> pl.LazyFrame:
    """For each entity row, each view's latest row that is not after ``time`` and not older than its TTL.

    The join runs now; what comes back is its result.

    Returns:
        The entity rows, all of them and in their order (``time`` in UTC), with the features; null where there are none.

    Raises:
        SpecError: keys of two types that cannot be compared.
        DataError: stored rows that cannot be read.
    """
    return joined(entities.collect(), time, views).lazy()


def joined(entities: pl.DataFrame, time: str, views: Sequence[View]) -> pl.DataFrame:
    """What ``join_as_of`` gives, from a table in memory."""
    result = in_utc(entities.lazy(), time).collect()
    if not views:
        return result
    # Two at a time: each works on one processor for much of its time.
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = list(pool.map(lambda view: _features(view, result, time), views))
    return result.hstack([column for columns in found for column in columns])


def latest(rows: pl.LazyFrame, keys: Sequence[str], order: Sequence[str]) -> pl.DataFrame:
    """Each key's last row by ``order`` (of equals the one that stands last); without keys, the last row of all.

    Rows are taken batch by batch: memory grows with the number of keys, not with that of the rows.
    """
    kept: list[pl.DataFrame] = []
    limit = _BATCH
    for batch in rows.collect_batches(chunk_size=_BATCH, maintain_order=True, engine="streaming"):
        kept.append(batch)
        if sum(part.height for part in kept) >= limit:
            kept = [_last(pl.concat(kept), keys, order)]
            limit = kept[0].height * 2 + _BATCH
    if not kept:
        return rows.collect()
    return _last(pl.concat(kept), keys, order)


def in_utc(frame: pl.LazyFrame, *columns: str) -> pl.LazyFrame:
    """Times of any zone as UTC microseconds; dates and times without a zone count as UTC already, texts are read."""
    kinds = frame.collect_schema()
    converted = []
    for column in columns:
        kind = kinds[column]
        if kind == _UTC:
            continue
        if isinstance(kind, pl.Datetime) and kind.time_zone is not None:
            converted.append(pl.col(column).dt.cast_time_unit("us").dt.convert_time_zone("UTC"))
        elif kind == pl.String:
            converted.append(pl.col(column).str.to_datetime(time_unit="us", time_zone="UTC"))
        elif kind.base_type() in (pl.Datetime, pl.Date, pl.Null):
            converted.append(pl.col(column).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"))
        else:
            raise SpecError(f"Column {column!r} is {kind}, not a time. Give it as a date or a time.")
    return frame.with_columns(converted) if converted else frame


@contextmanager
def reading(owner: str, place: str) -> Iterator[None]:
    """Say whose rows could not be read, and from where, when Polars cannot read them.

    Raises:
        DataError: in place of Polars' error.
    """
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).partition("\n")[0]
        for advice in (", hint:", ", consider"):  # on Polars' own options, which nobody here can set
            reason = reason.partition(advice)[0]
        further = "; a file with further columns needs a first file that says when its rows were known"
        raise DataError(
            f"{owner} could not be read from {place}: {reason}. Where it has several files, the first by path decides "
            f"on columns and types{further if 'extra column' in reason else ''}. Write them alike."
        ) from error


def between(rows: pl.LazyFrame, column: str, first: datetime | None, last: datetime | None) -> pl.LazyFrame:
    """The rows of a span, bounds included, by a condition on the stored type: files can be skipped by it."""
    kind = rows.collect_schema()[column]
    if kind == pl.Null:  # as an empty file has it
        return rows.limit(0) if first is not None or last is not None else rows
    for bound, upper in ((first, False), (last, True)):
        if bound is not None:
            limit = _limit(bound, kind, upper)
            rows = rows.filter(pl.col(column) <= limit if upper else pl.col(column) >= limit)
    return rows


def _limit(bound: datetime, kind: pl.DataType, upper: bool) -> pl.Expr:
    """A bound in the stored column's unit, rounded into the span."""
    aware = bound.replace(tzinfo=UTC) if bound.tzinfo is None else bound.astimezone(UTC)
    micros = (aware - _EPOCH) // timedelta(microseconds=1)
    if kind == pl.Date:
        days = micros // _A_DAY if upper else -(-micros // _A_DAY)
        return pl.lit(days).cast(pl.Int32).cast(pl.Date)
    if not isinstance(kind, pl.Datetime):
        raise SpecError(f"The time column is {kind}. Store it as a date or a time.")
    if kind.time_unit == "ns":  # nanoseconds count as the microsecond they are in
        nanos = micros * 1_000 + (999 if upper else 0)
        return pl.lit(max(-_FURTHEST, min(_FURTHEST, nanos))).cast(kind)  # they reach from 1677 to 2262 only
    if kind.time_unit == "ms":
        return pl.lit(micros // 1_000 if upper else -(-micros // 1_000)).cast(kind)
    return pl.lit(micros).cast(kind)


def _last(rows: pl.DataFrame, keys: Sequence[str], order: Sequence[str]) -> pl.DataFrame:
    narrow = rows.lazy().select(*keys, *order).with_row_index(_ROW).sort(order, maintain_order=True)
    if keys:
        narrow = narrow.group_by(keys).agg(pl.col(_ROW).last())
    return rows[narrow.select(pl.col(_ROW).last() if not keys else pl.col(_ROW)).collect()[_ROW].sort()]


def _features(view: View, entities: pl.DataFrame, time: str) -> list[pl.Series]:
    """A view's feature columns, one value an entity row."""
    sides = [_comparable(view, entities.schema, here, there) for here, there in view.keys.items()]
    keys = [f"{_KEY}{number}" for number in range(len(sides))]
    asked = entities.lazy().select(
        *(side[0].alias(key) for side, key in zip(sides, keys, strict=True)), pl.col(time).alias(_TIME)
    )
    known = [f"{_USABLE}{number}" for number in range(len(view.known))]
    order = [_TIME, *([_CREATED] if view.created else [])]
    stored = _needed(view, entities[time]).select(
        *(side[1].alias(key) for side, key in zip(sides, keys, strict=True)),
        pl.col(view.time).alias(_TIME),
        *([pl.col(view.created).alias(_CREATED)] if view.created else []),
        *(pl.col(column).alias(name) for column, name in zip(view.known, known, strict=True)),
        *(pl.col(there).alias(f"{_FEATURE}{number}") for number, there in enumerate(view.features.values())),
    )
    with reading(f"View {view.name!r}", view.place):
        rows = stored.collect()
    narrow = in_utc(rows.lazy().select(*keys, *order, *known).with_row_index(_ROW), *order, *known)
    narrow = narrow.drop_nulls([*keys, _TIME, *known])
    if known:
        narrow = narrow.with_columns(pl.max_horizontal(_TIME, *known).alias(_USABLE)).drop(known)
    columns = [rows.get_column(f"{_FEATURE}{number}") for number in range(len(view.features))]
    del rows
    found = _found(*_coded(asked.collect(), narrow.collect(), keys), view.ttl)
    gathered = []
    for name in view.features:
        # One at a time, letting go of each: the stored columns and the result never stand beside each other whole.
        gathered.append(columns.pop(0).rechunk().gather(found).alias(name))
    return gathered


def _needed(view: View, moments: pl.Series) -> pl.LazyFrame:
    """Without the rows that no entity row could use: too old for the first of them, or later than the last."""
    first, last = moments.min(), moments.max()
    if not isinstance(first, datetime) or not isinstance(last, datetime):
        return view.rows.limit(0)
    reach = None if view.ttl is None or first - _LONG_AGO < view.ttl else first - view.ttl
    return between(view.rows, view.time, reach, last)


def _coded(asked: pl.DataFrame, stored: pl.DataFrame, keys: list[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Both sides with a whole number from 0 for each stored key (null: a key that is not stored); no keys: always 0."""
    if not keys:
        nothing = pl.lit(0, pl.Int64).alias(_CODE)
        return asked.with_columns(nothing), stored.with_columns(nothing)
    key = pl.col(keys[0])
    if len(keys) == 1 and stored.height and stored.schema[keys[0]] in _NUMBERS:
        low, high = stored.select(key.min().alias("low"), key.max().alias("high")).row(0)
        if high - low < _FEW:
            code = (key.cast(pl.Int64) - low).alias(_CODE)
            inside = pl.when(key.is_between(low, high)).then(code).alias(_CODE)
            return asked.select(_TIME, inside), stored.with_columns(code).drop(keys)
    distinct = stored.lazy().select(keys).unique().with_row_index(_CODE).with_columns(pl.col(_CODE).cast(pl.Int64))
    one, other = (
        side.lazy().join(distinct, on=keys, how="left", maintain_order="left").drop(keys).collect()
        for side in (asked, stored)
    )
    return one, other


def _found(asked: pl.DataFrame, stored: pl.DataFrame, ttl: timedelta | None) -> pl.Series:
    """The number of the stored row that each entity row gets; null: none.

    Where rows become usable later than their event, they are put in two orders: by (key, event, creation), and by (key,
    usable). The greatest place so far in the first order, taken along the second, is the newest row known by then.
    """
    import numpy as np

    asking = asked.with_row_index(_ROW).drop_nulls()
    found = np.full(asked.height, -1, dtype=np.int64)
    if asking.height and stored.height:
        sides = stored[_CODE].to_numpy(), asking[_CODE].to_numpy()
        events, moments = _micros(stored[_TIME]), _micros(asking[_TIME])
        created = _micros(stored[_CREATED].fill_null(_LONG_AGO)) if _CREATED in stored.columns else None
        usable = _micros(stored[_USABLE]) if _USABLE in stored.columns else events
        placed, wanted, first = _placed(sides, usable, moments)
        if (usable > events).any():
            order = _order(_placed(sides, events, moments)[0], created)
            place = np.empty_like(order)
            place[order] = np.arange(len(order))
            turn = np.argsort(placed)
            newest = order[np.maximum.accumulate(place[turn])]
        else:
            turn = newest = _order(placed, created)
        placed = placed[turn]
        queue = np.argsort(wanted)
        for start in range(0, len(queue), _SLICE):  # sought in order, each is near the one before
            part = queue[start : start + _SLICE]
            at = np.searchsorted(placed, wanted[part], side="right") - 1
            rows = newest[at]
            hit = (at >= 0) & (placed[at] >= first[part])
            if ttl is not None:
                hit &= moments[part] - events[rows] <= ttl // timedelta(microseconds=1)
            found[asking[_ROW].to_numpy()[part[hit]]] = stored[_ROW].to_numpy()[rows[hit]]
    number = pl.col(_ROW)
    return pl.DataFrame({_ROW: found}).select(pl.when(number >= 0).then(number))[_ROW]


def _placed(sides: tuple[Numbers, Numbers], usable: Numbers, moments: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """One number a row that orders by key, then time: of the stored rows, of the entity rows, and their keys' least."""
    import numpy as np

    first = min(int(usable.min()), int(moments.min()))
    span = max(int(usable.max()), int(moments.max())) - first + 1
    keys = int(max(sides[0].max(), sides[1].max())) + 1
    if span < _FURTHEST // keys:
        stored, asked = usable - first, moments - first
    else:  # too many keys or years for 64 bits: the place of a time among the stored ones stands for it
        distinct = np.unique(usable)
        stored, asked = np.searchsorted(distinct, usable) + 1, np.searchsorted(distinct, moments, side="right")
        span = len(distinct) + 2
    least = sides[1] * span
    return sides[0] * span + stored, least + asked, least


def _order(placed: Numbers, created: Numbers | None) -> Numbers:
    """The rows by place; of those at one place, by creation, then as they stand."""
    import numpy as np

    order = np.argsort(placed)
    ordered = placed[order]
    same = ordered[1:] == ordered[:-1]
    if same.any():
        tied = np.zeros(len(order), dtype=bool)
        tied[1:] |= same
        tied[:-1] |= same
        group = order[tied]
        by_creation = () if created is None else (created[group],)
        order[tied] = group[np.lexsort((group, *by_creation, placed[group]))]
    return order


def _micros(times: pl.Series) -> Numbers:
    return times.to_physical().to_numpy()


def _comparable(view: View, asked: Mapping[str, pl.DataType], here: str, there: str) -> tuple[pl.Expr, pl.Expr]:
    """A key of the entity rows and of the stored rows, in a type that both can have.

    Whole numbers meet as Int64, or as Int128 where both sides may be beyond that. A float column (what pandas makes of
    whole numbers beside a null) meets them too: what is no whole number matches nothing, and neither does what is too
    large for the float to tell from its neighbours. A column without a type is one without values, and meets nothing.
    """
    left, right = asked[here], view.rows.collect_schema()[there]
    one, other = pl.col(here), pl.col(there)
    if left == right and not left.is_float():
        return one, other
    texts = (pl.String, pl.Categorical, pl.Enum)
    if left.base_type() in texts and right.base_type() in texts:
        return one.cast(pl.String), other.cast(pl.String)
    if left == pl.Null:
        return one.cast(right), other
    if right == pl.Null:
        return one, other.cast(left)
    if left in _WIDE and right in _WIDE:
        return one.cast(pl.Int128, strict=False), other.cast(pl.Int128, strict=False)
    if (left.is_integer() or left.is_float()) and (right.is_integer() or right.is_float()):
        return _whole(one, left), _whole(other, right)
    raise SpecError(
        f"View {view.name!r} has the key {there!r} as {right}, the entity rows have {here!r} as {left}. "
        f"Cast one of them: these types cannot be compared."
    )


def _whole(column: pl.Expr, kind: pl.DataType) -> pl.Expr:
    if kind.is_integer():
        return column.cast(pl.Int64, strict=False)
    exact = 2**53 if kind == pl.Float64 else 2**24 if kind == pl.Float32 else 2**11
    certain = (column == column.floor()) & (column.abs() < exact)
    return pl.when(certain).then(column).cast(pl.Int64, strict=False)
