"""The profile of accepted rows, column by column: what is there, how much is missing, how it is distributed.

Two streaming passes, whatever the number of rows. The first counts and measures, and draws a sample by a hash of the
row's number; the sample's quantiles say where histograms begin and end. The second counts every row in these bins, and
in the bins of the last good snapshot, so that old rows need not be read again to see whether a column has moved.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict

from ferroflow.core.drift import psi

BINS = 20
SAMPLE = 50_000  # rows from which quantiles are taken; of fewer rows they are exact
FEW = 10_000  # distinct values that are counted one by one
KEPT = 50  # the most frequent values that a profile keeps
_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_BY_VALUE = 10  # a number with so few values is compared value by value
_EXPECTED = 5.0  # rows that a value must expect to be compared by itself (Cochran's rule)
_DAYS, _WEEKS = 120, 1100  # days up to which rows are counted by the day, and by the week

Kind = Literal["number", "time", "text", "other"]
Unit = Literal["day", "week", "month"]
Floats = npt.NDArray[np.float64]


class Bins(BaseModel):
    """Rows between ``edges``: ``rows[0]`` lie below the first edge, ``rows[i]`` from edge i − 1 on, up to edge i."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    edges: tuple[float, ...]
    rows: tuple[int, ...]  # one more than edges


class ColumnProfile(BaseModel):
    """One column. Times are microseconds since 1970, UTC. Of a personal column there are counts, and no value."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    name: str
    dtype: str
    kind: Kind
    rows: int
    missing: int  # null or NaN
    distinct: int | None = None
    distinct_exact: bool = True
    personal: bool = False
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    std: float | None = None
    quantiles: dict[str, float] = {}  # "p01" … "p99"
    span: tuple[float, float] | None = None  # what the histogram is drawn over; rows outside are in its outer bins
    histogram: Bins | None = None
    deciles: Bins | None = None  # what later snapshots are compared in
    top: dict[str, int] = {}  # the most frequent values of text, the most frequent first
    shift: float | None = None  # PSI against the last good snapshot; None: not to be compared

    @property
    def missing_share(self) -> float:
        """Missing cells, as a share of the rows."""
        return self.missing / self.rows if self.rows else 0.0


class Profile(BaseModel):
    """All columns, the rows along their event time, and the ``figures`` that later snapshots are held against."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    rows: int
    columns: tuple[ColumnProfile, ...]
    unit: Unit = "day"
    by_time: dict[str, int] = {}  # first day of each day, week or month with rows -> rows
    figures: dict[str, float] = {}

    def column(self, name: str) -> ColumnProfile | None:
        """The column of that name, or None."""
        return next((entry for entry in self.columns if entry.name == name), None)


def profile(
    rows: pl.LazyFrame, *, time: str | None = None, personal: Collection[str] = (), before: Profile | None = None
) -> Profile:
    """Measure every column of ``rows``.

    Args:
        rows: read twice, streaming.
        time: the event-time column, along which rows are counted.
        personal: columns of which no value is kept.
        before: the last good snapshot's profile: columns of the same name and kind get a ``shift``.
    """
    schema = rows.collect_schema()
    kinds = {name: _kind(dtype) for name, dtype in schema.items()}
    values = rows.select(_value(name, schema[name], kinds[name]) for name in schema)
    height = int(rows.select(pl.len()).collect(engine="streaming").item())
    open_to_see = {name: kind for name, kind in kinds.items() if name not in personal}
    totals, sample = _collected([values.select(_totals(kinds)), _sampled(values, height)])
    first = {
        name: _counted(name, str(schema[name]), kind, totals.row(0, named=True), height, name in personal)
        for name, kind in kinds.items()
    }
    measured = {name: _measured(first[name], totals, sample[name]) for name in open_to_see} if height else {}
    unit = _unit(sample[time]) if time in open_to_see and kinds[time] == "time" else None
    counts = _second_pass(values, measured, sample, before, time if unit else None, unit or "day")
    done = [_finished(entry, measured, counts, before) for entry in first.values()]
    return Profile(rows=height, columns=tuple(done), unit=unit or "day", by_time=dict(counts.by_time))


