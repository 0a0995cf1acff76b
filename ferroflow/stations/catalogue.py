"""The feature catalogue: what is declared, stored, learnt from and asked for, put together. It only reads.

What was never made is told as missing, and so is what cannot be asked; nothing long is computed to fill a gap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from ferroflow.adapters.home import Home
from ferroflow.adapters.predictions import PredictionLog
from ferroflow.adapters.storage import read_record, read_table
from ferroflow.core.catalogue import (
    Catalogue,
    Declared,
    FeatureEntry,
    Freshness,
    Importances,
    Logged,
    ModelUse,
    PipelineFeatures,
    Values,
    declared,
    personal,
    spoken,
)
from ferroflow.core.contract import ServingContract, StoredView
from ferroflow.core.errors import FerroflowError, RegistryError
from ferroflow.core.features import AVAILABLE_AT, StoredFeatures
from ferroflow.core.records import FeatureTable
from ferroflow.core.spec import PipelineSpec
from ferroflow.stations.importance import measured
from ferroflow.stations.recompute import logged_object

if TYPE_CHECKING:
    from ferroflow.adapters.feast.rows import Watermark

LATELY = (timedelta(hours=1), timedelta(days=1), timedelta(days=7))
"""How far back logged predictions are looked for: no further than there are enough."""
ENOUGH = 2_000
MOST = 5_000
"""Logged predictions that are looked at, the newest ones."""

_INGESTED_AT = "ingested_at"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ALIASES = ("champion", "challenger")


def catalogue(specs: Sequence[PipelineSpec], as_of: datetime | Mapping[str, datetime], home: Home) -> Catalogue:
    """Put together what is known of every model input of these pipelines.

    Args:
        as_of: the moment that ages count to, for all pipelines or for each.

    Raises:
        SpecError: a pipeline's features do not fit its schema.
    """
    moments = as_of if isinstance(as_of, Mapping) else dict.fromkeys((spec.name for spec in specs), as_of)
    return Catalogue(pipelines=tuple(_pipeline(spec, moments[spec.name], home) for spec in specs))


def _pipeline(spec: PipelineSpec, as_of: datetime, home: Home) -> PipelineFeatures:
    entries = declared(spec)
    table = last_table(spec.name, home)
    values = _values(table, entries, spec, home)
    since, vectors = _lately(spec, as_of, home)
    models, problem = _models(spec.name, home)
    champion = next((model for model in models if model.alias == "champion"), None)
    importances = measured(spec.name, champion.fingerprint, home) if champion else None
    fresh = freshness(spec, as_of, home)
    return PipelineFeatures(
        pipeline=spec.name,
        description=spec.description,
        owner=spec.owner,
        as_of=as_of,
        table=table.fingerprint if table else "",
        table_as_of=table.as_of if table else None,
        logged=len(vectors),
        logged_since=since,
        models=models,
        models_problem=problem or _unread(models),
        importances=importances,
        features=tuple(
            _entry(spec.name, entry, fresh.get(entry.view), values, vectors, models, importances) for entry in entries
        ),
    )


def _entry(
    pipeline: str,
    entry: Declared,
    fresh: Freshness | None,
    values: Mapping[str, Values],
    vectors: Sequence[Mapping[str, Any]],
    models: Sequence[ModelUse],
    importances: Importances | None,
) -> FeatureEntry:
    had = [vector[entry.name] for vector in vectors if entry.name in vector]
    return FeatureEntry(
        **entry.model_dump(),
        pipeline=pipeline,
        freshness=fresh,
        training=values.get(entry.name),
        logged=Logged(rows=len(had), missing=sum(value is None for value in had)) if had else None,
        importance=importances.growth.get(entry.name) if importances else None,
        used_by=tuple(f"{model.alias} {model.version}" for model in models if entry.name in model.inputs),
    )


# ----------------------------------------------------------------------------------------------------------- freshness


def freshness(spec: PipelineSpec, as_of: datetime, home: Home, *, online: bool = True) -> dict[str, Freshness]:
    """How new each stored view is at ``as_of``, in the offline and in the online store.

    Args:
        online: ask the online store; else nothing is said of it.
    """
    marks, problem = _watermarks(spec, home) if spec.stored and online else ({}, "")
    return {view.name: _freshness(spec, view, as_of, home, marks.get(view.name), problem) for view in spec.stored}


def _freshness(
    spec: PipelineSpec, view: StoredFeatures, as_of: datetime, home: Home, mark: Watermark | None, problem: str
) -> Freshness:
    path, first = home.offline(spec.name) / f"{view.name}.parquet", None
    found: dict[str, Any] = {"problem": problem}
    if path.is_file():
        kept, usable = pl.scan_parquet(path), pl.col(AVAILABLE_AT) <= as_of
        newest = kept.filter(usable).select(pl.len(), pl.col(AVAILABLE_AT).max(), pl.col(_INGESTED_AT).max()).collect()
        rows, available, ingested = newest.row(0)
        found |= {"rows": rows, "available_at": available, "ingested_at": ingested}
        found["age_seconds"] = None if available is None else (as_of - available).total_seconds()
        first = kept.select(pl.col(AVAILABLE_AT).min()).collect().item() if available is None else available
    if mark is not None:
        event = _moment(mark.event)
        found |= {"online_until": event, "online_age_seconds": (as_of - event).total_seconds()}
        found["online_ingested"] = None if mark.ingested is None else _moment(mark.ingested)
    return Freshness(**found, stale=_stale(view, found, first))


def null_rates(spec: PipelineSpec, view: StoredFeatures, home: Home) -> dict[str, float]:
    """Feature of a stored view -> share of its offline rows that lack it; empty when it was never computed."""
    path = home.offline(spec.name) / f"{view.name}.parquet"
    return _null_rates(path, (view.entity, AVAILABLE_AT, _INGESTED_AT)) if path.is_file() else {}


def table_null_rates(table: FeatureTable, home: Home) -> dict[str, float]:
    """Model input -> share of the training table's rows that lack it."""
    inputs = {*table.numeric, *table.categorical}
    shares = _null_rates(home.absolute(table.path), ())
    return {name: share for name, share in shares.items() if name in inputs}


