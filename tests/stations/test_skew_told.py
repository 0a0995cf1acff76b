"""What is told of skew: no value of a person, and an alarm of the monitor where it belongs."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from ferroflow.adapters.home import Home
from ferroflow.core.catalogue import Declared, personal
from ferroflow.core.features import RequestFeatures
from ferroflow.core.records import ModelVersion
from ferroflow.core.spec import InputDrift, Skew, Staleness
from ferroflow.stations.monitor import monitor_version
from tests.rides import pipeline
from tests.stations.served_rides import (
    AS_OF,
    ASKED,
    HOUR,
    INPUTS,
    answer,
    change_contract,
    logged,
    measured,
    rewrite_store,
    served,
    version,
)


def test_personal_values_are_not_shown(rides: Home) -> None:
    other = RequestFeatures(lambda: [pl.lit(99.0).alias("hour")])
    answer(rides, served(rides, version(rides), [other]), ASKED.tail(1))
    [entry] = [e for e in measured(rides, replace(pipeline(), personal=("hour",))).features if e.mismatched]
    assert (entry.examples[0].logged, entry.examples[0].recomputed) == ("***", "***")


def test_what_is_made_of_personal_columns_is_not_shown_either(rides: Home) -> None:
    other = RequestFeatures(lambda: [pl.lit(99.0).alias("hour")])
    answer(rides, served(rides, version(rides), [other]), ASKED.tail(3))
    rewrite_store(rides, "departures", pl.col("rides") + 1)
    rewrite_store(rides, "arrivals", pl.col("rides") + 1)

    def shown(*personal: str) -> dict[str, bool]:
        found = measured(rides, replace(pipeline(), personal=personal))
        examples = {entry.feature: entry.examples for entry in found.features if entry.examples}
        for entries in examples.values():
            assert len({entry.logged == "***" for entry in entries}) == 1
            assert len({(entry.logged == "***") == (entry.recomputed == "***") for entry in entries}) == 1
        return {name: entries[0].logged != "***" for name, entries in examples.items()}

    names = ("hour", "departures__rides", "arrivals__rides")
    assert shown() == dict.fromkeys(names, True)
    assert shown("started") == dict.fromkeys(names, False), "the hour reads it, and the views do not say what they read"
    assert shown("origin") == {"hour": True, "departures__rides": False, "arrivals__rides": False}


@pytest.mark.parametrize(("look_up", "hidden"), [("origin", True), ("destination", False)])
def test_a_feature_looked_up_by_a_personal_field_is_personal(look_up: str, hidden: bool) -> None:
    entry = Declared(name="v__x", kind="window", view="v", entity="stop", on=look_up, reads=("minutes",))
    assert personal(entry, replace(pipeline(), personal=("origin",))) == hidden


# ------------------------------------------------------------------------------------------------------- the monitor


@pytest.fixture
def champion(rides: Home) -> ModelVersion:
    """The version, with reference rows that look as the morning did."""
    path = rides.data("rides") / "reference.parquet"
    rows = logged(rides).select(*INPUTS, started="event_time", prediction=pl.lit(1.0), target=pl.lit(1.0))
    rows.with_row_index("row_id").with_columns(part=pl.lit("test")).write_parquet(path)
    return version(rides).model_copy(update={"reference": rides.relative(path)})


def test_the_monitor_alarms_on_skew_before_anything_else(rides: Home, champion: ModelVersion) -> None:
    spec = replace(pipeline(), monitors=(InputDrift(min_rows=20), Skew()))
    quiet = monitor_version(spec, champion, AS_OF, rides, report=False)
    assert quiet.alarm == "none" and quiet.skew is not None
    assert f"0 of {ASKED.height * len(INPUTS):,} logged values differ" in quiet.why
    rewrite_store(rides, "departures", pl.col("rides") + 100)
    found = monitor_version(spec, champion, AS_OF, rides, report=False)
    assert found.alarm == "skew" and found.fingerprint != quiet.fingerprint
    assert "(departures__rides " in found.why and "neither error nor drift" in found.why
    assert found.skew is not None and found.skew.mismatched > 0
    lenient = replace(spec, monitors=(Skew(max_share=1.0),))
    assert monitor_version(lenient, champion, AS_OF, rides, report=False).alarm == "none"
    assert monitor_version(replace(spec, monitors=()), champion, AS_OF, rides, report=False).skew is None
    few = replace(spec, monitors=(Skew(min_rows=10_000),))
    assert monitor_version(few, champion, AS_OF, rides, report=False).alarm == "none"


def test_a_monitor_that_can_compare_nothing_alarms_unless_something_worse_is_found(
    rides: Home, champion: ModelVersion
) -> None:
    change_contract(rides, feature_code="before")
    spec = replace(pipeline(), monitors=(InputDrift(min_rows=20), Skew()))
    found = monitor_version(spec, champion, AS_OF, rides, report=False)
    assert found.alarm == "skew" and found.why.startswith("nothing could be compared")
    assert "neither error nor drift says" not in found.why and "no input drifted" in found.why
    old = replace(spec, monitors=(Staleness("1m"), Skew()))
    found = monitor_version(old, champion, AS_OF + HOUR, rides, report=False)
    assert found.alarm == "staleness" and "nothing could be compared" in found.why
