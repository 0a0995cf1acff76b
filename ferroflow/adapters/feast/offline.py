"""A Feast offline store on Polars: point-in-time joins over Parquet files.

Feast's own file store drops rows whose features have expired, collapses rows that share a key and a time, and breaks
ties at random. Here every entity row comes back once, in the order it was given; what has expired is null; of two rows
of the same time the one created last wins.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureView, OnDemandFeatureView
from feast.infra.offline_stores.file_source import FileSource, SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from feast.utils import (
    _get_requested_feature_views_to_features_dict,
    _get_requested_on_demand_feature_views,
    compute_non_entity_date_range,
)

from ferroflow.core.errors import DataError, SpecError, UsageError

EVENT_TIMESTAMP = "event_timestamp"

_UTC = pl.Datetime("us", "UTC")
_ROW = "__row"
_TIME = "__time"
_CREATED = "__created"


class PolarsOfflineStoreConfig(FeastConfigBaseModel):
    """What ``feature_store.yaml`` may say of this store: its class path alone."""

    type: Literal["ferroflow.adapters.feast.offline.PolarsOfflineStore"] = (
        "ferroflow.adapters.feast.offline.PolarsOfflineStore"
    )


@dataclass(frozen=True)
class View:
    """One view of a point-in-time join.

    Attributes:
        rows: the stored rows, lazy and in any order.
        keys: column of the entity rows -> column of the stored rows.
        features: column of the result -> column of the stored rows.
        time: column of the stored rows: from when on a row may be used.
        created: column that decides between rows of the same time; the last one wins.
        ttl: how long a row may be used, bounds included; None: for ever.
    """

    rows: pl.LazyFrame
    keys: Mapping[str, str]
    features: Mapping[str, str]
    time: str
    created: str | None = None
    ttl: timedelta | None = None


def join_as_of(entities: pl.LazyFrame, time: str, views: Sequence[View]) -> pl.LazyFrame:
    """For each entity row, each view's latest row that is not after ``time`` and not older than its TTL.

    Returns:
        The entity rows, all of them and in their order (``time`` in UTC), with the features; null where there are none.
    """
    joined = in_utc(entities, time).with_row_index(_ROW).sort(time)
    kinds = joined.collect_schema()
    for view in views:
        joined = joined.join_asof(
            _sorted(view, kinds),
            left_on=time,
            right_on=_TIME,
            by=list(view.keys) or None,
            strategy="backward",
            tolerance=view.ttl,
            check_sortedness=False,  # both sides were sorted just now
        ).drop(_TIME, strict=False)
    return joined.sort(_ROW).drop(_ROW)


def in_utc(frame: pl.LazyFrame, *columns: str) -> pl.LazyFrame:
    """Times of any zone as UTC microseconds; dates and times without a zone count as UTC already."""
    kinds = frame.collect_schema()
    converted = []
    for column in columns:
        kind = kinds[column]
        if isinstance(kind, pl.Datetime) and kind.time_zone is not None:
            converted.append(pl.col(column).dt.cast_time_unit("us").dt.convert_time_zone("UTC"))
        else:
            converted.append(pl.col(column).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"))
    return frame.with_columns(converted)


def _sorted(view: View, kinds: Mapping[str, pl.DataType]) -> pl.LazyFrame:
    """The stored rows as the join needs them: renamed, keys of the entity rows' types, by time, then by creation."""
    order = {_TIME: view.time} | ({_CREATED: view.created} if view.created else {})
    columns = {**view.keys, **view.features, **order}
    rows = in_utc(view.rows.select(pl.col(there).alias(here) for here, there in columns.items()), *order)
    rows = rows.drop_nulls(list(view.keys)).with_columns(pl.col(key).cast(kinds[key]) for key in view.keys)
    # A backward join keeps the last of equal times: the stable sort puts the one created last there.
    return rows.sort(list(order), maintain_order=True).drop(_CREATED, strict=False)


