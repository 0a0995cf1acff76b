"""A pipeline, a trained model and an evaluation made by hand: what registering needs, without any training.

``prediction = bias + 2 · distance + 0.1 · hour``; the text input is looked at and left out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandera.polars as pa
import polars as pl
from pandera.polars import Field

from ferroflow.adapters.home import Home
from ferroflow.adapters.storage import atomic_parquet, write_record
from ferroflow.core.features import AVAILABLE_AT, request, stored
from ferroflow.core.records import (
    Deployment,
    Evaluation,
    GateResult,
    Interval,
    ModelVersion,
    Split,
    Standing,
    TrainedModel,
    Verdict,
)
from ferroflow.core.spec import FixedFiles, PipelineSpec, Regression, Source, SourceFile

AT = datetime(2023, 3, 1, 12, tzinfo=UTC)
INPUTS = {"zone": "int", "distance": "float", "colour": "text", "hour": "float", "zone_mean__mean": "float"}


class Trip(pa.DataFrameModel):
    zone: pl.Int64 = Field(gt=0, lt=266, description="Taxi zone.")
    distance: pl.Float64 = Field(in_range={"min_value": 0, "max_value": 50, "include_min": False}, nullable=True)
    colour: pl.String = Field(isin=["red", "green"], title="Colour")
    asked_at: pl.Datetime("us", "UTC") = Field(ge=datetime(2020, 1, 1, tzinfo=UTC))  # type: ignore[valid-type]
    minutes: pl.Float64 = Field(ge=0)


@request
def clock() -> Sequence[pl.Expr]:
    return [pl.col("asked_at").dt.hour().cast(pl.Float64).alias("hour")]


@stored(entity="zone", on="zone", ttl="2h")
def zone_mean(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows.group_by("zone").agg(
        pl.col("asked_at").max().alias(AVAILABLE_AT), pl.col("minutes").mean().alias("mean")
    )


def spec(name: str = "toy") -> PipelineSpec:
    return PipelineSpec(
        name=name,
        description="How long a toy trip takes, in minutes.",
        source=Source(files=FixedFiles((SourceFile("file:///toy", "toy.csv"),)), format="csv", time="asked_at"),
        schema=Trip,
        inputs=("zone", "distance", "colour", "asked_at"),
        categorical=("zone", "colour"),
        features=(clock, zone_mean),
        target=Regression("minutes"),
    )


def graph(bias: float) -> bytes:
    from onnx import TensorProto, helper

    kinds = {"int": TensorProto.INT64, "float": TensorProto.FLOAT, "text": TensorProto.STRING}
    constants = [
        helper.make_tensor(name, TensorProto.FLOAT, [], [v]) for name, v in (("b", bias), ("two", 2), ("tenth", 0.1))
    ]
    nodes = [
        helper.make_node("Mul", ["distance", "two"], ["d"]),
        helper.make_node("Mul", ["hour", "tenth"], ["h"]),
        helper.make_node("Sum", ["b", "d", "h"], ["prediction"]),
    ]
    inputs = [helper.make_tensor_value_info(name, kinds[kind], [None, 1]) for name, kind in INPUTS.items()]
    outputs = [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, [None, 1])]
    made = helper.make_graph(nodes, "toy", inputs, outputs, constants)
    return bytes(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString())


@dataclass(frozen=True)
class Trained:
    """All records up to the verdict."""

    spec: PipelineSpec
    split: Split
    model: TrainedModel
    evaluation: Evaluation
    verdict: Verdict


def trained(home: Home, number: int = 1, *, passed: bool = True, name: str = "toy", trials: int = 3) -> Trained:
    """Write a model's folder; its bias is ``number``."""
    description = spec(name)
    fingerprint = f"{number:016x}"
    frame = rows(np.random.default_rng(number))
    folder = home.data(name) / "models" / fingerprint
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(graph(float(number)))
    (folder / "model.txt").write_text("weights")
    (folder / "baseline.json").write_text("{}")
    states = ("COMPLETE", "PRUNED", "FAIL")
    told = [
        {
            "number": n,
            "candidate": "boosting",
            "params": {"leaves": n},
            "value": 4.0 + n,
            "state": states[n % 3],
            "seconds": 0.1,
        }
        for n in range(trials)
    ]
    (folder / "trials.json").write_text(json.dumps(told))
    split = _split(home, name, frame)
    model = TrainedModel(
        pipeline=name,
        fingerprint=fingerprint,
        parent=split.fingerprint,
        path=home.relative(folder),
        candidate="boosting",
        metric="rmse",
        leaderboard=(
            Standing(
                candidate="boosting", metrics={"rmse": 1.0}, trials=3, pruned=1, seconds=0.3, params={"leaves": 31}
            ),
            Standing(candidate="baseline", metrics={"rmse": 5.0}, trials=1, pruned=0, seconds=0.0, params={}),
        ),
        inputs=INPUTS,  # type: ignore[arg-type]
        seed=0,
        device="cpu",
        seconds=1.5,
    )
    write_record(folder / "manifest.json", model)
    evaluation = _evaluation(home, model, frame, number)
    gate = GateResult(gate="beats_baseline", passed=passed, reason=f"rmse 1.0 against 5.0 ({number})")
    verdict = Verdict(
        pipeline=name, fingerprint=f"v{number}{passed}", parent=evaluation.fingerprint, passed=passed, gates=(gate,)
    )
    return Trained(description, split, model, evaluation, verdict)


