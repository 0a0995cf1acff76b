"""The latest rows of a view into Redis, in the layout of Feast's own Redis store.

A hash an entity: a field for each feature, ``_ts:<view>`` with the event time, and, of ours, ``_created:<view>`` with
the time the row was created in decimal microseconds, a blank, and the ``_ts:<view>`` that it belongs to: Feast's own
writer moves that field and leaves ours, which then says nothing of the row. A script compares and writes an entity at
once: it is never half written, an older row never replaces a newer one, and of one event time the row created last
wins.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any

from feast import FeatureView
from feast.infra.online_stores.helpers import _mmh3
from feast.infra.online_stores.redis import RedisOnlineStore, _versioned_fv_name
from feast.repo_config import RepoConfig

from ferroflow.adapters.feast.bulk_rows import LatestRows, Progress
from ferroflow.adapters.feast.encode import timestamp_bytes
from ferroflow.adapters.feast.keys import is_entity_key
from ferroflow.adapters.feast.replacement import FOREVER, Replacement, replacement
from ferroflow.adapters.feast.values import event_time

ENTITIES = 200
"""Entities a call: Redis serves nobody else while a script runs."""

_IN_FLIGHT = 8  # calls sent before the first one is answered
_SCANNED = 1_000  # keys looked at in one call

_SCRIPT = b"""
local function moment(stamp)
  local found, at = {[8] = 0, [16] = 0}, 1
  while at <= #stamp do
    local tag, value, inverse, scale, length, byte = string.byte(stamp, at), 0, 0, 1, 0, 0
    repeat
      at, length = at + 1, length + 1
      byte = string.byte(stamp, at)
      value = value + byte % 128 * scale
      if length < 10 then inverse = inverse + (127 - byte % 128) * scale end
      scale = scale * 128
    until byte < 128
    if length == 10 then value = -inverse - 1 end
    found[tag], at = value, at + 1
  end
  return found[8], found[16]
end
local function created_of(told, stamp)
  local blank = told and string.find(told, ' ', 1, true)
  return blank and string.sub(told, blank + 1) == stamp and tonumber(string.sub(told, 1, blank - 1))
end
local function older(stamp, created, known, known_created)
  if stamp ~= known then
    local seconds, nanos = moment(stamp)
    local known_seconds, known_nanos = moment(known)
    if seconds ~= known_seconds then return seconds < known_seconds end
    if nanos ~= known_nanos then return nanos < known_nanos end
  end
  return (tonumber(created) or -math.huge) < (created_of(known_created, known) or -math.huge)
end
local function replaced(stamp, until_seconds, until_nanos)
  local seconds, nanos = moment(stamp)
  return seconds < until_seconds or (seconds == until_seconds and nanos <= until_nanos)
end
local lifetime, width = tonumber(ARGV[1]), tonumber(ARGV[3])
local until_seconds, until_nanos = string.match(ARGV[2], '(%-?%d+) (%d+)')
until_seconds, until_nanos = tonumber(until_seconds), tonumber(until_nanos)
local pairs_of = {}
for place = 1, width + 2 do pairs_of[2 * place - 1] = ARGV[3 + place] end
local stamp_field, created_field = ARGV[4 + width], ARGV[5 + width]
local written = 0
for number, key in ipairs(KEYS) do
  local start = 5 + width + (number - 1) * (width + 2)
  local stamp, created = ARGV[start + width + 1], ARGV[start + width + 2]
  local known = redis.call('HMGET', key, stamp_field, created_field)
  local free = not known[1] or (until_seconds and replaced(known[1], until_seconds, until_nanos))
  if free or not older(stamp, created, known[1], known[2]) then
    for place = 1, width + 1 do pairs_of[2 * place] = ARGV[start + place] end
    pairs_of[2 * width + 4] = created .. ' ' .. stamp
    local last = 2 * width + (created == '' and 2 or 4)
    for first = 1, last, 4000 do redis.call('HSET', key, unpack(pairs_of, first, math.min(first + 3999, last))) end
    if created == '' and known[2] then redis.call('HDEL', key, created_field) end
    if lifetime > 0 then redis.call('EXPIRE', key, lifetime) end
    written = written + 1
  end
