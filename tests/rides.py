"""A small pipeline for tests of the features: rides between stops, two stored views of one entity."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pandera.polars as pa
import polars as pl

from ferroflow.adapters.home import Home
from ferroflow.adapters.storage import atomic_parquet
from ferroflow.core.features import StoredFeatures, request, stored
from ferroflow.core.records import Validated
from ferroflow.core.spec import FixedFiles, PipelineSpec, Regression, Source

START = datetime(2023, 1, 1, tzinfo=UTC)
UTC_TIME = pl.Datetime("us", "UTC")


class Ride(pa.DataFrameModel):
    """A ride between two stops."""

    origin: pl.Int64
    destination: pl.Int64
    started: pl.Datetime("us", "UTC")
    ended: pl.Datetime("us", "UTC")
    minutes: pl.Float64


def summary(rows: pl.LazyFrame, key: str, hours: int) -> pl.LazyFrame:
    bucket = pl.col("ended").dt.truncate(f"{hours}h") + timedelta(hours=hours)
    grouped = rows.group_by(pl.col(key).alias("stop"), bucket.alias("available_at"))
    return grouped.agg(rides=pl.len().cast(pl.Float64), mean=pl.col("minutes").mean())


@request
def clock() -> Sequence[pl.Expr]:
    """The hour."""
    return [pl.col("started").dt.hour().alias("hour")]


@stored(entity="stop", on="origin", ttl="3h")
def departures(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Rides that began here."""
    return summary(rows, "origin", 1)


@stored(entity="stop", on="destination", ttl="2d")
def arrivals(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Rides that ended here."""
    return summary(rows, "destination", 6)


def pipeline(name: str = "rides", features: tuple[StoredFeatures, ...] = (departures, arrivals)) -> PipelineSpec:
    return PipelineSpec(
        name=name,
        description="How long a ride takes.",
        source=Source(files=FixedFiles(()), format="parquet", time="started"),
        schema=Ride,
        inputs=("origin", "destination", "started"),
        categorical=("origin", "destination"),
        features=(clock, *features),
        target=Regression("minutes", known_at="ended"),
    )


def write_view(home: Home, name: str, rows: list[tuple[int, float, float, float | None, float | None]]) -> None:
    """Rows of (stop, hours after START available, hours after START ingested, rides, mean)."""
    frame = pl.DataFrame(
        [(stop, START + timedelta(hours=a), START + timedelta(hours=i), *values) for stop, a, i, *values in rows],
        schema={
            "stop": pl.Int64,
            "available_at": UTC_TIME,
            "ingested_at": UTC_TIME,
            "rides": pl.Float64,
            "mean": pl.Float64,
        },
        orient="row",
    )
    atomic_parquet(home.offline("rides") / f"{name}.parquet", frame)


def write_views(home: Home) -> PipelineSpec:
    """The pipeline, with a few rows in its offline store."""
    write_view(home, "departures", [(1, 1, 9, 5.0, 10.0), (1, 2, 9, 6.0, None), (2, 2, 9, 7.0, 11.5)])
    write_view(home, "arrivals", [(1, 6, 9, 1.0, 2.0), (2, 6, 9, 3.0, 4.0), (2, 6, 10, 3.5, 4.5)])
    return pipeline()


def simulate(count: int, seed: int = 0) -> pl.DataFrame:
    """Accepted rides of five days: those long under way end well after later ones began."""
    dice = random.Random(seed)
    started = [START + timedelta(minutes=dice.randrange(5 * 24 * 60)) for _ in range(count)]
    minutes = [float(dice.randint(1, 180)) for _ in range(count)]
    return pl.DataFrame(
        {
            "origin": [dice.randint(1, 5) for _ in range(count)],
            "destination": [dice.randint(1, 5) for _ in range(count)],
            "started": started,
            "ended": [moment + timedelta(minutes=length) for moment, length in zip(started, minutes, strict=True)],
            "minutes": minutes,
            "row_id": [f"part:{number}" for number in range(count)],
            "ingested_at": [START + timedelta(days=9)] * count,
        },
        schema_overrides=dict.fromkeys(["started", "ended", "ingested_at"], UTC_TIME),
    )


def accept(home: Home, rows: pl.DataFrame, name: str = "v1", pipeline: str = "rides") -> Validated:
    """The record of these rows as accepted ones."""
    path = home.data(pipeline) / "validated" / name / "accepted.parquet"
    atomic_parquet(path, rows)
    return Validated(
        pipeline=pipeline,
        fingerprint=name,
        as_of=START + timedelta(days=9),
        accepted=(home.relative(path),),
        quarantined=(),
        rows_in=rows.height,
        rows_accepted=rows.height,
        rows_quarantined=0,
        reasons={},
        casts={},
    )