def _standing(candidate: str, rmse: float, params: dict[str, int]) -> Standing:
    return Standing(candidate=candidate, metrics={"rmse": rmse}, trials=3, pruned=1, seconds=0.3, params=params)


def rows(random: np.random.Generator, count: int = 300) -> pl.DataFrame:
    """Model inputs with the target, as a split holds them."""
    return pl.DataFrame(
        {
            "row_id": [f"p:{n}" for n in range(count)],
            "zone": random.integers(1, 265, count),
            "distance": random.gamma(2, 2, count),
            "colour": random.choice(["red", "green"], count).tolist(),
            "hour": random.integers(0, 24, count).astype(float),
            "zone_mean__mean": [None] * count,
        },
        schema_overrides={"zone_mean__mean": pl.Float64},
    ).with_columns((pl.col("distance") * 2 + pl.Series(random.normal(3, 1, count))).alias("minutes"))


def _split(home: Home, name: str, frame: pl.DataFrame) -> Split:
    folder = home.data(name) / "splits" / "5p1it"
    paths = {part: folder / f"{part}.parquet" for part in ("train", "validation", "test")}
    for path in paths.values():
        atomic_parquet(path, frame)
    split = Split(
        pipeline=name,
        fingerprint="5p1it",
        as_of=AT,
        paths={part: home.relative(path) for part, path in paths.items()},  # type: ignore[misc]
        rows=dict.fromkeys(paths, frame.height),  # type: ignore[arg-type]
        boundaries={"test": "the last day"},
        numeric=("distance", "hour", "zone_mean__mean"),
        categorical=("zone", "colour"),
        target="minutes",
        time=None,
        slices=("colour",),
    )
    write_record(folder / "manifest.json", split)
    return split


def _evaluation(home: Home, model: TrainedModel, frame: pl.DataFrame, number: int) -> Evaluation:
    folder = home.data(model.pipeline) / "evaluations" / f"e{number}"
    predicted = frame["distance"] * 2 + frame["hour"] * 0.1 + number
    atomic_parquet(
        folder / "reference.parquet",
        frame.with_columns(predicted.alias("prediction"), pl.col("minutes").alias("target")),
    )
    evaluation = Evaluation(
        pipeline=model.pipeline,
        fingerprint=f"e{number}",
        parent=model.fingerprint,
        metrics={"validation": {"rmse": 1.0, "mae": 0.8}, "test": {"rmse": 1.25, "mae": 0.9}},
        baseline={"validation": {"rmse": 5.0}, "test": {"rmse": 5.5}},
        champion={},
        champion_version=None,
        against_baseline=Interval(difference=4.25, low=4.0, high=4.5, confidence=0.95, rows=300),
        against_champion=None,
        slices={
            "colour": {
                "red": {"rows": 200, "candidate": 1.2, "baseline": 5.0},
                "green": {"rows": 100, "candidate": 6.5, "baseline": 6.0},
            }
        },
        reference=home.relative(folder / "reference.parquet"),
    )
    write_record(folder / "manifest.json", evaluation)
    return evaluation


def registered(home: Home, number: int = 1, **options: object) -> tuple[Trained, ModelVersion]:
    """Package and register a toy model."""
    from ferroflow.stations.package import write_package
    from ferroflow.stations.register import register

    made = trained(home, number, **options)  # type: ignore[arg-type]
    package: Path = write_package(made.spec, made.model, {"evaluation": made.evaluation.fingerprint}, home)
    version = register(made.spec, made.model, made.evaluation, made.verdict, made.split, package, home, at=AT)
    return made, version


def deployed(home: Home, number: int = 1, **options: object) -> tuple[Trained, ModelVersion, Deployment]:
    """Package, register and promote (or reject) a toy model."""
    from ferroflow.stations.register import promote

    made, version = registered(home, number, **options)
    return made, version, promote(made.spec, version, made.verdict, home, at=AT)
