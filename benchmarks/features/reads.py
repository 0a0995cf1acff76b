"""Online reads for serving: the reader against ``get_online_features().to_dict()`` over the same store.

One view of 100 k entities and ten features is materialized once into each store; then a process of its own reads the
same entities of a store in every way, in turns: what a core does in a microsecond changes from second to second, and
all ways have to have the same of it. (Wall times are taken afterwards, one way after the other.) Packed SQLite is also
compared with Feast over its own SQLite store. What every read gave is hashed: a ratio is told only between ways that
read the same values, most of which are there. Not in the limits: the wall time, PostgreSQL, and reads that a cache
answers.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from benchmarks.features.apart import Stopwatch, apart
from benchmarks.features.servers import postgres_url, redis_url
from benchmarks.features.tables import ENTITIES, FEATURES, START

LIMIT = 5.0
"""By how much the reader's CPU time has to be less, at each size, on packed SQLite and on Redis."""

READS = {1: 4_000, 100: 200}
"""Entities of a read -> how many reads are measured."""

STORES = {
    "packed": ("reader", "feast"),
    "sqlite": ("feast",),
    "redis": ("reader", "cached", "feast"),
    "postgres": ("reader", "cached", "feast"),
}
"""Store -> the ways it is read. ``sqlite`` is Feast's own store."""

FOUND = 0.8
"""Share of the values read that must not be null: absent entities and nulls in the table are fewer."""

_HERE = "benchmarks.features.reads"
_SERVICE = "numbers_of_entities"
_WARM = 20
_BLOCKS = 40
"""Parts of the reads that are timed each on its own, in turns; the median is told: a burst must not decide."""


def measure(rounds: int, entities: int = ENTITIES) -> dict[str, Any]:
    """Every way over every store, in turn; the medians of the rounds."""
    with tempfile.TemporaryDirectory() as temporary, redis_url() as redis, postgres_url() as postgres:
        folder, addresses = Path(temporary), {"redis": redis, "postgres": postgres}
        _write_rows(folder / "rows.parquet", entities)
        given: dict[str, dict[str, Any]] = {
            store: {"store": store, "folder": str(folder), "address": addresses.get(store, "")} for store in STORES
        }
        for store in STORES:
            print(f"features: fill {store} ...", file=sys.stderr, flush=True)
            apart(f"{_HERE}:fill", **given[store])
        runs: dict[tuple[str, str], list[dict[str, Any]]] = {
            (store, way): [] for store, ways in STORES.items() for way in ways
        }
        for _ in range(rounds):
            for store, ways in STORES.items():
                print(f"features: read {store} ...", file=sys.stderr, flush=True)
                found = apart(f"{_HERE}:run", **given[store], ways=ways, entities=entities)
                for way in ways:
                    runs[store, way].append(found[way])
    return _judged({place: _medians(found) for place, found in runs.items()}, entities)


def fill(watch: Stopwatch, store: str, folder: str, address: str) -> dict[str, Any]:
    """Apply the view and materialize it into a store: Feast's own SQLite by Feast's engine, the others by ours."""
    from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
    from feast.types import Float64, Int64

    feast = _feast(store, folder, address)
    entity = Entity(name="entity_id", join_keys=["entity_id"], value_type=ValueType.INT64)
    schema = [Field(name="entity_id", dtype=Int64), *(Field(name=f"f{n}", dtype=Float64) for n in range(FEATURES))]
    source = FileSource(path=str(Path(folder) / "rows.parquet"), timestamp_field="event_timestamp")
    view = FeatureView(name="numbers", entities=[entity], schema=schema, source=source, ttl=timedelta(0))
    feast.apply([entity, view, FeatureService(name=_SERVICE, features=[view])])
    with watch.running():
        feast.materialize(START, START + timedelta(days=1))
    return {}


def run(watch: Stopwatch, store: str, folder: str, address: str, ways: list[str], entities: int) -> dict[str, Any]:
    """Read in each way, a few entities at a time: way -> size -> CPU and wall time of a read, digest of all values."""
    feast = _feast(store, folder, address)
    reads = {way: _reading(feast, way, entities) for way in ways}
    found: dict[str, Any] = {way: {} for way in ways}
    for size, times in READS.items():
        asked = list(_asked(size, times, entities))
        cpus = _in_turns(watch, reads, asked)
        for way, read in reads.items():
            found[way][str(size)] = {"cpu_us": median(cpus[way]) * 1e6} | _told(read, asked)
    return found


def _in_turns(
    watch: Stopwatch, reads: dict[str, Callable[[list[int]], dict[str, list[Any]]]], asked: list[list[int]]
) -> dict[str, list[float]]:
    """Seconds of the CPU that a read takes each way, in each block."""
    cpus: dict[str, list[float]] = {way: [] for way in reads}
    for keys in asked[:_WARM]:
        for read in reads.values():
            read(keys)
    ways = list(reads.items())
    with watch.running():
        for block in range(_BLOCKS):
            keys_of = asked[block::_BLOCKS]
            for place in range(len(ways)):  # each way is first as often as the others
                way, read = ways[(block + place) % len(ways)]
                began = time.process_time()  # many in one go: to ask the clock at each read takes a part of its time
                for keys in keys_of:
                    read(keys)  # and let go: answers that are kept are walked through by the garbage collector
                cpus[way].append((time.process_time() - began) / len(keys_of))
    return cpus


