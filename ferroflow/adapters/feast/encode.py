"""Arrow columns to the bytes that Feast stores, a column at a time: values, entity keys and times.

Feast converts value by value. Here NumPy writes the bytes of whole columns: of numbers, truth values and times, of
lists of floats, and, value by value but without protos, of texts and bytes. What a column of another kind or type
gives is made by Feast's own conversion, so that it is right by definition.

What differs from Feast on purpose: whole numbers beside nulls are exact (Feast takes them through a double), times
given as whole seconds beside nulls are kept (Feast turns all of them into nulls), and empty bytes are empty bytes
(Feast makes them null where a column has nothing else).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import extract_text_and_num
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.type_map import python_values_to_proto_values
from feast.value_type import ValueType

from ferroflow.core.errors import DataError

Ints: TypeAlias = npt.NDArray[np.int64]

NULL_TIME = -(2**63)
"""What Feast stores for a time that is null."""

BYTE_KINDS = (ValueType.BYTES, ValueType.PDF_BYTES, ValueType.IMAGE_BYTES)

_DOUBLE, _FLOAT, _BOOL, _STRING, _BYTES = b"\x29", b"\x35", b"\x38", b"\x12", b"\x0a"
_VARINT = {ValueType.INT64: b"\x20", ValueType.INT32: b"\x18", ValueType.UNIX_TIMESTAMP: b"\x40"}
_LIST: dict[ValueType, tuple[bytes, np.dtype[Any], Any]] = {
    ValueType.DOUBLE_LIST: (b"\x7a", np.dtype("<f8"), pa.float64()),
    ValueType.FLOAT_LIST: (b"\x82\x01", np.dtype("<f4"), pa.float32()),
}
_INTEGERS = (ValueType.INT64, ValueType.INT32)
_KEY_TYPES = {  # of the entity key, as Feast numbers its value types
    ValueType.BYTES: 1,
    ValueType.STRING: 2,
    ValueType.INT32: 3,
    ValueType.INT64: 4,
    ValueType.UNIX_TIMESTAMP: 8,
}
_EPOCH_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_LARGEST = float(2**63)


class Numbers(NamedTuple):
    """A column as fixed-width values: ``valid`` is False where the value is null (or NaN)."""

    values: npt.NDArray[Any]
    valid: npt.NDArray[np.bool_]


def one_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column as one array, dictionaries decoded and string views made plain."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = column.chunk(0) if column.num_chunks else pa.array([], column.type)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string_view(column.type):
        return column.cast(pa.large_string())
    return column.cast(pa.large_binary()) if pa.types.is_binary_view(column.type) else column


def value_bytes(column: pa.ChunkedArray | pa.Array, kind: ValueType) -> list[bytes]:
    """A serialized Feast ``Value`` for each row; ``b""`` where the value is null."""
    array = one_array(column)
    found = _value_bytes(array, kind)
    return [value.SerializeToString() for value in protos(array, kind)] if found is None else found


def values_and_texts(column: pa.ChunkedArray | pa.Array, kind: ValueType) -> tuple[list[bytes], list[str | None]]:
    """``value_bytes``, and beside each what Feast's SQL stores keep as its text (None: no text)."""
    array = one_array(column)
    found = _value_bytes(array, kind)
    if found is None:
        values = protos(array, kind)
        return [value.SerializeToString() for value in values], [extract_text_and_num(v, False)[0] for v in values]
    if kind == ValueType.STRING:
        return found, array.to_pylist()
    if kind not in (*_INTEGERS, ValueType.DOUBLE, ValueType.FLOAT, ValueType.BOOL):
        return found, [None] * len(array)
    known = numbers(array, kind)
    if known is None:  # a column without any value
        return found, [None] * len(array)
    plain = known.values.astype(bool) if kind == ValueType.BOOL else known.values
    texts: list[str | None] = list(map(str, plain.tolist()))
    return found, _where_valid(texts, known.valid, None)


def numbers(array: pa.Array, kind: ValueType) -> Numbers | None:
    """The values of a kind of fixed width, in that width; times as whole seconds since 1970 (0 where null).

    None: the kind has no fixed width, or the column's type is none that is known to convert exactly as Feast does.
    """
    stored, found = array.type, None
    if kind == ValueType.UNIX_TIMESTAMP:
        found = _seconds(array)
    elif kind == ValueType.BOOL and pa.types.is_boolean(stored):
        found = _filled(array, np.dtype(np.uint8))
    elif not (pa.types.is_integer(stored) or pa.types.is_floating(stored)):
        return None
    elif kind in (ValueType.DOUBLE, ValueType.FLOAT):
        values, valid = _filled(array, np.dtype("<f8"))
        valid = valid & ~np.isnan(values)
        if kind == ValueType.FLOAT:
            with np.errstate(over="ignore"):  # too large for a float: infinite, as in a proto
                values = values.astype("<f4")
        found = Numbers(values, valid)
    elif kind in _INTEGERS:
        found = _whole(array, kind)
    return found


