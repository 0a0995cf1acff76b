from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ferroflow.adapters.feast.offline import View, join_as_of

START = datetime(2023, 1, 1, tzinfo=UTC)
ENTITY = {"zone": pl.Int64, "at": pl.Datetime("us", "UTC")}
STORED = {"zone": pl.Int64, "from": pl.Datetime("us", "UTC"), "made": pl.Datetime("us", "UTC"), "x": pl.Float64}


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def joined(
    entities: list[tuple[int | None, float]],
    stored: list[tuple[int | None, float, float, float | None]],
    ttl: timedelta | None,
) -> list[float | None]:
    rows = pl.LazyFrame([(z, at(f), at(m), x) for z, f, m, x in stored], schema=STORED, orient="row")
    view = View(rows, {"zone": "zone"}, {"x": "x"}, "from", "made", ttl)
    frame = pl.LazyFrame([(z, at(t)) for z, t in entities], schema=ENTITY, orient="row")
    result = join_as_of(frame, "at", [view]).collect()
    assert result.select("zone", "at").equals(frame.collect())
    return result["x"].to_list()


def naive(
    entities: list[tuple[int | None, float]],
    stored: list[tuple[int | None, float, float, float | None]],
    ttl: float | None,
) -> list[float | None]:
    """The definition, in a loop."""
    answers: list[float | None] = []
    for zone, moment in entities:
        best = None
        for row in stored:
            usable = zone is not None and row[0] == zone and row[1] <= moment
            if usable and (ttl is None or moment - row[1] <= ttl) and (best is None or row[1:3] >= best[1:3]):
                best = row
        answers.append(None if best is None else best[3])
    return answers


def test_a_row_is_usable_from_its_first_to_its_last_moment_inclusive() -> None:
    moments = [(1, -0.001), (1, 0), (1, 60), (1, 60.001)]
    assert joined(moments, [(1, 0, 0, 5.0)], timedelta(hours=1)) == [None, 5.0, 5.0, None]


def test_an_expired_row_gives_null_and_its_entity_row_stays() -> None:
    assert joined([(1, 500), (2, 500)], [(1, 0, 0, 5.0)], timedelta(hours=1)) == [None, None]


def test_without_a_ttl_nothing_expires() -> None:
    assert joined([(1, 1e6)], [(1, 0, 0, 5.0)], None) == [5.0]


def test_of_two_rows_of_one_moment_the_one_created_last_wins_in_any_order() -> None:
    rows = [(1, 0, 30, 3.0), (1, 0, 10, 1.0), (1, 0, 20, 2.0)]
    for order in (rows, rows[::-1], sorted(rows)):
        assert joined([(1, 5)], order, None) == [3.0]


def test_duplicates_and_order_of_entity_rows_are_kept() -> None:
    entities = [(2, 9), (1, 3), (2, 9), (1, 1), (2, 9)]
    assert joined(entities, [(1, 2, 0, 1.0), (2, 0, 0, 2.0)], None) == [2.0, 1.0, 2.0, None, 2.0]


def test_a_null_in_the_latest_row_is_the_answer_and_not_the_row_before() -> None:
    assert joined([(1, 5)], [(1, 0, 0, 1.0), (1, 2, 0, None)], None) == [None]


def test_an_unknown_key_finds_nothing_even_when_stored_rows_have_no_key() -> None:
    assert joined([(None, 5), (1, 5)], [(None, 0, 0, 1.0)], None) == [None, None]


@settings(max_examples=120, deadline=None)
@given(
    entities=st.lists(st.tuples(st.sampled_from([1, 2, 3, None]), st.integers(0, 20)), max_size=15),
    stored=st.lists(
        st.tuples(
            st.sampled_from([1, 2, None]),
            st.integers(0, 20),
            st.integers(0, 3),
            st.one_of(st.none(), st.floats(-5, 5)),
        ),
        max_size=25,
        unique_by=lambda row: row[:3],
    ),
    ttl=st.one_of(st.none(), st.integers(1, 10)),
)
def test_the_join_is_what_the_definition_says(
    entities: list[tuple[int | None, float]],
    stored: list[tuple[int | None, float, float, float | None]],
    ttl: int | None,
) -> None:
    limit = None if ttl is None else timedelta(minutes=ttl)
    assert joined(entities, stored, limit) == naive(entities, stored, ttl)


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata", None])
def test_zoned_and_naive_times_mean_the_same_moments(zone: str | None) -> None:
    stored = pl.LazyFrame([(1, at(0), at(0), 5.0)], schema=STORED, orient="row")
    moments = pl.Series([at(-1), at(0), at(61)], dtype=pl.Datetime("us", "UTC"))
    given = moments.dt.convert_time_zone(zone) if zone else moments.dt.replace_time_zone(None)
    frame = pl.LazyFrame({"zone": [1, 1, 1], "at": given.dt.cast_time_unit("ns")})
    view = View(stored, {"zone": "zone"}, {"x": "x"}, "from", "made", timedelta(hours=1))
    assert join_as_of(frame, "at", [view]).collect()["x"].to_list() == [None, 5.0, None]


def test_two_views_with_other_keys_do_not_disturb_each_other() -> None:
    rows = pl.LazyFrame([(1, at(0), at(0), 1.0), (2, at(5), at(0), 2.0)], schema=STORED, orient="row")
    here = View(rows, {"here": "zone"}, {"here_x": "x"}, "from", "made", None)
    there = View(rows, {"there": "zone"}, {"there_x": "x"}, "from", None, timedelta(minutes=3))
    frame = pl.LazyFrame({"here": [1, 2, 2], "there": [2, 1, 2], "at": [at(9), at(2), at(6)]})
    result = join_as_of(frame, "at", [here, there]).collect()
    assert result["here_x"].to_list() == [1.0, None, 2.0]
    assert result["there_x"].to_list() == [None, 1.0, 2.0]
