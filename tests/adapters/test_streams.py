"""Against a real Redis: every message exactly once in the parts, whatever is killed, doubled or broken."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from redis import Redis

from ferroflow.adapters.home import Home
from ferroflow.adapters.sources import journal
from ferroflow.adapters.sources.batches import taken
from ferroflow.adapters.sources.messages import MESSAGE_ID, rows_of
from ferroflow.adapters.sources.streams import fewer
from ferroflow.core.errors import SettingsError, SourceUnavailable, SpecError
from ferroflow.core.records import Part
from ferroflow.core.spec import PipelineSpec, Regression, Source, Stream
from tests.engines import free_port, redis_server

NOW = datetime(2024, 5, 1, tzinfo=UTC)
ROOT = Path(__file__).resolve().parents[2]


def pipeline(stream: Stream) -> PipelineSpec:
    return PipelineSpec(
        name="shop",
        description="Orders.",
        source=Source(stream=stream),
        schema=object,  # raw parts know nothing of it
        inputs=("city",),
        target=Regression("days"),
    )


def take(home: Home, stream: Stream) -> list[Part]:
    return taken(pipeline(stream), home, now=NOW)


def table(home: Home, parts: list[Part]) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(home.absolute(part.path)) for part in parts], how="diagonal")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with redis_server() as number:
        yield number


@pytest.fixture
def redis(port: int) -> Iterator[Redis]:
    with Redis(port=port) as client:
        client.flushall()
        yield client


@pytest.fixture
def stream(port: int) -> Stream:
    return Stream(url=f"redis://127.0.0.1:{port}/0", name="orders", batch=4)


def send(redis: Redis, *numbers: int, name: str = "orders") -> list[str]:
    return [redis.xadd(name, {"number": number}).decode() for number in numbers]


def waiting(redis: Redis) -> int:
    return int(redis.xpending("orders", "ferroflow")["pending"])


def test_messages_become_batches_and_are_acknowledged_and_nothing_new_adds_nothing(
    home: Home, redis: Redis, stream: Stream
) -> None:
    assert take(home, stream) == []
    ids = send(redis, *range(10))
    parts = take(home, stream)
    assert [part.rows for part in parts] == [4, 4, 2] and waiting(redis) == 0
    assert [(part.since, part.upto) for part in parts] == [(ids[0], ids[3]), (ids[4], ids[7]), (ids[8], ids[9])]
    found = table(home, parts)
    assert found["number"].to_list() == [str(number) for number in range(10)]
    assert found[MESSAGE_ID].to_list() == ids and found["_row"].to_list() == [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]
    assert take(home, stream) == parts
    send(redis, 10)
    assert take(home, stream)[:3] == parts and len(take(home, stream)) == 4


def test_a_message_that_is_no_row_is_kept_with_its_raw_text() -> None:
    bad = {
        b'{"a": 1': '{"a": 1',
        b"[1]": "[1]",
        b'{"a": 1, "a": 2}': '{"a": 1, "a": 2}',
        b'{"a": NaN}': '{"a": NaN}',
        b'{"a": "\\ud800"}': '{"a": "\\ud800"}',
        b'{"_row": 1}': '{"_row": 1}',
        b'{"": 1}': '{"": 1}',
        b"[" * 9_999: "[" * 9_999,
        b"\xff\\xff": '[["body", {"hex": "ff5c786666"}]]',
    }
    messages = [(f"{number}-0", [(b"body", raw)]) for number, raw in enumerate(bad)]
    others = [[(b"other", b"1")], [(b"body", b"{}"), (b"body", b"{}")], [(b"body", b'{"a": 1}'), (b"a", b"2")]]
    messages += [(f"{number}-1", fields) for number, fields in enumerate(others)]
    found = rows_of(messages, "body")
    assert found["_problem"].null_count() == 0 and found[MESSAGE_ID].to_list() == [name for name, _ in messages]
    assert found["_line"].to_list() == [
        *bad.values(),
        '[["other", "1"]]',
        '[["body", "{}"], ["body", "{}"]]',
        '[["body", "{\\"a\\": 1}"], ["a", "2"]]',
    ]


def test_a_json_cell_is_spelt_as_it_was_sent() -> None:
    text = '{"n": 1.10, "big": 123456789012345678901, "e": 1E5, "t": "é\\n", "no": null, "yes": true, '
    text += '"in": {"a": [1.0, "x", null]}}'
    found = rows_of([("1-0", [(b"trace", b"7"), (b"body", text.encode())])], "body")
    assert found.drop(MESSAGE_ID).rows(named=True) == [
        {
            "trace": "7",
            "n": "1.10",
            "big": "123456789012345678901",
            "e": "1E5",
            "t": "é\n",
            "no": None,
            "yes": "true",
            "in": '{"a":[1.0,"x",null]}',
            "_problem": None,
            "_line": None,
        }
    ]


def test_two_fields_of_one_name_reach_the_part_as_a_problem_not_as_one(
    home: Home, redis: Redis, stream: Stream
) -> None:
    redis.execute_command("XADD", "orders", "*", "a", "1", "a", "2")
    redis.execute_command("XADD", "orders", "*", "a", b"\xff")
    send(redis, 1)
    found = table(home, take(home, stream))
    assert found["_line"].to_list() == ['[["a", "1"], ["a", "2"]]', '[["a", {"hex": "ff"}]]', None]
    assert found["number"].to_list() == [None, None, "1"]


KILLED = """
import os, signal, sys
from pathlib import Path
from ferroflow.adapters.home import Home
from ferroflow.adapters.sources import journal, redis_stream
from ferroflow.adapters.sources.batches import taken
from ferroflow.core.spec import Stream
from tests.adapters.test_streams import NOW, pipeline
point, root, url = sys.argv[1:]
calls = 0
def die(work, *, first=False, at=2):
    def dying(*given, **named):
        global calls
        calls += 1
        if calls == at and first:
            os.kill(os.getpid(), signal.SIGKILL)
        done = work(*given, **named)
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return done
    return dying
