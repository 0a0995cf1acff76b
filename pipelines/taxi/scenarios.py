"""Changes planted into raw trips, real or simulated, to see what the house makes of them. All are pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np
import polars as pl

_BEGIN, _END = "lpep_pickup_datetime", "lpep_dropoff_datetime"


def slow_down(trips: pl.DataFrame, zones: Sequence[int], factor: float) -> pl.DataFrame:
    """Harm: trips that start in ``zones`` take ``factor`` times as long; their drop-off moves, nothing else."""
    longer = ((pl.col(_END) - pl.col(_BEGIN)).dt.total_microseconds() * factor).round().cast(pl.Int64)
    moved = (pl.col(_BEGIN) + longer.cast(pl.Duration("us"))).cast(trips.schema[_END])
    return trips.with_columns(pl.when(_starts_in(zones)).then(moved).otherwise(_END).alias(_END))


def shift_mix(trips: pl.DataFrame, zones: Sequence[int], factor: float, seed: int) -> pl.DataFrame:
    """Harmless drift: trips that start in ``zones`` are ``factor`` times as frequent; each trip stays as it is.

    Whole copies come first, the fraction by a seeded draw; copies stand beside their original.
    """
    dice = np.random.default_rng(seed).random(len(trips))
    inside = trips.select(_starts_in(zones).fill_null(False)).to_series().to_numpy()
    copies = np.where(inside, np.floor(factor) + (dice < factor % 1), 1).astype(np.int64)
    return trips[np.repeat(np.arange(len(trips)), copies)]


def busy_zones(trips: pl.DataFrame, share: float) -> list[int]:
    """The busiest pick-up zones that together make up about ``share`` of the trips: at least one, busiest first."""
    counts = trips.group_by("PULocationID").len().sort("len", "PULocationID", descending=[True, False])
    away = (counts["len"].cum_sum() / len(trips) - share).abs().to_numpy()
    return counts["PULocationID"].cast(pl.Int64).to_list()[: int(away.argmin()) + 1]


def days(trips: pl.DataFrame, first: date, count: int) -> list[pl.DataFrame]:
    """The trips of ``count`` wall-clock days from ``first`` on, by pick-up; trips of other days are left out."""
    day = pl.col(_BEGIN).dt.date()
    return [trips.filter(day == first + timedelta(days=ahead)) for ahead in range(count)]


def _starts_in(zones: Sequence[int]) -> pl.Expr:
    return pl.col("PULocationID").cast(pl.Int64).is_in(list(zones))
