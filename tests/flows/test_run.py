"""``ferroflow run``: the whole way in one process, once, twice, and after SIGKILL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ferroflow.adapters.home import Home
from ferroflow.adapters.ledger import Ledger
from ferroflow.adapters.processes import marked
from ferroflow.adapters.settings import Settings
from tests.flows.conftest import Server, command, settings_of, variables
from tests.flows.walks import BAD, ROWS

pytestmark = pytest.mark.servers

RUN = ("ferroflow", "run", "tiny", "--json")


def report(settings: Settings, **more: str) -> dict[str, Any]:
    done = command(settings, *RUN, **more)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, dict[str, Any]]:
    """A home in which ``tiny`` was trained once, and what was told of it."""
    settings = settings_of(tmp_path_factory.mktemp("run"))
    return settings, report(settings)


def test_one_command_goes_from_a_file_to_a_champion(finished: tuple[Settings, dict[str, Any]]) -> None:
    _, told = finished
    assert told["promoted"] is True
    assert told["version"] == "1"
    assert told["rows"] == {"in": ROWS, "accepted": ROWS - BAD, "quarantined": BAD}
    assert told["quality"]["test_rmse"] < told["quality"]["baseline_test_rmse"]
    assert told["leaderboard"][0]["candidate"] == "boosting"
    assert told["reused"] == []
    assert set(told["seconds"]) >= {"ingest", "validate", "features", "split", "train", "evaluate", "register"}


def test_second_run_repeats_no_station_and_doubles_nothing(finished: tuple[Settings, dict[str, Any]]) -> None:
    settings, first = finished
    second = report(settings)
    assert set(second["reused"]) >= {"ingest", "validate", "features", "split", "train", "evaluate"}
    assert {name: second[name] for name in ("version", "promoted", "quality")} == {
        name: first[name] for name in ("version", "promoted", "quality")
    }
    lines = Ledger(Home(settings.home).ledger).history("tiny")
    assert [(line.version, line.action) for line in lines] == [("1", "promoted")]


@pytest.mark.parametrize(
    ("reached", "kept", "temporary"),
    [
        ("snapshots", {"ingest"}, False),
        ("validated", {"ingest", "validate"}, True),
        ("models", {"ingest", "validate", "features", "split", "train"}, False),
    ],
)
def test_run_that_was_killed_goes_on_where_it_was(
    tmp_path: Path, server: Server, reached: str, kept: set[str], temporary: bool
) -> None:
    settings = settings_of(tmp_path)
    api = {} if temporary else {"FERROFLOW_PREFECT_API_URL": server.stack.environment()["PREFECT_API_URL"]}
    home = Home(settings.home)
    log = (tmp_path / "log").open("w")
    running = subprocess.Popen([sys.executable, "-m", *RUN], env=variables(settings, **api), stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while not _manifests(home, reached):
            assert running.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()[-3000:]
            time.sleep(0.01)
    finally:
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
    before = {path: path.stat().st_mtime_ns for path in home.data("tiny").rglob("*.parquet")}
    told = report(settings, **api)
    assert kept <= set(told["reused"])
    assert all(path.stat().st_mtime_ns == moment for path, moment in before.items())
    assert told["promoted"] is True
    assert told["version"] == "1"
    assert len(Ledger(home.ledger).history("tiny")) == 1
    assert marked("FERROFLOW_HOME", str(home.root)) == [], "the killed run's temporary server goes on"


def _manifests(home: Home, kind: str) -> list[Path]:
    folder = home.data("tiny") / kind
    return [*folder.glob("*.json"), *(folder.glob("*/manifest.json") if kind != "validated" else ())]


def test_dry_run_says_what_would_be_done_and_does_nothing(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    done = command(settings, *RUN, "--dry-run")
    planned = json.loads(done.stdout)
    assert planned["files"] == [{"file": "walks.csv", "from": str(tmp_path / "mirror" / "walks.csv")}]
    assert planned["split"]["test"] == "2024-02-05 … 2024-02-10"
    assert planned["candidates"] == ["boosting", "baseline"]
    assert planned["seconds"] == 5
    assert not settings.home.exists()


def test_unknown_pipeline_is_a_line_and_exit_code_two(tmp_path: Path) -> None:
    done = command(settings_of(tmp_path), "ferroflow", "run", "tinny")
    assert done.returncode == 2
    assert "No pipeline 'tinny'" in done.stderr
    assert "Did you mean 'tiny'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_source_that_cannot_be_had_is_exit_code_three_and_not_a_traceback(tmp_path: Path, server: Server) -> None:
    settings = settings_of(tmp_path)
    (tmp_path / "mirror" / "walks.csv").unlink()
    done = command(settings, *RUN, FERROFLOW_PREFECT_API_URL=server.stack.environment()["PREFECT_API_URL"])
    assert done.returncode == 3, done.stderr[-2000:]
    assert "SourceUnavailable" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
