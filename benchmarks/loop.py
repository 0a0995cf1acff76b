"""What orchestration costs: the flow ``train`` against the same stations called one after the other.

Each run is a fresh process with a fresh home on the same simulated files and the same time for its search, in turn:
plain, flow, plain, flow. The Prefect server is started once beforehand, as ``ferroflow up`` does, and its start is told
apart. The limit is the plain run itself. What a process spends outside its stations (imports, and Prefect's part) is
told too, since it does not depend on how long the search happened to take.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SECONDS = 15.0  # of search

_CHILD = """
import json, sys
from benchmarks.loop import {kind} as run
stations = run({pipeline!r})
from benchmarks.memory import peak_mb
print("FIGURES " + json.dumps({{"stations": stations, "peak_mb": peak_mb()}}))
"""


def plain(pipeline: str) -> dict[str, float]:
    """All stations of the flow ``train``, as plain Python; gives the seconds of each."""
    from datetime import UTC, datetime

    from ferroflow.adapters import pipelines, registry
    from ferroflow.adapters.home import Home
    from ferroflow.adapters.settings import load_settings
    from ferroflow.stations import (
        bento,
        evaluate,
        features,
        gate,
        ingest,
        package,
        quality,
        register,
        split,
        train,
        validate,
    )

    settings = load_settings()
    home, spec = Home.of(settings), pipelines.load(pipeline)
    as_of, now = spec.as_of or datetime.now(UTC), datetime.now(UTC)
    seconds: dict[str, float] = {}

    def timed(name: str, function: Any, *arguments: Any, **named: Any) -> Any:
        begin = time.perf_counter()
        result = function(*arguments, **named)
        seconds[name] = round(time.perf_counter() - begin, 3)
        return result

    snapshot = timed("ingest", ingest.ingest, spec, as_of, home, now=now, settings=settings)
    validated = timed("validate", validate.validate, spec, snapshot, home)
    timed("quality", quality.assess, spec, snapshot, validated, as_of, home)
    table = timed("features", features.build_features, spec, validated, as_of, home)
    timed("materialize", features.materialize, spec, as_of, home)
    parts = timed("split", split.split, spec, table, home)
    model = timed("train", train.train, spec, parts, home, seconds=SECONDS)
    champion = timed("champion", registry.champion, pipeline, home)
    evaluation = timed("evaluate", evaluate.evaluate, spec, parts, model, champion, home)
    verdict = timed("gate", gate.judge, spec, evaluation)
    lineage = {"snapshot": snapshot.fingerprint, "validated": validated.fingerprint, "table": table.fingerprint}
    lineage |= {"split": parts.fingerprint, "model": model.fingerprint}
    folder = timed("package", package.write_package, spec, model, lineage, home)
    version = timed("register", register.register, spec, model, evaluation, verdict, parts, folder, home, at=now)
    timed("bento", bento.build_bento, spec, version, home)
    timed("promote", register.promote, spec, version, verdict, home, at=now)
    return seconds


def flow(pipeline: str) -> dict[str, float]:
    """The flow ``train`` in this process, against the server in ``PREFECT_API_URL``."""
    from flows.train import train

    report = train(pipeline=pipeline, minutes=SECONDS / 60)
    return dict(report.seconds)


def measure(*, pipeline: str | None, rounds: int) -> dict[str, Any]:
    """Run both in turn; ratios are of the medians of whole-process wall times."""
    from ferroflow.adapters import pipelines
    from ferroflow.adapters.processes import Stack
    from ferroflow.adapters.settings import load_settings

    name = pipeline or next(name for name in pipelines.names() if pipelines.load(name).source.simulator)
    runs: dict[str, list[dict[str, Any]]] = {"plain": [], "flow": []}
    with tempfile.TemporaryDirectory(prefix="loop-") as folder:
        settings = load_settings(home=Path(folder) / "server", simulate=True, prefect_port=4400)
        stack = Stack(settings)
        begin = time.perf_counter()
        stack.start(services=("prefect",))
        server = time.perf_counter() - begin
        try:
            for turn in range(rounds):
                for kind in runs:
                    home = Path(folder) / f"{kind}-{turn}"
                    runs[kind].append(_child(kind, name, stack.environment(), home))
        finally:
            stack.stop()
    return _figures(name, runs, server)


def _child(kind: str, pipeline: str, environment: dict[str, str], home: Path) -> dict[str, Any]:
    variables = os.environ | environment | {"FERROFLOW_HOME": str(home), "FERROFLOW_SIMULATE": "true"}
    begin = time.perf_counter()
    code = _CHILD.format(kind=kind, pipeline=pipeline)
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - begin
    if done.returncode:
        raise SystemExit(f"The {kind} run failed:\n{done.stderr[-3000:]}")
    line = next(line for line in done.stdout.splitlines() if line.startswith("FIGURES "))
    return json.loads(line.removeprefix("FIGURES ")) | {"wall": wall}


def _figures(name: str, runs: dict[str, list[dict[str, Any]]], server: float) -> dict[str, Any]:
    wall = {kind: statistics.median(run["wall"] for run in entries) for kind, entries in runs.items()}
    stations = {
        kind: statistics.median(sum(run["stations"].values()) for run in entries) for kind, entries in runs.items()
    }
    return {
        "benchmark": "loop",
        "pipeline": name,
        "rounds": len(runs["plain"]),
        "search_seconds": SECONDS,
        "plain_seconds": round(wall["plain"], 2),
        "flow_seconds": round(wall["flow"], 2),
        "orchestration": round(wall["flow"] / wall["plain"] - 1, 4),
        "plain_outside_stations_seconds": round(wall["plain"] - stations["plain"], 2),
        "flow_outside_stations_seconds": round(wall["flow"] - stations["flow"], 2),
        "server_start_seconds": round(server, 2),
        "plain_peak_mb": round(statistics.median(run["peak_mb"] for run in runs["plain"])),
        "flow_peak_mb": round(statistics.median(run["peak_mb"] for run in runs["flow"])),
        "stations": runs["plain"][-1]["stations"],
        "stations_in_flow": runs["flow"][-1]["stations"],
    }
