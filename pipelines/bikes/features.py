"""Features of an hour: where it lies in the day, the week and the year, and how it feels outside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

import polars as pl

from ferroflow.core.features import request

_EPOCH = datetime(2011, 1, 1, tzinfo=UTC)
HOURS_PER_YEAR = 8_766


@request
def rental_clock() -> Sequence[pl.Expr]:
    """The hour as a place on the day's and on the year's circle, and the years gone by: the trade grows."""
    at = pl.col("hour_at")
    hour = pl.col("hr").cast(pl.Float64)
    hours = (at - pl.lit(_EPOCH)).dt.total_hours().cast(pl.Float64)
    day_turn = hour * (2 * math.pi / 24)
    year_turn = at.dt.ordinal_day().cast(pl.Float64) * (2 * math.pi / 365.25)
    return [
        day_turn.sin().alias("hour_sin"),
        day_turn.cos().alias("hour_cos"),
        year_turn.sin().alias("year_sin"),
        year_turn.cos().alias("year_cos"),
        (hours * (1 / HOURS_PER_YEAR)).alias("years_since_2011"),
        (pl.col("weekday").cast(pl.Float64) * 24 + hour).alias("hour_of_week"),
    ]


@request
def rental_rhythm() -> Sequence[pl.Expr]:
    """Commuters ride at rush hours of working days, the others on warm afternoons of free days."""
    hour, working = pl.col("hr"), pl.col("workingday") == 1
    rush = hour.is_in([7, 8, 17, 18])
    leisure = hour.is_between(10, 18) & ~working
    return [
        (rush & working).cast(pl.Float64).alias("commute"),
        leisure.cast(pl.Float64).alias("leisure"),
        (pl.col("temp") * leisure.cast(pl.Float64)).alias("warm_leisure"),
        (pl.col("workingday").cast(pl.Float64) * 24 + hour.cast(pl.Float64)).alias("hour_of_kind"),
    ]
