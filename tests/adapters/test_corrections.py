from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from ferroflow.adapters import corrections
from ferroflow.adapters.corrections import Change, Correction
from ferroflow.adapters.home import Home
from ferroflow.adapters.sources.files import ReadOptions
from ferroflow.core.columns import LINE, PROBLEM, ROW
from ferroflow.core.errors import DataError, NotFound, UsageError
from ferroflow.core.fingerprint import file_digest
from ferroflow.core.records import Part

NOW = datetime(2024, 5, 1, tzinfo=UTC)
TEXT = pl.DataFrame(
    {
        ROW: [2, 3, 4],
        "id": ["1", "2", None],
        "city": ["x", "y", None],
        PROBLEM: [None, None, "1 cells instead of 2"],
        LINE: [None, None, "3"],
    },
    schema_overrides={ROW: pl.UInt32},
)
TYPED = pl.DataFrame(
    {ROW: [1, 2], "n": [1, 2], "day": [date(2024, 1, 1), None], "blob": [b"\x01", None], "items": [[1], [2]]},
    schema_overrides={ROW: pl.UInt32, "n": pl.Int32},
)


def part(home: Home, name: str, rows: pl.DataFrame) -> Part:
    path = home.data("p") / "parts" / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.write_parquet(path)
    return Part(
        fingerprint=name,
        file=f"{name}.csv",
        origin="mirror",
        address="",
        sha256="",
        rows=rows.height,
        columns={column: str(dtype) for column, dtype in rows.schema.items() if column not in (ROW, PROBLEM, LINE)},
        path=home.relative(path),
        ingested_at=NOW,
        digest=file_digest(path),
    )


@pytest.fixture
def parts(home: Home) -> dict[str, Part]:
    return {"text": part(home, "text", TEXT), "typed": part(home, "typed", TYPED)}


def recorded(home: Home, parts: dict[str, Part], **rows: Change) -> Correction | None:
    given = {name.replace("_", ":"): change for name, change in rows.items()}
    return corrections.record(home, "p", given, parts, why="telephone", made_at=NOW)


def laid(home: Home, name: str, rows: pl.DataFrame) -> pl.DataFrame:
    every = corrections.changes(home, "p", corrections.current(home, "p"))
    return corrections.laid_over(rows.lazy(), every.get(name, {}), ReadOptions("csv"), f"{name}.csv").collect()


def test_later_cells_win_and_a_later_line_undoes_cells(home: Home, parts: dict[str, Part]) -> None:
    recorded(home, parts, text_2=Change(cells={"id": "7", "city": None}))
    recorded(home, parts, text_2=Change(cells={"id": "8"}), text_3=Change(cells={"city": "z"}))
    recorded(home, parts, text_3=Change(line="9,w"))
    assert laid(home, "text", TEXT).select("id", "city").rows()[:2] == [("8", None), ("9", "w")]


def test_line_that_made_no_row_becomes_one_or_says_what_is_still_wrong(home: Home, parts: dict[str, Part]) -> None:
    recorded(home, parts, text_4=Change(line='3,"a,b"'))
    assert laid(home, "text", TEXT).row(2) == (4, "3", "a,b", None, None)
    recorded(home, parts, text_4=Change(line="3,a,b"))
    assert laid(home, "text", TEXT).row(2) == (4, None, None, "3 cells instead of 2", "3,a,b")
    recorded(home, parts, text_4=Change(line="3,a"))
    recorded(home, parts, text_4=Change(cells={"city": "b"}))
    assert laid(home, "text", TEXT).row(2) == (4, "3", "b", None, None)


def test_values_take_the_raw_columns_type(home: Home, parts: dict[str, Part]) -> None:
    recorded(home, parts, typed_2=Change(cells={"n": " 9 ", "day": "2024-02-29", "blob": "ff00"}))
    assert laid(home, "typed", TYPED).row(1) == (2, 9, date(2024, 2, 29), b"\xff\x00", [2])
    assert laid(home, "typed", TYPED).schema == TYPED.schema


