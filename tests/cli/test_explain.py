"""``ferroflow explain``: one prediction, told from the request to the deployment."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ferroflow.adapters import registry
from ferroflow.adapters.home import Home
from ferroflow.adapters.ledger import Ledger
from ferroflow.adapters.predictions import PredictionLog
from ferroflow.cli.explain import explain
from ferroflow.core.errors import NotFound
from ferroflow.core.records import ModelVersion
from tests.serving_toy import NOON, ROW, package, toy_home

ID = "0" * 31 + "1"
FEATURES = {"zone": 1, "distance": 2.5, "colour": "red", "hour": 12.0, "zone_hour__mean": 20.0}


@pytest.fixture
def told(tmp_path: Path) -> Home:
    """A home with one logged, labelled prediction, its offline store and its ledger line."""
    home = toy_home(tmp_path)
    log = PredictionLog(home.predictions("toy"))
    seen = {"zone_hour": [int(NOON.timestamp() * 1e6), None]}
    row = {"id": ID, "at": NOON, "version": "1", "event_time": NOON + timedelta(minutes=30), "prediction": 137.0}
    texts = {"inputs": json.dumps(ROW), "features": json.dumps(FEATURES), "watermarks": json.dumps(seen)}
    log.append([{**row, **texts, "degraded": False}])
    log.add_labels([(ID, 140.0)], NOON + timedelta(hours=2))
    home.offline("toy").mkdir(parents=True)
    moments = [NOON - timedelta(hours=1), NOON, NOON + timedelta(minutes=20)]
    frame = pl.DataFrame({"zone": [1, 1, 1], "available_at": moments, "mean": [1.0, 20.0, 9.0]})
    frame.write_parquet(home.offline("toy") / "zone_hour.parquet")
    line = {"model": "m", "previous": None, "cause": "v", "at": NOON, "why": "it beats the baseline"}
    Ledger(home.ledger).append("toy", "1", "promoted", **line)  # type: ignore[arg-type]
    return home


@pytest.fixture
def known(told: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    """The same, with a registry that knows the version and a reference of its inputs."""
    reference = told.root / "reference.parquet"
    pl.DataFrame([FEATURES | {"distance": value} for value in (0.5, 1.5, 9.5)]).write_parquet(reference)
    fingerprint = package(told, 1)
    version = ModelVersion(
        pipeline="toy",
        fingerprint=fingerprint,
        name="toy",
        version="1",
        run_id="r",
        package=told.relative(told.packages("toy") / fingerprint),
        reference="reference.parquet",
        metrics={},
        candidate="boosting",
    )
    # MLflow's own reading of versions is tested with the registry; here one answer of it is enough.
    monkeypatch.setattr(registry, "version", lambda pipeline, number, home: version)
    return told


def test_features_are_told_with_their_origin_and_age_as_the_service_saw_them(
    known: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    explain(known, ID, as_json=True)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    origins = {entry["name"]: entry for entry in found["features"]}
    assert origins["distance"]["from"] == "the request"
    assert origins["hour"]["from"] == "computed from the request"
    assert origins["zone_hour__mean"]["from"] == "zone_hour of zone 1"
    assert origins["zone_hour__mean"]["age_seconds"] == 1800, "what came after the watermark was not seen"
    assert found["label"] == 140.0
    assert found["deployment"]["why"] == "it beats the baseline"
    assert found["lineage"]["snapshot"] == "aaaa"


def test_a_prediction_logged_when_watermarks_were_numbers_is_explained_as_well(
    known: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect(known.predictions("toy"), isolation_level=None)) as log:
        marks = json.dumps({"zone_hour": int(NOON.timestamp() * 1e6), "away": None})
        log.execute("UPDATE predictions SET watermarks = ?", (marks,))
    explain(known, ID, as_json=True)
    origins = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["features"]}
    assert origins["zone_hour__mean"]["age_seconds"] == 1800


def test_attribution_tells_what_a_typical_value_would_have_changed(
    known: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    explain(known, ID, as_json=True)
    lines = json.loads(capsys.readouterr().out)["attribution"]
    assert lines[0] == {"input": "distance", "value": 2.5, "typical": 1.5, "change": 2.0}
    assert all(line["change"] == 0 for line in lines[1:])


def test_people_read_a_table(known: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    explain(known, ID, as_json=False)
    shown = capsys.readouterr().out
    for text in ("version 1 answered 137", "0:30:00 old", "off by -3", "Promoted", "snapshot aaaa"):
        assert text in shown


def test_prediction_outlives_its_registry(told: Home, capsys: pytest.CaptureFixture[str]) -> None:
    (told.mlflow / "mlflow.db").unlink()
    explain(told, ID, as_json=False)
    assert "is gone" in capsys.readouterr().out


def test_unknown_id_is_told_which_logs_were_asked(told: Home) -> None:
    with pytest.raises(NotFound, match=r"logs: toy"):
        explain(told, "f" * 32, as_json=False)
