from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import psutil
import pytest

from ferroflow.adapters.home import Home
from ferroflow.core.records import ModelVersion, MonitorReport
from tasks import artifacts

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
