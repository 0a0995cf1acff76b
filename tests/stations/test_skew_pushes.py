"""Predictions that were read after a push: they wait for the next refresh, blind nobody, and are compared then."""

from __future__ import annotations

from datetime import datetime

import polars as pl
import pytest

from ferroflow.adapters.home import Home
from ferroflow.core import aggregates
from ferroflow.core.aggregates import Aggregate
from ferroflow.core.definitions import feature
from ferroflow.core.records import SkewReport
from ferroflow.core.skew import WAITING, judge, sentence
from ferroflow.core.spec import PipelineSpec, Skew
from ferroflow.core.windows import windows
from ferroflow.stations.features import refresh_offline
from ferroflow.stations.materialize import materialize
from ferroflow.stations.push import Pusher
from ferroflow.stations.skew import measure_skew
from tests.rides import accept, departures, pipeline
from tests.stations import served_rides
from tests.stations.served_rides import AS_OF, ASKED, BEGIN, HOUR, ROWS, answer, measured, rewrite_marks, served


@feature
def rides() -> Aggregate:
    return aggregates.count()


@feature
def mean(minutes: pl.Expr) -> Aggregate:
    return aggregates.mean(minutes)


ARRIVALS = windows(
    "arrivals",
    entity="stop",
    on="destination",
    time="ended",
    last="6h",
    every="1h",
    ttl="2d",
    features=(rides, mean),
)


def pushed() -> PipelineSpec:
    """The pipeline, one view of which is made of windows: it can be pushed."""
    return pipeline(features=(departures, ARRIVALS))


@pytest.fixture
def noon(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Home:
    """An hour of answers from a batch, and one from what was pushed on top of it."""
    monkeypatch.setattr(served_rides, "pipeline", pushed)
    home = Home(tmp_path_factory.mktemp("noon") / "home")
    model, validated = served(home, served_rides.version(home)), accept(home, ROWS)
    refresh_offline(pushed(), validated, BEGIN, home)
    materialize(pushed(), BEGIN, home)
    answer(home, model, asked(BEGIN))
    before = ROWS.filter(ROWS["ended"] < BEGIN)
    stream = Pusher(pushed(), "arrivals", home)
    stream.begin(before, place=0, until=BEGIN)
    came = ROWS.filter(ROWS["ended"].is_between(BEGIN, BEGIN + HOUR, closed="left"))
    assert stream.push(came, place=1, until=BEGIN + HOUR).rows > 0
    answer(home, model, asked(BEGIN + HOUR))
    return home


def asked(start: datetime) -> pl.DataFrame:
    return ASKED.filter(ASKED["started"].is_between(start, start + HOUR, closed="left"))


def skew(home: Home) -> SkewReport:
    return measured(home, pushed())


def test_what_was_read_after_a_push_waits_and_all_else_is_compared(noon: Home) -> None:
    first, second = (len(asked(BEGIN + hours * HOUR)) for hours in (0, 1))
    found = skew(noon)
    assert (found.compared, found.mismatched, found.not_comparable) == (first, 0, {WAITING: second})
    alarmed, told = judge(found, Skew())
    assert not alarmed and told.endswith(
        f"{second:,} not comparable: read after a push; its features are not refreshed yet"
    )
    assert not judge(found, Skew(max_not_comparable=0.0))[0]


def test_after_the_next_refresh_they_are_compared_though_no_row_is_new(noon: Home) -> None:
    waiting = skew(noon)
    refresh_offline(pushed(), accept(noon, ROWS), BEGIN + HOUR, noon)
    found = skew(noon)
    assert (found.compared, found.mismatched, found.not_comparable) == (found.read, 0, {})
    assert found.fingerprint != waiting.fingerprint
    assert {entry.compared for entry in found.features} == {found.read}


def test_a_mismatch_among_the_others_is_still_found(noon: Home) -> None:
    served_rides.rewrite_store(noon, "arrivals", pl.col("rides") + 1)
    found = skew(noon)
    assert found.mismatched > 0 and judge(found, Skew())[0]


def test_where_all_wait_nothing_is_compared_and_it_is_told_without_an_alarm(noon: Home) -> None:
    found = measure_skew(pushed(), AS_OF, noon, BEGIN + HOUR, served=[served_rides.version(noon)])
    assert found.not_comparable == {WAITING: found.read} and found.read > 0
    assert sentence(found).startswith(f"nothing could be compared ({found.read:,}: {WAITING})")
    assert not judge(found, Skew())[0]


def test_a_store_that_lost_what_cannot_have_been_pushed_still_alarms(rides: Home) -> None:
    later = 12 * 3_600_000_000
    rewrite_marks(rides, lambda event: [event + later, None])
    found = measured(rides)
    [(reason, rows)] = found.not_comparable.items()
    assert reason.startswith("the offline store was never computed for") and rows == found.read
    assert judge(found, Skew())[0]
