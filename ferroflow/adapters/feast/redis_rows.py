"""Online rows in Redis as Feast lays them out: a hash an entity, a field a feature, read in one round trip.

The hash is named by the entity's key and the project; a feature's field by the murmur3 hash of ``view:feature``; the
event time stands in the field ``_ts:view``. How far a view is complete stands in a key of our own.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import hiredis
import mmh3
import redis

from ferroflow.adapters.feast import keys as entity_keys
from ferroflow.adapters.feast.connections import Connections
from ferroflow.adapters.feast.plan import Entry, Key, OnlineStoreAway, ReadPlan, RedisPlan, ViewPlan
from ferroflow.adapters.feast.rows import Watermark
from ferroflow.adapters.feast.values import event_time, row_decoder
from ferroflow.core.errors import DataError, SpecError

_RECEIVED = 65_536  # bytes taken from the socket at once

_Link: TypeAlias = tuple[int, Any, Callable[[bytes], None], Callable[[int], bytes], object]
"""A process, its connection, how that sends and receives, and what closes it when it is gone."""


def field_name(view: str, feature: str) -> bytes:
    """The field of an entity's hash that holds a feature."""
    return mmh3.hash(f"{view}:{feature}", signed=False).to_bytes(4, "little")


def watermark_key(project: str, view: str) -> str:
    """The key that says how far a view is complete: JSON ``{"event": µs, "ingested": µs | null}``."""
    return f"ferroflow:{project}:{view}:watermark"


