from __future__ import annotations

import struct
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import extract_text_and_num
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.type_map import python_values_to_proto_values
from feast.value_type import ValueType
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from ferroflow.adapters.feast import encode
from ferroflow.core.errors import DataError

few = settings(max_examples=40, deadline=None, database=None)

DOUBLES = st.floats(allow_nan=True, allow_infinity=True)
EXACT = st.integers(-(2**53), 2**53)  # what a double holds: Feast rounds larger ones beside a null
TIMES = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
KINDS = {
    ValueType.DOUBLE: (st.one_of(DOUBLES, st.just(-0.0)), [pa.float64()]),
    ValueType.FLOAT: (st.floats(width=32), [pa.float32(), pa.float64()]),
    ValueType.INT64: (EXACT, [pa.int64(), pa.float64()]),
    ValueType.INT32: (st.integers(-(2**31), 2**31 - 1), [pa.int32(), pa.int64()]),
    ValueType.BOOL: (st.booleans(), [pa.bool_()]),
    ValueType.STRING: (st.text(max_size=300), [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]),
    ValueType.BYTES: (st.binary(min_size=1, max_size=300), [pa.binary(), pa.large_binary()]),
    ValueType.UNIX_TIMESTAMP: (
        TIMES,
        [pa.timestamp("us", "UTC"), pa.timestamp("us", "Europe/Berlin"), pa.timestamp("us")],
    ),
    ValueType.DOUBLE_LIST: (st.lists(DOUBLES, max_size=20), [pa.list_(pa.float64()), pa.large_list(pa.float64())]),
    ValueType.FLOAT_LIST: (st.lists(st.floats(width=32), max_size=40), [pa.list_(pa.float32())]),
    ValueType.INT64_LIST: (st.lists(EXACT, max_size=5), [pa.list_(pa.int64())]),
    ValueType.STRING_LIST: (st.lists(st.text(max_size=5), max_size=5), [pa.list_(pa.string())]),
    ValueType.JSON: (st.sampled_from(['{"a": 1}', "[]"]), [pa.string()]),
}


def feasts(array: pa.Array, kind: ValueType) -> list[object]:
    return python_values_to_proto_values(encode.one_array(array).to_numpy(zero_copy_only=False), kind)


@pytest.mark.parametrize("kind", list(KINDS), ids=lambda kind: kind.name)
@few
@given(data=st.data())
def test_the_bytes_of_a_column_are_those_of_feasts_own_conversion(kind: ValueType, data: st.DataObject) -> None:
    values, types = KINDS[kind]
    column = data.draw(st.lists(st.one_of(values, st.none()), min_size=1, max_size=12))
    array = pa.array(column, data.draw(st.sampled_from(types)))
    expected = feasts(array, kind)
    assert encode.value_bytes(array, kind) == [value.SerializeToString() for value in expected]
    found, texts = encode.values_and_texts(array, kind)
    assert found == [value.SerializeToString() for value in expected]
    assert texts == [extract_text_and_num(value, False)[0] for value in expected]


def test_a_column_in_slices_and_in_chunks_gives_the_bytes_of_the_whole() -> None:
    array = pa.array([[1.5], None, [], [2.0, 3.0]] * 3, pa.list_(pa.float64()))
    whole = encode.value_bytes(array, ValueType.DOUBLE_LIST)
    assert encode.value_bytes(array.slice(3, 5), ValueType.DOUBLE_LIST) == whole[3:8]
    assert encode.value_bytes(pa.chunked_array([array[:5], array[5:]]), ValueType.DOUBLE_LIST) == whole


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (pa.array([None, None]), ValueType.DOUBLE),
        (pa.array([], pa.float64()), ValueType.DOUBLE),
        (pa.array([1, 0, None]), ValueType.DOUBLE),
        (pa.array([1.0, 1e300, -1e300, float("inf")]), ValueType.FLOAT),
        (pa.array([1.7, -2.7, float("nan")]), ValueType.INT64),
        (pa.array([1, 0]), ValueType.BOOL),
        (pa.array([1, 0]), ValueType.STRING),
        (pa.array([date(2024, 1, 1), None, date(1960, 2, 3)]), ValueType.UNIX_TIMESTAMP),
        (pa.array([1, -2]), ValueType.UNIX_TIMESTAMP),
        (pa.array([[1.0, None], [2.0]]), ValueType.DOUBLE_LIST),
        (pa.array([datetime(2024, 1, 1), None], pa.timestamp("ns")), ValueType.UNIX_TIMESTAMP),
    ],
)
def test_odd_types_of_a_column_give_what_feast_gives(array: pa.Array, kind: ValueType) -> None:
    assert encode.value_bytes(array, kind) == [value.SerializeToString() for value in feasts(array, kind)]


