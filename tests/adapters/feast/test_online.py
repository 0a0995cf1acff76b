from __future__ import annotations

import asyncio
import math
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import python_values_to_proto_values
from feast.types import (
    Array,
    Bool,
    Bytes,
    FeastType,
    Float32,
    Float64,
    Int32,
    Int64,
    Json,
    Map,
    Set,
    String,
    UnixTimestamp,
    Uuid,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from ferroflow.adapters.feast import online
from ferroflow.adapters.feast.packed import PackedStore
from ferroflow.core.errors import SpecError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TIMES = st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1)).map(lambda t: t.replace(microsecond=0, tzinfo=UTC))
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=5)
FLOATS = st.floats(allow_nan=False)

TYPES: dict[str, tuple[FeastType, st.SearchStrategy[Any]]] = {
    "double": (Float64, FLOATS),
    "float": (Float32, st.floats(width=32, allow_nan=False)),
    "long": (Int64, st.integers(-(2**63), 2**63 - 1)),
    "short": (Int32, st.integers(-(2**31), 2**31 - 1)),
    "yes": (Bool, st.booleans()),
    "time": (UnixTimestamp, TIMES),
    "text": (String, TEXTS),
    "raw": (Bytes, st.binary(max_size=5)),
    "doubles": (Array(Float64), st.lists(FLOATS, max_size=3)),
    "texts": (Array(String), st.lists(TEXTS, max_size=3)),
    "times": (Array(UnixTimestamp), st.lists(TIMES, max_size=2)),
    "longs": (Set(Int64), st.sets(st.integers(-5, 5), max_size=3)),
    "map": (Map, st.dictionaries(TEXTS, TEXTS, max_size=2)),
    "json": (Json, st.dictionaries(TEXTS, st.integers(), max_size=2)),
    "uuid": (Uuid, st.uuids().map(str)),
}
KEYS: dict[str, dict[str, ValueType]] = {
    "number": {"stop": ValueType.INT64},
    "small": {"platform": ValueType.INT32},
    "text": {"line": ValueType.STRING},
    "bytes": {"token": ValueType.BYTES},
    "several": {"line": ValueType.STRING, "stop": ValueType.INT64},
    "nobody": {},
}
OF_KEY: dict[ValueType, Sequence[Any]] = {
    ValueType.INT64: (7, -(2**62)),
    ValueType.INT32: (7, -1),
    ValueType.STRING: ("7", "ü"),
    ValueType.BYTES: (b"7", b"\x00"),
}
FIELDS = {
    ValueType.INT64: "int64_val",
    ValueType.INT32: "int32_val",
    ValueType.STRING: "string_val",
    ValueType.BYTES: "bytes_val",
}


def views(ttl: timedelta | None = None) -> list[FeatureView]:
    entities = {name: _entity(name, kind) for keys in KEYS.values() for name, kind in keys.items()}
    return [
        FeatureView(
            name=view,
            entities=[entities[name] for name in keys] or None,
            ttl=ttl,
            schema=[Field(name=f"{view}_{name}", dtype=kind) for name, (kind, _) in TYPES.items()],
            source=FileSource(name=f"of_{view}", path="none.parquet", timestamp_field="at"),
        )
        for view, keys in KEYS.items()
    ]


def open_feast(root: Path, store: dict[str, Any], ttl: timedelta | None = None) -> FeatureStore:
    root.mkdir(parents=True, exist_ok=True)
    feast = FeatureStore(
        config=RepoConfig(
            project="stops",
            provider="local",
            registry={"registry_type": "sql", "path": f"sqlite:///{root / 'registry.db'}"},
            online_store=store,
            entity_key_serialization_version=3,
        )
    )
    made = views(ttl)
    entities = {name: _entity(name, kind) for keys in KEYS.values() for name, kind in keys.items()}
    feast.apply([*entities.values(), *made])
    return feast


def _entity(name: str, kind: ValueType) -> Entity:
    return Entity(name=name, join_keys=[name], value_type=kind)


def packed(root: Path, ttl: timedelta | None = None, **given: Any) -> FeatureStore:
    kind = online.PackedSqliteOnlineStoreConfig(path="").type
    return open_feast(root, {"type": kind, "path": str(root / "online"), **given}, ttl)


