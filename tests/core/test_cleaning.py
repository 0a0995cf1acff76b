from __future__ import annotations

from datetime import datetime
from typing import Any

import pandera.polars as pa
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandera.polars import Field

from ferroflow.core.cleaning import Clip, Deduplicate, Default, Replace, Trim
from ferroflow.core.errors import SpecError
from ferroflow.core.validation import PROBLEM, ROW, Checked, check_rows


class Offer(pa.DataFrameModel):
    size: pl.Int64 = Field(ge=0, nullable=True)
    price: pl.Float64 = Field(nullable=True, le=100)
    code: pl.String = Field(nullable=True)


def offers(**columns: Any) -> pl.DataFrame:
    height = max(map(len, columns.values()))
    full = {name: [None] * height for name in ("size", "price", "code")} | columns
    return pl.DataFrame(full, schema_overrides={n: pl.String for n in full if n not in columns}).with_row_index(ROW, 1)


def clean(*rules: Any, **columns: Any) -> Checked:
    return check_rows(offers(**columns), Offer, cleaning=rules)


def test_missing_cells_become_the_default_and_are_counted() -> None:
    checked = clean(Default("size", 7), size=["1", "", None, "3"])
    assert checked.accepted["size"].to_list() == [1, 7, 7, 3]
    assert checked.cleaned == {"size: default": 2}


def test_numbers_are_clipped_before_they_are_judged() -> None:
    checked = clean(Clip("price", low=0, high=100), price=[-1.0, 50.0, 1e9, None, float("nan")])
    assert checked.accepted["price"].to_list() == [0, 50, 100, None, None]
    assert checked.cleaned == {"price: clip": 2}


def test_texts_lose_characters_and_the_blanks_they_hid() -> None:
    checked = clean(Trim("code", "#"), code=["# ab #", "ab", "##", None])
    assert checked.accepted["code"].to_list() == ["ab", "ab", None, None]
    assert checked.cleaned == {"code: trim": 2}


def test_cells_that_equal_a_key_are_replaced_once() -> None:
    checked = clean(Replace("code", {"a": "b", "b": "a", "-": None}), code=["a", "b", "-", "c"])
    assert checked.accepted["code"].to_list() == ["b", "a", None, "c"]
    assert checked.cleaned == {"code: replace": 3}


def test_rules_are_done_in_their_order() -> None:
    rules = Replace("size", {-999: None}), Default("size", 5), Clip("size", high=4)
    checked = clean(*rules, size=[-999, 1])
    assert checked.accepted["size"].to_list() == [4, 1]
    assert checked.cleaned == {"size: replace": 1, "size: default": 1, "size: clip": 1}


def test_repeated_rows_leave_with_the_number_of_the_first() -> None:
    checked = clean(Deduplicate(("size",)), Default("code", "x"), size=["1", "2", "1", "?", "1", "?"])
    told = dict(checked.quarantined.select(ROW, "reasons").rows())
    assert told[3] == told[5] == ["row: duplicate of row 1"]
    assert told[4] == told[6] == ["size: not a Int64: '?'"]
    assert checked.accepted[ROW].to_list() == [1, 2]
    assert checked.cleaned == {"row: deduplicate": 2, "code: default": 2}


def test_rows_equal_in_all_raw_columns_are_repeated_nulls_too() -> None:
    checked = clean(Deduplicate(), size=[1, 1, 1], code=["a", None, None])
    assert checked.quarantined["reasons"].to_list() == [["row: duplicate of row 2"]]


def test_rows_are_told_apart_after_the_cleaning_that_is_declared_before() -> None:
    checked = clean(Trim("code", "#"), Deduplicate(("code",)), code=["a", "#a"])
    assert checked.quarantined["reasons"].to_list() == [["row: duplicate of row 1"]]
    assert checked.quarantined["raw"].to_list() == ['{"size":null,"price":null,"code":"#a"}']


