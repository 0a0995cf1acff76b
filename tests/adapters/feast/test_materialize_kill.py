from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest
import redis as client
from feast import ValueType
from feast.types import Float64

from ferroflow.adapters.feast.packed import PackedStore
from tests.engines import postgres_server, redis_server
from tests.materialized import END, START, at, disconnect, feast_over, packed, postgres, redis, view_of

ROOT = Path(__file__).resolve().parents[3]
FEATURES = ["a", "b", "c"]
STOPS = list(range(300))
POINTS = [2, 6]
"""The writing of a slice after which the process is killed: one amidst, and the last before the end."""

CHILD = """
import json, os, signal, sys
from pathlib import Path
from ferroflow.adapters.feast import bulk_packed, bulk_postgres, bulk_redis, bulk_rows, engine, packed
from tests.materialized import END, START, feast_over

bulk_rows.LatestRows.slices.__defaults__ = (50,)
bulk_redis.ENTITIES = packed._BATCH = 50
given = json.loads(sys.argv[1])
told = engine._Told.__call__
calls = 0

def killed(self, rows):
    global calls
    told(self, rows)
    calls += 1
    if calls == point:
        os.kill(os.getpid(), signal.SIGKILL)

engine._Told.__call__ = killed
# Feast is loaded once: each run is a fork of a process that has computed nothing yet.
for folder, online, point in given:
    process = os.fork()
    if not process:
        feast_over(Path(folder), online).materialize(START, END)
        os._exit(0)
    print(os.waitpid(process, 0)[1], flush=True)
"""


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    """For each store and point, and undisturbed ("whole"): its folder and configuration, before the second range."""
    folder = tmp_path_factory.mktemp("killed")
    with redis_server() as port, postgres_server() as url:
        cases = {}
        for number, point in enumerate(["whole", *map(str, POINTS)]):
            cases[f"packed {point}"] = packed(folder / f"packed {point}")
            cases[f"redis {point}"] = redis(port, number)
            cases[f"postgres {point}"] = postgres(url, f"s{number}")
        table = folder / "t.parquet"
        first = pl.DataFrame({"stop": STOPS}).with_columns(event=at(1), made=at(1), **dict.fromkeys(FEATURES, 1.0))
        first.write_parquet(table)
        for name, online in cases.items():
            objects = view_of(table, {"stop": ValueType.INT64}, dict.fromkeys(FEATURES, Float64), "small")
            feast_over(folder / name, online, objects).materialize(START, at(2))
        later = first.with_columns(event=at(5), **{name: pl.lit(2.0) for name in FEATURES})
        pl.concat([first.with_columns(pl.col("event").cast(later.schema["event"])), later]).write_parquet(table)
        yield {name: {"folder": folder / name, "online": online} for name, online in cases.items()}
        disconnect(url)


@pytest.fixture(scope="module")
def ends(stores: dict[str, dict[str, Any]]) -> dict[str, int]:
    """How each run of the second range ended, by store and point."""
    killed = [(name, int(name.split()[1])) for name in stores if not name.endswith("whole")]
    given = [(str(stores[name]["folder"]), stores[name]["online"], point) for name, point in killed]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(given)],
        cwd=ROOT, env=os.environ | {"TZ": "UTC"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    statuses = [int(line) for line in done.stdout.splitlines() if line.isdecimal()]
    return {name: status for (name, _), status in zip(killed, statuses, strict=True)}


def rows(online: dict[str, Any]) -> dict[Any, list[float]]:
    """What a reader sees: the values of each entity."""
    if online["type"] == "redis":
        server = client.Redis.from_url(f"redis://{online['connection_string'].replace(',db=', '/')}")
        found = {key: server.hgetall(key) for key in server.scan_iter()}
        return {
            key: [value for name, value in sorted(fields.items()) if len(name) == 4] for key, fields in found.items()
        }
    if online["type"] == "postgres":
        told = {name: online[name] for name in ("host", "port", "user", "password")}
        with psycopg.connect(**told, dbname=online["database"]) as connection:
            table = f"{online['db_schema']}.p_small"
            query = f"SELECT entity_key, array_agg(value ORDER BY feature_name) FROM {table} GROUP BY 1"
            return dict(connection.execute(query).fetchall())
    with PackedStore(Path(online["path"]) / "p.db", read_only=True) as store:
        return {key: values for key, (_, values) in store.read("small", STOPS, FEATURES).items()}


def run_again(told: dict[str, Any]) -> None:
    feast_over(told["folder"], told["online"]).materialize(START, END)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("store", ["packed", "redis", "postgres"])
def test_a_materialization_killed_while_it_writes_leaves_whole_rows_and_a_second_run_makes_it_as_if_undisturbed(
    stores: dict[str, dict[str, Any]], ends: dict[str, int], store: str, point: int
) -> None:
    whole, told = stores[f"{store} whole"], stores[f"{store} {point}"]
    assert os.WIFSIGNALED(ends[f"{store} {point}"])
    assert os.WTERMSIG(ends[f"{store} {point}"]) == signal.SIGKILL
    seen = rows(told["online"])
    assert len(seen) == len(STOPS)
    assert all(len(values) == len(FEATURES) and len(set(values)) == 1 for values in seen.values())
    run_again(whole)
    undisturbed = rows(whole["online"])
    if store == "redis":  # an entity after the other
        assert any(seen[key] == undisturbed[key] for key in seen)
    else:  # a transaction: nothing of it is seen
        assert all(seen[key] != undisturbed[key] for key in seen)
    run_again(told)
    assert rows(told["online"]) == undisturbed
