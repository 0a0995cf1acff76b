"""The online rows of a pipeline, wherever the settings keep them: what the prediction service and its kin read from.

Imported by the prediction service: no Feast. What Feast calls things is known here, and held by a test against it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ferroflow.adapters.feast.cache import CachedRows
from ferroflow.adapters.feast.plan import (
    KeyKind,
    KeyPlan,
    PackedPlan,
    PostgresPlan,
    ReadPlan,
    RedisPlan,
    Rows,
    ViewPlan,
    postgres_table,
)
from ferroflow.adapters.feast.reader import open_rows
from ferroflow.adapters.home import Home
from ferroflow.core.contract import Field, ServingContract, StoredView
from ferroflow.core.errors import SpecError

PROJECT = "ferroflow"
"""Feast's project: part of every key in Redis, and of every table's name in PostgreSQL."""

CACHE_SECONDS = 60.0
CACHE_ENTRIES = 100_000
"""How long, and how many rows, a process keeps of what it read from a server; a moved watermark drops them earlier."""

_KINDS: dict[str, KeyKind] = {"integer": "int64", "text": "text"}


def read_plan(contract: ServingContract, home: Home) -> ReadPlan:
    """Where a model's stored features are read from.

    Raises:
        SpecError: a look-up field is neither a whole number nor a text.
    """
    fields = {field.name: field for field in contract.fields}
    views = [view_plan(view, _key_kind(view, fields[view.on])) for view in contract.stored]
    return plan_of(contract.pipeline, views, home)


def view_plan(view: StoredView, key: KeyKind) -> ViewPlan:
    """How a view of ours lies in any online store."""
    return ViewPlan(
        view=view.view,
        table=view.view,
        keys=(KeyPlan(name=view.entity, field=view.on, kind=key),),
        features=tuple((name, "double") for name in view.features),
        ttl_seconds=view.ttl_seconds,
        prefix=f"{view.view}__",
    )


def plan_of(pipeline: str, views: Sequence[ViewPlan], home: Home) -> ReadPlan:
    """Where these views of a pipeline are read from.

    Raises:
        SpecError: a view's name is too long for a table of PostgreSQL.
    """
    address = home.online_store
    store: PackedPlan | PostgresPlan | RedisPlan
    if address is None:
        store = PackedPlan(path=str(home.online(pipeline)))
    elif address.startswith("postgresql:"):
        for view in views:
            postgres_table(PROJECT, view)  # refuses before anything is written
        store = PostgresPlan(url=address)
    else:
        store = RedisPlan(url=address)
    return ReadPlan(store=store, project=PROJECT, views=tuple(views))


def cached_rows(plan: ReadPlan) -> Rows:
    """What the plan's rows are read from: a server through a cache, a file without one."""
    rows = open_rows(plan)
    return rows if isinstance(plan.store, PackedPlan) else CachedRows(rows, CACHE_SECONDS, CACHE_ENTRIES)


def rows_of(contract: ServingContract, home: Home) -> Rows | None:
    """The contract's rows, open; None when it looks nothing up, or nothing was ever materialized into the home."""
    embedded = home.online_store is None
    if not contract.stored or (embedded and not home.online(contract.pipeline).is_file()):
        return None
    return cached_rows(read_plan(contract, home))


def _key_kind(view: StoredView, field: Field) -> KeyKind:
    kind = _KINDS.get(field.type)
    if kind is None:
        raise SpecError(
            f"{view.view!r} is looked up by {field.name!r}, a {field.type}; a key is a whole number or a text."
        )
    return kind
