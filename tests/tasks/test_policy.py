from __future__ import annotations

import os
import time
from typing import Any

import pytest
from prefect.states import Failed, State

from ferroflow.adapters import pipelines
from ferroflow.adapters.home import Home
from ferroflow.adapters.storage import write_record
from ferroflow.core.errors import EmptySource, RegistryError, SourceUnavailable, UnknownPipeline
from ferroflow.core.records import Decision
from ferroflow.core.spec import PipelineSpec
from tasks import policy
from tests.rides import START


@pytest.fixture(autouse=True)
def here(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERROFLOW_HOME", str(home.root))


def a_station(spec: PipelineSpec, name: str, home: Home) -> Decision:
    """Writes its record only when it is not there, as every station does."""
    record = Decision(pipeline=spec.name, fingerprint=name, retrain=False, reason="", as_of=START)
    path = home.data(spec.name) / "decisions" / f"{name}.json"
    if not path.exists():
        write_record(path, record)
    return record


def test_station_that_had_nothing_to_do_ends_as_reused(home: Home) -> None:
    pipeline = pipelines.names()[0]
    first = policy.carry_out(a_station, pipeline, "abc")
    assert isinstance(first, Decision)
    [path] = home.data(pipeline).glob("decisions/*.json")
    os.utime(path, (time.time() - 1, time.time() - 1))
    second = policy.carry_out(a_station, pipeline, "abc")
    assert isinstance(second, State)
    assert (second.name, second.is_completed()) == ("Reused", True)
    assert policy.record_of(second) == first


def test_record_whose_file_was_removed_is_made_again_and_not_reused(home: Home) -> None:
    pipeline = pipelines.names()[0]
    policy.carry_out(a_station, pipeline, "abc")
    [path] = home.data(pipeline).glob("decisions/*.json")
    path.unlink()
    assert isinstance(policy.carry_out(a_station, pipeline, "abc"), Decision)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (SourceUnavailable("no network"), True),
        (RegistryError("locked"), True),
        (ConnectionResetError(), True),
        (EmptySource("no rows"), False),
        (UnknownPipeline("no such"), False),
        (ZeroDivisionError(), False),
    ],
)
def test_only_failures_of_the_outside_are_tried_again(error: Exception, again: bool) -> None:
    state: State[Any] = Failed(data=error)
    assert policy._may_pass(None, None, state) is again
