from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from ferroflow.adapters.sources import raw_parquet
from ferroflow.adapters.sources.raw_parquet import write_raw
from ferroflow.core.errors import UnreadableFile


def batches(number: int, rows: int = 1000) -> Iterator[pl.DataFrame]:
    for first in range(1, number * rows, rows):
        numbers = pl.Series("_row", range(first, first + rows), pl.UInt32)
        problem, line = pl.lit(None, pl.String).alias("_problem"), pl.lit(None, pl.String).alias("_line")
        yield pl.DataFrame(numbers).select("_row", pl.col("_row").cast(pl.String).alias("cell"), problem, line)


def test_batches_are_one_file_in_their_order_and_progress_tells_the_rows(tmp_path: Path) -> None:
    told: list[int] = []
    rows, columns = write_raw(batches(300), tmp_path / "part.parquet", told.append)
    assert (rows, columns) == (300_000, {"cell": "String"})
    assert told == list(range(1000, 300_001, 1000))
    assert pl.read_parquet(tmp_path / "part.parquet").equals(pl.concat(batches(300)))


def test_one_row_is_found_without_reading_the_others(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    write_raw(batches(300), path)
    about = pq.read_metadata(path)
    assert [about.row_group(group).num_rows for group in range(about.num_row_groups)] == [122_880, 122_880, 54_240]
    assert all(about.row_group(group).column(0).is_stats_set for group in range(3))
    assert pl.scan_parquet(path).filter(pl.col("_row") == 7).select("cell").collect().item() == "7"


def test_what_reading_raises_is_raised_as_it_is(tmp_path: Path) -> None:
    def breaking() -> Iterator[pl.DataFrame]:
        yield from batches(3)
        raise UnreadableFile("line 3001 is longer than 16 MB")

    with pytest.raises(UnreadableFile, match="line 3001 is longer"):
        write_raw(breaking(), tmp_path / "part.parquet")


def test_disk_that_takes_no_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing"):
        write_raw(batches(3), tmp_path / "missing" / "part.parquet")


def test_no_batch_makes_no_file(tmp_path: Path) -> None:
    assert write_raw([], tmp_path / "part.parquet") == (0, {})
    assert not (tmp_path / "part.parquet").exists()


def test_row_groups_of_a_wide_table_have_fewer_rows_for_the_writer_holds_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_parquet, "_GROUP_CELLS", 10_000)
    batch = pl.DataFrame({f"c{place}": [None] * 500 for place in range(100)}, schema_overrides={"c0": pl.String})
    write_raw(iter([batch] * 4), tmp_path / "rows.parquet")
    found = pq.ParquetFile(tmp_path / "rows.parquet").metadata
    assert max(found.row_group(place).num_rows for place in range(found.num_row_groups)) <= 101
    assert found.num_rows == 2_000
