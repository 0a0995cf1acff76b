"""Rows to be added to a view's folder: which columns they have, of which types, and what they may not lack."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from feast import FeatureView
from feast.feature_view import DUMMY_ENTITY_ID
from feast.types import FeastType
from feast.value_type import ValueType

from ferroflow.adapters.feast.encode import one_array
from ferroflow.adapters.feast.scans import AbsentError, Place, arrow_types, stored_names
from ferroflow.core.errors import UsageError

_TIME = pa.timestamp("us", "UTC")
_INGESTED = "ingested_at"
_PLAIN: dict[ValueType, pa.DataType] = {
    ValueType.INT32: pa.int32(),
    ValueType.INT64: pa.int64(),
    ValueType.FLOAT: pa.float32(),
    ValueType.DOUBLE: pa.float64(),
    ValueType.STRING: pa.string(),
    ValueType.BYTES: pa.binary(),
    ValueType.PDF_BYTES: pa.binary(),
    ValueType.IMAGE_BYTES: pa.binary(),
    ValueType.BOOL: pa.bool_(),
    ValueType.UNIX_TIMESTAMP: _TIME,
}
_LISTS = {
    ValueType[f"{kind.name}_LIST"]: pa.list_(inside)
    for kind, inside in _PLAIN.items()
    if f"{kind.name}_LIST" in ValueType.__members__
}
_FAMILIES: dict[str, Sequence[Callable[[pa.DataType], bool]]] = {
    "number": (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean),
    "time": (pa.types.is_timestamp, pa.types.is_date),
    "text": (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
    "bytes": (
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_binary_view,
        pa.types.is_fixed_size_binary,
    ),
    "list": (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list),
}


@dataclass(frozen=True)
class Layout:
    """What a view has in its source, by the names of the stored columns.

    Attributes:
        view: its name.
        before: name in Feast -> stored column, where they differ.
        keys: the columns of its keys.
        time: the column of the event time.
        kinds: all columns it must have -> their type in a first file; None: as it is given.
        further: columns of moments that rows may have besides.
    """

    view: str
    before: Mapping[str, str]
    keys: Sequence[str]
    time: str
    kinds: Mapping[str, pa.DataType | None]
    further: Sequence[str]


def layout(view: FeatureView, guard: str | None) -> Layout:
    """A Feast view's layout; ``guard`` is the column that says from when on a row was known."""
    source = view.batch_source
    before = stored_names(source)
    keys = {before.get(key.name, key.name): key for key in view.entity_columns if key.name != DUMMY_ENTITY_ID}
    features = {before.get(feature.name, feature.name): feature for feature in view.features}
    times = [before.get(name, name) for name in (source.timestamp_field, source.created_timestamp_column) if name]
    kinds = {name: _type(field.dtype) for name, field in {**keys, **features}.items()}
    return Layout(
        view=view.name,
        before=before,
        keys=list(keys),
        time=times[0],
        kinds={**kinds, **dict.fromkeys(times, _TIME)},
        further=[before.get(name, name) for name in (guard, _INGESTED) if name],
    )


def fitting(table: pa.Table, layout: Layout, where: Place) -> pa.Table:
    """Rows to be added, in the order and types of those that are there; of a first file, in those of the view's fields.

    Types are cast where each value can be cast back to what was given. Only float64 values are rounded to the nearest
    float32, as Feast's users give them; what would become infinite by it is refused. Numbers, times and texts never
    become one another, and a time becomes a date at midnight UTC only.

    Raises:
        UsageError: columns are missing or too many, values do not fit, or rows have no key or no event time.
        DataError: what is there cannot be read.
    """
    # Feast hands rows over with the mapping done, or not: push does it, a direct call does not.
    names = [layout.before.get(name, name) for name in table.column_names]
    if len(set(names)) == len(names):
        table = table.rename_columns(names)
    try:
        stored = where.scan().collect_schema()
    except AbsentError:
        stored = None
    ordered = table.select(_columns(table, layout, where, None if stored is None else list(stored)))
    kinds = _first(ordered, layout) if stored is None else _stored(stored, ordered.schema)
    whose = "its fields" if stored is None else where.name
    columns = [_cast(ordered[name], name, kind, layout.view, whose) for name, kind in kinds.items()]
    made = pa.table(columns, names=list(kinds))
    lacking = {name: made[name].null_count for name in (*layout.keys, layout.time) if made[name].null_count}
    if lacking:
        told = ", ".join(f"{count} without {name!r}" for name, count in lacking.items())
        raise UsageError(
            f"Rows for view {layout.view!r} lack keys or their event time: {told}. Give them one, or leave them out."
        )
    return made


def _columns(table: pa.Table, layout: Layout, where: Place, stored: Sequence[str] | None) -> list[str]:
    """The columns to write, in their order."""
    given = table.column_names
    if stored is None:
        expected = [*layout.kinds, *(name for name in layout.further if name in given and name not in layout.kinds)]
        told = f"The view has {list(layout.kinds)}"
    else:
        expected = list(stored)
        told = f"{where.name} has {expected}"
    absent = [name for name in dict.fromkeys([*expected, *layout.kinds]) if name not in given]
    beyond = [name for name in given if name not in expected]
    if absent or beyond:
        raise UsageError(
            f"Rows for view {layout.view!r} lack the columns {absent} and have {beyond} too many. {told}. "
            f"Give exactly these."
        )
    return expected


