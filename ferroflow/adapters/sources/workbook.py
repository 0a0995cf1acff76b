"""The parts of an Excel workbook (Office Open XML): a zip archive of XML files, read row by row."""

from __future__ import annotations

import errno
import lzma
import posixpath
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from xml.etree import ElementTree

from ferroflow.adapters.sources.excel_cells import Kind, kind_of, moment_text, number_text, unescaped

MAX_UNPACKED = 4 << 30
"""Bytes that all files in the archive may unpack to."""
_MAX_ROWS, _MAX_COLUMNS = 1_048_576, 16_384  # of Excel itself
_REFERENCE = re.compile(r"([A-Z]{1,3})([1-9][0-9]{0,6})")

Row = tuple[int, dict[int, str]]
"""A row's number in the sheet, from 1, and its cells by column, from 0; empty cells are left out."""


class Workbook:
    """An opened workbook.

    Raises:
        ValueError: the bytes are no workbook; here, or while rows are read.
    """

    def __init__(self, path: Path) -> None:
        with _as_value_error():
            self._archive = zipfile.ZipFile(path)
            if sum(entry.file_size for entry in self._archive.infolist()) > MAX_UNPACKED:
                raise ValueError(f"it unpacks to more than {MAX_UNPACKED:,} bytes")
            main = next(
                (target for target, kind in self._related("").values() if kind == "officeDocument"), "xl/workbook.xml"
            )
            self._parts = self._related(main)
            book = self._tree(main)
            self._from_1904 = any(
                entry.get("date1904") in ("1", "true") for entry in book.iter() if _name(entry) == "workbookPr"
            )
            sheets = [entry for entry in book.iter() if _name(entry) == "sheet"]
            self.sheets = {entry.get("name", ""): place for entry in sheets if (place := self._sheet(entry))}
            """Each work sheet's name and its file in the archive."""
            self._texts = self._shared_texts()
            self._kinds = self._number_kinds()

    def close(self) -> None:
        """Close the file."""
        self._archive.close()

    def rows(self, sheet: str) -> Iterator[Row]:
        """The rows of a sheet that the file holds, in their order."""
        with _as_value_error(), self._archive.open(self.sheets[sheet]) as file:
            last = 0
            for entry in _elements(file, "row"):
                number = int(entry.get("r", last + 1))
                if not last < number <= _MAX_ROWS:
                    raise ValueError(f"row {number} comes after row {last}")
                last = number
                yield number, self._cells(entry)

    def _cells(self, row: ElementTree.Element) -> dict[int, str]:
        cells: dict[int, str] = {}
        column = -1
        for entry in row:
            if _name(entry) != "c":
                continue
            column = _column(entry.get("r")) if entry.get("r") else column + 1
            if column in cells or column >= _MAX_COLUMNS:
                raise ValueError(f"a cell stands twice, or outside of a sheet: {entry.get('r')}")
            text = self._text(entry)
            if text is not None:
                cells[column] = text
        return cells

    def _text(self, cell: ElementTree.Element) -> str | None:
        kind = cell.get("t", "n")
        parts = {_name(entry): entry for entry in cell}
        if kind == "inlineStr":
            return _plain(parts["is"]) if "is" in parts else None
        value = parts["v"].text if "v" in parts else None
        if value is None:
            return None
        if kind == "s":
            place = int(value)
            if not 0 <= place < len(self._texts):
                raise ValueError(f"a cell names text {place} of {len(self._texts)}")
            return self._texts[place]
        if kind == "b":
            return {"1": "true", "0": "false"}.get(value, value)
        if kind != "n":
            return unescaped(value) if kind == "str" else value
        style = int(cell.get("s", 0))
        of = self._kinds[style] if 0 <= style < len(self._kinds) else "number"
        return number_text(value) if of == "number" else moment_text(value, of, self._from_1904)

    # ----------------------------------------------------------------------------------------------------------- parts

    def _sheet(self, entry: ElementTree.Element) -> str | None:
        """The file of a work sheet; None for a sheet of another kind (a chart)."""
        key = next((value for name, value in entry.items() if name.endswith("}id")), "")
        target, kind = self._parts.get(key, ("", ""))
        return target if kind == "worksheet" else None

    def _related(self, part: str) -> dict[str, tuple[str, str]]:
        """What a part refers to: id → its file in the archive and the last word of its type."""
        folder, file = posixpath.split(part)
        try:
            tree = self._tree(posixpath.join(folder, "_rels", f"{file}.rels"))
        except KeyError:
            return {}
        return {
            entry.get("Id", ""): (
                posixpath.normpath(posixpath.join("/", folder, entry.get("Target", ""))).lstrip("/"),
                entry.get("Type", "").rsplit("/", 1)[-1],
            )
            for entry in tree
        }

    def _part(self, kind: str) -> str | None:
        return next((target for target, of in self._parts.values() if of == kind), None)

    def _shared_texts(self) -> list[str]:
        place = self._part("sharedStrings")
        if place is None:
            return []
        with self._archive.open(place) as file:
            return [_plain(entry) for entry in _elements(file, "si")]

    def _number_kinds(self) -> list[Kind]:
        """What the numbers of each cell style are."""
        place = self._part("styles")
        if place is None:
            return []
        tree = self._tree(place)
        codes = {
            int(entry.get("numFmtId", 0)): entry.get("formatCode", "")
            for entry in tree.iter()
            if _name(entry) == "numFmt"
        }
        styles = next((entry for entry in tree if _name(entry) == "cellXfs"), ())
        numbers = [int(entry.get("numFmtId", 0)) for entry in styles]
        return [kind_of(number, codes.get(number)) for number in numbers]

    def _tree(self, place: str) -> ElementTree.Element:
        with self._archive.open(place) as file:
            return ElementTree.parse(file).getroot()


@contextmanager
def _as_value_error() -> Iterator[None]:
    """Whatever the archive, its packing and its XML say about wrong bytes, as one error."""
    try:
        yield
    except KeyError as error:
        raise ValueError(f"a part of it is missing: {error.args[0] if error.args else error}") from error
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        ElementTree.ParseError,
        EOFError,
        IndexError,
        LookupError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise ValueError(f"it is no workbook: {error}") from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise ValueError("it is no workbook: it refers to a place outside of the file") from error


def _elements(file: IO[bytes], name: str) -> Iterator[ElementTree.Element]:
    """The elements of that name, each forgotten when the next is asked for."""
    root: ElementTree.Element | None = None
    parents: list[ElementTree.Element] = []
    for event, element in ElementTree.iterparse(file, ("start", "end")):
        if event == "start":
            root = element if root is None else root
            parents.append(element)
            continue
        parents.pop()
        if _name(element) == name:
            yield element
            if parents:
                parents[-1].clear()


def _name(element: ElementTree.Element) -> str:
    """The element's name without its name space, which differs between editions of the format."""
    return str(element.tag).rsplit("}", 1)[-1]


def _plain(element: ElementTree.Element) -> str:
    """The text of a string, its formats and its phonetic guides left out."""
    texts = [entry for entry in element if _name(entry) == "t"]
    runs = [entry for run in element if _name(run) == "r" for entry in run if _name(entry) == "t"]
    return unescaped("".join(entry.text or "" for entry in texts + runs))


def _column(reference: str | None) -> int:
    """The column, from 0, of a reference such as ``AB12``."""
    found = _REFERENCE.fullmatch(reference or "")
    if found is None:
        raise ValueError(f"a cell stands at {reference!r}")
    column = 0
    for letter in found[1]:
        column = column * 26 + ord(letter) - ord("A") + 1
    return column - 1
