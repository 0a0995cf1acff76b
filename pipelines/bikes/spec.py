"""Hourly demand for shared bikes: the table of contents of this pipeline."""

from __future__ import annotations

from datetime import UTC, datetime

from ferroflow.core.spec import (
    MLP,
    Baseline,
    BeatsBaseline,
    BeatsChampion,
    Boosting,
    ByTime,
    FixedFiles,
    InputDrift,
    LikeBefore,
    NoWorseSlice,
    Performance,
    PipelineSpec,
    Regression,
    Retrain,
    RowCount,
    Schedules,
    Skew,
    Source,
    SourceFile,
    Staleness,
    Tuning,
    UniqueShare,
)
from pipelines.bikes.derive import derive
from pipelines.bikes.features import rental_clock, rental_rhythm
from pipelines.bikes.schema import RentalHour

_ARCHIVE = "https://archive.ics.uci.edu/static/public/275/bike+sharing+dataset.zip"

pipeline = PipelineSpec(
    name="bikes",
    description="How many shared bikes will be rented in Washington in an hour.",
    source=Source(
        files=FixedFiles((SourceFile(_ARCHIVE, "bike_sharing/hour.csv", member="hour.csv"),)),
        format="csv",
        time="hour_at",
        timezone="UTC",
    ),
    derive=derive,
    schema=RentalHour,
    rules=(
        RowCount(at_least=1_000),
        UniqueShare(columns=("hour_at",), severity="warning"),
        LikeBefore(columns=("weathersit", "hum", "windspeed", "cnt"), severity="warning"),
    ),
    inputs=(
        "hour_at",
        "season",
        "hr",
        "holiday",
        "weekday",
        "workingday",
        "weathersit",
        "temp",
        "atemp",
        "hum",
        "windspeed",
    ),
    categorical=("season", "hr", "weekday", "weathersit"),
    features=(rental_clock, rental_rhythm),
    target=Regression("cnt", known_with=("casual", "registered")),
    candidates=(Boosting(), MLP()),
    baseline=Baseline(by=("hr", "workingday")),
    split=ByTime(validation="60d", test="60d"),
    tuning=Tuning(trials=10, seconds=45),
    gates=(BeatsBaseline(), BeatsChampion(confidence=0.95), NoWorseSlice("weathersit", tolerance=0.10)),
    monitors=(InputDrift(), Performance(window="7d"), Staleness("60d"), Skew()),
    retrain=Retrain(cooldown="1d", per_week=2, min_new_rows=336, window="600d", validation="28d", holdout="14d"),
    schedules=Schedules(ingest="30 4 * * *", monitor="30 5 * * *"),
    as_of=datetime(2013, 1, 1, tzinfo=UTC),
    owner="ferroflow",
)
