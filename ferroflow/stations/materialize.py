"""From the offline to the online store: what is new since the last time, by ingestion time, and nothing else.

Of each view the online store says how far it is complete: up to which event time, and up to which ingestion time. The
next run asks which rows came since then, less a look-back for those that were being written meanwhile; the earliest
moment that they are about decides the range that Feast materializes. Late rows and corrections are found so, however
old what they are about. Both watermarks move after all rows of the range were read back, and never back: a run that
was killed is simply done again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
from pydantic import BaseModel, ConfigDict

from ferroflow.adapters.feast import marks
from ferroflow.adapters.feast.packed import OutdatedStore
from ferroflow.adapters.feast.plan import OnlineStoreAway, ReadPlan, Rows
from ferroflow.adapters.feast.reader import open_rows
from ferroflow.adapters.feast.rows import Watermark
from ferroflow.adapters.home import Home
from ferroflow.adapters.storage import read_record, write_record
from ferroflow.core.errors import DataError, UsageError
from ferroflow.core.features import AVAILABLE_AT, StoredFeatures
from ferroflow.core.fingerprint import fingerprint
from ferroflow.core.spec import PipelineSpec
from ferroflow.stations import offline
from ferroflow.stations.offline import INGESTED_AT

if TYPE_CHECKING:
    from feast import FeatureStore

LOOKBACK = timedelta(hours=1)
"""How long before the last ingestion rows came in that are taken to be new still."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UTC = pl.Datetime("us", "UTC")
_CHUNK = 10_000  # keys read back at once
_SAMPLE = 1_000  # about how many rows are read back with their values


class _Materialized(BaseModel):
    """Views by the fingerprint of what their online rows hold and how long they are kept."""

    model_config = ConfigDict(frozen=True)

    views: dict[str, str] = {}


@dataclass(frozen=True)
class _Stores:
    """A pipeline's stores, open."""

    spec: PipelineSpec
    home: Home
    feast: FeatureStore
    plan: ReadPlan
    online: Rows

    def rows(self, view: StoredFeatures) -> pl.LazyFrame:
        """The view's offline rows that have an entity."""
        file = self.home.offline(self.spec.name) / f"{view.name}.parquet"
        return pl.scan_parquet(file).filter(pl.col(view.entity).is_not_null())

    def mark(self, view: StoredFeatures) -> Watermark | None:
        """How far the view is complete online; a file of another version, which is replaced, says nothing."""
        try:
            return self.online.watermark(view.name)
        except OnlineStoreAway as error:
            if isinstance(error.__cause__, OutdatedStore):
                return None
            raise


def materialize(spec: PipelineSpec, as_of: datetime, home: Home, lookback: timedelta = LOOKBACK) -> dict[str, int]:
    """Bring what is new and available at ``as_of``, and not expired by then, to the online store.

    The whole time-to-live is materialized where a view never was, or has other features or another time-to-live since.
    What the store has of a later moment stays.

    Args:
        lookback: of ingestion time: rows that came in so shortly before the last ones are taken again.

    Returns:
        View -> entities whose latest row was written and read back.

    Raises:
        NotFound: the offline store was never computed for ``as_of`` or later.
        DataError: a row that was written cannot be read back.
    """
    if not spec.stored:
        return {}
    with _open(spec, as_of, home) as stores:
        return {view.name: _bring(stores, view, as_of, lookback) for view in spec.stored}


def backfill(spec: PipelineSpec, start: datetime, end: datetime, home: Home) -> dict[str, int]:
    """Materialize once more what became available between two moments, both included; watermarks stay where they are.

    Values of later moments stay, so this mends entities that have no later ones.

    Returns:
        View -> entities whose latest row of that time was written and read back.

    Raises:
        UsageError: ``start`` is after ``end``.
        NotFound: the offline store was never computed for ``end`` or later.
        DataError: a row that was written cannot be read back.
    """
    if start > end:
        raise UsageError(f"A back-fill from {offline.moment(start)} to {offline.moment(end)} is none. Swap them.")
    if not spec.stored:
        return {}
    with _open(spec, end, home) as stores:
        return {view.name: _write(stores, view, start, end) for view in spec.stored}


@contextmanager
def _open(spec: PipelineSpec, as_of: datetime, home: Home) -> Iterator[_Stores]:
    from ferroflow.adapters.feast.store import online_plan, store

    with offline.hold(spec, home):
        offline.bring_to(spec, as_of, home)
        plan = online_plan(spec, home)
        online = open_rows(plan)
        try:
            yield _Stores(spec, home, store(home, [spec]), plan, online)
        finally:
            online.close()


