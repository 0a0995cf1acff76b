"""The settings' addresses as Feast's configuration: nothing is lost on the way, and what cannot be said is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.repo_config import RepoConfig
from redis import ConnectionPool

from ferroflow.adapters.feast.backends import online_config, registry_config
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
        ("postgresql://host/db", "lacks a user"),
        ("postgresql://me@host", "lacks a user or a database"),
        ("postgresql://me@host/db?options=-c", "options cannot be said"),
    ],
)
def test_an_address_that_feast_cannot_take_is_refused(address: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        online_config(Home(ROOT, address))


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
