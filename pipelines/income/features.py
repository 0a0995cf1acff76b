"""Features of a person: money out of capital on the scale it works on, and the weight of hours and schooling."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from ferroflow.core.features import request


@request
def means() -> Sequence[pl.Expr]:
    """Capital on a logarithmic scale (nine in ten have none), and hours worked by rank of education."""
    gain, loss = pl.col("capital_gain").cast(pl.Float64), pl.col("capital_loss").cast(pl.Float64)
    schooling, hours = pl.col("education_num").cast(pl.Float64), pl.col("hours_per_week").cast(pl.Float64)
    return [
        gain.log1p().alias("log_capital_gain"),
        loss.log1p().alias("log_capital_loss"),
        (gain - loss).alias("capital"),
        (schooling * hours).alias("schooled_hours"),
        pl.col("marital_status").str.starts_with("Married").cast(pl.Float64).alias("married"),
    ]
