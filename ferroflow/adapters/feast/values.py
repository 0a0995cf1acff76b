"""Feast's serialized ``Value`` without protobuf: the same Python values as ``OnlineResponse.to_dict`` gives.

One deviation: an explicit null (``null_val``) is None here, where Feast gives the number 0.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, TypeAlias
from uuid import UUID
from zoneinfo import ZoneInfo

from ferroflow.adapters.feast.rows import Kind
from ferroflow.core.errors import DataError

NULL_TIME = -(2**63)
"""What Feast stores for a time that is null."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WRAP, _SIGN = 1 << 64, 1 << 63
_double = struct.Struct("<d").unpack
_float = struct.Struct("<f").unpack

Field: TypeAlias = Any
"""A field on the wire: a varint as its unsigned number, anything else as its bytes."""


def decode(data: bytes | None) -> Any:
    """The Python value of a serialized Feast ``Value``; None where it is empty.

    Raises:
        DataError: the bytes are no such value.
    """
    if not data:
        return None
    tag = data[0]
    try:
        if tag == 0x29 and len(data) == 9:
            return _double(data[1:])[0]
        if tag == 0x12 and data[1] == len(data) - 2 < 128:
            return data[2:].decode()
        return _value(data)
    except (struct.error, LookupError, ValueError, OverflowError, TypeError, AttributeError) as error:
        raise DataError(f"Bytes are no Feast value ({error}): {data[:40]!r}. Materialize the view again.") from None


def row_decoder(kinds: Sequence[Kind]) -> Callable[[Sequence[bytes | None]], list[Any]]:
    """What decodes the values of one row; the bytes alone say what they are, the kinds only make it fast."""
    width = {"double": 9, "float": 5}.get(kinds[0]) if kinds and len(set(kinds)) == 1 else None
    if width is None:
        return lambda row: [decode(data) for data in row]
    count, size = len(kinds), width * len(kinds)
    tags = (b"\x29" if width == 9 else b"\x35") * count
    unpack = struct.Struct("<" + ("xd" if width == 9 else "xf") * count).unpack
    filler = tags[:1] + bytes(width - 1)

    def numbers(row: Sequence[bytes | None]) -> list[Any]:
        try:
            whole = b"".join(row)  # type: ignore[arg-type]
        except TypeError:
            whole = b""
        # Where each ninth (fifth) byte is the tag of a number, nothing else can have the same length.
        if len(whole) == size and whole[::width] == tags:
            return list(unpack(whole))
        whole = b"".join([data or filler for data in row])
        if len(whole) != size or whole[::width] != tags:
            return [decode(data) for data in row]
        found = list(unpack(whole))
        for place, data in enumerate(row):
            if not data:
                found[place] = None
        return found

    return numbers


def moment(stored: int | None) -> datetime | None:
    """A time that is stored as whole seconds since 1970."""
    return None if stored is None or stored == NULL_TIME else _EPOCH + timedelta(seconds=stored)


def event_time(data: bytes) -> int:
    """Microseconds since 1970 of a serialized protobuf ``Timestamp``.

    Raises:
        DataError: the bytes are no timestamp.
    """
    # Whole seconds of the years 1978 to 3058, nearly all: one number of five bytes, of which four say that it goes on.
    if len(data) == 6 and data[0] == 8 and data[5] < 128 and data[1] & data[2] & data[3] & data[4] & 128:
        return 1_000_000 * (
            (data[1] & 127) | (data[2] & 127) << 7 | (data[3] & 127) << 14 | (data[4] & 127) << 21 | data[5] << 28
        )
    found = 0
    try:
        for number, content in _fields(data):
            if number == 1:
                found += _signed(content) * 1_000_000
            elif number == 2:
                found += _signed(content) // 1_000
    except (LookupError, TypeError, ValueError) as error:
        raise DataError(f"Bytes are no timestamp ({error}): {data[:40]!r}. Materialize the view again.") from None
    return found


def _value(data: bytes) -> Any:
    found: Any = None
    for number, content in _fields(data):
        found = _READERS[number](content)
    return found


def _fields(data: bytes) -> Iterator[tuple[int, Field]]:
    """Each field of a message: its number and its content."""
    place, end = 0, len(data)
    while place < end:
        tag, place = _varint(data, place)
        wire = tag & 7
        if wire == 0:
            content, place = _varint(data, place)
            yield tag >> 3, content
            continue
        if wire == 2:
            size, place = _varint(data, place)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if place + size > end:
            raise ValueError("cut short")
        yield tag >> 3, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    found = shift = 0
    while True:
        byte = data[place]
        place += 1
        found |= (byte & 127) << shift
        if byte < 128:
            return found, place
        shift += 7


def _signed(number: Field) -> int:
    return number - _WRAP if number >= _SIGN else number


def _int32(number: Field) -> int:
    low = number & 0xFFFFFFFF
    return low - (1 << 32) if low >= 1 << 31 else low