@pytest.mark.parametrize(
    ("rows", "kind", "told"),
    [
        ({"other_1": Change(cells={"id": "1"})}, NotFound, "no raw part is named 'other'"),
        ({"text_9": Change(cells={"id": "1"})}, NotFound, r"Row text:9 \(text.csv\) is not there"),
        ({"text_2": Change(cells={"name": "1"})}, NotFound, "no raw column 'name'. It has: id, city"),
        ({"text_4": Change(cells={"id": "1"})}, UsageError, "is no row .* give its whole line"),
        ({"typed_1": Change(line="1,2")}, UsageError, "did not come as a line of text"),
        ({"typed_1": Change(cells={"n": "1.5"})}, UsageError, "n='1.5': column 'n' came as Int32"),
        ({"typed_1": Change(cells={"n": "99999999999"})}, UsageError, "no Int32"),
        ({"typed_1": Change(cells={"blob": "xyz"})}, UsageError, "no Binary"),
        ({"typed_1": Change(cells={"items": "1"})}, UsageError, "'items' came as List"),
    ],
)
def test_correction_of_what_is_not_there_or_cannot_be_is_refused(
    home: Home, parts: dict[str, Part], rows: dict[str, Change], kind: type[Exception], told: str
) -> None:
    with pytest.raises(kind, match=told):
        recorded(home, parts, **rows)
    assert corrections.history(home, "p") == []


def test_same_correction_again_is_none(home: Home, parts: dict[str, Part]) -> None:
    assert corrections.current(home, "p") == ""
    first = recorded(home, parts, text_2=Change(cells={"id": "7"}))
    assert first is not None
    assert recorded(home, parts, text_2=Change(cells={"id": "7"})) is None
    assert corrections.current(home, "p") == first.fingerprint


def test_each_state_of_the_corrections_can_be_had_again(home: Home, parts: dict[str, Part]) -> None:
    first = recorded(home, parts, text_2=Change(cells={"id": "7"}))
    recorded(home, parts, text_2=Change(cells={"id": "8"}))
    assert first is not None
    assert corrections.changes(home, "p", first.fingerprint)["text"][2].cells == {"id": "7"}
    assert corrections.changes(home, "p", "") == {}
    with pytest.raises(DataError, match="up to unknown are not in"):
        corrections.changes(home, "p", "unknown")


def test_two_writers_lose_no_correction(home: Home, parts: dict[str, Part]) -> None:
    def write(number: int) -> None:
        recorded(home, parts, **{f"text_{2 + number % 2}": Change(cells={"id": str(100 + number)})})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(40)))
    assert len(corrections.history(home, "p")) == 40


@pytest.mark.parametrize("harm", ["flipped", "cut", "removed"])
def test_damaged_correction_is_an_error_that_names_its_file(home: Home, parts: dict[str, Part], harm: str) -> None:
    for number in ("7", "8"):
        recorded(home, parts, text_2=Change(cells={"id": number}))
    path: Path = home.data("p") / "corrections" / "000001.json"
    data = path.read_bytes()
    if harm == "removed":
        path.unlink()
    else:
        path.write_bytes(data[:-9] if harm == "cut" else data.replace(b'"7"', b'"1"'))
    with pytest.raises(DataError, match=r"000001\.json"):
        corrections.current(home, "p")


def test_expired_values_are_gone_and_later_corrections_still_fit(home: Home, parts: dict[str, Part]) -> None:
    recorded(home, parts, text_2=Change(cells={"id": "secret"}), text_3=Change(cells={"id": "5"}))
    last = recorded(home, parts, text_3=Change(cells={"id": "6"}))
    corrections.expire(home, "p", {"text:2"})
    assert last is not None
    assert corrections.current(home, "p") == last.fingerprint
    assert b"secret" not in (home.data("p") / "corrections" / "000001.json").read_bytes()
    assert laid(home, "text", TEXT)["id"].to_list() == ["1", "6", None]


def test_line_of_ndjson_is_read_as_its_source_reads_it(home: Home) -> None:
    rows = TEXT.with_columns(pl.col(LINE).replace("3", "{"))
    by_name = {"json": part(home, "json", rows)}
    recorded(home, by_name, json_4=Change(line='{"city": "b", "id": 3}'))
    every = corrections.changes(home, "p", corrections.current(home, "p"))["json"]
    laid = corrections.laid_over(rows.lazy(), every, ReadOptions("ndjson"), "json.ndjson").collect()
    assert laid.row(2) == (4, "3", "b", None, None)
    recorded(home, by_name, json_4=Change(line='{"city": "b", "name": 3}'))
    every = corrections.changes(home, "p", corrections.current(home, "p"))["json"]
    laid = corrections.laid_over(rows.lazy(), every, ReadOptions("ndjson"), "json.ndjson").collect()
    assert laid[PROBLEM][2] == "corrected to a line with other columns: name"
