"""How a file is to be read: its format, its separator, and whether its first line holds names."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ferroflow.adapters.sources.compressed import opened
from ferroflow.adapters.sources.files import ReadOptions, format_of
from ferroflow.core.errors import EmptySource, SourceUnavailable, UnreadableFile, UsageError
from ferroflow.core.sources import Format
from ferroflow.scaffold.ask import Ask, Question

_HEAD = 1 << 16  # bytes that are looked at
_LINES = 200
_SEPARATORS = ",;\t|"
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)*|[.,]\d+)([eE][+-]?\d+)?")
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}")
_MAGIC: dict[bytes, Format] = {b"PAR1": "parquet", b"ARROW1": "arrow", b"PK\x03\x04": "excel", b"{": "ndjson"}


@dataclass(frozen=True)
class Layout:
    """A file and how it is read; ``told`` is whether its name tells the format."""

    path: Path
    format: Format
    told: bool
    separator: str = ","
    columns: tuple[str, ...] = ()  # of a CSV file without a header

    @property
    def options(self) -> ReadOptions:
        """As the reader takes it."""
        return ReadOptions(self.format, columns=self.columns, separator=self.separator)


def layout_of(path: Path, columns: Sequence[str], ask: Ask) -> Layout:
    """Look at the first bytes of a file.

    Args:
        path: the file.
        columns: names of the columns of a CSV file without a header; empty: looked for in its first line.
        ask: asked for the names of columns that have none.

    Raises:
        SourceUnavailable: there is no such file.
        EmptySource: it is empty.
        UnreadableFile: its compressed bytes are damaged.
        UsageError: the names do not fit the first line.
    """
    if not path.is_file():
        raise SourceUnavailable(f"There is no file {path}. Give --from the path of a data file.")
    head = _head(path)
    if not head.strip():
        raise EmptySource(f"{path.name} is empty ({path.stat().st_size} bytes). Give --from a file with rows.")
    told = format_of(path.name, None)
    found = told if told is not None else _by_magic(head)
    layout = Layout(path, found, told is not None)
    if found not in ("csv", "tsv"):
        if columns:
            raise UsageError(f"--columns is for text without a header; {path.name} is {found} and names its columns.")
        return layout
    separator = "\t" if found == "tsv" else _separator(head)
    return replace(layout, separator=separator, columns=_columns(path, _cells(head, separator), columns, ask))


def _head(path: Path) -> bytes:
    try:
        with opened(path) as file:
            return file.read(_HEAD)
    except OSError as error:
        raise UnreadableFile(f"{path.name} cannot be read: {error}. Give --from a whole file.") from error


def _by_magic(head: bytes) -> Format:
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "csv")


def _separator(head: bytes) -> str:
    """The one that splits most lines into the same number of cells, more than one; a comma where none does."""

    def regular(separator: str) -> tuple[int, int]:
        widths = [len(cells) for cells in _cells(head, separator)]
        common = max(set(widths), key=widths.count, default=1)
        return (widths.count(common) if common > 1 else 0, common)

    return max(_SEPARATORS, key=regular)


def _cells(head: bytes, separator: str) -> list[list[str]]:
    lines = head.decode("utf-8-sig", errors="replace").splitlines(keepends=True)
    whole = lines if len(head) < _HEAD else lines[:-1]
    text = io.StringIO("".join(whole[: _LINES + 1]), newline="")
    try:
        rows = list(csv.reader(text, delimiter=separator))
    except csv.Error:  # a cell beyond its limit, or bytes that are no text: the reader tells
        return []
    return [[cell.strip() for cell in row] for row in rows if any(cell.strip() for cell in row)]


def _columns(path: Path, rows: list[list[str]], given: Sequence[str], ask: Ask) -> tuple[str, ...]:
    """The names given, or made; none where the first line holds them."""
    width = len(rows[0]) if rows else 0
    if given:
        if width and len(given) != width:
            raise UsageError(f"--columns names {len(given)} columns, the first line of {path.name} has {width} cells.")
        if len(set(given)) != len(given) or not all(given):
            raise UsageError(f"--columns {','.join(given)}: each column needs a name of its own.")
        return tuple(given)
    if not rows or _is_header(rows[0], rows[1:]):
        return ()
    made = ",".join(f"column_{place}" for place in range(1, width + 1))
    question = Question(
        f"The first line of {path.name} holds data ({', '.join(rows[0])[:80]}): how are its {width} columns called?",
        "--columns a,b,c",
        (),
        made,
    )
    return _columns(path, rows, [name.strip() for name in ask(question).split(",")], ask)


def _is_header(first: list[str], others: list[list[str]]) -> bool:
    """Names are texts, each there once, that do not come again below themselves."""
    if any(_is_value(cell) for cell in first):
        return False
    below = [{row[place] for row in others if place < len(row)} for place in range(len(first))]
    repeated = sum(name in cells for name, cells in zip(first, below, strict=True))
    numbers = any(any(map(_is_value, cells)) for cells in below)
    return numbers or repeated == 0


def _is_value(cell: str) -> bool:
    return _NUMBER.fullmatch(cell) is not None or _DATE.match(cell) is not None
