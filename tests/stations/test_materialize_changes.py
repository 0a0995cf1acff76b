"""What an online store has after a view, or the store itself, has become another one: never values of the old one."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest
import redis

from ferroflow.adapters.feast.keys import entity_key
from ferroflow.adapters.feast.packed import PackedStore
from ferroflow.adapters.feast.reader import open_rows
from ferroflow.adapters.feast.rows import Watermark
from ferroflow.adapters.feast.store import online_plan
from ferroflow.adapters.home import Home
from ferroflow.core import aggregates
from ferroflow.core.aggregates import Aggregate
from ferroflow.core.definitions import feature
from ferroflow.core.features import stored
from ferroflow.core.spec import PipelineSpec
from ferroflow.core.windows import windows
from ferroflow.stations import materialize as station
from ferroflow.stations import offline
from ferroflow.stations.features import refresh_offline
from ferroflow.stations.materialize import materialize
from ferroflow.stations.push import Pusher
from tests.engines import postgres_server, redis_server
from tests.rides import START, accept, arrivals, departures, pipeline, simulate, summary

AS_OF = START + timedelta(days=4)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ROWS = simulate(400)
ROOT = Path(__file__).resolve().parents[2]
STOPS = [1, 2, 3, 4, 5]
ARRIVALS = pipeline(features=(arrivals,))


@pytest.fixture(scope="module")
def redis_address() -> Iterator[str]:
    with redis_server() as port:
        yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture(scope="module")
def postgres_address() -> Iterator[str]:
    with postgres_server() as address:
        yield address


@pytest.fixture(params=["packed", "redis", "postgres"])
def there(request: pytest.FixtureRequest, home: Home) -> Home:
    """A home with each online store, empty."""
    if request.param == "packed":
        return home
    address: str = request.getfixturevalue(f"{request.param}_address")
    if request.param == "redis":
        with redis.Redis.from_url(address) as server:
            server.flushall()
    else:
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
    return Home(home.root, online_store=address)


@pytest.fixture
def code(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Says what the text of the features' module is: all features of these tests share one."""
    real = offline.definitions

    def become(text: str) -> None:
        monkeypatch.setattr(offline, "definitions", lambda spec: [{**part, "code": text} for part in real(spec)])

    return become


def buckets(entity: str, on: str, hours: int, factor: float = 1.0) -> PipelineSpec:
    """A pipeline whose ``arrivals`` are of this entity, in whole buckets and in this unit."""

    def arrivals(rows: pl.LazyFrame) -> pl.LazyFrame:
        ends = pl.col("ended").dt.truncate(f"{hours}h") + timedelta(hours=hours)
        counted = rows.group_by(pl.col(on).alias(entity), ends.alias("available_at"))
        return counted.agg(rides=pl.len().cast(pl.Float64), mean=pl.col("minutes").mean() * factor)

    return pipeline(features=(stored(entity=entity, on=on, ttl="2d")(arrivals),))


def bring(home: Home, spec: PipelineSpec, as_of: datetime = AS_OF, rows: pl.DataFrame = ROWS) -> dict[str, int]:
    refresh_offline(spec, accept(home, rows, f"v{len(rows)}"), as_of, home)
    return materialize(spec, as_of, home)


def online(home: Home, spec: PipelineSpec, *features: str) -> dict[Any, Any]:
    with closing(open_rows(online_plan(spec, home))) as rows:
        return dict(rows.read("arrivals", STOPS, features or ("rides", "mean")))


def told(home: Home) -> Watermark | None:
    with closing(open_rows(online_plan(ARRIVALS, home))) as rows:
        return rows.watermark("arrivals")


@pytest.mark.parametrize(("entity", "on"), [("stop", "destination"), ("hall", "origin")], ids=["unit", "entity"])
def test_nothing_of_an_earlier_definition_stays_online_though_it_is_newer(
    there: Home, tmp_path: Path, code: Callable[[str], None], entity: str, on: str
) -> None:
    minutes, seconds, later = buckets("stop", "destination", 1), buckets(entity, on, 6, 60.0), AS_OF + 3 * HOUR
    code("one")
    bring(there, minutes, later)
    old = online(there, minutes)
    code("two")
    # A stop that nobody arrives at any more, under the new definition, has no row to overwrite the old one's.
    rows = ROWS.filter(pl.col(on) != 5)
    assert bring(there, seconds, later, rows)["arrivals"] > 0
    anew = Home(tmp_path / "anew")
    bring(anew, seconds, later, rows)
    assert online(there, seconds) == online(anew, seconds) != {}
    assert 5 in old and 5 not in online(there, seconds)


