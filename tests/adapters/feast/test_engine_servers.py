from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest
import redis as client
from feast import FeatureStore, ValueType
from feast.types import Float64
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from ferroflow.adapters.feast import bulk_postgres, bulk_redis, bulk_rows
from ferroflow.core.errors import DataError
from tests.engines import postgres_server, redis_server
from tests.materialized import END, START, TYPES, answers, at, disconnect, feast_over, postgres, redis, view_of, wide

STOP, LINE = {"stop": ValueType.INT64}, {"line": ValueType.STRING}
KEYS = {"number": STOP, "text": LINE, "several": STOP | LINE, "none": {}}


@pytest.fixture(scope="module")
def redis_port() -> Iterator[int]:
    with redis_server() as port:
        yield port


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    with postgres_server() as url:
        yield url
        disconnect(url)


@pytest.fixture(params=["redis", "postgres"])
def online(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Configurations of an empty online store: the first call's, and that of another one for the second."""
    if request.param == "redis":
        port = request.getfixturevalue("redis_port")
        client.Redis(port=port).flushall()
        return lambda number: redis(port, number)
    url = request.getfixturevalue("postgres_url")
    with psycopg.connect(url, autocommit=True) as connection:
        for number in range(2):
            connection.execute(f"DROP SCHEMA IF EXISTS s{number} CASCADE")
    return lambda number: postgres(url, f"s{number}")


def content(configuration: dict[str, Any], view: str) -> Any:
    """All that a store holds of a view: of Redis each hash, without the field that Feast does not have."""
    if configuration["type"] == "redis":
        database = int(configuration["connection_string"].rpartition("=")[2])
        server = client.Redis(port=int(configuration["connection_string"].split(":")[1].split(",")[0]), db=database)
        hashes = {key: server.hgetall(key) for key in server.scan_iter()}
        return {key: {name: value for name, value in found.items() if not name.startswith(b"_created:")}
                for key, found in hashes.items()}  # fmt: skip
    told = {name: configuration[name] for name in ("host", "port", "user", "password")}
    with psycopg.connect(**told, dbname=configuration["database"]) as connection:
        query = f'SELECT * FROM {configuration["db_schema"]}."p_{view}" ORDER BY entity_key, feature_name'
        return connection.execute(query).fetchall()


@pytest.mark.parametrize("keys", list(KEYS.values()), ids=list(KEYS))
def test_the_stored_bytes_are_those_of_feasts_own_engine_and_a_stock_store_reads_them(
    tmp_path: Path, online: Any, keys: dict[str, ValueType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_rows.LatestRows.slices, "__defaults__", (5,))
    monkeypatch.setattr(bulk_redis, "ENTITIES", 2)
    wide().write_parquet(tmp_path / "t.parquet")
    objects = view_of(tmp_path / "t.parquet", keys, TYPES)
    ours = feast_over(tmp_path / "ours", online(0), objects)
    stock = feast_over(tmp_path / "stock", online(1), objects, engine="local")
    for feast in (ours, stock):
        feast.materialize(START, END)
    assert content(online(0), "typed") == content(online(1), "typed")
    entities = 7 if keys else 1
    assert len(content(online(0), "typed")) == entities * (1 if online(0)["type"] == "redis" else len(TYPES))
    if keys:
        reader = feast_over(tmp_path / "reader", online(0), objects, engine="local")
        asked = [{key: row[key] for key in keys} for row in wide().head(7).iter_rows(named=True)]
        assert answers(reader, "typed", list(TYPES), asked) == answers(stock, "typed", list(TYPES), asked)


def rewrite(folder: Path, rows: list[Any]) -> None:
    pl.DataFrame(rows, schema=["stop", "event", "made", "value"], orient="row").write_parquet(folder / "t.parquet")


def small(
    folder: Path, online: dict[str, Any], rows: list[Any], engine: str | None = None, **more: Any
) -> FeatureStore:
    rewrite(folder, rows)
    objects = view_of(folder / "t.parquet", STOP, {"value": Float64}, "small", **more)
    return feast_over(folder, online, objects, **({"engine": engine} if engine else {}))


def value(feast: FeatureStore, stop: int = 1, name: str = "value") -> Any:
    return answers(feast, "small", [name], [{"stop": stop}])[name][0]


def test_an_older_range_never_replaces_a_newer_value_and_a_correction_does(tmp_path: Path, online: Any) -> None:
    feast = small(tmp_path, online(0), [(1, at(1), at(1), 1.0), (1, at(5), at(5), 5.0)])
    feast.materialize(START, END)
    feast.materialize(START, at(2))
    assert value(feast) == 5.0
    rewrite(tmp_path, [(1, at(5), at(4), 4.0)])
    feast.materialize(START, END)
    assert value(feast) == 5.0
    rewrite(tmp_path, [(1, at(5), at(6), 5.5), (1, at(1), at(9), 1.5)])
    feast.materialize(START, END)
    assert value(feast) == 5.5
    feast.materialize(START, END)
    assert value(feast) == 5.5


def test_what_a_stock_engine_wrote_is_replaced_by_what_is_not_older_only(tmp_path: Path, online: Any) -> None:
    stock = small(tmp_path, online(0), [(1, at(5), at(5), 5.0)], engine="local")
    stock.materialize(START, END)
    ours = feast_over(tmp_path / "ours", online(0), view_of(tmp_path / "t.parquet", STOP, {"value": Float64}, "small"))
    rewrite(tmp_path, [(1, at(4), at(9), 4.0)])
    ours.materialize(START, END)
    assert value(stock) == 5.0
    rewrite(tmp_path, [(1, at(5), at(6), 5.5)])
    ours.materialize(START, END)
    assert value(stock) == 5.5
    rewrite(tmp_path, [(1, at(7), at(8), 7.0)])
    stock.materialize(START, END)
    ours.materialize(START, END)
    assert value(ours) == 7.0


def test_views_without_created_times_take_the_last_writing_of_an_event_time(tmp_path: Path, online: Any) -> None:
    feast = small(tmp_path, online(0), [(1, at(5), at(5), 5.0)], created="")
    for expected in (5.0, 4.0):
        rewrite(tmp_path, [(1, at(5), at(5), expected), (1, at(1), at(9), 1.0)])
        feast.materialize(START, END)
        assert value(feast) == expected


def test_two_views_of_one_entity_keep_their_own_times(tmp_path: Path, online: Any) -> None:
    feast = small(tmp_path, online(0), [(1, at(5), at(5), 5.0)])
    pl.DataFrame({"stop": [1], "event": [at(1)], "made": [at(1)], "other": [1.0]}).write_parquet(tmp_path / "o.parquet")
    feast.apply(view_of(tmp_path / "o.parquet", STOP, {"other": Float64}, "second"))
    feast.materialize(START, END)
    assert answers(feast, "second", ["other"], [{"stop": 1}])["other"] == [1.0]
    assert value(feast) == 5.0


def test_a_new_feature_reaches_entities_whose_other_features_are_up_to_date(tmp_path: Path, online: Any) -> None:
    feast = small(tmp_path, online(0), [(1, at(5), at(5), 5.0)])
    feast.materialize(START, END)
    table = pl.read_parquet(tmp_path / "t.parquet").with_columns(added=pl.lit(0.5))
    table.write_parquet(tmp_path / "t.parquet")
    feast.apply(view_of(tmp_path / "t.parquet", STOP, {"value": Float64, "added": Float64}, "small"))
    feast.materialize(START, END)
    assert value(feast, name="added") == 0.5


@pytest.mark.parametrize("online", ["postgres"], indirect=True)
def test_a_store_that_is_away_fails_the_job_with_its_view_and_without_its_password(tmp_path: Path, online: Any) -> None:
    feast = small(tmp_path, online(0), [(1, at(5), at(5), 5.0)])
    broken = feast_over(tmp_path, online(0) | {"port": 1, "password": "s3cret"})
    with pytest.raises(DataError, match=r"View 'small' was not materialized into Postgre.*Store: .*refused") as caught:
        broken.materialize(START, END)
    assert "s3cret" not in str(caught.value)
    feast.materialize(START, END)  # the registry takes the next run
    assert value(feast) == 5.0


def test_redis_keys_expire_where_the_store_says_so_and_a_password_is_used(tmp_path: Path, redis_port: int) -> None:
    client.Redis(port=redis_port).config_set("requirepass", "s3cret")
    try:
        address = f"127.0.0.1:{redis_port},db=3,password="
        feast = small(tmp_path, told := redis_as(f"{address}s3cret"), [(1, at(1), at(1), 1.0)])
        feast.materialize(START, END)
        known = client.Redis(port=redis_port, db=3, password="s3cret")
        (key,) = known.scan_iter()
        assert 0 < known.ttl(key) <= told["key_ttl_seconds"]
        assert value(feast) == 1.0
    finally:
        client.Redis(port=redis_port, password="s3cret").config_set("requirepass", "")


def redis_as(connection: str) -> dict[str, Any]:
    return {"type": "redis", "connection_string": connection, "key_ttl_seconds": 900}


def test_an_entity_that_redis_refuses_fails_the_job_and_the_next_run_goes_on(tmp_path: Path, redis_port: int) -> None:
    server = client.Redis(port=redis_port, db=6)
    feast = small(tmp_path, redis(redis_port, 6), [(stop, at(1), at(1), 1.0) for stop in range(3)])
    feast.materialize(START, END)
    key = next(server.scan_iter())
    server.delete(key)
    server.set(key, "no hash")
    with pytest.raises(DataError, match=r"View 'small' was not materialized into RedisOnlineStore: .*WRONGTYPE"):
        feast.materialize(START, END)
    server.delete(key)
    feast.materialize(START, END)
    assert [value(feast, stop) for stop in range(3)] == [1.0, 1.0, 1.0]


def test_redis_takes_entities_of_thousands_of_features(redis_port: int) -> None:
    server = client.Redis(port=redis_port, db=4)
    names, values = [f"f{number}" for number in range(2100)], [str(number) for number in range(2100)]
    words = [*names, "t", "c", *values, stamp(at(1)), b"5"]
    assert server.eval(bulk_redis._SCRIPT, 1, "k", 0, 0, len(names), *words) == 1
    assert len(server.hgetall("k")) == 2102
    assert server.hmget("k", "f0", "f2099", "c") == [b"0", b"2099", b"5 " + stamp(at(1))]


def test_a_created_time_that_belongs_to_another_event_time_holds_no_correction_back(
    tmp_path: Path, online: Any
) -> None:
    stock = small(tmp_path, online(0), [(1, at(12), at(22), 1.0)], engine="local")
    ours = feast_over(tmp_path / "ours", online(0), view_of(tmp_path / "t.parquet", STOP, {"value": Float64}, "small"))
    ours.materialize(START, END)
    rewrite(tmp_path, [(1, at(14), at(14), 2.0)])
    stock.materialize(START, END)  # Feast's own writer: of Redis it moves the event time alone
    assert value(stock) == 2.0
    rewrite(tmp_path, [(1, at(14), at(15), 3.0)])
    ours.materialize(START, END)
    assert value(ours) == 3.0
    rewrite(tmp_path, [(1, at(14), at(13), 4.0)])
    ours.materialize(START, END)
    assert value(ours) == 3.0


@pytest.mark.parametrize("online", ["postgres"], indirect=True)
def test_slices_are_one_transaction_and_their_order_is_that_of_the_keys(
    tmp_path: Path, online: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_rows.LatestRows.slices, "__defaults__", (3,))
    given = [(stop, at(1), at(1), float(stop)) for stop in range(10)]
    feast = small(tmp_path, online(0), given)
    feast.materialize(START, END)
    keys = [row[0] for row in content(online(0), "small")]
    assert len(keys) == 10
    rewrite(tmp_path, [(stop, at(2), at(2), -1.0) for stop in range(10)])
    failing, calls = bulk_postgres._records, iter(range(4))

    def records(rows: Any) -> Any:
        if next(calls) == 3:
            raise ValueError("the last slice")
        return failing(rows)

    monkeypatch.setattr(bulk_postgres, "_records", records)
    with pytest.raises(DataError, match="the last slice"):
        feast.materialize(START, END)
    monkeypatch.setattr(bulk_postgres, "_records", failing)
    assert [value(feast, stop) for stop in range(10)] == [float(stop) for stop in range(10)]
    feast.materialize(START, END)
    assert {value(feast, stop) for stop in range(10)} == {-1.0}


@pytest.mark.parametrize("online", ["postgres"], indirect=True)
def test_an_empty_table_that_another_writer_is_at_gets_the_rows_of_both(
    tmp_path: Path, online: Any, postgres_url: str
) -> None:
    feast = small(tmp_path, online(0), [(stop, at(1), at(1), float(stop)) for stop in range(3)])
    insert = "INSERT INTO s0.p_small (entity_key, feature_name, event_ts) VALUES (%s, 'value', now())"
    with psycopg.connect(postgres_url) as other:
        other.execute(insert, [b"other"])
        feast.materialize(START, END)
    assert len(content(online(0), "small")) == 4
    assert [value(feast, stop) for stop in range(3)] == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("online", ["postgres"], indirect=True)
def test_while_an_empty_table_is_filled_readers_read_and_writers_wait(
    tmp_path: Path, online: Any, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    feast = small(tmp_path, online(0), [(stop, at(1), at(1), float(stop)) for stop in range(3)])
    insert, seen = "INSERT INTO s0.p_small (entity_key, feature_name, event_ts) VALUES ('\\x01', 'value', now())", []
    records = bulk_postgres._records

    def disturbed(rows: Any) -> Any:
        with psycopg.connect(postgres_url, autocommit=True) as other:
            seen.append(other.execute("SELECT count(*) FROM s0.p_small").fetchone())
            other.execute("SET lock_timeout = '20ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                other.execute(insert)
        return records(rows)

    monkeypatch.setattr(bulk_postgres, "_records", disturbed)
    feast.materialize(START, END)
    assert (seen, len(content(online(0), "small"))) == ([(0,)], 3)
    monkeypatch.setattr(bulk_postgres, "_records", records)
    rewrite(tmp_path, [(1, at(0), at(9), 9.0), (2, at(1), at(2), 7.0)])
    feast.materialize(START, END)
    assert [value(feast, stop) for stop in range(3)] == [0.0, 1.0, 7.0]


MOMENTS = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
NEAR = st.tuples(MOMENTS, st.sampled_from([0, 1, -1, 999_999, 86_400_000_000]))


@settings(max_examples=40, deadline=None, database=None)
@given(NEAR, st.sampled_from([b"", b"5", b"17"]), st.sampled_from([b"", b"5", b"17"]))
def test_redis_orders_any_two_times_as_they_are(
    redis_port: int, moments: tuple[datetime, int], created: bytes, known: bytes
) -> None:
    server = client.Redis(port=redis_port, db=5)
    stored, shift = moments
    given_at = stored + timedelta(microseconds=shift)
    server.flushdb()
    server.hset("k", mapping={"t": stamp(stored), "v": b"old"} | ({"c": known + b" " + stamp(stored)} if known else {}))
    written = server.eval(bulk_redis._SCRIPT, 1, "k", 0, 0, 1, "v", "t", "c", b"new", stamp(given_at), created)
    newer = (given_at, int(created or -1)) >= (stored, int(known or -1))
    assert (written, server.hget("k", "v")) == ((1, b"new") if newer else (0, b"old"))


def stamp(moment: datetime) -> bytes:
    found = Timestamp()
    found.FromDatetime(moment)
    return found.SerializeToString()


def test_a_pooled_connection_comes_back_after_a_failure(tmp_path: Path, postgres_url: str) -> None:
    told = postgres(postgres_url, "pooled", conn_type="pool", min_conn=1, max_conn=1)
    feast = small(tmp_path, told, [(1, at(1), at(1), 1.0)])
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE pooled.p_small RENAME TO hidden")
        with pytest.raises(DataError, match='"p_small" does not exist'):
            feast.materialize(START, END)
        connection.execute("ALTER TABLE pooled.hidden RENAME TO p_small")
    feast.materialize(START, END)
    assert value(feast) == 1.0
    feast._get_provider().online_store._conn_pool.close()


def test_a_table_with_numbers_to_search_by_is_left_to_feasts_own_method(tmp_path: Path, postgres_url: str) -> None:
    told = postgres(postgres_url, "searched", enable_openai_compatible_store=True)
    feast = small(tmp_path, told, [(1, at(1), at(1), 1.5)])
    feast.materialize(START, END)
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT value_num FROM searched.p_small").fetchall() == [(1.5,)]


def test_times_are_the_moments_meant_on_a_server_of_any_time_zone(tmp_path: Path, postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("ALTER ROLE shop SET timezone TO 'Asia/Tokyo'")
        feast = small(tmp_path, postgres(postgres_url, "tokyo"), [(1, at(1), at(2), 1.5)])
        feast.materialize(START, END)
        connection.execute("ALTER ROLE shop RESET timezone")
        assert connection.execute("SELECT event_ts, created_ts FROM tokyo.p_small").fetchall() == [(at(1), at(2))]
