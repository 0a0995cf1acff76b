"""Retention of refused rows: the raw values of old ones are removed for good; that they came, and why not in, stays.

Only rows that no verdict kept here accepted are touched, so whatever a model was trained on can be made again. Each
part goes step by step: its new file, its record, the snapshots that name it, the quarantine files, and last of all the
old file is removed. Whatever step a kill comes after, everything that is named is there, and the next prune goes on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from ferroflow.adapters import corrections
from ferroflow.adapters.corrections import EXPIRED
from ferroflow.adapters.home import Home
from ferroflow.adapters.locks import locked
from ferroflow.adapters.sources.messages import MESSAGE_ID
from ferroflow.adapters.storage import atomic_bytes, atomic_parquet, is_whole, read_record, write_record
from ferroflow.core.columns import LINE, PROBLEM, RESERVED, ROW
from ferroflow.core.errors import UnreadableFile
from ferroflow.core.fingerprint import file_digest, fingerprint
from ferroflow.core.records import Part, Snapshot, Unreadable
from ferroflow.stations import versions
from ferroflow.stations.checked import CheckedPart, rewrite_quarantined, whole

MARK = ".expired"
"""Ending of the empty file that stands in for an unreadable file whose bytes were removed."""


@dataclass(frozen=True)
class Expired:
    """What was removed for good (or would be)."""

    rows: dict[str, int]  # file -> refused rows whose raw values go
    unreadable: tuple[str, ...]  # files that made no table, whose bytes go


def expire(pipeline: str, home: Home, *, older_than: timedelta, now: datetime, dry_run: bool) -> Expired:
    """Remove the raw values of refused rows that were ingested longer ago, and the bytes of unreadable files.

    The source's own files, and what was downloaded of them, are not ours to change: they are left alone. So is the last
    batch of a table or stream, until another one follows.

    Raises:
        UnreadableFile: a raw part, or a file of verdicts about it, is missing or damaged: nothing is removed from it.
        DataError: a correction is missing or damaged.
    """
    limit = now - older_than
    if dry_run:
        return _expire(pipeline, home, limit, dry_run=True)
    with locked(home.data(pipeline) / "expiry"):
        return _expire(pipeline, home, limit, dry_run=False)


def _expire(pipeline: str, home: Home, limit: datetime, *, dry_run: bool) -> Expired:
    folders = list(_folders(home, pipeline))
    rows: dict[str, int] = {}
    batches = _batches(home, pipeline)
    for part in _parts(home, pipeline):
        own = [(folder, known) for folder, known in folders if known.part == part.fingerprint]
        old = part.ingested_at < limit and not _is_last(batches.get(part.fingerprint))
        doomed = _doomed(home, part, own) if old else []
        if doomed:
            rows[part.file] = rows.get(part.file, 0) + len(doomed)
        if not dry_run:
            now_part = _emptied(home, pipeline, part, doomed) if doomed else part
            _settled(home, pipeline, now_part, own, batches.get(part.fingerprint))
    files = [file for file in _unreadable(home, pipeline) if file.seen_at < limit]
    if not dry_run:
        for file in files:
            path = home.absolute(file.path)
            atomic_bytes(path.with_name(path.name + MARK), b"")
            path.unlink(missing_ok=True)
    return Expired(rows, tuple(file.file for file in files))


# ------------------------------------------------------------------------------------------------------- what there is


def _parts(home: Home, pipeline: str) -> Iterator[Part]:
    for path in sorted((home.data(pipeline) / "parts").glob("[!.]*.json")):
        part = read_record(path, Part)
        if part is not None:
            yield part


def _batches(home: Home, pipeline: str) -> dict[str, Path]:
    """Part -> its second record, where it is a batch of a table or stream."""
    paths = (home.data(pipeline) / "batches").glob("*/[!.]*.json")
    return {part.fingerprint: path for path in paths if (part := read_record(path, Part)) is not None}


def _is_last(batch: Path | None) -> bool:
    """Whether it is the last batch of a table or stream: by its raw values the next run knows what it took already."""
    return batch is not None and batch == max(batch.parent.glob("[!.]*.json"))


def _folders(home: Home, pipeline: str) -> Iterator[tuple[Path, CheckedPart]]:
    for path in sorted((home.data(pipeline) / "validated").glob("[!.]*/manifest.json")):
        known = read_record(path, CheckedPart)
        if known is not None:
            yield path.parent, known


def _unreadable(home: Home, pipeline: str) -> list[Unreadable]:
    """Unreadable files whose bytes are still there, each once."""
    listed = [file for kept in versions.history(pipeline, home) for file in kept.snapshot.unreadable]
    found = {file.sha256: file for file in listed}
    return [file for file in found.values() if home.absolute(file.path).is_file()]


def _doomed(home: Home, part: Part, folders: list[tuple[Path, CheckedPart]]) -> list[int]:
    """Rows that were refused by every verdict that is kept, and have not expired yet."""
    for folder, _ in folders:
        if whole(folder, part) is None:
            raise UnreadableFile(
                f"{folder} (verdicts on {part.file}) is damaged: who was accepted cannot be told. Validate again "
                f"(ferroflow quarantine replay), or remove that folder; then prune."
            )
    if not folders:
        return []
    refused, accepted = (
        pl.scan_parquet([folder / f"{name}.parquet" for folder, _ in folders]).select("row_id").unique()
        for name in ("quarantined", "accepted")
    )
    number = pl.col("row_id").str.strip_prefix(f"{part.fingerprint}:").cast(pl.UInt32)
    rows = refused.join(accepted, on="row_id", how="anti").select(number).collect(engine="streaming").to_series()
    return sorted(set(rows) - _expired(home, part)) if rows.len() else []


def _expired(home: Home, part: Part) -> set[int]:
    path = home.absolute(part.path)
    if not is_whole(path, part.digest):
        raise UnreadableFile(f"{path} ({part.file}) is missing or damaged. Ingest again: it is made anew.")
    raw = pl.scan_parquet(path)
    if PROBLEM not in raw.collect_schema():
        return set()
    return set(raw.filter(pl.col(PROBLEM) == EXPIRED).select(ROW).collect().to_series())


# ------------------------------------------------------------------------------------------------------------ removing


def _emptied(home: Home, pipeline: str, part: Part, rows: list[int]) -> Part:
    """The part without the raw values of these rows, in a file of its own; the record names it from then on."""
    old = home.absolute(part.path)
    path = home.data(pipeline) / "parts" / f"{part.fingerprint}.{fingerprint(part.digest, rows)}.parquet"
    raw = pl.scan_parquet(old)
    schema = raw.collect_schema()
    gone = pl.col(ROW).is_in(rows)
    names = [name for name in schema.names() if name not in (*RESERVED, MESSAGE_ID)]
    kept = [name for name in (ROW, MESSAGE_ID) if name in schema]  # a message's id tells that it was taken
    cells = [pl.when(gone).then(None).otherwise(pl.col(name)).alias(name) for name in names]
    problem = pl.col(PROBLEM) if PROBLEM in schema else pl.lit(None, pl.String)
    line = pl.col(LINE) if LINE in schema else pl.lit(None, pl.String)
    told = [
        pl.when(gone).then(pl.lit(EXPIRED)).otherwise(problem).alias(PROBLEM),
        pl.when(gone).then(None).otherwise(line).alias(LINE),
    ]
    atomic_parquet(path, raw.select(*kept, *cells, *told))
    emptied = part.model_copy(update={"path": home.relative(path), "digest": file_digest(path)})
    write_record(path.with_name(f"{part.fingerprint}.json"), emptied)
    return emptied


def _settled(
    home: Home, pipeline: str, part: Part, folders: list[tuple[Path, CheckedPart]], batch: Path | None
) -> None:
    """Bring everything that knows the part to its present file, then remove the older ones."""
    present = home.absolute(part.path)
    if not re.fullmatch(rf"{part.fingerprint}\.[0-9a-f]+\.parquet", present.name):
        return
    expired = _expired(home, part)
    if batch is not None:
        write_record(batch, part)
    _name_in_snapshots(home, pipeline, part)
    corrections.expire(home, pipeline, {f"{part.fingerprint}:{row}" for row in expired})
    for folder, _ in folders:
        known = whole(folder, part)
        if known is not None:
            _forget(folder, known, expired)
    older = set(present.parent.glob(f"{part.fingerprint}*.parquet")) - {present}
    if batch is not None:
        older.add(present.with_name(f"{batch.parent.name}-{batch.stem}.parquet"))
    for path in older:
        path.unlink(missing_ok=True)


def _name_in_snapshots(home: Home, pipeline: str, part: Part) -> None:
    for kept in versions.history(pipeline, home):
        snapshot = kept.snapshot
        parts = tuple(part if one.fingerprint == part.fingerprint else one for one in snapshot.parts)
        if parts != snapshot.parts:
            path = home.data(pipeline) / "snapshots" / f"{snapshot.fingerprint}.json"
            moment = path.stat()
            write_record(path, Snapshot.model_validate(snapshot.model_copy(update={"parts": parts})))
            os.utime(path, ns=(moment.st_atime_ns, moment.st_mtime_ns))  # which is the newest must not change


def _forget(folder: Path, known: CheckedPart, expired: set[int]) -> None:
    """Take the raw values out of a quarantine file, also the cell's value that a reason tells."""
    rows = pl.read_parquet(folder / "quarantined.parquet")
    gone = pl.col("row").is_in(expired)
    reason = pl.element()
    head = reason.str.splitn(": '", 2).struct.field("field_0")
    lost = head.str.contains(": not a ", literal=True)
    untold = pl.col("reasons").list.eval(pl.when(lost).then(head).otherwise(reason))
    after = rows.with_columns(
        pl.when(gone).then(pl.lit("{}")).otherwise(pl.col("raw")).alias("raw"),
        pl.when(gone).then(untold).otherwise(pl.col("reasons")).alias("reasons"),
    )
    if not after.equals(rows):
        rewrite_quarantined(folder, known, after)
