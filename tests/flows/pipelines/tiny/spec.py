"""A pipeline that trains in seconds: how many minutes a walk takes. Its ingest is scheduled each minute."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import pandera.polars as pa
import polars as pl
from pandera.polars import Field

from ferroflow.core.spec import (
    Baseline,
    BeatsBaseline,
    BeatsChampion,
    Boosting,
    ByTime,
    FixedFiles,
    PipelineSpec,
    Regression,
    Retrain,
    Schedules,
    Source,
    SourceFile,
    Tuning,
)


class Walk(pa.DataFrameModel):
    """One walk."""

    at: pl.Datetime("us")
    place: pl.Int64 = Field(isin=[0, 1, 2, 3])
    length: pl.Float64 = Field(ge=0, le=10)
    minutes: pl.Float64 = Field(ge=0, le=500)
    begun: pl.Datetime("us", "UTC")


def derive(rows: pl.LazyFrame, references: Mapping[str, pl.LazyFrame]) -> pl.LazyFrame:
    """Add the time in UTC."""
    return rows.with_columns(begun=pl.col("at").dt.replace_time_zone("UTC"))


pipeline = PipelineSpec(
    name="tiny",
    description="How long a walk takes.",
    source=Source(
        files=FixedFiles((SourceFile("http://127.0.0.1:9/walks.csv", "walks.csv"),)), format="csv", time="begun"
    ),
    schema=Walk,
    derive=derive,
    inputs=("begun", "place", "length"),
    categorical=("place",),
    target=Regression("minutes"),
    candidates=(Boosting(),),
    baseline=Baseline(by=("place",)),
    split=ByTime(validation="5d", test="5d"),
    tuning=Tuning(trials=2, seconds=5),
    gates=(BeatsBaseline(), BeatsChampion()),
    retrain=Retrain(min_new_rows=10, window="20d", validation="5d", holdout="5d"),
    schedules=Schedules(ingest="* * * * *", monitor="0 0 1 1 *"),
    as_of=datetime(2024, 2, 10, tzinfo=UTC),
)
