"""A Feast compute engine that materializes a view at once: latest rows, their bytes a column at a time, one bulk write.

Bulk writes go to the packed store, to Redis and to PostgreSQL; there an older range never replaces a newer value, and
a correction (same event time, created later) does. Any other online store is written by its own method, a slice at a
time. Views that Feast has to compute first (transformations, aggregations, views of views, streams) are left to
Feast's local engine.
"""

from __future__ import annotations

import json
import logging
import re
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa
from feast import FeatureView, StreamFeatureView
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feast.infra.common.materialization_job import MaterializationJobStatus, MaterializationTask
from feast.infra.common.retrieval_task import HistoricalRetrievalTask
from feast.infra.compute_engines.base import ComputeEngine
from feast.infra.compute_engines.local.compute import LocalComputeEngine
from feast.infra.compute_engines.local.job import LocalMaterializationJob, LocalRetrievalJob
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from feast.utils import _convert_arrow_to_proto, _validate_vector_field_lengths
from pydantic import BaseModel, SecretStr

from ferroflow.adapters.feast.bulk_rows import SLICE, LatestRows, Progress
from ferroflow.adapters.feast.encode import NULL_TIME, microseconds
from ferroflow.adapters.feast.replacement import replacement
from ferroflow.core.errors import DataError, FerroflowError, SpecError

_log = logging.getLogger(__name__)

Writer = Callable[[FeatureView, LatestRows, Progress], int | None]

_EVERY = 5.0  # seconds between two lines about a long write
_SECRETS = re.compile(
    r"(://[^:/@\s]*:)\S+(?=@)|"
    r"((?:password|passwd|pwd|secret)['\"]?\s*[=:]\s*)(?:\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|[^\s,;]+)",
    re.IGNORECASE,
)
_SECRET_NAME = re.compile("passw|pwd|secret|token", re.IGNORECASE)


class BulkComputeEngineConfig(FeastConfigBaseModel):
    """What ``feature_store.yaml`` may say of this engine: its class path alone."""

    type: Literal["ferroflow.adapters.feast.engine.BulkComputeEngine"] = (
        "ferroflow.adapters.feast.engine.BulkComputeEngine"
    )


class BulkComputeEngine(ComputeEngine):
    """Materializes each entity's latest row of a range; a job that failed says which view, column and store."""

    def update(
        self,
        project: str,
        views_to_delete: Sequence[Any],
        views_to_keep: Sequence[Any],
        entities_to_delete: Sequence[Any],
        entities_to_keep: Sequence[Any],
    ) -> None:
        """Nothing: the engine keeps nothing."""

    def teardown_infra(self, project: str, fvs: Sequence[Any], entities: Sequence[Any]) -> None:
        """Nothing: the engine keeps nothing."""

    def get_historical_features(self, registry: BaseRegistry, task: HistoricalRetrievalTask) -> LocalRetrievalJob:
        """What Feast's local engine gives: rows of the offline store, transformed where the view says so."""
        return self._local().get_historical_features(registry, task)

    def _materialize_one(
        self, registry: BaseRegistry, task: MaterializationTask, **kwargs: Any
    ) -> LocalMaterializationJob:
        view = task.feature_view
        if needs_computing(view):
            return self._local()._materialize_one(registry, task, **kwargs)
        job = f"{view.name}-{task.start_time}-{task.end_time}"
        try:
            if view.online:
                self._write(view, task)
        except Exception as error:  # noqa: BLE001 - recorded in the job, from which Feast raises it
            return LocalMaterializationJob(
                job, MaterializationJobStatus.ERROR, _told(view, self.online_store, error, self.repo_config)
            )
        return LocalMaterializationJob(job, MaterializationJobStatus.SUCCEEDED)

    def _local(self) -> LocalComputeEngine:
        return LocalComputeEngine(
            repo_config=self.repo_config, offline_store=self.offline_store, online_store=self.online_store
        )

    def _write(self, view: FeatureView, task: MaterializationTask) -> None:
        started = time.monotonic()
        table = pulled(self.repo_config, self.offline_store, view, task)
        if not table.num_rows and replacement() is None:
            _log.info("View %r has no rows between %s and %s.", view.name, task.start_time, task.end_time)
            return
        _validate_vector_field_lengths(table, view)
        rows = latest_rows(view, table, self.repo_config.entity_key_serialization_version)
        writer(self.online_store, self.repo_config, view)(view, rows, _Told(view.name, len(rows)))
        _log.info("View %r: %d entities materialized in %.1f s.", view.name, len(rows), time.monotonic() - started)


