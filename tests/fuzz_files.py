"""Read mutated files and compare with what the standard library says: ``python -m tests.fuzz_files KIND FIRST COUNT``.

A process of its own, because a native reader may end it. The file ``at`` in the working folder holds the seed that is
being read; what does not hold is said, with its seed, and ends the run.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import resource
import sys
import zipfile
import zlib
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from ferroflow.adapters.sources import ndjson
from ferroflow.adapters.sources.files import RawFile, ReadOptions, read_raw
from ferroflow.core.errors import EmptySource, UnreadableFile
from ferroflow.core.validation import LINE, PROBLEM, ROW
from tests.mutations import FILES, excel_files, excel_row, hurt_inside, mutated

_TEXT = (ROW, PROBLEM, LINE)
_LEAST = {"csv": 0.65, "ndjson": 0.9, "packed": 0.05, "parquet": 0.15, "arrow": 0.15, "excel": 0.2}
"""Share of files that give rows, or the checks of rows would hardly be tried."""
_SAYING = ("workbook", "styles", "sharedStrings", "worksheets/sheet1")
_MANY = 200  # files from which that share is looked at


def main(kind: str, first: int, count: int) -> None:
    files = FILES[kind]()
    ends: Counter[str] = Counter()
    for seed in range(first, first + count):
        Path("at").write_text(str(seed))
        ndjson._FEW_LINES = 200 if seed % 4 else 8  # patterns pay for larger blocks only: here they are to be tried
        # Most accidents end a columnar file at its footer: in every third its values alone are hurt.
        inside = kind in ("parquet", "arrow") and seed % 3 == 0
        ends[fate(kind, hurt_inside(files, seed) if inside else mutated(files, seed))] += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    assert peak < 1_500, f"{peak} MB of memory for files of some kB"
    print(json.dumps(ends), flush=True)
    assert count < _MANY or ends["rows"] >= _LEAST[kind] * count, f"too few of {count} files gave rows: {ends}"


def fate(kind: str, data: bytes) -> str:
    """Read the bytes, check what came, and say how it ended: rows, empty or unreadable."""
    path, target = Path("file"), Path("rows.parquet")
    path.write_bytes(data)
    target.unlink(missing_ok=True)
    try:
        raw = read_raw(path, ReadOptions("csv" if kind == "packed" else kind), f"file.{kind}", target)
    except (UnreadableFile, EmptySource) as error:
        assert not target.exists()
        assert f"file.{kind}" in str(error)
        return type(error).__name__
    rows = pl.read_parquet(target)
    assert rows.height == raw.rows and raw.columns
    if not raw.rows:
        return "no rows"
    assert rows[ROW].is_sorted() and rows[ROW].n_unique() == rows.height and rows[ROW][0] > 0
    assert list(raw.columns) == [name for name in rows.columns if name not in _TEXT]
    CHECKS[kind](data, raw, rows)
    return "rows"


def of_csv(data: bytes, raw: RawFile, rows: pl.DataFrame) -> None:
    """Every line is of the header, a row, a problem or blank; valid files have the rows that Python's csv finds."""
    newline = pl.concat_str(pl.all().exclude(ROW, PROBLEM), separator="", ignore_nulls=True).str.count_matches("\n")
    taken = rows.select(newline.sum() + pl.len()).item() + raw.blank_lines
    lines = data.count(b"\n") + (not data.endswith(b"\n"))
    body = data.removeprefix(b"\xef\xbb\xbf")
    header = next((line for line in body.split(b"\n") if line.strip()), b"")
    assert (lines - taken == 1) if b'"' not in header else (lines - taken >= 1), (lines, taken)
    good = rows.filter(pl.col(PROBLEM).is_null())
    bad = rows.filter(pl.col(PROBLEM).is_not_null())
    assert bad[LINE].null_count() == 0
    assert bad.select(list(raw.columns)).null_count().row(0) == (bad.height,) * len(raw.columns)
    assert good[LINE].null_count() == good.height
    text = _utf8(body)
    if bad.is_empty() and text is not None and "\x00" not in text and "\r" not in text.replace("\r\n", "\n"):
        found = list(csv.reader(io.StringIO(text, newline=""), strict=True))
        width = len(raw.columns)
        expected = [cells for cells in found if len(cells) == width]
        assert all(len(cells) == width or not "".join(cells).strip(" \t\v\f") for cells in found)
        assert [list(cells) for cells in good.select(list(raw.columns)).rows()] == expected[1:]


