"""Read one sheet of an Excel workbook (.xlsx) as rows of text cells."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from ferroflow.adapters.sources.workbook import Row, Workbook
from ferroflow.core.sources import reserved
from ferroflow.core.validation import LINE, PROBLEM, ROW

_BATCH = 20_000  # rows
_MAX_CELLS = 4_000_000  # of one batch: a sheet may have 16,384 columns
_OLD = b"\xd0\xcf\x11\xe0"


class ExcelReader:
    """The rows of a sheet; ``blank_rows`` are those before the last row of the sheet without any text so far.

    The first row with a cell holds the names. A cell outside of the named columns makes its row a problem.
    """

    def __init__(self, path: Path, sheet: str | None) -> None:
        self.blank_rows = 0
        self._path = path
        self._sheet = sheet

    def frames(self) -> Iterator[pl.DataFrame]:
        """``_row`` (the sheet's row), the cells as text, ``_problem`` and ``_line`` (the row's cells as JSON).

        Raises:
            ValueError: no workbook, no such sheet, several and none named, or names that are repeated or empty.
        """
        with self._path.open("rb") as file:
            if file.read(4) == _OLD:
                raise ValueError("it is an old or a protected workbook; save it as .xlsx without a password")
        book = Workbook(self._path)
        try:
            rows = self._filled(book.rows(self._chosen(list(book.sheets))))
            header = next(rows, None)
            if header is not None:
                yield from _frames(rows, _columns(header[1]))
        finally:
            book.close()

    def _chosen(self, sheets: list[str]) -> str:
        listed = ", ".join(map(repr, sheets))
        if self._sheet is None and len(sheets) == 1:
            return sheets[0]
        if self._sheet is None:
            raise ValueError(f"it has {len(sheets)} sheets ({listed}), and the source names none: Source(sheet=...)")
        if self._sheet not in sheets:
            raise ValueError(f"it has no sheet {self._sheet!r}, but {listed}")
        return self._sheet

    def _filled(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The rows with some text; the others, and those the file leaves out between them, are counted."""
        last = 0
        for number, cells in rows:
            self.blank_rows += number - last - 1
            last = number
            if any(text.strip() for text in cells.values()):
                yield number, cells
            else:
                self.blank_rows += 1


def _columns(header: dict[int, str]) -> dict[int, str]:
    """Place → name."""
    filled = [place for place, text in header.items() if text.strip()]
    columns = {place: header.get(place, "").strip() for place in range(min(filled), max(filled) + 1)}
    names = list(columns.values())
    if len(set(names)) != len(names) or not all(names):
        raise ValueError(f"its header has repeated or empty names: {', '.join(names)[:200]}")
    if ours := reserved(names):
        raise ValueError(f"its header has a name that is kept for Ferroflow: {', '.join(ours)}")
    return columns


def _frames(rows: Iterator[Row], columns: dict[int, str]) -> Iterator[pl.DataFrame]:
    schema = {ROW: pl.UInt32, **dict.fromkeys((*columns.values(), PROBLEM, LINE), pl.String)}
    batch = min(_BATCH, _MAX_CELLS // len(columns))
    found: list[tuple[int | str | None, ...]] = []
    empty = True
    for number, cells in rows:
        stray = cells.keys() - columns.keys()
        if stray:
            problem = f"{len(stray)} cells outside of the {len(columns)} named columns"
            line = json.dumps([cells.get(place) for place in range(max(cells) + 1)], ensure_ascii=False)
            found.append((number, *(None for _ in columns), problem, line))
        else:
            found.append((number, *(cells.get(place) for place in columns), None, None))
        if len(found) == batch:
            yield pl.DataFrame(found, schema=schema, orient="row")
            found, empty = [], False
    if found or empty:
        yield pl.DataFrame(found, schema=schema, orient="row")
