"""Features of a trip: the clock at its pick-up, and how its pick-up zone has been moving.

The zone's aggregates go by **drop-off**: how long a trip takes is unknown before it ends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta

import polars as pl

from ferroflow.core.features import AVAILABLE_AT, request, stored

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


@stored(entity="zone", on="PULocationID", ttl="2h")
def zone_hour(rows: pl.LazyFrame) -> pl.LazyFrame:
    """The zone's last full hour."""
    return moving(rows, every=timedelta(hours=1), steps=1)


@stored(entity="zone", on="PULocationID", ttl="2d")
def zone_day(rows: pl.LazyFrame) -> pl.LazyFrame:
    """The zone's last 24 hours, renewed every six."""
    return moving(rows, every=timedelta(hours=6), steps=4)


@stored(entity="zone", on="PULocationID", ttl="14d")
def zone_week(rows: pl.LazyFrame) -> pl.LazyFrame:
    """The zone's last seven times 24 hours, renewed every day."""
    return moving(rows, every=timedelta(days=1), steps=7)


def moving(rows: pl.LazyFrame, *, every: timedelta, steps: int) -> pl.LazyFrame:
    """``trips``, ``mean_minutes`` and ``mean_speed`` (miles per hour) of a zone over ``steps`` times ``every``.

    A window that ends at H holds the drop-offs in [H - steps·every, H) and is available at H.
    Sums and means are of whole thousandths, only multiplied as floats: in the last bit a sum of floats depends on its
    order, and a quotient of floats on the number of rows (Polars divides by one number by way of its reciprocal).
    """
    buckets = per_bucket(rows, every)
    ends = [buckets.with_columns((pl.col("bucket") + every * step).alias(AVAILABLE_AT)) for step in range(1, steps + 1)]
    sums = pl.concat(ends).group_by("zone", AVAILABLE_AT).agg(pl.col("trips", "time", "timed", "speed").sum())
    return sums.select(
        "zone",
        AVAILABLE_AT,
        trips=pl.col("trips").cast(pl.Float64),
        mean_minutes=(pl.col("time") // pl.col("trips")).cast(pl.Float64) * (1 / MILLISECONDS_PER_MINUTE),
        # Division by zero is null here: no trip whose speed could be measured.
        mean_speed=(pl.col("speed") // pl.col("timed")).cast(pl.Float64) * (1 / 1000),
    )


def per_bucket(rows: pl.LazyFrame, every: timedelta) -> pl.LazyFrame:
    """Sums of a zone's trips whose drop-off lies in ``[bucket, bucket + every)``, in milliseconds and thousandths."""
    time = (pl.col("duration_minutes") * MILLISECONDS_PER_MINUTE).round().cast(pl.Int64)
    miles = (pl.col("trip_distance") * 1000).round().cast(pl.Int64)
    speed = miles * (60 * MILLISECONDS_PER_MINUTE) // time
    real = speed.is_between(*SPEEDS)
    keys = [pl.col("PULocationID").alias("zone"), pl.col("dropoff_at").dt.truncate(every).alias("bucket")]
    return rows.group_by(keys).agg(
        trips=pl.len().cast(pl.Int64),
        time=time.sum(),
        timed=real.sum().cast(pl.Int64),
        speed=pl.when(real).then(speed).otherwise(0).sum(),
    )
