"""What Prefect does with the deployments: a real server and a real worker."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from ferroflow.adapters.automations import heartbeat
from ferroflow.adapters.prefect_api import PrefectApi
from tests.flows.conftest import Server
from tests.flows.walks import BAD, ROWS

pytestmark = pytest.mark.servers

FLOWS = ("ingest", "train", "monitor", "retrain", "batch-predict")


ALARM = """
from ferroflow.adapters.events import emit
payload = {"as_of": "2024-02-05T00:00:00+00:00", "why": "told by a test", "ratio": 1.4}
emit("ferroflow.performance.degraded", "other", payload)
"""


def artifacts(server: Server, run: dict[str, Any]) -> dict[str, Any]:
    chosen = {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}}
    return {artifact["key"]: artifact for artifact in server.post("/artifacts/filter", chosen)}


def test_scheduled_run_appears_by_itself_and_completes(server: Server) -> None:
    run = server.finished("ingest/tiny")
    assert run["auto_scheduled"]
    assert run["state"]["type"] == "COMPLETED", run["state"]
    told = artifacts(server, run)["tiny-quarantine"]["description"]
    assert told == f"{ROWS:,} rows = {ROWS - BAD:,} accepted + {BAD} quarantined"


def test_event_starts_the_retraining_of_its_pipeline_and_of_no_other(server: Server) -> None:
    before = {name: len(server.runs(f"retrain/{name}")) for name in ("tiny", "other")}
    environment = os.environ | server.stack.environment()
    subprocess.run([sys.executable, "-c", ALARM], env=environment, check=True, timeout=100)
    run = server.finished("retrain/other")
    assert run["state"]["type"] == "COMPLETED", run["state"]
    assert run["parameters"]["as_of"] == "2024-02-05T00:00:00+00:00"
    assert run["parameters"]["reason"] == "told by a test"
    assert len(server.runs("retrain/other")) == before["other"] + 1
    assert len(server.runs("retrain/tiny")) == before["tiny"]


def test_second_deployment_changes_nothing_and_asks_nothing(server: Server) -> None:
    api = PrefectApi(server.stack.environment()["PREFECT_API_URL"])
    first = api.deployments()
    assert {name for name in first if name.endswith("/tiny")} == {f"{flow}/tiny" for flow in FLOWS}
    wanted = str(server.stack.home.root / "prefect.yaml")
    environment = os.environ | server.stack.environment()
    deploy = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", wanted]
    done = subprocess.run(deploy, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert api.deployments() == first
    schedules = server.deployment("ingest/tiny")["schedules"]
    assert [schedule["active"] for schedule in schedules] == [True]


def test_heartbeat_automation_applied_twice_is_one(server: Server) -> None:
    api = PrefectApi(server.stack.environment()["PREFECT_API_URL"])
    assert api.apply_automation(heartbeat()) == api.apply_automation(heartbeat())


def test_form_describes_every_parameter(server: Server) -> None:
    for flow in FLOWS:
        schema = server.deployment(f"{flow}/tiny")["parameter_openapi_schema"]["properties"]
        assert all(field.get("description") for field in schema.values()), flow


def test_retrain_deployment_is_set_to_one_run_at_a_time_and_a_queue(server: Server) -> None:
    found = server.deployment("retrain/tiny")
    assert found["global_concurrency_limit"]["limit"] == 1
    assert found["concurrency_options"]["collision_strategy"] == "ENQUEUE"
