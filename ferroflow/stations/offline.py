"""The offline store: a pipeline's stored features as Parquet files, one a view, as they were known at one moment.

There is one such folder a pipeline, and several runs may want it as of different moments. So whoever reads it while it
must not change holds its lock, and has brought it to its moment under the same lock (``hold``, then ``refresh`` or
``bring_to``). ``manifest.json`` says what the files are; ``latest.json`` says from which rows the latest moment so
far can be computed again after an earlier one has taken its place.
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
from ferroflow.adapters.storage import atomic_parquet, read_record, write_record
from ferroflow.core.errors import EmptySource, NotFound
from ferroflow.core.features import AVAILABLE_AT, StoredFeatures
from ferroflow.core.fingerprint import file_digest, fingerprint
from ferroflow.core.records import Validated
from ferroflow.core.spec import PipelineSpec
from ferroflow.core.windows import told

logger = logging.getLogger(__name__)

INGESTED_AT = "ingested_at"
_UTC = pl.Datetime("us", "UTC")
_BEFORE = ":before"
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
        file = place / f"{view.name}.parquet"
        table = _stamped(_stored_rows(view, rows, as_of), view, ingested_at, _before(file))
        atomic_parquet(file, table)
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
            .sort(AVAILABLE_AT, view.entity)
            .collect()
        )


def _stamped(
    rows: pl.DataFrame, view: StoredFeatures, ingested_at: datetime | None, before: pl.DataFrame | None
) -> pl.DataFrame:
    """The rows with when they were ingested: those that the file had already keep their time.

    New and corrected ones get ``ingested_at``, or a moment after all times of the file if that is no later: whoever
    asks for what came since finds them. A row is the same when its entity, its time and all its values are; where
    several have one entity and time, the one stamped last counts, so all of them are stamped anew.
    """
    columns = [view.entity, AVAILABLE_AT, INGESTED_AT, *rows.columns[2:]]
    newest = None if before is None else before[INGESTED_AT].max()
    if isinstance(newest, datetime) and (ingested_at is None or ingested_at <= newest):
        ingested_at = newest + timedelta(microseconds=1)
    new = pl.lit(ingested_at, dtype=_UTC).alias(INGESTED_AT)
    if before is None or before.drop(INGESTED_AT).schema != rows.schema:
        return rows.with_columns(new).select(columns)
    key = [view.entity, AVAILABLE_AT]
    alone = before.filter(~pl.struct(key).is_duplicated())
    joined = rows.join(alone, on=key, how="left", suffix=_BEFORE, maintain_order="left")
    same = [pl.col(name).eq_missing(pl.col(name + _BEFORE)) for name in rows.columns[2:]]
    kept = pl.all_horizontal(pl.col(INGESTED_AT).is_not_null(), ~pl.struct(key).is_duplicated(), *same)
    return joined.with_columns(pl.when(kept).then(INGESTED_AT).otherwise(new).alias(INGESTED_AT)).select(columns)


def _before(file: Path) -> pl.DataFrame | None:
    """The file's rows as they are; None where there is none that can be read."""
    try:
        return pl.read_parquet(file) if file.is_file() else None
    except pl.exceptions.PolarsError as error:
        logger.warning("%s cannot be read and is made anew: %s", file.name, error)
        return None


def _whole(place: Path) -> _Manifest | None:
    """The manifest; None when there is none, or a file that it names is gone."""
    found = read_record(place / "manifest.json", _Manifest)
    if found is None or not all((place / f"{view}.parquet").is_file() for view in found.views):
        return None
    return found


def _fingerprint(spec: PipelineSpec, validated: str, as_of: datetime) -> str:
    return fingerprint(VERSION, validated, moment(as_of), definitions(spec))
