"""Feast's serialized entity keys (version 3) without protobuf.

Layout, little-endian: the number of keys; for each name in order its type (2, text), its length and its bytes; then for
each value its type, its length and its bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from ferroflow.adapters.feast.plan import KeyKind
from ferroflow.core.errors import DataError

_TEXT = 2
_TYPES: dict[KeyKind, int] = {"bytes": 1, "text": 2, "int32": 3, "int64": 4, "time": 8}
_NUMBERS: dict[KeyKind, struct.Struct] = {
    "int32": struct.Struct("<i"),
    "int64": struct.Struct("<q"),
    "time": struct.Struct("<q"),
}
_pair = struct.Struct("<II").pack


def entity_key(names: Sequence[str], kinds: Sequence[KeyKind], values: Sequence[Any]) -> bytes:
    """The bytes by which Feast's stores know an entity, whatever order its keys are given in.

    Raises:
        DataError: a value is not what its kind says.
    """
    return encoder(names, kinds)(values)


def encoder(names: Sequence[str], kinds: Sequence[KeyKind]) -> Callable[[Sequence[Any]], bytes]:
    """``entity_key`` for many entities of the same join keys."""
    order = sorted(range(len(names)), key=lambda place: names[place])
    head = struct.pack("<I", len(names)) + b"".join(_name(names[place]) for place in order)
    parts = [(place, _value(kinds[place])) for place in order]

    def encode(values: Sequence[Any]) -> bytes:
        try:
            return head + b"".join([encoded(values[place]) for place, encoded in parts])
        except (struct.error, AttributeError, TypeError, UnicodeEncodeError) as error:
            raise _refused(names, kinds, values) from error

    return encode


def single_encoder(name: str, kind: KeyKind, tail: bytes = b"") -> Callable[[Any], bytes]:
    """``entity_key`` for many entities of one join key, with ``tail`` after each."""
    head = struct.pack("<I", 1) + _name(name)
    if kind not in _NUMBERS:
        encoded = _value(kind)

        def text(value: Any) -> bytes:
            try:
                return head + encoded(value) + tail
            except (AttributeError, TypeError, UnicodeEncodeError) as error:
                raise _refused([name], [kind], [value]) from error

        return text
    pack = _NUMBERS[kind].pack
    head += _pair(_TYPES[kind], _NUMBERS[kind].size)

    def number(value: Any) -> bytes:
        try:
            return head + pack(value) + tail
        except struct.error as error:
            raise _refused([name], [kind], [value]) from error

    return number


def is_entity_key(data: bytes) -> bool:
    """Whether the bytes are one whole serialized entity key."""
    if len(data) < 4:
        return False
    place = 4
    for _ in range(2 * int.from_bytes(data[:4], "little")):  # each name and each value: type, length, bytes
        if place + 8 > len(data):
            return False
        place += 8 + int.from_bytes(data[place + 4 : place + 8], "little")
    return place == len(data)


def seconds(moment: datetime) -> int:
    """Whole seconds since 1970 of a key that is a time; without a zone it is UTC."""
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return int(aware.timestamp())


def _name(name: str) -> bytes:
    encoded = name.encode()
    return _pair(_TEXT, len(encoded)) + encoded


def _value(kind: KeyKind) -> Callable[[Any], bytes]:
    number, number_type = _NUMBERS.get(kind), _TYPES[kind]
    if number is not None:
        head, pack = _pair(number_type, number.size), number.pack
        return lambda value: head + pack(value)
    if kind == "text":
        return lambda value: _sized(number_type, value.encode())
    return lambda value: _sized(number_type, memoryview(value).tobytes())


def _sized(kind: int, data: bytes) -> bytes:
    return _pair(kind, len(data)) + data


def _refused(names: Sequence[str], kinds: Sequence[KeyKind], values: Sequence[Any]) -> DataError:
    wanted = ", ".join(f"{name} ({kind})" for name, kind in zip(names, kinds, strict=True))
    return DataError(f"An entity's key {list(values)!r} does not fit {wanted}. Give a value of that type for each.")
