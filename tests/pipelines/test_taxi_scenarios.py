"""Changes planted into raw trips."""

from __future__ import annotations

from datetime import date

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from pipelines.taxi.scenarios import busy_zones, days, shift_mix, slow_down
from pipelines.taxi.simulator import simulate

DURATION = pl.col("lpep_dropoff_datetime") - pl.col("lpep_pickup_datetime")


@pytest.fixture(scope="module")
def trips() -> pl.DataFrame:
    return simulate("green_tripdata_2023-04.parquet", 1, rows=6_000)


def test_slow_down_moves_only_drop_offs_of_trips_from_those_zones(trips: pl.DataFrame) -> None:
    zones = busy_zones(trips, 0.3)
    slower = slow_down(trips, zones, 1.4)
    inside = pl.col("PULocationID").is_in(zones)
    assert_frame_equal(slower.filter(~inside), trips.filter(~inside))
    assert_frame_equal(slower.drop("lpep_dropoff_datetime"), trips.drop("lpep_dropoff_datetime"))
    ratio = slower.filter(inside).select(DURATION.dt.total_microseconds()).to_series()
    before = trips.filter(inside).select(DURATION.dt.total_microseconds()).to_series()
    assert ratio.to_list() == pytest.approx((before * 1.4).to_list())


def test_shift_mix_multiplies_the_zones_trips_and_changes_no_trip(trips: pl.DataFrame) -> None:
    zones = busy_zones(trips, 0.2)
    inside = pl.col("PULocationID").is_in(zones)
    shifted = shift_mix(trips, zones, 2.5, seed=4)
    assert_frame_equal(shifted.filter(~inside), trips.filter(~inside))
    assert len(shifted.filter(inside)) == pytest.approx(2.5 * len(trips.filter(inside)), rel=0.05)
    assert_frame_equal(shifted.unique(maintain_order=True), trips.unique(maintain_order=True))
    assert shifted.equals(shift_mix(trips, zones, 2.5, seed=4))


def test_busy_zones_make_up_about_the_share(trips: pl.DataFrame) -> None:
    for share in (0.1, 0.3, 0.6):
        zones = busy_zones(trips, share)
        found = trips["PULocationID"].is_in(zones).sum() / len(trips)
        assert found == pytest.approx(share, abs=0.12)
    assert len(busy_zones(trips, 0.0)) == 1


def test_days_are_wall_clock_days_without_overlap(trips: pl.DataFrame) -> None:
    month = days(trips, date(2023, 4, 1), 30)
    assert [len(set(day["lpep_pickup_datetime"].dt.date())) for day in month] == [1] * 30
    strays = (trips["lpep_pickup_datetime"].dt.year() != 2023).sum()
    assert sum(map(len, month)) == len(trips) - strays
