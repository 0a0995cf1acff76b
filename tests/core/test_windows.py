"""Window features: one definition, three computations, equal values."""

from __future__ import annotations

import inspect
import math
import random
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ferroflow.adapters.feast.packed import PackedStore
from ferroflow.adapters.home import Home
from ferroflow.core import aggregates
from ferroflow.core.aggregates import Aggregate
from ferroflow.core.definitions import Feature, feature
from ferroflow.core.errors import DataError, SpecError
from ferroflow.core.features import AVAILABLE_AT, StoredFeatures
from ferroflow.core.windows import WindowFeatures, windows
from ferroflow.stations.features import build_features, materialize
from pipelines.taxi import features as taxi
from tests.core import windowed
from tests.core.windowed import (
    ALL,
    EVENTS,
    SCHEMA,
    START,
    each_view,
    events,
    hour,
    latest,
    long_trips,
    seconds,
    spread,
    three_hours,
    total,
    trips,
    view,
)
from tests.rides import START as START_OF_RIDES
from tests.rides import accept, pipeline, simulate


def held(rows: list[dict[str, Any]], of: WindowFeatures) -> list[tuple[int, datetime, list[dict[str, Any]]]]:
    """Entity, moment and events of each window, said as plainly as can be."""
    found = []
    span = of.window.span
    for stop in sorted({row["stop"] for row in rows}):
        mine = sorted((row for row in rows if row["stop"] == stop), key=lambda row: row["at"])
        if of.name.startswith("last"):
            for moment in sorted({row["at"] for row in mine}):
                found.append((stop, moment, [row for row in mine if row["at"] <= moment][-span.events :]))
            continue
        last, every = timedelta(microseconds=span.last), timedelta(microseconds=span.every)
        for number in range(-12, 60):
            end = START + number * every
            inside = [row for row in mine if end - last <= row["at"] < end]
            found += [(stop, end, inside)] if inside else []
    return found


def told(inside: list[dict[str, Any]]) -> list[float | None]:
    """The features of a window's events, in whole steps."""
    known = [row for row in inside if row["minutes"] is not None and not math.isnan(row["minutes"])]
    thousandths = [round(row["minutes"] * 1000) for row in known]
    of_seconds = [row["minutes"] * 60 for row in known]
    tenths = [round(row["minutes"] * 10) for row in known]
    counted = [step for row, step in zip(known, thousandths, strict=True) if row["minutes"] != 0]
    stamped = [(row["at"], step) for row, step in zip(known, thousandths, strict=True) if row["minutes"] > -2]
    mean = sum(tenths) / len(tenths) if tenths else 0
    spread = math.sqrt(sum((step - mean) ** 2 for step in tenths) / (len(tenths) - 1)) / 10 if len(known) > 1 else None
    return [
        len(inside),
        sum(row["minutes"] is not None and not row["minutes"] <= 1 for row in inside),  # Polars: NaN is the greatest
        sum(thousandths) / 1000,
        sum(counted) // len(counted) / 1000 if counted else None,
        spread,
        min(round(value * 1000) for value in of_seconds) / 1000 if known else None,
        max(round(value) for value in of_seconds) if known else None,
        max(stamped)[1] / 1000 if stamped else None,
    ]


@each_view
@settings(max_examples=30, deadline=None)
@given(rows=EVENTS)
def test_a_row_for_each_window_with_an_event_tells_of_exactly_the_events_in_it(
    view: WindowFeatures, rows: list[tuple[int, int, float | None]]
) -> None:
    frame = events(rows)
    found = view.evaluate(frame)
    expected = held(frame.to_dicts(), view)
    assert found.select("place", AVAILABLE_AT).rows() == [(stop, moment) for stop, moment, _ in expected]
    for row, (_, _, inside) in zip(found.drop("place", AVAILABLE_AT).rows(), expected, strict=True):
        assert list(row) == [value if value is None else pytest.approx(value, abs=2e-3) for value in told(inside)]
        assert [row[at] for at in (0, 1, 2)] == pytest.approx([told(inside)[at] for at in (0, 1, 2)], rel=1e-12)


# ------------------------------------------------------------------------------------------------------ request time


@each_view
@settings(max_examples=40, deadline=None)
@given(rows=EVENTS, minute=st.integers(-60, 700))
def test_values_at_a_moment_are_those_that_a_look_up_finds_in_the_batch(
    view: WindowFeatures, rows: list[tuple[int, int, float | None]], minute: int
) -> None:
    frame, moment = events(rows), START + timedelta(minutes=minute)
    batch = view.evaluate(frame).filter(pl.col(AVAILABLE_AT).is_between(moment - view.ttl, moment))
    expected = batch.unique("place", keep="last", maintain_order=True)
    recent = frame if view.history is None else frame.filter(pl.col("at") >= moment - view.history)
    assert view.at(recent, moment).equals(expected)