def texts(array: pa.Array, kind: ValueType) -> list[bytes | None] | None:
    """The bytes of texts (UTF-8) and bytes, None where null; None: another kind, or another type of column."""
    stored = array.type
    if kind == ValueType.STRING and (pa.types.is_string(stored) or pa.types.is_large_string(stored)):
        array = array.cast(pa.large_binary())
    elif kind not in BYTE_KINDS or not (
        pa.types.is_binary(stored) or pa.types.is_large_binary(stored) or pa.types.is_fixed_size_binary(stored)
    ):
        return None
    found: list[bytes | None] = array.to_pylist()
    return found


def microseconds(column: pa.ChunkedArray | pa.Array) -> Ints:
    """Microseconds since 1970 of times (UTC where they have no zone) and dates; ``NULL_TIME`` where null."""
    array = one_array(column)
    if not pa.types.is_temporal(array.type):
        raise DataError(f"Times are of type {array.type}. Store them as timestamps.")
    zoned = array.type.tz if pa.types.is_timestamp(array.type) else None
    array = array.cast(pa.timestamp("us", zoned), safe=False).cast(pa.int64())
    found: Ints = pc.fill_null(array, NULL_TIME).to_numpy(zero_copy_only=False)
    return found


def timestamp_bytes(times: Ints) -> list[bytes]:
    """Serialized protobuf ``Timestamp`` of microseconds since 1970."""
    seconds, rest = np.divmod(times, 10**6)
    whole = _varints(b"\x08", seconds)
    nanos = _varints(b"\x10", rest * 1000)
    # A proto leaves out what is zero.
    return [
        (one if second else b"") + (other if part else b"")
        for one, other, second, part in zip(whole, nanos, seconds.tolist(), rest.tolist(), strict=True)
    ]


def entity_keys(columns: Mapping[str, Any], kinds: Mapping[str, ValueType], version: int = 3) -> list[bytes]:
    """Feast's serialized entity key of each row.

    Raises:
        DataError: a key is null.
    """
    names = sorted(kinds)
    arrays = [key_array(columns[name], name) for name in names]
    parts = [_key_parts(array, kinds[name]) for name, array in zip(names, arrays, strict=True)]
    known = [part for part in parts if part is not None]
    if version != 3 or len(known) < len(parts):
        return _keys_by_protos(names, arrays, kinds, version)
    head = struct.pack("<I", len(names)) + b"".join(
        struct.pack("<II", _KEY_TYPES[ValueType.STRING], len(name.encode())) + name.encode() for name in names
    )
    return [head + b"".join(row) for row in zip(*known, strict=True)] if names else []


def key_array(column: pa.ChunkedArray | pa.Array, name: str) -> pa.Array:
    """A key's column.

    Raises:
        DataError: a key is null.
    """
    array = one_array(column)
    if array.null_count:
        raise DataError(f"{array.null_count} rows have no {name!r}, which is a key. Fill it or leave them out.")
    return array


def protos(array: pa.Array, kind: ValueType) -> list[Any]:
    """Feast's own conversion: a ``Value`` for each row."""
    found: list[Any] = python_values_to_proto_values(array.to_numpy(zero_copy_only=False), kind)
    return found


def fixed_width(head: bytes, values: npt.NDArray[Any]) -> list[bytes]:
    """``head`` and the bytes of each value, little-endian."""
    count, start, width = len(values), len(head), values.dtype.itemsize
    rows = np.empty((count, start + width), np.uint8)
    rows[:, :start] = np.frombuffer(head, np.uint8)
    rows[:, start:] = np.ascontiguousarray(values).view(np.uint8).reshape(count, width)
    return row_bytes(rows)


def row_bytes(rows: npt.NDArray[np.uint8]) -> list[bytes]:
    """Each row of a matrix of bytes."""
    # Type V keeps trailing zeros, which type S would cut off.
    found: list[bytes] = np.ascontiguousarray(rows).reshape(-1).view(f"V{rows.shape[1]}").tolist()
    return found


def _value_bytes(array: pa.Array, kind: ValueType) -> list[bytes] | None:
    if pa.types.is_null(array.type):
        return [b""] * len(array)
    if kind in _LIST:
        return _float_lists(array, kind)
    if (found := texts(array, kind)) is not None:
        return _length_first(_STRING if kind == ValueType.STRING else _BYTES, found)
    known = numbers(array, kind)
    if known is None:
        return None
    values, valid = known
    if kind == ValueType.DOUBLE:
        encoded = fixed_width(_DOUBLE, values)
    elif kind == ValueType.FLOAT:
        encoded = fixed_width(_FLOAT, values)
    elif kind == ValueType.BOOL:
        encoded = fixed_width(_BOOL, values)
    else:
        if kind == ValueType.UNIX_TIMESTAMP:
            values, valid = np.where(valid, values, NULL_TIME), np.ones_like(valid)
        encoded = _varints(_VARINT[kind], values.astype(np.int64))
    return _where_valid(encoded, valid, b"")


def _where_valid(values: list[Any], valid: npt.NDArray[np.bool_], missing: Any) -> list[Any]:
    for row in np.flatnonzero(~valid).tolist():
        values[row] = missing
    return values


