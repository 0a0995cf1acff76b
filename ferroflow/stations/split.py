"""Split a feature table into three files; from here on nobody else decides who trains, validates and tests."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl

from ferroflow.adapters.home import Home
from ferroflow.adapters.storage import atomic_parquet, read_record, write_record
from ferroflow.core.fingerprint import fingerprint
from ferroflow.core.records import FeatureTable, Split
from ferroflow.core.spec import ByColumn, ByTime, Holdout, PipelineSpec
from ferroflow.core.splits import (
    PARTS,
    Part,
    Window,
    by_column,
    by_hash,
    by_time,
    check_filled,
    check_time,
    lend,
    weigh,
    windows,
)


def split(
    spec: PipelineSpec,
    table: FeatureTable,
    home: Home,
    *,
    protocol: ByTime | ByColumn | Holdout | None = None,
    half_life: str | None = None,
) -> Split:
    """Write train, validation and test rows of a table by the spec's protocol, or by another.

    Raises:
        DataError: a part would be empty.
        SpecError: by time, or weighted by age, without a time column.
    """
    chosen = protocol or spec.split
    as_of = table.as_of if spec.timed else None  # without a time the moment decides nothing
    seed = spec.tuning.seed
    name = fingerprint(table.fingerprint, as_of, repr(chosen), half_life, spec.source.timezone, seed)
    folder = home.data(spec.name) / "splits" / name
    done = read_record(folder / "manifest.json", Split)
    if done is not None:
        return done
    path = home.absolute(table.path)
    if isinstance(chosen, ByTime):
        parts, boundaries = _by_time(spec, path, chosen, table.as_of, half_life)
    elif isinstance(chosen, ByColumn):
        parts, boundaries = _by_column(spec, path, chosen, half_life)
    else:
        parts, boundaries = _by_hash(spec, path, chosen, half_life)
    return _write(spec, table, home, folder, parts, boundaries, half_life is not None)


def _write(
    spec: PipelineSpec,
    table: FeatureTable,
    home: Home,
    folder: Path,
    parts: dict[Part, pl.DataFrame],
    boundaries: dict[str, str],
    weighted: bool,
) -> Split:
    for part, rows in parts.items():
        atomic_parquet(folder / f"{part}.parquet", rows)
    record = Split(
        pipeline=spec.name,
        fingerprint=folder.name,
        parent=table.fingerprint,
        as_of=table.as_of,
        paths={part: home.relative(folder / f"{part}.parquet") for part in PARTS},
        rows={part: parts[part].height for part in PARTS},
        boundaries=boundaries,
        numeric=table.numeric,
        categorical=table.categorical,
        target=table.target,
        time=table.time,
        slices=table.slices,
        weighted=weighted,
    )
    write_record(folder / "manifest.json", record)
    return record


def _by_time(
    spec: PipelineSpec, path: Path, protocol: ByTime, as_of: datetime, half_life: str | None
) -> tuple[dict[Part, pl.DataFrame], dict[str, str]]:
    time = check_time(spec.name, spec.time)
    found = windows(protocol, as_of, spec.source.timezone)
    rows = pl.scan_parquet(path)
    lazy = by_time(rows, time, found)
    parts = dict(zip(PARTS, pl.collect_all([lazy[part] for part in PARTS]), strict=True))
    if protocol.validation_share < 1:
        parts = lend(parts, protocol.validation_share, spec.tuning.seed)
    asked = {part: f"{time} in {_words(found[part], spec.source.timezone)}" for part in PARTS}
    check_filled(spec.name, {part: parts[part].height for part in PARTS}, asked, _span(rows, time))
    if half_life is not None:
        youngest = found["train" if protocol.validation_share == 1 else "validation"][1]
        parts["train"] = weigh(parts["train"], time, youngest, half_life)
    boundaries = {f"{part}_until": window[1].isoformat() for part, window in found.items()}
    start = found["train"][0]
    return parts, boundaries if start is None else {"train_from": start.isoformat(), **boundaries}


def _by_column(
    spec: PipelineSpec, path: Path, protocol: ByColumn, half_life: str | None
) -> tuple[dict[Part, pl.DataFrame], dict[str, str]]:
    if half_life is not None:
        check_time(spec.name, None)
    rows = pl.read_parquet(path)
    parts = by_column(rows, protocol, spec.tuning.seed)
    others = f"{protocol.column} other than {protocol.test!r}"
    asked: dict[Part, str] = {
        "train": others,
        "validation": f"{others} (a share of {protocol.validation:g})",
        "test": f"{protocol.column} = {protocol.test!r}",
    }
    check_filled(spec.name, {part: parts[part].height for part in PARTS}, asked, f"{rows.height:,} rows")
    return parts, {
        "test": f"{protocol.column} = {protocol.test}",
        "validation": f"{protocol.validation:g} of the others",
    }


def _by_hash(
    spec: PipelineSpec, path: Path, protocol: Holdout, half_life: str | None
) -> tuple[dict[Part, pl.DataFrame], dict[str, str]]:
    if half_life is not None:
        check_time(spec.name, None)
    rows = pl.read_parquet(path)
    parts = by_hash(rows, protocol, spec.tuning.seed)
    boundaries = {"test": f"{protocol.test:g} of the rows", "validation": f"{protocol.validation:g} of the rows"}
    asked: dict[Part, str] = {
        "train": "a place outside both shares",
        "validation": f"a place in the share of {protocol.validation:g}",
        "test": f"a place in the share of {protocol.test:g}",
    }
    check_filled(spec.name, {part: parts[part].height for part in PARTS}, asked, f"{rows.height:,} rows")
    return parts, boundaries


def _words(window: Window, timezone: str) -> str:
    zone = ZoneInfo(timezone)
    start, end = (None if moment is None else f"{moment.astimezone(zone):%Y-%m-%d %H:%M}" for moment in window)
    return f"[{start or 'ever'}, {end}) ({timezone})"


def _span(rows: pl.LazyFrame, time: str) -> str:
    count, first, last = (
        rows.select(pl.len(), pl.col(time).min().alias("a"), pl.col(time).max().alias("b")).collect().row(0)
    )
    return (
        f"{count:,} rows"
        if first is None
        else f"{count:,} rows from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"
    )
