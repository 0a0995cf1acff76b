"""Train/serve skew, counted: the vectors the service logged against a recomputation from the accepted rows.

The recomputation shares no code path with the service's look-up: it joins the offline store point in time, as of the
watermark that the service saw, and evaluates the request features on the accepted rows instead of on the request.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import orjson
import polars as pl

from ferroflow.adapters.home import Home
from ferroflow.adapters.predictions import PredictionLog
from ferroflow.core.features import AVAILABLE_AT, StoredFeatures
from ferroflow.core.spec import PipelineSpec

_ID = "prediction_id"


@dataclass(frozen=True)
class Skew:
    """How many values were compared, how many differ, and some that do (feature, logged, recomputed, id)."""

    compared: int
    mismatched: int
    by_feature: dict[str, int] = field(default_factory=dict)
    examples: list[dict[str, Any]] = field(default_factory=list)


def compare(spec: PipelineSpec, home: Home, rows: dict[str, str], accepted: pl.LazyFrame) -> Skew:
    """Compare logged vectors with recomputed ones.

    Args:
        rows: prediction id -> ``row_id`` of the accepted row that was asked about.
        accepted: accepted rows, with ``row_id``.
    """
    logged = _logged(spec, home, rows)
    if logged.is_empty():
        return Skew(0, 0)
    asked = accepted.filter(pl.col("row_id").is_in(logged["row_id"].implode())).collect()
    frame = logged.join(asked, on="row_id", how="inner", suffix="__accepted", maintain_order="left")
    if frame.height != logged.height:
        raise ValueError(f"{logged.height - frame.height} predictions name rows that were never accepted")
    frame = frame.select(_ID, "watermarks", "features", *spec.inputs)
    for entry in spec.request:
        frame = frame.with_columns(entry.expressions())
    for view in spec.stored:
        frame = _point_in_time(frame, view, home.offline(spec.name) / f"{view.name}.parquet", str(spec.time))
    return _differences(frame)


def _logged(spec: PipelineSpec, home: Home, rows: dict[str, str]) -> pl.DataFrame:
    log = PredictionLog(home.predictions(spec.name)).read()
    names = pl.DataFrame({_ID: list(rows), "row_id": list(rows.values())})
    return log.rename({"id": _ID}).select(_ID, "features", "watermarks").join(names, on=_ID, how="inner")


def _point_in_time(frame: pl.DataFrame, view: StoredFeatures, path: Any, time: str) -> pl.DataFrame:
    """Add the view's features as of each row's own watermark and time-to-live."""
    stored = pl.read_parquet(path).sort(AVAILABLE_AT)
    names = [name for name in stored.columns if name not in (view.entity, AVAILABLE_AT, "ingested_at")]
    stored = stored.select(
        pl.col(view.entity).alias(view.on), AVAILABLE_AT, *[pl.col(name).alias(view.full_name(name)) for name in names]
    )
    parts = []
    watermark = pl.col("watermarks").str.json_path_match(f"$.{view.name}").cast(pl.Int64)
    for (seen,), part in frame.with_columns(watermark.alias("__seen")).group_by("__seen", maintain_order=True):
        known = stored.clear() if seen is None else stored.filter(pl.col(AVAILABLE_AT).dt.epoch("us") <= seen)
        joined = part.sort(time).join_asof(
            known,
            left_on=time,
            right_on=AVAILABLE_AT,
            by=view.on,
            strategy="backward",
            tolerance=view.ttl,
            check_sortedness=False,
        )
        parts.append(joined.drop("__seen", AVAILABLE_AT, strict=False))
    return pl.concat(parts)


def _differences(frame: pl.DataFrame) -> Skew:
    by_feature: dict[str, int] = {}
    examples: list[dict[str, Any]] = []
    compared = 0
    for row in frame.iter_rows(named=True):
        for name, logged in orjson.loads(row["features"]).items():
            compared += 1
            if _same(logged, row[name]):
                continue
            by_feature[name] = by_feature.get(name, 0) + 1
            if len(examples) < 5:
                examples.append({"feature": name, "logged": logged, "recomputed": row[name], "id": row[_ID]})
    return Skew(compared, sum(by_feature.values()), by_feature, examples)


def _same(logged: Any, again: Any) -> bool:
    if again is None or (isinstance(again, float) and math.isnan(again)):
        return logged is None
    if isinstance(logged, float | int) and isinstance(again, float | int | bool):
        return math.isclose(logged, float(again), rel_tol=1e-6, abs_tol=1e-9)  # the graph takes float32
    return bool(logged == again)
