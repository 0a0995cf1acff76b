"""Feast stores over small Parquet files, for tests of materialization: a view of every type, by any keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Array, Bool, Bytes, Float32, Float64, Int32, Int64, Json, String, UnixTimestamp
from psycopg.conninfo import conninfo_to_dict

ENGINE = "ferroflow.adapters.feast.engine.BulkComputeEngine"
OFFLINE = "ferroflow.adapters.feast.offline.PolarsOfflineStore"
PACKED = "ferroflow.adapters.feast.online.PackedSqliteOnlineStore"
START = datetime(2024, 1, 1, tzinfo=UTC)
END = START + timedelta(days=2)

TYPES = {
    "double": Float64, "float": Float32, "whole": Int64, "small": Int32, "yes": Bool, "moment": UnixTimestamp,
    "text": String, "raw": Bytes, "vector": Array(Float64), "words": Array(String), "document": Json,
}  # fmt: skip
_NUMBER, _TEXT = ValueType.INT64, ValueType.STRING


def at(hours: float) -> datetime:
    """A moment of the test's time."""
    return START + timedelta(hours=hours)


def wide(rows: int = 7) -> pl.DataFrame:
    """Two rows an entity, of every type; every third value of a column is null, and one number is no number."""
    count = 2 * rows
    places = list(range(count))

    def some(values: Sequence[Any], shift: int) -> list[Any]:
        return [None if (place + shift) % 3 == 0 else value for place, value in zip(places, values, strict=True)]

    return pl.DataFrame(
        {
            "stop": [place % rows - 2 for place in places],
            "line": [f"line {place % rows}é" for place in places],
            "event": [at(place // rows + place % rows / 60 + 0.000001) for place in places],
            "made": [at(place // rows + 1) for place in places],
            "double": [float("nan"), *some([place / 7 for place in places], 0)[1:]],
            "float": pl.Series(some([place / 3 for place in places], 1), dtype=pl.Float32),
            "whole": some([place * 10**9 - 5 for place in places], 2),
            "small": pl.Series(some([-place for place in places], 0), dtype=pl.Int32),
            "yes": some([place % 2 == 0 for place in places], 1),
            "moment": some([at(place) for place in places], 2),
            "text": some(["", "é", "a b", "x" * 300] * rows, 0)[:count] if count % 4 == 0 else some(_texts(count), 0),
            "raw": some([b"\x00\xff" * place for place in places], 1),
            "vector": some([[place / 2] * (place % 4) for place in places], 2),
            "words": some([["w", str(place)] for place in places], 0),
            "document": some([f'{{"n": {place}}}' for place in places], 1),
        }
    )


def _texts(count: int) -> list[str]:
    return [["", "é", "a b", "x" * 300][place % 4] for place in range(count)]


def view_of(
    path: Path, keys: Mapping[str, ValueType], features: Mapping[str, Any], name: str = "typed", **more: Any
) -> list[Entity | FeatureView]:
    """A view over a Parquet file, with its entities; times are in ``event`` and ``made``."""
    entities = [Entity(name=key, join_keys=[key], value_type=kind) for key, kind in keys.items()]
    kinds = {ValueType.INT64: Int64, ValueType.INT32: Int32, ValueType.STRING: String}
    schema = [Field(name=key, dtype=kinds[kind]) for key, kind in keys.items()]
    schema += [Field(name=feature, dtype=kind) for feature, kind in features.items()]
    source = FileSource(
        name=f"{name}_source", path=str(path), timestamp_field="event",
        created_timestamp_column=more.pop("created", "made"), field_mapping=more.pop("field_mapping", None),
    )  # fmt: skip
    view = FeatureView(name=name, entities=entities, schema=schema, source=source, ttl=None, **more)
    return [*entities, view]


def feast_over(
    folder: Path, online: Mapping[str, Any], objects: Sequence[Any] = (), engine: str = ENGINE, offline: str = OFFLINE
) -> FeatureStore:
    """A Feast store with these objects applied."""
    folder.mkdir(parents=True, exist_ok=True)
    feast = FeatureStore(
        config=RepoConfig(
            project="p",
            provider="local",
            registry=str(folder / "registry.pb"),  # a file: a database waits for the disk each time
            offline_store={"type": offline},
            online_store=dict(online),
            batch_engine={"type": engine},
            # Feast's own engine refuses to take each entity's latest row of a range otherwise.
            materialization={"pull_latest_features": True},
            entity_key_serialization_version=3,
        )
    )
    if objects:
        feast.apply(list(objects))
    return feast


def packed(folder: Path) -> dict[str, Any]:
    """The packed store's configuration; time-to-live is none of these tests' matter."""
    return {"type": PACKED, "path": str(folder)}


def redis(port: int, database: int = 0, **options: Any) -> dict[str, Any]:
    """The configuration of Feast's Redis store."""
    return {"type": "redis", "connection_string": f"127.0.0.1:{port},db={database}", **options}


def postgres(url: str, schema: str, **options: Any) -> dict[str, Any]:
    """The configuration of Feast's PostgreSQL store."""
    told = conninfo_to_dict(url)
    return {
        "type": "postgres", "host": told["host"], "port": int(told["port"]), "database": told["dbname"],
        "user": told["user"], "password": told["password"], "db_schema": schema, "sslmode": "disable", **options,
    }  # fmt: skip


def answers(feast: FeatureStore, view: str, features: Sequence[str], entities: Sequence[Mapping[str, Any]]) -> Any:
    """What ``get_online_features`` says."""
    return feast.get_online_features([f"{view}:{name}" for name in features], [dict(row) for row in entities]).to_dict()


def disconnect(url: str) -> None:
    """End what Feast's stores keep open: PostgreSQL stops only after its clients."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
