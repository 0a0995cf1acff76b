import io
import json
import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ferroflow.adapters.sources import ndjson
from ferroflow.adapters.sources.files import ReadOptions, read_frame, read_raw
from ferroflow.adapters.sources.json_lines import BadLine, cells_of
from ferroflow.adapters.sources.ndjson import NdjsonReader
from ferroflow.core.errors import EmptySource, UnreadableFile
from ferroflow.core.validation import LINE, PROBLEM, ROW

NDJSON = ReadOptions("ndjson")


def read(folder: Path, data: bytes | str) -> pl.DataFrame:
    path = folder / "file.ndjson"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_frame(path, NDJSON, "file.ndjson")


def test_every_cell_is_the_text_that_stands_there(tmp_path: Path) -> None:
    line = (
        '{"a": 1e5, "b": -0.10, "c": 123456789012345678901234567890, "d": "x\\n\\u00e9", "e": true, "f": null,'
        ' "g": {"k": [1, 2.50]}, "h": [], "i": "null", "j": ""}'
    )
    cells = read(tmp_path, line).row(0, named=True)
    assert [cells[key] for key in "abcdefghij"] == [
        "1e5",
        "-0.10",
        "123456789012345678901234567890",
        "x\né",
        "true",
        None,
        '{"k": [1, 2.50]}',
        "[]",
        "null",
        "",
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"[1]", "no JSON object"),
        (b'"text"', "no JSON object"),
        (b'{"a":1', "broken JSON: ',' or '}' is expected at character 7"),
        (b'{"a":01}', "broken JSON: ',' or '}' is expected at character 7"),
        (b"{'a':1}", "broken JSON: a key in quotes is expected at character 2"),
        (b'{"a":1}{"a":2}', "something after its JSON object, at character 8"),
        (b'{"a":1,"a":1}', "the key 'a' twice"),
        (b'{"a":{"b":1,"b":2}}', "the key 'b' twice"),
        (b'{"a":NaN}', "NaN, which is no JSON"),
        (b'{"a":[-Infinity]}', "-Infinity, which is no JSON"),
        (b'{"a":"caf\xe9"}', "bytes that are no UTF-8"),
        (b'{"a":"\\ud800"}', "broken JSON: half of a character (a lone surrogate)"),
        (b'{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}", "JSON nested deeper than 100 levels"),
        (b'{"_row":1}', "the key '_row', which is kept for Ferroflow"),
        (b'{"_raw:a":1}', "the key '_raw:a', which is kept for Ferroflow"),
        (b'{"":1}', "a key without a name"),
        (b'{"*":1}', "the key '*', which means several columns"),
    ],
)
def test_line_that_is_no_object_is_kept_with_its_problem_and_harms_no_other(
    tmp_path: Path, line: bytes, problem: str
) -> None:
    frame = read(tmp_path, b'{"a":1}\n' * 20 + line + b'\r\n{"a":2}\n')
    assert frame[PROBLEM].to_list() == [None] * 20 + [problem, None]
    assert frame[LINE][20] == line.decode(errors="backslashreplace")
    assert frame["a"].to_list() == ["1"] * 20 + [None, "2"]
    assert frame[ROW].to_list() == list(range(1, 23))


def test_blank_lines_are_counted_and_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "blank.ndjson"
    path.write_bytes(b'\xef\xbb\xbf{"a":1}\r\n\r\n \t\n{"a":2}')
    raw = read_raw(path, NDJSON, "blank", tmp_path / "rows.parquet")
    assert (raw.rows, raw.blank_lines, raw.columns) == (2, 2, {"a": "String"})


@pytest.mark.parametrize("block", [7, 64, 1 << 20])
def test_keys_are_those_of_the_whole_file_in_order_of_appearance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(ndjson, "_BLOCK", block)
    rows = [{"b": 1}, {"a": "x", "b": 2}, {"c": None}, {"b": 3, "a": "y"}] * 10
    frame = read(tmp_path, "".join(json.dumps(row) + "\n" for row in [*rows, {"z": True}]))
    assert frame.columns == [ROW, "b", "a", "c", "z", PROBLEM, LINE]
    assert frame["b"].to_list() == ["1", "2", None, "3"] * 10 + [None]
    assert frame["a"].to_list() == [None, "x", None, "y"] * 10 + [None]
    assert frame["z"].to_list() == [None] * 40 + ["true"]


