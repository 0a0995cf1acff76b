"""Read NDJSON (one JSON object a line) block by block, all cells as the text that stands there.

Most lines of a file have one shape: the same keys in the same order, plain values. A pattern made of the first such
line reads them all in one pass of Polars, at a cost per byte near that of copying; a line that the pattern does not
match to its last character is read by ``json_lines`` instead. So the fast way cannot read a line otherwise than the
exact one: it matches a strict part of JSON, or not at all.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, BinaryIO, TypeVar

import polars as pl

from ferroflow.adapters.sources.json_lines import BadLine, cells_of
from ferroflow.core.validation import LINE, PROBLEM, ROW

MAX_KEYS = 2_000
"""Different keys that a file may have."""
MAX_LINE = 64 << 20
"""Bytes of one line."""

_BLOCK = 8 << 20
_MAX_CELLS = 4_000_000  # of one frame: lines of many different keys fill few of them
_SHAPES = 4  # patterns that are tried on a block
_SEEN = 40  # lines whose shapes are looked at
_FEW_LINES = 200  # not worth a pattern: making one costs as much as reading these one by one
_GROUPS = 14  # cells that one pattern takes: with more groups the engine has to step back
_BAD_BYTES = "bytes that are no UTF-8"
_BLANKS = " \t\r"
_Entry = TypeVar("_Entry", bound=tuple[Any, ...])


@dataclass
class NdjsonReader:
    """An NDJSON file's rows, block by block; read it once.

    ``columns`` are the keys to give, in their order; None: those of the first block.
    """

    file: BinaryIO
    columns: list[str] | None = None
    blank_lines: int = 0
    lines: int = 0
    first_problem: str = ""

    def frames(self) -> Iterator[pl.DataFrame]:
        """``_row`` (the line, from 1), each key's cells as text, ``_problem`` and ``_line``.

        Raises:
            NewKeys: a key that is not in ``columns``.
            ValueError: a line of more than ``MAX_LINE`` bytes, or more than ``MAX_KEYS`` keys.
        """
        for block in self._blocks():
            keys = list(dict.fromkeys(block.keys()))
            check_count(keys)
            if self.columns is None:
                self.columns = keys
            if not set(keys) <= set(self.columns):
                raise NewKeys
            yield from block.frames(self.columns)

    def keys(self) -> list[str]:
        """All keys of the file, in the order of their first appearance.

        Raises:
            ValueError: there are more than ``MAX_KEYS``.
        """
        found: dict[str, None] = {}
        for block in self._blocks():
            found.update(dict.fromkeys(block.keys()))
            check_count(found)
        return list(found)

    def _blocks(self) -> Iterator[_Block]:
        for data in blocks(self.file):
            block = _Block(self.lines + 1)
            block.read(data)
            self.lines += block.count
            self.blank_lines += block.blank_lines
            if block.bad and not self.first_problem:
                row, problem, _ = block.bad[0]
                self.first_problem = f" (line {row}: {problem})"
            yield block


class NewKeys(Exception):
    """A later block has keys that the first had not: all keys have to be known before rows are written."""


def check_count(keys: Collection[str]) -> None:
    """Raise ValueError where there are more than ``MAX_KEYS`` keys."""
    if len(keys) > MAX_KEYS:
        raise ValueError(f"its objects have more than {MAX_KEYS:,} different keys")


def blocks(file: BinaryIO) -> Iterator[bytes]:
    """The file in pieces of whole lines, the mark of UTF-8 left out; the last line may lack its newline.

    Raises:
        ValueError: a line has more than ``MAX_LINE`` bytes.
    """
    data = file.read(_BLOCK).removeprefix(b"\xef\xbb\xbf")
    rest: list[bytes] = []
    size = 0
    while data:
        cut = data.rfind(b"\n") + 1
        if cut:
            yield b"".join((*rest, data[:cut]))
            rest, size = [], 0
        rest.append(data[cut:])
        size += len(data) - cut
        if size > MAX_LINE:
            raise ValueError(f"it has a line of more than {MAX_LINE >> 20} MB")
        data = file.read(_BLOCK)
    if size:
        yield b"".join(rest)


@dataclass
class _Block:
    """The lines of one block: ``first`` is the number of its first line in the file."""

    first: int
    count: int = 0
    blank_lines: int = 0
    pieces: list[pl.DataFrame] = field(default_factory=list)  # rows of one shape each: ``_row`` and its keys
    loose: list[tuple[int, dict[str, str | None]]] = field(default_factory=list)  # row, cells: of other lines
    bad: list[tuple[int, str, str]] = field(default_factory=list)  # row, problem, line

    def read(self, data: bytes) -> None:
        """Sort the lines into pieces, loose and bad ones, each of them by row."""
        lines = self._decoded(data.removesuffix(b"\n").split(b"\n"), data)
        blank = pl.col(LINE).str.strip_chars(_BLANKS) == ""
        self.blank_lines = lines.select(blank.sum()).item()
        left = lines.filter(~blank) if self.blank_lines else lines
        shapes = dict.fromkeys(_shape(line) for line in left[LINE].head(_SEEN))
        for shape in list(shapes)[:_SHAPES]:
            if shape and left.height >= _FEW_LINES:
                piece, left = _matched(left, shape)
                self.pieces += [] if piece.is_empty() else [piece]
        self._read_one_by_one(left)
        self.bad.sort()

    def _decoded(self, raw: list[bytes], data: bytes) -> pl.DataFrame:
        """``_row`` and ``_line`` of the lines that are UTF-8; the others are bad."""
        self.count = len(raw)
        try:
            texts: list[str | None] = list(data.decode().removesuffix("\n").split("\n"))
        except UnicodeDecodeError:
            texts = [self._text(place, line) for place, line in enumerate(raw)]
        lines = pl.DataFrame({LINE: texts}, schema={LINE: pl.String})
        return lines.with_row_index(ROW, offset=self.first).drop_nulls(LINE)

    def _text(self, place: int, line: bytes) -> str | None:
        try:
            return line.decode()
        except UnicodeDecodeError:
            self.bad.append(
                (self.first + place, _BAD_BYTES, line.removesuffix(b"\r").decode(errors="backslashreplace"))
            )
            return None

    def _read_one_by_one(self, left: pl.DataFrame) -> None:
        for row, line in left.rows():
            try:
                self.loose.append((row, cells_of(line.removesuffix("\r"))))
            except BadLine as problem:
                self.bad.append((row, str(problem), line.removesuffix("\r")))

    def keys(self) -> Iterator[str]:
        """The keys in the order of their first appearance; one may come again."""
        found: list[tuple[int, Iterable[str]]] = [(int(piece[ROW][0]), piece.columns[1:]) for piece in self.pieces]
        if self.loose:
            found.append((self.loose[0][0], (key for _, cells in self.loose for key in cells)))
        for _, keys in sorted(found, key=itemgetter(0)):
            yield from keys

    def frames(self, columns: list[str]) -> Iterator[pl.DataFrame]:
        """All rows in the order of their lines, with these columns, in frames of at most ``_MAX_CELLS`` cells."""
        schema = {ROW: pl.UInt32, **dict.fromkeys((*columns, PROBLEM, LINE), pl.String)}
        lines = _MAX_CELLS // len(schema) + 1
        for start in range(self.first, self.first + self.count, lines):
            pieces = [_with_columns(piece, schema) for piece in self._between(start, start + lines)]
            if pieces:
                yield pl.concat(pieces).sort(ROW) if len(pieces) > 1 else pieces[0]

    def _between(self, start: int, stop: int) -> Iterator[pl.DataFrame]:
        """The rows of those lines, by what was found in them."""
        for piece in self.pieces:
            first, last = (int(piece[ROW].search_sorted(row)) for row in (start, stop))
            if last > first:
                yield piece[first:last]
        if loose := _rows_between(self.loose, start, stop):
            yield _filled(loose)
        if bad := _rows_between(self.bad, start, stop):
            yield pl.DataFrame(bad, schema=[ROW, PROBLEM, LINE], orient="row")


def _rows_between(rows: list[_Entry], start: int, stop: int) -> list[_Entry]:
    """Of entries that are sorted by their first item, the row, those from ``start`` to before ``stop``."""
    first, last = (bisect_left(rows, row, key=itemgetter(0)) for row in (start, stop))
    return rows[first:last]


def _filled(loose: Sequence[tuple[int, Mapping[str, str | None]]]) -> pl.DataFrame:
    """``_row`` and all keys of these rows; by key, so that a row costs what it holds."""
    columns: dict[str, list[str | None]] = {}
    for place, (_, cells) in enumerate(loose):
        for key, cell in cells.items():
            if key not in columns:
                columns[key] = [None] * len(loose)
            columns[key][place] = cell
    rows = pl.Series(ROW, [row for row, _ in loose], dtype=pl.UInt32)
    return pl.DataFrame([rows, *(pl.Series(key, cells, dtype=pl.String) for key, cells in columns.items())])


def _with_columns(piece: pl.DataFrame, schema: Mapping[str, Any]) -> pl.DataFrame:
    """The columns of ``schema``, those that are not there null. By series: a key such as ``*`` is no expression."""
    there = set(piece.columns)
    return pl.DataFrame(
        [
            piece[name].cast(kind) if name in there else pl.Series(name, [None], kind).new_from_index(0, piece.height)
            for name, kind in schema.items()
        ]
    )


# ------------------------------------------------------------------------------------------------------ lines by shape

_VALUE = (
    r'("[^"\\\x00-\x1f]*"'  # a string without escapes
    r"|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null)"
)
_GAP = r"[ \t]*"
_PLAIN_KEY = re.compile(r'[^"\\\x00-\x1f]+')


def _shape(line: str) -> tuple[str, ...]:
    """The keys of a line; none where no pattern can be made of it."""
    try:
        keys = tuple(cells_of(line))
    except BadLine:
        return ()
    return keys if all(_PLAIN_KEY.fullmatch(key) for key in keys) else ()


def _patterns(keys: Sequence[str]) -> Iterator[tuple[Sequence[str], str]]:
    """Patterns to be matched one after the other, each on what the one before it left as its last group."""
    for place in range(0, len(keys), _GROUPS):
        some = keys[place : place + _GROUPS]
        cells = f"{_GAP},{_GAP}".join(f'"{re.escape(key)}"{_GAP}:{_GAP}{_VALUE}' for key in some)
        start = rf"{_GAP}\{{{_GAP}" if place == 0 else f",{_GAP}"
        end = r"(,.*)" if place + _GROUPS < len(keys) else r"\}[ \t\r]*"
        yield some, f"^{start}{cells}{_GAP}{end}$"


def _matched(lines: pl.DataFrame, keys: Sequence[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The cells of the lines that have these keys, in this order, with plain values; and the other lines."""
    found: list[pl.Series] = []
    rest = lines[LINE]
    for some, pattern in _patterns(keys):
        groups = rest.str.extract_groups(pattern).struct.unnest()
        found += [_unquoted(groups[place]).alias(key) for place, key in zip(groups.columns, some, strict=False)]
        rest = groups[:, -1]
    hit = rest.is_not_null()
    return pl.DataFrame([lines[ROW], *found]).filter(hit), lines.filter(~hit)


def _unquoted(values: pl.Series) -> pl.Series:
    """JSON values as cells. A string's own quotes are its first and last character, and it has no others."""
    return (
        values.to_frame("value")
        .select(pl.when(pl.col("value") != "null").then(pl.col("value").str.strip_chars('"')))
        .to_series()
    )
