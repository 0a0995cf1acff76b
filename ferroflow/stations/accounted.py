"""The two files that a part's rows go to, written as streams and counted: every row is in one of them, once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from ferroflow.adapters.storage import replacing
from ferroflow.core.errors import RowsLost
from ferroflow.core.records import Part

_ROW_GROUP = 122_880


@contextmanager
def writing(folder: Path, part: Part) -> Iterator[tuple[Path, Path]]:
    """Give two temporary files, accepted and quarantined; put into their places at the end.

    Raises:
        RowsLost: not every row of the part is in one of them, once.
    """
    with replacing(folder / "accepted.parquet") as accepted, replacing(folder / "quarantined.parquet") as quarantined:
        yield accepted, quarantined
        _account(accepted, quarantined, part)


def sink(rows: pl.LazyFrame, path: Path) -> pl.LazyFrame:
    """The writing of a Parquet file, as the last step of a stream."""
    return rows.sink_parquet(
        path, compression="zstd", compression_level=3, row_group_size=_ROW_GROUP, maintain_order=True, lazy=True
    )


def _account(accepted: Path, quarantined: Path, part: Part) -> None:
    """Make sure that each raw row is in one of the files, once, in its order; sort a file that ``derive`` reordered."""
    import numpy as np

    seen = np.zeros(0, dtype=np.bool_)
    found = 0
    for path in (accepted, quarantined):
        rows = _numbers(path, part)
        if rows.size and not bool((rows[1:] > rows[:-1]).all()):
            _sort(path, part)
            rows = np.sort(rows)
        seen = np.concatenate([seen, np.zeros(max(0, int(rows[-1]) + 1 - seen.size), np.bool_)]) if rows.size else seen
        seen[rows] = True
        found += rows.size
    if not found == part.rows == int(seen.sum()):
        raise RowsLost(
            f"{part.file}: {part.rows} rows came in, {found} went out, {int(seen.sum())} of them different ones. "
            f"Nothing was kept; this is a bug of ours."
        )


def _number(part: Part) -> pl.Expr:
    return pl.col("row_id").str.strip_prefix(f"{part.fingerprint}:").cast(pl.UInt32)


def _numbers(path: Path, part: Part) -> Any:
    return pl.scan_parquet(path).select(_number(part)).collect(engine="streaming").to_series().to_numpy()


def _sort(path: Path, part: Part) -> None:
    with replacing(path) as temporary:
        sink(pl.scan_parquet(path).sort(_number(part)), temporary).collect(engine="streaming")


def height(path: Path) -> int:
    """The number of rows of a Parquet file."""
    rows: int = pl.scan_parquet(path).select(pl.len()).collect().item()
    return rows
