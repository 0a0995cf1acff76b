from __future__ import annotations

import logging
import sqlite3
import traceback
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from feast import BatchFeatureView, Entity, FeatureStore, FeatureView, Field, FileSource, PushSource, ValueType
from feast.data_source import PushMode
from feast.infra.common.materialization_job import MaterializationJobStatus, MaterializationTask
from feast.infra.common.retrieval_task import HistoricalRetrievalTask
from feast.infra.compute_engines.local.compute import LocalComputeEngine
from feast.infra.online_stores.sqlite import SqliteOnlineStore
from feast.types import Float64, Int64
from hypothesis import given, settings
from hypothesis import strategies as st

from ferroflow.adapters.feast import bulk_packed, engine
from ferroflow.adapters.feast.bulk_rows import LatestRows
from ferroflow.adapters.feast.encode import NULL_TIME
from ferroflow.adapters.feast.rows import RowLayout
from ferroflow.core.errors import DataError
from tests.materialized import END, START, TYPES, answers, at, feast_over, packed, view_of, wide

KEYS: dict[str, dict[str, ValueType]] = {
    "number": {"stop": ValueType.INT64},
    "text": {"line": ValueType.STRING},
    "small": {"stop": ValueType.INT32},
    "called_text": {"stop": ValueType.STRING},
    "several": {"stop": ValueType.INT64, "line": ValueType.STRING},
    "none": {},
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FeatureStore]:
    """The same views by our engine into the packed store, by Feast's into it, and by Feast's into Feast's SQLite."""
    folder = tmp_path_factory.mktemp("stores")
    wide().write_parquet(folder / "t.parquet")
    found = {
        "ours": feast_over(folder / "ours", packed(folder / "ours")),
        "by protos": feast_over(folder / "protos", packed(folder / "protos"), engine="local"),
        "stock": feast_over(folder / "stock", {"type": "sqlite", "path": str(folder / "o.db")}, engine="local"),
    }
    for feast in found.values():
        for name, keys in KEYS.items():
            # An entity has one type in a registry: each view has entities of its own.
            *_, view = view_of(folder / "t.parquet", keys, TYPES, name)
            entities = [Entity(name=f"{name}_{key}", join_keys=[key], value_type=kind) for key, kind in keys.items()]
            feast.apply(
                [*entities, FeatureView(name=name, entities=entities, schema=view.schema, source=view.batch_source)]
            )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LatestRows.slices, "__defaults__", (3,))
            feast.materialize(START, END)
    return found


@pytest.mark.parametrize("name", list(KEYS))
def test_the_packed_rows_are_those_of_feasts_own_conversion(stores: dict[str, FeatureStore], name: str) -> None:
    ours, theirs = (rows_of(stores[key], name) for key in ("ours", "by protos"))
    assert ours == theirs
    assert len(ours) == (7 if KEYS[name] else 1)


@pytest.mark.parametrize("name", [name for name, keys in KEYS.items() if keys])
def test_values_of_every_type_read_as_from_feasts_own_engine_and_store(
    stores: dict[str, FeatureStore], name: str
) -> None:
    asked = [
        {key: str(row[key]) if kind == ValueType.STRING else row[key] for key, kind in KEYS[name].items()}
        for row in wide().head(7).iter_rows(named=True)
    ]
    ours, theirs = (answers(stores[key], name, list(TYPES), asked) for key in ("ours", "stock"))
    assert ours == theirs
    assert any(value is not None for value in ours["vector"])


def rows_of(feast: FeatureStore, view: str) -> dict[Any, Any]:
    """Keys, times and values of a view, from its file. Feast keeps a null time as a number, null to readers."""
    file = Path(feast.config.online_store.path) / "p.db"
    with closing(sqlite3.connect(file)) as connection:
        query = "SELECT key, event, created, features, packed FROM entries JOIN layouts ON id = layout"
        return {
            key: (
                event,
                created,
                [None if value == NULL_TIME else value for value in RowLayout.from_json(text).unpack(blob)],
            )
            for key, event, created, text, blob in connection.execute(f"{query} WHERE entries.view = ?", (view,))
        }


