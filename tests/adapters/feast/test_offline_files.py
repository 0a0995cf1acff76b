"""What lies in the offline store's files and folders, and what is refused there."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from feast import FeatureView, Field, FileSource
from feast.types import Float64, Int64

from ferroflow.adapters.feast.scans import Place
from ferroflow.core.errors import DataError
from tests.adapters.feast.test_offline_store import RIDES, STOP, a_store, after, pulled, rides


def test_of_corrections_without_a_created_time_the_last_written_wins_every_time(tmp_path: Path) -> None:
    def told(value: float) -> pa.Table:
        return pl.DataFrame({"stop": [1], "at": [after(0)], "level": [value]}).to_arrow()

    source = FileSource(name="late", path="parts", timestamp_field="at")
    fields = [Field(name="stop", dtype=Int64), Field(name="level", dtype=Float64)]
    (tmp_path / "parts").mkdir()
    pl.DataFrame(told(0.0)).write_parquet(tmp_path / "parts" / "part-begun.parquet")
    store = a_store(tmp_path)
    store.apply([STOP, FeatureView(name="late", entities=[STOP], schema=fields, source=source)])
    rows = pl.DataFrame({"stop": [1], "event_timestamp": [after(1)]})
    for number in range(1, 9):
        view, offline = store.get_feature_view("late"), store._get_provider().offline_store
        offline.offline_write_batch(store.config, view, told(float(number)), None)
        assert store.get_historical_features(rows, ["late:level"]).to_polars()["level"].to_list() == [number]


def test_a_folder_whose_files_cannot_be_read_is_not_added_to(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "a.parquet").write_text("no Parquet file at all")
    store = a_store(tmp_path)
    with pytest.raises(DataError, match="parts cannot be read as Parquet"):
        store._get_provider().offline_store.offline_write_batch(store.config, rides("parts"), RIDES.to_arrow(), None)
    assert len(list((tmp_path / "parts").iterdir())) == 1


def test_the_folders_that_a_source_lies_in_give_no_columns(tmp_path: Path) -> None:
    home = tmp_path / "n=7" / "run=3"
    for path in ("rows/a", "hive/stop=1/a", "mixed/stop=1/a"):
        (home / path).parent.mkdir(parents=True)
    RIDES.write_parquet(home / "rows" / "a.parquet")
    first = RIDES.filter(pl.col("stop") == 1)
    first.drop("stop", "n").write_parquet(home / "hive" / "stop=1" / "a.parquet")
    first.drop("stop").write_parquet(home / "mixed" / "stop=1" / "a.parquet")
    for address in ("rows", "rows/*.parquet"):
        table = Place(f"{home}/{address}").scan().collect()
        assert table.equals(RIDES)  # n as in the file, not as in the path
    assert Place(f"{home}/hive").scan().collect_schema().names() == ["at", "made", "mean_of_it", "stop"]
    assert "run" in Place(f"{tmp_path}/*/run=*/rows/*.parquet").scan().collect_schema()
    with pytest.raises(DataError, match=r"the columns \['n'\] of its files are also named by the folders"):
        Place(f"{home}/mixed").scan()


@pytest.mark.parametrize("name", ["pull_all_from_table_or_query", "pull_latest_from_table_or_query"])
def test_rows_without_an_event_time_are_counted_and_refused_when_pulled(tmp_path: Path, name: str) -> None:
    RIDES.with_columns(pl.when(pl.col("n") > 2).then("at").alias("at")).write_parquet(tmp_path / "rides.parquet")
    store = a_store(tmp_path)
    store.apply([STOP, rides("rides.parquet")])
    with pytest.raises(DataError, match=r"The source 'rides' has 2 rows without 'at', their event time, in rides\.par"):
        pulled(store, name, "rides", ["stop"], ["n"], "at")


def test_a_materialization_from_rows_without_an_event_time_fails_by_view_column_and_number(tmp_path: Path) -> None:
    RIDES.with_columns(pl.when(pl.col("n") != 5).then("at").alias("at")).write_parquet(tmp_path / "rides.parquet")
    store = a_store(tmp_path)
    store.config.batch_engine_config = {"type": "ferroflow.adapters.feast.engine.BulkComputeEngine"}
    store.apply([STOP, rides("rides.parquet")])
    with pytest.raises(DataError, match=r"View 'rides' was not materialized .*has 1 rows without 'at'"):
        store.materialize(after(-1), after(100))