end
return written
"""


def write(store: RedisOnlineStore, config: RepoConfig, view: FeatureView, rows: LatestRows, progress: Progress) -> int:
    """Write the rows through the store's own client (one server or its Sentinel, not a cluster).

    Returns:
        How many rows were written: those that are not older than what Redis has.

    Raises:
        redis.RedisError: Redis is away or refuses; what was written before stays, each entity whole.
    """
    name = _versioned_fv_name(view, config)
    fields = [_mmh3(f"{name}:{feature}") for feature in rows.features]
    fields += [f"_ts:{name}".encode(), f"_created:{name}".encode()]
    what, lifetime = replacement(), config.online_store.key_ttl_seconds or 0
    until = b"" if what is None else b"%d %d" % (what.until // 1_000_000, what.until % 1_000_000 * 1_000)
    head = [b"%d" % lifetime, until, b"%d" % len(rows.features), *fields]
    project = config.project.encode()
    # A client of one connection, for the raw protocol: whole calls are built as bytes, many are sent ahead.
    with store._get_client(config.online_store).client() as client:
        connection = client.connection
        try:
            written = _exchange(connection, _calls(rows, project, head), progress)
        except BaseException:
            connection.disconnect()  # answers may be on their way that nobody reads
            raise
        if what is not None:
            gone = [_mmh3(f"{name}:{feature}") for feature in what.before if feature not in rows.features]
            _remove_others(client, rows, project, what, gone, fields)
        return written


def _remove_others(
    client: Any, rows: LatestRows, project: bytes, what: Replacement, gone: Sequence[bytes], fields: Sequence[bytes]
) -> None:
    """Take the view out of the entities that were not written, and features it has no more out of those that were."""
    written = {key + project for part in rows.slices() for key in part.entity_keys()}
    pattern = b"*" + re.sub(rb"([*?\[\]^\\-])", rb"\\\1", project)
    cursor = 0
    while True:
        cursor, found = client.scan(cursor, match=pattern, count=_SCANNED, _type="hash")
        # The name of another project may end as ours does: what stands before ours must be an entity's key.
        keys = [key for key in found if is_entity_key(key.removesuffix(project))]
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.hget(key, fields[-2])
        for key, stamp in zip(keys, pipeline.execute(), strict=True):
            if key in written:
                taken = gone
            elif stamp is not None and what.until < FOREVER and event_time(stamp) > what.until:
                taken = []
            else:
                taken = [*gone, *fields]
            if taken:
                pipeline.hdel(key, *taken)
        pipeline.execute()
        if not cursor:
            return


def _exchange(connection: Any, calls: Iterable[tuple[int, bytes]], progress: Progress) -> int:
    written, waiting = 0, []
    for rows, call in calls:
        connection.send_packed_command([call])
        waiting.append(rows)
        if len(waiting) >= _IN_FLIGHT:
            written += int(connection.read_response())
            progress(waiting.pop(0))
    for rows in waiting:
        written += int(connection.read_response())
        progress(rows)
    return written


def _calls(rows: LatestRows, project: bytes, head: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
    """Each call's number of rows and its bytes in Redis' protocol."""
    script, constants = b"".join(_framed([b"EVAL", _SCRIPT])), b"".join(_framed(head))
    width = len(rows.features) + 2
    for part in rows.slices():
        keys = _framed([key + project for key in part.entity_keys()])
        columns = [_framed(part.value_bytes(feature)) for feature in part.features]
        columns += [_framed(timestamp_bytes(part.events)), _framed(part.created_texts())]
        values = list(map(b"".join, zip(*columns, strict=True)))
        for start in range(0, len(keys), ENTITIES):
            some = keys[start : start + ENTITIES]
            words = 3 + len(some) + len(head) + len(some) * width
            count = _framed([b"%d" % len(some)])
            call = [b"*%d\r\n" % words, script, *count, *some, constants, *values[start : start + ENTITIES]]
            yield len(some), b"".join(call)


_HEADS = [b"$%d\r\n" % size for size in range(256)]


def _framed(words: Iterable[bytes]) -> list[bytes]:
    """Each word as Redis' protocol has it: its length, its bytes."""
    heads, ends = _HEADS, repeat(b"\r\n")
    return [
        (heads[len(word)] if len(word) < 256 else b"$%d\r\n" % len(word)) + word + end
        for word, end in zip(words, ends, strict=False)
    ]
