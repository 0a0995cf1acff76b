"""Materialize a million rows: our engine and stores against Feast's defaults, into SQLite, Redis and PostgreSQL.

Feast's side is its default file store and its default engine; ours the Polars store and the bulk engine. What lies in
the stores afterwards is compared: of Redis and PostgreSQL every stored byte (of Redis without the field that Feast does
not have), of SQLite, where the layouts differ, every value and event time. Each store has to hold the table's entities.
"""

from __future__ import annotations

import hashlib
import sqlite3
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from benchmarks.features.apart import Stopwatch, apart
from benchmarks.features.servers import postgres_url, redis_url
from benchmarks.features.tables import DAYS, FEATURES, START, write_view

ROWS = 1_000_000
LIMITS = {
    "sqlite": {"wall": 10.0, "cpu": 6.0},
    "redis": {"wall": 3.0, "cpu": 5.0},
    "postgres": {"wall": 3.0, "cpu": 6.0},
}
"""By how much the wall time and the client's CPU time have to be less than Feast's."""

MEMORY = 0.6
"""Share of Feast's peak memory that ours may take."""

_HERE = "benchmarks.features.materialize"
_VIEW = "numbers"
_CONTENT = {"digests": "digest", "entities": "entities"}


def measure(rounds: int, rows: int = ROWS) -> dict[str, Any]:
    """Both sides on each store; Feast's, which take minutes, in half of the rounds."""
    with tempfile.TemporaryDirectory() as temporary, redis_url() as redis, postgres_url() as postgres:
        folder = Path(temporary)
        write_view(folder / "rows.parquet", rows, seed=1)
        entities = _distinct(folder / "rows.parquet")
        figures = {
            store: _compared(store, folder, address, rounds, entities)
            for store, address in (("sqlite", ""), ("redis", redis), ("postgres", postgres))
        }
    passed = all(found["passed"] for found in figures.values())
    return {"rows": rows, "entities": entities, "stores": figures, "passed": passed}


def _distinct(table: Path) -> int:
    """How many entities a table has."""
    import polars as pl

    return int(pl.scan_parquet(table).select(pl.col("entity_id").n_unique()).collect().item())


