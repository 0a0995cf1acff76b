"""A Feast online store on packed SQLite files, which the prediction service reads without Feast.

One file a pipeline: ``<path>/<pipeline>.db``, by the view's tag ``pipeline``; of views without it, by the project.
Unlike Feast's own stores it enforces a view's time-to-live when values are read: what a training row would not have
got is not served either.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from feast import FeatureView
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import compute_versioned_name
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.supported_async_methods import SupportedAsyncMethods
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from feast.types import Bool, Bytes, FeastType, Float32, Float64, Int32, Int64, String, UnixTimestamp

from ferroflow.adapters.feast import packed, rows
from ferroflow.adapters.feast.packed import Key, PackedStore, Row
from ferroflow.adapters.feast.rows import Kind, RowLayout
from ferroflow.core.errors import SpecError

PIPELINE = "pipeline"
"""The tag of a view that names its pipeline."""

KEY_VERSION = 3
"""Of Feast's serialized entity keys, whatever the configuration says: a key has one form here."""

Written = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
Answer = tuple[datetime | None, dict[str, Value] | None]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KEYS = ("int64_val", "int32_val", "string_val")
_KINDS: dict[FeastType, Kind] = {
    Float64: "double",
    Float32: "float",
    Int64: "int64",
    Int32: "int32",
    Bool: "bool",
    UnixTimestamp: "time",
    String: "text",
    Bytes: "bytes",
}
_FIELDS: dict[Kind, str] = {
    "double": "double_val",
    "float": "float_val",
    "int64": "int64_val",
    "int32": "int32_val",
    "bool": "bool_val",
    "time": "unix_timestamp_val",
    "text": "string_val",
    "bytes": "bytes_val",
}


def now() -> datetime:
    """The clock by which a value is too old."""
    return datetime.now(UTC)


class PackedSqliteOnlineStoreConfig(FeastConfigBaseModel):
    """What ``feature_store.yaml`` may say of this store."""

    type: Literal["ferroflow.adapters.feast.online.PackedSqliteOnlineStore"] = (
        "ferroflow.adapters.feast.online.PackedSqliteOnlineStore"
    )
    path: str
    """Folder that holds a file for each pipeline; a relative one is below the feature repository."""
    enforce_ttl: bool = True
    """Whether values that are older than their view's time-to-live are missing when they are read."""


class PackedSqliteOnlineStore(OnlineStore):
    """One packed row an entity and view; an older row never replaces a newer one, a correction does."""

    def __init__(self) -> None:
        self._local = threading.local()

    @property
    def async_supported(self) -> SupportedAsyncMethods:
        """Reads and writes, so that a feature server may await them."""
        return SupportedAsyncMethods(read=True, write=True)

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Written],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows of one view in one transaction.

        Raises:
            SpecError: a value is of another type than its field.
        """
        layout = row_layout(table)
        with PackedStore(store_file(config, table)) as store:
            store.write(view_name(config, table), layout, _rows(layout, data))
        if progress:
            progress(len(data))

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Answer]:
        """The latest row of each entity; one older than the view's time-to-live gives its time without values."""
        features = requested_features or [field.name for field in table.features]
        keys = [entity_key(key) for key in entity_keys]
        oldest = _oldest(config, table)
        store = self._reader(store_file(config, table))
        found = {} if store is None else store.read_rows(view_name(config, table), keys)
        answers: dict[Key, Answer] = {}
        for key, (event, layout, blob) in found.items():
            expired = oldest is not None and event < oldest
            values = None if expired else _protos(layout, blob, features)
            answers[key] = (_EPOCH + timedelta(microseconds=event), values)
        return [answers.get(key, (None, None)) for key in keys]

    async def online_write_batch_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Written],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """``online_write_batch`` in a thread: it may wait for another writer."""
        await asyncio.to_thread(self.online_write_batch, config, table, data, progress)

    async def online_read_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Answer]:
        """``online_read``, at once: a read takes less than handing it to a thread."""
        return self.online_read(config, table, entity_keys, requested_features)

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Any],
        entities_to_keep: Sequence[Any],
        partial: bool,
    ) -> None:
        """Forget the views that are no more; new ones need nothing before their first row."""
        _forget(config, tables_to_delete)

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Any]) -> None:
        """Forget all views."""
        _forget(config, tables)

    def _is_versioned_read_supported(self) -> bool:
        return True

    def _reader(self, path: Path) -> PackedStore | None:
        """This thread's connection; opened again when the file is another one, or the process is."""
        try:
            status = path.stat()
        except OSError:
            return None
        readers: dict[Path, tuple[tuple[int, ...], PackedStore]] = self._local.__dict__.setdefault("readers", {})
        identity = (status.st_dev, status.st_ino, os.getpid())
        if path not in readers or readers[path][0] != identity:
            readers[path] = (identity, PackedStore(path, read_only=True))
        return readers[path][1]


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970; a time without a zone is UTC."""
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return (aware - _EPOCH) // timedelta(microseconds=1)


def store_file(config: RepoConfig, table: FeatureView) -> Path:
    """The file that holds a view's rows."""
    name = f"{table.tags.get(PIPELINE, config.project)}.db"
    return Path(config.repo_path or "") / config.online_store.path / name


