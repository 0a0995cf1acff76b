"""Read raw files without losing a byte that means something.

A Parquet file keeps its types. Of a CSV file every cell is text, and a line that is no row (too few or too many cells,
a quote that is never closed, bytes that are no UTF-8) is kept as it stands with a problem, for quarantine: Polars' own
reader would fill, cut or replace it in silence.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ferroflow.core.errors import EmptySource, UnreadableFile
from ferroflow.core.validation import LINE, PROBLEM, ROW

_MAX_LINES = 100  # of one quoted cell; beyond that a quote was forgotten
_BAD_BYTES = "\ufffd"


@dataclass(frozen=True)
class ReadOptions:
    """How a file is read: part of what names its content."""

    format: str  # "parquet" or "csv"
    columns: tuple[str, ...] = ()  # of a CSV file without a header
    separator: str = ","
    skip_rows: int = 0


@dataclass(frozen=True)
class RawTable:
    """A file's rows with ``_row`` (its row or line, from 1); of a CSV file also ``_problem`` and ``_line``."""

    frame: pl.DataFrame
    blank_lines: int = 0


def read_raw(path: Path, options: ReadOptions, name: str) -> RawTable:
    """Read a whole file; ``name`` is what errors call it.

    Raises:
        UnreadableFile: its bytes make no table.
        EmptySource: it holds no row.
    """
    table = _read_parquet(path, name) if options.format == "parquet" else _read_csv(path, options, name)
    if table.frame.is_empty():
        raise EmptySource(
            f"{name} holds no row ({path.stat().st_size} bytes). Put the complete file there or remove it."
        )
    return table


def _read_parquet(path: Path, name: str) -> RawTable:
    if path.stat().st_size == 0:
        return RawTable(pl.DataFrame())
    try:
        frame = pl.read_parquet(path).with_row_index(ROW, offset=1)
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise _unreadable(path, name, "Parquet", str(error).splitlines()[0] if str(error) else repr(error)) from error
    return RawTable(frame)


def _unreadable(path: Path, name: str, kind: str, why: str) -> UnreadableFile:
    with path.open("rb") as file:
        head = file.read(16)
    return UnreadableFile(
        f"{name} is no readable {kind} file: {why}. It begins with {head!r}. Fetch it again (remove it from the "
        f"downloads or the mirror first), or take it out of the landing folder."
    )


def _read_csv(path: Path, options: ReadOptions, name: str) -> RawTable:
    data = path.read_bytes()
    if b"\x00" in data[:4096]:
        raise _unreadable(path, name, "CSV", "it holds binary data")
    lines = _lines(data).slice(options.skip_rows)
    columns = options.columns
    if not columns and not lines.is_empty():
        header, _ = _cells(lines["line"][0], options.separator)
        columns = tuple(cell.strip() for cell in header or ())
        lines = lines.slice(1)
    if len(set(columns)) != len(columns) or (not lines.is_empty() and not (columns and all(columns))):
        raise _unreadable(path, name, "CSV", f"its header has repeated or empty names: {', '.join(columns)}")
    blank = lines.filter(pl.col("line").str.strip_chars() == "").height
    frame = _rows(lines, columns, options.separator)
    return RawTable(frame, blank)


def _lines(data: bytes) -> pl.DataFrame:
    """``_row`` (from 1) and ``line``; bytes that are no UTF-8 are spelt ``\\xNN`` after a marker."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = b"\n".join(_spelt(line) for line in data.split(b"\n")).decode("utf-8-sig")
    lines = pl.Series("line", text.removesuffix("\n").split("\n"), dtype=pl.String).str.strip_suffix("\r")
    return pl.DataFrame(lines).with_row_index(ROW, offset=1)


def _spelt(line: bytes) -> bytes:
    try:
        line.decode()
    except UnicodeDecodeError:
        return (_BAD_BYTES + line.decode(errors="backslashreplace")).encode()
    return line


def _rows(lines: pl.DataFrame, columns: Sequence[str], separator: str) -> pl.DataFrame:
    """Split the plain lines in one pass of Polars, and the others one by one with Python's csv."""
    text = pl.col("line")
    blank = text.str.strip_chars() == ""
    plain = (
        (text.str.count_matches(separator, literal=True) == len(columns) - 1)
        & ~text.str.contains('"', literal=True)
        & ~text.str.starts_with(_BAD_BYTES)
    )
    marked = lines.with_columns(blank=blank, plain=plain & ~blank)
    cells = text.str.split(separator).list
    clean = marked.filter("plain").select(
        ROW,
        *(cells.get(place).alias(name) for place, name in enumerate(columns)),
        pl.lit(None, pl.String).alias(PROBLEM),
        pl.lit(None, pl.String).alias(LINE),
    )
    odd = _odd_rows(marked, columns, separator)
    if odd.is_empty():
        return clean
    # A line inside a quoted cell looks like a row by itself: it belongs to the cell.
    taken = odd.select(pl.int_ranges(ROW, "_end").alias("inside").explode()).drop_nulls()
    rest = clean.join(taken.cast(pl.UInt32), left_on=ROW, right_on="inside", how="anti", maintain_order="left")
    return pl.concat([rest, odd.drop("_end")]).sort(ROW)


def _odd_rows(marked: pl.DataFrame, columns: Sequence[str], separator: str) -> pl.DataFrame:
    schema = {ROW: pl.UInt32, **dict.fromkeys((*columns, PROBLEM, LINE), pl.String), "_end": pl.UInt32}
    numbers = marked.filter(~pl.col("plain") & ~pl.col("blank"))[ROW].to_list()
    if not numbers:
        return pl.DataFrame(schema=schema)
    first = int(marked[ROW][0])
    lines = marked["line"].to_list()
    found: list[tuple[object, ...]] = []
    done = 0
    for number in numbers:
        if number <= done:
            continue
        cells, problem, count = _record(lines, number - first, len(columns), separator)
        done = number + count - 1
        line = None if problem is None else lines[number - first]
        found.append((number, *(cells or (None,) * len(columns)), problem, line, number + count))
    return pl.DataFrame(found, schema=schema, orient="row")


def _record(lines: list[str], at: int, width: int, separator: str) -> tuple[list[str] | None, str | None, int]:
    """The cells that begin at line ``at``, or the problem, and the number of lines taken."""
    if lines[at].startswith(_BAD_BYTES):
        return None, "bytes that are no UTF-8", 1
    for count in range(1, min(_MAX_LINES, len(lines) - at) + 1):
        cells, is_open = _cells("\n".join(lines[at : at + count]), separator)
        if is_open:
            continue  # the next line is of this cell
        if cells is None:
            return None, "a quote in the wrong place", 1
        if len(cells) == width:
            return cells, None, count
        if count == 1:
            return None, f"{len(cells)} cells instead of {width}", 1
        break
    return None, "a quote that is not closed", 1


def _cells(text: str, separator: str) -> tuple[list[str] | None, bool]:
    """Split one record as Python's csv does; None where a quote stands wrong; and whether a quote is still open."""
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except csv.Error as error:
        return None, "unexpected end" in str(error)
    return (rows[0], False) if len(rows) == 1 else (None, False)
