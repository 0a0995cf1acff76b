"""From the offline to the online store: what is new since the last time, by ingestion time, and nothing else.

Of each view the online store says how far it is complete: up to which event time, and up to which ingestion time. The
next run asks which rows came since then; the earliest moment that they are about decides the range that Feast
materializes. Late rows and corrections are found so, however old what they are about. Both watermarks move after all
rows of the range were read back, and never back: a run that was killed is simply done again. What runs did is kept
beside the offline store too, for each online store apart: pushes move the watermark of events as well.
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
from ferroflow.adapters.feast.plan import ReadPlan, Rows
from ferroflow.adapters.feast.reader import open_rows
from ferroflow.adapters.feast.replacement import FOREVER, Replacement, replacing
from ferroflow.adapters.feast.rows import Watermark
from ferroflow.adapters.home import Home
from ferroflow.adapters.storage import read_record, write_record
from ferroflow.core.errors import DataError, UsageError
from ferroflow.core.features import AVAILABLE_AT, StoredFeatures
from ferroflow.core.fingerprint import fingerprint
from ferroflow.core.spec import PipelineSpec
from ferroflow.stations import offline
from ferroflow.stations.offline import INGESTED_AT
from ferroflow.stations.push import pushes_go_on

if TYPE_CHECKING:
    from feast import FeatureStore

LOOKBACK = timedelta(0)
"""How long before the last ingestion rows came in that are taken to be new still.

A refresh stamps what it finds later than all that was stamped before, and no materialization runs meanwhile: none is
needed, unless another program writes the offline files.
"""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UTC = pl.Datetime("us", "UTC")
_CELLS = 200_000  # values read back at once, about
_SAMPLE = 1_000  # about how many rows are read back with their values
_PROBED = 100  # of the newest rows, looked for before a run believes that the older ones are there
_PATIENCE = 60.0  # seconds an answer may take: thousands of keys at once, and nobody waits for a prediction


class _Done(BaseModel):
    """What the last run for the latest moment did with a view."""

    model_config = ConfigDict(frozen=True)

    definition: str  # the fingerprint of what its online rows hold, and how long they are kept
    event: int
    ingested: int | None
    features: tuple[str, ...] = ()


class _Materialized(BaseModel):
    """Of each view in each online store, what was done."""

    model_config = ConfigDict(frozen=True)

    views: dict[str, _Done] = {}


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
        return marks.watermark_of(self.online, view.name)


def materialize(spec: PipelineSpec, as_of: datetime, home: Home, lookback: timedelta = LOOKBACK) -> dict[str, int]:
    """Bring what is new and available at ``as_of``, and not expired by then, to the online store.

    The whole time-to-live is materialized where a view never was, or has another definition since.
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
    from ferroflow.adapters.feast.store import online_plan, store_to_write

    with offline.hold(spec, home):
        offline.bring_to(spec, as_of, home)
        plan = online_plan(spec, home)
        online = open_rows(plan, read_seconds=_PATIENCE)
        try:
            yield _Stores(spec, home, store_to_write(home, spec), plan, online)
        finally:
            online.close()


def _bring(stores: _Stores, view: StoredFeatures, as_of: datetime, lookback: timedelta) -> int:
    file = stores.home.offline(stores.spec.name) / "materialized.json"
    known, where = read_record(file, _Materialized) or _Materialized(), _where(stores.plan, view)
    rows, mark = stores.rows(view), stores.mark(view)
    definition, done = _definition(stores.spec, view, rows), None if mark is None else known.views.get(where)
    is_same, event = done is not None and done.definition == definition, _microseconds(as_of)
    reached = _reached(mark, done) if done is not None and is_same else None
    if reached is not None and not _is_there(stores, view, rows, reached):
        reached = None
    start, is_earlier = _start(rows, view, as_of, reached, lookback), _is_earlier(event, mark, done)
    # What an earlier definition, or another home, put there is no newer value of this one.
    others = not is_same and not is_earlier and mark is not None and mark.ingested is not None
    with replacing(_replaced(stores, view, done, event) if others else None):
        written = 0 if start is None else _write(stores, view, start, as_of)
    if is_earlier:  # of what came since, it left later events alone
        marks.advance(stores.plan, view.name, event)
        return written
    ingested = _ingested(rows, as_of)
    marks.advance(stores.plan, view.name, event, ingested)
    # Told last: after a kill the same is done again.
    now = _Done(definition=definition, event=event, ingested=ingested, features=tuple(_features(view, rows)))
    write_record(file, _Materialized(views=known.views | {where: now}))
    return written


