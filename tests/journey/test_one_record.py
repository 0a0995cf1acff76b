"""The tour: one trip's way through the house, from a line of a raw file to the decision that followed its label.

Read it top to bottom. Each test is one station; each record it gets names its predecessor's fingerprint.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import httpx
import polars as pl
import pytest

from ferroflow.adapters import pipelines
from ferroflow.adapters.home import Home
from ferroflow.adapters.ledger import Ledger
from ferroflow.adapters.predictions import PredictionLog
from ferroflow.adapters.processes import Stack
from ferroflow.adapters.settings import load_settings
from ferroflow.stations import (
    evaluate,
    explain,
    features,
    gate,
    ingest,
    monitor,
    package,
    quality,
    register,
    split,
    train,
    validate,
)

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

NOW = datetime(2023, 4, 1, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A home, a pipeline, and everything the stations have given so far."""
    root = tmp_path_factory.mktemp("tour")
    settings = load_settings(home=root, simulate=True, service_port=3310)
    spec = pipelines.load("taxi")
    stack = Stack(settings)
    yield SimpleNamespace(settings=settings, home=Home(root), spec=spec, as_of=spec.as_of, stack=stack)
    stack.stop()


def test_1_a_raw_file_becomes_a_snapshot(tour: SimpleNamespace) -> None:
    tour.snapshot = ingest.ingest(tour.spec, tour.as_of, tour.home, now=NOW, settings=tour.settings)
    assert [part.file for part in tour.snapshot.parts] == [
        f"green_tripdata_2023-0{month}.parquet" for month in (1, 2, 3)
    ]
    again = ingest.ingest(tour.spec, tour.as_of, tour.home, now=NOW + timedelta(days=1), settings=tour.settings)
    assert again.fingerprint == tour.snapshot.fingerprint


def test_2_our_row_is_accepted_and_others_are_quarantined_with_reasons(tour: SimpleNamespace) -> None:
    tour.validated = checked = validate.validate(tour.spec, tour.snapshot, tour.home)
    assert checked.parent == tour.snapshot.fingerprint
    assert checked.rows_in == checked.rows_accepted + checked.rows_quarantined == tour.snapshot.rows
    assert checked.rows_quarantined > 0 and sum(checked.reasons.values()) >= checked.rows_quarantined
    rows = pl.concat([pl.scan_parquet(tour.home.absolute(path)) for path in checked.accepted])
    tour.row = rows.filter(pl.col("pickup_at") > tour.as_of - timedelta(hours=30)).head(1).collect()
    tour.row_id = tour.row["row_id"].item()


def test_2b_the_rows_together_are_good_enough_to_go_on(tour: SimpleNamespace) -> None:
    tour.quality = quality.assess(tour.spec, tour.snapshot, tour.validated, tour.as_of, tour.home)
    assert tour.quality.parent == tour.validated.fingerprint
    assert tour.quality.passed, tour.quality.reason
    assert 0.8 < tour.quality.score < 1
    assert tour.quality.score == pytest.approx(sum(tour.quality.parts.values()) / 5, abs=1e-5)


