"""What lies in the offline store's files and folders, and what is refused there."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from feast import FeatureStore, FeatureView, Field, FileSource
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


def differing(folder: Path, first: pl.DataFrame, second: pl.DataFrame) -> FeatureStore:
    (folder / "parts").mkdir()
    first.write_parquet(folder / "parts" / "a.parquet")
    second.write_parquet(folder / "parts" / "b.parquet")
    store = a_store(folder)
    schema = [Field(name="stop", dtype=Int64), Field(name="level", dtype=Float64)]
    source = FileSource(name="levels", path="parts", timestamp_field="at")
    store.apply([STOP, FeatureView(name="levels", entities=[STOP], schema=schema, source=source)])
    return store


FIRST = pl.DataFrame({"stop": [1], "at": [after(0)], "level": [1.0]})
SECOND = pl.DataFrame({"stop": [2], "at": [after(1)], "level": [2.0]})
BOTH = pl.DataFrame({"stop": [1, 2, 2], "event_timestamp": [after(1), after(0.5), after(1)]})
KNOWN = pl.lit(after(0)).alias("available_at")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (FIRST, SECOND.cast({"stop": pl.Int16, "level": pl.Float32})),
        (FIRST, SECOND.with_columns(pl.col("at").dt.cast_time_unit("ns"))),
        (FIRST, SECOND.with_columns(pl.col("at").dt.cast_time_unit("ms"))),
        (FIRST.with_columns(pl.col("at").dt.cast_time_unit("ns")), SECOND),
        (FIRST, SECOND.with_columns(pl.col("at").dt.replace_time_zone(None))),
        (FIRST.with_columns(pl.col("at").dt.replace_time_zone(None)), SECOND),
        (FIRST, SECOND.with_columns(pl.col("at").dt.convert_time_zone("Asia/Tokyo"))),
        (FIRST.with_columns(pl.col("at").dt.convert_time_zone("Asia/Tokyo")), SECOND),
        (FIRST.with_columns(KNOWN), SECOND.with_columns(KNOWN, more=1)),
    ],
)
def test_files_of_narrower_numbers_other_units_and_zones_and_more_columns_are_one_table(
    tmp_path: Path, first: pl.DataFrame, second: pl.DataFrame
) -> None:
    store = differing(tmp_path, first, second)
    assert store.get_historical_features(BOTH, ["levels:level"]).to_polars()["level"].to_list() == [1.0, None, 2.0]
    for name in ("pull_all_from_table_or_query", "pull_latest_from_table_or_query"):
        assert sorted(pulled(store, name, "levels", ["stop"], ["level"], "at")["level"]) == [1.0, 2.0]


UNLIKE = [
    (FIRST.cast({"level": pl.Int64}), SECOND, "data type mismatch for column level"),
    (FIRST.cast({"stop": pl.Int32}), SECOND, "data type mismatch for column stop"),
    (FIRST, SECOND.cast({"level": pl.String}), "data type mismatch for column level"),
    (FIRST.with_columns(pl.col("at").dt.cast_time_unit("ms")), SECOND, "data type mismatch for column at"),
    (
        FIRST.with_columns(pl.col("at").dt.cast_time_unit("ms")),
        SECOND.with_columns(pl.col("at").dt.cast_time_unit("ns")),
        "data type mismatch for column at",
    ),
    (FIRST, SECOND.drop("level"), "did not find column level"),
]


@pytest.mark.parametrize(("first", "second", "told"), UNLIKE)
def test_files_that_are_unlike_are_refused_by_view_or_source_and_place(
    tmp_path: Path, first: pl.DataFrame, second: pl.DataFrame, told: str
) -> None:
    store = differing(tmp_path, first, second)
    with pytest.raises(DataError, match=f"View 'levels' could not be read from parts: {told}[^`]*Write them alike"):
        store.get_historical_features(BOTH, ["levels:level"]).to_polars()
    for name in ("pull_all_from_table_or_query", "pull_latest_from_table_or_query"):
        with pytest.raises(DataError, match=f"The source 'levels' could not be read from parts: {told}"):
            pulled(store, name, "levels", ["stop"], ["level"], "at")


def test_no_file_may_hide_when_its_rows_were_known(tmp_path: Path) -> None:
    late = pl.lit(after(9)).alias("available_at")
    for number, (first, second, told) in enumerate(
        [
            (FIRST, SECOND.with_columns(late), "extra column .*available_at.* says when its rows were known"),
            (FIRST, SECOND.with_columns(more=1), "extra column .*more"),
            (FIRST.with_columns(KNOWN), SECOND, "did not find column available_at"),
        ]
    ):
        (tmp_path / str(number)).mkdir()
        store = differing(tmp_path / str(number), first, second)
        with pytest.raises(DataError, match=f"View 'levels' could not be read from parts: {told}"):
            store.get_historical_features(BOTH, ["levels:level"]).to_polars()
        assert sorted(pulled(store, "pull_all_from_table_or_query", "levels", ["stop"], ["level"], "at")["level"]) == [
            1.0,
            2.0,
        ]


def test_the_entities_of_files_that_are_unlike_are_refused_by_view_and_place(tmp_path: Path) -> None:
    store = differing(tmp_path, FIRST, SECOND.cast({"stop": pl.String}))
    span = {"start_date": after(-1), "end_date": after(9)}
    query = "SELECT stop, at AS event_timestamp FROM levels"
    for entities, given in ((None, span), (query, {})):
        job = store.get_historical_features(entities, ["levels:level"], **given)
        with pytest.raises(DataError, match="The entities of 'levels' could not be read from parts: data type mis"):
            job.to_polars()


def test_moments_of_knowledge_as_texts_count_with_and_without_entity_rows(tmp_path: Path) -> None:
    known = SECOND.with_columns(available_at=pl.lit("2023-01-01T03:00:00Z"))
    store = differing(tmp_path, FIRST.with_columns(available_at=pl.lit("2023-01-01T01:30:00+01:00")), known)
    asked = pl.DataFrame({"stop": [1, 2, 2], "event_timestamp": [after(1), after(2), after(3)]})
    assert store.get_historical_features(asked, ["levels:level"]).to_polars()["level"].to_list() == [1.0, None, 2.0]
    for hours, levels in ((2, [1.0]), (3, [1.0, 2.0])):
        job = store.get_historical_features(None, ["levels:level"], start_date=after(-1), end_date=after(hours))
        assert sorted(job.to_polars()["level"]) == levels
