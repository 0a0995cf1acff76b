"""Rows in Redis when the server is away, silent, restarted, or holds something else."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from ferroflow.adapters.feast.keys import entity_key
from ferroflow.adapters.feast.plan import KeyPlan, OnlineStoreAway, PackedPlan, ReadPlan, RedisPlan, ViewPlan
from ferroflow.adapters.feast.redis_rows import RedisRows, field_name, watermark_key
from ferroflow.adapters.feast.rows import Watermark
from ferroflow.core.errors import DataError, NotFound, SpecError
from tests.engines import free_port, redis_server

USERS = ViewPlan(
    view="users",
    table="users_v2",
    keys=(KeyPlan(name="user_id", field="user", kind="int64"),),
    features=(("clicks", "double"), ("name", "text")),
)
PAIRS = ViewPlan(
    view="pairs",
    table="pairs",
    keys=(KeyPlan(name="a", field="a", kind="int64"), KeyPlan(name="b", field="b", kind="text")),
    features=(("clicks", "double"),),
    prefix="pairs__",
)


def plan(port: int, login: str = "") -> ReadPlan:
    return ReadPlan(store=RedisPlan(url=f"redis://{login}127.0.0.1:{port}/0"), project="shop", views=(USERS, PAIRS))


def store(port: int, key: int, clicks: float) -> None:
    moment = Timestamp(seconds=10, nanos=5_000)
    fields = {
        b"_ts:users_v2": moment.SerializeToString(),
        field_name("users_v2", "clicks"): Value(double_val=clicks).SerializeToString(),
    }
    with redis.Redis(port=port) as server:
        server.hset(entity_key(["user_id"], ["int64"], [key]) + b"shop", mapping=fields)


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    with redis_server() as port:
        store(port, 1, 2.5)
        yield port


def test_a_row_is_read_by_the_views_name_in_the_store(server: int) -> None:
    rows = RedisRows(plan(server))
    serialized = entity_key(["user_id"], ["int64"], [1])
    expected = (10_000_005, [None, 2.5])
    assert rows.read("users", [1, 2, serialized], ["name", "clicks"]) == {1: expected, serialized: expected}
    assert rows.read("users", [], ["clicks"]) == {}
    rows.close()
    assert rows.read("users", [1], ["clicks"]) == {1: (10_000_005, [2.5])}


def test_the_watermark_is_what_the_key_says(server: int) -> None:
    rows = RedisRows(plan(server))
    assert rows.watermark("pairs") is None
    with redis.Redis(port=server) as client:
        client.set(watermark_key("shop", "users_v2"), '{"event": 5, "ingested": null}')
        client.set(watermark_key("shop", "pairs"), "five")
    assert rows.watermark("users") == Watermark(5, None)
    with pytest.raises(OnlineStoreAway, match="no watermark"):
        rows.watermark("pairs")


def test_what_cannot_be_asked_is_refused_by_name(server: int) -> None:
    rows = RedisRows(plan(server))
    with pytest.raises(NotFound, match="'shops'"):
        rows.read("shops", [1], ["clicks"])
    with pytest.raises(DataError, match="user_id"):
        rows.read("users", ["1"], ["clicks"])
    with pytest.raises(DataError, match="several"):
        rows.read("pairs", [1], ["clicks"])
    texts = USERS.model_copy(update={"keys": (KeyPlan(name="user_id", field="user", kind="text"),)})
    with pytest.raises(DataError, match=r"does not fit user_id \(text\)"):
        RedisRows(plan(server).model_copy(update={"views": (texts,)})).read("users", ["a\ud800"], ["clicks"])
    with pytest.raises(SpecError, match="'packed'"):
        RedisRows(ReadPlan(store=PackedPlan(path="x"), project="shop", views=()))


def test_a_key_of_another_type_in_redis_is_told_and_the_next_read_is_right(server: int) -> None:
    rows = RedisRows(plan(server))
    with redis.Redis(port=server) as client:
        client.set(entity_key(["user_id"], ["int64"], [9]) + b"shop", "text")
    with pytest.raises(OnlineStoreAway, match="WRONGTYPE"):
        rows.read("users", [9, 1], ["clicks"])
    assert rows.read("users", [1], ["clicks"]) == {1: (10_000_005, [2.5])}


def test_threads_read_each_by_its_own_connection(server: int) -> None:
    rows = RedisRows(plan(server))
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.extend(rows.read("users", [1], ["clicks"]) for _ in range(50)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [{1: (10_000_005, [2.5])}] * 200


def test_a_restarted_server_is_read_again_by_the_same_reader(tmp_path: Path) -> None:
    with redis_server(kept=tmp_path) as port:
        store(port, 1, 2.5)
        rows = RedisRows(plan(port), rest_seconds=0)
        assert rows.read("users", [1], ["clicks"]) == {1: (10_000_005, [2.5])}
    with pytest.raises(OnlineStoreAway, match="does not answer"):
        rows.read("users", [1], ["clicks"])
    with redis_server(port, tmp_path):
        assert rows.read("users", [1], ["clicks"]) == {1: (10_000_005, [2.5])}
    with redis_server(port, tmp_path):  # the connection was lost in between, unnoticed
        assert rows.read("users", [1], ["clicks"]) == {1: (10_000_005, [2.5])}


def test_a_server_that_is_away_is_left_in_peace_for_a_while() -> None:
    now = [0.0]
    rows = RedisRows(plan(free_port()), rest_seconds=5, clock=lambda: now[0] + 10)
    with pytest.raises(OnlineStoreAway, match="does not answer"):
        rows.read("users", [1], ["clicks"])
    with pytest.raises(OnlineStoreAway, match="asked again soon"):
        rows.read("users", [1], ["clicks"])
    now[0] = 5.0
    with pytest.raises(OnlineStoreAway, match="does not answer"):
        rows.watermark("users")


def test_a_silent_server_ends_in_an_error_without_the_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        read = plan(silent.getsockname()[1], "me:s3cret@")
        rows = RedisRows(read, read_seconds=0.05)
        with pytest.raises(OnlineStoreAway, match="does not answer") as told:
            rows.read("users", [1], ["clicks"])
    assert "s3cret" not in f"{told.value} {read!r} {read.store} {rows.plan}"
    assert "s3cret" in read.model_dump_json()


def test_a_plan_with_one_name_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="view names given twice: users"):
        ReadPlan(store=PackedPlan(path="x"), project="shop", views=(USERS, USERS.model_copy(update={"prefix": "b__"})))
    with pytest.raises(ValueError, match="output names given twice: clicks"):
        ReadPlan(store=PackedPlan(path="x"), project="shop", views=(USERS, PAIRS.model_copy(update={"prefix": ""})))
