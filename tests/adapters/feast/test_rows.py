from __future__ import annotations

import math
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ferroflow.adapters.feast.rows import Kind, RowLayout, Value
from ferroflow.core.errors import DataError, SpecError

SECONDS = st.integers(-(2**62), 2**62)
VALUES: dict[Kind, st.SearchStrategy[Any]] = {
    "double": st.floats(allow_nan=True),
    "float": st.floats(width=32, allow_nan=True),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "bool": st.booleans(),
    "time": SECONDS,
    "text": st.text(max_size=6),
    "bytes": st.binary(max_size=6),
    "proto": st.binary(max_size=6),
}


@st.composite
def rows(draw: st.DrawFn) -> tuple[RowLayout, list[Value | None]]:
    kinds = draw(st.lists(st.sampled_from(list(VALUES)), max_size=19))
    layout = RowLayout(tuple((f"f{place}", kind) for place, kind in enumerate(kinds)))
    return layout, [draw(st.none() | VALUES[kind]) for kind in kinds]


def is_nan(value: Value | None) -> bool:
    return isinstance(value, float) and math.isnan(value)


@given(rows(), st.randoms())
@settings(max_examples=60, deadline=None)
def test_what_was_packed_comes_back_with_nan_as_null_whole_or_in_part(
    made: tuple[RowLayout, list[Value | None]], dice: Any
) -> None:
    layout, values = made
    expected = tuple(None if is_nan(value) else value for value in values)
    blob = layout.pack(values)
    found = layout.unpack(blob)
    assert found == expected
    assert [type(value) for value in found] == [type(value) for value in expected]
    named = dict(zip(layout.names, expected, strict=True))
    asked = [*dice.sample(layout.names, dice.randint(0, len(values))), "unknown"]
    assert layout.reader(asked)(blob) == [named.get(name) for name in asked]
    assert layout.reader(asked[:1])(blob) == [named.get(asked[0])]
    assert layout.reader(layout.names)(blob) == list(expected)
    assert layout.reader(())(blob) == []
    assert RowLayout.from_json(layout.to_json()) == layout


def test_the_bytes_are_a_null_bitmap_then_fixed_parts_then_data() -> None:
    kinds: tuple[Kind, ...] = ("double", "float", "int64", "int32", "bool", "time", "text", "bytes", "proto", "double")
    layout = RowLayout(tuple((f"f{place}", kind) for place, kind in enumerate(kinds)))
    blob = layout.pack([1.5, -2.0, -3, None, True, 7, "äb", b"", b"\x01\x02", None])
    fixed = struct.pack("<dfqiBqIIId", 1.5, -2.0, -3, 0, 1, 7, 3, 0, 2, 0.0)
    assert blob == bytes([0b0000_1000, 0b10]) + fixed + "äb".encode() + b"\x01\x02"


@pytest.mark.parametrize("kinds", [("double", "double"), ("double", "text")])
def test_bytes_of_another_length_are_refused(kinds: tuple[Kind, ...]) -> None:
    layout = RowLayout(tuple((f"f{place}", kind) for place, kind in enumerate(kinds)))
    blob = layout.pack([1.0, "abc" if kinds[1] == "text" else 2.0])
    for wrong in (blob[:-1], blob + b"x", b""):
        with pytest.raises(struct.error):
            layout.unpack(wrong)


def test_a_layout_names_each_feature_once_and_knows_its_kinds() -> None:
    with pytest.raises(SpecError, match="two features of one name: x, x"):
        RowLayout((("x", "double"), ("x", "int64")))
    with pytest.raises(SpecError, match="decimal; known kinds are double"):
        RowLayout((("x", "decimal"),))  # type: ignore[arg-type]


@pytest.mark.parametrize("values", [[1], [1, 2, 3], [2**31, 1], ["1", 1], [1, -(2**63) - 1]])
def test_values_that_a_row_cannot_hold_are_told(values: list[Any]) -> None:
    with pytest.raises(DataError, match=r"values for 2 features|cannot hold"):
        RowLayout((("a", "int32"), ("b", "int64"))).pack(values)