def test_3_it_gets_features_that_were_available_when_it_was_asked(tour: SimpleNamespace) -> None:
    tour.table = features.build_features(tour.spec, tour.validated, tour.as_of, tour.home)
    assert tour.table.parent == tour.validated.fingerprint
    assert features.materialize(tour.spec, tour.as_of, tour.home).keys() == {view.name for view in tour.spec.stored}
    table = pl.read_parquet(tour.home.absolute(tour.table.path))
    tour.vector = table.filter(pl.col("row_id") == tour.row_id)
    [trips] = tour.vector["zone_day__trips"]
    zone, pickup = tour.row["PULocationID"].item(), tour.row["pickup_at"].item()
    window_end = pickup.replace(hour=pickup.hour // 6 * 6, minute=0, second=0, microsecond=0)
    accepted = pl.concat([pl.scan_parquet(tour.home.absolute(path)) for path in tour.validated.accepted])
    ended = accepted.filter(
        pl.col("PULocationID") == zone,
        pl.col("dropoff_at").is_between(window_end - timedelta(days=1), window_end, closed="left"),
    )
    expected = ended.select(pl.len()).collect().item()
    assert trips == expected or (expected == 0 and trips is None)


def test_4_it_is_held_out_to_test_what_others_train(tour: SimpleNamespace) -> None:
    tour.split = split.split(tour.spec, tour.table, tour.home)
    assert tour.split.parent == tour.table.fingerprint
    where = {
        part: pl.scan_parquet(tour.home.absolute(path)).filter(pl.col("row_id") == tour.row_id).collect().height
        for part, path in tour.split.paths.items()
    }
    assert where == {"train": 0, "validation": 0, "test": 1}


def test_5_a_network_and_trees_compete_with_a_naive_baseline(tour: SimpleNamespace) -> None:
    tour.model = train.train(tour.spec, tour.split, tour.home, seconds=8, trials=3)
    assert tour.model.parent == tour.split.fingerprint
    assert {line.candidate for line in tour.model.leaderboard} >= {"baseline", tour.model.candidate}
    best = min(tour.model.leaderboard, key=lambda line: line.metrics["rmse"])
    assert best.candidate == tour.model.candidate != "baseline"


def test_6_the_model_is_judged_on_rows_it_never_saw(tour: SimpleNamespace) -> None:
    tour.evaluation = evaluate.evaluate(tour.spec, tour.split, tour.model, None, tour.home)
    tour.verdict = gate.judge(tour.spec, tour.evaluation)
    assert tour.evaluation.parent == tour.model.fingerprint and tour.verdict.parent == tour.evaluation.fingerprint
    assert tour.verdict.passed, tour.verdict.reason


def test_7_it_is_registered_and_promoted_and_the_ledger_says_why(tour: SimpleNamespace) -> None:
    lineage = {"snapshot": tour.snapshot.fingerprint, "split": tour.split.fingerprint}
    folder = package.write_package(tour.spec, tour.model, lineage, tour.home)
    tour.version = register.register(
        tour.spec, tour.model, tour.evaluation, tour.verdict, tour.split, folder, tour.home, at=NOW
    )
    tour.deployment = register.promote(tour.spec, tour.version, tour.verdict, tour.home, at=NOW)
    assert (tour.version.version, tour.deployment.action) == ("1", "promoted")
    assert Ledger(tour.home.ledger).history("taxi")[-1].why == tour.deployment.why != ""


def test_8_the_service_predicts_it_from_the_same_vector(tour: SimpleNamespace) -> None:
    tour.stack.start(services=("service",))
    tour.address = tour.stack.addresses["service"]
    request = tour.row.select(tour.spec.inputs).with_columns(pl.col("pickup_at").dt.to_string("iso:strict")).to_dicts()
    answer = httpx.post(f"{tour.address}/v1/taxi/predict", json={"rows": request}, timeout=30)
    assert answer.status_code == 200, answer.text
    tour.answer = answer.json()
    assert tour.answer["version"] == "1" and tour.answer["degraded"] is False
    [tour.prediction_id] = tour.answer["prediction_ids"]


def test_9_the_prediction_was_logged_before_it_was_answered_and_takes_its_label(tour: SimpleNamespace) -> None:
    minutes = tour.row["duration_minutes"].item()
    label = {"prediction_id": tour.prediction_id, "value": minutes}
    told = httpx.post(f"{tour.address}/v1/taxi/feedback", json={"labels": [label]}, timeout=30).json()
    assert told == {"accepted": 1, "unknown": [], "repeated": []}
    logged = explain.find(tour.home, tour.prediction_id)
    assert (logged.parent, logged.label) == (tour.model.fingerprint, minutes)
    assert PredictionLog(tour.home.predictions("taxi")).read()["id"].to_list() == [tour.prediction_id]


def test_10_a_report_judges_it_and_a_decision_follows(tour: SimpleNamespace) -> None:
    report = monitor.monitor(tour.spec, tour.as_of, tour.home, report=False)
    assert (report.predictions, report.labelled, report.version) == (1, 1, "1")
    assert report.alarm == "none" and report.why
    decision = monitor.decide(tour.spec, report, [], tour.as_of, new_rows=0)
    assert decision.parent == report.fingerprint
    assert decision.retrain is False and decision.reason
