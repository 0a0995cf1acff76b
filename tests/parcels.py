"""A small pipeline for tests of the data stations: parcels, their weight and the days they take."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pandera.polars as pa
import polars as pl
from pandera.polars import Field

from ferroflow.adapters.home import Home
from ferroflow.adapters.settings import Settings
from ferroflow.core.spec import FixedFiles, PipelineSpec, Reference, Regression, Source, SourceFile

NOW = datetime(2024, 5, 1, tzinfo=UTC)
AS_OF = datetime(2024, 4, 1, tzinfo=UTC)
HEADER = "id,sent,city,kilos,days\n"
GOOD = "1,2024-01-01 10:00:00,1,2.5,3\n2,2024-01-02 11:00,2,,4\n"


class Parcel(pa.DataFrameModel):
    """One parcel."""

    id: pl.Int64 = Field(unique=True)
    sent: pl.Datetime("us")
    city: pl.Int64
    kilos: pl.Float64 = Field(nullable=True, gt=0)
    days: pl.Float64 = Field(ge=1, le=30)
    sent_at: pl.Datetime("us", "UTC")
    country: pl.String


def derive(rows: pl.LazyFrame, references: Mapping[str, pl.LazyFrame]) -> pl.LazyFrame:
    """Add the UTC time and the city's country."""
    cities = references["cities"].select(pl.col("city").cast(pl.Int64), "country")
    timed = rows.with_columns(sent_at=pl.col("sent").dt.replace_time_zone("UTC"))
    return timed.join(cities, on="city", how="left", maintain_order="left")


def simulate(name: str, seed: int) -> pl.DataFrame:
    """The raw frame of a file."""
    if name == "cities.csv":
        return pl.DataFrame({"city": [1, 2], "country": ["IS", "NO"]})
    sent = [datetime(2024, 1, day + 1) for day in range(20)]
    return pl.DataFrame(
        {
            "id": list(range(20)),
            "sent": sent,
            "city": [1 + day % 2 for day in range(20)],
            "kilos": [seed + 0.5] * 20,
            "days": [2.0] * 20,
        }
    )


def parcels(
    url: str = "http://127.0.0.1:9", files: tuple[str, ...] = ("parcels.csv",), **source: object
) -> PipelineSpec:
    """The pipeline; its addresses lie below ``url`` (by default one where nobody listens)."""
    entries = tuple(SourceFile(f"{url}/{name}", f"post/{name}") for name in files)
    cities = SourceFile(f"{url}/cities.csv", "post/cities.csv")
    return PipelineSpec(
        name="parcels",
        description="Days a parcel takes.",
        source=Source(files=FixedFiles(entries), format="csv", time="sent_at", **source),
        references=(Reference(name="cities", file=cities),),
        derive=derive,
        schema=Parcel,
        inputs=("city", "kilos", "sent_at"),
        target=Regression("days"),
    )


def a_mirror(folder: Path, **files: str | bytes) -> Path:
    """A mirror with ``post/<name>.csv`` of the contents given, ``cities.csv`` and a good ``parcels.csv``."""
    contents: dict[str, str | bytes] = {"parcels": HEADER + GOOD, "cities": 'city,country\n1,"IS"\n2,"NO"\n', **files}
    (folder / "post").mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        data = content.encode() if isinstance(content, str) else content
        (folder / "post" / f"{name}.csv").write_bytes(data)
    return folder


def settings_for(home: Home, **given: object) -> Settings:
    """Settings that read no real mirror."""
    return Settings(home=home.root, **{"mirror": None, **given})
