"""Watermarks in every online store: told by one, read by all, and never moved back."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ferroflow.adapters.feast.marks import advance
from ferroflow.adapters.feast.online_rows import plan_of, view_plan
from ferroflow.adapters.feast.plan import ReadPlan
from ferroflow.adapters.feast.reader import open_rows
from ferroflow.adapters.feast.rows import Watermark
from ferroflow.adapters.home import Home
from ferroflow.core.contract import StoredView
from tests.engines import postgres_server, redis_server

numbers = itertools.count()


@pytest.fixture(scope="module")
def redis_address() -> Iterator[str]:
    with redis_server() as port:
        yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture(scope="module")
def postgres_address() -> Iterator[str]:
    with postgres_server() as address:
        yield address


@pytest.fixture(params=["packed", "redis", "postgres"])
def plan(request: pytest.FixtureRequest, tmp_path: Path) -> ReadPlan:
    """Of a view that nobody told anything about yet."""
    address = None if request.param == "packed" else request.getfixturevalue(f"{request.param}_address")
    view = StoredView(view=f"v{next(numbers)}", entity="zone", on="zone", ttl_seconds=60, features=("a",))
    return plan_of("rides", [view_plan(view, "int64")], Home(tmp_path, address))


def told(plan: ReadPlan) -> Watermark | None:
    rows = open_rows(plan)
    try:
        return rows.watermark(plan.views[0].view)
    finally:
        rows.close()


def test_a_watermark_is_read_as_it_was_told_and_each_part_only_moves_on(plan: ReadPlan) -> None:
    view = plan.views[0].view
    assert told(plan) is None
    advance(plan, view, 50)
    assert told(plan) == Watermark(50, None)
    advance(plan, view, 100, 7)
    advance(plan, view, 90, 9)
    advance(plan, view, 99)
    assert told(plan) == Watermark(100, 9)
    advance(plan, view, 1_700_000_000_000_001, 1_700_000_000_000_002)
    advance(plan, view, 1_700_000_000_000_000, 1_700_000_000_000_001)
    assert told(plan) == Watermark(1_700_000_000_000_001, 1_700_000_000_000_002)


def test_of_many_at_once_the_latest_stands(plan: ReadPlan) -> None:
    view = plan.views[0].view
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda moment: advance(plan, view, moment, 1000 - moment), range(40)))
    assert told(plan) == Watermark(39, 1000)
