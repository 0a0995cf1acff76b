from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from ferroflow.adapters import pipelines
from ferroflow.adapters.home import Home
from ferroflow.adapters.settings import load_settings
from ferroflow.core.errors import BatchRefused
from ferroflow.core.records import FeatureSkew, ModelVersion, MonitorReport, SkewExample, SkewReport
from ferroflow.stations import ingest, validate
from tasks import artifacts, data
from tasks.policy import record_of
from tests.flows.walks import PIPELINES, ROWS, a_mirror

REPORT: dict[str, Any] = dict.fromkeys(("live", "expected", "ratio", "ratio_low"))
REPORT |= {"pipeline": "toy", "fingerprint": "f", "as_of": datetime(2024, 1, 1, tzinfo=UTC), "version": "1"}
REPORT |= {"predictions": 3, "labelled": 2, "drift": (), "windows": (), "alarm": "none", "why": "all is well"}


@pytest.fixture
def shown(home: Home, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would be shown in Prefect's pages."""
    told: list[str] = []
    monkeypatch.setenv("FERROFLOW_HOME", str(home.root))
    monkeypatch.setenv("FERROFLOW_SERVICE_PORT", "3456")
    monkeypatch.setenv("FERROFLOW_MLFLOW_PORT", "5678")
    monkeypatch.setattr(artifacts, "create_markdown_artifact", lambda text, **_: told.append(text))
    monkeypatch.setattr(artifacts, "create_table_artifact", lambda table, key, **_: told.append(f"{key} {table}"))
    return told


def test_report_is_linked_by_the_service_which_a_browser_may_follow(home: Home, shown: list[str]) -> None:
    artifacts.monitored(MonitorReport(**REPORT, html="reports/toy/2024-01-01T0000-f.html"), home)
    assert "(http://127.0.0.1:3456/reports/toy/2024-01-01T0000-f.html)" in shown[0]
    assert "file://" not in shown[0]


def test_link_to_mlflow_is_there_while_mlflow_is_not_and_goes_where_it_answers(home: Home, shown: list[str]) -> None:
    version: dict[str, Any] = {"run_id": "r", "package": "p", "reference": "q", "metrics": {}, "candidate": "c"}
    model = ModelVersion(pipeline="toy", fingerprint="f", name="toy", version="4", **version)
    artifacts.registered(model, home)
    me = psutil.Process()
    server = f'{{"name":"mlflow","pid":{me.pid},"created":{me.create_time()},"address":"http://127.0.0.1:5999"}}'
    home.root.mkdir(exist_ok=True)
    home.processes.write_text(f'{{"servers":{{"mlflow":{server}}}}}')
    artifacts.registered(model, home)
    assert "(http://127.0.0.1:5678/#/models/toy/versions/4)" in shown[0]
    assert "(http://127.0.0.1:5999/#/models/toy/versions/4)" in shown[1]


def test_skew_is_shown_by_feature_with_examples(shown: list[str]) -> None:
    example = SkewExample(prediction="p1", version="1", logged=2.0, recomputed=None)
    counts: dict[str, Any] = {"compared": 3, "corrected": 0, "late": 0, "degraded": 0, "corrections": ()}
    right = FeatureSkew(feature="hour", mismatched=0, examples=(), **counts)
    wrong = FeatureSkew(feature="mean", mismatched=1, examples=(example,), **counts)
    about: dict[str, Any] = {"as_of": REPORT["as_of"], "since": REPORT["as_of"], "predictions": 3, "read": 3}
    about |= {"compared": 3, "degraded": 0, "not_comparable": {}, "differing": 1}
    artifacts.skewed(SkewReport(pipeline="toy", fingerprint="f", features=(wrong, right), **about))
    counted, examples = shown
    assert counted.startswith("toy-skew [{'feature': 'mean', 'compared': 3, 'mismatched': 1")
    assert examples.startswith("toy-skew-examples [{'feature': 'mean', 'why': 'mismatch', 'prediction': 'p1'")
    artifacts.skewed(SkewReport(pipeline="toy", fingerprint="f", features=(right,), **about))
    assert len(shown) == 3, "without a difference there is no example"


def judged(home: Home, shown: list[str], monkeypatch: pytest.MonkeyPatch, spoilt: int) -> Any:
    """The task ``quality`` over the walks of ``tiny``, ``spoilt`` more of which took a negative time."""
    monkeypatch.setenv("FERROFLOW_PIPELINES", str(PIPELINES))
    mirror = a_mirror(home.root.parent / "mirror")
    lines = (mirror / "walks.csv").read_text().splitlines()
    lines[-spoilt:] = [line.rpartition(",")[0] + ",-1" for line in lines[-spoilt:]]
    (mirror / "walks.csv").write_text("\n".join(lines) + "\n")
    spec, settings = pipelines.load("tiny"), load_settings(home=home.root, mirror=str(mirror))
    as_of = datetime(2024, 2, 10, tzinfo=UTC)
    snapshot = ingest.ingest(spec, as_of, home, now=as_of, settings=settings)
    return data.quality.fn("tiny", snapshot, validate.validate(spec, snapshot, home), as_of)


def test_quality_is_shown_as_score_rules_and_profile_with_a_link_to_its_page(
    home: Home, shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = record_of(judged(home, shown, monkeypatch, spoilt=1))
    score, rules, profile = shown
    assert score.startswith(f"## Good enough: {told.score:.3f} of 1")
    assert f"(http://127.0.0.1:3456/reports/tiny/quality-{told.fingerprint}.html)" in score
    assert rules.startswith("tiny-rules ") and "max_quarantined" in rules
    assert profile.startswith("tiny-profile ") and "'column': 'length'" in profile


def test_batch_that_is_too_bad_ends_the_run_after_all_was_shown(
    home: Home, shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BatchRefused, match=r"25.0% may be.*ferroflow quarantine show tiny.*max_quarantined") as told:
        judged(home, shown, monkeypatch, spoilt=ROWS // 2)
    assert len(shown) == 3 and shown[0].startswith("## Refused")
    [page] = home.reports("tiny").glob("quality-*.html")
    assert str(page) in str(told.value) and Path(page).stat().st_size > 0
