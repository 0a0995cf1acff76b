"""Take the messages of a stream in micro-batches, at least once from the server and exactly once into the parts.

The order is the promise: write the batch, read it back, write its record, acknowledge. What is delivered a second time
is known by its id. A message whose batches fail again and again is taken with fewer and fewer others, in the end alone,
so that it is buried by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import polars as pl

from ferroflow.adapters.sources.download import Progress
from ferroflow.adapters.sources.journal import Journal
from ferroflow.adapters.sources.messages import MESSAGE_ID, rows_of
from ferroflow.core.records import Part
from ferroflow.core.sources import Stream

logger = logging.getLogger(__name__)

_BATCHES = 100  # of one run; more wait for the next one


@dataclass(frozen=True)
class Message:
    """One message: its fields in their order, and how often it was delivered in vain before."""

    id: str
    fields: tuple[tuple[bytes, bytes], ...]
    failures: int = 0


class Consumer(Protocol):
    """One reader of a stream that keeps, until they are acknowledged, the messages it delivered."""

    def take(self, most: int) -> list[Message]:
        """Up to ``most`` messages, in order, those delivered in vain first; none when none are there. Never waits."""

    def acknowledge(self, ids: Sequence[str]) -> None:
        """Messages that need no other delivery."""

    def bury(self, message: Message, reason: str) -> None:
        """Move a message to where people look at those that cannot be taken; acknowledges it."""

    def place(self, message_id: str) -> tuple[int, ...]:
        """Where an id stands in the stream."""


def take_stream(
    stream: Stream, consumer: Consumer, journal: Journal, now: datetime, progress: Progress | None
) -> list[Part]:
    """Take what is there, at most 100 batches of ``stream.batch``; give the parts of all batches so far.

    Raises:
        SourceUnavailable: the server goes away; what was recorded until then stays, the rest is delivered again.
    """
    parts = journal.parts()
    size = 0
    for _ in range(_BATCHES):
        messages = consumer.take(stream.batch)
        if not messages:
            return parts
        new = _batch(stream, messages, consumer, journal, parts, now)
        if new is not None:
            parts.append(new)
        if progress is not None:
            size += sum(len(value) for message in messages for _, value in message.fields)
            progress(journal.name, size, None)
    logger.info("%s: %d batches were taken; what is left waits for the next run", journal.name, _BATCHES)
    return parts


def fewer(most: int, failures: int, tries: int) -> int:
    """How many messages to take together after so many failures: down to one at the last try.

    From 10,000 in five tries: 10,000, 1,000, 100, 10, 1.
    """
    if tries < 2:
        return most
    left = max(0.0, 1 - failures / (tries - 1))
    together: float = most**left
    return max(1, round(together))


def _batch(
    stream: Stream, messages: list[Message], consumer: Consumer, journal: Journal, parts: list[Part], now: datetime
) -> Part | None:
    """Record the messages that no batch holds yet, bury those tried too often, acknowledge all."""
    recorded = _recorded(messages, consumer, journal, parts)
    unknown = [message for message in messages if message.id not in recorded]
    dead = [message for message in unknown if message.failures >= stream.tries]
    alive = [message for message in unknown if message.failures < stream.tries]
    for message in dead:
        logger.warning("%s: message %s goes to %s:dead", stream.name, message.id, stream.name)
        consumer.bury(message, f"delivered {message.failures} times, and no batch with it was completed")
    if dead:
        logger.warning("%s: %d messages were buried in %s:dead", stream.name, len(dead), stream.name)
    new = None
    if alive:
        frame = rows_of([(message.id, message.fields) for message in alive], stream.payload)
        since, upto = alive[0].id, alive[-1].id
        new = journal.append([frame], after=len(parts), since=since, upto=upto, now=now)
    consumer.acknowledge([message.id for message in messages if message not in dead])
    return new


def _recorded(messages: list[Message], consumer: Consumer, journal: Journal, parts: list[Part]) -> set[str]:
    """Ids that a batch holds already: looked for only in batches that reach over one of them."""
    low, high = consumer.place(messages[0].id), consumer.place(messages[-1].id)
    ids = [message.id for message in messages]
    found: set[str] = set()
    for part in parts:
        if consumer.place(part.since or "") <= high and consumer.place(part.upto or "") >= low:
            rows = pl.scan_parquet(journal.home.absolute(part.path)).filter(pl.col(MESSAGE_ID).is_in(ids))
            found.update(rows.select(MESSAGE_ID).collect().to_series().to_list())
    return found
