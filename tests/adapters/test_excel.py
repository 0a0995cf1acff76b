import math
import zipfile
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import xlsxwriter

from ferroflow.adapters.sources import excel
from ferroflow.adapters.sources.excel_cells import kind_of, moment_text, number_text, unescaped
from ferroflow.adapters.sources.files import ReadOptions, read_frame, read_raw
from ferroflow.core.errors import EmptySource, UnreadableFile
from ferroflow.core.validation import LINE, PROBLEM, ROW

EXCEL = ReadOptions("excel")
FORMATS = {datetime: "yyyy-mm-dd hh:mm:ss.000", date: "dd/mm/yy", time: "hh:mm"}


def a_book(path: Path, *sheets: list[list[Any]], from_1904: bool = False) -> Path:
    """A workbook of sheets ``one``, ``two``, …; None leaves a cell out, what begins with ``=`` is a formula."""
    with xlsxwriter.Workbook(path, {"nan_inf_to_errors": True, "date_1904": from_1904}) as book:
        formats = {kind: book.add_format({"num_format": code}) for kind, code in FORMATS.items()}
        for name, rows in zip(("one", "two", "three"), sheets, strict=False):
            sheet = book.add_worksheet(name)
            for row, cells in enumerate(rows):
                for column, value in enumerate(cells):
                    if value is not None:
                        sheet.write(row, column, value, *([formats[type(value)]] if type(value) in formats else []))
    return path


def test_every_cell_is_kept_as_text_without_loss(tmp_path: Path) -> None:
    rows = [
        ["text", "number", "when", "mixed"],
        ["007", 0.1, datetime(2024, 1, 2, 3, 4, 5, 678_000), "x"],
        ["1.0", 1e300, date(2024, 1, 3), 12],
        ["  a ", 123456789012345, time(3, 4), True],
        ["two\nlines_x0041_", -1e-7, datetime(1900, 1, 5), math.nan],
        ["æ", 45000.25, datetime(1900, 3, 1), "=1/0"],
    ]
    frame = read_frame(a_book(tmp_path / "a.xlsx", rows), EXCEL, "a.xlsx")
    assert frame["text"].to_list() == ["007", "1.0", "  a ", "two\nlines_x0041_", "æ"]
    assert frame["number"].to_list() == ["0.1", "1e+300", "123456789012345", "-1e-07", "45000.25"]
    assert frame["when"].to_list() == [
        "2024-01-02 03:04:05.678",
        "2024-01-03",
        "03:04:00",
        "1900-01-05 00:00:00",
        "1900-03-01 00:00:00",
    ]
    assert frame["mixed"].to_list()[:4] == ["x", "12", "true", "#NUM!"], "an error is a text, not a null"


def test_rows_have_the_numbers_of_the_sheet_and_blank_ones_are_counted(tmp_path: Path) -> None:
    rows = [[], [None, "a", "b"], [None, 1, 2], [], [None, "  "], [None, None, 4]]
    target = tmp_path / "rows.parquet"
    raw = read_raw(a_book(tmp_path / "a.xlsx", rows), EXCEL, "a.xlsx", target)
    assert (raw.rows, raw.blank_lines, raw.columns) == (2, 3, {"a": "String", "b": "String"})
    assert pl.read_parquet(target).select(ROW, "a", "b").rows() == [(3, "1", "2"), (6, None, "4")]


def test_cell_outside_of_the_named_columns_makes_its_row_a_problem(tmp_path: Path) -> None:
    frame = read_frame(a_book(tmp_path / "a.xlsx", [["a", "b"], [1, 2], [3, 4, "note"]]), EXCEL, "a.xlsx")
    assert frame[PROBLEM].to_list() == [None, "1 cells outside of the 2 named columns"]
    assert frame[LINE].to_list() == [None, '["3", "4", "note"]']
    assert frame["a"].to_list() == ["1", None]


