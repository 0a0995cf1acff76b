"""The latest rows of a view, as the bulk writers take them: in slices, so that few are Python objects at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import TypeAlias, TypeVar

import pyarrow as pa
from feast.value_type import ValueType

from ferroflow.adapters.feast import encode
from ferroflow.core.errors import DataError

SLICE = 10_000
"""Rows that are Python objects at the same time."""

Progress: TypeAlias = Callable[[int], None]
"""Told how many more rows were written."""

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class LatestRows:
    """One row an entity.

    Attributes:
        table: columns by the names that the view has for them.
        keys: join key -> its type; features likewise, in the view's order.
        events: event times, and the times rows were created; microseconds since 1970. None: the source does not say.
        version: of Feast's serialized entity key.
    """

    table: pa.Table
    keys: Mapping[str, ValueType]
    features: Mapping[str, ValueType]
    events: encode.Ints
    created: encode.Ints | None
    version: int = 3

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def slices(self, size: int = SLICE) -> Iterator[LatestRows]:
        """The rows in their order, ``size`` at a time."""
        for start in range(0, len(self), size):
            created = None if self.created is None else self.created[start : start + size]
            yield replace(
                self, table=self.table.slice(start, size), events=self.events[start : start + size], created=created
            )

    def taken(self, order: encode.Ints) -> LatestRows:
        """The rows at these places, in this order."""
        created = None if self.created is None else self.created[order]
        return replace(self, table=self.table.take(order), events=self.events[order], created=created)

    def created_texts(self) -> Sequence[bytes] | Iterator[bytes]:
        """Created times as decimal microseconds; empty where nobody said."""
        if self.created is None:
            return repeat(b"", len(self))
        return [b"" if moment == encode.NULL_TIME else b"%d" % moment for moment in self.created.tolist()]

    def entity_keys(self) -> list[bytes]:
        """Feast's serialized entity key of each row."""
        columns = {name: self.table.column(name) for name in self.keys}
        return encode.entity_keys(columns, self.keys, self.version)

    def value_bytes(self, feature: str) -> list[bytes]:
        """The serialized values of a feature."""
        return self.of(feature, encode.value_bytes)

    def of(self, feature: str, convert: Callable[[pa.Array, ValueType], _Result]) -> _Result:
        """What ``convert`` makes of a feature's column.

        Raises:
            DataError: the column holds what its type cannot be; the message names both.
        """
        column, kind = encode.one_array(self.table.column(feature)), self.features[feature]
        try:
            return convert(column, kind)
        except (ValueError, TypeError, ArithmeticError, AssertionError, pa.ArrowException) as error:
            raise DataError(
                f"Column {feature!r} is {column.type} in the offline store and {kind.name} in the view: {error}. "
                f"Give the field the column's type, or cast the column."
            ) from error
