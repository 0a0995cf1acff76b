"""One file → one raw part, or its bytes in quarantine when they make no table."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import polars as pl

from ferroflow.adapters.home import Home
from ferroflow.adapters.sources.files import ReadOptions, format_of, read_raw
from ferroflow.adapters.sources.locate import Located
from ferroflow.adapters.storage import atomic_parquet, is_whole, read_record, replacing, write_record
from ferroflow.core.errors import DataError, EmptySource, SpecError, UnreadableFile
from ferroflow.core.fingerprint import file_digest, fingerprint
from ferroflow.core.records import Part, Unreadable
from ferroflow.core.sources import Format, reserved
from ferroflow.core.spec import PipelineSpec
from ferroflow.core.validation import ROW

logger = logging.getLogger(__name__)

_READER = 2  # raised when the same bytes are to be read differently
_VALUES = re.compile(r"(empty names: |It begins with ).*?(?=\. (?:It begins|Fetch it))", re.DOTALL)
"""Where the readers' reasons show bytes of the file: a person's may be among them."""
_ROWS_TOLD = 5_000_000  # rows between two lines about a file that is being read


class FileChanged(DataError):
    """Somebody wrote to the file while it was read."""


@dataclass(frozen=True)
class Found:
    """A file to be read: ``hive`` are columns that the names of its folders give."""

    name: str
    located: Located
    skip_rows: int = 0
    label: str = ""
    hive: Mapping[str, str | None] = field(default_factory=dict)


def part_of(spec: PipelineSpec, found: Found, home: Home, now: datetime) -> Part | Unreadable:
    """The part made of these bytes read this way, or the verdict that they make none: known from before, or made.

    The part's file is written and read back before its record is; the verdict after the bytes are in quarantine. So a
    record that is there vouches for its file, whenever the process was killed.

    Raises:
        FileChanged: somebody wrote to the file meanwhile.
        SpecError: neither the file's name nor the source tells its format.
    """
    options = read_options(spec, found)
    name = fingerprint(_READER, found.located.sha256, options, found.label, found.hive)
    known = read_record(home.data(spec.name) / "parts" / f"{name}.json", Part)
    if known is not None and is_whole(home.absolute(known.path), known.digest):
        return known
    folder = home.data(spec.name) / "unreadable"
    verdict = read_record(folder / f"{name}.json", Unreadable)
    if verdict is not None and is_whole(home.absolute(verdict.path), verdict.sha256):
        return verdict
    try:
        part = _made(spec, found, options, name, home, now if known is None else known.ingested_at)
    except (UnreadableFile, EmptySource) as error:
        reason = _VALUES.sub(r"\1***", str(error)) if spec.personal else str(error)
        verdict = _quarantined(found, reason, home, folder, now if verdict is None else verdict.seen_at)
        logger.warning("%s is quarantined whole: %s", found.name, reason)
        write_record(folder / f"{name}.json", verdict)
        return verdict
    write_record(home.data(spec.name) / "parts" / f"{name}.json", part)
    return part


def read_options(spec: PipelineSpec, found: Found) -> ReadOptions:
    """How the file is read: only what matters to its format, because this is a part of the part's name.

    Raises:
        SpecError: neither the file's name nor the source tells its format.
    """
    source = spec.source
    kind = format_of(found.name, source.format)
    if kind is None:
        raise SpecError(
            f"The name {found.name!r} does not tell the file's format. Set format= in the Source of {spec.name!r}, "
            f"or give the file a name that ends in .csv, .tsv, .ndjson, .parquet, .arrow or .xlsx."
        )
    return _options(kind, source.columns, source.separator, found.skip_rows, source.sheet)


def _options(kind: Format, columns: tuple[str, ...], separator: str, skip_rows: int, sheet: str | None) -> ReadOptions:
    if kind == "csv":
        return ReadOptions(kind, columns, separator, skip_rows)
    if kind == "tsv":
        return ReadOptions(kind, columns, skip_rows=skip_rows)
    return ReadOptions(kind, sheet=sheet) if kind == "excel" else ReadOptions(kind)


def read_back(path: Path, rows: int) -> None:
    """See that a part that was just written can be read and holds as many rows as were written.

    The file's footer and the whole column of row numbers are decoded; its other bytes are vouched for by the digest.

    Raises:
        DataError: it cannot be read, or holds other rows.
    """
    try:
        found, numbers = pl.scan_parquet(path).select(pl.len(), pl.col(ROW).is_not_null().sum()).collect().row(0)
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise DataError(f"{path} was written and cannot be read: {error}. Check the disk and run again.") from error
    if not found == numbers == rows:
        raise DataError(f"{path} holds {found} rows, {rows} were written. Check the disk and run again.")


def _made(spec: PipelineSpec, found: Found, options: ReadOptions, name: str, home: Home, at: datetime) -> Part:
    path = home.data(spec.name) / "parts" / f"{name}.parquet"
    try:
        raw = read_raw(found.located.path, options, found.name, path, _RowsTold(found.name))
    except (UnreadableFile, EmptySource, FileNotFoundError):
        _refuse_changed(found)
        raise
    _refuse_changed(found)
    columns = dict(raw.columns)
    added = {column: value for column, value in found.hive.items() if column not in columns}
    if added:
        _refuse_reserved(found, added)
        # Behind the line's own mark: a corrected line is read anew into the columns before it.
        cells = [pl.lit(value, pl.String).alias(column) for column, value in added.items()]
        atomic_parquet(path, pl.scan_parquet(path).with_columns(cells))
        columns |= dict.fromkeys(added, "String")
    read_back(path, raw.rows)
    return Part(
        fingerprint=name,
        file=found.name,
        origin=found.located.origin,
        address=found.located.address,
        sha256=found.located.sha256,
        rows=raw.rows,
        columns=columns,
        path=home.relative(path),
        ingested_at=at,
        label=found.label,
        digest=file_digest(path),
        blank_lines=raw.blank_lines,
    )


def _refuse_changed(found: Found) -> None:
    """What was read, also that it is unreadable, must be true of the bytes that were hashed."""
    if found.located.has_changed():
        raise FileChanged(f"{found.located.address} changed while it was read. Run again when it is complete.")


def _refuse_reserved(found: Found, added: Mapping[str, str | None]) -> None:
    taken = reserved(added)
    if taken:
        raise SpecError(f"{found.name}: the folder's name {taken[0]!r} is kept for Ferroflow. Rename the folder.")


def _quarantined(found: Found, reason: str, home: Home, folder: Path, at: datetime) -> Unreadable:
    """The file's bytes in quarantine, once for however many readings of them."""
    located = found.located
    kept = folder / located.sha256
    if not (kept.is_file() and file_digest(kept) == located.sha256):
        with replacing(kept) as temporary:
            shutil.copyfile(located.path, temporary)
            if file_digest(temporary) != located.sha256:
                raise FileChanged(f"{located.address} changed while it was read. Run again when it is complete.")
    return Unreadable(
        file=found.name,
        origin=located.origin,
        address=located.address,
        sha256=located.sha256,
        size=kept.stat().st_size,
        reason=reason,
        path=home.relative(kept),
        seen_at=at,
    )


class _RowsTold:
    """A line in the log for every few million rows of a file."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.told = 0

    def __call__(self, rows: int) -> None:
        if rows - self.told >= _ROWS_TOLD:
            self.told = rows
            logger.info("%s: %s rows read", self.name, f"{rows:,}")
