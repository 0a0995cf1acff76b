"""The serving process is light: what it may not import, it must not load either."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.serving_toy import ROOT, ROW, toy_home

HEAVY = (
    "prefect",
    "torch",
    "mlflow",
    "feast",
    "pandera",
    "pandas",
    "lightning",
    "optuna",
    "evidently",
    "lightgbm",
    "onnx",
)
SCRIPT = """
import asyncio, json, sys
import httpx
from serving.service import Service
from serving.app import App
from serving.limits import load_limits, load_places

async def main():
    app = App(load_places(), load_limits())
    await app.start()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://x") as client:
        answer = await client.post("/v1/toy/predict", json={"rows": [json.loads(sys.argv[1])]})
        assert answer.status_code == 200, answer.text
    await app.stop()

asyncio.run(main())
print(" ".join(sorted({name.split(".")[0] for name in sys.modules})))
"""


def test_service_answers_without_any_heavy_library(tmp_path: Path) -> None:
    import json

    home = toy_home(tmp_path)
    environment = {
        **os.environ,
        "FERROFLOW_HOME": str(home.root),
        "FERROFLOW_PIPELINES": str(tmp_path / "more"),
        "PYTHONPATH": str(ROOT),
        "BENTOML_HOME": str(home.bentos),
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(ROW)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) & set(HEAVY) == set()
