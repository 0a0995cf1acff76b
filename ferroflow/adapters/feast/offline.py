"""A Feast offline store on Polars: point-in-time joins over Parquet files.

Feast's own file store drops rows whose features have expired, collapses rows that share a key and a time, and breaks
ties at random. Here every entity row comes back once, in the order it was given; what has expired is null; of two rows
of the same time the one created last wins; and a row that says when it became known is not used before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime
from typing import Any, Literal, TypeAlias

import pandas as pd
import polars as pl
import pyarrow as pa
from feast import FeatureView, OnDemandFeatureView
from feast.errors import RequestDataNotFoundInEntityDfException
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feast.infra.offline_stores.file_source import FileSource, SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from feast.utils import (
    _get_requested_feature_views_to_features_dict,
    _get_requested_on_demand_feature_views,
    compute_non_entity_date_range,
)

from ferroflow.adapters.feast.added import fitting, layout
from ferroflow.adapters.feast.asof import View, between, in_utc, join_as_of, joined, latest, reading
from ferroflow.adapters.feast.scans import Place, arrow_types, at, checked, place, stored_names, timed
from ferroflow.core.errors import SpecError, UsageError

__all__ = [
    "EVENT_TIMESTAMP",
    "PolarsOfflineStore",
    "PolarsOfflineStoreConfig",
    "PolarsRetrievalJob",
    "View",
    "in_utc",
    "join_as_of",
]

EVENT_TIMESTAMP = "event_timestamp"

Entities: TypeAlias = pl.DataFrame | pl.LazyFrame | pd.DataFrame | pa.Table | str | None


class PolarsOfflineStoreConfig(FeastConfigBaseModel):
    """What ``feature_store.yaml`` may say of this store.

    Attributes:
        available_at_column: the column of a source that says from when on a row was known. Where a source has it (and
            its event times are another column), a row is used only for entity rows of that time or later; a row
            without a value was never known. None: look at event times only.
    """

    type: Literal["ferroflow.adapters.feast.offline.PolarsOfflineStore"] = (
        "ferroflow.adapters.feast.offline.PolarsOfflineStore"
    )
    available_at_column: str | None = "available_at"


class PolarsRetrievalJob(RetrievalJob):
    """A query that runs when its result is asked for."""

    def __init__(
        self,
        query: Callable[[], pl.DataFrame],
        full_feature_names: bool = False,
        on_demand_feature_views: Sequence[OnDemandFeatureView] = (),
        metadata: Callable[[], RetrievalMetadata] | None = None,
        time: str = EVENT_TIMESTAMP,
        repo_path: Any = None,
    ) -> None:
        self._query = query
        self._full_feature_names = full_feature_names
        self._on_demand_feature_views = list(on_demand_feature_views)
        self._metadata = metadata
        self._time = time
        self._repo_path = repo_path

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
        """Features, keys and time span of the query; reads the entity rows, when they are a query themselves."""
        return self._metadata() if self._metadata else None

    def to_polars(self) -> pl.DataFrame:
        """Run the query, without the copy to pandas."""
        if self._on_demand_feature_views:
            return pl.DataFrame(pl.from_arrow(self.to_arrow()))
        return self._query()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._to_arrow_internal().to_pandas()

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        # One chunk: Feast's conversion for the online store reads the first batch only. Oldest: no string views.
        return self._query().rechunk().to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks()

    def persist(
        self, storage: SavedDatasetFileStorage, allow_overwrite: bool = False, timeout: int | None = None
    ) -> None:
        """Keep the result as a Parquet file (Feast's saved data sets).

        Raises:
            UsageError: something is there already, and ``allow_overwrite`` is false.
            DataError: it cannot be told whether something is there.
        """
        options = storage.file_options
        target = at(options.uri, options.s3_endpoint_override, self._repo_path)
        if not allow_overwrite and target.exists():
            raise UsageError(
                f"A saved data set is at {target.address} already. Give allow_overwrite=True, or another path."
            )
        table = self.to_arrow()
        if EVENT_TIMESTAMP not in table.column_names:  # by this name Feast reads it back
            table = table.append_column(EVENT_TIMESTAMP, table[self._time])
        single = not target.remote or target.address.endswith(".parquet")
        (target if single else Place(f"{target.address.rstrip('/')}/rows.parquet", target.options)).write(table)

    def supports_remote_storage_export(self) -> bool:
        """No: results stay where ``persist`` puts them."""
        return False


class PolarsOfflineStore(OfflineStore):
    """Reads Parquet files, folders and patterns of them, here or on S3, as named by ``FileSource``."""

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: Entities,
        registry: Any,
        project: str,
        full_feature_names: bool = False,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
        filter_by_created_timestamp: bool = False,
    ) -> PolarsRetrievalJob:
        """Join features to entity rows as of each row's time.

        ``entity_df`` may be a Polars, pandas or Arrow table, or a query in Polars' SQL over the asked feature views by
        their names (and ``read_parquet('…')``); it has one time column, or one named ``event_timestamp``. None means
        all entities seen between ``start_date`` and ``end_date``, as of ``end_date``. With
        ``filter_by_created_timestamp`` a row must have been created by then, too.
        """
        on_demand = _get_requested_on_demand_feature_views(feature_refs, project, registry)
        wanted, _ = _get_requested_feature_views_to_features_dict(feature_refs, feature_views, on_demand)
        views = [
            _view(view, features, full_feature_names, config, filter_by_created_timestamp)
            for view, features in wanted.items()
        ]
        if entity_df is None:
            span = compute_non_entity_date_range(list(wanted), start_date=start_date, end_date=end_date)
            entities = _Entities(_all_entities(views, *span), views)
        else:
            entities = _Entities(_lazy(entity_df, views), views if isinstance(entity_df, str) else ())
        computed = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        entities.check(views, [] if entity_df is None else computed)
        return PolarsRetrievalJob(
            lambda: joined(entities.rows(), entities.time, views),
            full_feature_names,
            computed,
            lambda: entities.metadata(feature_refs),
            entities.time,
            config.repo_path,
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
        """Each entity's latest row between two moments of event time, both included.

        When a row became known plays no part: what is stored is known by now.
        """
        order = [timestamp_field, *([created_timestamp_column] if created_timestamp_column else [])]
        columns = (join_key_columns, feature_name_columns, order)

        def query(stored: pl.LazyFrame) -> pl.DataFrame:
            inside = in_utc(between(stored, timestamp_field, start_date, end_date), *order)
            return _with_dummy(latest(inside, join_key_columns, order), join_key_columns)

        return _pulled(config, data_source, columns, query)

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
        columns = (join_key_columns, feature_name_columns, order)

        def query(stored: pl.LazyFrame) -> pl.DataFrame:
            inside = in_utc(between(stored, timestamp_field, start_date, end_date), *order)
            return _with_dummy(inside.collect(), join_key_columns)

        return _pulled(config, data_source, columns, query)

    @staticmethod
    def offline_write_batch(
        config: RepoConfig, feature_view: FeatureView, table: pa.Table, progress: Callable[[int], Any] | None
    ) -> None:
        """Add rows to a view whose source is a folder: one more file in it.

        The first file has the view's columns in the types of its fields; later ones those of the files there.

        Raises:
            UsageError: the columns are not those of the view and its files, a value does not fit its type, or rows
                have no key or no event time.
            SpecError: the view's source is no folder.
            DataError: the files there cannot be read.
        """
        where = place(feature_view.batch_source, config.repo_path)
        guard = getattr(config.offline_store, "available_at_column", None)
        where.add(fitting(table, layout(feature_view, guard), where), feature_view.name)
        if progress:
            progress(table.num_rows)

    def get_table_column_names_and_types_from_data_source(
        self, config: RepoConfig, data_source: FileSource
    ) -> Iterable[tuple[str, str]]:
        """Columns and their Arrow types, of folders, partitions and patterns too."""
        return [(kind.name, str(kind.type)) for kind in arrow_types(place(data_source, config.repo_path).scan())]


class _Entities:
    """Entity rows that are read once, when they are needed."""

    def __init__(self, lazy: pl.LazyFrame, read: Sequence[View] = ()) -> None:
        self._lazy = lazy
        self._read = read  # the views whose stored rows they are made of
        self._rows: pl.DataFrame | None = None
        self.columns = lazy.collect_schema()
        self.time = _time_column(self.columns)

    def rows(self) -> pl.DataFrame:
        """The rows as they were given."""
        if self._rows is None:
            names = ", ".join(repr(view.name) for view in self._read)
            places = ", ".join(view.place for view in self._read)
            with reading(f"The entities of {names}", places) if names else nullcontext():
                self._rows = self._lazy.collect()
        return self._rows

    def metadata(self, refs: list[str]) -> RetrievalMetadata:
        """Features, keys and time span."""
        times = in_utc(self.rows().lazy().select(self.time), self.time).collect()[self.time]
        keys = [column for column in self.columns if column != self.time]
        return RetrievalMetadata(refs, keys, times.min(), times.max())

    def check(self, views: Sequence[View], computed: Sequence[OnDemandFeatureView]) -> None:
        """Refuse rows without a key or without request data, and names that stand for two things."""
        for view in views:
            absent = [key for key in view.keys if key not in self.columns]
            if absent:
                raise SpecError(
                    f"View {view.name!r} is joined by {absent}, which the entity rows do not have. They have "
                    f"{list(self.columns)}. Add the column, or map the key with with_join_key_map."
                )
            twice = [name for name in view.features if name in self.columns]
            if twice:
                raise SpecError(
                    f"The entity rows have {twice} already, which view {view.name!r} gives too. Drop or rename these "
                    f"columns, or ask for full_feature_names=True."
                )
        for view in computed:
            for name in view.get_request_data_schema():
                if name not in self.columns:
                    raise RequestDataNotFoundInEntityDfException(feature_name=name, feature_view_name=view.name)


def _view(view: FeatureView, features: Sequence[str], full_names: bool, config: RepoConfig, by_created: bool) -> View:
    """A Feast view as the join takes it: stored columns before the field mapping, entity columns after the key map."""
    source = view.batch_source
    before = stored_names(source)
    where = place(source, config.repo_path)
    asked = view.projection.join_key_map or {}
    prefix = f"{view.projection.name_alias or view.name}__" if full_names else ""
    names = [key.name for key in view.entity_columns if key.name != DUMMY_ENTITY_ID]
    keys = {asked.get(name, name): before.get(name, name) for name in names}
    wanted = {prefix + feature: before.get(feature, feature) for feature in features}
    time, created = (before.get(name, name) for name in (source.timestamp_field, source.created_timestamp_column))
    known = [created] if by_created and created else []
    guard = getattr(config.offline_store, "available_at_column", None)
    guard = before.get(guard, guard) if guard else None
    rows = where.scan(guard)
    if guard in rows.collect_schema() and guard != time:
        known.append(guard)
    needed = [*keys.values(), *wanted.values(), time, *([created] if created else [])]
    return View(
        rows=checked(rows, needed, f"View {view.name!r}", where),
        keys=keys,
        features=wanted,
        time=time,
        created=created or None,
        ttl=view.ttl or None,  # zero: no limit
        known=known,
        name=view.name,
        place=where.name,
    )


def _lazy(entities: pl.DataFrame | pl.LazyFrame | pd.DataFrame | pa.Table | str, views: Sequence[View]) -> pl.LazyFrame:
    if isinstance(entities, str):
        return pl.SQLContext({view.name: view.rows for view in views}).execute(entities, eager=False)
    if isinstance(entities, pl.LazyFrame):
        return entities
    if isinstance(entities, pl.DataFrame):
        return entities.lazy()
    if isinstance(entities, pd.DataFrame):
        return pl.from_pandas(entities).lazy()
    if isinstance(entities, pa.Table):
        return pl.DataFrame(pl.from_arrow(entities)).lazy()
    raise SpecError(
        f"Entity rows are a {type(entities).__name__}. Give a Polars, pandas or Arrow table, or a query as text."
    )


def _all_entities(views: Sequence[View], start: datetime, end: datetime) -> pl.LazyFrame:
    """Every entity seen, and known, between two moments, at the later one."""
    moment = pl.lit(end).cast(pl.Datetime("us", "UTC"))
    seen = []
    for view in views:
        rows = between(view.rows, view.time, start, end)
        for column in view.known:
            if rows.collect_schema()[column] == pl.String:  # as the join reads it
                rows = in_utc(rows, column)
            rows = between(rows, column, None, end)
        keys = [pl.col(there).alias(here) for here, there in view.keys.items()]
        if keys:
            seen.append(rows.select(keys).drop_nulls().unique(maintain_order=True))
    if not seen:
        return pl.LazyFrame({EVENT_TIMESTAMP: [end]}).select(moment.alias(EVENT_TIMESTAMP))
    distinct = pl.concat(seen, how="diagonal_relaxed").unique(maintain_order=True)
    return distinct.with_columns(moment.alias(EVENT_TIMESTAMP))


def _time_column(kinds: Mapping[str, pl.DataType]) -> str:
    if EVENT_TIMESTAMP in kinds:
        return EVENT_TIMESTAMP
    times = [name for name, kind in kinds.items() if kind.base_type() in (pl.Datetime, pl.Date)]
    if len(times) != 1:
        raise SpecError(f"Entity rows have the time columns {times}. Name the one to join by {EVENT_TIMESTAMP!r}.")
    return times[0]


def _pulled(
    config: RepoConfig,
    source: FileSource,
    columns: tuple[Sequence[str], Sequence[str], Sequence[str]],
    query: Callable[[pl.LazyFrame], pl.DataFrame],
) -> PolarsRetrievalJob:
    """A query of a source's keys, features and times; no features named means all columns, as Feast has it."""
    keys, features, order = columns
    where, owner = place(source, config.repo_path), f"The source {source.name!r}"

    def answer() -> pl.DataFrame:
        stored = where.scan()
        names = list(dict.fromkeys([*keys, *(features or stored.collect_schema()), *order]))
        wanted = checked(stored, names, owner, where).select(names)
        with reading(owner, where.name):
            return query(timed(wanted, order[0], owner, where))

    return PolarsRetrievalJob(answer, time=order[0], repo_path=config.repo_path)


def _with_dummy(rows: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Rows without a key get the one key that Feast gives to views without entities."""
    return rows if keys else rows.with_columns(pl.lit(DUMMY_ENTITY_VAL).alias(DUMMY_ENTITY_ID))
