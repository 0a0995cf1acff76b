"""Pushes to servers that lose a connection, or all they had."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta

import psycopg
import pytest
import redis

from ferroflow.adapters.feast.reader import open_rows
from ferroflow.adapters.feast.rows import Watermark
from ferroflow.adapters.feast.store import online_plan
from ferroflow.adapters.home import Home
from ferroflow.core import aggregates
from ferroflow.core.aggregates import Aggregate
from ferroflow.core.definitions import feature
from ferroflow.core.errors import ServiceError
from ferroflow.core.windows import windows
from ferroflow.stations.features import materialize, refresh_offline
from ferroflow.stations.push import Pusher
from tests.engines import postgres_server, redis_server
from tests.rides import START, accept, pipeline, simulate

END, HOUR = START + timedelta(days=5), timedelta(hours=1)
ROWS = simulate(300).sort("ended")


@feature
def rides() -> Aggregate:
    return aggregates.count()


DAYS = windows(
    "day", entity="stop", on="destination", time="ended", last="24h", every="6h", ttl="2d", features=(rides,)
)
SPEC = pipeline(features=(DAYS,))


def begun(home: Home) -> Pusher:
    pusher = Pusher(SPEC, "day", home)
    pusher.begin(ROWS.clear(), place=0, since=START - timedelta(days=2))
    return pusher


def told(home: Home) -> Watermark | None:
    with closing(open_rows(online_plan(SPEC, home))) as rows:
        return rows.watermark("day")


def test_a_pusher_outlives_the_connection_that_it_had(home: Home) -> None:
    with postgres_server() as address:
        pusher = begun(Home(home.root, online_store=address))
        assert pusher.push(ROWS.head(100), place=1).rows > 0
        with psycopg.connect(address, autocommit=True) as connection:
            ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'shop' AND pid <> %s"
            connection.execute(ended, (connection.info.backend_pid,))
        assert pusher.push(ROWS.slice(100, 100), place=2).rows > 0
    with pytest.raises(ServiceError, match="cannot be reached") as away:
        pusher.push(ROWS.slice(200), place=3)
    assert "tr0ub4dor" not in str(away.value)
    assert pusher._feast._get_provider().online_store._conn is None


def test_a_store_that_was_emptied_is_told_nothing_until_a_batch_has_filled_it(home: Home) -> None:
    with redis_server() as port:
        there = Home(home.root, online_store=f"redis://127.0.0.1:{port}/0")
        pusher = begun(there)
        pusher.push(ROWS.head(150), place=1)
        assert told(there) is not None
        with redis.Redis(port=port) as server:
            server.flushall()
        pusher.push(ROWS.slice(150), place=2)
        pusher.push(ROWS.clear(), place=3, until=END)
        assert told(there) is None, "what was pushed before is not there"
        refresh_offline(SPEC, accept(there, ROWS), END, there)
        materialize(SPEC, END, there)
        pusher.push(ROWS.clear(), place=4, until=END + 6 * HOUR)
        mark = told(there)
        assert mark is not None and mark.event == int((END + 6 * HOUR).timestamp() * 1e6)
