"""A toy pipeline as the service sees it: a package made by hand, a registry with MLflow's two tables, a real process.

``prediction = bias + 2 · distance + hour + (zone_hour__mean or 10)``: every part of an answer can be told apart.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil

from ferroflow.adapters.feast.packed import PackedStore
from ferroflow.adapters.feast.rows import RowLayout
from ferroflow.adapters.home import Home
from ferroflow.core.contract import Field, ServingContract, StoredView
from ferroflow.core.fingerprint import file_digest
from ferroflow.core.fingerprint import fingerprint as fingerprint_of

ROOT = Path(__file__).resolve().parent.parent
NOON = datetime(2023, 3, 1, 12, tzinfo=UTC)
ROW = {"zone": 1, "distance": 2.5, "colour": "red", "asked_at": "2023-03-01T12:30:00Z"}
FEATURES = """
from collections.abc import Sequence
import polars as pl
from ferroflow.core.features import request

@request
def clock() -> Sequence[pl.Expr]:
    return [pl.col("asked_at").dt.hour().cast(pl.Float64).alias("hour")]
"""


def contract(fingerprint: str, pipeline: str = "toy", **changes: object) -> ServingContract:
    values: dict[str, object] = {
        "pipeline": pipeline,
        "model": "boosting",
        "fingerprint": fingerprint,
        "task": "regression",
        "target": "minutes",
        "time": "asked_at",
        "fields": (
            Field(name="zone", type="integer", minimum=1, maximum=265, description="Taxi zone."),
            Field(name="distance", type="number", minimum=0, description="Miles."),
            Field(name="colour", type="text", choices=("red", "green"), nullable=True),
            Field(name="asked_at", type="time"),
        ),
        "request_features": ("pipelines.toy.features:clock",),
        "stored": (StoredView(view="zone_hour", entity="zone", on="zone", ttl_seconds=7200, features=("mean", "n")),),
        "inputs": {"zone": "int", "distance": "float", "colour": "text", "hour": "float", "zone_hour__mean": "float"},
        "lineage": {"snapshot": "aaaa", "split": "bbbb"},
    }
    return ServingContract(**(values | changes))  # type: ignore[arg-type]


def graph(bias: float) -> bytes:
    import onnx
    from onnx import TensorProto, helper

    kinds = {
        "zone": TensorProto.INT64,
        "distance": TensorProto.FLOAT,
        "colour": TensorProto.STRING,
        "hour": TensorProto.FLOAT,
        "zone_hour__mean": TensorProto.FLOAT,
    }
    constants = [
        helper.make_tensor(name, TensorProto.FLOAT, [], [v]) for name, v in (("b", bias), ("two", 2), ("ten", 10))
    ]
    nodes = [
        helper.make_node("IsNaN", ["zone_hour__mean"], ["absent"]),
        helper.make_node("Where", ["absent", "ten", "zone_hour__mean"], ["mean"]),
        helper.make_node("Mul", ["distance", "two"], ["d"]),
        helper.make_node("Sum", ["b", "d", "hour", "mean"], ["prediction"]),
    ]
    inputs = [helper.make_tensor_value_info(name, kind, [None, 1]) for name, kind in kinds.items()]
    outputs = [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, [None, 1])]
    made = helper.make_graph(nodes, "toy", inputs, outputs, constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def package(home: Home, version: int, pipeline: str = "toy", bias: float | None = None) -> str:
    """Write a package; its bias is 100 times its version. Returns its fingerprint."""
    fingerprint = f"{version:016x}"
    folder = home.packages(pipeline) / fingerprint
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(graph(100.0 * version if bias is None else bias))
    code = fingerprint_of(file_digest(home.root.parent / "more" / "toy" / "features.py"))
    (folder / "serving.json").write_text(contract(fingerprint, pipeline, feature_code=code).model_dump_json())
    return fingerprint


def registry(home: Home) -> sqlite3.Connection:
    """The two tables of MLflow's database that the service reads."""
    home.mlflow.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(home.mlflow / "mlflow.db", isolation_level=None, timeout=10)
    connection.execute(
        "CREATE TABLE IF NOT EXISTS registered_model_aliases (alias, version, name, PRIMARY KEY (name, alias))"
    )
    connection.execute(
        "CREATE TABLE IF NOT EXISTS model_version_tags (key, value, name, version, PRIMARY KEY (key, name, version))"
    )
    return connection


def promote(home: Home, version: int, pipeline: str = "toy") -> None:
    """Package a version and move the champion alias to it."""
    fingerprint = package(home, version, pipeline)
    tags = {
        "ferroflow.package": home.relative(home.packages(pipeline) / fingerprint),
        "ferroflow.fingerprint": fingerprint,
        "ferroflow.reference": "",
    }
    with closing(registry(home)) as connection:
        connection.executemany(
            "INSERT OR REPLACE INTO model_version_tags VALUES (?, ?, ?, ?)",
            [(key, value, pipeline, version) for key, value in tags.items()],
        )
        connection.execute(
            "INSERT OR REPLACE INTO registered_model_aliases VALUES ('champion', ?, ?)", (version, pipeline)
        )


def materialize(home: Home, pipeline: str = "toy") -> None:
    """Zone 1 has a mean of 20, available at noon; zone 2's is a day old."""
    moment = int(NOON.timestamp() * 1_000_000)
    rows = [(1, moment, moment, [20.0, 3.0]), (2, moment - 86_400_000_000, moment, [30.0, 3.0])]
    with PackedStore(home.online(pipeline)) as store:
        store.write("zone_hour", RowLayout((("mean", "double"), ("n", "double"))), rows)
        store.advance("zone_hour", moment)


def toy_home(root: Path) -> Home:
    """A home with one promoted version and an online store."""
    home = Home(root / "home")
    folder = root / "more" / "toy"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "features.py").write_text(FEATURES)
    promote(home, 1)
    materialize(home)
    return home


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """``bentoml serve`` as a user starts it, in a process group of its own."""

    home: Home
    extra: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.home.root.parent / f"service-{self.port}.log"

    def start(self, seconds: float = 60) -> Server:
        environment = {
            **os.environ,
            "FERROFLOW_HOME": str(self.home.root),
            "FERROFLOW_PIPELINES": str(self.home.root.parent / "more"),
            "FERROFLOW_SERVICE_POLL_SECONDS": "0.1",
            "BENTOML_HOME": str(self.home.bentos),
            "PYTHONPATH": str(ROOT),
            **self.extra,
        }
        command = [sys.executable, "-m", "bentoml", "serve", "serving.service:Service", "--host", "127.0.0.1"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port)],
                cwd=self.home.root.parent,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                if httpx.get(f"{self.url}/livez", timeout=2).status_code == 200:
                    return self
            except httpx.HTTPError:
                time.sleep(0.1)
        self.kill()
        raise AssertionError(f"the service did not start:\n{self.log.read_text()[-4000:]}")

    def kill(self) -> None:
        """SIGKILL for supervisor and workers at once: what a power cut leaves is what is left."""
        assert self.process is not None
        if self.process.poll() is None:
            supervisor = psutil.Process(self.process.pid)
            for process in [supervisor, *supervisor.children(recursive=True)]:
                process.kill()
            self.process.wait(timeout=30)

    def stop(self) -> None:
        """SIGTERM, as ``down`` sends it."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=30)

    def predict(self, *rows: dict[str, object], pipeline: str = "toy") -> httpx.Response:
        return httpx.post(f"{self.url}/v1/{pipeline}/predict", json={"rows": list(rows)}, timeout=30)