def test_an_older_range_never_replaces_a_newer_value_and_a_correction_does(tmp_path: Path) -> None:
    feast = small(tmp_path, [(1, at(1), at(1), 1.0), (1, at(5), at(5), 5.0)])
    feast.materialize(START, END)
    feast.materialize(START, at(2))
    assert online_values(feast) == [5.0]
    rewrite(tmp_path, [(1, at(5), at(4), 4.0)])
    feast.materialize(START, END)
    assert online_values(feast) == [5.0]
    rewrite(tmp_path, [(1, at(5), at(6), 5.5), (1, at(1), at(9), 1.5)])
    feast.materialize(START, END)
    assert online_values(feast) == [5.5]


def small(folder: Path, rows: list[Any], online: dict[str, Any] | None = None, **more: Any) -> FeatureStore:
    rewrite(folder, rows)
    objects = view_of(folder / "t.parquet", {"stop": ValueType.INT64}, {"value": Float64}, "small", **more)
    return feast_over(folder, online or packed(folder), objects)


def rewrite(folder: Path, rows: list[Any]) -> None:
    pl.DataFrame(rows, schema=["stop", "event", "made", "value"], orient="row").write_parquet(folder / "t.parquet")


def online_values(feast: FeatureStore, stop: int = 1) -> Any:
    return answers(feast, "small", ["value"], [{"stop": stop}])["value"]


def test_renamed_columns_are_found_and_a_row_without_a_created_time_counts_as_created_with_its_event(
    tmp_path: Path,
) -> None:
    pl.DataFrame({"id": [1], "at": [at(1)], "v": [2.5]}).write_parquet(tmp_path / "t.parquet")
    mapping = {"id": "stop", "v": "value"}
    source = FileSource(name="s", path=str(tmp_path / "t.parquet"), timestamp_field="at", field_mapping=mapping)
    stop = Entity(name="stop", join_keys=["stop"], value_type=ValueType.INT64)
    schema = [Field(name="stop", dtype=Int64), Field(name="value", dtype=Float64)]
    view = FeatureView(name="small", entities=[stop], schema=schema, source=source)
    feast = feast_over(tmp_path, packed(tmp_path), [stop, view])
    feast.materialize(START, END)
    micros = int(at(1).timestamp() * 1e6)
    assert rows_of(feast, "small") == {1: (micros, micros, [2.5])}


def test_an_online_store_that_is_not_known_is_written_by_its_own_method_in_bounded_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    original = SqliteOnlineStore.online_write_batch

    def counted(self: Any, config: Any, table: Any, data: Any, progress: Any) -> None:
        sizes.append(len(data))
        original(self, config, table, data, progress)

    monkeypatch.setattr(SqliteOnlineStore, "online_write_batch", counted)
    monkeypatch.setattr(engine, "SLICE", 2)
    rows = [(stop, at(stop), at(stop), float(stop)) for stop in range(5)]
    feast = small(tmp_path, rows, {"type": "sqlite", "path": str(tmp_path / "o.db")})
    feast.materialize(START, END)
    assert sizes == [2, 2, 1]
    assert [online_values(feast, stop) for stop in range(5)] == [[0.0], [1.0], [2.0], [3.0], [4.0]]


def test_a_range_without_rows_and_a_view_that_is_not_online_write_nothing(tmp_path: Path) -> None:
    feast = small(tmp_path, [(1, at(1), at(1), 1.0)])
    feast.materialize(at(10), END)
    assert online_values(feast) == [None]
    view = feast.get_feature_view("small")
    view.online = False
    assert run(feast, view).status() == MaterializationJobStatus.SUCCEEDED
    assert online_values(feast) == [None]


def run(feast: FeatureStore, view: FeatureView, **more: Any) -> Any:
    task = MaterializationTask(project="p", feature_view=view, start_time=START, end_time=END, **more)
    (job,) = feast._get_provider().batch_engine.materialize(feast.registry, [task])
    return job


def test_without_event_times_the_whole_past_is_materialized(tmp_path: Path) -> None:
    feast = small(tmp_path, [(1, at(-9_000), at(1), 1.0)])
    assert run(feast, feast.get_feature_view("small"), disable_event_timestamp=True).error() is None
    assert online_values(feast) == [1.0]


