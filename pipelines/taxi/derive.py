"""Columns made of the raw ones: UTC times, the duration, and the pick-up zone's borough."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from pipelines.taxi.features import TIMEZONE


def derive(rows: pl.LazyFrame, references: Mapping[str, pl.LazyFrame]) -> pl.LazyFrame:
    """Add ``pickup_at``, ``dropoff_at``, ``duration_minutes`` and ``borough``; rows and their order stay.

    Args:
        rows: raw trips with New York wall-clock times.
        references: ``zones``, the zone look-up, its columns spelt ``LocationID`` or ``location_id``.
    """
    timed = rows.with_columns(pickup_at=in_utc("lpep_pickup_datetime"), dropoff_at=in_utc("lpep_dropoff_datetime"))
    elapsed = (pl.col("dropoff_at") - pl.col("pickup_at")).dt.total_microseconds()
    # Polars divides by multiplying with the reciprocal: without the rounding 69 seconds are not quite 1.15 minutes.
    measured = timed.with_columns(duration_minutes=(elapsed / 60_000_000).round(9))
    return measured.join(boroughs(references["zones"]), on="PULocationID", how="left", maintain_order="left")


def in_utc(column: str) -> pl.Expr:
    """A wall-clock column in UTC.

    An hour that happens twice is taken as its first occurrence; one that never happens becomes null, so that its row is
    quarantined instead of guessed.
    """
    local = pl.col(column).dt.replace_time_zone(TIMEZONE, ambiguous="earliest", non_existent="null")
    return local.dt.convert_time_zone("UTC")


def boroughs(zones: pl.LazyFrame) -> pl.LazyFrame:
    """``PULocationID`` and ``borough``, one row a zone, from either spelling of the look-up's header."""
    spelt = zones.rename({name: name.lower().replace("_", "") for name in zones.collect_schema().names()})
    once = spelt.unique("locationid", keep="first", maintain_order=True)
    return once.select(PULocationID=pl.col("locationid").cast(pl.Int64, strict=False), borough="borough")