class PolarsRetrievalJob(RetrievalJob):
    """A query that runs when its result is asked for."""

    def __init__(
        self,
        query: Callable[[], pl.LazyFrame],
        full_feature_names: bool = False,
        on_demand_feature_views: Sequence[OnDemandFeatureView] = (),
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        self._query = query
        self._full_feature_names = full_feature_names
        self._on_demand_feature_views = list(on_demand_feature_views)
        self._metadata = metadata

    @property
    def full_feature_names(self) -> bool:
        """Whether features are called ``view__feature``."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """Views that Feast computes on top of the result."""
        return self._on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """Features, keys and time span of the query."""
        return self._metadata

    def to_polars(self) -> pl.DataFrame:
        """Run the query, without the copy to pandas (and without on-demand views)."""
        return self._query().collect()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self.to_polars().to_pandas()

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        # One chunk: Feast's conversion for the online store reads the first batch only. Oldest: no string views.
        return self.to_polars().rechunk().to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks()

    def persist(
        self, storage: SavedDatasetFileStorage, allow_overwrite: bool = False, timeout: int | None = None
    ) -> None:
        """Keep the result as a Parquet file (Feast's saved data sets)."""
        path = Path(str(storage.file_options.uri).removeprefix("file://"))
        if path.exists() and not allow_overwrite:
            raise UsageError(f"A saved data set is at {path} already. Give allow_overwrite=True, or another path.")
        pq.write_table(self.to_arrow(), path)

    def supports_remote_storage_export(self) -> bool:
        """No: results stay on this machine."""
        return False


class PolarsOfflineStore(OfflineStore):
    """Reads Parquet files (or folders of them) named by ``FileSource``."""

    supports_filter_by_created_timestamp = False

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pl.DataFrame | pl.LazyFrame | pd.DataFrame | pa.Table | str | None,
        registry: Any,
        project: str,
        full_feature_names: bool = False,
        **span: Any,
    ) -> PolarsRetrievalJob:
        """Join features to entity rows as of each row's time.

        ``entity_df`` may be a Polars, pandas or Arrow table or a Polars SQL query, with one time column (or one named
        ``event_timestamp``); None means all entities between ``start_date`` and ``end_date``.
        """
        on_demand = _get_requested_on_demand_feature_views(feature_refs, project, registry)
        wanted, _ = _get_requested_feature_views_to_features_dict(feature_refs, feature_views, on_demand)
        views = [_view(view, features, full_feature_names, config) for view, features in wanted.items()]
        entities = _all_entities(views, list(wanted), span) if entity_df is None else _lazy(entity_df)
        time = _time_column(entities)
        keys = [column for column in entities.collect_schema() if column != time]
        return PolarsRetrievalJob(
            lambda: join_as_of(entities, time, views),
            full_feature_names,
            OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            _metadata(feature_refs, keys, entities, time),
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: FileSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> PolarsRetrievalJob:
        """Each entity's latest row between two moments, both included."""
        order = [timestamp_field, *([created_timestamp_column] if created_timestamp_column else [])]
        columns = list(dict.fromkeys([*join_key_columns, *feature_name_columns, *order]))

        def query() -> pl.LazyFrame:
            rows = _between(_scan(data_source, config).select(columns), order, start_date, end_date)
            return rows.sort(order, maintain_order=True).unique(join_key_columns, keep="last", maintain_order=True)

        return PolarsRetrievalJob(query)

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: FileSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> PolarsRetrievalJob:
        """All rows between two moments, both included."""
        order = [timestamp_field, *([created_timestamp_column] if created_timestamp_column else [])]
        columns = list(dict.fromkeys([*join_key_columns, *feature_name_columns, *order]))
        return PolarsRetrievalJob(
            lambda: _between(_scan(data_source, config).select(columns), order, start_date, end_date)
        )

    @staticmethod
    def offline_write_batch(
        config: RepoConfig, feature_view: FeatureView, table: pa.Table, progress: Callable[[int], Any] | None
    ) -> None:
        """Add rows to a view whose source is a folder: one more file in it."""
        folder = _path(feature_view.batch_source, config)
        if folder.is_file():
            raise SpecError(
                f"View {feature_view.name!r} keeps its rows in the single file {folder.name}; only a source that is a "
                f"folder can be added to. Name a folder in its FileSource."
            )
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{uuid.uuid4().hex}.tmp"
        pq.write_table(table, temporary)
        temporary.replace(folder / f"part-{uuid.uuid4().hex}.parquet")
        if progress:
            progress(table.num_rows)


def _path(source: FileSource, config: RepoConfig) -> Path:
    uri = str(FileSource.get_uri_for_file_path(config.repo_path, source.file_options.uri))
    return Path(uri.removeprefix("file://"))


def _scan(source: FileSource, config: RepoConfig) -> pl.LazyFrame:
    path = _path(source, config)
    if not path.exists():
        raise DataError(
            f"The offline store has no {path.name}. Refresh the features first: run the train or ingest flow."
        )
    return pl.scan_parquet(path / "**/*.parquet" if path.is_dir() else path)


def _between(rows: pl.LazyFrame, order: Sequence[str], start: datetime | None, end: datetime | None) -> pl.LazyFrame:
    rows = in_utc(rows, *order)
    if start is not None:
        rows = rows.filter(pl.col(order[0]) >= _aware(start))
    if end is not None:
        rows = rows.filter(pl.col(order[0]) <= _aware(end))
    return rows


def _aware(moment: datetime) -> pl.Expr:
    utc = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return pl.lit(utc, dtype=_UTC)


def _view(view: FeatureView, features: Sequence[str], full_names: bool, config: RepoConfig) -> View:
    """A Feast view as the join takes it: stored columns before the field mapping, entity columns after the key map."""
    source = view.batch_source
    before = {mapped: column for column, mapped in (source.field_mapping or {}).items()}
    asked = view.projection.join_key_map or {}
    prefix = f"{view.projection.name_to_use()}__" if full_names else ""
    return View(
        rows=_scan(source, config),
        keys={asked.get(key.name, key.name): before.get(key.name, key.name) for key in view.entity_columns},
        features={prefix + feature: before.get(feature, feature) for feature in features},
        time=source.timestamp_field,
        created=source.created_timestamp_column or None,
        ttl=view.ttl or None,  # zero: no limit
    )


def _lazy(entities: pl.DataFrame | pl.LazyFrame | pd.DataFrame | pa.Table | str) -> pl.LazyFrame:
    if isinstance(entities, str):
        return pl.sql(entities, eager=False)
    if isinstance(entities, pl.LazyFrame):
        return entities
    if isinstance(entities, pl.DataFrame):
        return entities.lazy()
    table = pl.from_pandas(entities) if isinstance(entities, pd.DataFrame) else pl.from_arrow(entities)
    return pl.DataFrame(table).lazy()


def _all_entities(views: Sequence[View], wanted: list[FeatureView], span: Mapping[str, Any]) -> pl.LazyFrame:
    """Every entity seen between two moments, at the later one."""
    start, end = compute_non_entity_date_range(wanted, start_date=span.get("start_date"), end_date=span.get("end_date"))
    seen = []
    for view in views:
        inside = pl.col(view.time).is_between(_aware(start), _aware(end))
        keys = [pl.col(there).alias(here) for here, there in view.keys.items()]
        seen.append(in_utc(view.rows, view.time).filter(inside).select(keys))
    distinct = pl.concat(seen, how="diagonal").unique(maintain_order=True)
    return distinct.with_columns(_aware(end).alias(EVENT_TIMESTAMP))


def _time_column(entities: pl.LazyFrame) -> str:
    kinds = entities.collect_schema()
    if EVENT_TIMESTAMP in kinds:
        return EVENT_TIMESTAMP
    times = [name for name, kind in kinds.items() if kind.base_type() in (pl.Datetime, pl.Date)]
    if len(times) != 1:
        raise SpecError(f"Entity rows have the time columns {times}. Name the one to join by {EVENT_TIMESTAMP!r}.")
    return times[0]


def _metadata(refs: list[str], keys: list[str], entities: pl.LazyFrame, time: str) -> RetrievalMetadata:
    times = in_utc(entities.select(time), time)
    first, last = times.select(pl.col(time).min().alias("first"), pl.col(time).max().alias("last")).collect().row(0)
    return RetrievalMetadata(refs, keys, first, last)