@pytest.mark.parametrize("data", ['[{"a": 1},\n{"a": 2}]\n', "no json\n", "{}\n{}\n"])
def test_file_without_an_object_that_has_a_key_is_unreadable(tmp_path: Path, data: str) -> None:
    if data.startswith("["):
        data = json.dumps([{"a": 1}], indent=1)
    with pytest.raises(UnreadableFile, match=r"file\.ndjson is no readable NDJSON file: none of its \d lines is"):
        read(tmp_path, data)


def test_file_of_blank_lines_is_empty(tmp_path: Path) -> None:
    with pytest.raises(EmptySource, match="holds no row"):
        read(tmp_path, "\n\n")


def test_too_many_keys_and_a_line_without_end_are_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ndjson, "MAX_KEYS", 50)
    with pytest.raises(UnreadableFile, match="more than 50 different keys"):
        read(tmp_path, "".join(f'{{"k{row}": 1}}\n' for row in range(60)))
    monkeypatch.setattr(ndjson, "_BLOCK", 1 << 10)
    monkeypatch.setattr(ndjson, "MAX_LINE", 10 << 10)
    with pytest.raises(UnreadableFile, match="a line of more than"):
        read(tmp_path, '{"a": "' + "x" * 20_000)


def test_few_cells_under_many_keys_come_in_frames_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ndjson, "_MAX_CELLS", 20_000)
    lines = [b'{"k%d":%d}' % (row % 300, row) if row % 50 else b"broken" for row in range(3_000)]
    frames = list(NdjsonReader(io.BytesIO(b"\n".join(lines))).frames())
    assert max(frame.height * frame.width for frame in frames) < 20_000 + frames[0].width
    rows = pl.concat(frames)
    assert rows[ROW].to_list() == list(range(1, 3_001))
    keys = pl.coalesce(pl.all().exclude(ROW, PROBLEM, LINE))
    assert rows.select(keys).to_series().to_list() == [str(row) if row % 50 else None for row in range(3_000)]
    assert rows[LINE].drop_nulls().to_list() == ["broken"] * 60


TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
VALUE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXT,
    st.sampled_from(['"', "\\", "null", "true", "1", ",", "}", "]"]),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(TEXT, st.integers(), max_size=2),
)
KEY = st.one_of(st.sampled_from(["a", "*", "^a.*$", "b c", "é", "x.y", "k-1", "[0]", "(a|b)", "$", "#&~"]), TEXT)
ROWS = st.lists(st.dictionaries(KEY, VALUE, max_size=40), min_size=1, max_size=6)


@settings(max_examples=100, deadline=None)
@given(ROWS, st.integers(1, 4), st.booleans(), st.booleans())
def test_the_fast_way_reads_what_the_exact_way_reads_and_cells_give_the_values_back(
    rows: list[dict[str, Any]], times: int, compact: bool, ascii_only: bool
) -> None:
    gaps = (",", ":") if compact else None
    lines = [json.dumps(row, ensure_ascii=ascii_only, separators=gaps) for row in rows] * times
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ndjson, "_FEW_LINES", 2)
        frames = list(NdjsonReader(io.BytesIO("".join(line + "\n" for line in lines).encode())).frames())
    assert len(frames) == 1
    for line, found in zip(lines, frames[0].rows(named=True), strict=True):
        try:
            exact = cells_of(line)
        except BadLine as problem:
            assert found[PROBLEM] == str(problem)
            continue
        assert found[PROBLEM] is None
        keys = [key for key in found if key not in (ROW, PROBLEM, LINE)]
        assert {key: found[key] for key in keys} == {key: exact.get(key) for key in keys}
        for key, value in json.loads(line).items():
            assert _same(found[key], value)


def _same(cell: str | None, value: Any) -> bool:
    if value is None or isinstance(value, str):
        return cell == value
    other = json.loads(cell or "")
    return type(other) is type(value) and (other == value or (math.isnan(other) and math.isnan(value)))


def test_lines_of_one_shape_are_read_by_the_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    read_exactly: list[str] = []
    monkeypatch.setattr(ndjson, "cells_of", lambda line: read_exactly.append(line) or cells_of(line))
    keys = {f"key {place} é": place / 7 if place % 2 else f"text {place}" for place in range(40)}
    data = (json.dumps(keys, ensure_ascii=False) + "\n").encode() * 5_000
    (frame,) = NdjsonReader(io.BytesIO(data)).frames()
    assert frame.height == 5_000 and frame.null_count().row(0)[:-2] == (0,) * 41
    assert len(read_exactly) <= ndjson._SEEN