def test_a_moment_without_a_time_zone_is_refused() -> None:
    with pytest.raises(DataError, match="no time zone"):
        hour.at(events([]), datetime(2023, 3, 10))


# --------------------------------------------------------------------------------------------------------- exactness


def test_values_do_not_depend_on_the_order_of_the_rows_or_on_how_they_are_computed() -> None:
    dice = random.Random(7)
    rows = [(dice.randrange(3), dice.randrange(600), dice.uniform(-1000, 1000)) for _ in range(2000)]
    frame = events(rows)
    once = three_hours.evaluate(frame)
    assert three_hours.evaluate(frame.sample(fraction=1.0, shuffle=True, seed=1)).equals(once)
    streamed = three_hours.compute(frame.lazy()).sort("place", AVAILABLE_AT).collect(engine="streaming")
    assert streamed.equals(once)
    one_by_one = pl.concat(three_hours.window.values(row.lazy()).collect() for row in merged_rows(frame))
    assert one_by_one.sort("place", AVAILABLE_AT).equals(once)


def merged_rows(frame: pl.DataFrame) -> list[pl.DataFrame]:
    """Every window's merged integers, a frame each: Polars computes some things otherwise for one row."""
    window = three_hours.window
    buckets = window.span.condensed(window.partials(frame.lazy()), "place", window.merges)
    return list(window.span.windows(buckets, "place", window.merges).collect().iter_slices(1))


def test_a_sum_beyond_64_bits_is_exact() -> None:
    most = [2.0**62, 2.0**62, 2.0**62, -(2.0**62), 1.0]

    @feature
    def total(minutes: pl.Expr) -> Aggregate:
        return aggregates.sum(minutes, per_unit=1)

    found = view("wide", [total], last="1h").evaluate(events([(1, 1, value) for value in most]))
    assert found["total"].to_list() == [2.0**63]


@pytest.mark.parametrize(("of", "value"), [(total, 1e16), (total, math.inf), (spread, 2.2e8), (latest, -math.inf)])
def test_a_value_too_great_to_be_counted_is_an_error_and_never_a_wrong_number(of: Feature, value: float) -> None:
    one = view("one", [of], last="1h")
    if of is latest:
        assert one.evaluate(events([(1, 1, value)]))["latest"].to_list() == [None]  # its where= leaves it out
        return
    with pytest.raises(DataError, match="'one': conversion from"):
        one.evaluate(events([(1, 1, value)]))


def test_an_event_without_entity_or_time_is_in_no_window() -> None:
    assert hour.evaluate(events([(None, 1, 1.0), (1, None, 1.0)])).is_empty()


# ----------------------------------------------------------------------------------------------- the taxi's own windows


