"""Rows in PostgreSQL when a connection is lost, a statement takes too long, or a table is not there."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from feast.protos.feast.types.Value_pb2 import Value

from ferroflow.adapters.feast.keys import entity_key
from ferroflow.adapters.feast.plan import KeyPlan, OnlineStoreAway, PackedPlan, PostgresPlan, ReadPlan, ViewPlan
from ferroflow.adapters.feast.postgres_rows import PostgresRows
from ferroflow.adapters.feast.rows import Watermark
from ferroflow.core.errors import DataError, SpecError
from tests.engines import PASSWORD, free_port, postgres_server

SCHEMA = 'odd "name"'
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
    features=(("spent", "double"),),
)
EXPECTED = {1: (10_000_005, [None, 2.5])}


def plan(address: str) -> ReadPlan:
    return ReadPlan(store=PostgresPlan(url=address, schema_name=SCHEMA), project="shop", views=(USERS, PAIRS))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres_server() as address:
        with psycopg.connect(address, autocommit=True) as owner:
            owner.execute('CREATE SCHEMA "odd ""name"""')
            owner.execute('SET search_path = "odd ""name"""')
            owner.execute(
                "CREATE TABLE shop_users_v2 (entity_key bytea, feature_name text, value bytea, event_ts timestamptz)"
            )
            given = [entity_key(["user_id"], ["int64"], [1]), "clicks", Value(double_val=2.5).SerializeToString()]
            owner.execute("INSERT INTO shop_users_v2 VALUES (%s, %s, %s, '1970-01-01 00:00:10.000005Z')", given)
            owner.execute("CREATE TABLE ferroflow_watermarks (project text, view text, event bigint, ingested bigint)")
            owner.execute("INSERT INTO ferroflow_watermarks VALUES ('shop', 'users_v2', 7, NULL)")
        yield address


def test_rows_and_watermarks_are_read_from_the_plans_schema(server: str) -> None:
    rows = PostgresRows(plan(server))
    assert rows.read("users", [1, 2], ["name", "clicks"]) == EXPECTED
    assert rows.read("users", [], ["name"]) == {}
    assert (rows.watermark("users"), rows.watermark("pairs")) == (Watermark(7, None), None)
    rows.close()
    assert rows.read("users", [1], ["name", "clicks"]) == EXPECTED
    rows.close()


def test_a_feature_of_an_older_row_than_the_entitys_newest_is_none(server: str) -> None:
    one, other = [b"\x01", b"\x02"]
    with psycopg.connect(server, autocommit=True) as owner:
        place = '"odd ""name""".shop_pairs_mixed'
        owner.execute(f"CREATE TABLE {place} (entity_key bytea, feature_name text, value bytea, event_ts timestamptz)")
        for key, name, number, second in [
            (one, "old", 1.0, 10), (one, "new", 2.0, 20), (one, "other", 3.0, 20), (other, "old", 4.0, 10)
        ]:  # fmt: skip
            stored = Value(double_val=number).SerializeToString()
            owner.execute(f"INSERT INTO {place} VALUES (%s, %s, %s, to_timestamp(%s))", [key, name, stored, second])
    view = PAIRS.model_copy(update={"table": "pairs_mixed", "features": (("old", "double"), ("new", "double"))})
    rows = PostgresRows(ReadPlan(store=PostgresPlan(url=server, schema_name=SCHEMA), project="shop", views=(view,)))
    assert rows.read("pairs", [one, other], ["old", "new"]) == {
        one: (20_000_000, [None, 2.0]), other: (10_000_000, [4.0, None])
    }  # fmt: skip
    # Neither does it become fresh, nor of its own time, where the newer features are not asked for.
    assert rows.read("pairs", [one], ["old"]) == {one: (20_000_000, [None])}
    assert rows.read("pairs", [one], ["unknown"]) == {one: (20_000_000, [None])}
    rows.close()


def test_a_text_key_that_cannot_be_written_is_refused(server: str) -> None:
    view = USERS.model_copy(update={"keys": (KeyPlan(name="user_id", field="user", kind="text"),)})
    rows = PostgresRows(ReadPlan(store=PostgresPlan(url=server), project="shop", views=(view,)))
    with pytest.raises(DataError, match=r"does not fit user_id \(text\)"):
        rows.read("users", ["a\ud800"], ["clicks"])


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://u:p#s3cret@h/db", "postgresql://h/db"),
        ("postgresql://u:p?s3cret@h/db?sslkey=s3cret", "postgresql://h/db"),
        ("postgresql://u:a@b/s3cret@h/db#s3cret", "postgresql://h/db"),
        ("redis://:s3c/ret@h:6379/0", "redis://h:6379/0"),
        ("redis://h:6379/0?password=a@s3cret", "redis://***"),
        ("host=h password=s3cret", "***"),
        ("redis://h:6379/0", "redis://h:6379/0"),
    ],
)
def test_a_shown_address_has_no_password_however_it_is_written(address: str, shown: str) -> None:
    assert PostgresPlan(url=address).shown == shown
    assert "s3c" not in repr(PostgresPlan(url=address))


