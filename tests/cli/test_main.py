"""The command line's surface: quick help, one-line errors, stable exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def ferroflow(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ferroflow", *arguments], capture_output=True, text=True, timeout=120, env=os.environ | environment
    )


VERBS = ("demo", "new", "run", "up", "down", "status", "explain", "models", "features", "datasets", "quarantine")


def test_help_names_every_verb() -> None:
    shown = ferroflow("--help")
    assert shown.returncode == 0
    assert [verb for verb in VERBS if verb not in shown.stdout] == []


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str) -> None:
    assert ferroflow(verb, "--help").returncode == 0


def test_help_loads_no_heavy_library() -> None:
    heavy = "{'polars', 'prefect', 'torch', 'mlflow', 'feast', 'pandas', 'pydantic', 'numpy'}"
    code = (
        "import sys; from ferroflow.cli.main import app\n"
        "try: app(['--help'])\n"
        f"except SystemExit: print('heavy:', sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip().endswith("heavy: []")


def test_an_unknown_pipeline_is_one_line_with_the_way_out(tmp_path: Path) -> None:
    done = ferroflow("run", "taxy", "--dry-run", FERROFLOW_HOME=str(tmp_path))
    assert done.returncode == 2
    assert "taxy" in done.stderr and "taxi" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("how", [("--dry-run",), ()])
def test_a_pipeline_without_a_simulator_is_not_simulated_in_silence(tmp_path: Path, how: tuple[str, ...]) -> None:
    done = ferroflow("run", "bikes", "--simulate", *how, FERROFLOW_HOME=str(tmp_path))
    assert done.returncode == 2
    assert "'bikes' has no simulator" in done.stderr and "Leave --simulate" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_dry_run_tells_the_split_and_the_budget_that_a_run_would_have(tmp_path: Path) -> None:
    done = ferroflow("run", "taxi", "--dry-run", "--json", FERROFLOW_HOME=str(tmp_path), FERROFLOW_MINUTES="0.5")
    planned = json.loads(done.stdout)
    assert planned["seconds"] == 30
    # Whole days of New York, though its clocks change in one of these windows.
    assert planned["split"]["test"].endswith("… 2023-04-01")
    assert all(":" not in window for window in planned["split"].values())


def test_a_moment_that_is_none_is_refused(tmp_path: Path) -> None:
    done = ferroflow("run", "taxi", "--as-of", "yesterday", FERROFLOW_HOME=str(tmp_path))
    assert done.returncode == 2
    assert "yesterday" in done.stderr and "2023-04-01" in done.stderr


def test_a_setting_without_meaning_names_itself(tmp_path: Path) -> None:
    done = ferroflow("status", FERROFLOW_HOME=str(tmp_path), FERROFLOW_SERVICE_PORT="eleven")
    assert done.returncode == 2
    assert "service_port" in done.stderr and "eleven" in done.stderr


def test_an_unknown_prediction_is_one_line(tmp_path: Path) -> None:
    done = ferroflow("explain", "0" * 32, FERROFLOW_HOME=str(tmp_path))
    assert done.returncode == 2
    assert "0" * 32 in done.stderr and "Traceback" not in done.stderr


def test_status_of_an_empty_home_says_how_to_begin(tmp_path: Path) -> None:
    done = ferroflow("status", FERROFLOW_HOME=str(tmp_path))
    assert done.returncode == 0
    assert "ferroflow up" in done.stdout and "ferroflow run" in done.stdout