def test_broken_line_is_no_first_of_any_row_and_nothing_is_cleaned_in_it() -> None:
    raw = offers(size=[None, None, None]).with_columns(pl.Series(PROBLEM, ["2 cells instead of 3", None, None]))
    checked = check_rows(raw, Offer, cleaning=[Default("size", 1), Deduplicate()])
    assert checked.quarantined["reasons"].to_list() == [["line: 2 cells instead of 3"], ["row: duplicate of row 2"]]
    assert checked.cleaned == {"size: default": 2, "row: deduplicate": 1}


def test_column_that_did_not_come_may_be_filled_before_derive() -> None:
    class Needed(pa.DataFrameModel):
        size: pl.Int64
        twice: pl.Int64

    raw = pl.DataFrame({ROW: [1], "stray": [0]})
    checked = check_rows(
        raw,
        Needed,
        derive=lambda rows, _: rows.with_columns(twice=pl.col("size") * 2),
        cleaning=[Default("size", 3)],
        absent=["size"],
    )
    assert checked.accepted.rows() == [(1, 3, 6)]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Default("weight", 1), r"names the column 'weight', which is not there before derive\. These are: size"),
        (Default("size", 1.5), r"Default\('size'\) has the value 1.5, and the column is Int64"),
        (Default("size", "1"), r"the value '1', and the column is Int64"),
        (Default("size", True), "the value True"),
        (Default("size", 2**70), "the column is Int64"),
        (Default("code", None), "the value None"),
        (Replace("price", {"a": 1.0}), "the value 'a', and the column is Float64"),
        (Clip("code", low=1), r"Clip\('code'\) is for numbers; the column is String"),
        (Clip("size"), "needs low=, high= or both"),
        (Clip("size", low=2, high=1), "low=2 above high=1"),
        (Trim("size"), r"Trim\('size'\) is for texts; the column is Int64"),
        (Deduplicate(("size", "weight")), "Deduplicate names the column 'weight'"),
    ],
)
def test_declaration_that_does_not_fit_its_column_is_refused(rule: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        clean(rule, size=["1"])


def test_times_and_truths_may_have_defaults() -> None:
    class Seen(pa.DataFrameModel):
        at: pl.Datetime("us")  # type: ignore[valid-type]
        flag: pl.Boolean

    raw = pl.DataFrame({ROW: [1], "at": [""], "flag": [""]})
    rules = [Default("at", datetime(2024, 1, 1)), Default("flag", False), Replace("flag", {False: True})]
    assert check_rows(raw, Seen, cleaning=rules).accepted.rows() == [(1, datetime(2024, 1, 1), True)]


CELLS = st.none() | st.integers(-9, 9)
TEXTS = st.none() | st.text("ab# ", max_size=3)
RULES = st.one_of(
    st.builds(Default, st.just("size"), st.integers(-3, 3)),
    st.builds(lambda low, width: Clip("size", low=low, high=low + width), st.integers(-5, 2), st.integers(0, 5)),
    st.builds(
        Replace, st.just("size"), st.dictionaries(st.integers(-9, 9), st.none() | st.integers(-9, 9), max_size=4)
    ),
    st.builds(Trim, st.just("code"), st.sampled_from(["#", "a", "#b"])),
    st.builds(Default, st.just("code"), st.sampled_from(["a", "z"])),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(CELLS, TEXTS), min_size=1, max_size=8), RULES)
def test_what_is_counted_is_the_number_of_cells_that_differ(rows: list[tuple[Any, Any]], rule: Any) -> None:
    class Any_(pa.DataFrameModel):
        size: pl.Int64 = Field(nullable=True)
        code: pl.String = Field(nullable=True)

    raw = pl.DataFrame(rows, schema={"size": pl.Int64, "code": pl.String}, orient="row").with_row_index(ROW, 1)
    before, after = check_rows(raw, Any_).accepted, check_rows(raw, Any_, cleaning=[rule])
    differ = (before[rule.column].ne_missing(after.accepted[rule.column])).sum()
    assert after.cleaned == {f"{rule.column}: {rule.name}": differ}
    assert after.accepted.drop(rule.column).equals(before.drop(rule.column))
