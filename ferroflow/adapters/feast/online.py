"""A Feast online store on the packed SQLite file that the prediction service reads.

One file a pipeline: ``<path>/<pipeline>.db``, by the view's tag ``pipeline``. Features are doubles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from feast import FeatureView
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import FeastConfigBaseModel, RepoConfig

from ferroflow.adapters.feast.packed import Key, PackedStore
from ferroflow.core.errors import SpecError

PIPELINE = "pipeline"
"""The tag of a view that names its pipeline."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KEYS = ("int64_val", "int32_val", "string_val")
_NUMBERS = ("double_val", "float_val", "int64_val", "int32_val", "bool_val")


class PackedSqliteOnlineStoreConfig(FeastConfigBaseModel):
    """What ``feature_store.yaml`` may say of this store."""

    type: Literal["ferroflow.adapters.feast.online.PackedSqliteOnlineStore"] = (
        "ferroflow.adapters.feast.online.PackedSqliteOnlineStore"
    )
    path: str
    """Folder that holds a file for each pipeline."""


class PackedSqliteOnlineStore(OnlineStore):
    """One packed row an entity and view; an older row never replaces a newer one, a correction does."""

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[tuple[EntityKey, dict[str, Value], datetime, datetime | None]],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows of one view in one transaction."""
        features = [field.name for field in table.features]
        rows = (
            (_key(key), microseconds(event), microseconds(created or event), [_number(values, n) for n in features])
            for key, values, event, created in data
        )
        with PackedStore(_file(config, table)) as packed:
            packed.write(table.name, features, rows)
        if progress:
            progress(len(data))

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        """The latest row of each entity, whatever its age: only a reader with a clock can tell what has expired."""
        features = requested_features or [field.name for field in table.features]
        keys = [_key(key) for key in entity_keys]
        with PackedStore(_file(config, table), read_only=True) as packed:
            found = packed.read(table.name, keys, features)
        return [_answer(found.get(key), features) for key in keys]

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
        self._forget(config, tables_to_delete)

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Any]) -> None:
        """Forget all views."""
        self._forget(config, tables)

    def _forget(self, config: RepoConfig, tables: Sequence[FeatureView]) -> None:
        for table in tables:
            file = _file(config, table)
            if file.is_file():
                with PackedStore(file) as packed:
                    packed.drop(table.name)


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970; a time without a zone is UTC."""
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return (aware - _EPOCH) // timedelta(microseconds=1)


def _file(config: RepoConfig, table: FeatureView) -> Path:
    return Path(config.online_store.path) / f"{table.tags.get(PIPELINE, config.project)}.db"


def _key(key: EntityKey) -> Key:
    if len(key.entity_values) != 1:
        raise SpecError(f"An entity has one key here, not {list(key.join_keys)}. Join them in one column.")
    value = key.entity_values[0]
    kind = value.WhichOneof("val")
    if kind not in _KEYS:
        raise SpecError(f"Key {key.join_keys[0]!r} is {kind or 'missing'}; a key is a whole number or a text.")
    found: Key = getattr(value, kind)
    return found


def _number(values: dict[str, Value], name: str) -> float | None:
    value = values.get(name)
    kind = None if value is None else value.WhichOneof("val")
    if kind in (None, "null_val"):
        return None
    if kind not in _NUMBERS:
        raise SpecError(f"Feature {name!r} is {kind}; stored features are numbers. Cast it to Float64.")
    return float(getattr(value, kind))


def _answer(
    row: tuple[int, list[float | None]] | None, features: Sequence[str]
) -> tuple[datetime | None, dict[str, Value] | None]:
    if row is None:
        return None, None
    event, values = row
    filled = {
        name: Value() if value is None else Value(double_val=value)
        for name, value in zip(features, values, strict=True)
    }
    return _EPOCH + timedelta(microseconds=event), filled
