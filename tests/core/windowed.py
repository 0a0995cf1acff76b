"""Window features of a stop's rides, and events, for tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import strategies as st

from ferroflow.core import aggregates
from ferroflow.core.aggregates import Aggregate
from ferroflow.core.definitions import Feature, feature
from ferroflow.core.windows import WindowFeatures, windows

START = datetime(2023, 3, 10, tzinfo=UTC)
SCHEMA = {"stop": pl.Int64, "at": pl.Datetime("us", "UTC"), "minutes": pl.Float64}


@feature(owner="dispatch")
def trips() -> Aggregate:
    """How many trips ended."""
    return aggregates.count()


@feature
def long_trips(minutes: pl.Expr) -> Aggregate:
    return aggregates.count(where=minutes > 1)


@feature
def total(minutes: pl.Expr) -> Aggregate:
    return aggregates.sum(minutes)


@feature
def average(minutes: pl.Expr) -> Aggregate:
    return aggregates.mean(minutes, where=minutes != 0)


@feature
def spread(minutes: pl.Expr) -> Aggregate:
    return aggregates.std(minutes, per_unit=10)


@feature
def shortest(seconds: pl.Expr) -> Aggregate:
    return aggregates.min(seconds)


@feature
def longest(seconds: pl.Expr) -> Aggregate:
    return aggregates.max(seconds, per_unit=1)


@feature
def latest(minutes: pl.Expr) -> Aggregate:
    return aggregates.last(minutes, where=minutes > -2)


@feature
def seconds(minutes: pl.Expr) -> pl.Expr:
    return minutes * 60


ALL = (trips, long_trips, total, average, spread, shortest, longest, latest)


def view(name: str, features: Sequence[Feature] = ALL, **given: Any) -> WindowFeatures:
    """Windows of a stop; the entity is called otherwise than the events' column."""
    given = {"ttl": "5h", "time": "at", "by": "stop", "intermediate": [seconds]} | given
    return windows(name, entity="place", on="origin", features=features, **given)


hour = view("hour", last="1h")
three_hours = view("three_hours", last="3h", every="30m")
last_event = view("last_event", events=1)
last_three = view("last_three", events=3)
two_hours = view("two_hours", last="2h", every="10m")
VIEWS = [hour, three_hours, two_hours, last_event, last_three]
each_view = pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)


def events(rows: Sequence[tuple[int | None, int | None, float | None]]) -> pl.DataFrame:
    """(stop, minute after the start, value) as a frame."""
    moments = [None if minute is None else START + timedelta(minutes=minute) for _, minute, _ in rows]
    return pl.DataFrame(
        {"stop": [row[0] for row in rows], "at": moments, "minutes": [row[2] for row in rows]}, schema=SCHEMA
    )


VALUES = st.sampled_from([0.0, -0.0, 0.1, 0.2, 0.3, 1.7, -3.0, 2.5, None, math.nan]) | st.floats(-9, 9, width=32)
EVENTS = st.lists(st.tuples(st.integers(1, 2), st.integers(-60, 400), VALUES), max_size=25)
