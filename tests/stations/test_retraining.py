from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from ferroflow.adapters.home import Home
from ferroflow.adapters.storage import atomic_parquet
from ferroflow.core.contract import ServingContract
from ferroflow.core.records import ModelVersion, MonitorReport, Validated
from ferroflow.core.spec import PipelineSpec
from ferroflow.stations import retraining
from tests.rides import START, pipeline

AS_OF = START + timedelta(days=10)


@pytest.fixture
def spec() -> PipelineSpec:
    return pipeline(features=())


def validated(home: Home, hours: list[float]) -> Validated:
    """Accepted rides that ended so many hours after START."""
    ended = [START + timedelta(hours=hour) for hour in hours]
    frame = pl.DataFrame({"ended": ended}, schema={"ended": pl.Datetime("us", "UTC")})
    path = home.data("rides") / "accepted.parquet"
    atomic_parquet(path, frame)
    return Validated(
        pipeline="rides",
        fingerprint="v",
        as_of=AS_OF,
        accepted=(home.relative(path),),
        quarantined=(),
        rows_in=len(hours),
        rows_accepted=len(hours),
        rows_quarantined=0,
        reasons={},
        casts={},
    )


def champion(home: Home, **lineage: str) -> ModelVersion:
    folder = home.packages("rides") / "m"
    folder.mkdir(parents=True)
    contract = ServingContract(
        pipeline="rides",
        model="boosting",
        fingerprint="m",
        task="regression",
        target="minutes",
        fields=(),
        inputs={},
        lineage=lineage,
    )
    (folder / "serving.json").write_text(contract.model_dump_json())
    return ModelVersion(
        pipeline="rides",
        fingerprint="m",
        name="rides",
        version="1",
        run_id="r",
        package=home.relative(folder),
        reference="",
        metrics={},
        candidate="boosting",
    )


def report(as_of: datetime = AS_OF, alarm: str = "performance") -> MonitorReport:
    return MonitorReport.model_validate(
        {
            "pipeline": "rides",
            "fingerprint": f"{as_of:%m%d}",
            "as_of": as_of,
            "version": "1",
            "predictions": 900,
            "labelled": 900,
            "drift": (),
            "live": 6.0,
            "expected": 4.0,
            "ratio": 1.5,
            "ratio_low": 1.4,
            "windows": (),
            "alarm": alarm,
            "why": "1.5 times the expected error",
        }
    )


def test_only_rows_known_after_the_champions_moment_are_new(home: Home, spec: PipelineSpec) -> None:
    rows = validated(home, [1, 47, 48, 49, 239, 241])
    trained = (START + timedelta(hours=48)).isoformat()
    assert retraining.new_rows(spec, rows, champion(home, as_of=trained, rows="2"), AS_OF, home) == 3


def test_without_a_champion_every_row_is_new(home: Home, spec: PipelineSpec) -> None:
    assert retraining.new_rows(spec, validated(home, [1, 2, 3]), None, AS_OF, home) == 3


def test_too_few_new_rows_refuse_and_leave_no_trace(home: Home, spec: PipelineSpec) -> None:
    decision = retraining.decide(spec, report(), validated(home, [1, 2]), home)
    assert not decision.retrain
    assert "only 2 new labelled rows (needs 5,000)" in decision.reason
    assert retraining.decisions("rides", home) == []


def test_decided_retraining_stays_decided_for_its_moment_and_cools_the_next_one_down(
    home: Home, spec: PipelineSpec
) -> None:
    rows = validated(home, list(range(5000)))
    first = retraining.decide(spec, report(), rows, home)
    assert first.retrain, first.reason
    assert retraining.decide(spec, report(), rows, home) == first  # the same run again, after a kill
    soon = retraining.decide(spec, report(AS_OF + timedelta(hours=1)), rows, home)
    assert not soon.retrain
    assert "cool-down" in soon.reason
    assert retraining.decide(spec, report(AS_OF + timedelta(hours=7)), rows, home).retrain


def test_retraining_that_is_asked_for_passes_the_policy_by_and_says_so(home: Home, spec: PipelineSpec) -> None:
    quiet = report(alarm="none")
    rows = validated(home, [1])
    assert not retraining.decide(spec, quiet, rows, home).retrain
    asked = retraining.decide(spec, quiet, rows, home, force=True, reason="new zones")
    assert (asked.retrain, asked.reason) == (True, "asked for: new zones")
    assert [decision.as_of for decision in retraining.decisions("rides", home)] == [datetime(2023, 1, 11, tzinfo=UTC)]


def test_champion_of_a_pipeline_without_time_is_compared_by_the_number_of_rows(home: Home, tmp_path: Path) -> None:
    from dataclasses import replace

    timeless = pipeline(features=())
    timeless = replace(timeless, source=replace(timeless.source, time=None))
    rows = validated(home, [1, 2, 3, 4, 5])
    assert retraining.new_rows(timeless, rows, champion(home, as_of=AS_OF.isoformat(), rows="2"), AS_OF, home) == 3
