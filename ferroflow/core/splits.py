"""Who trains, validates and tests: by time in the source's wall clock, by an official column, or drawn by a hash."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

import polars as pl

from ferroflow.core.durations import duration
from ferroflow.core.errors import DataError, SpecError
from ferroflow.core.spec import ByColumn, ByTime, Holdout, Retrain

Part = Literal["train", "validation", "test"]
Window = tuple[datetime | None, datetime]

PARTS: tuple[Part, ...] = ("train", "validation", "test")
WEIGHT = "weight"


def retrain_protocol(retrain: Retrain, split: ByTime | ByColumn | Holdout | None = None) -> ByTime | ByColumn | Holdout:
    """The protocol of a retraining; a pipeline that is not split by time has no clock and keeps its own split."""
    if isinstance(split, ByColumn | Holdout):
        return split
    return ByTime(
        train=retrain.window,
        validation=retrain.validation,
        test=retrain.holdout,
        validation_share=retrain.validation_share,
    )


def before(moment: datetime, text: str, timezone: str) -> datetime:
    """A moment (UTC) earlier by a duration; whole days are taken off the wall clock, so midnight stays midnight."""
    span = duration(text)
    if span % timedelta(days=1):
        return moment - span
    return (moment.astimezone(ZoneInfo(timezone)) - span).astimezone(UTC)


def windows(protocol: ByTime, as_of: datetime, timezone: str) -> dict[Part, Window]:
    """The half-open windows ``[start, end)`` in UTC; a training window without ``train`` has no start."""
    test = before(as_of, protocol.test, timezone)
    validation = before(test, protocol.validation, timezone)
    start = None if protocol.train is None else before(validation, protocol.train, timezone)
    return {"train": (start, validation), "validation": (validation, test), "test": (test, as_of)}


def by_time(rows: pl.LazyFrame, time: str, found: dict[Part, Window]) -> dict[Part, pl.LazyFrame]:
    """The rows of each window, by their event time."""
    return {part: rows.filter(_inside(pl.col(time), window)) for part, window in found.items()}


def lend(parts: dict[Part, pl.DataFrame], share: float, seed: int = 0) -> dict[Part, pl.DataFrame]:
    """Keep a share of the validation rows, by a hash of ``row_id``; the others join the training rows."""
    validation = parts["validation"]
    kept = pl.Series([_share(row_id, seed) < share for row_id in validation["row_id"]], dtype=pl.Boolean)
    train = pl.concat([parts["train"], validation.filter(~kept)])
    return {**parts, "train": train, "validation": validation.filter(kept)}


def by_column(rows: pl.DataFrame, protocol: ByColumn, seed: int = 0) -> dict[Part, pl.DataFrame]:
    """The official test rows, and the others by a hash of ``row_id``: the same row is always on the same side."""
    official = pl.col(protocol.column).cast(pl.String) == protocol.test
    official_test = rows.filter(official.fill_null(False))
    others = rows.filter(~official.fill_null(False))
    drawn = pl.Series([_share(row_id, seed) < protocol.validation for row_id in others["row_id"]], dtype=pl.Boolean)
    return {"train": others.filter(~drawn), "validation": others.filter(drawn), "test": official_test}


def by_hash(rows: pl.DataFrame, protocol: Holdout, seed: int = 0) -> dict[Part, pl.DataFrame]:
    """Shares of the rows by a hash of ``row_id``: the same row is always on the same side."""
    drawn = pl.Series([_share(row_id, seed) for row_id in rows["row_id"]], dtype=pl.Float64)
    test, judged = drawn < protocol.test, drawn < protocol.test + protocol.validation
    return {"train": rows.filter(~judged), "validation": rows.filter(judged & ~test), "test": rows.filter(test)}


def weigh(rows: pl.DataFrame, time: str, end: datetime, half_life: str) -> pl.DataFrame:
    """Add ``weight`` = 0.5 ** (age / half-life), the age counted from ``end`` of the training window."""
    age = (pl.lit(end).dt.cast_time_unit("us") - pl.col(time)).dt.total_microseconds()
    halves = age / (duration(half_life) / timedelta(microseconds=1))
    return rows.with_columns(pl.lit(0.5).pow(halves).cast(pl.Float64).alias(WEIGHT))


def check_time(pipeline: str, time: str | None) -> str:
    """The time column.

    Raises:
        SpecError: there is none, so nothing can be split or weighted by time.
    """
    if time is None:
        raise SpecError(
            f"Pipeline {pipeline!r} is to be split or weighted by time, but its source names no time column. "
            "Set Source(time=...), or use Holdout(...) or ByColumn(...) without a half-life."
        )
    return time


def check_filled(pipeline: str, counts: dict[Part, int], asked: dict[Part, str], have: str) -> None:
    """Every part needs rows.

    Args:
        asked: what was looked for in each part, in words.
        have: what the table holds, in words.

    Raises:
        DataError: a part is empty.
    """
    for part in PARTS:
        if counts[part] == 0:
            raise DataError(
                f"Pipeline {pipeline!r} has no row to {_PURPOSE[part]}: none with {asked[part]}. "
                f"The table holds {have}. Choose another --as-of, ingest more files, or change split= in its spec.py."
            )


_PURPOSE: dict[Part, str] = {"train": "train on", "validation": "validate on", "test": "test on"}


def _inside(time: pl.Expr, window: Window) -> pl.Expr:
    start, end = window
    ended = time < pl.lit(end)
    return ended if start is None else ended & (time >= pl.lit(start))


def _share(row_id: str, seed: int) -> float:
    digest = hashlib.blake2b(row_id.encode(), digest_size=8, key=seed.to_bytes(8, "big")).digest()
    return int.from_bytes(digest, "big") / 2**64
