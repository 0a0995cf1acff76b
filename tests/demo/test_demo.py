"""The demonstration, run as a user runs it, and then looked at as a user looks at it: in a browser."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

KEYS = {
    "seconds": {"total"},
    "data": {"source"},
    "rows": {"in", "accepted", "quarantined"},
    "quality": {"validation_rmse", "test_rmse", "baseline_validation_rmse", "baseline_test_rmse"},
    "served": {"requests", "failed"},
    "harmless": {"alerted", "why"},
    "harm": {"alerted", "alerts"},
    "retrain": {"promoted", "rmse_before", "rmse_after"},
    "swap": {"requests", "failed"},
    "skew": {"compared", "mismatched", "left_out"},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def finished(root: Path) -> subprocess.CompletedProcess[str]:
    """The command's end, with a mirror that nobody answers for: the simulator has to take over by itself."""
    environment = os.environ | {"FERROFLOW_HOME": str(root), "FERROFLOW_MIRROR": "http://127.0.0.1:9", "COLUMNS": "140"}
    return subprocess.run(["ferroflow", "demo"], env=environment, capture_output=True, text=True, timeout=590)


@pytest.fixture(scope="module")
def told(finished: subprocess.CompletedProcess[str], root: Path) -> dict[str, Any]:
    assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-4000:]
    numbers: dict[str, Any] = json.loads((root / "demo.json").read_text())
    return numbers


def test_it_keeps_all_its_promises(told: dict[str, Any]) -> None:
    assert [name for name, kept in told["promises"].items() if not kept] == []


def test_it_writes_every_documented_number(told: dict[str, Any]) -> None:
    missing = {
        key: fields - told.get(key, {}).keys() for key, fields in KEYS.items() if fields - told.get(key, {}).keys()
    }
    assert missing == {}
    assert told["data"]["source"] == "simulator"


def test_it_says_what_it_does_to_the_world(finished: subprocess.CompletedProcess[str]) -> None:
    for words in ("No real data", "mix of zones shifts", "40 % longer", "ALARM", "no alarm", "Look at it all"):
        assert words in finished.stdout


def test_it_leaves_nothing_running(told: dict[str, Any], root: Path) -> None:
    mine = [
        process.info["cmdline"]
        for process in psutil.process_iter(["cmdline"])
        if any(str(root) in argument for argument in process.info["cmdline"] or [])
    ]
    assert mine == []


@pytest.fixture(scope="module")
def addresses(told: dict[str, Any], root: Path) -> Iterator[dict[str, str]]:
    """`ferroflow up` on the demonstration's home, as its last line says."""
    home = root / "demo"
    environment = os.environ | {"FERROFLOW_PREFECT_PORT": "4610", "FERROFLOW_MLFLOW_PORT": "5610"}
    environment |= {"FERROFLOW_SERVICE_PORT": "3610", "FERROFLOW_SIMULATE": "true"}
    started = subprocess.run(
        ["ferroflow", "up", "--home", str(home)], env=environment, capture_output=True, text=True, timeout=180
    )
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        status = subprocess.run(
            ["ferroflow", "status", "--home", str(home), "--json"], env=environment, capture_output=True, text=True
        )
        yield {
            name: entry["address"] for name, entry in json.loads(status.stdout)["running"].items() if entry["address"]
        }
    finally:
        subprocess.run(["ferroflow", "down", "--home", str(home)], env=environment, capture_output=True, timeout=120)


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    """A page of a real, headless browser."""
    from playwright.sync_api import sync_playwright

    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if found is None:
        pytest.skip("no browser here: install chromium (Debian: apt-get install chromium) to look at the pages")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=flags)
        yield browser.new_page(viewport={"width": 1400, "height": 1000})
        browser.close()


def test_prefects_pages_ask_their_own_server_which_holds_the_artifacts(addresses: dict[str, str]) -> None:
    server = addresses["prefect"]
    assert httpx.get(f"{server}/ui-settings", timeout=30).json()["api_url"] == f"{server}/api"
    runs = httpx.post(f"{server}/api/flow_runs/filter", json={"sort": "START_TIME_DESC"}, timeout=30).json()
    retrain = next(run for run in runs if run["name"].startswith("retrain") and run["state_type"] == "COMPLETED")
    chosen = {"artifacts": {"flow_run_id": {"any_": [retrain["id"]]}}}
    found = httpx.post(f"{server}/api/artifacts/filter", json=chosen, timeout=30).json()
    assert {"taxi-leaderboard", "taxi-verdict", "taxi-mlflow"} <= {artifact["key"] for artifact in found}


def test_the_prefect_page_of_the_retraining_shows_its_artifacts(addresses: dict[str, str], page: Any) -> None:
    server = addresses["prefect"]
    runs = httpx.post(f"{server}/api/flow_runs/filter", json={"sort": "START_TIME_DESC"}, timeout=30).json()
    [retrain] = [run for run in runs if run["name"] == "retrain taxi"]  # the event's; nobody else asked for one
    page.goto(f"{server}/runs/flow-run/{retrain['id']}", wait_until="load")
    page.locator("#artifacts").click()
    for artifact in ("taxi-leaderboard", "taxi-verdict", "taxi-mlflow"):
        page.get_by_text(artifact).first.wait_for(state="attached")


def test_mlflow_shows_the_runs(addresses: dict[str, str], page: Any) -> None:
    page.goto(f"{addresses['mlflow']}/#/models/taxi", wait_until="load")
    page.get_by_text("Version 2", exact=True).wait_for()
    page.get_by_text("champion").first.wait_for()


def test_the_openapi_page_shows_the_typed_request(addresses: dict[str, str], page: Any) -> None:
    outside: list[str] = []
    page.on("request", lambda asked: outside.append(asked.url) if "127.0.0.1" not in asked.url else None)
    page.goto(f"{addresses['service']}/docs", wait_until="load")
    page.get_by_text("/v1/taxi/predict").click()
    page.get_by_text("trip_distance").first.wait_for()
    assert [url for url in outside if not url.startswith(("data:", "blob:"))] == []


def test_the_evidently_report_draws_the_drift(told: dict[str, Any], root: Path, page: Any) -> None:
    [report, *_] = sorted((root / "demo" / "reports" / "taxi").glob("*.html"))
    page.goto(f"file://{report}", wait_until="load")
    page.wait_for_timeout(2000)
    assert "drift" in page.inner_text("body").lower()