def _filled(array: pa.Array, width: np.dtype[Any]) -> Numbers:
    valid = np.asarray(array.is_valid())
    filled = pc.fill_null(array, False if pa.types.is_boolean(array.type) else 0) if array.null_count else array
    return Numbers(filled.to_numpy(zero_copy_only=False).astype(width), valid)


def _whole(array: pa.Array, kind: ValueType) -> Numbers | None:
    """Whole numbers; decimals are cut off. None for what does not fit: Feast's conversion then says so."""
    if pa.types.is_floating(array.type):
        values, valid = _filled(array, np.dtype("<f8"))
        valid = valid & ~np.isnan(values)
        values = np.where(valid, np.trunc(values), 0.0)
        if np.any((values < -_LARGEST) | (values >= _LARGEST)):
            return None
    elif array.type == pa.uint64() and len(array) and (pc.max(array).as_py() or 0) >= 2**63:
        return None
    else:
        values, valid = _filled(array, np.dtype("<i8"))
    whole = values.astype("<i8")
    if kind == ValueType.INT64:
        return Numbers(whole, valid)
    if np.any((whole < -(2**31)) | (whole >= 2**31)):
        return None
    return Numbers(whole.astype("<i4"), valid)


def _seconds(array: pa.Array) -> Numbers | None:
    stored = array.type
    if pa.types.is_signed_integer(stored):
        return _filled(array, np.dtype("<i8"))
    if pa.types.is_date32(stored):
        days = _filled(array.cast(pa.int32()), np.dtype("<i8"))
        return Numbers(days.values * 86_400, days.valid)
    if not pa.types.is_timestamp(stored):
        return None
    ticks = _filled(array.cast(pa.int64()), np.dtype("<i8"))
    return Numbers(ticks.values // _EPOCH_UNITS[stored.unit], ticks.valid)


def _varints(tag: bytes, values: Ints) -> list[bytes]:
    """``tag`` and the varint of each value, negative ones in ten bytes as protobuf writes them."""
    rest = np.ascontiguousarray(values).astype(np.int64).view(np.uint64)
    rows = np.zeros((len(rest), len(tag) + 10), np.uint8)
    rows[:, : len(tag)] = np.frombuffer(tag, np.uint8)
    ends = np.full(len(rest), len(tag) + 1)
    for place in range(len(tag), len(tag) + 10):
        digit = (rest & np.uint64(127)).astype(np.uint8)
        rest = rest >> np.uint64(7)
        more = rest != 0
        rows[:, place] = digit | (more.astype(np.uint8) << 7)
        ends += more
        if not more.any():
            break
    whole, width = rows.tobytes(), rows.shape[1]
    starts = range(0, width * len(rest), width)
    return [whole[start : start + end] for start, end in zip(starts, ends.tolist(), strict=True)]


def _length(size: int) -> bytes:
    found = bytearray()
    while size > 127:
        found.append(size & 127 | 128)
        size >>= 7
    found.append(size)
    return bytes(found)


def _length_first(tag: bytes, values: Sequence[bytes | None]) -> list[bytes]:
    heads = [tag + _length(size) for size in range(256)]
    return [
        b"" if value is None else (heads[len(value)] if len(value) < 256 else tag + _length(len(value))) + value
        for value in values
    ]


def _float_lists(array: pa.Array, kind: ValueType) -> list[bytes] | None:
    """Lists of floats without nulls in them; None for others."""
    tag, width, exact = _LIST[kind]
    stored = array.type
    if not (pa.types.is_list(stored) or pa.types.is_large_list(stored)) or stored.value_type != exact:
        return None
    inside = array.flatten()
    if inside.null_count:
        return None
    data = inside.to_numpy(zero_copy_only=False).astype(width).tobytes()
    sizes = _filled(pc.list_value_length(array), np.dtype("<i8"))
    found, start = [], 0
    for size, valid in zip((sizes.values * width.itemsize).tolist(), sizes.valid.tolist(), strict=True):
        packed = b"\x0a" + _length(size) + data[start : start + size] if size else b""
        found.append(tag + _length(len(packed)) + packed if valid else b"")
        start += size
    return found


def _key_parts(array: pa.Array, kind: ValueType) -> list[bytes] | None:
    """Type, length and bytes of each key; None for kinds and types that Feast's conversion has to tell."""
    if kind not in _KEY_TYPES:
        return None
    number = struct.pack("<I", _KEY_TYPES[kind])
    if (found := texts(array, kind)) is not None:
        return [number + struct.pack("<I", len(value or b"")) + (value or b"") for value in found]
    known = numbers(array, kind)
    if known is None or not known.valid.all():
        return None
    return fixed_width(number + struct.pack("<I", known.values.dtype.itemsize), known.values)


def _keys_by_protos(
    names: Sequence[str], arrays: Sequence[pa.Array], kinds: Mapping[str, ValueType], version: int
) -> list[bytes]:
    columns = [protos(array, kinds[name]) for name, array in zip(names, arrays, strict=True)]
    return [
        serialize_entity_key(EntityKey(join_keys=names, entity_values=row), entity_key_serialization_version=version)
        for row in zip(*columns, strict=True)
    ]
