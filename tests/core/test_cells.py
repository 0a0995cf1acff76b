"""Values of a request: what a field takes, and nothing else."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferroflow.core.cells import FLOAT32_MAX, BadValue, cell, label
from ferroflow.core.contract import CellRule, Field, ServingContract

KINDS = ("number", "integer", "text", "time")
JSON = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()) | st.just({})


@given(st.sampled_from(KINDS), st.booleans(), JSON)
def test_any_json_value_is_taken_as_its_type_or_refused(kind: Any, nullable: bool, value: Any) -> None:
    types = {"number": float, "integer": int, "text": str, "time": datetime}
    try:
        found = cell(Field(name="f", type=kind, nullable=nullable), value)
    except BadValue as error:
        assert "expected" in str(error)
        return
    missing = value is None or (kind == "text" and not value.strip())
    assert (found is None and nullable and missing) or type(found) is types[kind]
    if kind == "number" and found is not None:
        assert abs(found) <= FLOAT32_MAX


@pytest.mark.parametrize("value", [True, "1", 1e39, -1e39, math.nan, math.inf, 0.999, 265.001, None, [1]])
def test_number_out_of_kind_or_bounds_is_refused(value: Any) -> None:
    with pytest.raises(BadValue, match="a number from 1 to 265"):
        cell(Field(name="f", type="number", minimum=1, maximum=265), value)


@pytest.mark.parametrize("value", [2**53 + 1, -(2**53) - 1, 10**400])
def test_integer_that_no_float_holds_is_no_number_as_in_validation(value: int) -> None:
    with pytest.raises(BadValue, match="an integer that no 64-bit float holds; a number is expected"):
        cell(Field(name="f", type="number"), value)
    assert cell(Field(name="f", type="number"), 2**53) == 2.0**53


@pytest.mark.parametrize("value", [1, 265, 1.0])
def test_bounds_are_inclusive(value: Any) -> None:
    assert cell(Field(name="f", type="integer", minimum=1, maximum=265), value) == value


def test_large_bounds_are_told_in_full() -> None:
    with pytest.raises(BadValue, match="at most 1490400"):
        cell(Field(name="f", type="number", maximum=1_490_400), 2_000_000)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2023-03-01T12:00:00Z", datetime(2023, 3, 1, 12, tzinfo=UTC)),
        ("2023-03-01T12:00:00", datetime(2023, 3, 1, 12, tzinfo=UTC)),
        ("2023-03-01 07:00:00.000001-05:00", datetime(2023, 3, 1, 12, 0, 0, 1, tzinfo=UTC)),
        ("2023-03-12T07:00:00+00:00", datetime(2023, 3, 12, 7, tzinfo=UTC)),
    ],
)
def test_time_is_read_as_utc_unless_it_says_otherwise(text: str, moment: datetime) -> None:
    assert cell(Field(name="t", type="time"), text) == moment


@pytest.mark.parametrize("text", ["", "now", "2023-03-01", "2023-02-29T00:00:00", "9999-12-31T23:59:59-01:00", 1.5])
def test_what_is_no_moment_is_refused(text: Any) -> None:
    with pytest.raises(BadValue, match="ISO 8601"):
        cell(Field(name="t", type="time"), text)


@pytest.mark.parametrize("text", ["", "  ", "?", " ? "])
def test_text_that_says_nothing_is_missing_only_where_missing_is_allowed(text: str) -> None:
    assert cell(Field(name="f", type="text", nullable=True), text, ("", "?")) is None
    with pytest.raises(BadValue, match="nothing"):
        cell(Field(name="f", type="text"), text, ("", "?"))


def test_text_is_the_same_with_and_without_blanks_around_it() -> None:
    assert cell(Field(name="f", type="text", choices=("red",)), " red ") == "red"
    assert cell(Field(name="f", type="text"), "\tUnited-States") == "United-States"
    assert cell(Field(name="f", type="text"), "?") == "?", "only what the source calls missing is missing"


def test_unknown_choice_is_told_the_known_ones() -> None:
    with pytest.raises(BadValue, match="'red', 'green'"):
        cell(Field(name="f", type="text", choices=("red", "green")), "blue")


def contract(task: Any) -> ServingContract:
    return ServingContract(
        pipeline="p",
        model="m",
        fingerprint="f",
        task=task,
        target="y",
        positive=">50K",
        classes=("<=50K", ">50K"),
        fields=(),
        inputs={},
    )


@pytest.mark.parametrize(("value", "kept"), [(">50K", 1.0), (" >50K ", 1.0), ("<=50K", 0.0), (1, 1.0), (0, 0.0)])
def test_class_label_becomes_one_or_zero(value: Any, kept: float) -> None:
    assert label(contract("classification"), value) == kept


@pytest.mark.parametrize("value", [True, 2, 0.5, "", None, [1], "<=50k", "<=50K.", "50K", "1"])
def test_what_is_no_class_is_refused_and_told_the_known_ones(value: Any) -> None:
    with pytest.raises(BadValue, match="'<=50K', '>50K', or 1 for '>50K'"):
        label(contract("classification"), value)


def test_package_that_knows_only_the_positive_class_takes_no_other_text() -> None:
    old = contract("classification").model_copy(update={"classes": ()})
    assert label(old, ">50K") == 1.0
    with pytest.raises(BadValue, match="1 for '>50K' and 0"):
        label(old, "<=50K")


@pytest.mark.parametrize("value", ["3", True, math.nan, None])
def test_regression_label_is_a_number(value: Any) -> None:
    with pytest.raises(BadValue):
        label(contract("regression"), value)


def test_cleaning_is_done_before_bounds_are_asked() -> None:
    field = Field(
        name="f",
        type="integer",
        minimum=0,
        maximum=9,
        cleaning=(
            CellRule(rule="replace", values=((-999, None),)),
            CellRule(rule="default", value=5),
            CellRule(rule="clip", high=9),
        ),
    )
    assert [cell(field, value) for value in (-999, None, 12, 3)] == [5, 5, 9, 3]
    assert field.optional
    with pytest.raises(BadValue, match="out of bounds"):
        cell(field, -1)
    with pytest.raises(BadValue, match="a text, but"):
        cell(field, "12")


def test_trimmed_text_that_says_nothing_is_missing() -> None:
    field = Field(name="f", type="text", nullable=True, cleaning=(CellRule(rule="trim", characters="# "),))
    assert [cell(field, value, ("", "NA")) for value in ("# a #", "##", "#NA", " b")] == ["a", None, None, "b"]


def test_default_time_is_read_as_a_request_would_be() -> None:
    field = Field(name="t", type="time", cleaning=(CellRule(rule="default", value="2023-03-01T00:00:00"),))
    assert cell(field, None) == datetime(2023, 3, 1, tzinfo=UTC)


def test_field_of_a_package_without_cleaning_is_read_as_before() -> None:
    old = Field.model_validate_json('{"name": "f", "type": "number", "minimum": 1}')
    assert old.cleaning == () and not old.optional
