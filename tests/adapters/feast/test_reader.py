"""The reader against Feast's own ``get_online_features``, over packed SQLite, Redis and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import polars as pl
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.type_map import python_values_to_proto_values
from feast.types import Array, Bool, Bytes, Float32, Float64, Int32, Int64, Json, String, UnixTimestamp, Uuid
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ferroflow.adapters.feast.packed import PackedStore
from ferroflow.adapters.feast.plan import KeyPlan, PackedPlan, ReadPlan, ViewPlan
from ferroflow.adapters.feast.reader import FeatureAnswer, FeatureReader
from ferroflow.adapters.feast.resolve import read_plan
from ferroflow.adapters.feast.rows import RowLayout
from ferroflow.core.errors import DataError, SpecError
from tests.engines import postgres_server, redis_server

NOW = datetime(2024, 6, 1, tzinfo=UTC)
PROJECT = "shop"
ROWS = 6
"""Entities of each view in an example."""

moments = st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1)).map(
    lambda moment: moment.replace(microsecond=0, tzinfo=UTC)
)
ELEMENTS: dict[Any, st.SearchStrategy[Any]] = {
    Float64: st.floats(),
    Float32: st.floats(width=32),
    Int64: st.integers(-(2**63), 2**63 - 1),
    Int32: st.integers(-(2**31), 2**31 - 1),
    Bool: st.booleans(),
    String: st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=30),  # PostgreSQL has no NUL
    Bytes: st.binary(max_size=30),
    UnixTimestamp: moments,
}
SCALARS = {f"scalar_{kind}".lower(): kind for kind in ELEMENTS} | {"scalar_uuid": Uuid, "scalar_json": Json}
LISTS = {f"list_{kind}".lower(): Array(kind) for kind in ELEMENTS}
KINDS = SCALARS | LISTS
fresh = count(1)


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    if isinstance(kind, Array):
        return st.lists(ELEMENTS[kind.base_type].filter(lambda value: value == value), max_size=4)
    if kind == Json:
        return st.sampled_from(['{"a": 1}', "[]", "3"])
    return st.uuids() if kind == Uuid else ELEMENTS[kind]


def view(
    name: str, entities: list[Entity], keys: dict[str, Any], features: dict[str, Any], ttl: int = 0
) -> FeatureView:
    return FeatureView(
        name=name,
        entities=entities,
        ttl=timedelta(seconds=ttl),
        schema=[Field(name=key, dtype=kind) for key, kind in (keys | features).items()],
        source=FileSource(name=f"{name}_rows", path="rows.parquet", timestamp_field="at"),
    )


user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
shop = Entity(name="shop", join_keys=["shop_id"], value_type=ValueType.STRING)
users = view("users", [user], {"user_id": Int64}, KINDS)
shops = view("shops", [shop], {"shop_id": String}, {"rating": Float64, "sold": Int64, "street": String})
pairs = view("pairs", [user, shop], {"user_id": Int64, "shop_id": String}, {"visits": Int32, "spent": Float64})
brief = view("brief", [user], {"user_id": Int64}, {"clicks": Float64}, ttl=60)
overall = view("overall", [], {}, {"total": Float64})


@on_demand_feature_view(sources=[shops], schema=[Field(name="doubled", dtype=Float64)], mode="python", singleton=True)
def doubled(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"doubled": inputs["rating"]}


SERVICES = [
    FeatureService(name="one", features=[users]),
    FeatureService(name="several", features=[users[["scalar_float64", "list_string"]], shops, pairs]),
    FeatureService(
        name="mapped",
        features=[
            shops.with_name("origin").with_join_key_map({"shop_id": "from_shop"}),
            shops.with_name("target").with_join_key_map({"shop_id": "to_shop"}),
            pairs[["spent"]].with_join_key_map({"shop_id": "to_shop"}),
        ],
    ),
    FeatureService(name="expiring", features=[brief]),
    FeatureService(name="everybody", features=[overall, users[["scalar_int64"]]]),
    FeatureService(name="computed", features=[shops, doubled]),
]


@dataclass
class Shop:
    """A feature store with its objects, and readers of its services."""

    store: FeatureStore
    readers: list[FeatureReader] = field(default_factory=list)

    def reader(self, service: str, full: bool = False) -> FeatureReader:
        plan = read_plan(self.store, service, full)
        self.readers.append(FeatureReader(ReadPlan.model_validate_json(plan.model_dump_json())))
        return self.readers[-1]

    def close(self) -> None:
        """PostgreSQL waits for its clients before it ends."""
        for reader in self.readers:
            reader.close()
        self.store._get_provider().online_store._conn.close()

    def write(self, view: FeatureView, rows: list[tuple[dict[str, Any], dict[str, Any], datetime]]) -> None:
        kinds = {field.name: field.dtype.to_value_type() for field in [*view.entity_columns, *view.features]}
        packed = []
        for key, values, moment in rows:
            protos = {n: python_values_to_proto_values([v], kinds[n])[0] for n, v in (key | values).items()}
            entity = EntityKey(join_keys=list(key), entity_values=[protos[n] for n in key])
            packed.append((entity, {n: protos[n] for n in values}, moment, None))
        self.store._get_provider().online_write_batch(self.store.config, view, packed, None)

    def oracle(self, service: str, columns: dict[str, Any], full: bool = False) -> dict[str, list[Any]]:
        found = self.store.get_online_features(self.store.get_feature_service(service), columns, full)
        return dict(found.to_dict())


def postgres_config(address: str) -> dict[str, Any]:
    url = urlsplit(address)
    return {
        "type": "postgres",
        "host": url.hostname,
        "port": url.port,
        "database": url.path.strip("/"),
        "user": url.username,
        "password": unquote(url.password or ""),
        "sslmode": "disable",
    }


@pytest.fixture(scope="module", params=["packed", "redis", "postgres"])
def market(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "redis":
        with redis_server() as port:
            yield applied(folder, {"type": "redis", "connection_string": f"127.0.0.1:{port},db=1"})
    elif request.param == "postgres":
        with postgres_server() as address:
            market = applied(folder, postgres_config(address))
            yield market
            market.close()
    else:
        kind = "ferroflow.adapters.feast.online.PackedSqliteOnlineStore"
        yield applied(folder, {"type": kind, "path": str(folder / "online"), "enforce_ttl": False})


def applied(folder: Path, online: dict[str, Any]) -> Shop:
    store = FeatureStore(
        config=RepoConfig(
            project=PROJECT,
            provider="local",
            registry={"registry_type": "sql", "path": f"sqlite:///{folder / 'registry.db'}"},
            online_store=online,
            offline_store={"type": "ferroflow.adapters.feast.offline.PolarsOfflineStore"},
            entity_key_serialization_version=3,
        )
    )
    store.apply([user, shop, users, shops, pairs, brief, overall, doubled, *SERVICES])
    return Shop(store)


def same(found: Any, expected: Any) -> bool:
    """Equal in value and type; NaN is equal to NaN."""
    if isinstance(expected, list):
        return type(found) is list and len(found) == len(expected) and all(map(same, found, expected))
    return type(found) is type(expected) and (found == expected or (found != found and expected != expected))


def agree(found: dict[str, list[Any]], expected: dict[str, list[Any]]) -> None:
    assert set(found) == set(expected)
    for name, column in expected.items():
        assert same(found[name], column), (name, found[name], column)


some = st.integers(0, ROWS + 2)  # two of them are nobody's
drawn_rows = st.lists(some, min_size=1, max_size=9)


@st.composite
def filled(draw: st.DrawFn, features: dict[str, Any]) -> dict[str, Any]:
    """Some of the features, null or not: others were never written."""
    written = draw(st.lists(st.sampled_from(sorted(features)), unique=True))
    return {name: draw(st.none() | values_of(features[name])) for name in written or sorted(features)[:1]}


MANY = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))


@MANY
@given(st.lists(filled(KINDS), min_size=1, max_size=ROWS), drawn_rows, st.booleans())
def test_values_of_every_type_are_feasts(market: Shop, values: list[Any], asked: list[int], full: bool) -> None:
    base = next(fresh) * 100 - 2**40
    market.write(users, [({"user_id": base + i}, entry, NOW) for i, entry in enumerate(values)])
    columns = {"user_id": [base + i for i in asked]}
    reader = market.reader("one", full)
    answer = reader.read(columns, NOW)
    row_by_row(reader, columns, answer)
    agree(answer.to_dict(), market.oracle("one", columns, full))
    assert answer.views["users"].missing == sum(i >= len(values) for i in asked)


@MANY
@given(st.data())
def test_several_views_and_keys_are_read_as_feast_reads_them(market: Shop, data: st.DataObject) -> None:
    base = next(fresh) * 100
    write_all(market, data, base)
    asked = data.draw(st.lists(st.tuples(some, some), min_size=1, max_size=9))
    columns = {"user_id": [base + i for i, _ in asked], "shop_id": [f"{base}-{j}" for _, j in asked]}
    reader = market.reader("several")
    answer = reader.read(columns, NOW)
    row_by_row(reader, columns, answer)
    agree(answer.to_dict(), market.oracle("several", columns))


@MANY
@given(st.data())
def test_views_under_other_names_and_keys_are_read_as_feast_reads_them(market: Shop, data: st.DataObject) -> None:
    base = next(fresh) * 100
    write_all(market, data, base)
    asked = data.draw(st.lists(st.tuples(some, some, some), min_size=1, max_size=9))
    columns = {
        "user_id": [base + i for i, _, _ in asked],
        "from_shop": [f"{base}-{j}" for _, j, _ in asked],
        "to_shop": [f"{base}-{k}" for _, _, k in asked],
    }
    reader = market.reader("mapped", True)
    answer = reader.read(columns, NOW)
    row_by_row(reader, columns, answer)
    agree(answer.to_dict(), market.oracle("mapped", columns, True))


def write_all(market: Shop, data: st.DataObject, base: int) -> None:
    for target, key in ((users, ("user_id",)), (shops, ("shop_id",)), (pairs, ("shop_id", "user_id"))):
        features = {
            field.name: field.dtype for field in target.features if field.name in (SHORT if target is users else KEPT)
        }
        names = {"user_id": lambda i: base + i, "shop_id": lambda i: f"{base}-{i}"}
        rows = [
            ({name: names[name](i) for name in key}, data.draw(filled(features)), NOW - timedelta(hours=i))
            for i in range(data.draw(st.integers(0, 3)))
        ]
        if rows:
            market.write(target, rows)


SHORT = ("scalar_float64", "list_string")
KEPT = ("rating", "sold", "street", "visits", "spent")


def test_a_view_without_entities_has_one_row_for_everybody(market: Shop) -> None:
    market.write(overall, [({"__dummy_id": ""}, {"total": 4.5}, NOW)])
    market.write(users, [({"user_id": 5}, {"scalar_int64": 7}, NOW)])
    columns = {"user_id": [5, 6]}
    answer = market.reader("everybody").read(columns, NOW).to_dict()
    agree(answer, market.oracle("everybody", columns))
    assert answer["total"] == [4.5, 4.5]


def test_values_older_than_the_time_to_live_are_none_and_counted(market: Shop) -> None:
    market.write(brief, [({"user_id": i}, {"clicks": float(i)}, NOW - timedelta(seconds=i)) for i in (1, 60, 61)])
    reader = market.reader("expiring")
    asked = {"user_id": [1, 60, 61, 99]}
    answer = reader.read(asked, NOW)
    assert answer.columns["clicks"] == [1.0, 60.0, None, None]
    assert (answer.views["brief"].missing, answer.views["brief"].stale) == (1, 1)
    assert answer.ages("brief") == (1.0, 61.0)
    later = [NOW, NOW + timedelta(seconds=1), NOW - timedelta(seconds=1), NOW]
    assert reader.read(asked, later).columns["clicks"] == [1.0, None, 61.0, None]
    assert market.oracle("expiring", asked)["clicks"][:3] == [1.0, 60.0, 61.0]


def row_by_row(reader: FeatureReader, columns: dict[str, list[Any]], answer: FeatureAnswer) -> None:
    """Each row read alone gives what it has among others, and what is noticed of the rows adds up."""
    height = len(next(iter(columns.values())))
    alone = [reader.read({name: [column[row]] for name, column in columns.items()}, NOW) for row in range(height)]
    for name, column in answer.to_dict().items():
        assert repr([found.to_dict()[name] for found in alone]) == repr([[value] for value in column]), name  # nan too
    for view, seen in answer.views.items():
        views = [found.views[view] for found in alone]
        assert sum(found.missing for found in views) == seen.missing
        assert sum(found.stale for found in views) == seen.stale
        assert max((found.newest for found in views if found.newest is not None), default=None) == seen.newest
        assert min((found.oldest for found in views if found.oldest is not None), default=None) == seen.oldest


def test_a_row_read_alone_without_key_or_too_old_is_noticed(market: Shop) -> None:
    market.write(brief, [({"user_id": i}, {"clicks": float(i)}, NOW - timedelta(seconds=i)) for i in (1, 60, 61)])
    reader = market.reader("expiring")
    columns: dict[str, list[Any]] = {"user_id": [1, 60, 61, 99, None, 1]}
    row_by_row(reader, columns, reader.read(columns, NOW))
    alone = [reader.read({"user_id": [user]}, NOW) for user in columns["user_id"]]
    assert [answer.columns["clicks"] for answer in alone] == [[1.0], [60.0], [None], [None], [None], [1.0]]


def test_a_row_without_a_key_has_no_values(market: Shop) -> None:
    market.write(pairs, [({"user_id": 1, "shop_id": "a"}, {"visits": 3, "spent": 1.5}, NOW)])
    columns = {"user_id": [1, None, 1], "shop_id": ["a", "a", None]}
    answer = market.reader("several").read(columns, NOW)
    assert answer.columns["visits"] == [3, None, None]
    assert answer.to_polars()["spent"].to_list() == [1.5, None, None]


def test_rows_and_columns_give_the_same_answer(market: Shop) -> None:
    market.write(shops, [({"shop_id": "here"}, {"rating": 2.5}, NOW)])
    rows = [{"user_id": 1, "shop_id": "here"}, {"user_id": 2, "shop_id": "there"}]
    reader = market.reader("several")
    columns = pl.DataFrame(rows).to_dict()
    assert reader.read_rows(rows, NOW).columns == reader.read(columns, NOW).columns
    assert reader.read_rows([], NOW).columns["rating"] == []
    reader.close()
    assert reader.read_rows(rows, NOW).columns["rating"] == [2.5, None]


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"user_id": [1]}, "shop_id"),
        ({"user_id": [1], "shop_id": ["a", "b"]}, r"\[1, 2\] values"),
        ({"user_id": ["1"], "shop_id": ["a"]}, "user_id"),
        ({"user_id": [1.0], "shop_id": ["a"]}, "user_id"),
        ({"user_id": [2**63], "shop_id": ["a"]}, "user"),
        ({"user_id": [1], "shop_id": [7]}, "shop_id"),
        ({"user_id": range(4), "shop_id": "abcd"}, "4 rows"),
    ],
)
def test_a_request_that_cannot_be_read_is_refused_by_name(market: Shop, columns: Any, told: str) -> None:
    reader = FeatureReader(read_plan(market.store, "several"), most=3)
    with pytest.raises(DataError, match=told):
        reader.read(columns, NOW)


def test_a_service_with_on_demand_views_is_refused_with_their_names(market: Shop) -> None:
    with pytest.raises(SpecError, match="doubled"):
        read_plan(market.store, "computed")


def test_what_feast_itself_writes_from_a_frame_is_read(market: Shop) -> None:
    frame = pl.DataFrame({"shop_id": ["x", "y"], "rating": [1.5, float("nan")], "sold": [3, 4], "street": ["a", None]})
    market.store.write_to_online_store("shops", frame.with_columns(pl.lit(NOW).alias("at")).to_pandas())
    columns = {"user_id": [1, 1], "shop_id": ["x", "y"]}
    answer = market.reader("several").read(columns, NOW).to_dict()
    agree(answer, market.oracle("several", columns))
    assert (answer["rating"], answer["street"]) == ([1.5, None], ["a", None])


def keyed(folder: Path, **kinds: Any) -> FeatureReader:
    """A reader of views that all ask by the field ``who``, each by a key of another kind."""
    path = folder / "online.db"
    with PackedStore(path) as packed:
        for name, kind in kinds.items():
            key = "7" if kind == "text" else 7
            packed.write(name, RowLayout(((name, "double"),)), [(key, 0, 0, [float(len(name))])])
    views = tuple(
        ViewPlan(view=n, table=n, keys=(KeyPlan(name=n, field="who", kind=kind),), features=((n, "double"),))
        for n, kind in kinds.items()
    )
    return FeatureReader(ReadPlan(store=PackedPlan(path=str(path)), project=PROJECT, views=views))


def test_a_field_is_taken_as_each_views_own_kind_of_key(tmp_path: Path) -> None:
    reader = keyed(tmp_path, a="int64", bb="int32")
    assert reader.read({"who": [7, 8, None]}, NOW).columns == {"a": [1.0, None, None], "bb": [2.0, None, None]}
    reader.close()


@pytest.mark.parametrize("kinds", [("int64", "text"), ("text", "int64")])
@pytest.mark.parametrize("value", [7, "7"])
def test_a_value_that_fits_the_key_of_one_view_alone_is_refused(tmp_path: Path, kinds: Any, value: Any) -> None:
    reader = keyed(tmp_path, a=kinds[0], bb=kinds[1])
    with pytest.raises(DataError, match=f"'who' is {'text' if value == 7 else 'int64'}, given are"):
        reader.read({"who": [value]}, NOW)
    assert reader.read({"who": [None]}, NOW).columns == {"a": [None], "bb": [None]}
    reader.close()


def test_a_row_of_the_future_is_given_as_feast_gives_it(market: Shop) -> None:
    market.write(shops, [({"shop_id": "later"}, {"rating": 1.0}, datetime(2033, 1, 1, tzinfo=UTC))])
    columns = {"user_id": [1], "shop_id": ["later"]}
    answer = market.reader("several").read(columns, datetime(2020, 1, 1, tzinfo=UTC)).to_dict()
    assert answer["rating"] == market.oracle("several", columns)["rating"] == [1.0]
