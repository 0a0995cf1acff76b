"""Measure a trained model on rows that took no part in its training, beside the baseline and the champion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ferroflow.adapters.home import Home
from ferroflow.adapters.storage import atomic_parquet, read_record, read_table, write_record
from ferroflow.core.errors import ModelError
from ferroflow.core.fingerprint import fingerprint
from ferroflow.core.metrics import Array, error, losses, paired, score
from ferroflow.core.records import Evaluation, Interval, ModelVersion, Split, TrainedModel
from ferroflow.core.spec import BeatsBaseline, BeatsChampion, PipelineSpec
from ferroflow.core.targets import target_values

REFERENCE_ROWS = 50_000
_ENOUGH = 200  # rows that candidate and champion share, when only old predictions of the champion can be had
_SLICE_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Champion:
    """The champion's predictions for the rows of each part, NaN where it has none, or why there are none at all."""

    version: str | None
    predictions: dict[str, Array]
    problem: str = ""


def evaluate(
    spec: PipelineSpec, split: Split, model: TrainedModel, champion: ModelVersion | None, home: Home
) -> Evaluation:
    """Errors on validation and test rows, paired intervals and slices on test rows; the reference for monitoring.

    Raises:
        ModelError: the candidate's own graph or baseline does not answer.
    """
    name = fingerprint(
        split.fingerprint, model.fingerprint, champion and [champion.fingerprint, champion.version], repr(spec.gates)
    )
    folder = home.data(spec.name) / "evaluations" / name
    done = read_record(folder / "manifest.json", Evaluation)
    if done is not None and home.absolute(done.reference).exists():
        return done
    rows = {part: pl.read_parquet(home.absolute(split.paths[part])) for part in ("validation", "test")}
    targets = {part: target_values(spec.target, frame[split.target]) for part, frame in rows.items()}
    candidate = _candidate(home.absolute(model.path), rows)
    baseline = _baseline(home.absolute(model.path), rows)
    beside = _champion(champion, rows, targets, home)
    reference = folder / "reference.parquet"
    atomic_parquet(reference, _reference(split, model, rows, targets, candidate, spec.tuning.seed))
    record = Evaluation(
        pipeline=spec.name,
        fingerprint=name,
        parent=model.fingerprint,
        metrics=_metrics(spec, targets, candidate),
        baseline=_metrics(spec, targets, baseline),
        champion=_metrics(spec, targets, beside.predictions),
        champion_version=beside.version,
        champion_problem=beside.problem,
        reference=home.relative(reference),
        **_test_rows(spec, split, rows["test"], targets["test"], candidate["test"], baseline["test"], beside),
    )
    write_record(folder / "manifest.json", record)
    return record


def _candidate(folder: Path, rows: dict[str, pl.DataFrame]) -> dict[str, Array]:
    from ferroflow.adapters.graph import Graph

    graph = Graph(folder / "model.onnx")
    return {part: graph.predict(frame).astype(np.float64) for part, frame in rows.items()}


def _baseline(folder: Path, rows: dict[str, pl.DataFrame]) -> dict[str, Array]:
    from models.baseline import GroupMeans

    naive = GroupMeans.load(folder)
    return {part: naive.predict(frame) for part, frame in rows.items()}


def _champion(
    champion: ModelVersion | None, rows: dict[str, pl.DataFrame], targets: dict[str, Array], home: Home
) -> Champion:
    """Run the champion's graph; where it cannot be run on these rows, take the predictions kept of it.

    A champion whose inputs are gone from the feature table can still be compared on the very rows that it was once
    evaluated on: its reference holds them by ``row_id``.
    """
    if champion is None:
        return Champion(None, {})
    from ferroflow.adapters.graph import Graph

    try:
        graph = Graph(home.absolute(champion.package) / "model.onnx")
        found: dict[str, Array] = {part: graph.predict(frame).astype(np.float64) for part, frame in rows.items()}
        return Champion(champion.version, found)
    except ModelError as why:
        kept = _kept(champion, rows, home)
        shared = int(np.isfinite(kept["test"]).sum())
        if shared >= _ENOUGH:
            return Champion(champion.version, kept)
        return Champion(
            champion.version,
            {},
            f"{why} Of the {rows['test'].height} test rows {shared} have a kept prediction of it (needs {_ENOUGH}). "
            "Train once as of the moment the champion was trained for, so that both are tested on the same rows.",
        )


