"""Read a raw file of any format into a raw part, without losing a byte that means something.

A Parquet or Arrow file keeps its types. Of a text format (CSV, TSV, NDJSON; plain, gzip or zstd) and of an Excel sheet
every cell is text, and a line that is no row is kept as it stands with a problem, for quarantine. Whatever bytes a file
holds, it becomes a raw part, or ``UnreadableFile`` or ``EmptySource`` says why not.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ferroflow.adapters.sources.columnar import arrow_frames, parquet_frames
from ferroflow.adapters.sources.compressed import opened
from ferroflow.adapters.sources.delimited import delimited_batches
from ferroflow.adapters.sources.excel import ExcelReader
from ferroflow.adapters.sources.json_lines import is_pattern
from ferroflow.adapters.sources.ndjson import NdjsonReader, NewKeys
from ferroflow.adapters.sources.raw_parquet import write_raw
from ferroflow.adapters.storage import replacing
from ferroflow.core.errors import EmptySource, UnreadableFile
from ferroflow.core.sources import Format

Progress = Callable[[int], None]
"""Told the rows so far."""


@dataclass(frozen=True)
class ReadOptions:
    """How a file is read: part of what names its content."""

    format: Format
    columns: tuple[str, ...] = ()  # of a CSV or TSV file without a header
    separator: str = ","  # of a CSV file
    skip_rows: int = 0  # of a CSV or TSV file
    sheet: str | None = None  # of an Excel file; None: its only one


@dataclass(frozen=True)
class RawFile:
    """What a raw part holds: ``columns`` gives each raw column's type, ``blank_lines`` made no row."""

    rows: int
    columns: dict[str, str]
    blank_lines: int = 0


_TEXT: dict[str, Format] = {".csv": "csv", ".tsv": "tsv", ".ndjson": "ndjson", ".jsonl": "ndjson", ".json": "ndjson"}
_BINARY: dict[str, Format] = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".xlsx": "excel",
}
_KINDS = {"parquet": "Parquet", "csv": "CSV", "tsv": "TSV", "ndjson": "NDJSON", "arrow": "Arrow", "excel": "Excel"}


def format_of(name: str, otherwise: Format | None) -> Format | None:
    """The format that a file's name tells by its ending; ``otherwise`` where it tells none.

    The name wins where both speak. The text formats may also end in ``.gz`` or ``.zst``; ``.json`` counts as one
    object a line; ``.txt`` and ``.data`` tell nothing.
    """
    path = Path(name.lower())
    if path.suffix in (".gz", ".zst"):
        return _TEXT.get(Path(path.stem).suffix, otherwise)
    return _TEXT.get(path.suffix) or _BINARY.get(path.suffix, otherwise)


def read_raw(path: Path, options: ReadOptions, name: str, target: Path, progress: Progress | None = None) -> RawFile:
    """Write a file's rows to the Parquet file ``target``, wholly or not at all, in bounded memory.

    Args:
        path: the file; a text format may be packed by gzip or zstd, whatever its name.
        options: how to read it.
        name: what errors call it.
        target: gets ``_row`` (row or line, from 1), the cells and, but for Parquet and Arrow, ``_problem`` and
            ``_line``.
        progress: told the rows so far.

    Raises:
        UnreadableFile: its bytes make no table.
        EmptySource: it holds no row and no header that names columns.
        OSError: the machine fails: the file is not there, the disk is full.
    """
    with _told(path, options, name), replacing(target) as temporary:
        found = _READERS[options.format](path, options, name, temporary, progress)
        if patterns := [column for column in found.columns if is_pattern(column)]:
            raise ValueError(f"it has a column named {patterns[0]!r}, which would mean several columns: rename it")
        if not found.columns:
            raise EmptySource(
                f"{name} holds no row ({path.stat().st_size} bytes). Put the complete file there or remove it."
            )
        return found


def read_frame(path: Path, options: ReadOptions, name: str) -> pl.DataFrame:
    """Read a small file whole: the rows that ``read_raw`` writes; raises as it does, and EmptySource without a row."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "rows.parquet"
        if not read_raw(path, options, name, target).rows:
            raise EmptySource(f"{name} holds no row under its header. Put the complete file there or remove it.")
        return pl.read_parquet(target)


# -------------------------------------------------------------------------------------------------------------- formats


def _read_delimited(path: Path, options: ReadOptions, name: str, target: Path, progress: Progress | None) -> RawFile:
    separator = "\t" if options.format == "tsv" else options.separator
    with opened(path) as file:
        batches = delimited_batches(file, options.columns, separator, options.skip_rows, name, path)
        rows, columns = write_raw(batches, target, progress)
    return RawFile(rows, columns, batches.blank_lines)


def _read_ndjson(path: Path, options: ReadOptions, name: str, target: Path, progress: Progress | None) -> RawFile:
    keys = None
    while True:
        with opened(path) as file:
            reader = NdjsonReader(file, keys)
            try:
                rows, columns = write_raw(reader.frames(), target, progress)
                break
            except NewKeys:
                pass
        with opened(path) as file:
            keys = NdjsonReader(file).keys()
    if rows and not columns:
        raise ValueError(f"none of its {reader.lines:,} lines is a JSON object with a key{reader.first_problem}")
    return RawFile(rows, columns, reader.blank_lines)


def _read_excel(path: Path, options: ReadOptions, name: str, target: Path, progress: Progress | None) -> RawFile:
    reader = ExcelReader(path, options.sheet)
    rows, columns = write_raw(reader.frames(), target, progress)
    return RawFile(rows, columns, reader.blank_rows)


def _reading(frames: Callable[[Path], Iterable[pl.DataFrame]]) -> _Reader:
    def read(path: Path, options: ReadOptions, name: str, target: Path, progress: Progress | None) -> RawFile:
        return RawFile(*write_raw(frames(path), target, progress))

    return read


_Reader = Callable[[Path, ReadOptions, str, Path, Progress | None], RawFile]
_READERS: dict[str, _Reader] = {
    "csv": _read_delimited,
    "tsv": _read_delimited,
    "ndjson": _read_ndjson,
    "excel": _read_excel,
    "parquet": _reading(parquet_frames),
    "arrow": _reading(arrow_frames),
}


# --------------------------------------------------------------------------------------------------------------- errors


@contextmanager
def _told(path: Path, options: ReadOptions, name: str) -> Iterator[None]:
    """Turn whatever a reader says about a file's bytes into ``UnreadableFile``; a failing machine is no broken file."""
    try:
        yield
    except _refusals() as error:
        _of_the_machine(error, name)
        with path.open("rb") as file:
            head = file.read(16)
        why = str(error).splitlines()[0][:300].rstrip(". ") if str(error) else type(error).__name__
        raise UnreadableFile(
            f"{name} is no readable {_KINDS[options.format]} file: {why}. It begins with {head!r}. Fetch it again "
            f"(remove it from the downloads or the mirror first), or take it out of the landing folder."
        ) from error


def _of_the_machine(error: BaseException, name: str) -> None:
    """Raise OSError where it was the machine that failed: Polars hides that in an error about Parquet."""
    if isinstance(error, OSError) and error.errno:
        raise error
    number = re.search(r"\(os error (\d+)\)", str(error))
    if number:
        raise OSError(int(number[1]), f"{os.strerror(int(number[1]))}, while {name} was read") from error


def _refusals() -> tuple[type[BaseException], ...]:
    """What readers raise about bytes."""
    import pyarrow as pa

    return (
        OSError,
        ValueError,
        EOFError,
        MemoryError,
        OverflowError,
        pa.lib.ArrowException,
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,
    )
