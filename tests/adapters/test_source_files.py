from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ferroflow.adapters.sources.files import ReadOptions, read_raw
from ferroflow.core.errors import EmptySource, UnreadableFile
from ferroflow.core.validation import LINE, PROBLEM, ROW

CSV = ReadOptions("csv")


def read(folder: Path, data: bytes | str, options: ReadOptions = CSV) -> pl.DataFrame:
    path = folder / "file.csv"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_raw(path, options, "file.csv").frame


def test_short_and_long_lines_are_kept_with_a_problem(tmp_path: Path) -> None:
    frame = read(tmp_path, "a,b,c\n1,2,3\n4,5\n4,5,\n6,7,8,9\n")
    assert frame[PROBLEM].to_list() == [None, "2 cells instead of 3", None, "4 cells instead of 3"]
    assert frame[LINE].to_list() == [None, "4,5", None, "6,7,8,9"]
    assert frame[ROW].to_list() == [2, 3, 4, 5]


def test_bytes_that_are_no_utf8_are_spelt_out_and_harm_no_other_line(tmp_path: Path) -> None:
    frame = read(tmp_path, b"a,b\n1,caf\xc3\xa9\n2,caf\xe9\n3,x\n")
    assert frame[PROBLEM].to_list() == [None, "bytes that are no UTF-8", None]
    assert frame["b"].to_list() == ["café", None, "x"]
    assert "\\xe9" in frame[LINE][1]


def test_quotes_separators_and_newlines_inside_cells_are_cells(tmp_path: Path) -> None:
    frame = read(tmp_path, 'a,b\n1,"x, y"\n2,"he said ""no"""\n3,"two\nlines, 1"\n4,z\n')
    assert frame["b"].to_list() == ["x, y", 'he said "no"', "two\nlines, 1", "z"]
    assert frame[PROBLEM].null_count() == 4


def test_a_quote_that_is_never_closed_swallows_no_row(tmp_path: Path) -> None:
    lines = "".join(f"{number},x\n" for number in range(500))
    frame = read(tmp_path, f'a,b\n7,"open\n{lines}')
    assert frame[PROBLEM][0] == "a quote that is not closed"
    assert frame.height == 501
    assert frame["a"].to_list()[1:] == [str(number) for number in range(500)]


def test_blank_lines_are_counted_and_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "blank.csv"
    path.write_text("a,b\n1,2\n\n3,4\n\n")
    table = read_raw(path, CSV, "blank.csv")
    assert (table.frame.height, table.blank_lines) == (2, 2)


def test_file_without_header_and_with_lines_before_it_takes_the_names_given(tmp_path: Path) -> None:
    frame = read(tmp_path, "|a note\r\n1, x\r\n", ReadOptions("csv", ("a", "b"), skip_rows=1))
    assert frame.select("a", "b", ROW).rows() == [("1", " x", 2)]


@pytest.mark.parametrize("data", [b"", b"a,b\n", b"a,b\n\n\n"])
def test_file_without_a_row_is_an_empty_source(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(EmptySource, match=r"file\.csv holds no row"):
        read(tmp_path, data)


@pytest.mark.parametrize("header", ["a,a", "a,,b"])
def test_header_with_repeated_or_empty_names_is_unreadable(tmp_path: Path, header: str) -> None:
    with pytest.raises(UnreadableFile, match="repeated or empty"):
        read(tmp_path, f"{header}\n1,2\n")


def test_broken_parquet_is_named_with_its_first_bytes(tmp_path: Path) -> None:
    good = tmp_path / "good.parquet"
    pl.DataFrame({"x": range(1000)}).write_parquet(good)
    for number, data in enumerate([b"<html>no</html>", good.read_bytes()[:-30], b"PAR1" + b"\x07" * 50 + b"PAR1"]):
        path = tmp_path / f"{number}.parquet"
        path.write_bytes(data)
        with pytest.raises(UnreadableFile, match=rf"{number}\.parquet is no readable Parquet file.*begins with b'"):
            read_raw(path, ReadOptions("parquet"), path.name)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=12).filter(lambda line: b"\n" not in line and b"\x00" not in line), max_size=12))
def test_every_line_is_a_row_a_blank_or_a_problem(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(b"a,b\n0,0\n" + b"".join(line + b"\n" for line in lines))
    table = read_raw(path, CSV, "any.csv")
    inner = sum(cell.count("\n") for name in ("a", "b") for cell in table.frame[name].drop_nulls())
    assert table.frame.height + table.blank_lines + inner >= len(lines) + 1
    assert table.frame[ROW].is_sorted()
    assert table.frame[ROW].n_unique() == table.frame.height
    broken = table.frame.filter(pl.col(PROBLEM).is_not_null())
    assert broken[LINE].null_count() == 0
