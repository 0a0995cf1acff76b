from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

import pipelines
from ferroflow.adapters.home import Home
from ferroflow.core.records import ModelVersion
from ferroflow.core.spec import PipelineSpec
from ferroflow.stations.bento import build_bento
from tests.serving_toy import ROW, free_port, toy_home
from tests.toy_model import spec

PATIENCE = 120


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return toy_home(tmp_path_factory.mktemp("bento"))


@pytest.fixture(autouse=True)
def known(toy: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERROFLOW_PIPELINES", str(toy.root.parent / "more"))
    monkeypatch.setattr(pipelines, "__path__", list(pipelines.__path__))
    for name in [name for name in sys.modules if name.startswith("pipelines.toy")]:
        monkeypatch.delitem(sys.modules, name)


def a_version(number: int = 1) -> ModelVersion:
    fingerprint = f"{number:016x}"
    return ModelVersion(
        pipeline="toy",
        fingerprint=fingerprint,
        name="toy",
        version=str(number),
        run_id="",
        package=f"packages/toy/{fingerprint}",
        reference="",
        metrics={},
        candidate="boosting",
    )


def toy_spec() -> PipelineSpec:
    return spec("toy")


def test_a_package_without_its_graph_builds_nothing(toy: Home) -> None:
    from ferroflow.core.errors import ModelError

    with pytest.raises(ModelError, match=r"Version 9 of toy has no model\.onnx"):
        build_bento(toy_spec(), a_version(9), toy)
    assert not (toy.bentos / "bentos" / "ferroflow_toy").exists()


@pytest.mark.servers
def test_a_bento_serves_alone_with_its_model_and_online_store(toy: Home, tmp_path: Path) -> None:
    tag = build_bento(toy_spec(), a_version(), toy)
    assert tag == f"ferroflow_toy:{1:016x}"
    made = toy.bentos / "bentos" / "ferroflow_toy" / f"{1:016x}"
    stamp = (made / "bento.yaml").stat().st_mtime_ns
    assert build_bento(toy_spec(), a_version(), toy) == tag
    assert (made / "bento.yaml").stat().st_mtime_ns == stamp, "the same fingerprint was built twice"
    assert [path.name for path in toy.bentos.glob(".build-*")] == []
    held = {path.relative_to(made / "src").as_posix() for path in (made / "src").rglob("*") if path.is_file()}
    assert {"bundle/toy/model.onnx", "bundle/toy/serving.json", "bundle/toy/online.db"} <= held
    assert {"serving/service.py", "ferroflow/core/contract.py", "pipelines/toy/features.py"} <= held
    assert not [name for name in held if "taxi" in name], "another pipeline came along"

    answer = served(toy, tag, tmp_path)
    # bias 100, 2 · distance 5, hour 12, the zone's stored mean 20: the packed store was read
    assert answer.json()["predictions"] == [137.0]
    assert answer.json()["version"] == "1"
    assert answer.json()["degraded"] is True, "a bundle is not the registry's champion: it has to say so"


def served(home: Home, tag: str, cwd: Path) -> httpx.Response:
    """Start the Bento from an empty folder, where no home is, and ask it once."""
    port = free_port()
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("FERROFLOW_", "PYTHONPATH"))}
    command = [sys.executable, "-m", "bentoml", "serve", tag, "--host", "127.0.0.1", "--port", str(port)]
    log = (cwd / "log").open("wb")
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**kept, "BENTOML_HOME": str(home.bentos)},
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/toy/predict", json={"rows": [ROW]}, timeout=30)
        assert answer.status_code == 200, f"{answer.text}\n{(cwd / 'log').read_text()[-3000:]}"
        return answer
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)
        log.close()
