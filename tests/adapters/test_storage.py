from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from ferroflow.adapters.storage import atomic_bytes, atomic_parquet, read_record, read_table, replacing, write_record
from ferroflow.core.records import Decision

DECISION = Decision(
    pipeline="p", fingerprint="f", retrain=True, reason="because", as_of=datetime(2024, 1, 1, tzinfo=UTC)
)


def test_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_record(tmp_path / "deep" / "record.json", DECISION)
    assert read_record(tmp_path / "deep" / "record.json", Decision) == DECISION


def test_record_that_is_missing_or_torn_is_none(tmp_path: Path) -> None:
    assert read_record(tmp_path / "none.json", Decision) is None
    (tmp_path / "torn.json").write_bytes(DECISION.model_dump_json().encode()[:40])
    assert read_record(tmp_path / "torn.json", Decision) is None


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    atomic_bytes(tmp_path / "file", b"old")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "file") as temporary:
        temporary.write_bytes(b"half of the n")
        1 / 0  # noqa: B018
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_lazy_frame_is_written_in_its_own_order(tmp_path: Path) -> None:
    frame = pl.DataFrame({"x": range(300_000)})
    atomic_parquet(tmp_path / "t.parquet", frame.lazy().with_columns(y=pl.col("x") * 2))
    assert pl.read_parquet(tmp_path / "t.parquet")["x"].equals(frame["x"])


def test_damaged_table_is_none(tmp_path: Path) -> None:
    atomic_parquet(tmp_path / "t.parquet", pl.DataFrame({"x": range(1000)}))
    data = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(data[: len(data) // 2])
    assert read_table(tmp_path / "t.parquet") is None
    assert read_table(tmp_path / "none.parquet") is None