def test_the_named_sheet_is_read_and_several_without_a_name_are_unreadable(tmp_path: Path) -> None:
    path = a_book(tmp_path / "a.xlsx", [["a"], [1]], [["b"], [2]])
    assert read_frame(path, ReadOptions("excel", sheet="two"), "a.xlsx")["b"].to_list() == ["2"]
    with pytest.raises(UnreadableFile, match=r"a\.xlsx is no readable Excel file: it has 2 sheets \('one', 'two'\)"):
        read_frame(path, EXCEL, "a.xlsx")
    with pytest.raises(UnreadableFile, match="no sheet 'nine', but 'one', 'two'"):
        read_frame(path, ReadOptions("excel", sheet="nine"), "a.xlsx")


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (["a", "a"], "repeated or empty"),
        (["a", None, "b"], "repeated or empty"),
        (["_row"], "kept for Ferroflow"),
        (["_typed:a"], "kept for Ferroflow"),
    ],
)
def test_header_without_a_form_is_unreadable(tmp_path: Path, header: list[str], problem: str) -> None:
    with pytest.raises(UnreadableFile, match=problem):
        read_frame(a_book(tmp_path / "a.xlsx", [header, [1, 2, 3]]), EXCEL, "a.xlsx")


def test_sheet_without_a_row_is_empty_and_what_is_no_workbook_unreadable(tmp_path: Path) -> None:
    for rows in ([], [["a", "b"]]):
        with pytest.raises(EmptySource):
            read_frame(a_book(tmp_path / "a.xlsx", rows), EXCEL, "a.xlsx")
    path = tmp_path / "b.xlsx"
    for data, problem in (
        (b"\xd0\xcf\x11\xe0" + b"\0" * 600, "an old or a protected workbook"),
        (b"a,b\n", "not a zip"),
    ):
        path.write_bytes(data)
        with pytest.raises(UnreadableFile, match=problem):
            read_frame(path, EXCEL, "b.xlsx")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no workbook")
    with pytest.raises(UnreadableFile, match="a part of it is missing"):
        read_frame(path, EXCEL, "b.xlsx")


def test_wide_sheet_is_read_in_batches_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(excel, "_MAX_CELLS", 1_000)
    rows: list[list[Any]] = [[f"c{place}" for place in range(300)], *([row] for row in range(10))]
    frames = list(excel.ExcelReader(a_book(tmp_path / "a.xlsx", rows), None).frames())
    assert [frame.height for frame in frames] == [3, 3, 3, 1]
    assert pl.concat(frames)["c0"].to_list() == [str(row) for row in range(10)]


@pytest.mark.parametrize("from_1904", [False, True])
def test_values_are_those_that_calamine_finds(tmp_path: Path, from_1904: bool) -> None:
    import fastexcel

    rows: list[list[Any]] = [["text", "number", "when"]]
    rows += [
        [f"text {row} é <&>", row * 7919 % 1000 / 7, datetime(2020 + row % 9, 1 + row % 12, 1 + row % 28, row % 24, 5)]
        for row in range(500)
    ]
    path = a_book(tmp_path / "a.xlsx", rows, from_1904=from_1904)
    other = fastexcel.read_excel(path).load_sheet(0).to_polars()
    found = read_frame(path, EXCEL, "a.xlsx")
    assert found["text"].to_list() == other["text"].to_list()
    assert found["number"].cast(pl.Float64).to_list() == other["number"].to_list()
    assert found["when"].str.to_datetime("%Y-%m-%d %H:%M:%S").to_list() == other["when"].to_list()


@pytest.mark.parametrize(
    ("number", "code", "kind"),
    [
        (14, None, "date"),
        (22, None, "moment"),
        (46, None, "number"),
        (2, None, "number"),
        (164, "[h]:mm:ss", "number"),
        (164, "0.00E+00", "number"),
        (164, '"day" 0', "number"),
        (164, "[$-409]d\\-mmm\\-yy;@", "date"),
        (164, "[Red]mmmm", "date"),
        (164, "h:mm AM/PM", "time"),
        (164, "yyyy-mm-dd hh:mm", "moment"),
        (0, "General", "number"),
    ],
)
def test_number_format_tells_dates_from_numbers(number: int, code: str | None, kind: str) -> None:
    assert kind_of(number, code) == kind


def test_numbers_without_a_day_or_a_value_are_kept_as_they_stand() -> None:
    assert [moment_text(text, "moment", False) for text in ("60", "-1", "3000000", "x", "0.5")] == [
        "60",
        "-1",
        "3000000",
        "x",
        "0.5",
    ]
    assert moment_text("0", "date", True) == "1904-01-01"
    assert [number_text(text) for text in ("3.2999999999999998", "1E+16", "-0", "1e999", "0.10", "abc")] == [
        "3.3",
        "10000000000000000",
        "-0.0",
        "1e999",
        "0.1",
        "abc",
    ]
    assert unescaped("a_x000D_b_xD800__x005F_") == "a\rb_xD800__"