def _moment(number: Field) -> datetime | None:
    return moment(_signed(number))


def _text(content: Field) -> str:
    return content.decode()


def _json(content: Field) -> Any:
    text = _text(content)
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _elements(content: Field) -> Iterator[Field]:
    """The repeated field 1 of a message, as it is on the wire."""
    return (element for number, element in _fields(content) if number == 1)


def _each(read: Callable[[Field], Any]) -> Callable[[Field], list[Any]]:
    return lambda content: [read(element) for element in _elements(content)]


def _varints(read: Callable[[Field], Any]) -> Callable[[Field], list[Any]]:
    """Repeated varints, together in one field or each in its own."""

    def found(content: Field) -> list[Any]:
        numbers: list[Any] = []
        for element in _elements(content):
            if isinstance(element, int):
                numbers.append(read(element))
                continue
            place = 0
            while place < len(element):
                number, place = _varint(element, place)
                numbers.append(read(number))
        return numbers

    return found


def _floats(code: str) -> Callable[[Field], list[Any]]:
    width = struct.calcsize(code)

    def found(content: Field) -> list[Any]:
        numbers: list[Any] = []
        for element in _elements(content):
            numbers += struct.unpack(f"<{len(element) // width}{code}", element)
        return numbers

    return found


def _set(read: Callable[[Field], list[Any]]) -> Callable[[Field], set[Any]]:
    return lambda content: set(read(content))


def _nested(content: Field) -> Any:
    return _value(content)


def _map(content: Field) -> dict[str, Any]:
    found = {}
    for entry in _elements(content):
        parts = dict(_fields(entry))
        found[_text(parts.get(1, b""))] = _nested(parts.get(2, b""))
    return found


def _scalar_map(content: Field) -> dict[Any, Any]:
    found = {}
    for entry in _elements(content):
        parts = dict(_fields(entry))
        key = None
        for number, part in _fields(_bytes(parts.get(1, b""))):
            key = _MAP_KEYS[number](part)
        found[key] = _nested(parts.get(2, b""))
    return found


def _bytes(content: Field) -> bytes:
    return bytes(content)


def _zoned(content: Field) -> datetime | None:
    parts = dict(_fields(_bytes(content)))
    instant = _signed(parts.get(1, 0))
    return None if instant == NULL_TIME else datetime.fromtimestamp(instant, tz=_zone(_text(parts.get(2, b""))))


def _zone(name: str) -> tzinfo:
    """An IANA zone, or a fixed offset such as UTC+05:30; UTC where the name is neither, as Feast has it."""
    if not name:
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        match = re.fullmatch(r"(?:UTC|GMT)?([+-])(\d{2}):?(\d{2})", name.strip())
    if match is None:
        return UTC
    offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
    return timezone(-offset if match[1] == "-" else offset)


def _uuid(content: Field) -> UUID:
    return UUID(_text(content))


def _decimal(content: Field) -> Decimal:
    return Decimal(_text(content))


_LISTS: dict[str, Callable[[Field], list[Any]]] = {
    "bytes": _each(_bytes),
    "text": _each(_text),
    "int32": _varints(_int32),
    "int64": _varints(_signed),
    "double": _floats("d"),
    "float": _floats("f"),
    "bool": _varints(bool),
    "time": _varints(_moment),
    "uuid": _each(_uuid),
    "decimal": _each(_decimal),
}
_ORDER = ("bytes", "text", "int32", "int64", "double", "float", "bool", "time")

_MAP_KEYS: dict[int, Callable[[Any], Any]] = {
    1: _int32,
    2: _signed,
    3: lambda content: _float(content)[0],
    4: lambda content: _double(content)[0],
    5: bool,
    6: _moment,
    7: _bytes,
    8: _uuid,
    9: _uuid,
    10: _decimal,
}

_READERS: dict[int, Callable[[Any], Any]] = {
    1: _bytes,
    2: _text,
    3: _int32,
    4: _signed,
    5: lambda content: _double(content)[0],
    6: lambda content: _float(content)[0],
    7: bool,
    8: _moment,
    **{11 + place: _LISTS[kind] for place, kind in enumerate(_ORDER)},
    19: lambda content: None,
    20: _map,
    21: _each(_map),
    **{22 + place: _set(_LISTS[kind]) for place, kind in enumerate(_ORDER)},
    32: _json,
    33: _each(_json),
    34: _map,
    35: _each(_map),
    36: _uuid,
    37: _uuid,
    38: _LISTS["uuid"],
    39: _LISTS["uuid"],
    40: _set(_LISTS["uuid"]),
    41: _set(_LISTS["uuid"]),
    42: _each(_nested),
    43: _each(_nested),
    44: _decimal,
    45: _LISTS["decimal"],
    46: _set(_LISTS["decimal"]),
    47: _scalar_map,
    48: _zoned,
}
"""By the field's number in Feast's ``Value``."""
