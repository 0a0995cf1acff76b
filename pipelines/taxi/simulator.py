"""A small seeded city whose best possible error is known: the off-line stand-in for the published files.

Forty zones in four boroughs. The expected duration of a trip follows from its zones, its distance and New York's clock
alone; the real one is that times log-normal noise (mean 1, sigma ``NOISE``). No model can beat :func:`noise_floor`.
Rows with exactly one fault each are planted among the clean ones, and :func:`planted` says how many.
The city is always the same; the seed picks the trips.
"""

from __future__ import annotations

import math
import re
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import polars as pl

from ferroflow.core.errors import NotFound
from pipelines.taxi.derive import in_utc
from pipelines.taxi.features import TIMEZONE

NOISE = 0.22
LOOKUP = "taxi_zone_lookup.csv"
BOROUGHS = ("Manhattan", "Queens", "Brooklyn", "Bronx")
FAULTS = ("zone", "distance", "missing", "date", "short", "long")
"""Unknown zone, negative distance, no distance, a stray year, under a minute, over an hour."""

_MONTH = re.compile(r"green_tripdata_(\d{4})-(\d{2})\.parquet")
_HOURLY = np.array([6, 4, 3, 2, 2, 3, 8, 14, 18, 17, 16, 16, 17, 17, 19, 21, 23, 25, 25, 21, 17, 14, 11, 8], float)
_SLOW = np.array([0, 0, 0, 0, 0, 0, 2, 5, 6, 5, 4, 4, 4, 4, 5, 6, 7, 7, 6, 4, 3, 2, 1, 0], float) / 10

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class City:
    """Zone ids (40), boroughs (40), shares of the pick-ups (40), and by pair (40 × 40): miles, share, slowness."""

    zones: npt.NDArray[np.int64]
    boroughs: tuple[str, ...]
    pickups: Floats
    miles: Floats
    dropoffs: Floats
    slowness: Floats


@cache
def city() -> City:
    """The one city, made once."""
    rng = np.random.default_rng(20_230_101)
    centres = np.array([[0.0, 0.0], [6.0, -1.0], [3.0, -7.0], [2.0, 7.0]])
    spots = np.repeat(centres, 10, axis=0) + rng.normal(0, 1.6, (40, 2))
    miles = 1.1 * np.abs(spots[:, None] - spots[None]).sum(axis=2) + 0.7
    pickups = np.repeat([6.0, 3.0, 2.0, 1.0], 10) * rng.pareto(2.0, 40).clip(0.2, 4)
    pull = pickups[None] * np.exp(-miles / 3)
    return City(
        zones=np.sort(rng.choice(np.arange(1, 264), 40, replace=False)),
        boroughs=tuple(np.repeat(BOROUGHS, 10).tolist()),
        pickups=pickups / pickups.sum(),
        miles=miles,
        dropoffs=pull / pull.sum(axis=1, keepdims=True),
        slowness=np.exp(rng.normal(0, 0.25, (40, 40))),
    )


def simulate(file_name: str, seed: int, rows: int | None = None) -> pl.DataFrame:
    """A month's raw trips, or the zone look-up, as the published file of that name would hold them.

    Args:
        file_name: ``green_tripdata_YYYY-MM.parquet`` or ``taxi_zone_lookup.csv``.
        seed: picks the trips.
        rows: how many trips, faulty ones included; None: about as many as a real month has.

    Raises:
        NotFound: another name.
    """
    if file_name == LOOKUP:
        return _lookup()
    year, month = _year_month(file_name)
    rng = _rng(file_name, seed)
    faults = planted(file_name, seed, rows)
    trips = _clean(year, month, _size(file_name, seed, rows), rng)
    return _published(_spoil(trips, faults, rng), year, month, rng)


