"""Tune and train every candidate of a pipeline, and export the best one as a graph."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import polars as pl

from ferroflow.adapters.graph import Graph
from ferroflow.adapters.home import Home
from ferroflow.adapters.storage import atomic_bytes, read_record, write_record
from ferroflow.core.fingerprint import fingerprint
from ferroflow.core.metrics import score
from ferroflow.core.records import Split, Standing, TrainedModel
from ferroflow.core.spec import PipelineSpec
from ferroflow.core.splits import WEIGHT
from ferroflow.core.targets import target_values

if TYPE_CHECKING:
    from models.baseline import GroupMeans
    from models.material import Material
    from models.preprocess import Preprocessor
    from models.search import Found

MANIFEST = "manifest.json"
PREPROCESS = "preprocess.json"
TRIALS = "trials.json"
_CODE = 1  # raised when the same data and settings are to give another model


def train(
    spec: PipelineSpec,
    split: Split,
    home: Home,
    *,
    seconds: float | None = None,
    trials: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> TrainedModel:
    """Search over the spec's candidates, keep the one with the lowest validation error.

    Args:
        seconds: bounds the whole search (None: the spec's); each candidate is tried once in any case.
        trials: over all candidates (None: the spec's).
        progress: told one line a trial.

    Raises:
        ModelError: no candidate trained, the target has gaps, or the exported graph differs from its model.
    """
    from models.search import Budget

    tuning = spec.tuning
    budget = Budget(
        trials=tuning.trials if trials is None else trials,
        seconds=tuning.seconds if seconds is None else seconds,
        seed=tuning.seed,
    )
    name = fingerprint(_CODE, split.fingerprint, repr((spec.candidates, spec.encodings, spec.baseline, budget)))
    folder = home.data(spec.name) / "models" / name
    done = read_record(folder / MANIFEST, TrainedModel)
    if done is not None:
        return done
    started = time.monotonic()
    work = _prepare(spec, split, home, budget.seed)
    found = _search(spec, work, home, name, budget, progress)
    record = TrainedModel(
        pipeline=spec.name,
        fingerprint=name,
        parent=split.fingerprint,
        path=home.relative(folder),
        candidate=found.standings[0].candidate,
        metric=spec.target.metric,
        leaderboard=_leaderboard(spec, found, work),
        inputs=work.preprocessor.kinds,
        seed=budget.seed,
        device=found.device,
        seconds=round(time.monotonic() - started, 3),
    )
    _write(record, found, work, folder)
    return record


class _Work:
    """Everything fitted before the search."""

    def __init__(
        self, preprocessor: Preprocessor, material: Material, baseline: GroupMeans, validation: pl.DataFrame
    ) -> None:
        self.preprocessor = preprocessor
        self.material = material
        self.baseline = baseline
        self.validation = validation


def _prepare(spec: PipelineSpec, split: Split, home: Home, seed: int) -> _Work:
    from models import baseline, preprocess
    from models.material import Material

    train = pl.read_parquet(home.absolute(split.paths["train"]))
    validation = pl.read_parquet(home.absolute(split.paths["validation"]))
    target = target_values(spec.target, train[spec.target.column])
    weight = train[WEIGHT].to_numpy() if split.weighted else None
    preprocessor, matrix = preprocess.fit(
        train,
        target,
        numeric=split.numeric,
        categorical=split.categorical,
        encodings=spec.encodings,
        weight=weight,
        seed=seed,
    )
    material = Material(
        task=spec.target.task,
        names=preprocessor.names,
        sizes=preprocessor.sizes,
        train=matrix,
        target=target,
        weight=weight,
        validation=preprocessor.transform(validation),
        validation_target=target_values(spec.target, validation[spec.target.column]),
    )
    naive = baseline.fit(train, target, by=spec.baseline.by, kinds=preprocessor.kinds, weight=weight)
    return _Work(preprocessor, material, naive, validation)


def _search(
    spec: PipelineSpec,
    work: _Work,
    home: Home,
    name: str,
    budget: Any,
    progress: Callable[[str], None] | None,
) -> Found:
    from models.search import Search

    folder = home.data(spec.name) / "studies" / name
    return Search(folder, spec.candidates, work.material, budget, progress).run()


def _leaderboard(spec: PipelineSpec, found: Found, work: _Work) -> tuple[Standing, ...]:
    naive = Standing(
        candidate=spec.baseline.name,
        metrics=score(spec.target.task, work.material.validation_target, work.baseline.predict(work.validation)),
        trials=0,
        pruned=0,
        seconds=0.0,
        params={"by": list(spec.baseline.by)},
    )
    return tuple(sorted((*found.standings, naive), key=lambda line: line.metrics[spec.target.metric]))


def _write(record: TrainedModel, found: Found, work: _Work, folder: Path) -> None:
    """All files of a model in a folder that appears as a whole, after its graph has been checked."""
    from models import export

    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.mkdir(parents=True)
    try:
        export.write_graph(work.preprocessor, found.body, temporary / export.GRAPH)
        graph = Graph(temporary / export.GRAPH)
        export.check(work.preprocessor, found.body, graph.predict, work.validation)
        found.body.save(temporary)
        work.baseline.save(temporary)
        atomic_bytes(temporary / PREPROCESS, work.preprocessor.model_dump_json().encode())
        atomic_bytes(temporary / TRIALS, orjson.dumps(found.trials, option=orjson.OPT_INDENT_2))
        write_record(temporary / MANIFEST, record)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
