"""What a push's key is of: the type of those before, whatever the frame says; a frame without rows says nothing."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ferroflow.core.errors import DataError, SchemaError
from ferroflow.core.features import AVAILABLE_AT
from ferroflow.core.window_state import WindowState
from ferroflow.core.windows import WindowFeatures
from tests.core.windowed import EVENTS, START, each_view, events, hour

TYPES: list[Any] = [pl.String, pl.Null, pl.Float64, pl.UInt64, pl.Int8, pl.Boolean, pl.Categorical, pl.Date]
END = START + timedelta(days=9)


def keyed(frame: pl.DataFrame, kind: Any) -> pl.DataFrame:
    return frame.with_columns(pl.col("stop").cast(kind))


def empty(kind: Any = pl.String) -> pl.DataFrame:
    rest = events([]).drop("stop")
    return pl.DataFrame(schema={"stop": kind}).hstack(rest)


@each_view
@settings(max_examples=25, deadline=None)
@given(
    rows=EVENTS,
    cuts=st.lists(st.integers(0, 25), max_size=4),
    kinds=st.lists(st.sampled_from([pl.Int64, pl.UInt64, pl.Int32, pl.Float64, pl.String]), min_size=6, max_size=6),
    nothing=st.lists(st.sampled_from(TYPES), min_size=6, max_size=6),
)
def test_pushes_of_other_types_and_of_none_give_the_batch(
    view: WindowFeatures,
    rows: list[tuple[int, int, float | None]],
    cuts: list[int],
    kinds: list[Any],
    nothing: list[Any],
) -> None:
    frame = events(sorted(rows, key=lambda row: row[1]))
    state, answers = view.state(), []
    for number, (start, end) in enumerate(pairwise([0, *sorted(cuts), 25])):
        state.push(empty(nothing[number]))
        state = WindowState.from_json(view, state.to_json())
        piece = frame[start:end]
        # The first rows decide what the key is; from then on others come.
        known = state.rows is not None and not state.rows.is_empty()
        answers.append(state.push(keyed(piece, kinds[number]) if known else piece))
    answers.append(state.push(empty(nothing[-1]), until=END))
    found = pl.concat([answer for answer in answers if not answer.is_empty()] or [view.evaluate(frame)])
    held = found.unique(["place", AVAILABLE_AT], keep="last").sort("place", AVAILABLE_AT)
    assert held.equals(view.evaluate(frame)) and held.schema == view.evaluate(frame).schema


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_an_empty_push_brings_no_type(kind: Any) -> None:
    state = hour.state()
    state.push(events([(1, 10, 1.0)]))
    answer = state.push(empty(kind), until=START + timedelta(hours=1))
    assert answer.schema["place"] == pl.Int64 and answer["total"].to_list() == [1.0]
    assert state.rows is not None and state.rows.schema["place"] == pl.Int64


@each_view
def test_an_empty_csv_is_all_text_and_still_a_push_of_nothing(view: WindowFeatures) -> None:
    frame = events([(1, 10, 1.0), (1, 20, 2.0)])
    nothing = pl.DataFrame(schema=dict.fromkeys(frame.columns, pl.String))
    state = view.state()
    state.push(nothing)
    state = WindowState.from_json(view, state.to_json())
    answers = [state.push(frame), state.push(nothing), state.push(nothing, until=END)]
    assert pl.concat(answers).equals(view.evaluate(frame))
    with pytest.raises(SchemaError, match="minutes"):
        state.push(nothing.drop("minutes"))


@pytest.mark.parametrize("kind", TYPES, ids=str)
@pytest.mark.parametrize("first", [events([(7, 10, 1.0)]), keyed(events([(7, 10, 1.0)]), pl.String)], ids=["7", "'7'"])
def test_a_state_that_begins_with_no_rows_is_kept_and_takes_the_type_of_the_first(
    kind: Any, first: pl.DataFrame
) -> None:
    state = hour.state()
    state.push(empty(kind), until=START)
    state = WindowState.from_json(hour, state.to_json())
    state.push(first)
    answer = WindowState.from_json(hour, state.to_json()).push(empty(kind), until=END)
    assert answer.equals(hour.evaluate(first)) and answer.schema["place"] == first.schema["stop"]


def test_events_that_are_all_too_late_bring_no_type_either() -> None:
    state = hour.state()
    state.push(events([(1, 200, 1.0)]))
    state.push(keyed(events([(1, 10, 1.0)]), pl.String).with_columns(stop=pl.lit("x")))
    assert state.too_late == 1 and state.rows is not None and state.rows.schema["place"] == pl.Int64


def test_a_state_whose_rows_have_all_aged_takes_the_type_that_comes() -> None:
    state = hour.state()
    state.push(events([(1, 10, 1.0)]), until=START + timedelta(days=1))
    assert state.rows is not None and state.rows.is_empty()
    state.push(keyed(events([(2, 2000, 1.0)]), pl.String))
    assert state.rows["place"].to_list() == ["2"]


@pytest.mark.parametrize(
    ("first", "then", "told"),
    [
        ([7], pl.Series([7.0, 7.5]), "was Int64 so far and is Float64 now; 7.5 cannot be made Int64"),
        ([7], pl.Series(["7", "007"]), "is String now; '007' cannot"),
        ([7], pl.Series(["7", "seven"]), "is String now; 'seven' cannot"),
        ([7], pl.Series([7, 2**63], dtype=pl.UInt64), "is UInt64 now; 9223372036854775808 cannot"),
        ([7], pl.Series([7.0, float("nan")]), "nan cannot"),
        ([7], pl.Series(["a", "b"], dtype=pl.Categorical), "is Categorical now; 'a' cannot"),
        ([7], pl.Series([True, False]), "is Boolean now; True cannot"),
        (["7"], pl.Series([7.0, 8.0]), "was String so far and is Float64 now; 7.0 cannot be made String"),
    ],
)
def test_a_key_that_is_none_of_those_before_is_refused_and_the_state_stays(
    first: list[Any], then: pl.Series, told: str
) -> None:
    state = hour.state()
    state.push(events([(1, 10, 1.0)]).with_columns(stop=pl.Series(first)))
    before = state.to_json()
    later = events([(1, 20, 1.0), (1, 30, 1.0)]).with_columns(then.alias("stop"))
    with pytest.raises(DataError) as refused:
        state.push(later)
    assert str(refused.value).startswith("Entity 'place' of 'hour' was ") and told in str(refused.value)
    assert "Push events whose 'stop' is" in str(refused.value)
    assert state.to_json() == before


def test_numbers_become_texts_where_the_state_has_texts() -> None:
    state = hour.state()
    state.push(keyed(events([(7, 10, 1.0)]), pl.String))
    answer = state.push(events([(7, 20, 1.0), (7, 70, 1.0)]))
    assert answer.select("place", "trips").rows() == [("7", 2.0)]
