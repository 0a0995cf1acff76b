"""A small world for the stations that judge: trips whose noise is known, and models that are straight lines."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import polars as pl
from onnx import TensorProto, helper

from ferroflow.adapters.home import Home
from ferroflow.adapters.predictions import PredictionLog
from ferroflow.adapters.storage import atomic_parquet
from ferroflow.core.features import request
from ferroflow.core.records import FeatureTable, ModelVersion, TrainedModel
from ferroflow.core.spec import (
    BeatsBaseline,
    BeatsChampion,
    ByTime,
    FixedFiles,
    InputDrift,
    NoWorseSlice,
    Performance,
    PipelineSpec,
    Regression,
    Source,
    Staleness,
)
from models.baseline import GroupMeans

AS_OF = datetime(2023, 3, 20, 4, tzinfo=UTC)  # midnight in New York, eight days after its clocks changed
NOISE = {"calm": 1.0, "wild": 4.0}
INPUTS = {"zone": "text", "distance": "float", "hour": "float"}


@request
def clock() -> list[pl.Expr]:
    """The hour of the event."""
    return [pl.col("happened_at").dt.hour().cast(pl.Float64).alias("hour")]


def toy(**changes: Any) -> PipelineSpec:
    """Trips: minutes = 5 + 3 × distance + noise, the noise four times as large in the wild zone."""
    values: dict[str, Any] = {
        "name": "toy",
        "description": "trips of a small city",
        "source": Source(files=FixedFiles(()), format="parquet", time="happened_at", timezone="America/New_York"),
        "schema": object,
        "inputs": ("zone", "distance", "happened_at"),
        "target": Regression("minutes"),
        "categorical": ("zone",),
        "features": (clock,),
        "split": ByTime(validation="7d", test="7d"),
        "gates": (BeatsBaseline(), BeatsChampion(), NoWorseSlice("zone")),
        "monitors": (InputDrift(), Performance(), Staleness("35d")),
    }
    return PipelineSpec(**(values | changes))


def trips(
    count: int, until: datetime, days: float, *, seed: int = 0, wild: float = 0.3, harm: float = 1.0
) -> pl.DataFrame:
    """Labelled rows of a feature table, evenly spread over the days before ``until``.

    ``wild`` is the wild zone's share, ``harm`` stretches its minutes.
    """
    random = np.random.default_rng(seed)
    zone = np.where(random.random(count) < wild, "wild", "calm")
    distance = random.gamma(2, 2, count)
    minutes = 5 + 3 * distance + random.normal(size=count) * np.where(zone == "wild", NOISE["wild"], NOISE["calm"])
    step = timedelta(days=days) / count
    frame = pl.DataFrame(
        {
            "row_id": [f"{seed}:{row}" for row in range(count)],
            "happened_at": [until - step * (count - row) for row in range(count)],
            "zone": zone,
            "distance": distance,
            "minutes": np.where(zone == "wild", minutes * harm, minutes),
        },
        schema_overrides={"happened_at": pl.Datetime("us", "UTC")},
    )
    return frame.with_columns(clock.expressions())


def table(spec: PipelineSpec, rows: pl.DataFrame, home: Home, as_of: datetime = AS_OF) -> FeatureTable:
    """Rows as the feature station leaves them."""
    path = home.data(spec.name) / "tables" / "table.parquet"
    atomic_parquet(path, rows)
    return FeatureTable(
        pipeline=spec.name,
        fingerprint="table",
        as_of=as_of,
        path=home.relative(path),
        rows=rows.height,
        numeric=("distance", "hour"),
        categorical=("zone",),
        target=spec.target.column,
        time=spec.time,
        slices=("zone",),
        views={},
    )


def line(
    path: Path, intercept: float, slope: float, inputs: dict[str, str] | None = None, of: str = "distance"
) -> Path:
    """A graph that predicts ``intercept + slope × distance`` (or ``of``) and takes the other inputs without a look."""
    kinds = {"float": TensorProto.FLOAT, "int": TensorProto.INT64, "text": TensorProto.STRING}
    given = [helper.make_tensor_value_info(name, kinds[kind], ["rows", 1]) for name, kind in (inputs or INPUTS).items()]
    nodes = [
        helper.make_node("Mul", [of, "slope"], ["scaled"]),
        helper.make_node("Add", ["scaled", "intercept"], ["prediction"]),
    ]
    graph = helper.make_graph(
        nodes,
        "line",
        given,
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["rows", 1])],
        [
            helper.make_tensor(name, TensorProto.FLOAT, [1], [value])
            for name, value in (("slope", slope), ("intercept", intercept))
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def trained(home: Home, name: str, intercept: float = 5, slope: float = 3) -> TrainedModel:
    """A line as the training station leaves it; its baseline always says 17 minutes."""
    folder = home.data("toy") / "models" / name
    line(folder / "model.onnx", intercept, slope)
    GroupMeans(kinds={}, groups=(), means=(), overall=17.0).save(folder)
    return TrainedModel(
        pipeline="toy",
        fingerprint=name,
        path=home.relative(folder),
        candidate="line",
        metric="rmse",
        leaderboard=(),
        inputs=INPUTS,
        seed=0,
        device="cpu",
        seconds=0.0,
    )


def version(home: Home, number: str, reference: str = "", **graph: Any) -> ModelVersion:
    """A registered line."""
    package = home.packages("toy") / number
    line(package / "model.onnx", graph.get("intercept", 5), graph.get("slope", 3), graph.get("inputs"))
    return ModelVersion(
        pipeline="toy",
        fingerprint=f"model-{number}",
        name="toy",
        version=number,
        run_id="",
        package=home.relative(package),
        reference=reference,
        metrics={},
        candidate="line",
    )


def serve(home: Home, rows: pl.DataFrame, *, number: str = "1", labels: bool = True, name: str = "toy") -> None:
    """Log the right line's predictions of rows as the service does, in a replay; labels come at once."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    log = PredictionLog(home.predictions(name))
    answers = [
        {
            "id": f"{number}-{row['row_id']}-{row['happened_at']:%m%d%H%M%S%f}",
            "at": at,
            "version": number,
            "event_time": row["happened_at"],
            "inputs": json.dumps({"distance": row["distance"]}),
            "features": json.dumps({key: row[key] for key in INPUTS if key in row}),
            "prediction": 5 + 3 * row["distance"],
            "degraded": False,
        }
        for row in rows.to_dicts()
    ]
    log.append(answers)
    if labels:
        pairs = [(entry["id"], value) for entry, value in zip(answers, rows["minutes"], strict=True)]
        log.add_labels(pairs, at + timedelta(hours=1))
