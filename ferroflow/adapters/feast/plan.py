"""What is read for a feature service, as plain data: resolved once with Feast, then read from without it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol, TypeAlias
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ferroflow.adapters.feast.rows import Kind, Watermark
from ferroflow.core.errors import NotFound, ServiceError, SpecError

KeyKind = Literal["int64", "int32", "text", "bytes", "time"]
"""What a join key is; ``time`` is whole seconds since 1970."""

Key: TypeAlias = int | str | bytes
"""An entity's key: a number or text where it is the only one, else Feast's serialized entity key (version 3)."""

Entry: TypeAlias = tuple[int, list[Any]]
"""An entity's event time (microseconds since 1970, UTC) and its values in the order they were asked for."""

NO_ENTITY = "__dummy_id"
"""The join key of a view without entities, as Feast calls it; its one value is the empty text."""

_POSTGRES_PORT = 5432
_POSTGRES_NAME = 63  # bytes of a name in PostgreSQL: what is longer is cut, without an error
_OPTION, _END = re.compile(r"[?&][^@]*="), re.compile(r"[?#]")


class OnlineStoreAway(ServiceError):
    """The online store does not answer, or not in time, or with what is no row."""


class Rows(Protocol):
    """What online rows are read from; every back-end may be used from several threads."""

    def read(self, view: str, keys: Sequence[Key], features: Sequence[str]) -> Mapping[Key, Entry]:
        """The newest row of each entity that is there, whatever its age.

        Raises:
            OnlineStoreAway: the store cannot be read.
        """
        ...

    def watermark(self, view: str) -> Watermark | None:
        """How far the view is complete; None when nobody said. Raises ``OnlineStoreAway`` as ``read`` does."""
        ...

    def close(self) -> None:
        """Give the connections back."""
        ...


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class PackedPlan(_Plain):
    """Packed rows in a SQLite file."""

    type: Literal["packed"] = "packed"
    path: str


class _Server(_Plain):
    url: str = Field(repr=False)

    @property
    def shown(self) -> str:
        """The address without its user, password and options: for messages."""
        scheme, sign, rest = self.url.partition("://")
        # By the last "@" of the text: a password that was not quoted may hold what ends a host.
        login, _, place = rest.rpartition("@")
        if not sign or _OPTION.search(login):  # the "@" may be an option's
            return f"{scheme}://***" if sign else "***"
        return f"{scheme}://{_END.split(place, maxsplit=1)[0]}"

    def __repr_args__(self) -> Any:
        return [("type", getattr(self, "type", None)), ("url", self.shown)]


class RedisPlan(_Server):
    """Feast's hashes in Redis: ``redis[s]://[user][:password]@host:port/database``."""

    type: Literal["redis"] = "redis"


class PostgresPlan(_Server):
    """Feast's tables in PostgreSQL: ``postgresql://user:password@host:port/database``."""

    type: Literal["postgres"] = "postgres"
    schema_name: str = "public"

    @property
    def address(self) -> PostgresAddress:
        """Its parts. Raises ``SpecError`` where it lacks one."""
        return PostgresAddress.of(self.url)


@dataclass(frozen=True)
class PostgresAddress:
    """The parts of a PostgreSQL address; reader and writer take them from here, and so understand the same.

    Libpq reads an address in another way, and its messages quote what it cannot read: parts of a password.
    """

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str
    options: Mapping[str, str] = field(repr=False)
    """Of its query: ``sslmode``, ``sslrootcert`` and the like."""

    @classmethod
    def of(cls, url: str) -> PostgresAddress:
        """Read ``postgresql://user[:password]@host[:port]/database[?option=value]``.

        Raises:
            SpecError: it lacks a user or a database, or has a port that is none; nothing of it is quoted.
        """
        try:
            parts = urlsplit(url)
            host, port = unquote(parts.hostname or "localhost"), parts.port or _POSTGRES_PORT
        except ValueError:
            raise SpecError(
                "The PostgreSQL address cannot be read. Special characters of its user or password are written as %XX."
            ) from None
        database = parts.path.strip("/")
        if not parts.username or not database:
            raise SpecError(
                "The PostgreSQL address lacks a user or a database. Write "
                "postgresql://user:password@host:5432/database."
            )
        user, password = unquote(parts.username), unquote(parts.password or "")
        return cls(host, port, user, password, unquote(database), dict(parse_qsl(parts.query)))

    @property
    def keywords(self) -> dict[str, Any]:
        """As psycopg's ``connect`` takes them."""
        login = {"user": self.user, "password": self.password, "dbname": self.database}
        return {"host": self.host, "port": self.port, **login, **self.options}

    def without_password(self, text: str) -> str:
        """A message in which no password of the address stands."""
        secrets = {self.password, *(value for name, value in self.options.items() if "password" in name)} - {""}
        for secret in sorted(secrets | {quote(found, safe="") for found in secrets}, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text


class KeyPlan(_Plain):
    """One join key of a view."""

    name: str
    """As it is called in the store."""
    field: str
    """As it is asked by: another name where the service maps it."""
    kind: KeyKind


class ViewPlan(_Plain):
    """What is read of one view."""

    view: str
    """Its name in the service, an alias where it has one; no other view of the plan has it."""
    table: str
    """Its name in the store: with its version, where versions are stored apart."""
    keys: tuple[KeyPlan, ...] = Field(min_length=1)
    features: tuple[tuple[str, Kind], ...]
    ttl_seconds: float | None = Field(default=None, gt=0)
    """How old a value may be; None: as old as it likes."""
    prefix: str = ""
    """What stands before a feature's name in the answer."""
    file: str | None = None
    """The packed file that holds the view, where it is not the store's."""

    @property
    def names(self) -> tuple[str, ...]:
        """The features' names in the store."""
        return tuple(name for name, _ in self.features)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The features' names in the answer."""
        return tuple(self.prefix + name for name in self.names)


class ReadPlan(_Plain):
    """All that a reader needs to know; ``model_dump_json`` holds it, with the store's password where it has one."""

    store: Annotated[PackedPlan | RedisPlan | PostgresPlan, Field(discriminator="type")]
    project: str
    views: tuple[ViewPlan, ...]

    @model_validator(mode="after")
    def _names_are_distinct(self) -> ReadPlan:
        for what, names in (
            ("view", [view.view for view in self.views]),
            ("output", [name for view in self.views for name in view.outputs]),
        ):
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{what} names given twice: {', '.join(twice)}; use full feature names or aliases")
        return self

    def of(self, view: str) -> ViewPlan:
        """The plan of one view.

        Raises:
            NotFound: the plan has no such view.
        """
        for found in self.views:
            if found.view == view:
                return found
        raise NotFound(f"The read plan has no view {view!r}. It has: {', '.join(found.view for found in self.views)}.")


def postgres_table(project: str, view: ViewPlan) -> str:
    """The table of a view in PostgreSQL, as Feast calls it.

    Raises:
        SpecError: the name is longer than PostgreSQL's names are; two such views could share one table.
    """
    name = f"{project}_{view.table}"
    if (size := len(name.encode())) > _POSTGRES_NAME:
        raise SpecError(
            f"View {view.view!r} would lie in a table named {name!r}: {size} bytes, of which PostgreSQL keeps "
            f"{_POSTGRES_NAME}. Give the view a shorter name."
        )
    return name