Reader = redis_stream.RedisConsumer
if point == "after delivery":
    Reader.take = die(Reader.take)
elif point == "after write":
    journal.write_raw = die(journal.write_raw)
elif point == "before record":
    journal.Journal.vouch = die(journal.Journal.vouch, first=True)
elif point == "between records":
    journal.write_record = die(journal.write_record, at=3)
elif point == "before acknowledging":
    Reader.acknowledge = die(Reader.acknowledge, first=True)
else:
    Reader.acknowledge = die(Reader.acknowledge)
taken(pipeline(Stream(url=url, name="orders", batch=4)), Home(Path(root)), now=NOW)
"""
POINTS = ["after delivery", "after write", "before record", "between records", "before acknowledging", "after all"]


def test_over_runs_killed_at_every_point_each_message_is_in_the_parts_exactly_once(
    home: Home, redis: Redis, stream: Stream
) -> None:
    sent: list[str] = []
    for point in POINTS:
        sent += send(redis, *range(len(sent), len(sent) + 10))
        command = [sys.executable, "-c", KILLED, point, str(home.root), stream.url]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == -9, (point, done.stderr[-2000:])
    found = table(home, take(home, stream))
    assert sorted(found["number"].cast(int).to_list()) == list(range(60))
    assert sorted(found[MESSAGE_ID].to_list()) == sorted(sent) and waiting(redis) == 0
    assert redis.exists("orders:dead") == 0


def test_a_group_that_was_made_anew_delivers_all_again_and_adds_nothing(
    home: Home, redis: Redis, stream: Stream
) -> None:
    send(redis, *range(6))
    parts = take(home, stream)
    redis.xgroup_destroy("orders", "ferroflow")
    assert take(home, stream) == parts and waiting(redis) == 0


def test_a_message_tried_too_often_is_buried_alone_with_its_reason(
    home: Home, redis: Redis, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = send(redis, *range(8))
    poison = ids[5]
    real = journal.write_raw

    def fails(frames: Any, target: Path) -> Any:
        held = list(frames)
        if any(poison in frame[MESSAGE_ID].to_list() for frame in held):
            raise OSError("no space for this one")
        return real(held, target)

    monkeypatch.setattr(journal, "write_raw", fails)
    for _ in range(20):
        try:
            parts = take(home, stream)
            break
        except OSError:
            continue
    found = table(home, parts)
    assert sorted(found["number"].to_list()) == ["0", "1", "2", "3", "4", "6", "7"] and waiting(redis) == 0
    ((_, dead),) = redis.xrange("orders:dead")
    assert dead[b"number"] == b"5" and dead[b"ferroflow:id"].decode() == poison
    assert dead[b"ferroflow:deliveries"] == b"5" and b"no batch" in dead[b"ferroflow:reason"]


def test_fewer_messages_are_taken_together_after_each_failure_down_to_one() -> None:
    assert [fewer(10_000, failures, 5) for failures in range(6)] == [10_000, 1_000, 100, 10, 1, 1]
    assert fewer(10_000, 1, 1) == 10_000  # buried at once, alone or not


def test_what_a_dead_consumer_left_is_taken_over_and_a_living_ones_is_left_alone(
    home: Home, redis: Redis, stream: Stream
) -> None:
    redis.xgroup_create("orders", "ferroflow", "0", mkstream=True)
    ids = send(redis, 1, 2)
    redis.xreadgroup("ferroflow", "another", {"orders": ">"}, count=1)
    assert table(home, take(home, stream))["number"].to_list() == ["2"] and waiting(redis) == 1
    redis.xclaim("orders", "ferroflow", "another", 0, ids[:1], idle=3_600_000, justid=True)  # an hour ago
    assert table(home, take(home, stream))["number"].to_list() == ["2", "1"] and waiting(redis) == 0


def test_messages_trimmed_before_they_were_taken_are_told(
    home: Home, redis: Redis, stream: Stream, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(redis, 1, 2)
    monkeypatch.setattr(journal.Journal, "append", None)
    with pytest.raises(TypeError):
        take(home, stream)
    monkeypatch.undo()
    redis.xtrim("orders", maxlen=0, approximate=False)
    send(redis, 3)
    assert table(home, take(home, stream))["number"].to_list() == ["3"] and waiting(redis) == 0
    assert "2 messages were removed from the stream before they were taken" in caplog.text


def test_a_server_that_goes_away_is_unavailable_and_nothing_is_lost(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = free_port()
    stream = Stream(url=f"redis://127.0.0.1:{number}/0", name="orders", batch=4)
    server = ExitStack()
    real = journal.Journal.vouch

    def cut(self: journal.Journal, part: Part, *, after: int) -> None:
        real(self, part, after=after)
        if after == 1:
            server.close()

    monkeypatch.setattr(journal.Journal, "vouch", cut)
    server.enter_context(redis_server(number, tmp_path))
    with Redis(port=number) as client:
        ids = send(client, *range(10))
    with pytest.raises(SourceUnavailable, match="Check that the Redis server runs"):
        take(home, stream)
    with pytest.raises(SourceUnavailable):
        take(home, stream)
    with redis_server(number, tmp_path), Redis(port=number) as client:
        assert waiting(client) == 4  # recorded, and not acknowledged any more
        assert table(home, take(home, stream))[MESSAGE_ID].to_list() == ids and waiting(client) == 0


def test_a_refusal_says_what_is_wrong_without_the_password(home: Home, redis: Redis, stream: Stream) -> None:
    redis.set("text", "1")
    with pytest.raises(SpecError, match="'text' is no stream"):
        take(home, replace(stream, name="text"))
    redis.config_set("requirepass", "tr0ub4dor&3")
    wrong = stream.url.replace("redis://", "redis://:wr0ng%26@")
    for url in (wrong, wrong.replace("/0", "0/zero"), stream.url):
        with pytest.raises((SettingsError, SourceUnavailable)) as refused:
            take(home, replace(stream, url=url))
        assert "wr0ng" not in str(refused.value)
    redis.config_set("requirepass", "")
    with pytest.raises(SettingsError, match="SHOP_STREAM is not set"):
        take(home, replace(stream, url="env:SHOP_STREAM"))


def test_a_run_takes_a_hundred_batches_at_most(home: Home, redis: Redis, stream: Stream) -> None:
    send(redis, *range(105))
    one = replace(stream, batch=1)
    assert len(take(home, one)) == 100
    assert len(take(home, one)) == 105


def test_payload_keys_are_columns_from_server_to_part(home: Home, redis: Redis, stream: Stream) -> None:
    redis.xadd("orders", {"body": json.dumps({"id": 1, "city": "Oslo"})})
    redis.xadd("orders", {"body": json.dumps({"id": 2, "price": 1.5})})
    (part,) = take(home, replace(stream, payload="body"))
    assert part.columns == dict.fromkeys(("id", "city", "price", MESSAGE_ID), "String")
    assert table(home, [part]).select("id", "city", "price").rows() == [("1", "Oslo", None), ("2", None, "1.5")]