def test_a_failed_job_names_view_column_and_store(tmp_path: Path) -> None:
    pl.DataFrame({"stop": [1], "event": [at(1)], "made": [at(1)], "value": ["x"]}).write_parquet(tmp_path / "t.parquet")
    objects = view_of(tmp_path / "t.parquet", {"stop": ValueType.INT64}, {"value": Int64}, "small")
    feast = feast_over(tmp_path, packed(tmp_path), objects)
    job = run(feast, feast.get_feature_view("small"))
    assert job.status() == MaterializationJobStatus.ERROR
    told = "'small' was not materialized into PackedSqliteOnlineStore: Column 'value' is large_string .* and INT64"
    with pytest.raises(DataError, match=told):
        feast.materialize(START, END)
    assert rows_of(feast, "small") == {}


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"stop": [1, None], "event": [at(1)] * 2, "value": [1.0] * 2}, "1 rows have no 'stop', which is a key"),
        ({"stop": [1], "event": [None], "value": [1.0]}, "1 rows have no 'event', which is their event time"),
        ({"stop": [1], "event": [at(1)]}, r"Columns \['value'\] are not in the offline store"),
    ],
)
def test_rows_that_cannot_be_stored_are_refused(tmp_path: Path, table: dict[str, Any], told: str) -> None:
    frame = pl.DataFrame(table).with_columns(pl.col("event").cast(pl.Datetime("us", "UTC")))
    *_, view = view_of(tmp_path / "t.parquet", {"stop": ValueType.INT64}, {"value": Float64}, created="")
    view.entity_columns = [field for field in view.schema if field.name == "stop"]
    view.features = [field for field in view.schema if field.name == "value"]
    with pytest.raises(DataError, match=told):
        bulk_packed.key_column(engine.latest_rows(view, frame.to_arrow(), 3))


@pytest.mark.parametrize(
    "secret",
    [
        "postgresql://shop:s3cret@db/x",
        "postgresql://shop:a@b/s3cret@db/x",
        "host password=s3cret,db=1",
        "{'password': 's3cret'}",
        "PASSWORD: s3cret",
        "passwd=s3cret",
        "password='my s3cret pass' host=x",
        '{"password": "a \\" s3cret"}',
    ],
)
def test_passwords_are_not_told(secret: str) -> None:
    view, store = FeatureView(name="v", source=FileSource(path="x", timestamp_field="t")), SqliteOnlineStore()
    told = str(engine._told(view, store, ValueError(f"no connection to {secret}")))
    assert "'v' was not materialized into SqliteOnlineStore: ValueError: no connection to" in told
    assert "s3cret" not in told


