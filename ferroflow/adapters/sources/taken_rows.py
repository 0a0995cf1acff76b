"""Which rows were taken before: by a 128-bit hash of the whole row, as often as it was taken.

A row is hashed as text, by column names, without its nulls: a column that becomes wider, moves, or is added empty makes
no row a new one. Hashes are compared within one run only, so Polars may change its hash function.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime

import polars as pl

from ferroflow.adapters.home import Home
from ferroflow.adapters.sources.watermarks import Mark, read
from ferroflow.core.records import Part
from ferroflow.core.validation import PROBLEM, ROW

_HASHES = ("first", "second")


class TakenRows:
    """Rows of earlier batches, each to be left out as often as it is there: ``new`` gives the others."""

    def __init__(self, counted: pl.DataFrame) -> None:
        self._left = counted

    def new(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The rows of ``frame`` that were not taken before; two equal rows are two rows."""
        if self._left.is_empty() or frame.is_empty():
            return frame
        hashes = frame.select(row_hashes(frame.schema))
        place = pl.int_range(pl.len()).over(_HASHES).alias("place")
        known = hashes.with_columns(place).join(self._left, on=_HASHES, how="left", maintain_order="left")
        seen = hashes.group_by(_HASHES).agg(pl.len().cast(pl.Int64).alias("seen"))
        left = pl.col("rows") - pl.col("seen").fill_null(0)
        rest = self._left.join(seen, on=_HASHES, how="left").select(*_HASHES, left.alias("rows"))
        self._left = rest.filter(pl.col("rows") > 0)
        return frame.filter(known.select(pl.col("place") >= pl.col("rows").fill_null(0)).to_series())


def rows_taken(parts: Iterable[Part], home: Home, since: str, lower: Mark, *, nulls: bool) -> TakenRows:
    """The rows of earlier batches from ``lower`` on; with ``nulls`` also those without a value in ``since``.

    Only their hashes are held: 24 bytes a row of the window.
    """
    found = [pl.DataFrame(schema={"first": pl.UInt64, "second": pl.UInt64, "rows": pl.Int64})]
    for part in parts:
        if nulls or not part.upto or read(part.upto, lower) >= lower:  # type: ignore[operator]
            found.append(_counted(home.absolute(part.path).as_posix(), since, lower))
    return TakenRows(pl.concat(found).group_by(_HASHES).agg(pl.col("rows").sum()))


def same_rows(one: Part, other: Part, home: Home) -> bool:
    """Whether two parts hold the same rows, in whatever order."""
    if (one.rows, one.columns) != (other.rows, other.columns):
        return False
    sums = [
        pl.scan_parquet(home.absolute(part.path))
        .select(row_hashes(pl.Schema(pl.read_parquet_schema(home.absolute(part.path)))))
        .select(pl.all().sum())
        .collect(engine="streaming")
        for part in (one, other)
    ]
    return sums[0].equals(sums[1])


def row_hashes(schema: pl.Schema) -> list[pl.Expr]:
    """Two 64-bit hashes of a row, ``first`` and ``second``."""
    cells = []
    for name in sorted(set(schema) - {ROW}):
        column = pl.col(name)
        text = column.bin.encode("hex") if schema[name] == pl.Binary else column.cast(pl.String)
        if schema[name].is_float():
            text = text.str.strip_suffix(".0")  # a column of whole numbers that got its first fraction
        # The lengths keep ("ab", "c") and ("a", "bc") apart; a null cell makes its whole piece null, and left out.
        cells.append(pl.concat_str(pl.lit(f"{len(name)}:{name}"), text.str.len_bytes(), pl.lit(":"), text))
    whole = pl.concat_str(cells, ignore_nulls=True)
    return [whole.hash(seed).alias(name) for seed, name in enumerate(_HASHES, 1)]


def _counted(path: str, since: str, lower: Mark) -> pl.DataFrame:
    rows = pl.scan_parquet(path)
    schema = pl.Schema(pl.read_parquet_schema(path))
    # Equal rows have equal values in ``since``: rows below are left out only to save memory.
    if _comparable(schema[since], lower):
        wanted = (pl.col(since) >= lower) | pl.col(since).is_null()
        rows = rows.filter(wanted | pl.col(PROBLEM).is_not_null() if PROBLEM in schema else wanted)
    counted = rows.select(row_hashes(schema)).group_by(_HASHES).agg(pl.len().cast(pl.Int64).alias("rows"))
    return counted.collect(engine="streaming")


def _comparable(dtype: pl.DataType, lower: Mark) -> bool:
    """Whether Polars compares the column with the mark as the database does."""
    if isinstance(lower, datetime):
        return isinstance(dtype, pl.Datetime) and (dtype.time_zone is None) == (lower.tzinfo is None)
    if isinstance(lower, date):
        return dtype == pl.Date
    if isinstance(lower, str):
        return dtype == pl.String
    return dtype == pl.Float64 if isinstance(lower, float) else dtype.is_integer()
