"""Watermarks of online views, told by whoever materializes: beside the rows, and never moved back.

A packed store keeps them in a table, Redis in a key of JSON, PostgreSQL in a table of ours. Feast does not know them.
"""

from __future__ import annotations

from pathlib import Path

from ferroflow.adapters.feast.packed import OutdatedStore, PackedStore
from ferroflow.adapters.feast.plan import OnlineStoreAway, PackedPlan, PostgresPlan, ReadPlan, RedisPlan, Rows
from ferroflow.adapters.feast.rows import Watermark

POSTGRES_TABLE = "ferroflow_watermarks"

# The greater of each part: two materializations may end in any order.
_REDIS = """
local event, ingested = ARGV[1], ARGV[2]
local known = redis.call('GET', KEYS[1])
local function later(one, other)
  if one == 'null' then return other end
  if other == 'null' then return one end
  return tonumber(one) > tonumber(other) and one or other
end
if known then
  local a, b = string.match(known, '"event": ?(-?%d+), ?"ingested": ?([-%dnul]+)')
  event, ingested = later(event, a), later(ingested, b)
end
redis.call('SET', KEYS[1], '{"event": ' .. event .. ', "ingested": ' .. ingested .. '}')
"""

_CREATE = f"""
CREATE TABLE IF NOT EXISTS {POSTGRES_TABLE} (
    project text, view text, event bigint NOT NULL, ingested bigint, PRIMARY KEY (project, view))
"""
_ADVANCE = f"""
INSERT INTO {POSTGRES_TABLE} AS known (project, view, event, ingested) VALUES (%s, %s, %s, %s)
ON CONFLICT (project, view) DO UPDATE SET
    event = greatest(known.event, excluded.event), ingested = greatest(known.ingested, excluded.ingested)
"""
_LOCK = 7_021_990  # of PostgreSQL's advisory locks: two sessions that make one table at once disturb each other


def advance(plan: ReadPlan, view: str, event: int, ingested: int | None = None) -> None:
    """Say how far a view is complete (microseconds since 1970, UTC); neither part ever moves back.

    Raises:
        OnlineStoreAway: the store does not answer.
    """
    table, store = plan.of(view).table, plan.store
    if isinstance(store, PackedPlan):
        with PackedStore(Path(plan.of(view).file or store.path)) as packed:
            packed.advance(table, event, ingested)
    elif isinstance(store, RedisPlan):
        _advance_in_redis(store, plan.project, table, event, ingested)
    else:
        _advance_in_postgres(store, plan.project, table, event, ingested)


def watermark_of(rows: Rows, view: str) -> Watermark | None:
    """How far a view is complete; None when nobody said, also in a file of another version, which is replaced.

    Raises:
        OnlineStoreAway: the store does not answer.
    """
    try:
        return rows.watermark(view)
    except OnlineStoreAway as error:
        if isinstance(error.__cause__, OutdatedStore):
            return None
        raise


def _advance_in_redis(store: RedisPlan, project: str, view: str, event: int, ingested: int | None) -> None:
    import redis

    from ferroflow.adapters.feast.redis_rows import watermark_key

    told = [str(event), "null" if ingested is None else str(ingested)]
    try:
        with redis.Redis.from_url(store.url, socket_connect_timeout=5, socket_timeout=10) as client:
            client.eval(_REDIS, 1, watermark_key(project, view), *told)
    except redis.RedisError as error:
        raise OnlineStoreAway(f"The online store {store.shown} does not take a watermark: {error}") from error


def _advance_in_postgres(store: PostgresPlan, project: str, view: str, event: int, ingested: int | None) -> None:
    import psycopg
    from psycopg import sql

    address = store.address
    try:
        with psycopg.connect(**address.keywords | {"connect_timeout": 5}) as connection:
            place = sql.SQL("SET search_path TO {}").format(sql.Identifier(store.schema_name))
            connection.execute(place)
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            connection.execute(_CREATE)
            connection.execute(_ADVANCE, (project, view, event, ingested))
    except psycopg.Error as error:
        told = address.without_password(str(error))
        raise OnlineStoreAway(f"The online store {store.shown} does not take a watermark: {told}") from error
