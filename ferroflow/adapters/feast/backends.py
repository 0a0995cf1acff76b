"""Where Feast keeps its registry and its online rows: the settings' addresses as Feast's own configuration."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from ferroflow.adapters.feast.plan import PostgresAddress
from ferroflow.adapters.home import Home
from ferroflow.core.errors import SettingsError, SpecError

_REDIS_PORT = 6379
_FLAG = "ssl_check_hostname"
_REDIS_OPTIONS = ("ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", _FLAG, "ssl_keyfile")
_NO = ("0", "F", "FALSE", "N", "NO")  # as redis-py reads an address


def online_config(home: Home) -> dict[str, Any]:
    """Feast's ``online_store``: packed SQLite files in the home, or Feast's own Redis or PostgreSQL store.

    Raises:
        SettingsError: the address lacks a part, or has one that Feast's configuration cannot say.
    """
    if home.online_store is None:
        store = "ferroflow.adapters.feast.online.PackedSqliteOnlineStore"
        return {"type": store, "path": str(home.online("any").parent)}
    address = urlsplit(home.online_store)
    return _postgres(home.online_store) if address.scheme == "postgresql" else _redis(address)


def registry_config(home: Home) -> dict[str, Any]:
    """Feast's ``registry``: always its SQL one, for the file registry loses views when two processes apply at once."""
    if home.registry_address is None:
        return {"registry_type": "sql", "path": f"sqlite:///{home.feature_registry}"}
    return {"registry_type": "sql", "path": home.registry_address.replace("postgresql://", "postgresql+psycopg://", 1)}


def _redis(address: SplitResult) -> dict[str, Any]:
    """``redis[s]://[user][:password]@host[:port][/database][?ssl_...]`` as Feast's connection string."""
    if ":" in (address.hostname or ""):
        raise SettingsError(
            f"Setting online_store: the IPv6 address {address.hostname} cannot be said in Feast's connection string. "
            "Use a host name."
        )
    options: dict[str, object] = {"db": _database(address)}
    if address.scheme == "rediss":
        options["ssl"] = True
    options |= _redis_options(address)
    if address.username:
        options["username"] = unquote(address.username)
    if address.password:
        options["password"] = unquote(address.password)
    if odd := [name for name, value in options.items() if isinstance(value, str) and "," in value]:
        raise SettingsError(
            f"Setting online_store: the {odd[0]} holds a comma, which Feast's connection string "
            "cannot carry. Choose another one."
        )
    # Feast reads each value as JSON: a password of digits would become a number without its quotes.
    told = [f"{name}={json.dumps(value)}" for name, value in options.items()]
    connection = ",".join([f"{address.hostname or 'localhost'}:{address.port or _REDIS_PORT}", *told])
    return {"type": "redis", "connection_string": connection}


def _redis_options(address: SplitResult) -> dict[str, object]:
    """What the address asks for, as the client reads it: Feast hands it to the same client."""
    given = parse_qsl(address.query, keep_blank_values=True)
    names = [name for name, _ in given]
    known = _REDIS_OPTIONS if address.scheme == "rediss" else ()
    if odd := sorted({name for name, value in given if name not in known or not value or names.count(name) > 1}):
        raise SettingsError(
            f"Setting online_store: {', '.join(odd)} cannot be said in a Redis address here. Of a rediss:// one these "
            f"can, each once: {', '.join(_REDIS_OPTIONS)}."
        )
    return {name: value.upper() not in _NO if name == _FLAG else value for name, value in given}


def _database(address: SplitResult) -> int:
    name = address.path.strip("/") or "0"
    if not name.isdecimal():
        raise SettingsError(f"Setting online_store: {name!r} is no number of a Redis database, such as redis://host/0.")
    return int(name)


def _postgres(address: str) -> dict[str, Any]:
    """``postgresql://user[:password]@host[:port]/database[?sslmode=...]``."""
    try:
        found = PostgresAddress.of(address)
    except SpecError as error:
        raise SettingsError(f"Setting online_store: {error}") from None
    given = found.options
    if odd := sorted(set(given) - {"sslmode", "sslkey", "sslcert", "sslrootcert"}):
        raise SettingsError(f"Setting online_store: {', '.join(odd)} cannot be said in a PostgreSQL address here.")
    config: dict[str, Any] = {
        "type": "postgres",
        "host": found.host,
        "port": found.port,
        "database": found.database,
        "user": found.user,
        "password": found.password,
        "sslmode": given.get("sslmode", "prefer"),
    }
    return config | {f"{name}_path": given[name] for name in ("sslkey", "sslcert", "sslrootcert") if name in given}