def test_a_definition_that_has_no_rows_leaves_none(there: Home, code: Callable[[str], None]) -> None:
    def arrivals(rows: pl.LazyFrame) -> pl.LazyFrame:
        return summary(rows, "destination", 6).filter(pl.col("rides") < 0)

    code("one")
    bring(there, ARRIVALS)
    code("two")
    assert bring(there, pipeline(features=(stored(entity="stop", on="destination", ttl="2d")(arrivals),))) == {
        "arrivals": 0
    }
    assert online(there, ARRIVALS) == {}


def test_a_run_for_an_earlier_moment_replaces_nothing_and_the_next_one_does(
    there: Home, tmp_path: Path, code: Callable[[str], None]
) -> None:
    minutes, seconds = buckets("stop", "destination", 1), buckets("stop", "destination", 6, 60.0)
    code("one")
    bring(there, minutes)
    before = online(there, minutes)
    code("two")
    bring(there, seconds, AS_OF - DAY)
    assert {key: event for key, (event, _) in online(there, seconds).items()} == {
        key: event for key, (event, _) in before.items()
    }
    bring(there, seconds)
    anew = Home(tmp_path / "anew")
    bring(anew, seconds)
    assert online(there, seconds) == online(anew, seconds)


def test_a_feature_that_the_view_has_no_more_gives_an_older_model_nothing(there: Home) -> None:
    def wider(rows: pl.LazyFrame) -> pl.LazyFrame:
        return summary(rows, "destination", 6).with_columns(longest=pl.col("mean") * 2)

    wider.__name__ = "arrivals"
    wide = pipeline(features=(stored(entity="stop", on="destination", ttl="2d")(wider),))
    bring(there, wide)
    assert all(values[1] is not None for _, values in online(there, wide, "mean", "longest").values())
    bring(there, ARRIVALS)
    found = online(there, wide, "mean", "longest")
    assert [values[1] for _, values in found.values()] == [None] * 5
    assert all(values[0] is not None for _, values in found.values())


def test_a_view_that_was_taken_away_and_put_back_is_filled_whole(there: Home) -> None:
    both, one = pipeline(), pipeline(features=(departures,))
    bring(there, both)
    before = online(there, both)
    bring(there, one)
    assert bring(there, both) == {"departures": 0, "arrivals": 5}
    assert online(there, both) == before


def test_a_store_that_lost_its_rows_and_kept_its_watermark_is_filled_whole(there: Home) -> None:
    bring(there, ARRIVALS)
    before, mark = online(there, ARRIVALS), told(there)
    address = there.online_store
    if address is None:
        with PackedStore(there.online("rides")) as store, store._writable() as connection:
            connection.execute("DELETE FROM entries")
    elif address.startswith("redis"):
        with redis.Redis.from_url(address) as server:
            server.delete(*server.scan_iter(_type="hash"))
    else:
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute("DROP TABLE ferroflow_arrivals")
    assert told(there) == mark is not None
    assert bring(there, ARRIVALS) == {"arrivals": 5}
    assert online(there, ARRIVALS) == before


def test_a_home_that_begins_on_a_server_of_another_one_believes_none_of_its_rows(there: Home, tmp_path: Path) -> None:
    bring(there, ARRIVALS)
    other = Home(tmp_path / "other", online_store=there.online_store)
    few = ROWS.filter(pl.col("destination") != 3)
    assert bring(other, ARRIVALS, rows=few) == {"arrivals": 4}
    assert sorted(online(other, ARRIVALS)) == [1, 2, 4, 5]


@feature
def rides() -> Aggregate:
    return aggregates.count()


@pytest.mark.parametrize("window", ["24h", "12h"], ids=["by the same definition", "by another one"])
def test_what_was_pushed_later_stays_where_it_was_pushed_by_the_definition_of_now(
    there: Home, code: Callable[[str], None], window: str
) -> None:
    def spec(last: str) -> PipelineSpec:
        return pipeline(
            features=(
                windows(
                    "arrivals",
                    entity="stop",
                    on="destination",
                    time="ended",
                    last=last,
                    every="6h",
                    ttl="2d",
                    features=(rides,),
                ),
            )
        )

    code("one")
    done = ROWS.filter(pl.col("ended") < AS_OF)
    bring(there, spec("24h"), rows=done)
    pusher = Pusher(spec("24h"), "arrivals", there)
    pusher.begin(done.filter(pl.col("destination") != 5), place=0, until=AS_OF)
    later = done.head(1).with_columns(destination=pl.lit(1, pl.Int64), ended=AS_OF + HOUR, row_id=pl.lit("later"))
    pusher.push(later.select(done.columns).cast(done.schema), place=1, until=AS_OF + 6 * HOUR)
    pushed = online(there, spec("24h"), "rides")
    code("two")
    bring(there, spec(window), rows=done.filter(pl.col("destination") != 5))
    found = online(there, spec("24h"), "rides")
    assert 5 in pushed and 5 not in found
    assert (found[1] == pushed[1]) == (window == "24h")


