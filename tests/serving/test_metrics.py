"""What the service tells of its features."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl

from ferroflow.adapters.feast.rows import Watermark
from ferroflow.adapters.vectors import Vectors
from serving.app import App
from serving.metrics import Metrics
from serving.model import Answer


def test_a_view_is_told_complete_as_far_as_its_store_is_whatever_newer_rows_were_met() -> None:
    marks = {"v": Watermark(9_000_000, None), "w": Watermark(9_000_000, None), "x": None}
    vectors = Vectors(pl.DataFrame(), watermarks=marks, complete={"v": 5_000_000, "w": None, "x": None})
    app: Any = SimpleNamespace(metrics=Metrics())
    App._count(app, "toy", 1, Answer(np.zeros(1, dtype=np.float32), vectors, (), {}))
    told = {
        view: app.metrics.registry.get_sample_value(
            "ferroflow_features_complete_until_seconds", {"pipeline": "toy", "view": view}
        )
        for view in marks
    }
    assert told == {"v": 5.0, "w": None, "x": None}