def proto_key(view: str, choice: int) -> EntityKey:
    if not KEYS[view]:
        return EntityKey(join_keys=["__dummy_id"], entity_values=[Value(string_val="")])
    values: list[Any] = [{FIELDS[kind]: OF_KEY[kind][choice]} for kind in KEYS[view].values()]
    return EntityKey(join_keys=list(KEYS[view]), entity_values=[Value(**value) for value in values])


def write(feast: FeatureStore, view: str, choice: int, values: dict[str, Value], at: datetime = NOW) -> None:
    table = feast.get_feature_view(view)
    feast._get_provider().online_write_batch(feast.config, table, [(proto_key(view, choice), values, at, None)], None)


def asked(view: str) -> list[dict[str, Any]]:
    if not KEYS[view]:
        return [{"row": choice} for choice in (0, 1)]
    return [{name: OF_KEY[kind][choice] for name, kind in KEYS[view].items()} for choice in (0, 1)]


def features(view: str) -> list[str]:
    return [f"{view}:{view}_{name}" for name in TYPES]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureStore, FeatureStore]:
    root = tmp_path_factory.mktemp("pair")
    stock = open_feast(root / "stock", {"type": "sqlite", "path": str(root / "stock" / "online.db")})
    return packed(root / "packed"), stock


@given(st.data(), st.sampled_from(list(KEYS)), st.integers(0, 1))
@settings(max_examples=30, deadline=None)
def test_every_type_and_key_is_read_as_from_feasts_own_store(
    pair: tuple[FeatureStore, FeatureStore], data: st.DataObject, view: str, choice: int
) -> None:
    values = {}
    for name, (kind, strategy) in TYPES.items():
        value = data.draw(st.none() | strategy, label=name)
        (values[f"{view}_{name}"],) = python_values_to_proto_values([value], kind.to_value_type())
    for feast in pair:
        write(feast, view, choice, values)
    ours, theirs = (feast.get_online_features(features(view), asked(view)) for feast in pair)
    assert ours.proto == theirs.proto
    assert ours.to_dict() == theirs.to_dict()
    assert ours.proto.results[-1].statuses[choice] == FieldStatus.PRESENT
    awaited = asyncio.run(pair[0].get_online_features_async(features(view), asked(view)))
    assert awaited.proto == ours.proto


def test_not_a_number_is_read_as_null(tmp_path: Path) -> None:
    feast = packed(tmp_path)
    write(feast, "number", 0, {"number_double": Value(double_val=math.nan), "number_long": Value(int64_val=3)})
    found = feast.get_online_features(["number:number_double", "number:number_long"], [{"stop": 7}]).to_dict()
    assert found == {"stop": [7], "number_double": [None], "number_long": [3]}


def long(value: int) -> dict[str, Value]:
    return {"number_long": Value(int64_val=value)}


def read(feast: FeatureStore, *stops: int) -> list[int | None]:
    rows = [{"stop": stop} for stop in stops]
    found: list[int | None] = feast.get_online_features(["number:number_long"], rows).to_dict()["number_long"]
    return found


def test_values_older_than_the_time_to_live_are_missing_when_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feast = packed(tmp_path, timedelta(hours=1))
    write(feast, "number", 0, long(1), NOW)
    write(feast, "number", 1, long(2), NOW + timedelta(hours=1))
    stops = OF_KEY[ValueType.INT64]
    answers = {}
    for minutes in (0, 60, 61, 120, 121):
        clock = NOW + timedelta(minutes=minutes)
        monkeypatch.setattr(online, "now", lambda clock=clock: clock)
        answers[minutes] = read(feast, *stops)
    assert answers == {0: [1, 2], 60: [1, 2], 61: [None, 2], 120: [None, 2], 121: [None, None]}
    response = feast.get_online_features(["number:number_long"], [{"stop": 7}]).proto.results[1]
    assert response.event_timestamps[0].ToDatetime(UTC) == NOW, "how old it is can still be told"
    assert response.statuses[0] == FieldStatus.NOT_FOUND
    relaxed = packed(tmp_path, timedelta(hours=1), enforce_ttl=False)
    assert read(relaxed, *stops) == [1, 2]


