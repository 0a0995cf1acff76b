"""Rows that are added to a view's folder: nothing is lost by a cast, and first writers agree."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Bool, FeastType, Float32, Float64, Int32, Int64, Json, String, UnixTimestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from ferroflow.adapters.feast.added import _fitted
from ferroflow.adapters.feast.offline import PolarsOfflineStore
from ferroflow.core.errors import DataError, UsageError
from tests.adapters.feast.test_offline_store import STOP, a_store

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
MIDNIGHT = datetime(2024, 1, 1, tzinfo=UTC)
UTC_TIME = pa.timestamp("us", "UTC")


def a_view(kind: FeastType = Float64, key: Entity = STOP, **source: Any) -> FeatureView:
    key_type = String if key.value_type == ValueType.STRING else Int64
    return FeatureView(
        name="levels",
        entities=[key],
        schema=[Field(name="stop", dtype=key_type), Field(name="level", dtype=kind)],
        source=FileSource(name="levels", path="parts", timestamp_field="at", **source),
    )


def applied(folder: Path, view: FeatureView, key: Entity = STOP) -> FeatureStore:
    store = a_store(folder)
    store.config.batch_engine_config = {"type": "ferroflow.adapters.feast.engine.BulkComputeEngine"}
    store.apply([key, view])
    return store


def write(store: FeatureStore, table: pa.Table) -> None:
    PolarsOfflineStore.offline_write_batch(store.config, store.get_feature_view("levels"), table, None)


def rows(level: Any = 1.0, at: Any = NOON, stop: Any = 1, **more: Any) -> pa.Table:
    columns = {"stop": stop, "level": level, "at": at, **more}
    return pa.table({name: value if isinstance(value, pa.Array) else [value] for name, value in columns.items()})


def stored(folder: Path, table: pa.Table) -> None:
    (folder / "parts").mkdir(exist_ok=True)
    pq.write_table(table, folder / "parts" / "a.parquet")


def schemas(folder: Path) -> list[pa.Schema]:
    return [pq.read_schema(path) for path in sorted((folder / "parts").iterdir())]


@pytest.mark.parametrize(
    ("there", "added", "told"),
    [
        ({"at": date(2024, 1, 1)}, {"at": NOON}, r"'at' is date32.* value 2024-01-01 12:00:00\+00:00 cannot"),
        ({"at": NOON}, {"at": 1704110400}, "'at' is timestamp.* int64 value 1704110400 cannot"),
        ({"at": NOON}, {"at": "2024-01-01T12:00:00Z"}, "'at' is timestamp.* string value '2024-01-01T12:00:00Z'"),
        ({"stop": 7}, {"stop": "007"}, "'stop' is int64 there, and the string value '007' cannot be kept"),
        ({"stop": 7}, {"stop": 2.5}, "double value 2.5 cannot"),
        ({"stop": "7"}, {"stop": 7}, "'stop' is .*string there, and the int64 value 7 cannot"),
        ({"level": 1}, {"level": 2.5}, "double value 2.5 cannot"),
        ({"level": 1}, {"level": float("nan")}, "double value nan cannot"),
        ({"level": 1}, {"level": NOON}, r"timestamp\[us, tz=UTC\] value 2024-01-01 12:00:00\+00:00 cannot"),
        ({"level": pa.array([1.0], pa.float32())}, {"level": 1e300}, r"double value 1e\+300 cannot"),
        ({"level": pa.array([1], pa.int32())}, {"level": 3_000_000_000}, "int64 value 3000000000 cannot"),
        ({"level": 1}, {"level": pa.array([2**63 + 5], pa.uint64())}, "uint64 value 9223372036854775813 cannot"),
        ({"level": 1.0}, {"level": 2**53 + 1}, "int64 value 9007199254740993 cannot"),
        ({"level": [1.0]}, {"level": pa.array([["1"]])}, r"list<.*string> value \['1'\] cannot"),
    ],
)
def test_a_value_that_the_stored_type_cannot_keep_is_named_and_nothing_is_written(
    tmp_path: Path, there: dict[str, Any], added: dict[str, Any], told: str
) -> None:
    stored(tmp_path, rows(**there))
    store = applied(tmp_path, a_view())
    with pytest.raises(UsageError, match=f"Rows for view 'levels' do not fit the types of parts: .*{told}"):
        write(store, rows(**{**there, **added}))
    assert len(schemas(tmp_path)) == 1


def test_the_value_that_is_named_is_the_one_that_does_not_fit(tmp_path: Path) -> None:
    stored(tmp_path, rows(level=pa.array([1.0], pa.float32())))
    store = applied(tmp_path, a_view(Float32))
    levels = [0.1] * 700 + [-1e39] + [0.2] * 300
    table = pa.table({"stop": [1] * 1001, "level": levels, "at": [NOON] * 1001})
    with pytest.raises(UsageError, match=r"value -1e\+39 cannot be kept"):
        write(store, table)


@pytest.mark.parametrize(
    ("there", "added", "kept"),
    [
        ({"at": date(2024, 1, 1)}, {"at": MIDNIGHT}, {"at": date(2024, 1, 1)}),
        ({"at": NOON}, {"at": date(2024, 1, 1)}, {"at": MIDNIGHT}),
        ({"at": NOON}, {"at": pa.array([NOON], pa.timestamp("ns", "Europe/Berlin"))}, {"at": NOON}),
        ({"at": NOON.replace(tzinfo=None)}, {"at": NOON}, {"at": NOON.replace(tzinfo=None)}),
        ({"level": 1}, {"level": 2.0}, {"level": 2}),
        ({"level": 1.0}, {"level": 2}, {"level": 2.0}),
        ({"level": 1.0}, {"level": pa.nulls(1)}, {"level": None}),
        ({"level": 1}, {"level": pa.array([None], pa.string())}, {"level": None}),
        ({"level": pa.array([1.0], pa.float32())}, {"level": 0.5}, {"level": 0.5}),
        ({"level": pa.array([1.0], pa.float32())}, {"level": float("inf")}, {"level": float("inf")}),
        ({"level": pa.array([[1.0]], pa.list_(pa.float32()))}, {"level": [0.5, None]}, {"level": [0.5, None]}),
        ({"stop": "7"}, {"stop": pa.array(["8"]).dictionary_encode()}, {"stop": "8"}),
    ],
)
def test_what_can_be_cast_back_is_cast(
    tmp_path: Path, there: dict[str, Any], added: dict[str, Any], kept: dict[str, Any]
) -> None:
    stored(tmp_path, rows(**there))
    store = applied(tmp_path, a_view())
    write(store, rows(**{**there, **added}))
    table = pl.read_parquet(tmp_path / "parts" / "*.parquet")
    assert {name: table[name].to_list()[-1] for name in kept} == kept


def test_a_day_of_another_zone_is_no_date(tmp_path: Path) -> None:
    stored(tmp_path, rows(at=date(2024, 1, 1)))
    in_berlin = pa.array([MIDNIGHT - timedelta(hours=1)], pa.timestamp("us", "Europe/Berlin"))
    with pytest.raises(UsageError, match="cannot be kept"):
        write(applied(tmp_path, a_view()), rows(at=in_berlin))


def test_a_float_is_rounded_to_the_nearest_float32_and_not_to_infinity() -> None:
    column = pa.chunked_array([[0.1, 16777217.1, None, float("nan"), float("-inf")]])
    made = _fitted(column, pa.float32())
    assert made is not None
    assert str(made.to_pylist()) == str(column.to_numpy().astype("f4").astype("f8").tolist()).replace("nan", "None", 1)
    assert _fitted(pa.chunked_array([[1.0, 3.5e38]]), pa.float32()) is None
    assert _fitted(pa.chunked_array([[[1.0], [3.5e38]]]), pa.list_(pa.float32())) is None


NUMBERS = (pa.int8(), pa.int32(), pa.int64(), pa.uint8(), pa.uint64(), pa.float64(), pa.bool_())
VALUES = st.one_of(st.integers(-(2**70), 2**70), st.floats(), st.sampled_from([0, 1, 2**53, 2**63, -(2**63), 255, -1]))


@settings(max_examples=300, deadline=None)
@given(VALUES, st.sampled_from(NUMBERS), st.sampled_from(NUMBERS))
def test_any_number_is_kept_as_the_same_number_or_refused(value: Any, one: pa.DataType, other: pa.DataType) -> None:
    try:
        column = pa.chunked_array([pa.array([value, None], one)])
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, TypeError):
        return
    made = _fitted(column, other)
    if made is not None:
        assert made.type == other
        before, after = column[0].as_py(), made[0].as_py()
        assert after == before or (after != after and before != before)
        assert made[1].as_py() is None


def test_rows_without_a_key_or_an_event_time_are_counted_and_refused(tmp_path: Path) -> None:
    store = applied(tmp_path, a_view())
    lacking = pa.table(
        {"stop": [1, None, None], "level": [1.0, 2.0, 3.0], "at": pa.array([None, NOON, NOON], UTC_TIME)}
    )
    for _ in range(2):  # as the first file, and as a later one
        with pytest.raises(UsageError, match=r"'levels' lack keys .*: 2 without 'stop', 1 without 'at'\."):
            write(store, lacking)
        write(store, rows())
    store.materialize(NOON - timedelta(days=1), NOON + timedelta(days=1))
    assert store.get_online_features(["levels:level"], [{"stop": 1}]).to_dict()["level"] == [1.0]


@pytest.mark.parametrize(
    ("kind", "values", "made"),
    [
        (Float64, [pa.nulls(1), 2, 1.5, pa.array([0.5], pa.float32())], pa.float64()),
        (Float32, [0.1, 2], pa.float32()),
        (Int64, [2.0, pa.array([1], pa.int8())], pa.int64()),
        (Int32, [2, 3.0], pa.int32()),
        (Bool, [True, pa.nulls(1)], pa.bool_()),
        (String, ["a", pa.array(["b"], pa.string_view()), pa.array(["c"]).dictionary_encode()], pa.string()),
        (UnixTimestamp, [NOON, date(2024, 1, 1), pa.array([NOON], pa.timestamp("ns"))], UTC_TIME),
        (Array(Float32), [[0.1], pa.array([[1]]), pa.nulls(1)], pa.list_(pa.float32())),
        (Array(String), [["a"], pa.array([["b"]], pa.large_list(pa.large_string()))], pa.list_(pa.string())),
    ],
)
def test_whoever_writes_the_first_file_writes_the_types_of_the_views_fields(
    tmp_path: Path, kind: FeastType, values: list[Any], made: pa.DataType
) -> None:
    found = []
    for number, value in enumerate(values):
        home = tmp_path / str(number)
        home.mkdir()
        write(applied(home, a_view(kind)), rows(level=value, at=pa.array([NOON], pa.timestamp("ns", "Asia/Tokyo"))))
        found += schemas(home)
    wanted = pa.schema({"stop": pa.int64(), "level": made, "at": UTC_TIME})
    assert all(len(schema) == 3 and [f.type for f in schema] == wanted.types for schema in found)


def test_a_first_file_of_other_types_columns_or_no_type_at_all_is_refused(tmp_path: Path) -> None:
    store = applied(tmp_path, a_view())
    with pytest.raises(UsageError, match="types of its fields: 'level' is double there, and the string value '1' can"):
        write(store, rows(level="1"))
    with pytest.raises(UsageError, match=r"have \['junk'\] too many. The view has \['stop', 'level', 'at'\]"):
        write(store, rows(junk=1))
    with pytest.raises(UsageError, match=r"lack the columns \['at'\]"):
        write(store, rows().drop("at"))
    store = applied(tmp_path, a_view(Json))
    with pytest.raises(UsageError, match="have no value in 'level': nothing says which type to store"):
        write(store, rows(level=pa.nulls(1)))
    assert not (tmp_path / "parts").exists()
    write(store, rows(level=pa.array(["{}"], pa.large_string())))
    assert schemas(tmp_path)[0].field("level").type == pa.large_string()


def test_a_first_file_may_say_when_its_rows_were_known_and_ingested(tmp_path: Path) -> None:
    view = a_view(created_timestamp_column="made", field_mapping={"raw": "level", "known": "available_at"})
    store = applied(tmp_path, view)
    moment = pa.array([NOON], pa.timestamp("ns"))
    write(store, rows(made=moment, available_at=moment, ingested_at=date(2024, 1, 1)))
    [schema] = schemas(tmp_path)
    assert schema.names == ["stop", "raw", "at", "made", "known", "ingested_at"]
    assert set(schema.types[2:]) == {UTC_TIME}


def test_two_first_writers_at_once_leave_files_that_are_read_as_one(tmp_path: Path) -> None:
    for number, level in enumerate((pa.array([1]), pa.array([1.5]), pa.nulls(1))):
        home = tmp_path / str(number)
        home.mkdir()
        write(applied(home, a_view()), rows(level=level, stop=number))
    both = tmp_path / "both" / "parts"
    both.mkdir(parents=True)
    for number, path in enumerate(tmp_path.glob("*/parts/*.parquet")):
        path.rename(both / f"{number}.parquet")
    asked = pl.DataFrame({"stop": [0, 1, 2], "event_timestamp": [NOON] * 3})
    store = applied(tmp_path / "both", a_view())
    assert store.get_historical_features(asked, ["levels:level"]).to_polars()["level"].to_list() == [1.0, 1.5, None]


@pytest.mark.parametrize("there", [False, True])
def test_feasts_own_writing_needs_a_first_file_and_says_how_to_write_it(tmp_path: Path, there: bool) -> None:
    store = applied(tmp_path, a_view())
    if there:
        (tmp_path / "parts").mkdir()
    frame = pd.DataFrame({"stop": [1], "level": [9.0], "at": [pd.Timestamp(NOON)]})
    for reorder in (True, False):
        with pytest.raises(DataError, match=r"has no parts, or .* with PolarsOfflineStore\.offline_write_batch\(store"):
            store.write_to_offline_store("levels", frame, reorder_columns=reorder)
    write(store, pa.Table.from_pandas(frame))
    store.write_to_offline_store("levels", frame.assign(level=[7]))
    store.write_to_offline_store("levels", frame, reorder_columns=False)
    assert len(schemas(tmp_path)) == 3
    assert len({tuple(schema.types) for schema in schemas(tmp_path)}) == 1