def needs_computing(view: FeatureView) -> bool:
    """Whether a view's rows are more than those of its source: then Feast's local engine computes and writes them."""
    asked = ("feature_transformation", "aggregations", "source_views", "enable_validation", "offline", "filter")
    return isinstance(view, StreamFeatureView) or any(getattr(view, name, None) for name in asked)


def pulled(config: RepoConfig, offline_store: Any, view: FeatureView, task: MaterializationTask) -> pa.Table:
    """Each entity's latest row of the task's range, its columns named as the view names them."""
    source = view.batch_source
    if source is None:
        raise SpecError("It has no batch source to read from. Give it one.")
    mapping = source.field_mapping or {}
    before = {mapped: column for column, mapped in mapping.items()}
    everything = task.disable_event_timestamp
    created = source.created_timestamp_column
    job = offline_store.pull_latest_from_table_or_query(
        config=config,
        data_source=source,
        join_key_columns=[before.get(key, key) for key in view.join_keys if key != DUMMY_ENTITY_ID],
        feature_name_columns=[before.get(field.name, field.name) for field in view.features],
        timestamp_field=before.get(source.timestamp_field, source.timestamp_field),
        created_timestamp_column=before.get(created, created) if created else None,
        start_date=datetime(1970, 1, 1, tzinfo=UTC) if everything else task.start_time,
        end_date=datetime.now(UTC) if everything else task.end_time,
    )
    table = job.to_arrow()
    return table.rename_columns([mapping.get(name, name) for name in table.column_names])


def latest_rows(view: FeatureView, table: pa.Table, version: int) -> LatestRows:
    """A view's pulled rows as the bulk writers take them.

    Raises:
        DataError: a column is missing, or a row has no event time.
    """
    mapping, source = view.batch_source.field_mapping or {}, view.batch_source
    keys = {field.name: field.dtype.to_value_type() for field in view.entity_columns}
    if DUMMY_ENTITY_ID in keys and DUMMY_ENTITY_ID not in table.column_names:
        table = table.append_column(DUMMY_ENTITY_ID, pa.array([DUMMY_ENTITY_VAL] * table.num_rows))
    features = {field.name: field.dtype.to_value_type() for field in view.features}
    time = mapping.get(source.timestamp_field, source.timestamp_field)
    created = source.created_timestamp_column or None
    created = mapping.get(created, created) if created else None
    wanted = list(dict.fromkeys([*keys, *features, time, *([created] if created else [])]))
    if missing := [name for name in wanted if name not in table.column_names]:
        raise DataError(f"Columns {missing} are not in the offline store, which has {table.column_names}.")
    events = microseconds(table.column(time))
    if empty := int(np.count_nonzero(events == NULL_TIME)):
        raise DataError(f"{empty} rows have no {time!r}, which is their event time.")
    return LatestRows(
        table=table.select(wanted),
        keys=keys,
        features=features,
        events=events,
        created=microseconds(table.column(created)) if created else None,
        version=version,
    )


