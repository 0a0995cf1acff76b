"""The skew can be seen: an honest run has none, and each way to be wrong is found, by feature and by count."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ferroflow.adapters import registry
from ferroflow.adapters.home import Home
from ferroflow.core.contract import Field
from ferroflow.core.features import RequestFeatures
from ferroflow.core.records import SkewReport
from ferroflow.core.skew import different, judge, sentence
from ferroflow.core.spec import Skew
from ferroflow.stations.recompute import recompute, watermarks
from ferroflow.stations.skew import measure_skew
from tests.rides import pipeline
from tests.serving_toy import contract
from tests.stations import served_rides
from tests.stations.served_rides import (
    AS_OF,
    ASKED,
    BEGIN,
    HOUR,
    INPUTS,
    answer,
    change_contract,
    logged,
    measured,
    rewrite_marks,
    rewrite_store,
    served,
    version,
    with_ttl,
)


def wrong(report: SkewReport) -> dict[str, int]:
    return {entry.feature: entry.mismatched for entry in report.features if entry.mismatched}


def test_an_honest_run_has_no_skew_and_every_value_was_compared(rides: Home) -> None:
    found = measured(rides)
    assert found.read == found.predictions == found.compared == ASKED.height > 50
    assert found.values == ASKED.height * len(INPUTS)
    assert {entry.feature for entry in found.features} == set(INPUTS)
    assert (found.mismatched, found.corrected, found.differing) == (0, 0, 0)
    lines = logged(rides)
    assert lines["departures__mean"].null_count() < lines.height / 2, "there is something to be compared"
    assert not judge(found, Skew())[0]
    assert sentence(found).startswith(f"0 of {found.values:,} logged values differ")


@pytest.mark.parametrize(
    "clock",
    [
        pl.col("started").dt.hour() + 1,
        pl.col("started").dt.convert_time_zone("America/New_York").dt.hour(),
    ],
    ids=["another function", "another time zone"],
)
def test_a_service_that_computes_a_request_feature_otherwise_is_found(rides: Home, clock: pl.Expr) -> None:
    other = RequestFeatures(lambda: [clock.alias("hour")])
    last = ASKED.filter(pl.col("started") >= AS_OF - HOUR)
    answer(rides, served(rides, version(rides), [other]), last)
    found = measured(rides)
    assert wrong(found) == {"hour": last.height}
    assert found.differing == last.height
    [entry] = [entry for entry in found.features if entry.mismatched]
    assert len(entry.examples) == 5
    shown = entry.examples[0]
    [line] = logged(rides).filter(pl.col("id") == shown.prediction).to_dicts()
    assert (shown.version, shown.logged, shown.recomputed) == ("1", line["hour"], float(line["event_time"].hour))


def test_a_stored_value_that_is_another_one_is_found(rides: Home) -> None:
    changed = pl.when(pl.col("stop") == 1).then(pl.col("mean") + 0.001).otherwise("mean").alias("mean")
    rewrite_store(rides, "departures", changed)
    lines = logged(rides).filter((pl.col("origin") == 1) & pl.col("departures__mean").is_not_null())
    assert wrong(measured(rides)) == {"departures__mean": lines.height}
    assert lines.height > 5


def test_a_stored_value_that_is_gone_is_found(rides: Home) -> None:
    path = rides.offline("rides") / "arrivals.parquet"
    pl.read_parquet(path).filter(pl.col("stop") != 2).write_parquet(path)
    lines = logged(rides).filter((pl.col("destination") == 2) & pl.col("arrivals__rides").is_not_null())
    assert wrong(measured(rides)) == {"arrivals__rides": lines.height, "arrivals__mean": lines.height}


def test_another_time_to_live_is_found(rides: Home) -> None:
    ttl = timedelta(minutes=30)
    rows = pl.read_parquet(rides.offline("rides") / "departures.parquet")
    expected = 0
    for origin, moment, value in logged(rides).select("origin", "event_time", "departures__rides").iter_rows():
        seen = min(moment, moment.replace(minute=0))
        usable = rows.filter((pl.col("stop") == origin) & (pl.col("available_at") <= seen))["available_at"].max()
        expected += value is not None and moment - usable > ttl  # type: ignore[operator]
    assert expected > 5
    found = measured(rides, with_ttl("departures", ttl))
    assert wrong(found) == {"departures__rides": expected, "departures__mean": expected}


def test_what_is_missing_because_it_was_asked_for_too_late_is_counted_apart(rides: Home) -> None:
    known = set(logged(rides)["id"])
    past = ASKED.filter(pl.col("started") < BEGIN + HOUR)
    answer(rides, served(rides, version(rides)), past)
    again = logged(rides).filter(~pl.col("id").is_in(known))
    first = logged(rides).filter(pl.col("id").is_in(known) & (pl.col("event_time") < BEGIN + HOUR))
    columns = ["departures__rides", "departures__mean"]
    lost = [first[name].count() - again[name].count() for name in columns]
    found = measured(rides)
    counts = {entry.feature: entry.late for entry in found.features if entry.late}
    assert [counts[name] for name in columns] == lost and lost[0] > 0
    assert found.mismatched == 0 and not judge(found, Skew())[0]
    assert f"{found.late:,} were missing since their rows were asked for too late" in sentence(found)


def test_a_missing_value_that_the_store_could_have_given_is_a_mismatch(rides: Home) -> None:
    with closing(sqlite3.connect(rides.predictions("rides"), isolation_level=None)) as log:
        changed = log.execute(
            "UPDATE predictions SET features = json_set(features, '$.departures__rides', NULL) "
            "WHERE json_extract(features, '$.departures__rides') IS NOT NULL"
        )
        assert wrong(measured(rides)) == {"departures__rides": changed.rowcount}


def test_lines_of_the_older_form_are_compared_as_well(rides: Home) -> None:
    rewrite_marks(rides, lambda event: event)
    found = measured(rides)
    assert (found.compared, found.mismatched) == (ASKED.height, 0)


def test_what_was_written_after_it_was_read_is_a_correction_and_no_mismatch(rides: Home) -> None:
    before = rewrite_store(
        rides, "departures", pl.when(pl.col("stop") == 1).then(-1.0).otherwise("rides").alias("rides")
    )
    ingested = before["ingested_at"].dt.epoch("us").sort()
    first, last = int(ingested[0]), int(ingested[-1])
    lines = logged(rides).filter((pl.col("origin") == 1) & pl.col("departures__rides").is_not_null())
    rewrite_marks(rides, lambda event: [event, last])
    assert wrong(measured(rides)) == {"departures__rides": lines.height}, "it was there when the service read it"
    rewrite_marks(rides, lambda event: [event, None])
    assert wrong(measured(rides)) == {"departures__rides": lines.height}, "nobody knows what had been ingested"
    rewrite_marks(rides, lambda event: [event, first - 1])
    found = measured(rides)
    assert (found.mismatched, found.corrected) == (0, lines.height)
    [entry] = [entry for entry in found.features if entry.corrected]
    assert entry.feature == "departures__rides" and entry.corrections[0].recomputed == -1.0


def test_more_corrections_than_can_be_are_an_alarm(rides: Home) -> None:
    rewrite_store(rides, "departures", pl.col("rides") + 1)
    rewrite_marks(rides, lambda event: [event, 0])
    found = measured(rides)
    assert found.mismatched == 0 and found.corrected > found.read / 2
    alarmed, told = judge(found, Skew())
    assert alarmed and "more was rewritten than corrections explain (departures__rides" in told
    assert not judge(found, Skew(max_corrected=1.0))[0]


def test_predictions_without_an_online_store_are_counted_apart(rides: Home) -> None:
    for path in rides.online("rides").parent.iterdir():
        path.unlink()
    last = ASKED.filter(pl.col("started") >= AS_OF - HOUR)
    answer(rides, served(rides, version(rides)), last)
    found = measured(rides)
    assert (found.compared, found.degraded, found.mismatched) == (ASKED.height, last.height, 0)
    counts = {entry.feature: (entry.compared, entry.degraded) for entry in found.features}
    assert counts["hour"] == (found.read, 0)
    assert counts["departures__mean"] == (ASKED.height, last.height)


def test_a_value_that_was_fed_although_nothing_could_be_read_is_a_mismatch(rides: Home) -> None:
    rewrite_marks(rides, lambda event: None)
    lines = logged(rides)
    assert wrong(measured(rides)) == {
        name: lines[name].count() for name in INPUTS if "__" in name and lines[name].count()
    }


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"feature_code": "before"}, "another feature code"),
        ({"request_features": ["no.such.module:clock"]}, "its request features are gone"),
        ({"fields": []}, "it was not asked for origin, destination, started"),
        ({"inputs": {"moon": "float"}}, "the description makes no moon any more"),
        ({"inputs": "none"}, "the contract of version 1 is gone"),
    ],
)
def test_what_cannot_be_compared_is_told_with_its_reason(rides: Home, changes: dict[str, Any], reason: str) -> None:
    known = version(rides)
    change_contract(rides, **changes)
    found = measure_skew(pipeline(), AS_OF, rides, BEGIN, served=[known])
    [(told, rows)] = found.not_comparable.items()
    assert told.startswith(reason) and rows == found.read == ASKED.height
    assert (found.compared, found.values) == (0, 0)
    assert sentence(found).startswith(f"nothing could be compared ({rows:,}: {reason}")
    assert judge(found, Skew())[0]


def test_lines_that_cannot_be_read_are_told_and_the_others_compared(rides: Home) -> None:
    with closing(sqlite3.connect(rides.predictions("rides"), isolation_level=None)) as log:
        names = [name for (name,) in log.execute("SELECT id FROM predictions ORDER BY id LIMIT 4")]
        for name, column, text in zip(
            names,
            ("inputs", "inputs", "features", "watermarks"),
            ("{", '{"origin": [1], "destination": 2, "started": "2023-01-03T00:00:00Z"}', "[]", "{}"),
            strict=True,
        ):
            log.execute(f"UPDATE predictions SET {column} = ? WHERE id = ?", (text, name))
    found = measured(rides)
    assert list(found.not_comparable.values()) == [3, 1]
    assert (found.compared, found.mismatched) == (ASKED.height - 4, 0)


def test_without_an_offline_store_nothing_is_compared_and_it_is_told(rides: Home) -> None:
    shutil.rmtree(rides.offline("rides"))
    [(reason, rows)] = measured(rides).not_comparable.items()
    assert "has no stored features" in reason and rows == ASKED.height


def test_accepted_rows_that_are_gone_leave_their_predictions_uncompared_and_end_nothing(rides: Home) -> None:
    (rides.offline("rides") / "manifest.json").unlink()  # as after a refresh that was cut off
    shutil.rmtree(rides.data("rides") / "validated")
    found = measured(rides)
    [(reason, rows)] = found.not_comparable.items()
    assert reason.startswith("its stored features cannot be computed again: a file of accepted") and rows == found.read
    assert judge(found, Skew())[0]


def test_a_damaged_file_of_the_store_leaves_its_predictions_uncompared_and_ends_nothing(rides: Home) -> None:
    (rides.offline("rides") / "arrivals.parquet").write_bytes(b"PAR1 no table PAR1")
    [(reason, rows)] = measured(rides).not_comparable.items()
    assert reason.startswith("its inputs cannot be made again") and rows == ASKED.height


def test_the_store_of_an_earlier_moment_is_brought_back_before_it_is_joined(rides: Home) -> None:
    from ferroflow.stations.features import refresh_offline

    refresh_offline(pipeline(), served_rides.accept(rides, served_rides.ROWS), BEGIN, rides)
    assert measured(rides).mismatched == 0


def test_the_same_log_and_store_give_the_same_report_and_nothing_is_done_twice(rides: Home) -> None:
    first = measured(rides)
    [path] = (rides.data("rides") / "skew").glob("*.json")
    written = path.stat().st_mtime_ns
    assert measured(rides) == first and path.stat().st_mtime_ns == written
    path.unlink()
    assert measured(rides) == first
    rewrite_store(rides, "departures", pl.col("rides") + 1)
    assert measured(rides).fingerprint != first.fingerprint


def test_only_the_newest_predictions_are_looked_at_and_it_is_told_of_how_many(rides: Home) -> None:
    found = measured(rides, newest=10)
    assert (found.read, found.predictions) == (10, ASKED.height)
    assert f"10 predictions (the newest of {ASKED.height:,})" in sentence(found)


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ('{"v": [5, 3]}', (True, 5, 3)),
        ('{"v": [5, null]}', (True, 5, None)),
        ('{"v": 5}', (True, 5, None)),
        ('{"v": null}', (True, None, None)),
        ('{"w": 5}', (False, None, None)),
        ('{"v": []}', (False, None, None)),
        ("no JSON", (False, None, None)),
    ],
)
def test_watermarks_of_each_form_are_read(text: str, marks: tuple[Any, ...]) -> None:
    assert watermarks(pl.Series([text, '{"v": 7}', text]), "v").rows() == [marks, (True, 7, None), marks]


def test_zeros_of_both_signs_stay_what_they_are() -> None:
    fields = (Field(name="x", type="number"),)
    bare = contract("f", fields=fields, stored=(), request_features=(), inputs={"x": "float"}, time=None)
    spec = replace(pipeline(), features=(), inputs=("x",), categorical=())
    asked = [{"x": 0.0}, {"x": -0.0}, {"x": 0}]
    lines = pl.DataFrame(
        [{"id": str(row["x"]), "version": "1", "at": AS_OF, "watermarks": "{}"} | _texts(row) for row in asked]
    )
    [column] = recompute(spec, bare, lines, Home(Path())).columns
    assert different(column.logged, column.again).to_list() == [False] * 3


def _texts(row: dict[str, Any]) -> dict[str, str]:
    return {"inputs": json.dumps(row), "features": json.dumps({"x": float(row["x"])})}


def test_each_version_is_compared_by_its_own_contract(rides: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    second = version(rides, "2")
    last = ASKED.filter(pl.col("started") >= AS_OF - HOUR)
    answer(rides, served(rides, second), last)
    answer(rides, replace(served(rides, second), version="3"), last)
    monkeypatch.setattr(registry, "versions", lambda *_: [version(rides), second])
    found = measure_skew(pipeline(), AS_OF, rides, BEGIN)
    assert found.not_comparable == {"the contract of version 3 is gone": last.height}
    assert (found.read, found.compared) == (ASKED.height + 2 * last.height, ASKED.height + last.height)
    assert found.mismatched == 0


def test_accepted_rows_may_stand_in_for_the_requests(rides: Home) -> None:
    asked = logged(rides).select("id", "origin", "destination", started="event_time")
    accepted = asked.head(30).rename({"id": "prediction_id"}).lazy()
    found = measured(rides, accepted=accepted)
    assert (found.read, found.compared, found.mismatched) == (30, 30, 0)
    later = accepted.with_columns(pl.col("started") + HOUR)
    assert wrong(measured(rides, accepted=later))["hour"] == 30