def of_ndjson(data: bytes, raw: RawFile, rows: pl.DataFrame) -> None:
    """Every line is a row, a problem or blank; a row says what Python's json reads in its line."""
    lines = data.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n").split(b"\n")
    assert rows.height + raw.blank_lines == len(lines)
    for row in rows.rows(named=True):
        line = lines[row.pop(ROW) - 1]
        problem, kept = row.pop(PROBLEM), row.pop(LINE)
        expected = _object(line)
        assert (problem is None) == (expected is not None), (line, problem)
        if expected is None:
            assert kept == (_utf8(line) or line.decode(errors="backslashreplace")).removesuffix("\r"), line
            continue
        assert expected.keys() <= row.keys()
        for key, cell in row.items():
            value = expected.get(key)
            if isinstance(value, dict | list):
                assert _loads(cell) == value
            else:
                assert cell == (str(value).lower() if isinstance(value, bool) else value), (line, key, cell)


def _object(line: bytes) -> dict[str, Any] | None:
    """The object that a line is, numbers as their text; None where it is none, or not one to keep."""
    text = _utf8(line)
    try:
        found = _loads(text or "")
        json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    if isinstance(found, dict) and any(re.fullmatch(r"\*|\^.*\$", key, re.DOTALL) for key in found):
        return None
    good = isinstance(found, dict) and not {"", *_TEXT} & found.keys() and not any("\x00" in key for key in found)
    return found if good else None


def _loads(text: str) -> Any:
    return json.loads(text, parse_int=str, parse_float=str, parse_constant=int, object_pairs_hook=_pairs)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key twice")
    return dict(pairs)


def of_packed(data: bytes, raw: RawFile, rows: pl.DataFrame) -> None:
    """What gzip unpacks, read as CSV."""
    if data.startswith(b"\x1f\x8b"):
        of_csv(gzip.decompress(data), raw, rows)
    elif not data.startswith(b"\x28\xb5\x2f\xfd"):
        of_csv(data, raw, rows)


def of_parquet(data: bytes, raw: RawFile, rows: pl.DataFrame) -> None:
    """The rows that Polars' own reader finds: only what ours could read is safe to give it."""
    assert rows[ROW].to_list() == list(range(1, raw.rows + 1))
    try:
        other = pl.read_parquet(io.BytesIO(data))
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return
    _same(other, rows.drop(ROW))


def of_arrow(data: bytes, raw: RawFile, rows: pl.DataFrame) -> None:
    """As ``of_parquet``, of a file or a stream."""
    assert rows[ROW].to_list() == list(range(1, raw.rows + 1))
    read = pl.read_ipc if data.startswith(b"ARROW1") else pl.read_ipc_stream
    try:
        other = read(io.BytesIO(data))
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return
    _same(other, rows.drop(ROW))


def _same(other: pl.DataFrame, rows: pl.DataFrame) -> None:
    if other.schema == rows.schema:
        assert other.equals(rows)


def of_excel(data: bytes, raw: RawFile, rows: pl.DataFrame) -> None:
    """The numbers of the rows leave out as many as are said to be blank; an intact sheet has the cells written."""
    assert rows[ROW][-1] - raw.rows - 1 <= raw.blank_lines
    if _parts_of(data) != _as_written():
        return
    expected = [excel_row(row) for row in range(1, 40)]
    assert rows.select(ROW, "text", "when", "mixed").rows() == [
        (place, text, str(when), str(mixed)) for place, text, _, when, mixed in expected
    ]
    numbers = [number for _, _, number, _, _ in expected]
    assert all(abs(float(cell) - number) < 1e-14 for cell, number in zip(rows["number"], numbers, strict=True))


@cache
def _as_written() -> dict[str, bytes] | None:
    return _parts_of(excel_files()[0])


def _parts_of(data: bytes) -> dict[str, bytes] | None:
    """What the parts of a workbook that say what a cell is hold; None where one cannot be had."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {name: archive.read(f"xl/{name}.xml") for name in _SAYING}
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, OSError, ValueError, NotImplementedError, RuntimeError):
        return None


def _utf8(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


CHECKS = {
    "csv": of_csv,
    "ndjson": of_ndjson,
    "packed": of_packed,
    "parquet": of_parquet,
    "arrow": of_arrow,
    "excel": of_excel,
}

if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
