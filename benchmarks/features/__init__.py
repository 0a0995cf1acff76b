"""The feature store's engine against Feast's own stores, against DuckDB, and against what Polars does by hand.

Every figure is a fresh process's own: seconds by the clock and of the CPU without imports, peak of resident memory. A
way's result is hashed or compared in the same run; a ratio is told only between results that are equal.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

PARTS = {
    "join": "benchmarks.features.join",
    "materialize": "benchmarks.features.materialize",
    "reads": "benchmarks.features.reads",
    "size": "benchmarks.features.size",
}
"""Part -> module with ``measure(rounds) -> figures``, of which ``passed`` says whether its limits hold."""


def measure(*, pipeline: str | None = None, rounds: int = 2, part: str | None = None) -> dict[str, Any]:
    """Measure one part, or all of them one after the other."""
    figures: dict[str, Any] = {}
    for name in [part] if part else PARTS:
        print(f"features: {name} ...", file=sys.stderr, flush=True)
        figures[name] = importlib.import_module(PARTS[name]).measure(rounds)
    return figures | {"passed": all(found["passed"] for found in figures.values())}
