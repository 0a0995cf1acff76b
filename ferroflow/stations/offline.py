"""The offline store: a pipeline's stored features as Parquet files, one a view, as they were known at one moment.

There is one such folder a pipeline, and several runs may want it as of different moments. So whoever reads it while it
must not change holds its lock, and has brought it to its moment under the same lock (``hold``, then ``refresh`` or
``bring_to``). ``manifest.json`` says what the files are; ``latest.json`` says from which rows the latest moment so
far can be computed again after an earlier one has taken its place.

When a row was ingested is kept in ``stamps/``, with its values: of every row that any refresh made, also of those that
are later than the present moment, and of those that a correction took away. So to go back to an earlier moment and
forth again changes no row's time; it changes when the row does, and then to a later one than any before.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
from pydantic import BaseModel, ConfigDict

from ferroflow.adapters.home import Home
from ferroflow.adapters.locks import locked
from ferroflow.adapters.storage import atomic_parquet, read_record, read_table, write_record
from ferroflow.core.errors import EmptySource, NotFound
from ferroflow.core.features import AVAILABLE_AT, StoredFeatures
from ferroflow.core.fingerprint import file_digest, fingerprint
from ferroflow.core.records import Validated
from ferroflow.core.spec import PipelineSpec
from ferroflow.core.windows import told

logger = logging.getLogger(__name__)

INGESTED_AT = "ingested_at"
_UTC = pl.Datetime("us", "UTC")
_BEFORE, _PLACE, _HERE, _GONE = ":before", ":place", ":here", ":gone"
VERSION = "features/1"  # changes when the code here or in features.py gives something else for the same description


class _Manifest(BaseModel):
    """What the files of the folder are."""

    model_config = ConfigDict(frozen=True)

    fingerprint: str
    validated: str  # the fingerprint of the rows
    as_of: datetime
    views: dict[str, int]


class _Latest(BaseModel):
    """The latest moment the folder was asked for, and the rows that were known then."""

    model_config = ConfigDict(frozen=True)

    as_of: datetime
    validated: Validated


class _Newest(BaseModel):
    """The latest moment that a row of each view was ever stamped with: it never goes back, whatever the files hold."""

    model_config = ConfigDict(frozen=True)

    views: dict[str, datetime] = {}


def hold(spec: PipelineSpec, home: Home) -> AbstractContextManager[None]:
    """The lock of a pipeline's offline store: while it is held, nobody else's refresh replaces the files."""
    return locked(home.offline(spec.name) / "store")


def refresh(spec: PipelineSpec, validated: Validated, as_of: datetime, home: Home) -> dict[str, int]:
    """Compute every stored view from the rows known at ``as_of``; the caller holds the lock.

    Returns:
        View -> rows in its Parquet file, which is sorted by ``available_at`` and replaced as a whole.
    """
    place = home.offline(spec.name)
    latest = read_record(place / "latest.json", _Latest)
    if latest is None or latest.as_of < as_of or (latest.as_of == as_of and latest.validated != validated):
        write_record(place / "latest.json", _Latest(as_of=as_of, validated=validated))
    wanted = _fingerprint(spec, validated.fingerprint, as_of)
    done = _whole(place)
    if done is not None and done.fingerprint == wanted:
        return done.views
    (place / "manifest.json").unlink(missing_ok=True)  # while files are replaced nothing vouches for them
    rows = known(accepted(validated, home), spec, as_of)
    ingested_at = rows.select(pl.col(INGESTED_AT).max()).collect().item()
    counts = {}
    for view in spec.stored:
        table = _stamped(_stored_rows(view, rows, as_of), view, as_of, ingested_at, place)
        atomic_parquet(place / f"{view.name}.parquet", table)
        counts[view.name] = table.height
    manifest = _Manifest(fingerprint=wanted, validated=validated.fingerprint, as_of=as_of, views=counts)
    write_record(place / "manifest.json", manifest)
    logger.info("offline store of %s as of %s: %s", spec.name, as_of, counts)
    return counts


def bring_to(spec: PipelineSpec, as_of: datetime, home: Home) -> None:
    """See that the store has all that was available at ``as_of``; the caller holds the lock.

    A store of an earlier moment is computed again from the rows of the latest moment it was ever asked for.

    Raises:
        NotFound: it was never computed for ``as_of`` or later.
    """
    place = home.offline(spec.name)
    present = _whole(place)
    if (
        present is not None
        and present.as_of >= as_of
        and present.fingerprint == _fingerprint(spec, present.validated, present.as_of)
    ):
        return
    latest = read_record(place / "latest.json", _Latest)
    if latest is None:
        raise NotFound(
            f"Pipeline {spec.name!r} has no stored features {spec.stored[0].name!r} offline. Train or ingest it first."
        )
    if latest.as_of < as_of:
        raise NotFound(
            f"The stored features of {spec.name!r} were computed as of {moment(latest.as_of)} at the latest, not as of "
            f"{moment(as_of)}. Run: ferroflow run {spec.name} --as-of {moment(as_of)}"
        )
    refresh(spec, latest.validated, latest.as_of, home)


def removed(spec: PipelineSpec, view: StoredFeatures, home: Home) -> pl.LazyFrame | None:
    """Rows that were in the view's file once and are none any more; None where nothing is known of them.

    Returns:
        The entity, ``available_at``, and as ``ingested_at`` the stamp of the refresh that found them gone.
    """
    found = read_table(_stamps(home.offline(spec.name), view))
    return None if found is None else found.lazy().filter(_GONE).select(view.entity, AVAILABLE_AT, INGESTED_AT)


def accepted(validated: Validated, home: Home) -> pl.LazyFrame:
    """The accepted rows.

    Raises:
        EmptySource: there is none.
    """
    if not validated.accepted:
        raise EmptySource(f"Pipeline {validated.pipeline!r} has no accepted rows. Look at: ferroflow quarantine.")
    return pl.scan_parquet([home.absolute(path) for path in validated.accepted])


def known(rows: pl.LazyFrame, spec: PipelineSpec, as_of: datetime) -> pl.LazyFrame:
    """Rows whose target was known at ``as_of``; all of them where nothing has a time."""
    column = spec.target.known_at or spec.time
    return rows if column is None else rows.filter(pl.col(column) <= as_of)


def definitions(spec: PipelineSpec) -> list[Mapping[str, object]]:
    """The features by name and by the text of their modules: another line there makes another table."""
    return [
        {
            "name": part.name,
            "code": file_digest(Path(inspect.getfile(part.function))),
            "lookup": [part.entity, part.on, part.ttl.total_seconds()] if isinstance(part, StoredFeatures) else [],
        }
        for part in spec.features
    ]


def moment(as_of: datetime) -> str:
    """A moment as it is written in fingerprints and messages."""
    return as_of.astimezone(UTC).isoformat()


def _stored_rows(view: StoredFeatures, rows: pl.LazyFrame, as_of: datetime) -> pl.DataFrame:
    available = pl.col(AVAILABLE_AT).dt.cast_time_unit("us")
    features = view.outputs(rows.collect_schema())
    with told(view.name):
        return (
            view.compute(rows)
            .with_columns(available)
            .filter(available <= as_of)
            .select(
                view.entity,
                AVAILABLE_AT,
                *(pl.col(name).cast(pl.Float64).fill_nan(None) for name in features),
            )
            .sort(AVAILABLE_AT, view.entity, maintain_order=True)
            .collect()
        )


def _stamped(
    rows: pl.DataFrame, view: StoredFeatures, as_of: datetime, ingested_at: datetime | None, place: Path
) -> pl.DataFrame:
    """The rows with when they were ingested: those that were there before keep their time, also in ``stamps/``.

    New and corrected ones get ``ingested_at``, or a moment after all times so far if that is no later: whoever asks for
    what came since finds them. A row is the same when its entity, its time and all its values are. Where several have
    one entity and time, the one stamped last counts, so they are stamped together.
    """
    past = _past(rows, view, place)
    newest = _newest(view, past, place)
    if newest is not None and (ingested_at is None or ingested_at <= newest):
        ingested_at = newest + timedelta(microseconds=1)
    new, later = pl.lit(ingested_at, dtype=_UTC), pl.col(AVAILABLE_AT) > as_of
    moment, features = [view.entity, AVAILABLE_AT], rows.columns[2:]
    number = pl.int_range(pl.len()).over(moment).alias(_PLACE)
    both = rows.with_columns(number, pl.lit(True).alias(_HERE)).join(
        past.with_columns(number), [*moment, _PLACE], "full", suffix=_BEFORE, nulls_equal=True, coalesce=True
    )
    here, gone = pl.col(_HERE).fill_null(False), pl.col(_GONE)
    equal = pl.all_horizontal(gone.not_().fill_null(False), *(_equal(name) for name in features))
    same = pl.when(here).then(equal).otherwise(gone | later).all().over(moment)
    stamped = both.sort(AVAILABLE_AT, view.entity, _PLACE).select(
        *moment,
        pl.when(same).then(INGESTED_AT).otherwise(new).alias(INGESTED_AT),
        *(pl.when(here).then(name).when(later).then(name + _BEFORE).alias(name) for name in features),
        pl.when(here).then(False).otherwise(gone | ~later).alias(_GONE),
        here.alias(_HERE),
    )
    _keep(stamped.drop(_HERE), view, newest, place)
    return stamped.filter(_HERE).drop(_HERE, _GONE)


def _equal(name: str) -> pl.Expr:
    return pl.col(name).eq_missing(pl.col(name + _BEFORE))


def _past(rows: pl.DataFrame, view: StoredFeatures, place: Path) -> pl.DataFrame:
    """All rows so far with the columns of ``rows``, when they were ingested, and whether they are gone."""
    found = read_table(_stamps(place, view))
    if found is None and (present := read_table(place / f"{view.name}.parquet")) is not None:
        found = present.with_columns(pl.lit(False).alias(_GONE))
    wanted = {**rows.schema, INGESTED_AT: _UTC, _GONE: pl.Boolean()}
    if found is None or any(found.schema.get(name) != wanted[name] for name in (view.entity, AVAILABLE_AT)):
        return pl.DataFrame(schema=wanted)
    return found.select(
        (pl.col(name) if name in found.columns else pl.lit(None)).cast(kind).alias(name)
        for name, kind in wanted.items()
    )


def _newest(view: StoredFeatures, past: pl.DataFrame, place: Path) -> datetime | None:
    """The latest moment that a row was ever stamped with."""
    kept = read_record(place / "stamps" / "newest.json", _Newest) or _Newest()
    known = (kept.views.get(view.name), past[INGESTED_AT].max())
    return max((moment for moment in known if isinstance(moment, datetime)), default=None)


def _keep(stamped: pl.DataFrame, view: StoredFeatures, newest: datetime | None, place: Path) -> None:
    """Keep the stamps, the latest one first: so no file ever has one above it."""
    file = place / "stamps" / "newest.json"
    kept = read_record(file, _Newest) or _Newest()
    found = stamped[INGESTED_AT].max()
    reached = max((moment for moment in (newest, found) if isinstance(moment, datetime)), default=None)
    if reached is not None and reached != kept.views.get(view.name):
        write_record(file, _Newest(views=kept.views | {view.name: reached}))
    atomic_parquet(_stamps(place, view), stamped)


def _stamps(place: Path, view: StoredFeatures) -> Path:
    return place / "stamps" / f"{view.name}.parquet"


def _whole(place: Path) -> _Manifest | None:
    """The manifest; None when there is none, or a file that it names is gone."""
    found = read_record(place / "manifest.json", _Manifest)
    if found is None or not all((place / f"{view}.parquet").is_file() for view in found.views):
        return None
    return found


def _fingerprint(spec: PipelineSpec, validated: str, as_of: datetime) -> str:
    return fingerprint(VERSION, validated, moment(as_of), definitions(spec))