def _null_rates(path: Path, without: Sequence[str]) -> dict[str, float]:
    counts = pl.scan_parquet(path).select(pl.exclude(without).null_count(), pl.len().alias("\0rows")).collect()
    found = counts.row(0, named=True)
    rows = found.pop("\0rows")
    return {name: round(count / rows, 6) if rows else 0.0 for name, count in found.items()}


def _stale(view: StoredFeatures, found: Mapping[str, Any], first: datetime | None) -> str:
    """Why a look-up would find nothing; "" when it would find something. ``first``: when the oldest row came."""
    age, online, longest = found.get("age_seconds"), found.get("online_age_seconds"), view.ttl.total_seconds()
    if found.get("rows") is None:
        return "never computed"
    if age is None:
        return f"its first row is of {first:%Y-%m-%d %H:%M} UTC, later than asked for" if first else "it has no rows"
    if age > longest:
        return f"newest row is {spoken(age)} old, usable for {spoken(longest)}"
    if found["problem"]:
        return ""
    if online is None:
        return "never brought to the online store"
    if online > longest:
        return f"online store ends {spoken(online)} ago, rows are usable for {spoken(longest)}"
    return ""


def _watermarks(spec: PipelineSpec, home: Home) -> tuple[dict[str, Watermark | None], str]:
    """How far each view is complete online; why that is not known, when the store is away."""
    from ferroflow.adapters.feast.online_rows import plan_of, view_plan
    from ferroflow.adapters.feast.reader import open_rows

    lookups = [
        StoredView(view=view.name, entity=view.entity, on=view.on, ttl_seconds=view.ttl.total_seconds(), features=())
        for view in spec.stored
    ]
    try:
        with closing(open_rows(plan_of(spec.name, [view_plan(view, "text") for view in lookups], home))) as rows:
            return {view.name: rows.watermark(view.name) for view in spec.stored}, ""
    except FerroflowError as error:
        return {}, str(error)
    except ValueError as error:  # the address cannot be read; it may hold a password, and so may the error
        return {}, f"its address cannot be read ({type(error).__name__}): see the setting online_store"


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


