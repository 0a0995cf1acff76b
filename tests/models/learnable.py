"""Small data that can be learnt: a number with gaps, integer zones, text kinds, and their interaction."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from ferroflow.core.spec import TargetEncoding
from models import preprocess
from models.material import Material

NUMERIC = ("distance", "gaps")
CATEGORICAL = ("zone", "kind")
ENCODINGS = (TargetEncoding(("zone", "kind")),)


def table(count: int, seed: int = 0, *, classes: bool = False) -> pl.DataFrame:
    """Rows with ``target``: minutes, or "yes" and "no"."""
    random = np.random.default_rng(seed)
    zone, kind = random.integers(1, 13, count), random.integers(0, 3, count)
    distance = random.gamma(2.0, 2.0, count)
    minutes = 5 + 2.0 * distance * (1 + 0.2 * kind) + 3 * np.sin(zone) * kind + random.normal(size=count)
    kinds = np.array(["bus", "car", "tram"])[kind]
    frame = pl.DataFrame({"distance": distance, "zone": zone, "kind": kinds, "target": minutes})
    gaps = pl.when(pl.Series(random.random(count) < 0.15)).then(None).otherwise(pl.col("distance") + 1)
    frame = frame.with_columns(gaps=gaps)
    if not classes:
        return frame
    return frame.with_columns(target=pl.when(pl.col("target") > 14).then(pl.lit("yes")).otherwise(pl.lit("no")))


def values(frame: pl.DataFrame) -> np.ndarray:
    """The target as numbers."""
    column = frame["target"]
    return ((column == "yes").cast(pl.Float64) if column.dtype == pl.String else column).to_numpy()


def fitted(count: int = 1500, *, classes: bool = False, **options: Any) -> tuple[preprocess.Preprocessor, Material]:
    """A fitted preprocessor, with matrices of training rows and of a third as many for validation."""
    train, validation = table(count, 0, classes=classes), table(count // 3, 1, classes=classes)
    target = values(train)
    preprocessor, matrix = preprocess.fit(
        train, target, numeric=NUMERIC, categorical=CATEGORICAL, encodings=ENCODINGS, **options
    )
    material = Material(
        task="classification" if classes else "regression",
        names=preprocessor.names,
        sizes=preprocessor.sizes,
        train=matrix,
        target=target,
        weight=options.get("weight"),
        validation=preprocessor.transform(validation),
        validation_target=values(validation),
    )
    return preprocessor, material