def _type(kind: FeastType) -> pa.DataType | None:
    """The Arrow type of a field; None for Json, maps, structs and others that several Arrow types can hold."""
    value = kind.to_value_type()
    return _PLAIN.get(value, _LISTS.get(value))


def _first(given: pa.Table, layout: Layout) -> dict[str, pa.DataType]:
    """The types of a first file: the same ones whoever writes it, as far as the view's fields name them."""
    kinds = {}
    for column in given.schema:
        kind = layout.kinds.get(column.name, _TIME)
        if kind is None and pa.types.is_null(column.type):
            raise UsageError(
                f"The rows for view {layout.view!r} are its first, and have no value in {column.name!r}: nothing says "
                f"which type to store. Cast the column to the Arrow type that its values will have."
            )
        kinds[column.name] = column.type if kind is None else kind
    return kinds


def _stored(stored: pl.Schema, given: pa.Schema) -> dict[str, pa.DataType]:
    """The types that are there; a column that Polars reads as the same type keeps its own."""
    kinds = arrow_types(pl.LazyFrame(schema=stored))
    read = pl.DataFrame(pl.from_arrow(given.empty_table())).schema
    return {name: (given if read[name] == stored[name] else kinds).field(name).type for name in stored}


def _cast(column: pa.ChunkedArray, name: str, kind: pa.DataType, view: str, whose: str) -> pa.ChunkedArray:
    made = _fitted(column, kind)
    if made is not None:
        return made
    while len(column) > 1:  # halved, until one value is left that does not fit
        half = column.slice(0, len(column) // 2)
        column = half if _fitted(half, kind) is None else column.slice(len(column) // 2)
    value = column[0].as_py()
    shown = reprlib.repr(value) if isinstance(value, str | bytes | list | dict) else str(value)
    raise UsageError(
        f"Rows for view {view!r} do not fit the types of {whose}: {name!r} is {kind} there, and the {column.type} "
        f"value {shown} cannot be kept in it. Cast the column, or correct the value."
    )


def _fitted(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | None:
    """The column in another type; None: a value does not fit."""
    if column.type == kind:
        return column
    try:
        return pa.chunked_array([_made(one_array(chunk), kind) for chunk in column.chunks], kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def _made(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if array.null_count == len(array):
        return pa.nulls(len(array), kind)
    if not _akin(array.type, kind):
        raise pa.ArrowInvalid(f"{array.type} is no kind of {kind}")
    if pa.types.is_date(array.type):
        array = array.cast(pa.timestamp("s" if pa.types.is_date32(array.type) else "ms", "UTC"))
    elif pa.types.is_timestamp(array.type):  # or Arrow makes dates of the zone's own days
        array = array.cast(pa.timestamp(array.type.unit, "UTC"))
    made = array.cast(kind)
    if not _kept(array, one_array(made)):
        raise pa.ArrowInvalid(f"{array.type} is not kept by {kind}")
    return made


def _akin(given: pa.DataType, kind: pa.DataType) -> bool:
    """Whether values of one type can mean the same in the other: both numbers, both times, and so on."""
    if pa.types.is_null(given):
        return True
    if pa.types.is_dictionary(kind):
        return _akin(given, kind.value_type)
    if _family(given) != _family(kind):
        return False
    if _family(given) == "list":
        return _akin(given.value_type, kind.value_type)
    if pa.types.is_struct(given):
        pairs = zip(given, kind, strict=False)
        return given.num_fields == kind.num_fields and all(a.name == b.name and _akin(a.type, b.type) for a, b in pairs)
    if pa.types.is_map(given):
        return _akin(given.key_type, kind.key_type) and _akin(given.item_type, kind.item_type)
    return True


def _family(kind: pa.DataType) -> Any:
    return next((name for name, tests in _FAMILIES.items() if any(test(kind) for test in tests)), kind.id)


def _kept(given: pa.Array, made: pa.Array) -> bool:
    """Whether each value can be had back; a float that was rounded to a narrower one counts as kept."""
    if _family(given.type) == "list":
        return _kept(given.flatten(), made.flatten())
    if pa.types.is_struct(given.type):
        return all(_kept(one, other) for one, other in zip(given.flatten(), made.flatten(), strict=True))
    if not pa.types.is_floating(given.type):
        return bool(given.equals(made.cast(given.type)))
    if pa.types.is_floating(made.type) and made.type.bit_width < given.type.bit_width:
        return not pc.any(pc.and_(pc.is_finite(given), pc.is_inf(made))).as_py()
    back = made.cast(given.type)
    same = pc.or_(pc.equal(given, back), pc.and_(pc.is_nan(given), pc.is_nan(back)))
    return given.null_count == back.null_count and pc.all(same).as_py() is not False