def test_whole_numbers_beside_a_null_stay_exact() -> None:
    (first, missing) = encode.value_bytes(pa.array([2**53 + 1, None]), ValueType.INT64)
    assert first == feasts(pa.array([2**53 + 1]), ValueType.INT64)[0].SerializeToString()
    assert missing == b""


def test_bytes_that_are_all_empty_stay_empty_bytes_where_feast_makes_them_null() -> None:
    assert encode.value_bytes(pa.array([b"", None]), ValueType.BYTES) == [b"\x0a\x00", b""]
    assert encode.value_bytes(pa.array([b"", b"x"]), ValueType.BYTES) == [
        value.SerializeToString() for value in feasts(pa.array([b"", b"x"]), ValueType.BYTES)
    ]


@pytest.mark.parametrize(
    ("array", "kind"),
    [(pa.array([2**40]), ValueType.INT32), (pa.array([1e30]), ValueType.INT64), (pa.array(["x"]), ValueType.INT64)],
)
def test_what_does_not_fit_is_refused_as_feast_refuses_it(array: pa.Array, kind: ValueType) -> None:
    with pytest.raises(ValueError, match=r"out of range|invalid literal"):
        encode.value_bytes(array, kind)


KEYS = {
    ValueType.INT64: (st.integers(-(2**63), 2**63 - 1), pa.int64()),
    ValueType.INT32: (st.integers(-(2**31), 2**31 - 1), pa.int32()),
    ValueType.STRING: (st.text(max_size=200), pa.string()),
    ValueType.BYTES: (st.binary(min_size=1, max_size=20), pa.binary()),
    ValueType.UNIX_TIMESTAMP: (TIMES, pa.timestamp("us", "UTC")),
}


def feasts_keys(columns: Mapping[str, pa.Array], kinds: Mapping[str, ValueType], version: int = 3) -> list[bytes]:
    values = [feasts(columns[name], kind) for name, kind in kinds.items()]
    return [
        serialize_entity_key(EntityKey(join_keys=list(kinds), entity_values=list(row)), version)
        for row in zip(*values, strict=True)
    ]


@few
@given(data=st.data())
def test_entity_keys_are_feasts_own_for_any_keys_in_any_order(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=3, unique=True))
    kinds = {name: data.draw(st.sampled_from(list(KEYS))) for name in names}
    rows = data.draw(st.integers(1, 4))
    columns = {
        name: pa.array(data.draw(st.lists(KEYS[kind][0], min_size=rows, max_size=rows)), KEYS[kind][1])
        for name, kind in kinds.items()
    }
    assert encode.entity_keys(columns, kinds) == feasts_keys(columns, kinds)


def test_keys_that_are_numbers_called_texts_are_feasts_texts() -> None:
    columns, kinds = {"a": pa.array([1, 23])}, {"a": ValueType.STRING}
    assert encode.entity_keys(columns, kinds) == feasts_keys(columns, kinds)


def test_older_versions_of_the_entity_key_are_feasts_own() -> None:
    columns, kinds = {"a": pa.array([1, 23])}, {"a": ValueType.INT64}
    with pytest.warns(UserWarning, match="version"):
        assert encode.entity_keys(columns, kinds, 2) == feasts_keys(columns, kinds, 2)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(DataError, match="1 rows have no 'a', which is a key"):
        encode.entity_keys({"a": pa.array([1, None])}, {"a": ValueType.INT64})


@few
@given(st.lists(st.one_of(TIMES, st.just(datetime(1970, 1, 1, tzinfo=UTC))), min_size=1, max_size=10))
def test_times_are_protobufs_timestamps(times: list[datetime]) -> None:
    expected = []
    for moment in times:
        stamp = Timestamp()
        stamp.FromDatetime(moment)
        expected.append(stamp.SerializeToString())
    found = encode.microseconds(pa.array(times, pa.timestamp("us", "UTC")))
    assert encode.timestamp_bytes(found) == expected
    assert found.tolist() == [
        (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) for moment in times
    ]


def test_times_of_any_unit_zone_or_without_one_are_microseconds_of_utc() -> None:
    moment, micros = datetime(2024, 3, 31, 12, 30), 1_711_888_200_000_000
    for unit in ("s", "ms", "us", "ns"):
        assert encode.microseconds(pa.array([moment], pa.timestamp(unit))).tolist() == [micros]
        zoned = pa.array([pd.Timestamp(moment, tz="UTC")], pa.timestamp(unit, "Asia/Tokyo"))
        assert encode.microseconds(zoned).tolist() == [micros]
    assert encode.microseconds(pa.array([moment.date(), None])).tolist() == [1_711_843_200_000_000, encode.NULL_TIME]
    with pytest.raises(DataError, match="of type int64"):
        encode.microseconds(pa.array([1]))


def test_bytes_that_end_in_zeros_are_kept_whole() -> None:
    assert encode.fixed_width(b"\x29", np.array([0.0, 1.0])) == [b"\x29" + struct.pack("<d", x) for x in (0.0, 1.0)]
