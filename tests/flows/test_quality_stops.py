"""A batch that is too bad ends every flow that would learn from it, before anything is trained or refreshed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ferroflow.adapters.home import Home
from ferroflow.adapters.settings import Settings
from tests.flows.conftest import Server, command, settings_of, variables
from tests.flows.walks import ROWS

pytestmark = pytest.mark.servers


def spoilt(folder: Path) -> Settings:
    """A home whose source holds more impossible walks than ``tiny`` bears."""
    settings = settings_of(folder)
    path = folder / "mirror" / "walks.csv"
    header, *lines = path.read_text().splitlines()
    lines = [line.rpartition(",")[0] + ",-1" if place % 2 else line for place, line in enumerate(lines)]
    path.write_text("\n".join([header, *lines]) + "\n")
    return settings


def test_batch_that_is_too_bad_is_neither_trained_on_nor_brought_to_the_online_store(
    tmp_path: Path, server: Server
) -> None:
    settings = spoilt(tmp_path)
    api = server.stack.environment()["PREFECT_API_URL"]
    done = command(settings, "ferroflow", "run", "tiny", "--json", FERROFLOW_PREFECT_API_URL=api)
    assert done.returncode == 3, done.stderr[-2000:]
    last = done.stderr.splitlines()[-1]
    assert "BatchRefused" in last and f"of {ROWS:,} rows were refused (50." in last
    assert "Traceback" not in done.stderr
    ingest = "from flows.ingest import ingest; ingest('tiny')"
    refused = subprocess.run(
        [sys.executable, "-c", ingest], env=variables(settings, PREFECT_API_URL=api), capture_output=True
    )
    assert refused.returncode == 1 and b"BatchRefused" in refused.stderr
    home = Home(settings.home)
    made = {path.name for path in home.data("tiny").iterdir()}
    assert {"quality", "profiles", "validated"} <= made and not made & {"tables", "splits", "models"}
    assert not home.offline("tiny").exists() and not home.online("tiny").exists()
    assert len(list(home.reports("tiny").glob("quality-*.html"))) == 1, "both flows judged the same rows once"