def moment(microseconds: float) -> datetime:
    """The time (UTC) that a profile's number stands for."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)


def _collected(lazy: list[pl.LazyFrame]) -> list[pl.DataFrame]:
    """All answers, streaming. What they share is read for each: kept for all, it would lie in memory as a whole."""
    shared = pl.QueryOptFlags(comm_subplan_elim=False)
    return pl.collect_all(lazy, engine="streaming", optimizations=shared)


# ---------------------------------------------------------------------------------------------------------- first pass


def _kind(dtype: pl.DataType) -> Kind:
    if dtype.is_numeric():
        return "number"
    if isinstance(dtype, pl.Date | pl.Datetime):
        return "time"
    return "text" if isinstance(dtype, pl.String | pl.Categorical | pl.Enum | pl.Boolean) else "other"


def _value(name: str, dtype: pl.DataType, kind: Kind) -> pl.Expr:
    """The column as numbers (times as microseconds) or text, NaN as null; of other kinds whether it is there."""
    column = pl.col(name)
    if kind == "number":
        return (column.cast(pl.Float64) if not dtype.is_integer() else column).fill_nan(None)
    if kind == "time":
        return column.cast(pl.Datetime("us")).dt.epoch("us")
    return column.cast(pl.String) if kind == "text" else pl.when(column.is_not_null()).then(pl.lit(True)).alias(name)


def _totals(kinds: Mapping[str, Kind]) -> list[pl.Expr]:
    found = []
    for name, kind in kinds.items():
        column = pl.col(name)
        found += [column.null_count().alias(f"{name}\0missing")]
        if kind != "other":
            found.append(column.approx_n_unique().alias(f"{name}\0distinct"))
        if kind in ("number", "time"):
            number = column.cast(pl.Float64)
            found += [getattr(number, what)().alias(f"{name}\0{what}") for what in ("min", "max", "mean", "std")]
    return found


def _sampled(values: pl.LazyFrame, height: int) -> pl.LazyFrame:
    every = -(-height // SAMPLE)
    if every <= 1:
        return values
    # By a hash, not every n-th row: rows often come in a rhythm of their own.
    index = "\0row"
    return values.with_row_index(index).filter(pl.col(index).hash(0) % every == 0).drop(index)


def _counted(
    name: str, dtype: str, kind: Kind, totals: Mapping[str, Any], height: int, personal: bool
) -> ColumnProfile:
    """What may be told of any column."""
    missing, distinct = totals[f"{name}\0missing"], totals.get(f"{name}\0distinct")
    if distinct is not None and missing and distinct:
        distinct -= 1  # null is counted as a value
    return ColumnProfile(
        name=name, dtype=dtype, kind=kind, rows=height, missing=missing, distinct=distinct, distinct_exact=False,
        personal=personal,
    )  # fmt: skip


def _measured(entry: ColumnProfile, totals: pl.DataFrame, sample: pl.Series) -> ColumnProfile:
    """The same with what its values say: range, mean, quantiles of the sample, and where its bins lie (no rows yet)."""
    if entry.kind not in ("number", "time") or entry.missing == entry.rows:
        return entry
    low, high, mean, std = (totals[f"{entry.name}\0{what}"].item() for what in ("min", "max", "mean", "std"))
    update: dict[str, Any] = {"low": low, "high": high, "mean": mean, "std": std}
    numbers = _finite(sample)
    if numbers.size:
        update["quantiles"] = {f"p{share * 100:02.0f}": float(np.quantile(numbers, share)) for share in _QUANTILES}
        span, edges = _histogram_edges(numbers)
        update |= {"span": span, "histogram": Bins(edges=edges, rows=(0,) * (len(edges) + 1))}
        cuts = _cuts(numbers)
        update["deciles"] = Bins(edges=cuts, rows=(0,) * (len(cuts) + 1))
    return entry.model_copy(update=update)


def _finite(sample: pl.Series) -> Floats:
    numbers = sample.drop_nulls().cast(pl.Float64).to_numpy()
    return np.asarray(numbers[np.isfinite(numbers)], dtype=np.float64)


def _histogram_edges(numbers: Floats) -> tuple[tuple[float, float], tuple[float, ...]]:
    """The span from the 1 % to the 99 % quantile, a tenth wider on both sides but no wider than the values; its bins.

    Whole numbers of a narrow span have a bin each.
    """
    least, most = float(numbers.min()), float(numbers.max())
    inner, outer = np.quantile(numbers, (0.01, 0.99))
    margin = 0.1 * (outer - inner)
    low, high = max(least, float(inner - margin)), min(most, float(outer + margin))
    if bool((numbers == np.round(numbers)).all()) and high - low < BINS:
        low, high = float(np.floor(low)) - 0.5, float(np.ceil(high)) + 0.5
        edges = np.arange(low + 1, high)
    elif low == high:
        low, high, edges = low - 0.5, high + 0.5, np.empty(0)
    else:
        edges = np.linspace(low, high, BINS + 1)[1:-1]
    return (low, high), tuple(float(edge) for edge in edges)


def _cuts(numbers: Floats) -> tuple[float, ...]:
    """Deciles, one outlier moves none of them; of few values each value."""
    values = np.unique(numbers)
    if values.size > _BY_VALUE:
        values = np.unique(np.quantile(numbers, np.linspace(0, 1, 11)[1:-1]))
    return tuple(float(value) for value in values)


def _unit(sample: pl.Series) -> Unit:
    numbers = _finite(sample)
    if not numbers.size:
        return "day"
    first, last = np.quantile(numbers, (0.01, 0.99))
    days = (last - first) / 86_400_000_000
    return "day" if days <= _DAYS else "week" if days <= _WEEKS else "month"


# --------------------------------------------------------------------------------------------------------- second pass


@dataclass(frozen=True)
class _Counts:
    """``beyond``: column, edge -> rows from the edge on; ``distinct``: of numbers; ``tallies``: rows of each text."""

    beyond: Mapping[str, int]
    distinct: Mapping[str, int]
    tallies: Mapping[str, Mapping[str, int]]
    by_time: Mapping[str, int]


def _second_pass(
    values: pl.LazyFrame,
    measured: Mapping[str, ColumnProfile],
    sample: pl.DataFrame,
    before: Profile | None,
    time: str | None,
    unit: Unit,
) -> _Counts:
    beyond, distinct, asked = [], [], {}
    for name, entry in measured.items():
        earlier = _comparable(entry, before)
        if entry.kind == "text":
            asked[name] = _tally(values, entry, sample[name], earlier)
        elif entry.distinct is not None and entry.distinct <= FEW:
            distinct.append(pl.col(name).n_unique() - (entry.missing > 0))
        edges = _edges(entry) | (_edges(earlier) if earlier is not None else set())
        beyond += [(pl.col(name) >= edge).sum().alias(_edge(name, edge)) for edge in sorted(edges)]
    texts = list(asked)
    # Each its own query: beside others a count of distinct values keeps whole columns in memory.
    asked |= {"\0beyond": values.select(beyond), "\0distinct": values.select(distinct)}
    if time is not None:
        asked["\0time"] = _along(values, time, unit)
    found = dict(zip(asked, _collected(list(asked.values())), strict=True))
    return _Counts(
        _only_row(found["\0beyond"]),
        _only_row(found["\0distinct"]),
        {name: dict(found[name].sort("rows", name, descending=[True, False]).iter_rows()) for name in texts},
        {day.isoformat(): rows for day, rows in found["\0time"].sort(time).iter_rows()} if time is not None else {},
    )


def _only_row(frame: pl.DataFrame) -> dict[str, int]:
    return frame.row(0, named=True) if frame.width else {}


def _edge(name: str, edge: float) -> str:
    return f"{name}\0{edge!r}"


def _edges(entry: ColumnProfile) -> set[float]:
    return {edge for bins in (entry.histogram, entry.deciles) if bins is not None for edge in bins.edges}


def _tally(
    values: pl.LazyFrame, entry: ColumnProfile, sample: pl.Series, earlier: ColumnProfile | None
) -> pl.LazyFrame:
    """Rows of each value; where there are too many values, of those that are frequent in the sample, or were before."""
    name = entry.name
    rows = values.select(name).filter(pl.col(name).is_not_null())
    if entry.distinct is not None and entry.distinct > FEW:
        frequent = sample.drop_nulls().value_counts(sort=True).head(KEPT)[name].to_list()
        rows = rows.filter(pl.col(name).is_in([*frequent, *(earlier.top if earlier else ())]))
    return rows.group_by(name).agg(pl.len().alias("rows"))


def _along(values: pl.LazyFrame, time: str, unit: Unit) -> pl.LazyFrame:
    every = {"day": "1d", "week": "1w", "month": "1mo"}[unit]
    begun = pl.from_epoch(pl.col(time), time_unit="us").dt.truncate(every).dt.date()
    return values.filter(pl.col(time).is_not_null()).group_by(begun.alias(time)).agg(pl.len().alias("rows"))


def _finished(
    entry: ColumnProfile, measured: Mapping[str, ColumnProfile], counts: _Counts, before: Profile | None
) -> ColumnProfile:
    """The column with its rows in each bin, its frequent values and its shift."""
    if entry.name not in measured:
        return entry
    entry, tally = measured[entry.name], counts.tallies.get(entry.name, {})
    exact = counts.distinct.get(entry.name)
    if entry.kind == "text" and (entry.distinct or 0) <= FEW:
        exact = len(tally)
    update: dict[str, Any] = {"top": dict(list(tally.items())[:KEPT])}
    if exact is not None:
        update |= {"distinct": exact, "distinct_exact": True}
    for kind in ("histogram", "deciles"):
        bins: Bins | None = getattr(entry, kind)
        if bins is not None:
            update[kind] = Bins(edges=bins.edges, rows=_rows_between(entry, bins.edges, counts))
    earlier = _comparable(entry, before)
    if earlier is not None:
        update["shift"] = _shift(earlier, entry, counts)
    return entry.model_copy(update=update)


def _rows_between(entry: ColumnProfile, edges: tuple[float, ...], counts: _Counts) -> tuple[int, ...]:
    from_edge = [entry.rows - entry.missing, *(counts.beyond[_edge(entry.name, edge)] for edge in edges), 0]
    return tuple(above - beyond for above, beyond in pairwise(from_edge))


# --------------------------------------------------------------------------------------------------------------- shift


def _comparable(entry: ColumnProfile, before: Profile | None) -> ColumnProfile | None:
    """The column in the earlier profile, when both can be held against each other."""
    earlier = before.column(entry.name) if before is not None else None
    if earlier is None or earlier.personal or earlier.kind != entry.kind or not entry.rows:
        return None
    if entry.kind not in ("number", "text"):  # a time moves with every snapshot
        return None
    return earlier if earlier.deciles is not None or earlier.top else None


def _shift(earlier: ColumnProfile, entry: ColumnProfile, counts: _Counts) -> float:
    """The population stability index in the earlier snapshot's bins; missing cells have a bin of their own."""
    if earlier.deciles is not None:
        old, new = list(earlier.deciles.rows), list(_rows_between(entry, earlier.deciles.edges, counts))
    else:
        tally, scale = counts.tallies.get(entry.name, {}), entry.rows / max(earlier.rows, 1)
        kept = [value for value, count in earlier.top.items() if count * scale >= _EXPECTED]
        old, new = [earlier.top[value] for value in kept], [tally.get(value, 0) for value in kept]
        old.append(earlier.rows - earlier.missing - sum(old))
        new.append(entry.rows - entry.missing - sum(new))
    sides = [np.array([*old, earlier.missing], dtype=float), np.array([*new, entry.missing], dtype=float)]
    return round(psi(sides[0], sides[1]), 6)
