"""Rides that were answered by the service's own code, hour by hour, as a replay asks for them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import orjson
import polars as pl

from ferroflow.adapters.contracts import serving_contract
from ferroflow.adapters.home import Home
from ferroflow.adapters.predictions import PredictionLog
from ferroflow.core.features import RequestFeatures
from ferroflow.core.records import ModelVersion, SkewReport, TrainedModel
from ferroflow.core.spec import PipelineSpec
from ferroflow.stations.features import refresh_offline
from ferroflow.stations.materialize import materialize
from ferroflow.stations.skew import measure_skew
from serving.model import Model, load
from serving.online import OnlineStores
from serving.records import log_rows
from serving.requests import typed
from tests.rides import START, accept, pipeline, simulate
from tests.stations.judging import line

BEGIN = START + timedelta(days=2)
HOURS = 4
AS_OF = BEGIN + timedelta(hours=HOURS)
HOUR = timedelta(hours=1)
ROWS = simulate(2_000)
ASKED = ROWS.filter(pl.col("started").is_between(BEGIN, AS_OF, closed="left")).sort("started")
INPUTS: dict[str, Any] = {"origin": "int", "destination": "int", "hour": "float"}
INPUTS |= {f"{view}__{name}": "float" for view in ("departures", "arrivals") for name in ("rides", "mean")}


def version(home: Home, number: str = "1") -> ModelVersion:
    """A packaged version, with the contract that packaging writes."""
    folder = home.packages("rides") / f"model-{number}"
    line(folder / "model.onnx", 5, 1, INPUTS, of="hour")
    trained: dict[str, Any] = {"candidate": "line", "metric": "rmse", "leaderboard": (), "seed": 0, "device": "cpu"}
    model = TrainedModel(
        pipeline="rides", fingerprint=f"model-{number}", path="", inputs=INPUTS, seconds=0.0, **trained
    )
    (folder / "serving.json").write_text(serving_contract(pipeline(), model, {}).model_dump_json())
    return ModelVersion(
        pipeline="rides",
        fingerprint=f"model-{number}",
        name="rides",
        version=number,
        run_id="",
        package=home.relative(folder),
        reference="",
        metrics={},
        candidate="line",
    )


def served(home: Home, known: ModelVersion, request: Sequence[RequestFeatures] | None = None) -> Model:
    """The version as the service holds it; ``request`` are other features than those it was packaged with."""
    stores = OnlineStores(home)
    model = load(home.absolute(known.package), version=known.version, source="registry", online=stores.of)
    return model if request is None else replace(model, request=tuple(request))


def answer(home: Home, model: Model, rows: pl.DataFrame, now: datetime = AS_OF) -> None:
    """Log what the service answers to these rides, five a request."""
    for batch in rows.select(pipeline().inputs).iter_slices(5):
        bodies = orjson.loads(orjson.dumps(batch.to_dicts()))
        frame = typed(model.contract, bodies)
        found = model.answer(frame, now)
        lines = log_rows(model, bodies, frame, found, now, degraded=bool(found.reasons))
        PredictionLog(home.predictions("rides")).append(lines)


def a_morning(home: Home, rows: pl.DataFrame = ASKED) -> ModelVersion:
    """Four hours of rides; before each the stored features are made of what was known."""
    known = version(home)
    validated, model = accept(home, ROWS), served(home, known)
    for hour in range(HOURS):
        now = BEGIN + hour * HOUR
        refresh_offline(pipeline(), validated, now, home)
        materialize(pipeline(), now, home)
        answer(home, model, rows.filter(pl.col("started").is_between(now, now + HOUR, closed="left")))
    return known


def rewrite_marks(home: Home, change: Any) -> None:
    """Change what each line of the log says of the watermarks: ``change(event) -> JSON``."""
    with closing(sqlite3.connect(home.predictions("rides"), isolation_level=None)) as log:
        for name, text in log.execute("SELECT id, watermarks FROM predictions").fetchall():
            marks = {view: change(mark[0]) for view, mark in json.loads(text).items()}
            log.execute("UPDATE predictions SET watermarks = ? WHERE id = ?", (json.dumps(marks), name))


def rewrite_store(home: Home, view: str, *changes: pl.Expr) -> pl.DataFrame:
    """Change the offline rows of a view in place; gives them as they were."""
    path = home.offline("rides") / f"{view}.parquet"
    before = pl.read_parquet(path)
    before.with_columns(changes).write_parquet(path)
    return before


def logged(home: Home) -> pl.DataFrame:
    """The log's lines with their features and inputs as columns."""
    log = PredictionLog(home.predictions("rides")).read()
    features = pl.DataFrame([json.loads(text) for text in log["features"]], infer_schema_length=None)
    return pl.concat([log.select("id", "event_time", "version"), features], how="horizontal")


def with_ttl(view: str, ttl: timedelta) -> PipelineSpec:
    """The pipeline, one view of which keeps its values for another time."""
    plain = pipeline()
    changed = tuple(replace(part, ttl=ttl) if part.name == view else part for part in plain.features)  # type: ignore[call-arg]
    return replace(plain, features=changed)


def measured(home: Home, spec: PipelineSpec | None = None, **more: Any) -> SkewReport:
    """The skew of the morning's version, of which every line is accounted for."""
    found = measure_skew(spec or pipeline(), AS_OF, home, BEGIN, served=[version(home)], **more)
    assert found.read == found.compared + found.degraded + sum(found.not_comparable.values())
    return found


def change_contract(home: Home, **changes: Any) -> None:
    """Change what the version's package says of itself."""
    path = home.absolute(version(home).package) / "serving.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
