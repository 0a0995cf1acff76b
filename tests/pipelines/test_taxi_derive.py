"""Columns made of raw trips: times, durations, boroughs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from pipelines.taxi.derive import derive

OFFICIAL = pl.LazyFrame({"LocationID": ["1", "2"], "Borough": ["EWR", "Queens"], "Zone": ["a", "b"]})
LOWER = pl.LazyFrame({"location_id": ["1", "2"], "borough": ["EWR", "Queens"], "zone": ["a", "b"]})


def derived(begin: datetime, end: datetime, zones: list[int], look_up: pl.LazyFrame = OFFICIAL) -> pl.DataFrame:
    wall = pl.Datetime("us")
    rows = pl.LazyFrame(
        {
            "PULocationID": zones,
            "lpep_pickup_datetime": pl.Series([begin] * len(zones), dtype=wall),
            "lpep_dropoff_datetime": pl.Series([end] * len(zones), dtype=wall),
        }
    )
    return derive(rows, {"zones": look_up}).collect()


def test_trip_over_the_spring_change_is_an_hour_shorter_than_the_wall_clock_says() -> None:
    found = derived(datetime(2023, 3, 12, 1, 50), datetime(2023, 3, 12, 3, 10), [1])
    assert found["duration_minutes"].to_list() == [20.0]


def test_wall_clock_of_an_hour_that_never_was_becomes_null_and_the_row_stays() -> None:
    found = derived(datetime(2023, 3, 12, 2, 30), datetime(2023, 3, 12, 3, 10), [1, 2])
    assert found["pickup_at"].null_count() == found["duration_minutes"].null_count() == len(found) == 2


def test_hour_that_was_twice_is_taken_as_the_first() -> None:
    found = derived(datetime(2023, 11, 5, 1, 30), datetime(2023, 11, 5, 1, 40), [1])
    assert found["pickup_at"].to_list() == [datetime(2023, 11, 5, 5, 30, tzinfo=UTC)]


@pytest.mark.parametrize("look_up", [OFFICIAL, LOWER], ids=["official", "lower"])
def test_both_spellings_of_the_look_up_give_boroughs_in_row_order(look_up: pl.LazyFrame) -> None:
    found = derived(datetime(2023, 1, 1, 1), datetime(2023, 1, 1, 2), [2, 1, 99, 2], look_up)
    assert found["borough"].to_list() == ["Queens", "EWR", None, "Queens"]


def test_zone_told_twice_in_the_look_up_does_not_double_rows() -> None:
    found = derived(datetime(2023, 1, 1, 1), datetime(2023, 1, 1, 2), [2, 1], pl.concat([OFFICIAL, OFFICIAL]))
    assert len(found) == 2


def test_duration_is_the_nearest_number_in_any_number_of_rows() -> None:
    for seconds in range(60, 3600):
        found = derived(datetime(2023, 1, 1, 1), datetime(2023, 1, 1, 1) + timedelta(seconds=seconds), [1] * 3)
        assert set(found["duration_minutes"]) == {round(seconds / 60, 9)}
