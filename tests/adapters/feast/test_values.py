"""Entity keys and values as Feast serializes them, against Feast itself."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import _mmh3
from feast.protos.feast.types import Value_pb2 as protos
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import feast_value_type_to_python_type
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from ferroflow.adapters.feast.keys import entity_key, is_entity_key, single_encoder
from ferroflow.adapters.feast.redis_rows import field_name
from ferroflow.adapters.feast.values import NULL_TIME, decode, event_time, row_decoder
from ferroflow.core.errors import DataError

INT64 = st.integers(-(2**63), 2**63 - 1)
INT32 = st.integers(-(2**31), 2**31 - 1)
TIMES = st.integers(-2_000_000_000, 10_000_000_000) | st.just(NULL_TIME)
DOUBLES = st.floats(allow_nan=False)
FLOATS = st.floats(allow_nan=False, width=32)
TEXTS = st.text(max_size=200)
UUIDS = st.uuids().map(str)
DECIMALS = st.decimals(allow_nan=False).map(str)
JSON = st.sampled_from(["{}", '{"a": [1, null, "ü"]}', "3", "no json", ""])

ELEMENTS: dict[str, tuple[st.SearchStrategy[Any], str]] = {
    "bytes": (st.binary(max_size=200), "Bytes"),
    "string": (TEXTS, "String"),
    "int32": (INT32, "Int32"),
    "int64": (INT64, "Int64"),
    "double": (DOUBLES, "Double"),
    "float": (FLOATS, "Float"),
    "bool": (st.booleans(), "Bool"),
    "unix_timestamp": (TIMES, "Int64"),
    "uuid": (UUIDS, "String"),
    "time_uuid": (UUIDS, "String"),
    "decimal": (DECIMALS, "String"),
}


def scalars() -> list[st.SearchStrategy[Value]]:
    plain = [
        values.map(lambda value, kind=kind: Value(**{f"{kind}_val": value})) for kind, (values, _) in ELEMENTS.items()
    ]
    return [*plain, JSON.map(lambda text: Value(json_val=text)), st.just(Value())]


def collections() -> list[st.SearchStrategy[Value]]:
    found = [
        st.lists(values, max_size=5).map(
            lambda items, kind=kind, name=name, what=what: Value(
                **{f"{kind}_{what.lower()}_val": getattr(protos, f"{name}{what}")(val=items)}
            )
        )
        for kind, (values, name) in ELEMENTS.items()
        for what in ("List", "Set")
    ]
    return [*found, st.lists(JSON, max_size=3).map(lambda items: Value(json_list_val=protos.StringList(val=items)))]


def nested(inner: st.SearchStrategy[Value]) -> st.SearchStrategy[Value]:
    maps = st.dictionaries(TEXTS, inner, max_size=3).map(lambda items: protos.Map(val=items))
    keys = st.one_of(
        INT32.map(lambda key: protos.MapKey(int32_key=key)),
        INT64.map(lambda key: protos.MapKey(int64_key=key)),
        FLOATS.map(lambda key: protos.MapKey(float_key=key)),
        DOUBLES.map(lambda key: protos.MapKey(double_key=key)),
        st.booleans().map(lambda key: protos.MapKey(bool_key=key)),
        TIMES.map(lambda key: protos.MapKey(unix_timestamp_key=key)),
        st.binary(max_size=9).map(lambda key: protos.MapKey(bytes_key=key)),
        UUIDS.map(lambda key: protos.MapKey(uuid_key=key)),
        DECIMALS.map(lambda key: protos.MapKey(decimal_key=key)),
    )
    entries = st.builds(lambda key, value: protos.ScalarMapEntry(key=key, value=value), keys, inner)
    zones = st.sampled_from(["", "UTC", "Europe/Berlin", "UTC-07:00", "+05:30", "nowhere"])
    return st.one_of(
        maps.map(lambda found: Value(map_val=found)),
        maps.map(lambda found: Value(struct_val=found)),
        st.lists(maps, max_size=2).map(lambda found: Value(map_list_val=protos.MapList(val=found))),
        st.lists(inner, max_size=3).map(lambda found: Value(list_val=protos.RepeatedValue(val=found))),
        st.lists(inner, max_size=3).map(lambda found: Value(set_val=protos.RepeatedValue(val=found))),
        st.lists(entries, max_size=3).map(lambda found: Value(scalar_map_val=protos.ScalarMap(val=found))),
        st.builds(
            lambda moment, zone: Value(zoned_timestamp_val=protos.ZonedTimestamp(unix_timestamp=moment, zone=zone)),
            TIMES,
            zones,
        ),
    )


VALUES = st.one_of(*scalars(), *collections(), nested(st.one_of(*scalars(), *collections())))


@settings(max_examples=40, deadline=None)
@given(st.lists(VALUES, min_size=8, max_size=20))
def test_every_value_is_what_feast_gives(values: list[Value]) -> None:
    for value in values:
        expected = feast_value_type_to_python_type(value)
        found = decode(value.SerializeToString())
        assert (found, type(found)) == (expected, type(expected))
        if isinstance(expected, datetime):
            assert found.utcoffset() == expected.utcoffset()


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["double", "float"]), st.lists(VALUES | DOUBLES.map(lambda x: Value(double_val=x)), max_size=6))
def test_a_row_is_decoded_alike_whatever_its_kinds_promise(kind: Any, values: list[Value]) -> None:
    row = [value.SerializeToString() for value in values]
    assert row_decoder([kind] * len(row))(row) == [decode(data) for data in row]


def test_rows_of_numbers_keep_absent_values_apart() -> None:
    row: list[bytes | None] = [Value(double_val=1.5).SerializeToString(), None, b""]
    assert row_decoder(["double"] * 3)(row) == [1.5, None, None]
    floats = [Value(float_val=x).SerializeToString() for x in (0.5, -2.0)]
    assert row_decoder(["float"] * 2)(floats) == [0.5, -2.0]


@pytest.mark.parametrize("data", [b"\x29\x00", b"\x12\x05ab", b"\xff", b"\x12\x02\xff\xff", b"\x0b", b"\xf8\x3f\x01"])
def test_bytes_that_are_no_value_are_refused_with_their_bytes(data: bytes) -> None:
    with pytest.raises(DataError, match="no Feast value"):
        decode(data)


def test_an_explicit_null_is_none_where_feast_gives_zero() -> None:
    assert decode(Value(null_val=0).SerializeToString()) is None


@settings(max_examples=40, deadline=None)
@given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2200, 1, 1)))
def test_event_times_are_read_to_the_microsecond(moment: datetime) -> None:
    stored = Timestamp()
    stored.FromDatetime(moment)
    expected = stored.ToMicroseconds()
    assert event_time(stored.SerializeToString()) == expected


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**20) | st.integers(0, 2**36), st.integers(0, 999_999) | st.integers(0, 999_999_999))
def test_small_numbers_of_seconds_with_nanoseconds_are_no_whole_seconds(seconds: int, nanos: int) -> None:
    stored = Timestamp(seconds=seconds, nanos=nanos)
    assert event_time(stored.SerializeToString()) == seconds * 1_000_000 + nanos // 1_000


def test_six_bytes_of_seconds_and_nanoseconds_are_both_read() -> None:
    stored = Timestamp(seconds=200, nanos=1_000).SerializeToString()
    assert (len(stored), event_time(stored)) == (6, 200_000_001)


def test_times_that_are_no_timestamp_are_refused() -> None:
    with pytest.raises(DataError, match="no timestamp"):
        event_time(b"\x08")


KEYS = {"int64": INT64, "int32": INT32, "text": st.text(max_size=20), "bytes": st.binary(max_size=20), "time": INT64}
FIELDS = {
    "int64": "int64_val",
    "int32": "int32_val",
    "text": "string_val",
    "bytes": "bytes_val",
    "time": "unix_timestamp_val",
}


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_entity_keys_are_feasts_bytes_in_any_order(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.text(min_size=1, max_size=9), min_size=1, max_size=3, unique=True))
    kinds: list[Any] = [data.draw(st.sampled_from(sorted(KEYS))) for _ in names]
    values = [data.draw(KEYS[kind]) for kind in kinds]
    stored = [Value(**{FIELDS[kind]: value}) for kind, value in zip(kinds, values, strict=True)]
    expected = serialize_entity_key(EntityKey(join_keys=names, entity_values=stored), 3)
    assert entity_key(names, kinds, values) == expected
    if len(names) == 1:
        assert single_encoder(names[0], kinds[0])(values[0]) == expected
    assert is_entity_key(expected)
    assert not is_entity_key(expected + b"my")
    assert not is_entity_key(expected[:-1])


@pytest.mark.parametrize(
    ("kind", "value"), [("int64", "5"), ("int64", 2**63), ("int32", 2**31), ("text", 5), ("bytes", "x"), ("time", None)]
)
def test_a_key_of_another_type_is_refused_by_name(kind: Any, value: Any) -> None:
    with pytest.raises(DataError, match="user"):
        entity_key(["user"], [kind], [value])
    with pytest.raises(DataError, match="user"):
        single_encoder("user", kind)(value)


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=20), st.text(max_size=20))
def test_a_features_field_in_redis_is_named_as_feast_names_it(view: str, feature: str) -> None:
    assert field_name(view, feature) == _mmh3(f"{view}:{feature}")


def test_decimals_and_times_keep_their_types() -> None:
    assert decode(Value(decimal_val="1.50").SerializeToString()) == Decimal("1.50")
    assert decode(Value(unix_timestamp_val=0).SerializeToString()) == datetime(1970, 1, 1, tzinfo=UTC)
    assert decode(Value(float_val=0.1).SerializeToString()) == struct.unpack("<f", struct.pack("<f", 0.1))[0]