def view_name(config: RepoConfig, table: FeatureView) -> str:
    """The name of a view in its file: that of its version where versions have stores of their own."""
    return str(compute_versioned_name(table, config.registry.enable_online_feature_view_versioning))


def row_layout(table: FeatureView) -> RowLayout:
    """How rows of a view are packed, by the types of its features."""
    return RowLayout(tuple((field.name, _KINDS.get(field.dtype, "proto")) for field in table.features))


def entity_key(key: EntityKey) -> packed.Key:
    """An entity's key in the store: a single number or text itself, anything else Feast's serialized entity key."""
    if len(key.entity_values) == 1:
        value = key.entity_values[0]
        kind = value.WhichOneof("val")
        if kind in _KEYS:
            found: Key = getattr(value, kind)
            return found
    serialized: bytes = serialize_entity_key(key, KEY_VERSION)
    return serialized


def _oldest(config: RepoConfig, table: FeatureView) -> int | None:
    ttl = getattr(table, "ttl", None)  # on-demand views have none; zero: no limit
    return microseconds(now() - ttl) if ttl and config.online_store.enforce_ttl else None


def _rows(layout: RowLayout, data: Sequence[Written]) -> Iterator[Row]:
    for key, values, event, created in data:
        yield (
            entity_key(key),
            microseconds(event),
            microseconds(created or event),
            [_plain(name, kind, values.get(name)) for name, kind in layout.features],
        )


def _plain(name: str, kind: Kind, value: Value | None) -> rows.Value | None:
    held = None if value is None else value.WhichOneof("val")
    if value is None or held in (None, "null_val"):
        return None
    if kind == "proto":
        return bytes(value.SerializeToString(deterministic=True))
    if held != _FIELDS[kind]:
        raise SpecError(f"Feature {name!r} is {held}, its field's type needs {_FIELDS[kind]}. Cast it.")
    found: rows.Value = getattr(value, held)
    return found


def _protos(layout: RowLayout, blob: bytes, features: Sequence[str]) -> dict[str, Value]:
    kinds = dict(layout.features)
    values = layout.reader(features)(blob)
    return {name: _proto(kinds.get(name), value) for name, value in zip(features, values, strict=True)}


def _proto(kind: Kind | None, value: rows.Value | None) -> Value:
    if value is None or kind is None:
        return Value()
    if kind == "proto":
        return Value.FromString(value)
    field: dict[str, Any] = {_FIELDS[kind]: value}
    return Value(**field)


def _forget(config: RepoConfig, tables: Sequence[FeatureView]) -> None:
    for table in tables:
        file = store_file(config, table)
        if file.is_file():
            with PackedStore(file) as store:
                store.drop(view_name(config, table))