def test_a_lost_connection_is_made_again(server: str) -> None:
    rows = PostgresRows(plan(server))
    assert rows.read("users", [1], ["name", "clicks"]) == EXPECTED
    with psycopg.connect(server) as owner:
        owner.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    assert rows.read("users", [1], ["name", "clicks"]) == EXPECTED
    rows.close()


def test_a_statement_that_takes_too_long_is_given_up(server: str) -> None:
    rows = PostgresRows(plan(server), read_seconds=0.2)
    with psycopg.connect(server) as owner:
        owner.execute('LOCK TABLE "odd ""name""".shop_users_v2 IN ACCESS EXCLUSIVE MODE')
        with pytest.raises(OnlineStoreAway, match="statement timeout"):
            rows.read("users", [1], ["clicks"])
    assert rows.read("users", [1], ["name", "clicks"]) == EXPECTED
    rows.close()


def test_a_connection_cannot_write(server: str) -> None:
    rows = PostgresRows(plan(server))
    with pytest.raises(OnlineStoreAway, match="read-only"):
        rows._ask(psycopg.sql.SQL("DELETE FROM shop_users_v2").format(), [])
    assert rows.read("users", [1], ["name", "clicks"]) == EXPECTED
    rows.close()


def test_a_view_that_was_never_applied_is_told_and_no_watermarks_are_none(server: str) -> None:
    rows = PostgresRows(plan(server))
    serialized = entity_key(["a", "b"], ["int64", "text"], [1, "x"])
    with pytest.raises(OnlineStoreAway, match="shop_pairs"):
        rows.read("pairs", [serialized], ["spent"])
    with pytest.raises(DataError, match="several"):
        rows.read("pairs", [1], ["spent"])
    rows.close()
    elsewhere = ReadPlan(store=PostgresPlan(url=server), project="shop", views=(USERS,))
    rows = PostgresRows(elsewhere)
    assert rows.watermark("users") is None
    rows.close()


def test_a_server_that_is_away_is_told_without_the_password_and_left_in_peace() -> None:
    now = [10.0]
    read = plan(f"postgresql://shop:s3cret@127.0.0.1:{free_port()}/shop?sslkey=s3cret")
    rows = PostgresRows(read, rest_seconds=5, clock=lambda: now[0])
    with pytest.raises(OnlineStoreAway, match="gives no rows") as told:
        rows.read("users", [1], ["clicks"])
    assert "s3cret" not in f"{told.value} {read!r}"
    with pytest.raises(OnlineStoreAway, match="asked again soon"):
        rows.watermark("users")
    now[0] += 5
    with pytest.raises(OnlineStoreAway, match="gives no rows"):
        rows.watermark("users")


def test_a_wrong_password_is_told_without_it(server: str) -> None:
    rows = PostgresRows(plan(server.replace("tr0ub4dor%263", "guess3d")))
    with pytest.raises(OnlineStoreAway, match="password authentication failed") as told:
        rows.read("users", [1], ["clicks"])
    assert "guess3d" not in str(told.value) and PASSWORD not in str(told.value)


ODD = ("pa%zzs3c", "se s3c", "p@s3c", "p:s3c'\\ \"", "12%3Ds3c")


@pytest.mark.parametrize("written", ODD)
def test_an_odd_password_is_taken_and_no_message_shows_a_part_of_it(server: str, written: str) -> None:
    place, name = server.rpartition("@")[2], f"reader{ODD.index(written)}"
    password = "12=s3c" if written == "12%3Ds3c" else written
    with psycopg.connect(server, autocommit=True) as owner:
        owner.execute(
            psycopg.sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(psycopg.sql.Identifier(name), password)
        )
    for login in (written, quote(password, safe="")):
        rows = PostgresRows(plan(f"postgresql://{name}:{login}@{place}?sslmode=disable&application_name=odd"))
        who = psycopg.sql.SQL("SELECT current_user, current_setting('application_name')").format()
        assert rows._ask(who, []) == [(name, "odd")]
        with pytest.raises(OnlineStoreAway) as told:
            rows._ask(psycopg.sql.SQL("SELECT {}::int").format(f"a {password}".replace("%", "%%")), [])
        assert "***" in str(told.value) and "s3c" not in str(told.value)
        rows.close()
    for wrong in (f"127.0.0.1:{free_port()}/shop", f"{place}?sslmode=require", f"{place}?sslmode=never"):
        rows = PostgresRows(plan(f"postgresql://{name}:{written}@{wrong}"))
        with pytest.raises(OnlineStoreAway, match=r"gives no rows: .*(refused|support SSL|sslmode)") as told:
            rows.watermark("users")
        assert "s3c" not in f"{told.value} {told.value.__cause__}"


