"""The event time of an hour of rentals."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl


def derive(rows: pl.LazyFrame, references: Mapping[str, pl.LazyFrame]) -> pl.LazyFrame:
    """Add ``hour_at``, the start of the hour.

    The file holds Washington's wall clock without a word on daylight saving, and counts every day as 24 hours: the wall
    clock is kept as it is and called UTC, so that an hour of the day stays that hour all year.
    """
    day = pl.col("dteday").str.to_datetime("%Y-%m-%d", strict=False, time_unit="us", time_zone="UTC")
    return rows.with_columns(hour_at=day + pl.duration(hours=pl.col("hr")))
