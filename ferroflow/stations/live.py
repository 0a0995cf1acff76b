"""What the service answered, as rows that can be compared with the champion's reference."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson
import polars as pl

from ferroflow.adapters.home import Home
from ferroflow.adapters.predictions import PredictionLog
from ferroflow.core.spec import Performance, PipelineSpec
from ferroflow.core.splits import before


def live_rows(
    spec: PipelineSpec, version: str, as_of: datetime, home: Home, inputs: Mapping[str, pl.DataType]
) -> pl.DataFrame:
    """One version's predictions of the monitored windows before ``as_of``, by the moment they are for.

    The moment is the event time where a pipeline has one. A label counts when it was there at ``as_of``; in a replay
    (the prediction itself was made after ``as_of``) every label counts, since its event was over.

    Returns:
        ``id, moment, prediction, target`` (null without a label) and those of ``inputs`` that were logged, typed so.
    """
    policy: Performance = spec.monitor(Performance) or Performance()
    since = as_of
    for _ in range(2 * policy.windows):
        since = before(since, policy.window, spec.source.timezone)
    log = PredictionLog(home.predictions(spec.name)).read(since, as_of).filter(pl.col("version") == version)
    known = (pl.col("labelled_at") <= as_of) | (pl.col("at") > as_of)
    rows = log.select(
        "id",
        pl.coalesce("event_time", "at").alias("moment"),
        "prediction",
        pl.when(known).then(pl.col("label")).alias("target"),
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
