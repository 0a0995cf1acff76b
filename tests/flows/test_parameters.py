from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ferroflow.adapters import pipelines
from ferroflow.adapters.home import Home
from ferroflow.adapters.predictions import PredictionLog
from ferroflow.core.spec import PipelineSpec
from flows.parameters import clock, start, utc

START = datetime(2023, 4, 1, 4, tzinfo=UTC)
NOW = datetime(2026, 1, 5, 10, 59, 59, tzinfo=UTC)


@pytest.fixture
def replayed(home: Home, monkeypatch: pytest.MonkeyPatch) -> PipelineSpec:
    monkeypatch.setenv("FERROFLOW_HOME", str(home.root))
    return replace(pipelines.load(pipelines.names()[0]), name="replayed", as_of=START)


def asked(home: Home, event_time: datetime) -> None:
    """The service was asked for this moment."""
    told = {"at": NOW, "version": "1", "inputs": "{}", "features": "{}", "prediction": 1.0, "degraded": False}
    PredictionLog(home.predictions("replayed")).append([told | {"id": str(event_time), "event_time": event_time}])


def test_clock_of_a_replay_starts_at_its_moment_and_moves_with_the_event_times(
    home: Home, replayed: PipelineSpec
) -> None:
    assert clock(replayed, NOW) == START
    asked(home, START - timedelta(days=3))
    assert clock(replayed, NOW) == START
    asked(home, START + timedelta(days=2, minutes=20))
    assert clock(replayed, NOW) == START + timedelta(days=2, hours=1)
    asked(home, START + timedelta(days=2, hours=1))  # on the hour: monitoring looks at what lies before its moment
    assert clock(replayed, NOW) == START + timedelta(days=2, hours=2)


def test_event_time_that_is_still_to_come_moves_no_clock(home: Home, replayed: PipelineSpec) -> None:
    asked(home, NOW + timedelta(days=1))
    assert clock(replayed, NOW) == START


def test_training_stays_where_the_replay_starts(home: Home, replayed: PipelineSpec) -> None:
    asked(home, START + timedelta(days=2))
    assert start(replayed, NOW) == START


def test_pipeline_of_the_present_has_one_moment_an_hour(home: Home, replayed: PipelineSpec) -> None:
    asked(home, START + timedelta(days=2))
    live = replace(replayed, as_of=None)
    hour = datetime(2026, 1, 5, 10, tzinfo=UTC)
    assert {tell(live, moment) for tell in (start, clock) for moment in (hour, NOW)} == {hour}


def test_moment_without_an_offset_is_meant_in_utc() -> None:
    assert utc(START.replace(tzinfo=None)) == START
