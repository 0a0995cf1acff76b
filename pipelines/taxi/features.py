"""Features of a trip: the clock at its pick-up, and how its pick-up zone has been moving.

The zone's aggregates go by **drop-off**: how long a trip takes is unknown before it ends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import polars as pl

from ferroflow.core import aggregates
from ferroflow.core.aggregates import Aggregate
from ferroflow.core.definitions import feature
from ferroflow.core.features import request
from ferroflow.core.windows import WindowFeatures, windows

TIMEZONE = "America/New_York"
MILLISECONDS_PER_MINUTE = 60_000
SPEEDS = (500, 80_000)
"""Thousandths of a mile per hour taken as real; zero distances and broken meters fall outside."""


@request
def trip_clock() -> Sequence[pl.Expr]:
    """New York's clock at the pick-up: what traffic follows."""
    local = pl.col("pickup_at").dt.convert_time_zone(TIMEZONE)
    # dt.hour() and its like are Int8: multiplied before the cast they would wrap silently.
    hour = local.dt.hour().cast(pl.Float64)
    weekday = local.dt.weekday().cast(pl.Float64)
    minute = hour * 60 + local.dt.minute().cast(pl.Float64)
    turn = minute * (2 * math.pi / 1440)
    return [
        hour.alias("hour"),
        weekday.alias("weekday"),
        ((weekday - 1) * 24 + hour).alias("hour_of_week"),
        minute.alias("minute_of_day"),
        turn.sin().alias("day_sin"),
        turn.cos().alias("day_cos"),
        (weekday >= 6).cast(pl.Float64).alias("weekend"),
        holiday(local).cast(pl.Float64).alias("holiday"),
    ]


def holiday(local: pl.Expr) -> pl.Expr:
    """Whether a day is one of the holidays on which New York's traffic is a Sunday's."""
    month, day, weekday = local.dt.month(), local.dt.day(), local.dt.weekday()
    fixed = [(1, 1), (7, 4), (12, 25)]
    by_weekday = [(1, 1, 15, 21), (2, 1, 15, 21), (5, 1, 25, 31), (9, 1, 1, 7), (11, 4, 22, 28)]
    return pl.any_horizontal(
        *((month == m) & (day == d) for m, d in fixed),
        *((month == m) & (weekday == w) & day.is_between(low, high) for m, w, low, high in by_weekday),
    )


@feature
def trips() -> Aggregate:
    """How many trips ended here."""
    return aggregates.count()


@feature
def mean_minutes(duration_minutes: pl.Expr) -> Aggregate:
    """Their mean duration in minutes."""
    return aggregates.mean(duration_minutes, per_unit=MILLISECONDS_PER_MINUTE)


@feature
def speed(duration_minutes: pl.Expr, trip_distance: pl.Expr) -> pl.Expr:
    """Thousandths of a mile per hour, from whole milliseconds and whole thousandths of a mile."""
    time = (duration_minutes * MILLISECONDS_PER_MINUTE).round().cast(pl.Int64)
    miles = (trip_distance * 1000).round().cast(pl.Int64)
    return miles * (60 * MILLISECONDS_PER_MINUTE) // time


@feature
def mean_speed(speed: pl.Expr) -> Aggregate:
    """Their mean speed in miles per hour, where it could be measured."""
    return aggregates.mean(speed * (1 / 1000), where=speed.is_between(*SPEEDS))


def zone_windows(name: str, description: str, *, last: str, every: str, ttl: str) -> WindowFeatures:
    """The same features of a pick-up zone over another stretch of time."""
    return windows(
        name,
        entity="zone",
        on="PULocationID",
        time="dropoff_at",
        last=last,
        every=every,
        ttl=ttl,
        features=(trips, mean_minutes, mean_speed),
        intermediate=(speed,),
        description=description,
    )


zone_hour = zone_windows("zone_hour", "The zone's last full hour.", last="1h", every="1h", ttl="2h")
zone_day = zone_windows("zone_day", "The zone's last 24 hours, renewed every six.", last="24h", every="6h", ttl="2d")
zone_week = zone_windows("zone_week", "The zone's last seven days, renewed daily.", last="7d", every="1d", ttl="14d")
