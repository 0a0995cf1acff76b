"""Watermarks in every online store: told by one, read by all, and never moved back."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ferroflow.adapters.feast.marks import advance
from ferroflow.adapters.feast.online_rows import plan_of, view_plan
from ferroflow.adapters.feast.plan import OnlineStoreAway, ReadPlan
from ferroflow.adapters.feast.reader import open_rows
from ferroflow.adapters.feast.rows import Watermark
from ferroflow.adapters.home import Home
from ferroflow.core.contract import StoredView
from ferroflow.core.errors import SpecError
from tests.engines import free_port, postgres_server, redis_server

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


@pytest.mark.parametrize("password", ["pa%zzs3c", "se s3c", "p@s3c"])
def test_a_server_that_is_away_is_told_without_any_part_of_the_password(tmp_path: Path, password: str) -> None:
    view = StoredView(view="v", entity="zone", on="zone", ttl_seconds=60, features=("a",))
    address = f"postgresql://me:{password}@127.0.0.1:{free_port()}/rows"
    plan = plan_of("rides", [view_plan(view, "int64")], Home(tmp_path, address))
    with pytest.raises(OnlineStoreAway, match=r"does not take a watermark: .*refused") as told:
        advance(plan, "v", 1)
    assert "s3c" not in f"{told.value} {told.value.__cause__}"


def test_a_view_whose_table_postgresql_would_cut_is_refused_when_it_is_planned(tmp_path: Path) -> None:
    fits, longer = [
        view_plan(StoredView(view="é" + "v" * size, entity="z", on="z", ttl_seconds=60, features=("a",)), "int64")
        for size in (51, 52)  # "ferroflow_" before it are ten bytes, and its first letter is two
    ]
    there = Home(tmp_path, "postgresql://me@127.0.0.1/rows")
    assert plan_of("rides", [fits], there).views == (fits,)
    with pytest.raises(SpecError, match=r"'év+' .* 64 bytes, of which PostgreSQL keeps 63"):
        plan_of("rides", [fits, longer], there)
    assert plan_of("rides", [longer], Home(tmp_path, None)).views == (longer,)
    assert plan_of("rides", [longer], Home(tmp_path, "redis://127.0.0.1:1/0")).views == (longer,)
