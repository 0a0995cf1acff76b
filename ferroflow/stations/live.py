"""What the service answered, as rows that can be compared with the champion's reference."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson
import polars as pl
from pydantic import ValidationError

from ferroflow.adapters.home import Home
from ferroflow.adapters.predictions import PredictionLog
from ferroflow.core.contract import ServingContract
from ferroflow.core.records import ModelVersion
from ferroflow.core.spec import Performance, PipelineSpec
from ferroflow.core.splits import before

logger = logging.getLogger(__name__)

Bounds = tuple[float | None, float | None]
"""The least and the greatest label that says anything of the model, both inclusive; None: no such bound."""


def label_bounds(version: ModelVersion, home: Home) -> Bounds:
    """Where the schema kept the target of the rows that a version was trained on, by its package."""
    path = home.absolute(version.package) / "serving.json"
    try:
        contract = ServingContract.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        logger.warning("no bounds for labels: version %s has no usable package: %s", version.version, error)
        return None, None
    return contract.target_minimum, contract.target_maximum


def left_out(count: int, bounds: Bounds) -> str:
    """What is said of labels outside the bounds, such as ``27 labels outside 1–60 left out``."""
    low, high = bounds
    if low is not None and high is not None:
        where = f"outside {low:.12g}–{high:.12g}"
    else:
        where = f"below {low:.12g}" if low is not None else f"above {high:.12g}"
    return f"{count} label{'' if count == 1 else 's'} {where} left out"


def live_rows(
    spec: PipelineSpec,
    version: str,
    as_of: datetime,
    home: Home,
    inputs: Mapping[str, pl.DataType],
    bounds: Bounds = (None, None),
) -> pl.DataFrame:
    """One version's predictions of the monitored windows before ``as_of``, by the moment they are for.

    The moment is the event time where a pipeline has one. A label counts when it was there at ``as_of``; in a replay
    (the prediction itself was made after ``as_of``) every label counts, since its event was over. A label
    outside the bounds does not: a model that learnt from targets within them cannot be blamed for it.

    Returns:
        ``id, moment, prediction, target`` (null without a label within the bounds), ``label_outside`` and those of
        ``inputs`` that were logged, typed so.
    """
    policy: Performance = spec.monitor(Performance) or Performance()
    since = as_of
    for _ in range(2 * policy.windows):
        since = before(since, policy.window, spec.source.timezone)
    log = PredictionLog(home.predictions(spec.name)).read(since, as_of).filter(pl.col("version") == version)
    known = (pl.col("labelled_at") <= as_of) | (pl.col("at") > as_of)
    label = pl.when(known).then(pl.col("label"))
    low, high = bounds
    outside = pl.lit(False) if low is None else label < low
    outside = (outside if high is None else outside | (label > high)).fill_null(False)
    rows = log.select(
        "id",
        pl.coalesce("event_time", "at").alias("moment"),
        "prediction",
        pl.when(~outside).then(label).alias("target"),
        outside.alias("label_outside"),
    )
    return pl.concat([rows, _inputs(log["features"], inputs)], how="horizontal")


def _inputs(features: pl.Series, inputs: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """The logged vectors as columns; an input that no vector names is left out, so that its absence is seen."""
    vectors: list[dict[str, Any]] = [orjson.loads(text) for text in features]
    named = set().union(*vectors) if vectors else set(inputs)
    return pl.DataFrame(
        {
            name: pl.Series(name, [vector.get(name) for vector in vectors], dtype=kind, strict=False)
            for name, kind in inputs.items()
            if name in named
        }
    )