def planted(file_name: str, seed: int, rows: int | None = None) -> dict[str, int]:
    """How many rows of a simulated month have each of ``FAULTS``; no row has two."""
    rng = _rng("faults of " + file_name, seed)
    size = _size(file_name, seed, rows)
    return {fault: int(rng.integers(1, max(2, size // 100))) for fault in FAULTS}


def noise_floor(trips: int = 60_000) -> float:
    """RMSE, in minutes, of the best possible predictor on clean rows of 1–60 minutes.

    The clean rows' durations are log-normal given their inputs, cut to [1, 60]; the floor is the root of their mean
    conditional variance, over that many trips. Moments: Johnson, Kotz & Balakrishnan 1994, ch. 14.
    """
    expected = _clean(2023, 1, trips, _rng("floor", 0))["expected"].to_numpy()
    mean, square = (_cut_moment(expected, order) for order in (1, 2))
    return float(np.sqrt((square - mean**2).mean()))


def best_prediction(expected: Floats) -> Floats:
    """Mean duration given the inputs, for rows of 1–60 minutes: what the best possible predictor answers."""
    return _cut_moment(expected, 1)


def expected_minutes(trips: pl.DataFrame) -> Floats:
    """The expected duration, before the cut to 1–60 minutes, of clean raw trips."""
    at = np.searchsorted(city().zones, trips["PULocationID"].to_numpy())
    to = np.searchsorted(city().zones, trips["DOLocationID"].to_numpy())
    return _expected(at, to, trips["trip_distance"].to_numpy(), trips["lpep_pickup_datetime"])


def _expected(at: npt.NDArray[np.int64], to: npt.NDArray[np.int64], miles: Floats, wall: pl.Series) -> Floats:
    weekday = (wall.dt.weekday() <= 5).to_numpy()
    slow = _SLOW[wall.dt.hour().to_numpy()] * np.where(weekday, 1.0, 0.5)
    return 2.5 + miles * 3.0 * (1 + slow) * city().slowness[at, to]


def _cut_moment(expected: Floats, order: int) -> Floats:
    centre = np.log(expected) - NOISE**2 / 2
    low, high = (math.log(1.0) - centre) / NOISE, (math.log(60.0) - centre) / NOISE
    shift = order * NOISE
    whole = np.exp(order * centre + shift**2 / 2)
    return whole * (_normal(high - shift) - _normal(low - shift)) / (_normal(high) - _normal(low))


def _normal(x: Floats) -> Floats:
    return 0.5 * (1 + np.vectorize(math.erf, otypes=[float])(x / math.sqrt(2)))


def _clean(year: int, month: int, count: int, rng: np.random.Generator) -> pl.DataFrame:
    drawn = pl.DataFrame()
    while len(drawn) < count:
        drawn = pl.concat([drawn, _draw(year, month, int(count * 1.5) + 100, rng)], how="diagonal")
    return drawn.head(count).sort("lpep_pickup_datetime", maintain_order=True)


def _draw(year: int, month: int, count: int, rng: np.random.Generator) -> pl.DataFrame:
    """About two in three of ``count`` trips: those at busy hours, of 1–60 minutes, at unambiguous wall-clock times."""
    here = city()
    at = rng.choice(40, count, p=here.pickups)
    to = (rng.random((count, 1)) > np.cumsum(here.dropoffs, axis=1)[at]).sum(axis=1).clip(0, 39)
    miles = np.round(here.miles[at, to] * np.exp(rng.normal(0, 0.08, count)), 2)
    started = (
        pl.Series(_seconds(year, month, count, rng) * 1_000_000).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    )
    wall = started.dt.convert_time_zone(TIMEZONE).dt.replace_time_zone(None)
    expected = _expected(at, to, miles, wall)
    seconds = np.round(expected * np.exp(rng.normal(-(NOISE**2) / 2, NOISE, count)) * 60)
    trips = pl.DataFrame(
        {"PULocationID": here.zones[at], "DOLocationID": here.zones[to], "trip_distance": miles, "expected": expected}
    ).with_columns(
        started=started,
        ended=started + pl.Series(seconds.astype(np.int64) * 1_000_000).cast(pl.Duration("us")),
        kept=pl.Series(
            (rng.random(count) < _HOURLY[wall.dt.hour().to_numpy()] / 25) & (seconds >= 60) & (seconds <= 3600)
        ),
    )
    return (
        _on_the_wall(trips)
        .filter(
            "kept",
            in_utc("lpep_pickup_datetime") == pl.col("started"),
            in_utc("lpep_dropoff_datetime") == pl.col("ended"),
        )
        .drop("kept", "started", "ended")
    )


def _on_the_wall(trips: pl.DataFrame) -> pl.DataFrame:
    local = {"lpep_pickup_datetime": "started", "lpep_dropoff_datetime": "ended"}
    return trips.with_columns(
        pl.col(utc).dt.convert_time_zone(TIMEZONE).dt.replace_time_zone(None).alias(name) for name, utc in local.items()
    )


def _seconds(year: int, month: int, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    here = ZoneInfo(TIMEZONE)
    start = datetime(year, month, 1, tzinfo=here).astimezone(UTC)
    end = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=here).astimezone(UTC)
    return rng.integers(int(start.timestamp()), int(end.timestamp()), count)


def _spoil(trips: pl.DataFrame, faults: dict[str, int], rng: np.random.Generator) -> pl.DataFrame:
    """Plant each fault in rows of its own."""
    kinds = np.full(len(trips), "", dtype=object)
    chosen = rng.permutation(len(trips))[: sum(faults.values())]
    kinds[chosen] = np.repeat(list(faults), list(faults.values()))
    fault, begin, end = pl.col("fault"), pl.col("lpep_pickup_datetime"), pl.col("lpep_dropoff_datetime")
    years = pl.duration(days=5_110)
    return (
        trips.with_columns(pl.Series("fault", kinds.tolist(), pl.String))
        .with_columns(
            PULocationID=pl.when(fault == "zone").then(999).otherwise("PULocationID"),
            trip_distance=pl.when(fault == "distance").then(-1.0).when(fault != "missing").then("trip_distance"),
            lpep_pickup_datetime=pl.when(fault == "date").then(begin - years).otherwise(begin),
            lpep_dropoff_datetime=pl.when(fault == "date")
            .then(end - years)
            .when(fault == "short")
            .then(begin + pl.duration(seconds=5))
            .when(fault == "long")
            .then(begin + pl.duration(hours=23))
            .otherwise(end),
        )
        .drop("fault", "expected")
    )


def _published(trips: pl.DataFrame, year: int, month: int, rng: np.random.Generator) -> pl.DataFrame:
    """The twenty columns in their order, with the types that file had: they drifted in February and April 2023."""
    size = len(trips)
    told = pl.Series(rng.random(size) > 0.065)
    minutes = (pl.col("lpep_dropoff_datetime") - pl.col("lpep_pickup_datetime")).dt.total_seconds() / 60
    fare = (3 + 0.7 * minutes.clip(0, 120) + pl.col("trip_distance").fill_null(0)).round(1)
    tip = pl.Series(rng.choice([0.0, 2.0, 3.5], size))
    whole = pl.Int32 if (year, month) >= (2023, 2) else pl.Int64
    coded = pl.Int64 if (year, month) >= (2023, 4) else pl.Float64
    return trips.select(
        VendorID=pl.Series(rng.choice([1, 2], size, p=[0.14, 0.86])).cast(whole),
        lpep_pickup_datetime="lpep_pickup_datetime",
        lpep_dropoff_datetime="lpep_dropoff_datetime",
        store_and_fwd_flag=pl.when(told).then(pl.lit("N")),
        RatecodeID=pl.when(told).then(1).cast(coded),
        PULocationID=pl.col("PULocationID").cast(whole),
        DOLocationID=pl.col("DOLocationID").cast(whole),
        passenger_count=pl.when(told).then(pl.Series(rng.integers(1, 5, size))).cast(coded),
        trip_distance="trip_distance",
        fare_amount=fare,
        extra=pl.lit(0.5),
        mta_tax=pl.lit(0.5),
        tip_amount=tip,
        tolls_amount=pl.lit(0.0),
        ehail_fee=pl.lit(None, pl.Null if (year, month) < (2023, 2) else pl.Float64),
        improvement_surcharge=pl.lit(1.0),
        total_amount=fare + tip + 2.0,
        payment_type=pl.when(told).then(pl.when(tip > 0).then(1).otherwise(2)).cast(coded),
        trip_type=pl.when(told).then(1).cast(coded),
        congestion_surcharge=pl.when(told).then(0.0),
    )


def _lookup() -> pl.DataFrame:
    here = city()
    names = [f"{borough} {place % 10 + 1}" for place, borough in enumerate(here.boroughs)]
    columns = {"LocationID": here.zones, "Borough": here.boroughs, "Zone": names, "service_zone": ["Boro Zone"] * 40}
    return pl.DataFrame(columns)


def _year_month(file_name: str) -> tuple[int, int]:
    match = _MONTH.fullmatch(file_name)
    if match is None or not 1 <= int(match[2]) <= 12:
        raise NotFound(f"The taxi simulator makes green_tripdata_YYYY-MM.parquet and {LOOKUP}, not {file_name!r}.")
    return int(match[1]), int(match[2])


def _size(file_name: str, seed: int, rows: int | None) -> int:
    _year_month(file_name)
    return rows if rows is not None else int(_rng("size of " + file_name, seed).integers(55_000, 66_000))


def _rng(purpose: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(purpose.encode()), seed])
