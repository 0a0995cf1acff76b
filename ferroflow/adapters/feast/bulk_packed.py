"""The latest rows of a view into the packed SQLite store: packed a column at a time, written in one transaction."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from feast import FeatureView
from feast.repo_config import RepoConfig
from feast.value_type import ValueType

from ferroflow.adapters.feast import encode, online
from ferroflow.adapters.feast.bulk_rows import SLICE, LatestRows, Progress
from ferroflow.adapters.feast.packed import Key, PackedStore
from ferroflow.adapters.feast.replacement import replacement
from ferroflow.adapters.feast.rows import Kind, RowLayout
from ferroflow.core.errors import DataError

_Bytes = npt.NDArray[np.uint8]

_WIDTHS: dict[Kind, str] = {
    "double": "<f8",
    "float": "<f4",
    "int64": "<i8",
    "int32": "<i4",
    "bool": "u1",
    "time": "<i8",
}
_LENGTH = "<u4"
_PLAIN: dict[Kind, tuple[str, Any]] = {  # what a proto of each kind holds, and as which column
    "double": ("double_val", pa.float64()),
    "float": ("float_val", pa.float32()),
    "int64": ("int64_val", pa.int64()),
    "int32": ("int32_val", pa.int32()),
    "bool": ("bool_val", pa.bool_()),
    "time": ("unix_timestamp_val", pa.int64()),
    "text": ("string_val", pa.large_string()),
    "bytes": ("bytes_val", pa.large_binary()),
}
_WHOLE = (ValueType.INT64, ValueType.INT32)


def write(config: RepoConfig, view: FeatureView, rows: LatestRows, progress: Progress) -> int:
    """Write the rows in one transaction, in the order of their keys.

    Returns:
        How many rows were written: those that are not older than what the store has.

    Raises:
        sqlite3.Error: the file cannot be written, or another writer holds it for too long; nothing was written then.
    """
    keys = key_column(rows)
    order = pc.sort_indices(keys)  # neighbours of the file's tree one after the other
    keys, rows = keys.take(order), rows.taken(np.asarray(order))
    layout, replaced = online.row_layout(view), replacement()
    with PackedStore(online.store_file(config, view)) as store:
        return store.write_packed(
            online.view_name(config, view),
            layout,
            _Keys(keys),
            array("q", rows.events.tobytes()),
            array("q", _created(rows).tobytes()),
            (blob for part in rows.slices() for blob in packed_rows(layout, part)),
            progress,
            None if replaced is None else replaced.until,
        )


def packed_rows(layout: RowLayout, rows: LatestRows) -> list[bytes]:
    """What ``layout.pack`` gives for each row."""
    offsets = [layout.nulls]
    for _, kind in layout.features:
        offsets.append(offsets[-1] + np.dtype(_WIDTHS.get(kind, _LENGTH)).itemsize)
    matrix = np.zeros((len(rows), offsets[-1]), np.uint8)
    data = []
    for place, (name, kind) in enumerate(layout.features):
        if kind in _WIDTHS:
            values, valid = rows.of(name, _numbers(kind))
        else:
            found = rows.of(name, _blobs(kind))
            valid = np.array([blob is not None for blob in found], dtype=np.bool_)
            data.append([blob or b"" for blob in found])
            values = np.array([len(blob) for blob in data[-1]], dtype=_LENGTH)
        matrix[:, place // 8] |= (~valid).astype(np.uint8) << (place % 8)
        matrix[:, offsets[place] : offsets[place + 1]] = _as_bytes(np.where(valid, values, 0).astype(values.dtype))
    heads = encode.row_bytes(matrix)
    return list(map(b"".join, zip(heads, *data, strict=True))) if data else heads


def key_column(rows: LatestRows) -> pa.Array:
    """The store's key of each row: whole numbers or texts where the view has one such key, else serialized keys.

    Raises:
        DataError: a key is null.
    """
    if len(rows.keys) == 1:
        ((name, kind),) = rows.keys.items()
        column = encode.key_array(rows.table.column(name), name)
        known = encode.numbers(column, kind) if kind in _WHOLE else None
        if known is not None and known.valid.all():
            return pa.array(known.values.astype(np.int64))
        if kind == ValueType.STRING and encode.texts(column, kind) is not None:
            return column
        if kind in (*_WHOLE, ValueType.STRING):
            field, stored = _PLAIN["text" if kind == ValueType.STRING else "int64"]
            field = "int32_val" if kind == ValueType.INT32 else field
            return pa.array(map(attrgetter(field), encode.protos(column, kind)), stored)
    parts = [pa.array(_serialized(part), pa.large_binary()) for part in rows.slices()]
    return encode.one_array(pa.chunked_array(parts, pa.large_binary()))


def _serialized(rows: LatestRows) -> list[bytes]:
    columns = {name: rows.table.column(name) for name in rows.keys}
    return encode.entity_keys(columns, rows.keys, online.KEY_VERSION)


class _Keys(Sequence[Key]):
    """Keys of an Arrow column, Python objects a slice at a time."""

    def __init__(self, column: pa.Array) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    @overload
    def __getitem__(self, index: int) -> Key: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Key]: ...
    def __getitem__(self, index: int | slice) -> Key | Sequence[Key]:
        return _Keys(self._column[index]) if isinstance(index, slice) else self._column[index].as_py()

    def __iter__(self) -> Iterator[Key]:
        for start in range(0, len(self._column), SLICE):
            yield from self._column.slice(start, SLICE).to_pylist()


def _created(rows: LatestRows) -> encode.Ints:
    """When each row was created; at its event time where nobody said, as the store's own method has it."""
    if rows.created is None:
        return rows.events
    return np.where(rows.created == encode.NULL_TIME, rows.events, rows.created)


def _numbers(kind: Kind) -> Callable[[pa.Array, ValueType], encode.Numbers]:
    def convert(column: pa.Array, value_type: ValueType) -> encode.Numbers:
        known = encode.numbers(column, value_type)
        known = known or encode.numbers(_from_protos(column, value_type, kind), value_type)
        if known is None:
            raise DataError(f"a column of {column.type} gives no {kind}")
        return known

    return convert


def _blobs(kind: Kind) -> Callable[[pa.Array, ValueType], Sequence[bytes | None]]:
    def convert(column: pa.Array, value_type: ValueType) -> Sequence[bytes | None]:
        if kind == "proto":
            return [value or None for value in encode.value_bytes(column, value_type)]
        found = encode.texts(column, value_type)
        if found is None:
            found = encode.texts(_from_protos(column, value_type, kind), value_type)
        return found or [None] * len(column)

    return convert


def _from_protos(column: pa.Array, value_type: ValueType, kind: Kind) -> pa.Array:
    """A column of an odd type, by way of Feast's own conversion, as the column that its kind goes with."""
    field, stored = _PLAIN[kind]
    values = encode.protos(column, value_type)
    return pa.array([getattr(value, field) if value.WhichOneof("val") else None for value in values], stored)


def _as_bytes(values: npt.NDArray[Any]) -> _Bytes:
    return np.ascontiguousarray(values).view(np.uint8).reshape(len(values), values.dtype.itemsize)
