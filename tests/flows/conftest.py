"""One real Prefect server with one real worker, for all tests of the flows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from ferroflow.adapters.processes import Stack
from ferroflow.adapters.services import environment
from ferroflow.adapters.settings import Settings
from tests.flows.walks import PIPELINES, a_mirror


def settings_of(folder: Path, **given: Any) -> Settings:
    """Settings of a home in ``folder`` that knows the pipelines ``tiny`` and ``other``."""
    mirror = a_mirror(folder / "mirror")
    return Settings(home=folder / "home", mirror=str(mirror), pipelines=str(PIPELINES), simulate=False, **given)


def variables(settings: Settings, **more: str) -> dict[str, str]:
    """The environment of a command in that home, without the server of another."""
    kept = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    return kept | environment(settings, None) | more


def command(settings: Settings, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """``python -m …`` in that home."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        env=variables(settings, **more),
        capture_output=True,
        text=True,
        timeout=300,
    )


@dataclass
class Server:
    """The running stack, and questions to its API."""

    stack: Stack
    settings: Settings

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return (
            httpx.post(f"{self.stack.addresses['prefect']}/api{path}", json=body, timeout=120).raise_for_status().json()
        )

    def deployment(self, name: str) -> dict[str, Any]:
        address = f"{self.stack.addresses['prefect']}/api/deployments/name/{name}"
        return httpx.get(address, timeout=120).raise_for_status().json()

    def runs(self, name: str) -> list[dict[str, Any]]:
        """The runs of a deployment, the oldest expected start first."""
        chosen = {"deployments": {"id": {"any_": [self.deployment(name)["id"]]}}, "sort": "EXPECTED_START_TIME_ASC"}
        return self.post("/flow_runs/filter", chosen)

    def until(self, found: Callable[[], Any], seconds: float = 150) -> Any:
        """Wait until ``found()`` is true, and give it."""
        deadline = time.monotonic() + seconds
        while not (result := found()):
            assert time.monotonic() < deadline, json.dumps(self.post("/flow_runs/filter", {"limit": 20}))[:3000]
            time.sleep(0.5)
        return result

    def finished(self, name: str) -> dict[str, Any]:
        """The first run of a deployment, once it is over."""
        return self.until(lambda: next((run for run in self.runs(name) if run["state"]["type"] in _OVER), None))


_OVER = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A stack of server and worker, with every deployment."""
    settings = settings_of(
        tmp_path_factory.mktemp("stack"), prefect_port=4311 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    )
    stack = Stack(settings)
    try:
        stack.start(("prefect", "worker"))
        yield Server(stack, settings)
    finally:
        stack.stop()
