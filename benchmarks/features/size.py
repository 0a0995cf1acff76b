"""The point-in-time join's cost against its size: as many entity rows as stored rows, one view of ten features."""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.features import join
from benchmarks.features.apart import apart

SIZES = (100_000, 1_000_000, 5_000_000, 20_000_000)
TOLERANCE = 1.3
LARGEST_MB = 12_000
_SMALL = 1_000_000


def measure(rounds: int = 2, sizes: Sequence[int] = SIZES) -> dict[str, Any]:
    """A row a size: seconds by the clock and of the CPU, peak of memory; and whether growth stays within its limits.

    From a size to the next, time may grow with n log n, and what memory is taken beyond the smallest size's (which is
    that of the libraries) in proportion, each with a tolerance of 1.3.
    """
    table = [_measured(size, rounds if size <= _SMALL else 1) for size in sizes]
    pairs = list(pairwise(table))
    base = table[0]["peak_mb"]
    time = [round(late["wall_s"] / early["wall_s"] / _work(early["rows"], late["rows"]), 2) for early, late in pairs]
    memory = [
        round((late["peak_mb"] - base) / ((early["peak_mb"] - base) * late["rows"] / early["rows"]), 2)
        for early, late in pairs[1:]
    ]
    largest = table[-1]["peak_mb"]
    passed = max(time) <= TOLERANCE and max(memory, default=0) <= TOLERANCE and largest < LARGEST_MB
    return {"sizes": table, "time_against_n_log_n": time, "memory_against_proportion": memory, "passed": passed}


def _measured(size: int, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        join.write(Path(folder), size, ["a"])
        runs = [
            apart("benchmarks.features.join:ours", folder=folder, views=["a"], rows=size, result=False)
            for _ in range(rounds)
        ]
    return {name: round(statistics.median(run[name] for run in runs), 3) for name in runs[0]}


def _work(early: int, late: int) -> float:
    """How much more n log n is."""
    return late * math.log(late) / (early * math.log(early))
