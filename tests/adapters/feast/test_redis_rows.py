"""Rows in Redis when the server is away, silent, restarted, or holds something else."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
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


def test_connections_that_were_lost_count_for_nothing(server: int) -> None:
    few = RedisPlan(url=f"redis://127.0.0.1:{server}/0?max_connections=2")
    rows = RedisRows(plan(server).model_copy(update={"store": few}))
    with redis.Redis(port=server) as client:
        for _ in range(5):
            assert rows.read("users", [1], ["clicks"]) == {1: (10_000_005, [2.5])}
            client.client_kill_filter(skipme=True, _type="normal")


def test_close_ends_the_connections_of_threads_that_live(server: int) -> None:
    rows, ready, end = RedisRows(plan(server)), threading.Barrier(4), threading.Event()

    def work() -> None:
        rows.watermark("users")
        ready.wait()
        end.wait()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    ready.wait()
    assert len(rows._open) == 3
    rows.close()
    assert len(rows._open) == 0
    end.set()
    for thread in threads:
        thread.join()


def test_close_while_others_read_is_no_other_error_than_that_it_is_away(server: int) -> None:
    rows, end = RedisRows(plan(server), rest_seconds=0), threading.Event()

    def work() -> set[str]:
        found = set()
        while not end.is_set():
            with suppress(OnlineStoreAway):
                found.add(repr(rows.read("users", [1], ["clicks"])))
        return found

    with ThreadPoolExecutor(2) as pool:
        reading = [pool.submit(work) for _ in range(2)]
        for _ in range(300):
            time.sleep(0.005)
            rows.close()
        end.set()
        assert [read.result() for read in reading] == [{repr({1: (10_000_005, [2.5])})}] * 2


def test_a_fork_makes_its_own_connection_and_leaves_its_parents_alone(server: int) -> None:
    rows = RedisRows(plan(server))
    whose = b"*2\r\n$6\r\nCLIENT\r\n$2\r\nID\r\n"
    before = rows._ask(whose, 1)
    child = os.fork()
    if child == 0:
        mine = rows._ask(whose, 1)
        rows.close()
        os._exit(0 if mine != before and rows.read("users", [1], ["clicks"]) == {1: (10_000_005, [2.5])} else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert rows._ask(whose, 1) == before
    rows.close()


def test_a_thread_that_ends_gives_its_connection_back(server: int) -> None:
    with redis.Redis(port=server) as client:

        def connected() -> int:
            return len(client.client_list()) - 1

        rows, before = RedisRows(plan(server)), connected()
        for _ in range(30):
            thread = threading.Thread(target=rows.read, args=("users", [1], ["clicks"]))
            thread.start()
            thread.join()
        assert rows.read("users", [1], ["clicks"]) == {1: (10_000_005, [2.5])}
        assert len(rows._open) == 1
        until = time.monotonic() + 10
        while connected() > before + 1 and time.monotonic() < until:
            time.sleep(0.05)
        assert connected() <= before + 1
        rows.close()
        assert len(rows._open) == 0


@contextmanager
def answering(*replies: bytes, greeting: bytes = b"+OK\r\n") -> Iterator[tuple[int, list[bytes]]]:
    """Run what may be no Redis: it greets, and then answers each read by the next reply. Gives port and greetings."""
    left, greeted = list(replies), []

    def serve(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(65_536):
                if b"GET\r\n" in data:
                    connection.sendall(left.pop(0))
                else:
                    greeted.append(data)
                    connection.sendall(greeting)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # it was closed
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1], greeted
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


MOMENT = bulk(Timestamp(seconds=10, nanos=5_000).SerializeToString())
GOOD = b"*2\r\n" + bulk(Value(double_val=2.5).SerializeToString()) + MOMENT
HTTP = b"HTTP/1.1 502 Bad Gateway\r\n\r\n"


@pytest.mark.parametrize("greeting", [b"+OK\r\n", HTTP])
def test_a_server_that_does_not_speak_redis_is_away_and_left_in_peace(greeting: bytes) -> None:
    now = [10.0]
    with answering(HTTP, HTTP, GOOD, greeting=greeting) as (port, _):
        rows = RedisRows(plan(port), rest_seconds=5, clock=lambda: now[0])
        with pytest.raises(OnlineStoreAway, match=f"127.0.0.1:{port}/0 does not answer: Protocol"):
            rows.read("users", [1], ["clicks"])
        with pytest.raises(OnlineStoreAway, match="asked again soon"):
            rows.read("users", [1], ["clicks"])
        now[0] += 5
        with pytest.raises(OnlineStoreAway, match="does not answer: Protocol"):
            rows.watermark("users")
        now[0] += 5
        if greeting != HTTP:
            assert rows.read("users", [1], ["clicks"]) == {1: (10_000_005, [2.5])}
        rows.close()


@pytest.mark.parametrize(
    "odd",
    [
        b"+OK\r\n",
        b"*-1\r\n",
        b"$-1\r\n",
        b":2\r\n",
        b"*0\r\n",
        b"*1\r\n" + MOMENT,
        b"*3\r\n$-1\r\n$-1\r\n" + MOMENT,
        b"*2\r\n-ERR no\r\n" + MOMENT,
        b"*2\r\n:5\r\n" + MOMENT,
        b"*2\r\n$-1\r\n-ERR no\r\n",
        b"*2\r\n$-1\r\n:3\r\n",
    ],
)
@pytest.mark.parametrize("feature", ["clicks", "name"])
def test_a_reply_that_is_no_row_is_told_by_the_stores_name_and_the_next_read_is_right(odd: bytes, feature: str) -> None:
    with answering(odd, GOOD) as (port, _):
        rows = RedisRows(plan(port), rest_seconds=5)
        with pytest.raises(OnlineStoreAway, match=f"store redis://127.0.0.1:{port}/0 answers with what is no row"):
            rows.read("users", [1], [feature])
        assert rows.read("users", [1], ["clicks"]) == {1: (10_000_005, [2.5])}
        rows.close()


@pytest.mark.parametrize("more", [GOOD, b"+O", GOOD[:9], b"-ERR no\r\n"])
def test_more_replies_than_were_asked_for_are_not_taken_for_those_of_the_next_read(more: bytes) -> None:
    other = b"*2\r\n" + bulk(Value(double_val=7.5).SerializeToString()) + MOMENT
    with answering(GOOD + more, other) as (port, greeted):
        rows = RedisRows(plan(port), rest_seconds=0)
        with pytest.raises(OnlineStoreAway, match="answers more than it was asked"):
            rows.read("users", [1], ["clicks"])
        before = len(greeted)
        assert rows.read("users", [2], ["clicks"]) == {2: (10_000_005, [7.5])}
        assert len(greeted) > before  # by a new connection
        rows.close()


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