class RedisRows:
    """Rows of a plan whose store is Redis.

    A connection that was lost is made again once for each command. After a failure the server is left in peace for
    ``rest_seconds``: reads fail at once instead of each waiting for its timeout.

    Args:
        connect_seconds: how long a connection may take.
        read_seconds: how long an answer may take.
    """

    def __init__(
        self,
        plan: ReadPlan,
        connect_seconds: float = 1.0,
        read_seconds: float = 1.0,
        rest_seconds: float = 0.25,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not isinstance(plan.store, RedisPlan):
            raise SpecError(f"The plan's store is {plan.store.type!r}; rows in Redis need 'redis'.")
        self.plan = plan
        self.rest_seconds = rest_seconds
        self._clock = clock
        self._shown = plan.store.shown
        self._pool = redis.ConnectionPool.from_url(
            plan.store.url, socket_connect_timeout=connect_seconds, socket_timeout=read_seconds
        )
        self._local = threading.local()
        self._open = Connections()
        self._away_until = 0.0  # 0: no failure so far, and the clock need not be asked
        self._views: dict[str, _View] = {}

    def read(self, view: str, keys: Sequence[Key], features: Sequence[str]) -> Mapping[Key, Entry]:
        """The newest row of each entity that is there, in one round trip.

        Raises:
            OnlineStoreAway: Redis does not answer, or not in time.
            DataError: a key is of another type than the plan says, or a stored value is none of Feast's.
        """
        reader = self._views.get(view)
        if reader is None or reader.features is not features:
            reader = self._view(view, tuple(features))
        return reader.entries(keys, self._ask(b"".join(map(reader.command, keys)), len(keys)))

    def watermark(self, view: str) -> Watermark | None:
        """How far the view is complete; None when nobody said."""
        name = watermark_key(self.plan.project, self.plan.of(view).table).encode()
        (stored,) = self._ask(b"*2\r\n$3\r\nGET\r\n" + _bulk(name), 1)
        if stored is None:
            return None
        try:
            told = json.loads(stored)
            return Watermark(int(told["event"]), None if told["ingested"] is None else int(told["ingested"]))
        except (ValueError, TypeError, KeyError) as error:
            raise OnlineStoreAway(f"{name.decode()} in {self._shown} is no watermark: {stored!r}.") from error

    def close(self) -> None:
        """Give the connections back; a later read makes new ones."""
        self._local = threading.local()  # first: who connects meanwhile keeps what it made
        self._open.close()

    def _view(self, view: str, features: tuple[str, ...]) -> _View:
        """A view as it was asked for last; to compare names each time would cost more than the rest of a read."""
        found = self._views.get(view)
        if found is None or found.features != features:
            found = self._views[view] = _View(self.plan, self.plan.of(view), features)
        return found

    def _ask(self, commands: bytes, answers: int) -> list[Any]:
        if not answers:
            return []
        if self._away_until and self._clock() < self._away_until:
            raise OnlineStoreAway(f"The online store {self._shown} is away; it is asked again soon.")
        try:
            return self._answers(commands, answers)
        except (redis.TimeoutError, redis.InvalidResponse) as error:
            raise self._away(error) from error
        except redis.ConnectionError as lost:
            try:
                return self._answers(commands, answers)
            except redis.RedisError as error:
                raise self._away(error) from lost
        except redis.RedisError as error:
            raise OnlineStoreAway(f"The online store {self._shown} refuses: {error}") from error

    def _answers(self, commands: bytes, answers: int) -> list[Any]:
        """The replies, read straight from the connection's socket: redis-py's own way takes as long as the server."""
        link: _Link | None = getattr(self._local, "link", None)
        if link is None or link[0] != os.getpid():  # a fork must not share its parent's connection
            link = self._connect()
        _, connection, send, receive, _ = link
        replies: list[Any] = []
        refused = whole = False
        try:
            reader = hiredis.Reader()
            send(commands)
            while len(replies) < answers:
                reply = reader.gets()
                if reply is False:
                    data = receive(_RECEIVED)
                    if not data:
                        raise redis.ConnectionError("it closed the connection")
                    reader.feed(data)
                    continue
                replies.append(reply)
                refused = refused or type(reply) is hiredis.ReplyError
            if reader.has_data():
                raise redis.InvalidResponse("it answers more than it was asked")
            whole = True
        except hiredis.ProtocolError as error:
            raise redis.InvalidResponse(str(error)) from error
        except TimeoutError as error:
            raise redis.TimeoutError(str(error)) from error
        except OSError as error:
            raise redis.ConnectionError(str(error)) from error
        finally:
            if not whole:  # answers that were not read would be taken for those of the next command
                self._local.link = None
                connection.disconnect()
        if refused:
            raise redis.ResponseError(next(str(reply) for reply in replies if isinstance(reply, hiredis.ReplyError)))
        return replies

    def _connect(self) -> _Link:
        """A connection for this thread, in this process; not the pool's, which counts those that were lost for ever."""
        local, connection = self._local, self._pool.connection_class(**self._pool.connection_kwargs)
        connection.connect()
        # Known to `close` only when it is whole; the mark in the tuple lives as long as a read that uses it.
        mark = self._open.add(connection.disconnect)
        link: _Link = (os.getpid(), connection, connection._sock.sendall, connection._sock.recv, mark)
        local.link = link
        return link

    def _away(self, error: Exception) -> OnlineStoreAway:
        self._away_until = self._clock() + self.rest_seconds
        return OnlineStoreAway(
            f"The online store {self._shown} does not answer: {error}. Start it, or see its address."
        )


class _View:
    """The commands that ask for some features of a view, and what makes entries of the answers."""

    def __init__(self, plan: ReadPlan, view: ViewPlan, features: tuple[str, ...]) -> None:
        kinds = dict(view.features)
        fields = [field_name(view.table, name) for name in features] + [f"_ts:{view.table}".encode()]
        self.features = features
        self._shown = plan.store.shown if isinstance(plan.store, RedisPlan) else ""
        self._width = len(fields)
        self._head = b"*%d\r\n$5\r\nHMGET\r\n$" % (len(fields) + 2)
        self._tail = b"".join(_bulk(field) for field in fields)
        self._project = plan.project.encode()
        self._decoder = row_decoder([kinds.get(name, "proto") for name in features])
        self._single = self._number = None
        if len(view.keys) == 1:
            name, kind = view.keys[0].name, view.keys[0].kind
            self._single = entity_keys.single_encoder(name, kind)
            if kind in ("int64", "int32"):  # always of one length: all but the number is known beforehand
                self._numbered = b"%b%d\r\n" % (self._head, len(self._single(0)) + len(self._project))
                self._number = entity_keys.single_encoder(name, kind, b"%b\r\n%b" % (self._project, self._tail))

    def command(self, key: Key) -> bytes:
        if self._number is not None and type(key) is int:
            return self._numbered + self._number(key)
        if isinstance(key, bytes):
            name = key + self._project
        elif self._single is not None:
            name = self._single(key) + self._project
        else:
            raise DataError(f"The key {key!r} is one value where the view has several. Give the serialized entity key.")
        return b"%b%d\r\n%b\r\n%b" % (self._head, len(name), name, self._tail)

    def entries(self, keys: Sequence[Key], replies: Sequence[Any]) -> dict[Key, Entry]:
        decoder, width = self._decoder, self._width
        found: dict[Key, Entry] = {}
        try:
            for key, reply in zip(keys, replies, strict=True):
                if type(reply) is not list or len(reply) != width:
                    raise TypeError(f"not the {width} values asked for")
                moment = reply.pop()
                if moment is not None:
                    found[key] = (event_time(moment), decoder(reply))
        except TypeError as error:  # a part of a reply may be no bytes: an error, or a number
            raise OnlineStoreAway(
                f"The online store {self._shown} answers with what is no row ({error}). Is it a Redis server?"
            ) from error
        return found


def _bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)
