"""Taxi features: what a trip may know, and when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ferroflow.core.features import AVAILABLE_AT, StoredFeatures
from pipelines.taxi.features import trip_clock, zone_day, zone_hour, zone_week

NEW_YORK = ZoneInfo("America/New_York")
START = datetime(2023, 3, 10, tzinfo=UTC)
VIEWS = [(zone_hour, timedelta(hours=1)), (zone_day, timedelta(days=1)), (zone_week, timedelta(days=7))]


def trips(ends: list[datetime], minutes: float = 10.0, zone: int = 7, miles: float = 2.0) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "PULocationID": [zone] * len(ends),
            "dropoff_at": pl.Series(ends, dtype=pl.Datetime("us", "UTC")),
            "duration_minutes": [minutes] * len(ends),
            "trip_distance": [miles] * len(ends),
        }
    )


def compute(view: StoredFeatures, rows: pl.DataFrame) -> pl.DataFrame:
    return view.compute(rows.lazy()).sort(view.entity, AVAILABLE_AT).collect()


@st.composite
def many_trips(draw: st.DrawFn) -> pl.DataFrame:
    trip = st.tuples(
        st.integers(1, 3),
        st.integers(0, 10 * 86_400),
        st.integers(60, 3600),
        st.floats(0, 60, allow_nan=False),
    )
    rows = draw(st.lists(trip, min_size=1, max_size=60))
    return pl.DataFrame(
        {
            "PULocationID": [row[0] for row in rows],
            "dropoff_at": [START + timedelta(seconds=row[1]) for row in rows],
            "duration_minutes": [row[2] / 60 for row in rows],
            "trip_distance": [row[3] for row in rows],
        },
        schema_overrides={"dropoff_at": pl.Datetime("us", "UTC"), "trip_distance": pl.Float64},
    )


@pytest.mark.parametrize("view", [zone_hour, zone_day, zone_week], ids=lambda view: view.name)
@settings(max_examples=40, deadline=None)
@given(rows=many_trips(), cut=st.integers(0, 10 * 24), factor=st.floats(0.1, 9))
def test_what_ends_later_changes_nothing_available_now(
    view: StoredFeatures, rows: pl.DataFrame, cut: int, factor: float
) -> None:
    now = START + timedelta(hours=cut)
    later = pl.col("dropoff_at") >= now
    changed = [
        rows.filter(~later),
        rows.with_columns(
            duration_minutes=pl.when(later).then(pl.col("duration_minutes") * factor).otherwise("duration_minutes")
        ),
        rows.with_columns(trip_distance=pl.when(later).then(0.0).otherwise("trip_distance")),
        rows.reverse(),
    ]
    known = compute(view, rows).filter(pl.col(AVAILABLE_AT) <= now)
    for other in changed:
        assert compute(view, other).filter(pl.col(AVAILABLE_AT) <= now).equals(known)


@pytest.mark.parametrize(("view", "width"), VIEWS, ids=lambda value: getattr(value, "name", ""))
@settings(max_examples=25, deadline=None)
@given(rows=many_trips())
def test_window_holds_exactly_the_drop_offs_of_its_width_before_its_end(
    view: StoredFeatures, width: timedelta, rows: pl.DataFrame
) -> None:
    for zone, end, trips_, minutes, _ in compute(view, rows).iter_rows():
        inside = rows.filter(
            pl.col("PULocationID") == zone, pl.col("dropoff_at") >= end - width, pl.col("dropoff_at") < end
        )
        assert trips_ == len(inside) > 0
        assert minutes == pytest.approx(inside["duration_minutes"].mean(), abs=1e-3)


def test_drop_off_at_the_window_end_belongs_to_the_next_window() -> None:
    found = compute(zone_hour, trips([START, START + timedelta(hours=1)]))
    assert found[AVAILABLE_AT].to_list() == [START + timedelta(hours=1), START + timedelta(hours=2)]
    assert found["trips"].to_list() == [1.0, 1.0]


def test_zero_distance_has_no_speed_but_counts_as_a_trip() -> None:
    [found] = compute(zone_hour, trips([START], miles=0.0)).to_dicts()
    assert (found["trips"], found["mean_speed"]) == (1.0, None)
    assert found["mean_minutes"] == pytest.approx(10.0)


def test_broken_meters_do_not_reach_the_mean_speed() -> None:
    rows = pl.concat([trips([START]), trips([START], miles=120_000.0)])
    assert compute(zone_hour, rows)["mean_speed"].to_list() == pytest.approx([12.0])


@pytest.mark.parametrize("day", [datetime(2023, 3, 12), datetime(2023, 11, 5)], ids=["spring", "autumn"])
def test_day_window_over_a_clock_change_is_24_real_hours(day: datetime) -> None:
    local = day.replace(hour=12, tzinfo=NEW_YORK).astimezone(UTC)
    ends = [local.replace(minute=30) - timedelta(hours=back) for back in range(30)]
    found = compute(zone_day, trips(ends)).filter(pl.col(AVAILABLE_AT) <= local + timedelta(hours=1))
    assert found["trips"].max() == 24.0


def test_clock_reads_new_york_on_both_sides_of_the_change() -> None:
    before = datetime(2023, 3, 12, 1, 59, tzinfo=NEW_YORK).astimezone(UTC)
    frame = pl.DataFrame(
        {"pickup_at": [before, before + timedelta(minutes=1)]}, schema={"pickup_at": pl.Datetime("us", "UTC")}
    )
    found = frame.select(trip_clock.expressions())
    assert found["hour"].to_list() == [1.0, 3.0]
    assert found["minute_of_day"].to_list() == [119.0, 180.0]


@pytest.mark.parametrize(
    ("day", "free"),
    [("2023-01-16", 1), ("2023-01-17", 0), ("2023-02-20", 1), ("2023-05-29", 1), ("2023-05-22", 0),
     ("2023-07-04", 1), ("2023-09-04", 1), ("2023-11-23", 1), ("2023-11-30", 0), ("2023-12-25", 1)],
)  # fmt: skip
def test_holidays_are_those_of_the_calendar(day: str, free: int) -> None:
    noon = datetime.fromisoformat(day).replace(hour=12, tzinfo=NEW_YORK).astimezone(UTC)
    frame = pl.DataFrame({"pickup_at": [noon]}, schema={"pickup_at": pl.Datetime("us", "UTC")})
    assert frame.select(trip_clock.expressions())["holiday"].to_list() == [free]


def test_late_minutes_do_not_wrap() -> None:
    frame = pl.DataFrame(
        {"pickup_at": [datetime(2023, 1, 2, 4, 59, tzinfo=UTC)]}, schema={"pickup_at": pl.Datetime("us", "UTC")}
    )
    assert frame.select(trip_clock.expressions())["minute_of_day"].to_list() == [1439.0]
