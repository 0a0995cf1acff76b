"""Seeded tables: stored rows of a view, and the entity rows that ask for them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

START = datetime(2024, 1, 1, tzinfo=UTC)
DAYS = 60
ENTITIES = 100_000
FEATURES = 10
_CHUNK = 1_000_000


def write_view(path: Path, rows: int, seed: int, *, entities: int = ENTITIES, prefix: str = "f") -> None:
    """Write one Parquet file: ``entity_id``, ``event_timestamp``, ``created``, ten Float64 columns ``f0`` to ``f9``.

    Rows are in no order; one value in fifty is null, one row in a hundred shares key and time with another one.
    """
    import pyarrow.parquet as pq

    writer = None
    for first in range(0, rows, _CHUNK):
        table = _stored(first, min(_CHUNK, rows - first), seed, entities, prefix).to_arrow()
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def entity_rows(rows: int, seed: int, *, entities: int = ENTITIES) -> pl.DataFrame:
    """``rows`` rows with ``entity_id``, ``event_timestamp`` (UTC) and ``label``, in no order."""
    import numpy as np
    import polars as pl

    dice = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "entity_id": dice.integers(0, entities, rows),
            "event_timestamp": _moments(dice.integers(0, DAYS * 86_400, rows)),
            "label": dice.normal(size=rows),
        }
    )


def _stored(first: int, rows: int, seed: int, entities: int, prefix: str) -> pl.DataFrame:
    import numpy as np
    import polars as pl

    dice = np.random.default_rng([seed, first])
    keys, seconds = dice.integers(0, entities, rows), dice.integers(0, DAYS * 86_400, rows)
    twice = rows // 100
    if twice:  # corrections: the same key and time, created later
        keys[:twice], seconds[:twice] = keys[-twice:], seconds[-twice:]
    # Every row is created at a moment of its own: ties would be anybody's choice.
    delay = dice.permutation(rows) + first + 1
    columns = {"entity_id": keys, "event_timestamp": _moments(seconds), "created": _moments(seconds, delay)}
    for number in range(FEATURES):
        columns[f"{prefix}{number}"] = pl.Series(dice.normal(size=rows)).set(pl.Series(dice.random(rows) < 0.02), None)
    return pl.DataFrame(columns)


def _moments(seconds: object, milliseconds: object = 0) -> pl.Series:
    import polars as pl

    start = int(START.timestamp()) * 1_000_000
    return pl.Series(seconds * 1_000_000 + milliseconds * 1_000 + start).cast(pl.Datetime("us", "UTC"))  # type: ignore[operator]