def _where(plan: ReadPlan, view: StoredFeatures) -> str:
    """A view in an online store: the packed one is the home's, wherever that lies; of a server's address a digest."""
    store = plan.store
    if store.type == "packed":
        return f"{view.name} in packed"
    schema = store.schema_name if store.type == "postgres" else ""
    return f"{view.name} in {store.type} {fingerprint(store.shown, schema)}"


def _definition(spec: PipelineSpec, view: StoredFeatures, rows: pl.LazyFrame) -> str:
    code = [part for part in offline.definitions(spec) if part["name"] == view.name]
    return fingerprint(view.entity, _features(view, rows), view.ttl.total_seconds(), code)


def _reached(mark: Watermark | None, done: _Done) -> Watermark | None:
    """What both the store and the last run say was done; None: nothing can be said."""
    if mark is None or mark.ingested is None or done.ingested is None:
        return None
    return Watermark(min(mark.event, done.event), min(mark.ingested, done.ingested))


def _replaced(stores: _Stores, view: StoredFeatures, done: _Done | None, event: int) -> Replacement:
    """All that the view has online, but not what was pushed later than this run by its definition of now."""
    pushed = pushes_go_on(stores.spec, view.name, stores.home)
    return Replacement(done.features if done is not None else (), event if pushed else FOREVER)


def _is_there(stores: _Stores, view: StoredFeatures, rows: pl.LazyFrame, reached: Watermark) -> bool:
    """Whether the newest of what was brought there is still there: a server may have been emptied, or lost a table."""
    if reached.ingested is None:
        return False
    event, came = _moment(reached.event), _moment(reached.ingested)
    brought = rows.filter(
        pl.col(AVAILABLE_AT).is_between(pl.lit(event - view.ttl, dtype=_UTC), pl.lit(event, dtype=_UTC)),
        pl.col(INGESTED_AT) <= pl.lit(came, dtype=_UTC),
    )
    newest = brought.top_k(_PROBED, by=AVAILABLE_AT).sort(AVAILABLE_AT).unique(view.entity, keep="last").collect()
    found = _found(stores, view, newest, _features(view, rows)[:1])
    return all(stored is not None and stored[0] >= moment for _, moment, stored, *_ in found)


def _is_earlier(event: int, mark: Watermark | None, done: _Done | None) -> bool:
    """Whether the store has been materialized up to a later event; one that was pushed does not count."""
    if done is not None:
        return done.event > event
    return mark is not None and mark.ingested is not None and mark.event > event


def _start(
    rows: pl.LazyFrame, view: StoredFeatures, as_of: datetime, reached: Watermark | None, lookback: timedelta
) -> datetime | None:
    """The earliest moment whose rows must be read again; None where nothing is new."""
    oldest = as_of - view.ttl
    if reached is None or reached.ingested is None:
        return oldest
    inside = rows.filter(pl.col(AVAILABLE_AT).is_between(oldest, as_of))
    came = pl.col(INGESTED_AT) > pl.lit(_moment(reached.ingested) - lookback, dtype=_UTC)
    later = pl.col(AVAILABLE_AT) > pl.lit(_moment(reached.event), dtype=_UTC)
    first: datetime | None = inside.filter(came | later).select(pl.col(AVAILABLE_AT).min()).collect().item()
    return first


def _ingested(rows: pl.LazyFrame, as_of: datetime) -> int | None:
    """Up to when rows are now materialized, by their ingestion."""
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
    event, width = pl.col(AVAILABLE_AT).dt.timestamp("us"), len(_features(view, rows.lazy()))
    for chunk in rows.iter_slices(max(100, _CELLS // max(1, width))):
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
