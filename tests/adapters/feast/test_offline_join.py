"""The join against its definition, written as a loop."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ferroflow.adapters.feast import asof
from ferroflow.adapters.feast.asof import View, between, join_as_of, latest
from ferroflow.core.errors import SpecError

START = datetime(2023, 1, 1, tzinfo=UTC)
UTC_TIME = pl.Datetime("us", "UTC")
STORED = {"one": pl.Int64, "two": pl.String, "at": UTC_TIME, "made": UTC_TIME, "known": UTC_TIME, "x": pl.Float64}
ASKED = {"left": pl.Int64, "right": pl.String, "moment": UTC_TIME}


def at(minutes: float | None) -> datetime | None:
    return None if minutes is None else START + timedelta(minutes=minutes)


class Row(NamedTuple):
    """A stored row; moments in minutes."""

    one: int | None
    two: str | None
    at: int | None
    made: int | None
    known: int | None
    x: float | None


class Asked(NamedTuple):
    left: int | None
    right: str | None
    moment: int | None


def frame(rows: Sequence[Row]) -> pl.LazyFrame:
    values = [(row.one, row.two, at(row.at), at(row.made), at(row.known), row.x) for row in rows]
    return pl.LazyFrame(values, schema=STORED, orient="row")


def answers(asked: Sequence[Asked], view: View) -> list[float | None]:
    rows = pl.LazyFrame([(a.left, a.right, at(a.moment)) for a in asked], schema=ASKED, orient="row")
    result = join_as_of(rows, "moment", [view]).collect()
    assert result.drop("y").equals(rows.collect())
    return result["y"].to_list()


def by_definition(
    asked: Sequence[Asked], rows: Sequence[Row], keys: Sequence[tuple[str, str]], ttl: int | None, guard: bool
) -> list[float | None]:
    found: list[float | None] = []
    for one in asked:
        best: tuple[tuple[int, int], Row] | None = None
        for row in rows:
            pairs = [(getattr(one, here), getattr(row, there)) for here, there in keys]
            if any(a is None or a != b for a, b in pairs) or one.moment is None or row.at is None:
                continue
            if row.at > one.moment or (guard and (row.known is None or row.known > one.moment)):
                continue
            order = (row.at, -1 if row.made is None else row.made)
            if best is None or order >= best[0]:
                best = (order, row)
        fresh = best is not None and (ttl is None or one.moment - best[1].at <= ttl)  # type: ignore[operator]
        found.append(best[1].x if best is not None and fresh else None)
    return found


TEXTS = st.sampled_from(["a", "b", None])
NUMBERS = st.sampled_from([1, 2, None])
MOMENTS = st.one_of(st.integers(0, 12), st.none())
ROWS = st.lists(
    st.builds(Row, NUMBERS, TEXTS, MOMENTS, st.one_of(st.integers(0, 3), st.none()), MOMENTS, st.floats(-5, 5)),
    max_size=20,
)
LISTS_ASKED = st.lists(st.builds(Asked, NUMBERS, TEXTS, st.one_of(st.integers(0, 14), st.none())), max_size=12)
KEYS = st.sampled_from([(("left", "one"),), (("right", "two"), ("left", "one")), ()])


@settings(max_examples=60, deadline=None)
@given(LISTS_ASKED, ROWS, KEYS, st.one_of(st.none(), st.integers(1, 6)), st.booleans())
def test_any_keys_times_ttl_ties_and_guard_give_what_the_definition_says(
    asked: list[Asked], rows: list[Row], keys: tuple[tuple[str, str], ...], ttl: int | None, guard: bool
) -> None:
    limit = None if ttl is None else timedelta(minutes=ttl)
    view = View(frame(rows), dict(keys), {"y": "x"}, "at", "made", limit, ("known",) if guard else ())
    assert answers(asked, view) == by_definition(asked, rows, keys, ttl, guard)


@settings(max_examples=25, deadline=None)
@given(LISTS_ASKED, ROWS, ROWS)
def test_two_views_by_other_keys_do_not_disturb_each_other(
    asked: list[Asked], rows: list[Row], others: list[Row]
) -> None:
    first = View(frame(rows), {"left": "one"}, {"y": "x"}, "at", "made", timedelta(minutes=4), ("known",))
    second = View(frame(others), {"right": "two"}, {"z": "x"}, "at", "made")
    given_rows = pl.LazyFrame([(a.left, a.right, at(a.moment)) for a in asked], schema=ASKED, orient="row")
    both = join_as_of(given_rows, "moment", [first, second]).collect()
    assert both["y"].to_list() == by_definition(asked, rows, [("left", "one")], 4, True)
    assert both["z"].to_list() == by_definition(asked, others, [("right", "two")], None, False)


@settings(max_examples=25, deadline=None)
@given(ROWS, st.sampled_from([["one"], ["one", "two"], []]))
def test_the_latest_of_each_key_is_the_last_by_event_then_creation_then_place(rows: list[Row], keys: list[str]) -> None:
    expected: dict[Any, tuple[Any, Row]] = {}
    for row in rows:
        key = tuple(getattr(row, name) for name in keys)
        order = tuple(-1 if moment is None else moment for moment in (row.at, row.made))
        if key not in expected or order >= expected[key][0]:
            expected[key] = (order, row)
    found = latest(frame(rows), keys, ["at", "made"])
    wanted = frame([row for _, row in expected.values()]).collect()
    assert sorted(map(str, found.rows())) == sorted(map(str, wanted.rows()))


def test_the_latest_of_many_batches_is_that_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asof, "_BATCH", 7)
    rows = [Row(n * 7 % 10, None, n * 13 % 50, n % 3, None, float(n)) for n in range(200)]
    small = latest(frame(rows), ["one"], ["at", "made"]).sort("one")
    monkeypatch.undo()
    assert small.equals(latest(frame(rows), ["one"], ["at", "made"]).sort("one"))


def test_back_filled_history_reaches_old_rows_and_a_late_value_does_not() -> None:
    """Ingested (created) today; known long ago, or late."""
    today = 600_000
    early = Row(1, None, 0, today, 10, 1.0)
    late = Row(1, None, 5, today, 500, 2.0)
    view = View(frame([early, late]), {"left": "one"}, {"y": "x"}, "at", "made", None, ("known",))
    asked = [Asked(1, None, moment) for moment in (9, 10, 499, 500)]
    assert answers(asked, view) == [None, 1.0, 1.0, 2.0]


def test_a_row_known_late_does_not_hide_a_newer_one_known_before() -> None:
    correction_of_old = Row(1, None, 0, 9, 60, 1.0)
    newer = Row(1, None, 20, 0, 30, 2.0)
    view = View(frame([correction_of_old, newer]), {"left": "one"}, {"y": "x"}, "at", "made", None, ("known",))
    assert answers([Asked(1, None, 70)], view) == [2.0]


def test_the_ttl_counts_from_the_event_and_not_from_when_it_was_known() -> None:
    row = Row(1, None, 0, 0, 50, 1.0)
    view = View(frame([row]), {"left": "one"}, {"y": "x"}, "at", None, timedelta(minutes=60), ("known",))
    assert answers([Asked(1, None, moment) for moment in (49, 50, 60, 61)], view) == [None, 1.0, 1.0, None]


def test_a_row_that_does_not_say_when_it_was_known_is_never_used() -> None:
    view = View(frame([Row(1, None, 0, 0, None, 1.0)]), {"left": "one"}, {"y": "x"}, "at", None, None, ("known",))
    assert answers([Asked(1, None, 10**6)], view) == [None]


def test_a_row_is_usable_from_its_first_to_its_last_moment_inclusive() -> None:
    view = View(frame([Row(1, None, 0, 0, 0, 5.0)]), {"left": "one"}, {"y": "x"}, "at", "made", timedelta(hours=1))
    moments = [timedelta(microseconds=-1), timedelta(0), timedelta(hours=1), timedelta(hours=1, microseconds=1)]
    rows = pl.LazyFrame({"left": [1] * 4, "moment": [START + moment for moment in moments]})
    assert join_as_of(rows, "moment", [view]).collect()["y"].to_list() == [None, 5.0, 5.0, None]


def test_a_null_in_the_latest_row_is_the_answer_and_not_the_row_before() -> None:
    rows = [Row(1, None, 0, 0, None, 1.0), Row(1, None, 2, 0, None, None)]
    assert answers([Asked(1, None, 5)], View(frame(rows), {"left": "one"}, {"y": "x"}, "at")) == [None]


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata", None])
@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_zoned_and_naive_times_of_any_unit_mean_the_same_moments(zone: str | None, unit: Any) -> None:
    moments = pl.Series([at(-1), at(0), at(61)], dtype=UTC_TIME)

    def told(times: pl.Series) -> pl.Series:
        return (times.dt.convert_time_zone(zone) if zone else times.dt.replace_time_zone(None)).dt.cast_time_unit(unit)

    stored = pl.LazyFrame({"one": [1], "at": told(pl.Series([at(0)], dtype=UTC_TIME)), "x": [5.0]})
    asked = pl.LazyFrame({"left": [1, 1, 1], "moment": told(moments)})
    result = join_as_of(asked, "moment", [View(stored, {"left": "one"}, {"y": "x"}, "at", None, timedelta(hours=1))])
    assert result.collect()["y"].to_list() == [None, 5.0, None]
    assert result.collect_schema()["moment"] == UTC_TIME
    assert result.collect()["moment"].to_list() == moments.to_list()


def test_dates_mean_their_midnight_and_texts_are_read() -> None:
    stored = pl.LazyFrame({"one": [1], "at": [date(2023, 1, 2)], "x": [5.0]})
    view = View(stored, {"left": "one"}, {"y": "x"}, "at", None, timedelta(days=1))
    days = [date(2023, 1, 1), date(2023, 1, 2), date(2023, 1, 3), date(2023, 1, 4)]
    for moments in (days, [f"{day}T00:00:00" for day in days]):
        result = join_as_of(pl.LazyFrame({"left": [1] * 4, "moment": moments}), "moment", [view]).collect()
        assert result["y"].to_list() == [None, 5.0, 5.0, None]


@pytest.mark.parametrize(
    "kind", [pl.Date(), pl.Datetime("ms"), pl.Datetime("us", "Asia/Kolkata"), pl.Datetime("ns", "UTC")]
)
def test_a_span_keeps_exactly_the_rows_inside_whatever_the_type_of_the_column(kind: pl.DataType) -> None:
    zone = kind.time_zone if isinstance(kind, pl.Datetime) else None
    times = pl.datetime_range(START, START + timedelta(days=4), "6h", time_zone="UTC", eager=True).alias("at")
    stored = (times.dt.convert_time_zone(zone) if zone else times.dt.replace_time_zone(None)).cast(kind)
    moments = asof.in_utc(stored.to_frame().lazy(), "at").collect()["at"]
    odd = timedelta(microseconds=1)
    for first, last in [(at(1440), at(2880)), (at(1440) + odd, at(2880) - odd), (None, at(2880)), (at(1440), None)]:
        kept = asof.in_utc(between(stored.to_frame().lazy(), "at", first, last), "at").collect()["at"]
        wanted = [t for t in moments if (first is None or t >= first) and (last is None or t <= last)]
        assert kept.to_list() == wanted


def test_keys_meet_across_widths_of_numbers_kinds_of_text_and_floats_that_pandas_made() -> None:
    stored = pl.LazyFrame({"n": pl.Series([1, 2], dtype=pl.Int32), "s": pl.Series(["a", "b"], dtype=pl.Categorical)})
    stored = stored.with_columns(at=pl.lit(START), x=pl.Series([1.0, 2.0]))
    asked = pl.LazyFrame({"n": [2, 1, 300], "f": [2.0, float("nan"), 1.5], "s": ["b", "a", "c"], "moment": [at(1)] * 3})
    numbers = View(stored, {"n": "n"}, {"by_n": "x"}, "at")
    floats = View(stored, {"f": "n"}, {"by_f": "x"}, "at")
    texts = View(stored, {"s": "s"}, {"by_s": "x"}, "at")
    result = join_as_of(asked, "moment", [numbers, floats, texts]).collect()
    assert result.select("by_n", "by_f", "by_s").rows() == [(2.0, 2.0, 2.0), (1.0, None, 1.0), (None, None, None)]
    assert result.schema["n"] == pl.Int64


@pytest.mark.parametrize(("kind", "exact"), [(pl.Float64, 2**53), (pl.Float32, 2**24)])
def test_a_float_key_that_its_neighbours_are_rounded_to_meets_no_entity(kind: Any, exact: int) -> None:
    numbers = [exact - 1, exact, -exact]
    stored = pl.LazyFrame({"n": numbers, "at": [START] * 3, "x": [1.0, 2.0, 3.0]})
    asked = [exact - 1, exact + 1, -exact - 1, None]
    rows = pl.LazyFrame({"f": pl.Series(asked, dtype=pl.Float64).cast(kind), "moment": [at(1)] * 4})
    one = join_as_of(rows, "moment", [View(stored, {"f": "n"}, {"y": "x"}, "at")]).collect()
    assert one["y"].to_list() == [1.0, None, None, None]
    whole = pl.LazyFrame({"n": numbers, "moment": [at(1)] * 3})
    other = join_as_of(whole, "moment", [View(stored.cast({"n": kind}), {"n": "n"}, {"y": "x"}, "at")]).collect()
    assert other["y"].to_list() == [1.0, None, None]


@pytest.mark.parametrize(("stored", "asked"), [(pl.UInt64, pl.Int128), (pl.Int128, pl.UInt64), (pl.UInt64, pl.UInt128)])
def test_whole_numbers_beyond_64_bits_meet_and_never_meet_their_neighbours(stored: Any, asked: Any) -> None:
    numbers = [2**63 + 5, 2**64 - 1, 1]
    rows = pl.LazyFrame({"n": pl.Series(numbers, dtype=stored), "at": [START] * 3, "x": [1.0, 2.0, 3.0]})
    wanted = [2**64 - 1, 2**63 + 4, 1, 2**63 + 5, None]
    entities = pl.LazyFrame({"n": pl.Series(wanted, dtype=asked), "moment": [at(1)] * 5})
    result = join_as_of(entities, "moment", [View(rows, {"n": "n"}, {"y": "x"}, "at")]).collect()
    assert result["y"].to_list() == [2.0, None, 3.0, 1.0, None]
    small = pl.LazyFrame({"n": [-(2**63) + 5, 1], "moment": [at(1)] * 2})
    assert join_as_of(small, "moment", [View(rows, {"n": "n"}, {"y": "x"}, "at")]).collect()["y"].to_list() == [None, 3]


@pytest.mark.parametrize("kind", [pl.Int64, pl.String, pl.Float64, pl.Categorical, pl.Null])
def test_keys_and_times_of_files_without_any_value_meet_nothing(kind: Any) -> None:
    asked = pl.LazyFrame({"n": pl.Series([None, None], dtype=kind), "moment": [at(1)] * 2})
    full = pl.LazyFrame({"n": [1, None], "at": [START] * 2, "x": [1.0, 2.0]})
    keyless = pl.LazyFrame(
        {"n": [None], "at": [START], "x": [1.0]}, schema={"n": pl.Null, "at": UTC_TIME, "x": pl.Float64}
    )
    timeless = full.with_columns(at=None)
    for rows, keys in ((keyless, {"n": "n"}), (timeless, {}), (keyless.clear(), {"n": "n"})):
        result = join_as_of(asked, "moment", [View(rows, keys, {"y": "x"}, "at", "at", timedelta(1), ["at"])]).collect()
        assert result["y"].to_list() == [None, None]
    if kind == pl.Int64:
        result = join_as_of(asked.with_columns(n=1), "moment", [View(keyless, {"n": "n"}, {"y": "x"}, "at")]).collect()
        assert result["y"].to_list() == [None, None]
        assert between(timeless, "at", START, None).collect().is_empty()


def test_keys_of_types_that_cannot_be_compared_are_refused_by_name() -> None:
    view = View(frame([]), {"left": "one"}, {"y": "x"}, "at", name="rides")
    asked = pl.LazyFrame({"left": ["1"], "moment": [START]})
    with pytest.raises(SpecError, match="'rides' has the key 'one' as Int64, the entity rows have 'left' as String"):
        join_as_of(asked, "moment", [view])


def test_other_columns_of_the_entity_rows_pass_through_untouched() -> None:
    asked = pl.DataFrame({"z": [[1], None], "left": [2, 1], "moment": [at(5), at(5)], "label": ["b", "a"]})
    view = View(frame([Row(1, None, 0, 0, 0, 1.0)]), {"left": "one"}, {"y": "x"}, "at")
    result = join_as_of(asked.lazy(), "moment", [view]).collect()
    assert result.columns == ["z", "left", "moment", "label", "y"]
    assert result.drop("y").equals(asked)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), max_size=12),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6), st.integers(0, 3)), max_size=15),
)
def test_keys_and_times_too_far_apart_for_one_number_are_joined_all_the_same(
    asked: list[tuple[int, int]], stored: list[tuple[int, int, int]]
) -> None:
    """Three keys span 2**31, or 2**62; times span six centuries."""
    for wide in (2**29, 2**61):
        moments = [datetime(1400 + 100 * place, 1, 1, tzinfo=UTC) for place in range(7)]
        rows = pl.LazyFrame(
            [
                ((key - 2) * wide, moments[place], moments[made], float(n))
                for n, (key, place, made) in enumerate(stored)
            ],
            schema={"one": pl.Int64, "at": UTC_TIME, "made": UTC_TIME, "x": pl.Float64},
            orient="row",
        )
        entities = pl.LazyFrame(
            [((key - 2) * wide, moments[place]) for key, place in asked],
            schema={"left": pl.Int64, "moment": UTC_TIME},
            orient="row",
        )
        view = View(rows, {"left": "one"}, {"y": "x"}, "at", "made")
        plain = [Row(key, None, place, made, None, float(n)) for n, (key, place, made) in enumerate(stored)]
        wanted = by_definition([Asked(key, None, place) for key, place in asked], plain, [("left", "one")], None, False)
        assert join_as_of(entities, "moment", [view]).collect()["y"].to_list() == wanted


def test_only_the_asked_columns_and_the_span_are_read_from_files(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    parts = pl.DataFrame(
        {"one": [1] * 4, "at": [at(minutes) for minutes in (0, 10, 20, 30)], "x": [0.0, 1.0, 2.0, 3.0]}
    )
    parts.with_columns(unasked=pl.lit("much")).write_parquet(path, row_group_size=1, compression="uncompressed")
    view = View(pl.scan_parquet(path), {"left": "one"}, {"y": "x"}, "at", None, timedelta(minutes=5))
    asked = pl.Series("moment", [at(12)], dtype=UTC_TIME)
    plan = asof._needed(view, asked).select("one", "at", "x").explain()
    assert "PROJECT 3/4 COLUMNS" in plan
    assert "SELECTION" in plan
    assert asof._needed(view, asked).collect()["x"].to_list() == [1.0]