# ------------------------------------------------------------------------------------------------------ training table


def last_table(pipeline: str, home: Home) -> FeatureTable | None:
    """The training table of the latest moment, the one written last among those; None: none was made yet."""
    found: list[tuple[datetime, float, FeatureTable]] = []
    for path in (home.data(pipeline) / "tables").glob("[!.]*.json"):
        record = read_record(path, FeatureTable)
        if record is not None and home.absolute(record.path).is_file():
            found.append((record.as_of, path.stat().st_mtime, record))
    return max(found, key=lambda entry: entry[:2])[2] if found else None


def _values(
    table: FeatureTable | None, entries: Sequence[Declared], spec: PipelineSpec, home: Home
) -> dict[str, Values]:
    rows = read_table(home.absolute(table.path)) if table else None
    if rows is None:
        return {}
    return {
        entry.name: column_values(rows[entry.name], personal(entry, spec))
        for entry in entries
        if entry.name in rows.columns
    }


def column_values(column: pl.Series, hidden: bool = False) -> Values:
    """What a column of model inputs holds, in short; ``hidden``: no value is told."""
    empty = Values(rows=column.len(), missing=column.null_count(), hidden=hidden)
    if hidden or empty.missing == empty.rows:
        return empty
    if column.dtype.is_float():
        return empty.model_copy(update={"low": column.min(), "mean": column.mean(), "high": column.max()})
    tally = column.drop_nulls().value_counts(name="\0rows").sort("\0rows", column.name, descending=[True, False])
    value, rows = tally.row(0)
    return empty.model_copy(update={"top": str(value), "top_rows": rows})


# --------------------------------------------------------------------------------------------------------- predictions


def _lately(spec: PipelineSpec, as_of: datetime, home: Home) -> tuple[datetime | None, list[dict[str, Any]]]:
    """Since when predictions were looked at, and the inputs of the newest ones up to ``as_of``."""
    log = PredictionLog(home.predictions(spec.name))
    if not log.path.is_file():
        return None, []
    for back in LATELY:
        rows = log.read(as_of - back, as_of + timedelta(microseconds=1))
        if rows.height >= ENOUGH:
            break
    newest = rows.select(pl.coalesce("event_time", "at").alias("moment"), "features").tail(MOST)
    found = [(moment, logged_object(text)) for moment, text in newest.iter_rows()]
    whole = [(moment, vector) for moment, vector in found if vector is not None]  # damaged lines say nothing
    return min((moment for moment, _ in whole), default=None), [vector for _, vector in whole]


# -------------------------------------------------------------------------------------------------------------- models


def _models(pipeline: str, home: Home) -> tuple[tuple[ModelUse, ...], str]:
    """Champion and challenger with their inputs; why they are not known, when the registry is away."""
    from ferroflow.adapters import registry

    try:
        pointed = registry.aliases(pipeline, home)
        known = {entry.version: entry for entry in registry.versions(pipeline, home)} if pointed else {}
    except RegistryError as error:
        return (), str(error)
    found = []
    for alias in _ALIASES:
        if (number := pointed.get(alias)) is None:
            continue
        entry = known.get(number)
        if entry is None:
            found.append(ModelUse(alias=alias, version=number, fingerprint="", problem="not registered by ferroflow"))
            continue
        inputs, problem = _inputs(home.absolute(entry.package) / "serving.json")
        found.append(
            ModelUse(alias=alias, version=number, fingerprint=entry.fingerprint, inputs=inputs, problem=problem)
        )
    return tuple(found), ""


def _unread(models: Sequence[ModelUse]) -> str:
    """Why it is not known which models use what, though the registry says which models there are; "": it is known."""
    named = " and ".join(f"{model.alias} {model.version}" for model in models if model.problem)
    return f"the inputs of {named} cannot be read" if named else ""


def _inputs(path: Path) -> tuple[tuple[str, ...], str]:
    try:
        return tuple(ServingContract.model_validate_json(path.read_bytes()).inputs), ""
    except (OSError, ValueError) as error:
        told = "is gone" if isinstance(error, FileNotFoundError) else "cannot be read"
        return (), f"its package {path.parent.name} {told}: which inputs it takes is not known"
