"""Which lines of a block of delimited text are one row for certain, and how one record is split.

The grammar is that of Python's ``csv`` module with ``strict=True``, on records that end with ``\\n`` or ``\\r\\n``: a
cell that begins with a quote ends with one, ``""`` inside is one quote, and a quote elsewhere in a cell is a letter.
All bytes handed in here end with a newline.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Mask = npt.NDArray[np.bool_]
    Places = npt.NDArray[np.int64]
    Codes = npt.NDArray[np.uint8]

_QUOTE, _NEWLINE, _RETURN = b'"\n\r'
_BLANK = b" \t\v\f\r\n"

BAD_BYTES = "bytes that are no UTF-8"
_WRONG_QUOTE = "a quote in the wrong place"
_OPEN_QUOTE = "a quote that is not closed"


@dataclass
class Lines:
    """The lines of some bytes: the place of each newline, and whether the line is one row for certain."""

    data: bytes
    ends: Places
    plain: Mask

    def start(self, place: int) -> int:
        """Where a line begins; the end of the bytes for those after the last."""
        if place >= len(self.ends):
            return len(self.data)
        return int(self.ends[place - 1]) + 1 if place else 0

    def cut(self, places: Places) -> bytes:
        """The bytes of some lines, in their order."""
        import numpy as np

        if len(places) == len(self.ends):
            return self.data
        if not len(places):
            return b""
        breaks = np.flatnonzero(np.diff(places) != 1)
        firsts = places[np.concatenate(([0], breaks + 1))].tolist()
        lasts = places[np.concatenate((breaks, [len(places) - 1]))].tolist()
        return b"".join(
            self.data[self.start(first) : self.start(last + 1)] for first, last in zip(firsts, lasts, strict=True)
        )


def simple_rows(data: bytes, width: int, separator: bytes) -> int:
    """The number of lines, where it can be told in passing that they are rows; 0: each has to be judged.

    There is no quote, and in all the bytes hold the separators of as many rows. Then either all lines are rows, or one
    has too many cells, which Polars refuses (one with too few it would fill up in silence).
    """
    import numpy as np

    codes = np.frombuffer(data, np.uint8)
    if width == 1 or b'"' in data or len(_stray_returns(data, codes)):
        return 0
    rows = int(np.count_nonzero(codes == _NEWLINE))
    fits = np.count_nonzero(codes == separator[0]) == rows * (width - 1)
    return rows if fits and is_utf8(data) else 0


def judge(data: bytes, width: int, separator: bytes) -> Lines:
    """Find the lines that are one row by themselves: so many cells, each quote at an edge of its cell, UTF-8."""
    import numpy as np

    codes = np.frombuffer(data, np.uint8)
    hits = np.flatnonzero((codes == separator[0]) | (codes == _NEWLINE) | (codes == _QUOTE))
    kinds = codes[hits]
    newlines = np.flatnonzero(kinds == _NEWLINE)
    ends = hits[newlines]
    separators = np.diff(newlines, prepend=-1) - 1
    quotes = np.flatnonzero(kinds == _QUOTE)
    well_quoted = np.ones(len(ends), np.bool_)
    if len(quotes):
        line = np.searchsorted(newlines, quotes)
        count = np.bincount(line, minlength=len(ends))
        rank = np.arange(len(quotes)) - (np.cumsum(count) - count)[line]
        wrong = line[~_at_edge(codes, hits[quotes], rank, separator)]
        well_quoted = (count % 2 == 0) & (np.bincount(wrong, minlength=len(ends)) == 0)
        opening = np.flatnonzero((rank[:-1] % 2 == 0) & (line[:-1] == line[1:]))
        inside = np.bincount(line[opening], quotes[opening + 1] - quotes[opening] - 1, minlength=len(ends))
        separators = separators - count - inside.astype(np.int64)
    plain = well_quoted & (separators == width - 1)
    if width == 1:  # an empty line has the separators of a row, and is none
        sizes = np.diff(ends, prepend=-1) - 1
        plain &= ~((sizes == 0) | ((sizes == 1) & (codes[ends - 1] == _RETURN)))
    # Polars takes a cell that is one return for an empty one.
    plain[np.searchsorted(ends, _stray_returns(data, codes))] = False
    lines = Lines(data, ends, plain)
    if not is_utf8(data):
        for place in np.unique(np.searchsorted(ends, np.flatnonzero(codes >= 128))).tolist():
            plain[place] &= is_utf8(data[lines.start(place) : ends[place]])
    return lines


def _stray_returns(data: bytes, codes: Codes) -> Places:
    """Where returns stand that are not before a newline."""
    import numpy as np

    if b"\r" not in data:
        return np.empty(0, np.int64)
    returns = np.flatnonzero(codes == _RETURN)
    stray: Places = returns[codes[returns + 1] != _NEWLINE]
    return stray


def _at_edge(codes: Codes, places: Places, rank: Places, separator: bytes) -> Mask:
    """Whether a quote that would open a cell stands at its beginning, and one that would close it at its end.

    They take turns: ``rank`` is a quote's number in its line, from 0. A quote beside a quote is an escaped one: it
    closes the cell and opens it again. The bytes end with a newline, so each quote has a byte after it, and that before
    the first byte (-1: the last) begins a line as it should. A return that ends no line is judged elsewhere.
    """
    import numpy as np

    edge = np.zeros(256, np.bool_)
    edge[[separator[0], _NEWLINE, _QUOTE]] = True
    at_edge: Mask = edge[codes[places - 1]]
    closing = np.flatnonzero(rank % 2)
    after = codes[places[closing] + 1]
    at_edge[closing] = edge[after] | (after == _RETURN)
    return at_edge


# ----------------------------------------------------------------------------------------------------------- one record


@dataclass(frozen=True)
class Record:
    """A record split into cells; or why it cannot be, and whether more lines could change that."""

    cells: tuple[bytes, ...] = ()
    end: int = 0  # the place after its newline
    problem: str | None = None
    is_open: bool = False


def record(data: bytes, start: int, separator: bytes, stop: int | None = None) -> Record:
    """Split the record that begins at ``start``; a quote has to be closed before ``stop``."""
    cells: list[bytes] = []
    at, end = start, data.find(b"\n", start)
    while True:
        if data[at] != _QUOTE:
            cut = data.find(separator, at, end)
            if cut < 0:
                return Record((*cells, data[at:end].removesuffix(b"\r")), end + 1)
            cells.append(data[at:cut])
            at = cut + 1
            continue
        close = _closing(data, at + 1, stop)
        if close < 0:
            return Record(problem=_OPEN_QUOTE, is_open=True)
        cells.append(data[at + 1 : close].replace(b'""', b'"'))
        at = close + 1
        end = data.find(b"\n", at)
        if data[at : end + 1] in {b"\n", b"\r\n"}:
            return Record(tuple(cells), end + 1)
        if not data.startswith(separator, at):
            return Record(problem=_WRONG_QUOTE)
        at += 1


def _closing(data: bytes, at: int, stop: int | None) -> int:
    place = data.find(b'"', at, stop)
    while place >= 0 and data[place + 1] == _QUOTE:
        place = data.find(b'"', place + 2, stop)
    return place


def row(data: bytes, start: int, found: Record, width: int) -> tuple[list[str] | None, str | None, int]:
    """The cells of a record, or why it is no row; and the lines it takes (one, unless it has the right cells)."""
    if found.problem is None and len(found.cells) == width:
        count = data.count(b"\n", start, found.end)
        if is_utf8(data[start : found.end]):
            return [cell.decode() for cell in found.cells], None, count
        return None, BAD_BYTES, count
    if not is_utf8(data[start : data.find(b"\n", start)]):
        return None, BAD_BYTES, 1
    if found.problem is None and data.count(b"\n", start, found.end) == 1:
        return None, f"{len(found.cells)} cells instead of {width}", 1
    return None, found.problem or _OPEN_QUOTE, 1


def is_utf8(data: bytes) -> bool:
    """Whether the bytes are UTF-8."""
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def is_blank(line: bytes, separator: bytes, width: int) -> bool:
    """Whether a line holds nothing; white space alone is a cell where there is one column."""
    if width == 1:
        return line in {b"", b"\r"}
    return separator not in line and not line.strip(_BLANK)


def spelt(line: bytes) -> str:
    """A line as text; bytes that are no UTF-8 as ``\\xNN``."""
    return line.removesuffix(b"\r").decode(errors="backslashreplace")