def _told(read: Callable[[list[int]], dict[str, list[Any]]], asked: list[list[int]]) -> dict[str, Any]:
    """Wall time of a read, a digest of all values, and how many there are."""
    walls, digest, values, present = [], hashlib.sha256(), 0, 0
    for keys in asked:
        before = time.perf_counter()
        found = read(keys)
        walls.append(time.perf_counter() - before)
        digest.update(repr(sorted(found.items())).encode())
        columns = [column for name, column in found.items() if name != "entity_id"]
        values += sum(len(column) for column in columns)
        present += sum(value is not None for column in columns for value in column)
    walls.sort()
    return {
        "p50_us": walls[len(walls) // 2] * 1e6,
        "p99_us": walls[int(len(walls) * 0.99)] * 1e6,
        "digest": digest.hexdigest(),
        "values": values,
        "present": present,
    }


def _reading(feast: Any, way: str, entities: int) -> Callable[[list[int]], dict[str, list[Any]]]:
    if way == "feast":
        service = feast.get_feature_service(_SERVICE)
        return lambda keys: dict(feast.get_online_features(service, {"entity_id": keys}).to_dict())
    from ferroflow.adapters.feast.reader import FeatureReader
    from ferroflow.adapters.feast.resolve import read_plan

    reader = FeatureReader(read_plan(feast, _SERVICE), cache=(3600.0, ENTITIES) if way == "cached" else None)
    if way == "cached":  # what is measured is what memory answers
        for size, times in READS.items():
            for keys in _asked(size, times, entities):
                reader.read({"entity_id": keys})
    return lambda keys: reader.read({"entity_id": keys}).to_dict()


def _asked(size: int, times: int, entities: int) -> Iterator[list[int]]:
    """Seeded entities; one read in ten, by the dice, asks for one that is not there as well."""
    import numpy as np

    dice = np.random.default_rng([size, times])
    for number in range(times):
        keys = dice.integers(0, entities, size).tolist()
        if dice.random() < 0.1:
            keys[-1] = entities + number
        yield keys


def _write_rows(path: Path, entities: int) -> None:
    """One row an entity; one value in fifty is null."""
    import numpy as np
    import polars as pl

    dice = np.random.default_rng(0)
    numbers = {f"f{n}": dice.normal(size=entities) for n in range(FEATURES)}
    rows = pl.DataFrame({"entity_id": np.arange(entities)} | numbers).with_columns(
        pl.when(pl.Series(dice.random(entities) < 0.02)).then(None).otherwise(pl.col(name)).alias(name)
        for name in numbers
    )
    rows.with_columns(pl.lit(START + timedelta(hours=1)).alias("event_timestamp")).write_parquet(path)


def _feast(store: str, folder: str, address: str) -> Any:
    from feast import FeatureStore, RepoConfig

    online: dict[str, Any] = {"type": "sqlite", "path": str(Path(folder) / "feast_online.db")}
    place = urlsplit(address)
    if store == "packed":
        online = {
            "type": "ferroflow.adapters.feast.online.PackedSqliteOnlineStore",
            "path": str(Path(folder) / "packed"),
        }
    elif store == "redis":
        online = {"type": "redis", "connection_string": f"{place.hostname}:{place.port}"}
    elif store == "postgres":
        told = {"host": place.hostname, "port": place.port, "user": place.username, "password": "none"}
        online = told | {"type": "postgres", "database": place.path[1:], "sslmode": "disable"}
    ours: dict[str, Any] = {"batch_engine": {"type": "ferroflow.adapters.feast.engine.BulkComputeEngine"}}
    return FeatureStore(
        config=RepoConfig(
            project="bench",
            provider="local",
            registry={"registry_type": "sql", "path": f"sqlite:///{folder}/{store}_registry.db"},
            offline_store={"type": "ferroflow.adapters.feast.offline.PolarsOfflineStore"},
            online_store=online,
            entity_key_serialization_version=3,
            **({} if store == "sqlite" else ours),
        )
    )


def _medians(runs: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for size in READS:
        sizes = [run[str(size)] for run in runs]
        found[str(size)] = {name: round(median(s[name] for s in sizes), 1) for name in ("cpu_us", "p50_us", "p99_us")}
        found[str(size)]["digests"] = sorted({entry["digest"] for entry in sizes})
        found[str(size)]["values"] = min(entry["values"] for entry in sizes)
        found[str(size)]["present"] = round(min(entry["present"] / max(1, entry["values"]) for entry in sizes), 4)
    return found


def _judged(ways: dict[tuple[str, str], dict[str, Any]], entities: int) -> dict[str, Any]:
    comparisons = {
        "packed": (("packed", "reader"), ("packed", "feast")),
        "packed against Feast's SQLite": (("packed", "reader"), ("sqlite", "feast")),
        "redis": (("redis", "reader"), ("redis", "feast")),
        "postgres": (("postgres", "reader"), ("postgres", "feast")),
    }
    ratios = {
        name: {size: round(ways[theirs][size]["cpu_us"] / ways[ours][size]["cpu_us"], 2) for size in ways[ours]}
        for name, (ours, theirs) in comparisons.items()
    }
    equal = all(len({digest for way in ways.values() for digest in way[str(size)]["digests"]}) == 1 for size in READS)
    sizes = [(size * times, way[str(size)]) for way in ways.values() for size, times in READS.items()]
    full = all(told["values"] == asked * FEATURES and told["present"] >= FOUND for asked, told in sizes)
    fast = all(ratio >= LIMIT for name, found in ratios.items() if name != "postgres" for ratio in found.values())
    return {
        "entities": entities,
        "ways": {f"{store} {way}": figures for (store, way), figures in ways.items()},
        "cpu_ratios": ratios,
        "limit": LIMIT,
        "equal": equal,
        "full": full,
        "passed": equal and full and fast,
    }