@pytest.mark.parametrize(
    "address",
    ["postgresql://u:s3c#r@h/db", "postgresql://u:s3/c@h/db", "postgresql://u:s3c@[h/db", "host=h password=s3c"],
)
def test_an_address_that_cannot_be_read_is_refused_unquoted(address: str) -> None:
    with pytest.raises(SpecError, match="The PostgreSQL address") as told:
        PostgresRows(plan(address))
    assert "s3" not in str(told.value)


def test_views_whose_tables_postgresql_would_call_alike_are_refused() -> None:
    one, other = (USERS.model_copy(update={"table": "t" * 60 + end, "view": end, "prefix": end}) for end in "ab")
    store = PostgresPlan(url="postgresql://me@h/db")
    with pytest.raises(SpecError, match=r"'a' .* 66 bytes, of which PostgreSQL keeps 63"):
        PostgresRows(ReadPlan(store=store, project="shop", views=(one, other)))


def connections(server: str, most: int = 1_000) -> int:
    """How many others there are, as soon as there are no more than ``most``, or after ten seconds."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'shop' AND pid <> pg_backend_pid()"
    with psycopg.connect(server, autocommit=True) as owner:  # one: those that just ended are counted for a while
        until = time.monotonic() + 10
        while (count := int(owner.execute(query).fetchall()[0][0])) > most and time.monotonic() < until:
            time.sleep(0.05)
        return count


def test_a_thread_that_ends_gives_its_connection_back(server: str) -> None:
    rows, found, before = PostgresRows(plan(server)), [], connections(server)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(30):
            thread = threading.Thread(target=lambda: found.append(rows.read("users", [1], ["name", "clicks"])))
            thread.start()
            thread.join()
        assert found == [EXPECTED] * 30 and len(rows._open) == 0
        assert rows.read("users", [1], ["name", "clicks"]) == EXPECTED
    assert not [entry for entry in told if issubclass(entry.category, ResourceWarning) and "psycopg" in str(entry)]
    assert connections(server, before + 1) <= before + 1
    rows.close()
    assert len(rows._open) == 0


def test_close_ends_the_connections_of_threads_that_live(server: str) -> None:
    rows, before, ready, end = PostgresRows(plan(server)), connections(server), threading.Barrier(4), threading.Event()

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
    assert connections(server, before) <= before
    end.set()
    for thread in threads:
        thread.join()


def test_close_while_others_read_is_no_other_error_than_that_it_is_away(server: str) -> None:
    rows, end = PostgresRows(plan(server), rest_seconds=0), threading.Event()

    def work() -> set[str]:
        found = set()
        while not end.is_set():
            with suppress(OnlineStoreAway):
                found.add(repr(rows.read("users", [1], ["name", "clicks"])))
        return found

    with ThreadPoolExecutor(2) as pool:
        reading = [pool.submit(work) for _ in range(2)]
        for _ in range(40):
            time.sleep(0.05)
            rows.close()
        end.set()
        assert [read.result() for read in reading] == [{repr(EXPECTED)}] * 2


def test_a_fork_makes_its_own_connection_and_leaves_its_parents_alone(server: str) -> None:
    rows = PostgresRows(plan(server))
    backend: Any = psycopg.sql.SQL("SELECT pg_backend_pid()").format()
    before = rows._ask(backend, [])
    child = os.fork()
    if child == 0:
        mine = rows._ask(backend, [])
        rows.close()
        os._exit(0 if mine != before and rows.read("users", [1], ["name", "clicks"]) == EXPECTED else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert rows._ask(backend, []) == before
    rows.close()


def test_a_plan_of_another_store_is_refused() -> None:
    with pytest.raises(SpecError, match="'packed'"):
        PostgresRows(ReadPlan(store=PackedPlan(path="x"), project="shop", views=()))