def test_reading_back_waits_longer_than_a_prediction_would(
    home: Home, postgres_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(postgres_address, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    real = station._read_back

    def held_up(*given: Any) -> None:
        with psycopg.connect(postgres_address) as connection:
            connection.execute("LOCK TABLE ferroflow_arrivals IN ACCESS EXCLUSIVE MODE")
            release = threading.Timer(2, connection.commit)
            release.start()
            real(*given)
            release.join()

    monkeypatch.setattr(station, "_read_back", held_up)
    assert bring(Home(home.root, online_store=postgres_address), ARRIVALS) == {"arrivals": 5}


def test_other_views_of_the_same_entity_keep_theirs(there: Home, code: Callable[[str], None]) -> None:
    code("one")
    bring(there, pipeline())

    def departed() -> dict[Any, Any]:
        with closing(open_rows(online_plan(pipeline(), there))) as rows:
            return dict(rows.read("departures", STOPS, ["rides"]))

    before = departed()
    real = offline.definitions
    offline_definitions = [{**part, "code": "two"} if part["name"] == "arrivals" else part for part in real(pipeline())]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(offline, "definitions", lambda spec: offline_definitions)
        assert bring(there, pipeline()) == {"departures": 0, "arrivals": 5}
    assert departed() == before != {}


KILLED = """
import os, signal, sys
from datetime import datetime
from pathlib import Path
from ferroflow.adapters.feast import bulk_redis
from ferroflow.adapters.home import Home
from ferroflow.stations import offline
from ferroflow.stations.materialize import materialize
from tests.stations.test_materialize_changes import AS_OF, HOUR, buckets

def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

def first_call_only(connection, calls, progress):
    exchange(connection, list(calls)[:1], progress)
    die()

bulk_redis.ENTITIES, exchange = 2, bulk_redis._exchange
setattr(bulk_redis, sys.argv[3], first_call_only if sys.argv[3] == "_exchange" else die)
real = offline.definitions
offline.definitions = lambda spec: [{**part, "code": "two"} for part in real(spec)]
materialize(buckets("stop", "destination", 6, 60.0), AS_OF + 3 * HOUR, Home(Path(sys.argv[1]), sys.argv[2]))
"""


@pytest.mark.parametrize("where", ["_exchange", "_remove_others"])
def test_a_replacement_in_redis_that_is_killed_is_simply_done_again(
    home: Home, tmp_path: Path, code: Callable[[str], None], where: str
) -> None:
    later, seconds = AS_OF + 3 * HOUR, buckets("stop", "destination", 6, 60.0)
    with redis_server() as port:
        there = Home(home.root, online_store=f"redis://127.0.0.1:{port}/0")
        code("one")
        bring(there, buckets("stop", "destination", 1), later)
        old = online(there, seconds)
        code("two")
        rows = ROWS.filter(pl.col("destination") != 5)
        refresh_offline(seconds, accept(there, rows, "few"), later, there)
        address = there.online_store
        theirs = b"_ts:arrivals", entity_key(["stop"], ["int64"], [5]) + b"myferroflow"
        with redis.Redis(port=port) as server:  # of a project whose name ends as ours
            server.hset(theirs[1], theirs[0], b"\x08\x05")
        done = subprocess.run([sys.executable, "-c", KILLED, there.root, address, where], cwd=ROOT, check=False)
        assert done.returncode == -signal.SIGKILL
        assert 5 in online(there, seconds) and online(there, seconds) != old
        materialize(seconds, later, there)
        with redis.Redis(port=port) as server:
            assert server.hget(theirs[1], theirs[0]) == b"\x08\x05"
        anew = Home(tmp_path / "anew")
        bring(anew, seconds, later, rows)
        assert online(there, seconds) == online(anew, seconds) != {}