@pytest.mark.parametrize("ttl", [None, timedelta(0)])
def test_without_a_time_to_live_nothing_is_too_old(tmp_path: Path, ttl: timedelta | None) -> None:
    feast = packed(tmp_path, ttl)
    write(feast, "number", 0, long(1), datetime(1971, 1, 1))
    assert read(feast, 7) == [1]


def test_an_older_row_is_no_update_and_a_later_correction_is(tmp_path: Path) -> None:
    feast = packed(tmp_path)
    table, provider = feast.get_feature_view("number"), feast._get_provider()
    for at, created, value in ((2, 5, 1), (1, 9, 2), (2, 4, 3), (2, 6, 4), (2, None, 5)):
        moments = [None if hours is None else NOW + timedelta(hours=hours) for hours in (at, created)]
        row = (proto_key("number", 0), long(value), *moments)
        provider.online_write_batch(feast.config, table, [row], None)
    assert read(feast, 7) == [4]


def test_a_value_of_another_type_than_its_field_is_refused(tmp_path: Path) -> None:
    feast = packed(tmp_path)
    with pytest.raises(SpecError, match="'number_long' is double_val, its field's type needs int64_val"):
        write(feast, "number", 0, {"number_long": Value(double_val=1.0)})
    assert read(feast, 7) == [None]


def test_rows_of_a_view_from_before_its_features_changed_stay_readable(tmp_path: Path) -> None:
    feast = packed(tmp_path)
    write(feast, "number", 0, long(1))
    view = feast.get_feature_view("number")
    kept = [field for field in view.schema if field.name not in ("number_text", "number_long")]
    fields = [*kept, Field(name="number_new", dtype=Int64), Field(name="number_long", dtype=Int64)]
    feast.apply(
        FeatureView(name="number", entities=[_entity("stop", ValueType.INT64)], schema=fields, source=view.batch_source)
    )
    assert read(feast, 7) == [1]
    found = feast.get_online_features(["number:number_new"], [{"stop": 7}]).to_dict()
    assert found["number_new"] == [None]


def test_views_have_a_file_by_their_pipeline_or_else_their_project_and_are_forgotten_with_it(tmp_path: Path) -> None:
    feast = packed(tmp_path)
    view = feast.get_feature_view("number")
    tagged = FeatureView(
        name="tagged", entities=[_entity("stop", ValueType.INT64)], schema=view.schema, source=view.batch_source,
        tags={"pipeline": "rides"}, ttl=None,
    )  # fmt: skip
    feast.apply(tagged)
    row = (proto_key("number", 0), long(1), NOW, None)
    for name in ("tagged", "number", "text"):
        feast._get_provider().online_write_batch(feast.config, feast.get_feature_view(name), [row], None)
    with PackedStore(tmp_path / "online" / "rides.db", read_only=True) as store:
        assert store.read("tagged", [7], ["number_long"])[7][1] == [1]
        feast.apply([], objects_to_delete=[tagged], partial=False)
        assert store.read("tagged", [7], ["number_long"]) == {}
    assert read(feast, 7) == [1]
    feast.teardown()
    with PackedStore(tmp_path / "online" / "stops.db", read_only=True) as store:
        assert store.read("number", [7], []) == store.read("text", [7], []) == {}


def test_a_file_that_was_replaced_while_it_was_open_is_read_anew(tmp_path: Path) -> None:
    feast = packed(tmp_path)
    assert read(feast, 7) == [None], "no file yet"
    write(feast, "number", 0, long(1))
    assert read(feast, 7) == [1]
    for file in (tmp_path / "online").iterdir():
        file.rename(tmp_path / file.name)
    assert read(feast, 7) == [None]
    write(feast, "number", 0, long(2))
    assert read(feast, 7) == [2]


def test_a_file_of_another_version_is_told(tmp_path: Path) -> None:
    feast = packed(tmp_path)
    (tmp_path / "online").mkdir()
    sqlite3.connect(tmp_path / "online" / "stops.db").execute("CREATE TABLE entries (view)")
    with pytest.raises(sqlite3.DatabaseError, match="Materialize again"):
        read(feast, 7)
    write(feast, "number", 0, long(1))
    assert read(feast, 7) == [1]