def writer(store: OnlineStore, config: RepoConfig, view: FeatureView) -> Writer:
    """How rows of a view get into an online store: in bulk where its layout is known."""
    kind = f"{type(store).__module__}.{type(store).__name__}"
    if kind == "ferroflow.adapters.feast.online.PackedSqliteOnlineStore":
        from ferroflow.adapters.feast import bulk_packed

        return lambda view, rows, progress: bulk_packed.write(config, view, rows, progress)
    if kind == "feast.infra.online_stores.redis.RedisOnlineStore" and config.online_store.redis_type != "redis_cluster":
        from ferroflow.adapters.feast import bulk_redis

        return lambda view, rows, progress: bulk_redis.write(store, config, view, rows, progress)
    if kind == "feast.infra.online_stores.postgres_online_store.postgres.PostgreSQLOnlineStore":
        from ferroflow.adapters.feast import bulk_postgres

        if bulk_postgres.can_write(store, config, view):
            return lambda view, rows, progress: bulk_postgres.write(store, config, view, rows, progress)
    return lambda view, rows, progress: _write_by_protos(store, config, view, rows, progress)


def _write_by_protos(
    store: OnlineStore, config: RepoConfig, view: FeatureView, rows: LatestRows, progress: Progress
) -> None:
    """The store's own method, with Feast's own conversion: a slice at a time, so that few protos exist at once."""
    size = config.materialization_config.online_write_batch_size or SLICE
    for batch in rows.table.combine_chunks().to_batches(max_chunksize=size):
        data = _convert_arrow_to_proto(batch, view, dict(rows.keys))
        store.online_write_batch(config, view, data, lambda _: None)
        progress(len(data))


def _told(view: FeatureView, store: OnlineStore, error: Exception, config: RepoConfig | None = None) -> DataError:
    """An error with the view and the store that it is about, without passwords: so it does not lead to its cause."""
    known = () if config is None else known_secrets(config.online_store, config.offline_store, config.registry)
    kind = "" if isinstance(error, FerroflowError) else f"{type(error).__name__}: "
    cause = without_secrets(str(error), known)
    _log.debug("View %r:\n%s", view.name, without_secrets("".join(traceback.format_exception(error)), known))
    return DataError(f"View {view.name!r} was not materialized into {type(store).__name__}: {kind}{cause}")


def known_secrets(*configurations: Any) -> list[str]:
    """The passwords that configurations hold, as written there and as servers may repeat them; longest first."""
    found: set[str] = set()
    for configuration in configurations:
        told = configuration.model_dump() if isinstance(configuration, BaseModel) else configuration
        for name, value in told.items() if isinstance(told, dict) else ():
            if isinstance(value, dict):
                found.update(known_secrets(value))
            elif isinstance(value, SecretStr) or (isinstance(value, str) and _SECRET_NAME.search(name)):
                found.add(value.get_secret_value() if isinstance(value, SecretStr) else value)
            elif isinstance(value, str):
                found.update(_written(value))
    found |= {unquote(secret) for secret in found} | {quote(secret, safe="") for secret in found}
    found |= {json.dumps(secret)[1:-1] for secret in found} | {repr(secret)[1:-1] for secret in found}
    return sorted(found - {""}, key=len, reverse=True)


def without_secrets(text: str, known: Sequence[str]) -> str:
    """A text without the known passwords, and without what looks like one."""
    for secret in known:
        text = text.replace(secret, "***")
    return _SECRETS.sub(lambda found: f"{found[1] or found[2]}***", text)


def _written(text: str) -> list[str]:
    """The passwords within an address, or in a connection string of Feast's Redis store."""
    login = text.partition("://")[2].rpartition("@")[0].partition(":")[2]
    parts = [part.partition("=") for part in text.split(",")]
    return [login, *(value.strip().strip("\"'") for name, _, value in parts if _SECRET_NAME.search(name))]


class _Told:
    """Logs how far a write is, every few seconds."""

    def __init__(self, view: str, total: int) -> None:
        self._view, self._total, self._done = view, total, 0
        self._next = time.monotonic() + _EVERY

    def __call__(self, rows: int) -> None:
        self._done += rows
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _EVERY
            _log.info("View %r: %d of %d entities written.", self._view, self._done, self._total)
