"""A Redis stream, read by one consumer of a group."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ferroflow.adapters.sources.connections import address_of, shown, without_secrets
from ferroflow.adapters.sources.streams import Message, fewer
from ferroflow.core.errors import SettingsError, SourceUnavailable, SpecError
from ferroflow.core.sources import Stream

if TYPE_CHECKING:
    from redis import Redis

logger = logging.getLogger(__name__)

_IDLE = timedelta(minutes=10)  # a consumer that was silent for so long is dead: its messages are taken over


class RedisConsumer:
    """One consumer of a group; the group is made where it is missing, from the stream's beginning on."""

    def __init__(self, stream: Stream, name: str, client: Redis, address: str) -> None:
        self._stream = stream
        self._name = name
        self._client = client
        self._address = address
        self._begin()

    def take(self, most: int) -> list[Message]:
        """See ``Consumer``."""
        group = ("XREADGROUP", "GROUP", self._stream.group, self._name)
        while pending := self._pending(most):
            first = pending[0][1]
            alike = next((place for place, (_, failed) in enumerate(pending) if failed != first), len(pending))
            many = min(alike, fewer(most, first, self._stream.tries))
            answer = self._ask(*group, "COUNT", many, "STREAMS", self._stream.name, "0")
            if found := self._messages(answer, dict(pending)):
                return found
        return self._messages(self._ask(*group, "COUNT", most, "STREAMS", self._stream.name, ">"), {})

    def acknowledge(self, ids: Sequence[str]) -> None:
        """See ``Consumer``."""
        if ids:
            self._ask("XACK", self._stream.name, self._stream.group, *ids)

    def bury(self, message: Message, reason: str) -> None:
        """Add it to ``<name>:dead`` with its id and the reason, and acknowledge it: both or neither."""
        fields = [text for pair in message.fields for text in pair]
        told = ("ferroflow:id", message.id, "ferroflow:reason", reason, "ferroflow:deliveries", message.failures)
        with self._translated(), self._client.pipeline(transaction=True) as both:
            command: Any = both.execute_command
            command("XADD", f"{self._stream.name}:dead", "*", *fields, *told)
            command("XACK", self._stream.name, self._stream.group, message.id)
            both.execute()

    def place(self, message_id: str) -> tuple[int, ...]:
        """Milliseconds and number of an id."""
        return tuple(int(part) for part in message_id.split("-"))

    def _begin(self) -> None:
        from redis.exceptions import ResponseError

        name, group = self._stream.name, self._stream.group
        with self._translated():
            try:
                self._client.xgroup_create(name, group, "0", mkstream=True)
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):  # it is there
                    raise
        start: Any = "0-0"
        while True:  # without their content, which would count as a delivery
            milliseconds = int(_IDLE.total_seconds() * 1000)
            command = ("XAUTOCLAIM", name, group, self._name, milliseconds, start, "COUNT", 1000, "JUSTID")
            start, claimed, gone = self._ask(*command)[:3]
            if claimed:
                logger.info("%s: %d messages of a dead consumer are taken over", name, len(claimed))
            self._tell_gone(gone)
            if start == b"0-0":
                return

    def _pending(self, most: int) -> list[tuple[str, int]]:
        """Ids of this consumer that are not acknowledged, with the number of their deliveries so far."""
        name, group = self._stream.name, self._stream.group
        rows = self._ask("XPENDING", name, group, "-", "+", most, self._name)
        return [(row[0].decode(), int(row[3])) for row in rows]

    def _messages(self, answer: Any, failures: dict[str, int]) -> list[Message]:
        entries = answer[0][1] if answer else []
        gone = [entry[0] for entry in entries if entry[1] is None]
        self._tell_gone(gone)
        self.acknowledge([name.decode() for name in gone])
        found = []
        for name, flat in entries:
            if flat is not None:
                pairs = tuple(zip(flat[::2], flat[1::2], strict=True))
                found.append(Message(name.decode(), pairs, failures.get(name.decode(), 0)))
        return found

    def _tell_gone(self, ids: Sequence[bytes]) -> None:
        if ids:
            listed = ", ".join(name.decode() for name in ids[:5])
            logger.warning(
                "%s: %d messages were removed from the stream before they were taken (%s): trim it later",
                self._stream.name,
                len(ids),
                listed,
            )

    def _ask(self, *command: Any) -> Any:
        run: Any = self._client.execute_command
        with self._translated():
            return run(*command)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what redis raises into our errors, without the address's secrets."""
        from redis.exceptions import AuthenticationError, RedisError

        try:
            yield
        except RedisError as error:
            said, where = without_secrets(error, self._address), shown(self._address)
            if isinstance(error, AuthenticationError):
                raise SettingsError(f"{where} refuses: {said}. Check the address's user and password.") from None
            if said.startswith("WRONGTYPE"):
                raise SpecError(
                    f"{where}: {self._stream.name!r} is no stream: {said}. Correct Stream(name=)."
                ) from None
            raise SourceUnavailable(f"{where} cannot be read: {said}. Check that the Redis server runs.") from None


@contextmanager
def opened(stream: Stream, consumer: str) -> Iterator[RedisConsumer]:
    """Join the stream's group under the name ``consumer``, and take over what dead consumers left.

    Raises:
        SettingsError: the address is none, or the password is wrong.
        SourceUnavailable: nobody answers.
        SpecError: there is something else than a stream under that name.
    """
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    address = address_of(stream.url)
    try:
        # No retries below: a command that was lost on the way back would be done twice.
        client = Redis.from_url(
            address, protocol=2, socket_timeout=30, socket_connect_timeout=5, retry=Retry(NoBackoff(), 0)
        )
    except ValueError as error:
        said = without_secrets(error, address)
        raise SettingsError(
            f"{shown(address)} is no address: {said}. Write redis://user:password@host:6379/0."
        ) from None
    for command in ("XREADGROUP", "XAUTOCLAIM", "XPENDING"):
        # As the server sends it: a dictionary would lose the first of two fields of one name.
        client.set_response_callback(command, lambda answer, **_: answer)
    with closing(client):
        yield RedisConsumer(stream, consumer, client, address)