def _bring(stores: _Stores, view: StoredFeatures, as_of: datetime, lookback: timedelta) -> int:
    place = stores.home.offline(stores.spec.name) / "materialized.json"
    known = read_record(place, _Materialized) or _Materialized()
    rows, mark = stores.rows(view), stores.mark(view)
    definition = fingerprint(view.entity, _features(view, rows), view.ttl.total_seconds())
    same = known.views.get(view.name) == definition
    start = _start(rows, view, as_of, mark if same else None, lookback)
    written = 0 if start is None else _write(stores, view, start, as_of)
    marks.advance(stores.plan, view.name, _microseconds(as_of), _ingested(rows, as_of, mark))
    if not same:  # told last: after a kill the whole time-to-live is materialized again
        write_record(place, _Materialized(views=known.views | {view.name: definition}))
    return written


def _start(
    rows: pl.LazyFrame, view: StoredFeatures, as_of: datetime, mark: Watermark | None, lookback: timedelta
) -> datetime | None:
    """The earliest moment whose rows must be read again; None where nothing is new."""
    oldest = as_of - view.ttl
    if mark is None or mark.ingested is None:
        return oldest
    inside = rows.filter(pl.col(AVAILABLE_AT).is_between(oldest, as_of))
    came = pl.col(INGESTED_AT) > pl.lit(_moment(mark.ingested) - lookback, dtype=_UTC)
    later = pl.col(AVAILABLE_AT) > pl.lit(_moment(mark.event), dtype=_UTC)
    first: datetime | None = inside.filter(came | later).select(pl.col(AVAILABLE_AT).min()).collect().item()
    return first


def _ingested(rows: pl.LazyFrame, as_of: datetime, mark: Watermark | None) -> int | None:
    """Up to when rows are now materialized, by their ingestion.

    A run for an earlier moment than the last one's cannot say: of what came since, it left later events alone.
    """
    if mark is not None and _moment(mark.event) > as_of:
        return None
    newest = rows.filter(pl.col(AVAILABLE_AT) <= as_of).select(pl.col(INGESTED_AT).max()).collect().item()
    return None if newest is None else _microseconds(newest)


def _write(stores: _Stores, view: StoredFeatures, start: datetime, end: datetime) -> int:
    with redirect_stdout(sys.stderr):  # Feast tells there what it does; standard output is for results
        stores.feast.materialize(start, end, feature_views=[view.name])
    inside = stores.rows(view).filter(pl.col(AVAILABLE_AT).is_between(start, end))
    ordered = inside.sort(AVAILABLE_AT, INGESTED_AT, maintain_order=True)
    latest = ordered.unique(view.entity, keep="last", maintain_order=True).collect()
    _read_back(stores, view, latest)
    return latest.height


def _read_back(stores: _Stores, view: StoredFeatures, latest: pl.DataFrame) -> None:
    """See that every row is there, or a later one; and of some, that their values are what the offline store has."""
    features = _features(view, latest.lazy())
    for key, event, found, *_ in _found(stores, view, latest, features[:1]):
        if found is None or found[0] < event:
            raise _refused(stores, view, key, "cannot be read back from")
    sample = latest.gather_every(max(1, latest.height // _SAMPLE))
    for key, event, found, *values in _found(stores, view, sample, features):
        if found is None or (found[0] == event and list(found[1]) != values):
            raise _refused(stores, view, key, "has other values in")


def _found(
    stores: _Stores, view: StoredFeatures, rows: pl.DataFrame, features: Sequence[str]
) -> Iterator[tuple[Any, ...]]:
    """For each row: its key, its event time (µs), what the online store has of its key, and the row's own values."""
    event = pl.col(AVAILABLE_AT).dt.timestamp("us")
    for chunk in rows.iter_slices(_CHUNK):
        stored = stores.online.read(view.name, chunk[view.entity].to_list(), features)
        for key, moment, *values in chunk.select(view.entity, event, *features).iter_rows():
            yield key, moment, stored.get(key), *values


def _refused(stores: _Stores, view: StoredFeatures, key: Any, what: str) -> DataError:
    return DataError(
        f"The row of {view.entity} {key!r} of {view.name!r} {what} the online store of {stores.spec.name!r}. Nothing "
        f"of the view is counted as materialized. Empty that store, and materialize again."
    )


def _features(view: StoredFeatures, rows: pl.LazyFrame) -> list[str]:
    return [name for name in rows.collect_schema() if name not in (view.entity, AVAILABLE_AT, INGESTED_AT)]


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)
