from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from ferroflow.adapters.home import Home
from ferroflow.adapters.processes import MARK, marked, recorded
from tests.flows.conftest import command, settings_of, variables

pytestmark = pytest.mark.servers


def test_up_starts_four_servers_that_answer_and_down_leaves_none(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    ports = {"FERROFLOW_PREFECT_PORT": "4321", "FERROFLOW_MLFLOW_PORT": "5321", "FERROFLOW_SERVICE_PORT": "3321"}
    os.environ.update(ports)
    try:
        up = command(settings, "ferroflow", "up")
        assert up.returncode == 0, up.stdout + up.stderr
        told = json.loads(command(settings, "ferroflow", "status", "--json").stdout)
        assert sorted(told["running"]) == ["mlflow", "prefect", "service", "worker"]
        for name, path in {"prefect": "/api/health", "mlflow": "/", "service": "/livez"}.items():
            assert httpx.get(told["running"][name]["address"] + path, timeout=10).status_code == 200
        again = command(settings, "ferroflow", "up")
        assert again.returncode == 0, again.stdout + again.stderr
        assert json.loads(command(settings, "ferroflow", "status", "--json").stdout) == told
    finally:
        down = command(settings, "ferroflow", "down")
        for name in ports:
            del os.environ[name]
    assert down.returncode == 0, down.stdout + down.stderr
    assert marked(MARK, str(settings.home)) == []
    assert recorded(Home(settings.home)) == {}


def test_up_that_is_interrupted_leaves_nothing_running(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, prefect_port=4331)
    up = subprocess.Popen([sys.executable, "-m", "ferroflow", "up"], env=variables(settings), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not recorded(Home(settings.home)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1)
    up.send_signal(signal.SIGTERM)
    assert up.wait(60) != 0
    assert marked(MARK, str(settings.home)) == []
