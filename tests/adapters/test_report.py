from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl

from ferroflow.adapters.report import write_drift_page


def rows(count: int, seed: int) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "speed": random.normal(size=count),
            "zone": random.integers(0, 200, count),
            "nothing": pl.Series([None] * count, dtype=pl.Float64),
            "prediction": random.normal(size=count),
            "target": [None] * (count // 2) + random.normal(size=count - count // 2).tolist(),
        }
    )


def test_columns_that_evidently_would_abort_on_are_left_out(tmp_path: Path):
    page = write_drift_page(
        rows(3_000, 0),
        rows(3_000, 1).drop("speed"),
        tmp_path / "page.html",
        columns=["speed", "zone", "nothing", "prediction"],
        categorical=["zone"],
        regression=True,
    )
    assert page is not None
    text = page.read_text()
    assert "zone" in text
    assert "nothing" not in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html"]


def test_there_is_no_page_without_anything_to_draw(tmp_path: Path):
    empty = rows(100, 0).clear()
    assert write_drift_page(rows(100, 0), empty, tmp_path / "page.html", columns=["speed", "zone"]) is None
    assert list(tmp_path.iterdir()) == []


def test_the_module_loads_neither_evidently_nor_pandas():
    code = "import sys, ferroflow.adapters.report as r; print([m for m in ('evidently', 'pandas') if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
