"""Read delimited text (CSV, TSV) block by block without losing a byte that means something.

Every cell is text as it stands. A line that is no row (too few or too many cells, a quote in the wrong place or never
closed, bytes that are no UTF-8) is kept with a problem, for quarantine: Polars' own reader would fill, cut or replace
it in silence. So all lines of a block are judged first (``delimited_lines``); those that are provably one row each are
split by Polars at once, the few others one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import polars as pl

from ferroflow.adapters.sources.delimited_lines import (
    BAD_BYTES,
    Lines,
    Record,
    is_blank,
    judge,
    record,
    row,
    simple_rows,
    spelt,
)
from ferroflow.core.errors import SpecError, UnreadableFile
from ferroflow.core.sources import reserved
from ferroflow.core.validation import LINE, PROBLEM, ROW

if TYPE_CHECKING:
    from ferroflow.adapters.sources.delimited_lines import Places

_BLOCK = 4 << 20  # bytes read at once
_HEAD = 4096  # bytes: a file with a NUL among them is no text
_UTF8_MARK = b"\xef\xbb\xbf"
_MAX_LINES = 100  # of one quoted cell; beyond that a quote was forgotten
_MAX_BYTES = 16 << 20  # of one record
_MAX_COLUMNS = 10_000
_MAX_CELLS = 4_000_000  # of odd lines in one frame: short lines under a wide header would be many


def delimited_batches(
    file: BinaryIO,
    columns: tuple[str, ...],
    separator: str,
    skip_rows: int,
    name: str,
    path: Path,
    *,
    block: int = _BLOCK,
) -> DelimitedBatches:
    """Read a stream of delimited text as frames of bounded size; ``blank_lines`` of the result counts as it is read.

    Args:
        file: the (decompressed) bytes; read from front to back, once. What it raises is passed on.
        columns: the names; empty: the first line that is not blank after ``skip_rows`` lines holds them.
        separator: one ASCII character.
        skip_rows: lines before the header or the data.
        name: what errors call the file.
        path: whose first bytes errors show.
        block: bytes read at once.

    Returns:
        An iterator of frames: ``_row`` (UInt32, the number of a record's first line in the file, from 1), the cells
        (String), ``_problem`` and ``_line`` (String): why a line makes no row, and the line. Nothing where there is no
        line after the header.

    Raises:
        UnreadableFile: while reading: binary data, a header with repeated, empty, reserved or more than 10,000 names or
            without a form, a line of more than 16 MB.
        SpecError: a separator of several bytes, or one that has a meaning of its own.
    """
    if len(separator.encode()) != 1 or separator in '"\r\n':
        raise SpecError(f"The separator {separator!r} of {name} cannot be: give one ASCII character, as ',' or '\\t'.")
    return DelimitedBatches(_Text(file, columns, separator.encode(), skip_rows, name, path, block))


class DelimitedBatches(Iterator[pl.DataFrame]):
    """The frames of a file; ``blank_lines`` is the number of lines so far that were blank and no row."""

    def __init__(self, text: _Text) -> None:
        self._text = text
        self._frames = text.frames()

    @property
    def blank_lines(self) -> int:
        """Lines without a character but white space, outside of quotes."""
        return self._text.blank_lines

    def __next__(self) -> pl.DataFrame:
        return next(self._frames)


@dataclass
class _Odd:
    """What reading line by line gave: rows, blank lines, and the number of lines that are settled."""

    lines: int
    blank_lines: int = 0
    rows: list[tuple[object, ...]] = field(default_factory=list)


@dataclass
class _Text:
    file: BinaryIO
    columns: tuple[str, ...]
    separator: bytes
    skip_rows: int
    name: str
    path: Path
    block: int
    blank_lines: int = 0
    line: int = 0  # lines read before the bytes at hand
    size: int = 0  # bytes read so far
    last: bytes = b""  # the last of them
    at_end: bool = False

    def frames(self) -> Iterator[pl.DataFrame]:
        import numpy as np

        named = bool(self.columns)
        rest = self._header(self._beginning())
        rows = 0
        while rest or not self.at_end:
            data, rest = self._whole_lines(rest)
            while data:
                frame, used = self._frame(data)
                if not frame.is_empty():
                    rows += frame.height
                    yield frame
                if not used:
                    break  # a quote is open: more lines are needed
                data = data[used:]
            rest = data + rest
        if self.columns and not (rows or named):  # a header alone: a table without a row
            yield self._numbered(pl.DataFrame(schema=dict.fromkeys(self.columns, pl.String)), np.arange(0))

    # ----------------------------------------------------------------------------------------------------------- bytes

    def _read(self) -> bytes:
        """The next block; at the end of the file the newline that the last line lacks, then nothing."""
        read = b"" if self.at_end else self.file.read(self.block)
        if not read:
            self.at_end = True
            read = b"" if self.last in {b"", b"\n"} else b"\n"
        if self.size < _HEAD and b"\x00" in read[: _HEAD - self.size]:
            raise self._unreadable("it holds binary data")
        self.size += len(read)
        self.last = read[-1:]
        return read

    def _whole_lines(self, rest: bytes) -> tuple[bytes, bytes]:
        """All whole lines of ``rest`` and the next block, and the bytes after them."""
        read = self._read()
        if not read:
            return rest, b""
        cut = read.rfind(b"\n") + 1
        if cut:
            return b"".join((rest, memoryview(read)[:cut])), read[cut:]
        if len(rest) - rest.rfind(b"\n") > _MAX_BYTES:
            line = self.line + rest.count(b"\n") + 1
            raise self._unreadable(f"line {line} is longer than {_MAX_BYTES >> 20} MB")
        return b"", rest + read

    def _beginning(self) -> bytes:
        data = self._read()
        while len(data) < len(_UTF8_MARK) and not self.at_end:
            data += self._read()
        return data.removeprefix(_UTF8_MARK)

    def _take_line(self, data: bytes) -> tuple[bytes, bytes]:
        """The first line with its newline (empty at the end of the file), and the rest."""
        lines = data
        while b"\n" not in lines and not self.at_end:
            lines, data = self._whole_lines(data)
            data = lines + data
        cut = data.find(b"\n") + 1
        self.line += cut > 0
        return data[:cut], data[cut:]

    # ---------------------------------------------------------------------------------------------------------- header

    def _header(self, data: bytes) -> bytes:
        """Leave out the lines before, read the names where none are given; gives the bytes after them."""
        for _ in range(self.skip_rows):
            _, data = self._take_line(data)
        if self.columns:
            self._check_names()
            return data
        line, data = self._take_line(data)
        while line and not line.strip():
            self.blank_lines += 1
            line, data = self._take_line(data)
        if not line:
            return data
        while (found := record(line, 0, self.separator)).is_open and line.count(b"\n") < _MAX_LINES:
            following, data = self._take_line(data)
            if not following:
                break
            line += following
        try:
            self.columns = tuple(cell.decode().strip() for cell in found.cells)
        except UnicodeDecodeError:
            found = Record(problem=BAD_BYTES)
        if found.problem:
            raise self._unreadable(f"its header has {found.problem}")
        self._check_names()
        return data

    def _check_names(self) -> None:
        if len(self.columns) > _MAX_COLUMNS:
            raise self._unreadable(f"its header has {len(self.columns):,} columns, more than {_MAX_COLUMNS:,}")
        names = ", ".join(self.columns)
        if len(set(self.columns)) != len(self.columns) or not all(self.columns):
            raise self._unreadable(f"its header has repeated or empty names: {names}")
        if ours := reserved(self.columns):
            raise self._unreadable(f"its header has a name that is kept for Ferroflow: {', '.join(ours)}")

    def _unreadable(self, why: str) -> UnreadableFile:
        with self.path.open("rb") as file:
            head = file.read(16)
        return UnreadableFile(
            f"{self.name} is no readable CSV file: {why}. It begins with {head!r}. Fetch it again (remove it from the "
            f"downloads or the mirror first), or take it out of the landing folder."
        )

    # ------------------------------------------------------------------------------------------------------------ rows

    def _frame(self, data: bytes) -> tuple[pl.DataFrame, int]:
        """Rows of whole lines, and the bytes they took: a quote still open at the end waits for more."""
        import numpy as np

        width = len(self.columns)
        rows = simple_rows(data, width, self.separator)
        if rows and (frame := self._split(data, rows)) is not None:
            frame = self._numbered(frame, np.arange(rows))
            self.line += rows
            return frame, len(data)
        lines = judge(data, width, self.separator)
        odd = self._odd(data, lines)
        plain = np.flatnonzero(lines.plain[: odd.lines])
        split = self._split(lines.cut(plain), len(plain))
        if split is None:  # Polars sees another table than we do: nothing is left to it
            lines.plain[:] = False
            odd, plain = self._odd(data, lines), plain[:0]
            split = pl.DataFrame(schema=dict.fromkeys(self.columns, pl.String))
        frame = self._numbered(split, plain)
        if odd.rows:
            frame = pl.concat([frame, pl.DataFrame(odd.rows, schema=frame.schema, orient="row")]).sort(ROW)
        self.blank_lines += odd.blank_lines
        self.line += odd.lines
        return frame, lines.start(odd.lines)

    def _split(self, data: bytes, rows: int) -> pl.DataFrame | None:
        """Let Polars split lines that are one row each; None when it does not find these rows."""
        schema = dict.fromkeys(self.columns, pl.String)
        if not rows:
            return pl.DataFrame(schema=schema)
        try:
            frame = pl.read_csv(
                data,
                has_header=False,
                separator=self.separator.decode(),
                quote_char='"' if b'"' in data else None,
                schema=schema,
                empty_string_is_null=False,
            )
        except pl.exceptions.PolarsError:
            return None
        return frame if frame.height == rows else None

    def _numbered(self, frame: pl.DataFrame, places: Places) -> pl.DataFrame:
        """Put the number in the file of each row's line before, an empty problem and line after."""
        nothing = pl.lit(None, pl.String)
        numbers = pl.Series(ROW, places + (self.line + 1)).cast(pl.UInt32)
        return frame.select(numbers, pl.all(), nothing.alias(PROBLEM), nothing.alias(LINE))

    def _odd(self, data: bytes, lines: Lines) -> _Odd:
        """Read the lines that are not plain one by one; a record of several takes plain-looking ones with it."""
        import numpy as np

        odd = _Odd(lines=len(lines.ends))
        nothing = (None,) * len(self.columns)
        done = 0
        for place in np.flatnonzero(~lines.plain).tolist():
            if place < done:
                continue
            if len(odd.rows) * len(self.columns) > _MAX_CELLS:
                odd.lines = place  # enough for one frame
                break
            start = lines.start(place)
            if is_blank(data[start : lines.ends[place]], self.separator, len(self.columns)):
                odd.blank_lines += 1
                continue
            stop = min(lines.start(place + _MAX_LINES), start + _MAX_BYTES)
            found = record(data, start, self.separator, stop)
            if found.is_open and not self.at_end and stop == len(data) < start + _MAX_BYTES:
                odd.lines = place  # its end may come with the next block
                break
            cells, problem, count = row(data, start, found, len(self.columns))
            done = place + count
            lines.plain[place:done] = False
            raw = None if problem is None else spelt(data[start : lines.start(done) - 1])
            odd.rows.append((self.line + 1 + place, *(cells or nothing), problem, raw))
        return odd