def by_hand(rows: pl.LazyFrame, every: timedelta, steps: int) -> pl.LazyFrame:
    """The same without the framework: a window that ends at H holds the drop-offs in [H - steps * every, H)."""
    buckets = per_bucket(rows, every)
    ends = [buckets.with_columns((pl.col("bucket") + every * step).alias(AVAILABLE_AT)) for step in range(1, steps + 1)]
    sums = pl.concat(ends).group_by("zone", AVAILABLE_AT).agg(pl.col("trips", "time", "timed", "speed").sum())
    return sums.select(
        "zone",
        AVAILABLE_AT,
        trips=pl.col("trips").cast(pl.Float64),
        mean_minutes=(pl.col("time") // pl.col("trips")).cast(pl.Float64) * (1 / taxi.MILLISECONDS_PER_MINUTE),
        # Division by zero is null here: no trip whose speed could be measured.
        mean_speed=(pl.col("speed") // pl.col("timed")).cast(pl.Float64) * (1 / 1000),
    )


def per_bucket(rows: pl.LazyFrame, every: timedelta) -> pl.LazyFrame:
    time = (pl.col("duration_minutes") * taxi.MILLISECONDS_PER_MINUTE).round().cast(pl.Int64)
    miles = (pl.col("trip_distance") * 1000).round().cast(pl.Int64)
    speed = miles * (60 * taxi.MILLISECONDS_PER_MINUTE) // time
    real = speed.is_between(*taxi.SPEEDS)
    keys = [pl.col("PULocationID").alias("zone"), pl.col("dropoff_at").dt.truncate(every).alias("bucket")]
    return rows.group_by(keys).agg(
        trips=pl.len().cast(pl.Int64),
        time=time.sum(),
        timed=real.sum().cast(pl.Int64),
        speed=pl.when(real).then(speed).otherwise(0).sum(),
    )


@pytest.mark.parametrize(
    ("written", "every", "steps"),
    [
        (taxi.zone_hour, timedelta(hours=1), 1),
        (taxi.zone_day, timedelta(hours=6), 4),
        (taxi.zone_week, timedelta(days=1), 7),
    ],
    ids=["hour", "day", "week"],
)
def test_the_taxis_windows_equal_those_written_by_hand(written: WindowFeatures, every: timedelta, steps: int) -> None:
    dice = random.Random(3)
    rows = pl.DataFrame(
        [
            {
                "PULocationID": dice.randrange(1, 6),
                "dropoff_at": START + timedelta(microseconds=dice.randrange(20 * 86_400_000_000)),
                "duration_minutes": dice.choice([0.0, dice.uniform(0.01, 90)]),
                "trip_distance": dice.choice([0.0, dice.uniform(0, 30), 1e5]),
            }
            for _ in range(3000)
        ],
        schema_overrides={"dropoff_at": pl.Datetime("us", "UTC")},
    )
    expected = by_hand(rows.lazy(), every, steps).sort("zone", AVAILABLE_AT).collect()
    assert written.evaluate(rows).equals(expected)
    assert written.outputs(rows.schema) == {name: pl.Float64() for name in expected.columns[2:]}


# ---------------------------------------------------------------------------------------------------------- definition


def test_windows_are_stored_features_that_lead_to_the_file_they_are_written_in() -> None:
    assert isinstance(hour, StoredFeatures)
    assert (hour.name, hour.entity, hour.on, hour.ttl) == ("hour", "place", "origin", timedelta(hours=5))
    assert inspect.getfile(hour.function) == windowed.__file__
    assert list(hour.outputs(SCHEMA)) == [part.name for part in ALL]
    assert {str(kind) for kind in hour.outputs(SCHEMA).values()} == {"Float64"}
    assert (hour.parts[0].description, hour.parts[0].owner) == ("How many trips ended.", "dispatch")


@feature
def place(minutes: pl.Expr) -> Aggregate:
    return aggregates.sum(minutes)


@feature
def share(trips: pl.Expr) -> Aggregate:
    return aggregates.mean(trips)


@feature
def hidden(minutes: pl.Expr) -> Aggregate:
    return aggregates.mean(minutes, where=pl.col("fare") > 0)


@feature
def halves(minutes: pl.Expr) -> Aggregate:
    return aggregates.mean(minutes, per_unit=0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, "give either last"),
        ({"last": "1h", "events": 3}, "give either last"),
        ({"last": "1h", "every": "25m"}, "last='1h' is no multiple of every='25m'"),
        ({"last": "0h"}, "no multiple"),
        ({"last": "an hour"}, "'an hour' is no duration"),
        ({"events": 0}, "events is 0"),
        ({"events": 3, "every": "1h"}, "every is for windows of time"),
        ({"last": "24h", "every": "6h"}, "lives 5h but the next one comes after 6h"),
        ({"last": "1h", "features": []}, "have no function"),
        ({"last": "1h", "features": [seconds], "intermediate": []}, "'seconds' gives Expr, not an aggregate"),
        ({"last": "1h", "features": [trips, trips]}, "two functions named 'trips'"),
        ({"last": "1h", "features": [trips], "intermediate": [long_trips]}, "'long_trips' gives Aggregate"),
        ({"last": "1h", "features": [trips, share]}, "'share' depends on trips, which is another window feature"),
        ({"last": "1h", "features": [hidden]}, "'hidden' reads fare"),
        ({"last": "1h", "features": [place]}, "a feature named place"),
    ],
)
def test_a_window_that_contradicts_itself_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        view("odd", **changed)


def test_a_value_is_counted_in_a_whole_number_of_steps() -> None:
    with pytest.raises(SpecError, match=r"per_unit is 0\.5"):
        view("odd", [halves], last="1h")


# --------------------------------------------------------------------------------------------------- in a pipeline


def test_a_training_table_and_the_online_store_hold_what_is_computed_at_request_time(home: Home) -> None:
    @feature
    def rides() -> Aggregate:
        return aggregates.count()

    @feature
    def mean(minutes: pl.Expr) -> Aggregate:
        return aggregates.mean(minutes)

    def of_stop(name: str, **given: Any) -> WindowFeatures:
        return windows(name, entity="stop", on="origin", time="ended", features=(rides, mean), **given)

    views = (of_stop("lately", last="2h", every="1h", ttl="3h"), of_stop("recent", events=5, ttl="2d"))
    rows, as_of = simulate(1000), START_OF_RIDES + timedelta(days=4)
    spec = pipeline(features=views)
    made = pl.read_parquet(home.absolute(build_features(spec, accept(home, rows), as_of, home).path))
    for row in made.sample(25, seed=2).iter_rows(named=True):
        for one in views:
            found = one.at(rows.filter(pl.col("origin") == row["origin"]), row["started"])
            values = found.select("rides", "mean").row(0) if found.height else (None, None)
            assert (row[f"{one.name}__rides"], row[f"{one.name}__mean"]) == values
    materialize(spec, as_of, home)
    with PackedStore(home.online(spec.name)) as store:
        for one in views:
            expected = {row["stop"]: (row["rides"], row["mean"]) for row in one.at(rows, as_of).to_dicts()}
            stored = store.read(one.name, list(expected), ["rides", "mean"])
            assert {key: tuple(values) for key, (_, values) in stored.items()} == expected
