"""The two official files brought to one spelling."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

COLUMNS = (
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education_num",
    "marital_status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital_gain",
    "capital_loss",
    "hours_per_week",
    "native_country",
    "income",
)
TEXT = (
    "workclass",
    "education",
    "marital_status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "native_country",
    "income",
)


def derive(rows: pl.LazyFrame, references: Mapping[str, pl.LazyFrame]) -> pl.LazyFrame:
    """Strip the blank before each cell, make ``?`` null, and drop the dot after the test file's labels."""
    stripped = pl.col(TEXT).str.strip_chars()
    spelt = rows.with_columns(stripped).with_columns(pl.col("income").str.strip_suffix("."))
    return spelt.with_columns(pl.when(pl.col(name) != "?").then(name).alias(name) for name in TEXT)
