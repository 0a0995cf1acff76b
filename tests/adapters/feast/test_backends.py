"""The settings' addresses as Feast's configuration: nothing is lost on the way, and what cannot be said is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.repo_config import RepoConfig
from redis import ConnectionPool

from ferroflow.adapters.feast.backends import online_config, registry_config
from ferroflow.adapters.feast.plan import PostgresPlan
from ferroflow.adapters.home import Home
from ferroflow.core.errors import SettingsError

ROOT = Path("/somewhere")


def redis(address: str) -> tuple[list[dict[str, str]], dict[str, object]]:
    connection = online_config(Home(ROOT, address))["connection_string"]
    parsed: tuple[list[dict[str, str]], dict[str, object]] = RedisOnlineStore._parse_connection_string(connection)
    return parsed


def test_feast_reads_host_database_user_and_password_out_of_the_redis_address() -> None:
    assert redis("redis://cache") == ([{"host": "cache", "port": "6379"}], {"db": 0})
    nodes, options = redis("rediss://me:12%3D3@cache:7000/4")
    assert nodes == [{"host": "cache", "port": "7000"}]
    assert options == {"db": 4, "ssl": True, "username": "me", "password": "12=3"}
    assert redis("redis://:0123@cache")[1] == {"db": 0, "password": "0123"}


def test_feast_gives_redis_what_the_reader_takes_from_the_address() -> None:
    address = "rediss://cache/1?ssl_cert_reqs=optional&ssl_ca_certs=/a%20b/ca.pem&ssl_check_hostname=no"
    options = redis(address)[1] | {"ssl": None}
    read = ConnectionPool.from_url(address).connection_kwargs
    assert {name: read.get(name) for name in options} == options
    assert (options["ssl_check_hostname"], options["ssl_ca_certs"]) == (False, "/a b/ca.pem")


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("redis://cache/0?password=s3cret", "^Setting online_store: password cannot be said in a Redis address"),
        ("redis://cache/0?ssl_cert_reqs=none", "ssl_cert_reqs cannot be said .* Of a rediss:// one"),
        ("rediss://cache/0?socket_timeout=3&db=2", "db, socket_timeout cannot"),
        ("rediss://cache/0?ssl_keyfile=a&ssl_keyfile=b", "ssl_keyfile cannot"),
        ("rediss://cache/0?ssl_keyfile=", "ssl_keyfile cannot"),
        ("rediss://cache/0?ssl_keyfile=a,b", "ssl_keyfile holds a comma"),
        ("redis://:a%2Cb@cache", "password holds a comma"),
        ("redis://cache/first", "'first' is no number"),
        ("redis://[::1]:6379/0", "online_store: the IPv6 address ::1 cannot be said .* Use a host name"),
        ("rediss://me:s3cret@[fe80::1]", "IPv6 address fe80::1 cannot"),
        ("postgresql://host/db", "lacks a user"),
        ("postgresql://me@host", "lacks a user or a database"),
        ("postgresql://me:p#s3cret@host/db", "^Setting online_store: The PostgreSQL address cannot be read"),
        ("postgresql://me@host/db?options=-c", "options cannot be said"),
    ],
)
def test_an_address_that_feast_cannot_take_is_refused(address: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why) as told:
        online_config(Home(ROOT, address))
    assert "s3cret" not in str(told.value)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:pa%zzss@db/rows",
        "postgresql://me:se cret@db:5433/rows",
        "postgresql://me:p@s3cret@127.0.0.1/rows",
        "postgresql://m%40e@[::1]:7/a%20b",
        "postgresql://me:x@/rows?sslmode=verify-full&sslrootcert=/a%20b.pem&sslkey=/k&sslcert=/c",
    ],
)
def test_the_reader_takes_from_a_postgresql_address_what_feast_is_given(address: str) -> None:
    config = online_config(Home(ROOT, address))
    plan = PostgresPlan(url=address)
    given = {"sslmode": "prefer"} | plan.address.keywords
    names = {"database": "dbname"} | {f"{name}_path": name for name in ("sslkey", "sslcert", "sslrootcert")}
    assert given == {names.get(name, name): value for name, value in config.items() if name != "type"}
    assert not given["password"] or given["password"] not in f"{plan!r} {plan.address!r}"


def test_feast_takes_the_postgresql_address() -> None:
    home = Home(ROOT, "postgresql://me:p%40ss@db:5433/rows?sslmode=require", "postgresql://me@db/feast")
    config = RepoConfig(
        project="p",
        provider="local",
        registry=registry_config(home),
        online_store=online_config(home),
        entity_key_serialization_version=3,
    )
    store = config.online_store
    assert (store.host, store.port, store.database, store.user, store.password, store.sslmode) == (
        *("db", 5433, "rows", "me", "p@ss"),
        "require",
    )
    assert config.registry.path == "postgresql+psycopg://me@db/feast"
