"""Which inputs a model leans on: how much its error grows when one input's values are shuffled among the rows.

Breiman's permutation importance (Random Forests, 2001), on test rows that took no part in training.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from ferroflow.adapters.graph import Graph
from ferroflow.adapters.home import Home
from ferroflow.adapters.storage import read_record, read_table, write_record
from ferroflow.core.catalogue import Importances
from ferroflow.core.errors import NotFound, RegistryError
from ferroflow.core.metrics import error, losses
from ferroflow.core.records import ModelVersion
from ferroflow.core.spec import PipelineSpec

ROWS = 5_000
"""Test rows that are looked at, at most."""
REPEATS = 3


def measure(spec: PipelineSpec, home: Home, *, repeats: int = REPEATS, seed: int = 0) -> Importances:
    """Measure the champion's inputs on a seeded sample of its test rows, and keep what was found.

    Returns:
        What was measured before, when the champion, ``repeats`` and ``seed`` are the same.

    Raises:
        NotFound: there is no champion.
        RegistryError: the registry is away, or the champion's rows are gone.
        ModelError: its graph does not load.
    """
    from ferroflow.adapters.registry import champion

    version = champion(spec.name, home)
    if version is None:
        raise NotFound(f"Pipeline {spec.name!r} has no champion to measure. Train one: ferroflow run {spec.name}")
    known = measured(spec.name, version.fingerprint, home)
    if known is not None and (known.repeats, known.seed) == (repeats, seed) and known.version == version.version:
        return known
    found = _measured(spec, version, _judged(version, home, seed), home, repeats, seed)
    write_record(_place(spec.name, version.fingerprint, home), found)
    return found


def measured(pipeline: str, model: str, home: Home) -> Importances | None:
    """What was measured of a model, by its fingerprint; None: nothing yet."""
    return read_record(_place(pipeline, model, home), Importances)


def _place(pipeline: str, model: str, home: Home) -> Path:
    return home.data(pipeline) / "importances" / f"{model}.json"


def _judged(version: ModelVersion, home: Home, seed: int) -> pl.DataFrame:
    """Inputs and target of test rows (of all judged rows, where none is marked as one)."""
    reference = read_table(home.absolute(version.reference)) if version.reference else None
    if reference is None or reference.is_empty():
        raise RegistryError(
            f"Version {version.version} of {version.name!r} has no reference rows at {version.reference!r}: its home "
            f"folder is incomplete. Evaluate and register again: ferroflow run {version.name}"
        )
    if "part" in reference.columns and (reference["part"] == "test").any():
        reference = reference.filter(pl.col("part") == "test")
    return reference.sample(min(ROWS, reference.height), seed=seed)


def _measured(
    spec: PipelineSpec, version: ModelVersion, rows: pl.DataFrame, home: Home, repeats: int, seed: int
) -> Importances:
    graph, dice = Graph(home.absolute(version.package) / "model.onnx"), np.random.default_rng(seed)
    target = rows["target"].cast(pl.Float64).to_numpy()

    def erred(frame: pl.DataFrame) -> float:
        found = graph.predict(frame).astype(np.float64)
        return float(error(spec.target.task, losses(spec.target.task, target, found).mean()))

    base, growth = erred(rows), {}
    for name in graph.inputs:
        orders = [dice.permutation(rows.height) for _ in range(repeats)]
        growth[name] = float(np.mean([erred(rows.with_columns(rows[name].gather(order))) for order in orders]) - base)
    return Importances(
        pipeline=spec.name,
        version=version.version,
        fingerprint=version.fingerprint,
        metric=spec.target.metric,
        error=base,
        rows=rows.height,
        repeats=repeats,
        seed=seed,
        growth=growth,
    )