@pytest.mark.parametrize(
    "online",
    [
        {"type": "redis", "connection_string": 'localhost:1,password="my s3cret",db=0'},
        {"type": "postgres", "host": "h", "user": "u", "password": "my s3cret", "database": "d"},
    ],
)
def test_a_password_of_the_configuration_is_told_nowhere(
    tmp_path: Path, online: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    feast = small(tmp_path, [(1, at(1), at(1), 1.0)])
    feast.config.online_config, feast.config._online_store = online, None

    def refused(*_: Any) -> None:
        try:
            raise OSError("tried my s3cret")
        except OSError as error:
            raise RuntimeError("with my%20s3cret or my s3cret?") from error

    monkeypatch.setattr(engine, "writer", refused)
    with caplog.at_level("DEBUG"), pytest.raises(DataError, match=r"RuntimeError: with \*\*\* or \*\*\*\?$") as caught:
        feast.materialize(START, END)
    told = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert "s3cret" not in told
    assert "OSError: tried ***" in caplog.text


def test_a_view_that_feast_has_to_compute_is_left_to_its_local_engine(tmp_path: Path) -> None:
    rewrite(tmp_path, [(1, at(1), at(1), 1.0), (2, at(1), at(1), 3.0)])
    stop, view = view_of(tmp_path / "t.parquet", {"stop": ValueType.INT64}, {"value": Float64}, "small")
    doubled = BatchFeatureView(
        name="small", mode="pandas", entities=[stop], schema=view.schema, source=view.batch_source, online=True,
        udf=lambda frame: frame.assign(value=frame["value"] * 2), udf_string="doubled",
    )  # fmt: skip
    feast = feast_over(tmp_path, packed(tmp_path))
    feast.apply([stop, doubled])
    assert run(feast, doubled).error() is None
    assert [online_values(feast, stop) for stop in (1, 2)] == [[2.0], [6.0]]


def test_a_view_that_is_also_pushed_to_is_materialized_from_its_batch_source(tmp_path: Path) -> None:
    feast = small(tmp_path, [(1, at(1), at(1), 1.0)])
    stop, view = view_of(tmp_path / "t.parquet", {"stop": ValueType.INT64}, {"value": Float64}, "small")
    source = PushSource(name="pushed", batch_source=view.batch_source)
    feast.apply([stop, FeatureView(name="small", entities=[stop], schema=view.schema, source=source)])
    feast.materialize(START, END)
    assert online_values(feast) == [1.0]
    feast.push(
        "pushed", pd.DataFrame({"stop": [1], "event": [at(2)], "made": [at(2)], "value": [2.0]}), to=PushMode.ONLINE
    )
    feast.materialize(START, END)
    assert online_values(feast) == [2.0]


def test_the_engines_historical_rows_are_those_of_feasts_local_engine(tmp_path: Path) -> None:
    feast = small(tmp_path, [(1, at(1), at(1), 1.0), (1, at(5), at(5), 5.0)])
    provider, entities = feast._get_provider(), pd.DataFrame({"stop": [1], "event_timestamp": [at(6)]})
    task = HistoricalRetrievalTask("p", entities, feast.get_feature_view("small"), False, feast.registry, START, END)
    local = LocalComputeEngine(
        repo_config=feast.config, offline_store=provider.offline_store, online_store=provider.online_store
    )
    theirs = local.get_historical_features(feast.registry, task).to_arrow()
    ours = provider.batch_engine.get_historical_features(feast.registry, task).to_arrow()
    assert ours.equals(theirs)
    assert ours.column("value").to_pylist() == [5.0]


def test_long_writes_say_how_far_they_are(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_EVERY", 0.0)
    told = engine._Told("v", 30)
    with caplog.at_level(logging.INFO):
        told(10)
        told(20)
    assert caplog.messages == ["View 'v': 10 of 30 entities written.", "View 'v': 30 of 30 entities written."]


CELLS = {
    "double": (st.floats(), pa.float64(), ValueType.DOUBLE),
    "float": (st.floats(width=32), pa.float32(), ValueType.FLOAT),
    "int64": (st.integers(-(2**63), 2**63 - 1), pa.int64(), ValueType.INT64),
    "int32": (st.integers(-(2**31), 2**31 - 1), pa.int32(), ValueType.INT32),
    "bool": (st.booleans(), pa.bool_(), ValueType.BOOL),
    "time": (st.integers(-(2**40), 2**40), pa.timestamp("s"), ValueType.UNIX_TIMESTAMP),
    "text": (st.text(max_size=300), pa.string(), ValueType.STRING),
    "bytes": (st.binary(max_size=300), pa.binary(), ValueType.BYTES),
}


@settings(max_examples=60, deadline=None, database=None)
@given(data=st.data())
def test_columns_packed_at_once_are_rows_packed_one_by_one(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from(list(CELLS)), min_size=1, max_size=20))
    count = data.draw(st.integers(1, 5))
    columns = [data.draw(st.lists(st.none() | CELLS[kind][0], min_size=count, max_size=count)) for kind in kinds]
    names = [f"f{place}" for place in range(len(kinds))]
    table = pa.table([pa.array(c, CELLS[kind][1]) for c, kind in zip(columns, kinds, strict=True)], names)
    types = {name: CELLS[kind][2] for name, kind in zip(names, kinds, strict=True)}
    layout = RowLayout(tuple(zip(names, kinds, strict=True)))
    times = np.zeros(count, np.int64)
    found = bulk_packed.packed_rows(layout, LatestRows(table, {}, types, times, None))
    assert found == [layout.pack(row) for row in zip(*columns, strict=True)]