def _compared(store: str, folder: Path, address: str, rounds: int, entities: int) -> dict[str, Any]:
    sides: dict[str, dict[str, Any]] = {}
    for side, times in (("ours", rounds), ("feast", max(1, rounds // 2))):
        print(f"features: materialize into {store}, {side} ...", file=sys.stderr, flush=True)
        runs, contents = [], []
        for number in range(times):
            given = {
                "store": store,
                "side": side,
                "address": address,
                "folder": str(folder / f"{store}-{side}-{number}"),
            }
            runs.append(apart(f"{_HERE}:run", table=str(folder / "rows.parquet"), **given))
            contents.append(apart(f"{_HERE}:content", **given))  # in a process of its own: it takes memory
        sides[side] = {name: median(run[name] for run in runs) for name in ("wall_s", "cpu_s", "peak_mb")}
        sides[side] |= {name: sorted({found[one] for found in contents}) for name, one in _CONTENT.items()}
    ours, feast = sides["ours"], sides["feast"]
    ratios = {
        "wall": round(feast["wall_s"] / ours["wall_s"], 2),
        "cpu": round(feast["cpu_s"] / ours["cpu_s"], 2),
        "memory": round(ours["peak_mb"] / feast["peak_mb"], 2),
    }
    whole = ours["entities"] == feast["entities"] == [entities] and entities > 0
    equal = whole and ours["digests"] == feast["digests"] and len(ours["digests"]) == 1
    limits = LIMITS[store]
    fast = all(ratios[name] >= limit for name, limit in limits.items()) and ratios["memory"] <= MEMORY
    return sides | {"ratios": ratios, "limits": limits | {"memory": MEMORY}, "equal": equal, "passed": equal and fast}


def run(watch: Stopwatch, table: str, side: str, store: str, address: str, folder: str) -> dict[str, Any]:
    """Materialize the whole table into an empty store."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    _emptied(store, address)
    feast = _feast(Path(folder), table, side, _online(store, side, address, Path(folder)))
    with watch.running():
        feast.materialize(START, START + timedelta(days=DAYS))
    return {}


def content(watch: Stopwatch, side: str, store: str, address: str, folder: str) -> dict[str, Any]:
    """A digest of what lies in the store, and of how many entities."""
    digest, entities = hashlib.sha256(), 0
    for entry in _entries(store, side, _online(store, side, address, Path(folder))):
        digest.update(entry)
        entities += 1
    return {"digest": digest.hexdigest(), "entities": entities}


def _emptied(store: str, address: str) -> None:
    if store == "redis":
        import redis

        redis.Redis.from_url(address).flushall()
    elif store == "postgres":
        import psycopg

        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute("DROP SCHEMA IF EXISTS bench CASCADE")
            connection.execute("CHECKPOINT")


def _online(store: str, side: str, address: str, folder: Path) -> dict[str, Any]:
    place = urlsplit(address)
    if store == "redis":
        return {"type": "redis", "connection_string": f"{place.hostname}:{place.port}"}
    if store == "postgres":
        told = {"host": place.hostname, "port": place.port, "user": place.username, "password": "none"}
        return told | {"type": "postgres", "database": place.path[1:], "db_schema": "bench", "sslmode": "disable"}
    if side == "feast":
        return {"type": "sqlite", "path": str(folder / "online.db")}
    return {"type": "ferroflow.adapters.feast.online.PackedSqliteOnlineStore", "path": str(folder)}


def _feast(folder: Path, table: str, side: str, online: Mapping[str, Any]) -> Any:
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64, Int64

    ours: dict[str, Any] = {
        "offline_store": {"type": "ferroflow.adapters.feast.offline.PolarsOfflineStore"},
        "batch_engine": {"type": "ferroflow.adapters.feast.engine.BulkComputeEngine"},
    }
    registry = {"registry_type": "sql", "path": f"sqlite:///{folder / 'registry.db'}"}
    told = {"project": "bench", "provider": "local", "registry": registry, "entity_key_serialization_version": 3}
    feast = FeatureStore(config=RepoConfig(**told, online_store=dict(online), **(ours if side == "ours" else {})))
    entity = Entity(name="entity_id", join_keys=["entity_id"], value_type=ValueType.INT64)
    schema = [Field(name="entity_id", dtype=Int64), *(Field(name=f"f{n}", dtype=Float64) for n in range(FEATURES))]
    source = FileSource(path=table, timestamp_field="event_timestamp", created_timestamp_column="created")
    feast.apply([entity, FeatureView(name=_VIEW, entities=[entity], schema=schema, source=source, ttl=timedelta(0))])
    return feast


def _entries(store: str, side: str, online: Mapping[str, Any]) -> Iterator[bytes]:
    """What lies in the store, an entry for each entity, in the order of the keys."""
    if store == "redis":
        return _hashes(str(online["connection_string"]))
    if store == "postgres":
        return _table(online)
    return _plain_rows(Path(online["path"])) if side == "feast" else _packed_rows(Path(online["path"]) / "bench.db")


def _hashes(address: str) -> Iterator[bytes]:
    import redis

    host, port = address.split(":")
    server = redis.Redis(host=host, port=int(port))
    keys = sorted(server.scan_iter(count=10_000))
    for start in range(0, len(keys), 10_000):
        pipe = server.pipeline(transaction=False)
        for key in keys[start : start + 10_000]:
            pipe.hgetall(key)
        for key, found in zip(keys[start : start + 10_000], pipe.execute(), strict=True):
            fields = sorted(entry for entry in found.items() if not entry[0].startswith(b"_created:"))
            yield repr((key, fields)).encode()


def _table(online: Mapping[str, Any]) -> Iterator[bytes]:
    import psycopg

    query = (
        f"SELECT entity_key, array_agg(t::text ORDER BY feature_name) FROM bench.bench_{_VIEW} t GROUP BY 1 ORDER BY 1"
    )
    told = {"host": online["host"], "port": online["port"], "user": online["user"], "dbname": online["database"]}
    with psycopg.connect(**told) as connection, connection.cursor(name="rows") as cursor:
        cursor.itersize = 5_000
        cursor.execute(query)
        for key, rows in cursor:
            yield repr((key, rows)).encode()


def _plain_rows(file: Path) -> Iterator[bytes]:
    from feast.infra.key_encoding_utils import deserialize_entity_key
    from feast.protos.feast.types.Value_pb2 import Value

    rows: dict[int, tuple[int, dict[str, Any]]] = {}
    with closing(sqlite3.connect(file)) as connection:
        query = f'SELECT entity_key, feature_name, value, event_ts FROM "bench_{_VIEW}"'
        for blob, feature, value, event in connection.execute(query):
            key = deserialize_entity_key(blob).entity_values[0].int64_val
            moment = datetime.fromisoformat(event).replace(tzinfo=UTC) if isinstance(event, str) else event
            micros = round(moment.timestamp() * 1e6) if isinstance(moment, datetime) else int(moment) * 1_000_000
            number = Value.FromString(value)
            rows.setdefault(key, (micros, {}))[1][feature] = number.double_val if number.WhichOneof("val") else None
    return (repr((key, rows[key][0], sorted(rows[key][1].items()))).encode() for key in sorted(rows))


def _packed_rows(file: Path) -> Iterator[bytes]:
    from ferroflow.adapters.feast.packed import PackedStore

    names = [f"f{number}" for number in range(FEATURES)]
    with closing(sqlite3.connect(file)) as connection:
        keys = [key for (key,) in connection.execute("SELECT key FROM entries ORDER BY key")]
    with PackedStore(file, read_only=True) as store:
        found = store.read(_VIEW, keys, names)
    for key in keys:
        event, values = found[key]
        yield repr((key, event, sorted(zip(names, values, strict=True)))).encode()
