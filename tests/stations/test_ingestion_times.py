"""When stored rows are said to have been ingested: until they change, whatever moments are asked for between."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ferroflow.adapters.home import Home
from ferroflow.core.features import stored
from ferroflow.stations.features import build_features, refresh_offline
from ferroflow.stations.offline import removed
from ferroflow.stations.skew import measure_skew
from tests.rides import START, accept, arrivals, pipeline
from tests.stations import served_rides
from tests.stations.test_materialize import AS_OF, DAY, HOUR, INGESTED, ROWS, SPEC, late, stored_rows, wider


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def gone(home: Home) -> list[tuple[Any, ...]]:
    known = removed(SPEC, arrivals, home)
    assert known is not None
    return known.collect().rows()


def test_a_stored_row_keeps_when_it_was_ingested_until_it_changes(home: Home) -> None:
    refresh_offline(SPEC, accept(home, ROWS, "v1"), AS_OF, home)
    before = stored_rows(home)
    more = pl.concat([ROWS, late(3, AS_OF - DAY, 7.0, INGESTED + DAY)])
    refresh_offline(SPEC, accept(home, more, "v2"), AS_OF, home)
    after = stored_rows(home)
    changed = after.join(before, on=["stop", "available_at", "rides", "mean"], how="anti")
    assert changed["ingested_at"].to_list() == [INGESTED + DAY]
    assert after.filter(pl.col("ingested_at") == INGESTED).height == before.height - 1
    # Refreshed for an earlier moment and again: nothing was corrected, so no row has another time.
    refresh_offline(SPEC, accept(home, more, "v2"), AS_OF - HOUR * 12, home)
    refresh_offline(SPEC, accept(home, more, "v2"), AS_OF, home)
    assert stored_rows(home).equals(after)


def test_no_stamp_is_used_twice_even_where_an_earlier_moment_was_made_meanwhile(home: Home) -> None:
    more = pl.concat([ROWS, late(3, AS_OF - HOUR * 7, 7.0, INGESTED + DAY)])
    refresh_offline(SPEC, accept(home, ROWS, "v1"), AS_OF, home)
    refresh_offline(SPEC, accept(home, more, "v2"), AS_OF, home)
    refresh_offline(SPEC, accept(home, more, "v2"), AS_OF - DAY, home)
    before = stored_rows(home)
    (home.offline("rides") / "stamps" / "arrivals.parquet").unlink()
    refresh_offline(pipeline(features=(wider(),)), accept(home, more, "v2"), AS_OF - DAY, home)
    after = stored_rows(home)
    assert before["ingested_at"].max() == INGESTED
    assert after["ingested_at"].unique().to_list() == [INGESTED + DAY + timedelta(microseconds=1)]


def test_rows_of_one_entity_and_moment_keep_their_time_until_one_of_them_changes(home: Home) -> None:
    def arrivals(rows: pl.LazyFrame) -> pl.LazyFrame:
        moment = (pl.col("ended").dt.truncate("1d") + DAY).alias("available_at")
        return rows.select(pl.col("destination").alias("stop"), moment, rides=pl.col("minutes"))

    spec = pipeline(features=(stored(entity="stop", on="destination", ttl="2d")(arrivals),))
    refresh_offline(spec, accept(home, ROWS, "v1"), AS_OF, home)
    refresh_offline(spec, accept(home, ROWS, "v2"), AS_OF, home)
    assert stored_rows(home)["ingested_at"].unique().to_list() == [INGESTED]
    first = ROWS.filter(pl.col("ended") < START + DAY).row(0, named=True)
    refresh_offline(spec, accept(home, ROWS.filter(pl.col("row_id") != first["row_id"]), "v3"), AS_OF, home)
    made = stored_rows(home)
    again = made.filter(pl.col("ingested_at") > INGESTED)
    here = (pl.col("stop") == first["destination"]) & (pl.col("available_at") == START + DAY)
    assert again.height > 1 and again.equals(made.filter(here))


def test_a_row_that_was_corrected_away_is_remembered_but_not_trained_on(home: Home) -> None:
    at = AS_OF - DAY
    mine = (pl.col("destination") == 3) & pl.col("ended").is_between(at - 6 * HOUR, at, closed="left")
    less = ROWS.filter(~mine)
    assert less.height < ROWS.height
    anew = Home(home.root.parent / "anew")
    refresh_offline(SPEC, accept(home, ROWS, "v1"), AS_OF, home)
    tables = [build_features(SPEC, accept(place, less, "v2"), AS_OF, place) for place in (home, anew)]
    one, two = (pl.read_parquet(place.absolute(made.path)) for place, made in zip((home, anew), tables, strict=True))
    assert one.equals(two)
    assert stored_rows(home).drop("ingested_at").equals(stored_rows(anew).drop("ingested_at"))
    after = INGESTED + timedelta(microseconds=1)
    assert gone(home) == [(3, at, after)]
    refresh_offline(SPEC, accept(home, ROWS, "v1"), AS_OF, home)
    back = stored_rows(home).filter((pl.col("stop") == 3) & (pl.col("available_at") == at))
    assert back["ingested_at"].to_list() == [after + timedelta(microseconds=1)]
    assert gone(home) == []


def test_a_value_that_was_read_and_corrected_away_since_is_a_correction_and_no_mismatch(home: Home) -> None:
    version = served_rides.a_morning(home)
    spec, at = served_rides.pipeline(), served_rides.BEGIN + HOUR
    rows = pl.read_parquet(home.offline("rides") / "departures.parquet")
    stop = rows.filter(pl.col("available_at") == at)["stop"][0]
    of_hour = (pl.col("origin") == stop) & (pl.col("ended").dt.truncate("1h") + HOUR == at)
    less = served_rides.ROWS.filter(~of_hour)
    refresh_offline(spec, accept(home, less, "v2"), served_rides.AS_OF - HOUR, home)
    found = measure_skew(spec, served_rides.AS_OF, home, served_rides.BEGIN, served=[version])
    assert found.mismatched == 0 and found.corrected > 0


def test_training_does_not_see_when_rows_were_ingested(home: Home) -> None:
    more = pl.concat([ROWS, late(3, AS_OF - DAY, 7.0, INGESTED + DAY)])
    refresh_offline(SPEC, accept(home, ROWS, "v1"), AS_OF, home)
    anew = Home(home.root.parent / "anew")
    tables = [build_features(SPEC, accept(place, more, "v2"), AS_OF, place) for place in (home, anew)]
    one, two = (pl.read_parquet(place.absolute(made.path)) for place, made in zip((home, anew), tables, strict=True))
    assert one.equals(two)