def _kept(champion: ModelVersion, rows: dict[str, pl.DataFrame], home: Home) -> dict[str, Array]:
    reference = read_table(home.absolute(champion.reference))
    if reference is None:
        return {part: np.full(frame.height, np.nan) for part, frame in rows.items()}
    known = reference.select("row_id", "prediction")
    return {
        part: frame.select("row_id")
        .join(known, on="row_id", how="left", maintain_order="left")["prediction"]
        .cast(pl.Float64)
        .fill_null(float("nan"))
        .to_numpy()
        for part, frame in rows.items()
    }


def _metrics(
    spec: PipelineSpec, targets: dict[str, Array], predictions: dict[str, Array]
) -> dict[str, dict[str, float]]:
    found = {}
    for part, values in predictions.items():
        known = np.isfinite(values)
        metrics = score(spec.target.task, targets[part][known], values[known])
        found[part] = {name: value for name, value in metrics.items() if np.isfinite(value)}  # JSON knows no NaN
    return found


def _test_rows(
    spec: PipelineSpec,
    split: Split,
    rows: pl.DataFrame,
    target: Array,
    candidate: Array,
    baseline: Array,
    beside: Champion,
) -> dict[str, Any]:
    task, seed = spec.target.task, spec.tuning.seed
    mine, naive = losses(task, target, candidate), losses(task, target, baseline)
    confidence = {type(gate): gate.confidence for gate in spec.gates if isinstance(gate, BeatsBaseline | BeatsChampion)}
    theirs = losses(task, target, beside.predictions["test"]) if beside.predictions else None
    against_baseline = _interval(spec, naive, mine, confidence.get(BeatsBaseline, 0.95))
    against_champion = None
    if theirs is not None:
        known = np.isfinite(theirs)
        against_champion = _interval(spec, theirs[known], mine[known], confidence.get(BeatsChampion, 0.95))
    slices = {
        column: _slices(task, rows[column], mine, naive, theirs, seed)
        for column in split.slices
        if column in rows.columns
    }
    return {"against_baseline": against_baseline, "against_champion": against_champion, "slices": slices}


def _interval(spec: PipelineSpec, other: Array, candidate: Array, confidence: float) -> Interval:
    difference, low, high = paired(spec.target.task, other, candidate, confidence, spec.tuning.seed)
    return Interval(difference=difference, low=low, high=high, confidence=confidence, rows=other.size)


def _slices(
    task: Any, values: pl.Series, mine: Array, naive: Array, theirs: Array | None, seed: int
) -> dict[str, dict[str, float]]:
    """Errors by the value of a column; the champion's only on rows that it answered."""
    names = values.cast(pl.String).fill_null("(missing)").to_numpy()
    found: dict[str, dict[str, float]] = {}
    for name in sorted(set(names)):
        inside = names == name
        row = {
            "rows": float(inside.sum()),
            "candidate": float(error(task, mine[inside].mean())),
            "baseline": float(error(task, naive[inside].mean())),
        }
        if theirs is not None and (both := inside & np.isfinite(theirs)).any():
            _, low, high = paired(task, theirs[both], mine[both], _SLICE_CONFIDENCE, seed)
            row |= {
                "rows": float(both.sum()),
                "candidate": float(error(task, mine[both].mean())),
                "champion": float(error(task, theirs[both].mean())),
                "low": low,
                "high": high,
            }
        found[str(name)] = row
    return found


def _reference(
    split: Split,
    model: TrainedModel,
    rows: dict[str, pl.DataFrame],
    targets: dict[str, Array],
    predictions: dict[str, Array],
    seed: int,
) -> pl.DataFrame:
    """What monitoring compares with: model inputs, prediction, target, row, time and part; a seeded sample of many."""
    columns = ["row_id", *([split.time] if split.time else []), *model.inputs]
    parts = [
        frame.select(columns).with_columns(
            pl.Series("prediction", predictions[part]), pl.Series("target", targets[part]), pl.lit(part).alias("part")
        )
        for part, frame in rows.items()
    ]
    whole = pl.concat(parts)
    if whole.height <= REFERENCE_ROWS:
        return whole
    drawn = np.random.default_rng(seed).choice(whole.height, REFERENCE_ROWS, replace=False)
    return whole[np.sort(drawn)]
