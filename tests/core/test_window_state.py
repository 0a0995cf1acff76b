"""Updates of window features by push, against the batch result."""

from __future__ import annotations

import json
from datetime import timedelta
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ferroflow.core import aggregates
from ferroflow.core.aggregates import Aggregate
from ferroflow.core.definitions import feature
from ferroflow.core.errors import DataError, SchemaError, SpecError
from ferroflow.core.features import AVAILABLE_AT
from ferroflow.core.window_state import WindowState
from ferroflow.core.windows import WindowFeatures
from tests.core import windowed
from tests.core.windowed import (
    EVENTS,
    START,
    each_view,
    events,
    hour,
    last_three,
    three_hours,
    trips,
    view,
)


def last_given(pushed: list[pl.DataFrame]) -> pl.DataFrame:
    """What holds after these answers."""
    return (
        pl.concat(pushed).unique(["place", AVAILABLE_AT], keep="last", maintain_order=True).sort("place", AVAILABLE_AT)
    )


def known_by(view: WindowFeatures, frame: pl.DataFrame, state: WindowState) -> pl.DataFrame:
    """The batch result up to the watermark."""
    found = view.evaluate(frame)
    return (
        found.clear()
        if state.watermark is None
        else found.filter(pl.col(AVAILABLE_AT).dt.epoch("us") <= state.watermark)
    )


@each_view
@settings(max_examples=40, deadline=None)
@given(
    rows=EVENTS,
    jitter=st.lists(st.integers(0, 45), min_size=25, max_size=25),
    cuts=st.lists(st.integers(0, 25), max_size=5),
    saved=st.sets(st.integers(0, 6)),
    late=st.sampled_from([0, 5, 45]),
)
def test_rows_after_each_push_equal_the_batch_for_any_split_and_any_order_within_the_allowance(
    view: WindowFeatures,
    rows: list[tuple[int, int, float | None]],
    jitter: list[int],
    cuts: list[int],
    saved: set[int],
    late: int,
) -> None:
    came = sorted(zip(jitter, rows, strict=False), key=lambda entry: min(entry[0], late) + entry[1][1])
    frame = events([row for _, row in came])
    state, given_rows, bounds = view.state(late=f"{late}m"), [], [0, *sorted(cuts), 25]
    for number, (start, end) in enumerate(pairwise(bounds)):
        given_rows.append(state.push(frame[start:end]))
        if number in saved:
            state = WindowState.from_json(view, state.to_json())
        assert last_given(given_rows).equals(known_by(view, frame[:end], state))
    given_rows.append(state.push(frame.clear(), until=START + timedelta(days=9)))
    assert last_given(given_rows).equals(view.evaluate(frame))
    assert state.too_late == 0


@each_view
def test_events_far_apart_and_pushed_one_by_one_give_the_batch(view: WindowFeatures) -> None:
    frame = events([(1 + number % 2, number * 50, float(number)) for number in range(12)])
    state = view.state()
    pushed = [state.push(row) for row in frame.iter_slices(1)]
    assert last_given(pushed).equals(known_by(view, frame, state))


def test_an_event_beyond_the_allowance_is_left_out_counted_and_told(caplog: pytest.LogCaptureFixture) -> None:
    state = hour.state(late="30m")
    first = state.push(events([(1, 10, 1.0), (1, 200, 1.0)]))
    again = state.push(events([(1, 169, 7.0), (1, 170, 2.0)]))
    assert state.too_late == 1
    assert "hour: left out 1 events that came too late" in caplog.text
    assert first["total"].to_list() == [1.0]
    assert again.select(AVAILABLE_AT, "total").rows() == [(START + timedelta(hours=3), 2.0)]


def test_a_late_event_gives_the_windows_it_changes_again_and_no_other() -> None:
    state = three_hours.state(late="3h")
    state.push(events([(1, 10, 1.0), (2, 10, 1.0), (1, 190, 1.0)]))
    changed = state.push(events([(1, 100, 4.0)]))
    assert changed.select("place", AVAILABLE_AT, "total").rows() == [
        (1, START + timedelta(minutes=120), 5.0),
        (1, START + timedelta(minutes=150), 5.0),
        (1, START + timedelta(minutes=180), 5.0),
    ]


@pytest.mark.parametrize(
    ("view", "most"), [(hour, 3), (three_hours, 8), (last_three, 15)], ids=["1h", "3h", "3 events"]
)
def test_a_state_keeps_no_more_than_windows_can_still_need(view: WindowFeatures, most: int) -> None:
    state = view.state(late="60m")
    for minute in range(0, 900, 5):
        state.push(events([(1, minute, 1.0)]))
        assert state.rows is not None
        assert state.rows.height <= most


def test_a_push_that_fails_leaves_the_state_as_it_was() -> None:
    state = hour.state()
    state.push(events([(1, 10, 1.0)]))
    before = state.to_json()
    with pytest.raises(DataError, match="smaller per_unit"):
        state.push(events([(1, 20, 1e300)]))
    with pytest.raises(SchemaError, match='"minutes"'):
        state.push(events([(1, 20, 1.0)]).drop("minutes"))
    assert state.to_json() == before


def test_a_state_of_another_definition_is_refused() -> None:
    @feature
    def long_trips(minutes: pl.Expr) -> Aggregate:
        return aggregates.count(where=minutes > 2)

    saved = view("hour", [trips, long_trips], last="1h").state().to_json()
    with pytest.raises(SpecError, match=r"another definition: long_trips\.n differ"):
        WindowState.from_json(view("hour", [trips, windowed.long_trips], last="1h"), saved)
    with pytest.raises(SpecError, match="window differ"):
        WindowState.from_json(view("hour", [trips, long_trips], last="2h"), saved)

    def changed(**given: object) -> str:
        return json.dumps(json.loads(hour.state().to_json()) | given)

    for text in ("", "{}", "[]", changed(late="x"), changed(key="Int64", rows={"a": 1}), changed(rows={})):
        with pytest.raises(DataError, match="no whole state of 'hour'"):
            WindowState.from_json(hour, text)
