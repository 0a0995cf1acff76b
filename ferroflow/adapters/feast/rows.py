"""How a row of features is packed into bytes, and how far a view is complete: what all online stores share.

Layout, little-endian: a null bitmap of ceil(n / 8) bytes (bit i of byte i // 8 is set where feature i is null); the
fixed part of each feature in order (numbers and times; of texts, bytes and protos the length); then the data of the
texts, bytes and protos in order. The fixed part of a null is zeros.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Literal, NamedTuple, TypeAlias, get_args

from ferroflow.core.errors import DataError, SpecError

Kind = Literal["double", "float", "int64", "int32", "bool", "time", "text", "bytes", "proto"]
"""What a feature is. ``time`` is whole seconds since 1970; ``proto`` is a serialized Feast ``Value`` of any type."""

Value: TypeAlias = float | int | bool | str | bytes
"""A feature's value in Python; None where it is null."""

_CODES: dict[Kind, str] = {
    "double": "d",
    "float": "f",
    "int64": "q",
    "int32": "i",
    "bool": "?",
    "time": "q",
    "text": "I",
    "bytes": "I",
    "proto": "I",
}
_VARIABLE = ("text", "bytes", "proto")


class Watermark(NamedTuple):
    """How far an online view is complete; both in microseconds since 1970, UTC."""

    event: int
    """The view has each entity's latest value up to this moment of event time."""
    ingested: int | None
    """Every stored row that was ingested up to this moment has been materialized; None: nobody said."""


@dataclass(frozen=True)
class RowLayout:
    """The features of a row in their order, and how their values are packed.

    Raises:
        SpecError: two features of one name, or a kind that there is not.
    """

    features: tuple[tuple[str, Kind], ...]

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.features):
            raise SpecError(f"A row has two features of one name: {', '.join(self.names)}. Rename one.")
        if odd := {kind for _, kind in self.features} - set(get_args(Kind)):
            raise SpecError(f"A feature is {', '.join(sorted(odd))}; known kinds are {', '.join(get_args(Kind))}.")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The features' names."""
        return tuple(name for name, _ in self.features)

    @cached_property
    def nulls(self) -> int:
        """Bytes of the null bitmap, with which a packed row begins."""
        return (len(self.features) + 7) // 8

    def pack(self, values: Sequence[Value | None]) -> bytes:
        """A row's bytes; None and NaN are null.

        Raises:
            DataError: not one value for each feature, or one that its kind cannot hold.
        """
        if len(values) != len(self.features):
            raise DataError(f"A row has {len(values)} values for {len(self.features)} features {self.names}.")
        bitmap, fixed, data = 0, [], []
        for position, ((_, kind), value) in enumerate(zip(self.features, values, strict=True)):
            if value is None or value != value:
                bitmap |= 1 << position
                fixed.append(False if kind == "bool" else 0)
            elif kind in _VARIABLE:
                data.append(value.encode() if isinstance(value, str) else bytes(value))  # type: ignore[arg-type]
                fixed.append(len(data[-1]))
            else:
                fixed.append(value)  # type: ignore[arg-type]
        try:
            return b"".join((bitmap.to_bytes(self.nulls, "little"), self._values.pack(*fixed), *data))
        except (struct.error, OverflowError) as error:
            raise DataError(f"A row of the kinds {dict(self.features)} cannot hold {list(values)}: {error}.") from error

    def unpack(self, blob: bytes) -> tuple[Value | None, ...]:
        """The values of a row that ``pack`` made, None where null.

        Raises:
            struct.error: the bytes are no row of this layout.
        """
        if not self._variable:
            values: tuple[Value | None, ...] = self._row.unpack(blob)
            return values if blob.startswith(self._whole) else self._nulled(blob, list(values))
        found = list(self._row.unpack_from(blob))
        start = self._row.size
        for position, is_text in self._variable:
            end = start + found[position]
            found[position] = blob[start:end].decode() if is_text else blob[start:end]
            start = end
        if start != len(blob):
            raise struct.error(f"a row of {len(blob)} bytes where its values need {start}")
        return tuple(found) if blob.startswith(self._whole) else self._nulled(blob, found)

    def reader(self, names: Sequence[str]) -> Callable[[bytes], list[Value | None]]:
        """What gives a row's named features in their order; None for one that the layout does not have."""
        unpack = self.unpack
        if tuple(names) == self.names:
            return lambda blob: list(unpack(blob))
        places = {name: position for position, name in enumerate(self.names)}
        taken = [places.get(name, -1) for name in names]
        if len(taken) < 2:
            return lambda blob: [(*unpack(blob), None)[place] for place in taken]
        pick = itemgetter(*taken)
        return lambda blob: list(pick((*unpack(blob), None)))

    def to_json(self) -> str:
        """The features as JSON: the same text for the same layout."""
        return json.dumps(self.features, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> RowLayout:
        """The layout that ``to_json`` wrote."""
        return cls(tuple((name, kind) for name, kind in json.loads(text)))

    @cached_property
    def _codes(self) -> str:
        return "".join(_CODES[kind] for _, kind in self.features)

    @cached_property
    def _values(self) -> struct.Struct:
        return struct.Struct(f"<{self._codes}")

    @cached_property
    def _row(self) -> struct.Struct:
        return struct.Struct(f"<{self.nulls}x{self._codes}")

    @cached_property
    def _whole(self) -> bytes:
        return bytes(self.nulls)

    @cached_property
    def _variable(self) -> list[tuple[int, bool]]:
        return [(place, kind == "text") for place, (_, kind) in enumerate(self.features) if kind in _VARIABLE]

    def _nulled(self, blob: bytes, values: list[Value | None]) -> tuple[Value | None, ...]:
        bitmap = int.from_bytes(blob[: self.nulls], "little")
        while bitmap:
            lowest = bitmap & -bitmap
            values[lowest.bit_length() - 1] = None
            bitmap ^= lowest
        return tuple(values)
