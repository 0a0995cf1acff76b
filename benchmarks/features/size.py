"""The point-in-time join's cost against its size: as many entity rows as stored rows, one view of ten features.

Up to five million rows the whole result is compared with what Polars gives by hand, which takes too much memory beyond.
There the rows of some entities are compared, and over all rows how many values are null. Memory that was freed is kept
by the process, at every size: what is measured is the join, and not how fast a kernel clears pages.
"""

from __future__ import annotations

import hashlib
import math
import statistics
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.features import join
from benchmarks.features.apart import Stopwatch, apart

if TYPE_CHECKING:
    import polars as pl

SIZES = (100_000, 1_000_000, 5_000_000, 20_000_000)
TOLERANCE = 1.3
LARGEST_MB = 12_000
WHOLE = 5_000_000
"""Rows up to which the whole result is compared."""
SAMPLE = 50
"""Beyond, one entity in so many is compared."""

FILLED = 0.05
"""Share of the values that must not be null: the smallest table has one row an entity, most of them expired."""

_SMALL = 1_000_000
_AT_LEAST = 3
_PARTS = 5
_SLICE = 100_000
_HERE = "benchmarks.features.size"
_KEPT = {"_RJEM_MALLOC_CONF": "dirty_decay_ms:-1,muzzy_decay_ms:-1,thp:always"}
"""The allocator of Polars keeps what it freed: on a virtual machine the kernel's clearing of pages that are given back
and taken again was half of the time at 20 million rows, and grew faster than all else."""
_HASHED = ("nulls", "values")
_FIGURES = ("rows", "wall_s", "cpu_s", "peak_mb")


def measure(rounds: int = 2, sizes: Sequence[int] = SIZES, whole: int = WHOLE) -> dict[str, Any]:
    """A row a size: medians of the seconds by the clock and of the CPU and of the peak of memory; the limits; equality.

    From a size to the next, either time may grow with n log n, and what memory is taken beyond the smallest size's
    (which is that of the libraries) in proportion, each with a tolerance of 1.3.
    """
    table = [_measured(size, max(rounds, _AT_LEAST) if size <= _SMALL else rounds, size <= whole) for size in sizes]
    pairs = list(pairwise(table))
    base = table[0]["peak_mb"]
    time = {
        name: [round(late[name] / early[name] / _work(early["rows"], late["rows"]), 2) for early, late in pairs]
        for name in ("wall_s", "cpu_s")
    }
    memory = [
        round((late["peak_mb"] - base) / ((early["peak_mb"] - base) * late["rows"] / early["rows"]), 2)
        for early, late in pairs[1:]
    ]
    equal = all(row["equal"] for row in table)
    grown = max([*time["wall_s"], *time["cpu_s"], *memory], default=0.0)
    passed = equal and grown <= TOLERANCE and table[-1]["peak_mb"] < LARGEST_MB
    return {
        "sizes": table,
        "time_against_n_log_n": time,
        "memory_against_proportion": memory,
        "equal": equal,
        "passed": passed,
    }


def _measured(size: int, rounds: int, whole: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        join.write(Path(folder), size, ["a"])
        given: dict[str, Any] = {"folder": folder, "rows": size, "whole": whole}
        runs = [apart(f"{_HERE}:ours", _KEPT, **given) for _ in range(rounds)]
        plain = apart(f"{_HERE}:plain", _KEPT, **given)
    told = [run["told"] for run in runs]
    nulls = told[0]["nulls"] / told[0]["values"]
    figures = {name: round(statistics.median(run[name] for run in runs), 3) for name in _FIGURES}
    compared = {"rounds": rounds, "rows_compared": told[0]["compared"], "nulls": round(nulls, 4)}
    equal = all(one == plain["told"] for one in told) and told[0]["compared"] > 0 and nulls < 1 - FILLED
    return figures | compared | {"equal": equal}


def _work(early: int, late: int) -> float:
    """How much more n log n is."""
    return late * math.log(late) / (early * math.log(early))


def ours(watch: Stopwatch, folder: str, rows: int, whole: bool) -> dict[str, Any]:
    """The store, through Feast; and what its result is told from, slice by slice: that takes next to no memory."""
    asked = join._entities(folder, rows)
    store = join._feast(Path(folder), "ours", ["a"])
    with watch.running():
        table = store.get_historical_features(asked, join._features(["a"])).to_polars()
    digest = _Digest()
    nulls = 0
    for part in table.iter_slices(_SLICE):
        digest.add(part if whole else part.filter(part["entity_id"] % SAMPLE == 0))
        nulls += _nulls(part)
    return {"rows": table.height, "told": digest.told() | {"nulls": nulls, "values": table.height * len(_columns())}}


def plain(watch: Stopwatch, folder: str, rows: int, whole: bool) -> dict[str, Any]:
    """By hand: all of it, or some entities' rows, and the nulls by a part of the entities after another."""
    import polars as pl

    digest, key = _Digest(), pl.col("entity_id")
    if whole:
        table = _by_hand(folder, rows, pl.lit(True))
        digest.add(table)
        nulls = _nulls(table)
    else:
        digest.add(_by_hand(folder, rows, key % SAMPLE == 0))
        nulls = sum(_nulls(_by_hand(folder, rows, key % _PARTS == part)) for part in range(_PARTS))
    return {"rows": rows, "told": digest.told() | {"nulls": nulls, "values": rows * len(_columns())}}


def _by_hand(folder: str, rows: int, chosen: pl.Expr) -> pl.DataFrame:
    import polars as pl

    stored = pl.scan_parquet(Path(folder) / "a.parquet").filter(chosen)
    stored = stored.sort("event_timestamp", "created").drop("created")
    asked = pl.scan_parquet(Path(folder) / "entities.parquet", n_rows=rows).with_row_index("row").filter(chosen)
    joined = asked.sort("event_timestamp").join_asof(
        stored, on="event_timestamp", by="entity_id", tolerance=join.TTL, check_sortedness=False
    )
    return joined.sort("row").drop("row").collect()


def _columns() -> list[str]:
    return join._columns("a")


def _nulls(table: pl.DataFrame) -> int:
    return sum(table[name].null_count() for name in _columns())


class _Digest:
    """Every value and null of a table, in order, however it comes in parts: two hashes a column."""

    def __init__(self) -> None:
        self._rows = 0
        self._columns: dict[str, Any] = {}

    def add(self, table: pl.DataFrame) -> None:
        """Take in rows."""
        self._rows += table.height
        for column in table.get_columns():
            empty, given = (self._columns.setdefault(f"{column.name} {of}", hashlib.sha256()) for of in _HASHED)
            for part in (column.slice(first, _SLICE) for first in range(0, len(column), _SLICE)):
                values = part.to_physical()
                empty.update(values.is_null().to_numpy().tobytes())
                given.update(values.fill_null(0).to_numpy().tobytes())

    def told(self) -> dict[str, Any]:
        """The hash of all of them, and of how many rows."""
        lines = "".join(f"{name}:{hashed.hexdigest()}" for name, hashed in sorted(self._columns.items()))
        return {"digest": hashlib.sha256(lines.encode()).hexdigest(), "compared": self._rows}
