from __future__ import annotations

import traceback
from datetime import datetime

import pandera.polars as pa
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandera.polars import Field

from ferroflow.core.cleaning import Deduplicate
from ferroflow.core.errors import SchemaError, SpecError
from ferroflow.core.validation import PROBLEM, ROW, changed_types, check_rows, plan_rows, reason_kind


class Thing(pa.DataFrameModel):
    size: pl.Int64 = Field(ge=0)
    price: pl.Float64 = Field(nullable=True, le=100)


class Everything(pa.DataFrameModel):
    flag: pl.Boolean
    day: pl.Date
    at: pl.Datetime("us")
    zoned: pl.Datetime("us", "UTC")
    label: pl.String = Field(isin=["a", "b"])


def numbered(**columns: object) -> pl.DataFrame:
    return pl.DataFrame(columns).with_row_index(ROW, offset=1)


def reasons(checked: object) -> dict[int, list[str]]:
    return dict(checked.quarantined.select(ROW, "reasons").rows())


def test_text_that_is_no_number_is_refused_with_its_text() -> None:
    checked = check_rows(numbered(size=["1", " 2 ", "two", "", "1.5"], price=["1", "x", "3", "", "5"]), Thing)
    assert checked.accepted["size"].to_list() == [1]
    assert reasons(checked) == {
        2: ["price: not a Float64: 'x'"],
        3: ["size: not a Int64: 'two'"],
        4: ["size: not_nullable"],
        5: ["size: not a Int64: '1.5'"],
    }
    assert checked.quarantined["raw"][1] == '{"size":"two","price":"3"}'


def test_fraction_is_not_cut_to_an_integer() -> None:
    checked = check_rows(numbered(size=[1.0, 1.9, float("nan"), 1e300], price=[1, 1, 1, 1]), Thing)
    assert checked.accepted["size"].to_list() == [1]
    assert reasons(checked)[2] == ["size: not a Int64: '1.9'"]
    assert reasons(checked)[3] == ["size: not_nullable"]
    assert reasons(checked)[4][0].startswith("size: not a Int64")


def test_not_a_number_is_missing_and_neither_a_value_nor_a_failure() -> None:
    checked = check_rows(numbered(size=[1, 2], price=[float("nan"), 101.0]), Thing)
    assert checked.accepted["price"].to_list() == [None]
    assert reasons(checked) == {2: ["price: less_than_or_equal_to(100)"]}


def test_raw_values_keep_what_json_cannot_hold() -> None:
    raw = numbered(size=[-1, -2], price=[float("nan"), float("inf")], blob=[b"\xff\x00", None])
    told = check_rows(raw, Thing).quarantined["raw"].to_list()
    assert told == ['{"size":-1,"price":"NaN","blob":"ff00"}', '{"size":-2,"price":"inf","blob":null}']


def test_column_of_nulls_is_cast_when_it_may_be_missing() -> None:
    checked = check_rows(numbered(size=[1, 2], price=[None, None]), Thing)
    assert checked.accepted.schema["price"] == pl.Float64
    assert checked.accepted.height == 2


def test_dates_times_and_truths_are_read_from_text() -> None:
    raw = numbered(
        flag=["True", "0", "maybe"],
        day=["2024-02-29", "2024-02-28", "2023-02-29"],
        at=["2024-01-01", "2024-01-01T10:30", "1.1.2024"],
        zoned=["2024-01-01T00:00:00Z", "2024-01-01 02:00:00+02:00", "2024-01-01T00:00:00"],
        label=["a", "b", "c"],
    )
    checked = check_rows(raw, Everything)
    assert checked.accepted["flag"].to_list() == [True, False]
    assert checked.accepted["at"].to_list() == [datetime(2024, 1, 1), datetime(2024, 1, 1, 10, 30)]
    assert checked.accepted["zoned"].n_unique() == 1
    assert len(reasons(checked)[3]) == 4


def test_naive_time_where_the_schema_wants_a_zone_stops_everything() -> None:
    class Zoned(pa.DataFrameModel):
        at: pl.Datetime("us", "UTC")

    with pytest.raises(SchemaError, match=r"'at' came as Datetime.*time zone cannot be guessed"):
        check_rows(numbered(at=[datetime(2024, 1, 1)]), Zoned)


def test_missing_column_is_named_with_those_that_came() -> None:
    with pytest.raises(SchemaError, match=r"'price' is missing\. These came: size, colour"):
        check_rows(numbered(size=[1], colour=["red"]), Thing)


def test_column_that_derive_needs_and_is_missing_is_named() -> None:
    with pytest.raises(SchemaError, match=r"weight.* is missing. These came: size"):
        check_rows(
            numbered(size=[1]), Thing, derive=lambda rows, _: rows.with_columns(price=pl.col("weight").cast(pl.Float64))
        )


def test_column_that_may_be_absent_is_null() -> None:
    class Loose(pa.DataFrameModel):
        size: pl.Int64
        extra: pl.Float64 | None = Field(nullable=True)

    checked = check_rows(numbered(size=[1]), Loose)
    assert checked.accepted.select("size", "extra").rows() == [(1, None)]


def test_derive_that_drops_multiplies_or_selects_rows_is_refused() -> None:
    raw = numbered(size=[1, 2], price=[1.0, 2.0])
    with pytest.raises(SpecError, match="derive made 1 rows of 2"):
        check_rows(raw, Thing, derive=lambda rows, _: rows.filter(pl.col("size") > 1))
    with pytest.raises(SpecError, match="derive made 4 rows of 2"):
        check_rows(raw, Thing, derive=lambda rows, _: pl.concat([rows, rows]))
    with pytest.raises(SpecError, match="must keep the columns"):
        check_rows(raw, Thing, derive=lambda rows, _: rows.select("size", "price"))


def test_derive_that_reorders_rows_changes_no_verdict() -> None:
    raw = numbered(size=[3, -1, 2], price=[1.0, 2.0, 3.0])
    checked = check_rows(raw, Thing, derive=lambda rows, _: rows.sort("size"))
    assert checked.accepted[ROW].to_list() == [1, 3]
    assert list(reasons(checked)) == [2]


def test_derived_column_of_another_type_stops_everything() -> None:
    with pytest.raises(SchemaError, match="'price' is String after derive, the schema wants Float64"):
        check_rows(numbered(size=[1]), Thing, derive=lambda rows, _: rows.with_columns(price=pl.lit("1")))


def test_check_that_raises_stops_everything_instead_of_passing() -> None:
    class Raising(pa.DataFrameModel):
        size: pl.Int64

        @pa.check("size")
        def broken(cls, data: pa.PolarsData) -> pl.LazyFrame:
            raise ValueError("no such thing")

    with pytest.raises(SchemaError, match="as a whole"):
        check_rows(numbered(size=[1, 2]), Raising)


def test_schema_that_drops_invalid_rows_by_itself_loses_none() -> None:
    class Dropping(pa.DataFrameModel):
        size: pl.Int64 = Field(ge=0)

        class Config:
            drop_invalid_rows = True

    checked = check_rows(numbered(size=[1, -1]), Dropping)
    assert (checked.accepted.height, checked.quarantined.height) == (1, 1)


def test_checks_run_though_the_environment_switches_pandera_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANDERA_VALIDATION_ENABLED", "False")
    monkeypatch.setenv("PANDERA_VALIDATION_DEPTH", "SCHEMA_ONLY")
    assert list(reasons(check_rows(numbered(size=[1, -1], price=[1.0, 1.0]), Thing))) == [2]


def test_rows_that_contradict_themselves_are_refused_by_a_frame_check() -> None:
    class Sum(pa.DataFrameModel):
        a: pl.Int64
        b: pl.Int64

        @pa.dataframe_check
        def b_is_more(cls, data: pa.PolarsData) -> pl.LazyFrame:
            return data.lazyframe.select(pl.col("b") > pl.col("a"))

    checked = check_rows(numbered(a=[1, 5, 2], b=[2, 4, 3]), Sum)
    assert reasons(checked) == {2: ["row: b_is_more"]}


def test_repeated_values_are_refused_and_repeated_nulls_are_not() -> None:
    class Unique(pa.DataFrameModel):
        key: pl.Int64 = Field(unique=True, nullable=True)

    checked = check_rows(numbered(key=[1, None, None, 1, 2]), Unique)
    assert checked.accepted[ROW].to_list() == [2, 3, 5]
    assert reasons(checked) == {1: ["key: field_uniqueness"], 4: ["key: field_uniqueness"]}


def test_types_that_were_changed_are_told_and_text_is_not() -> None:
    files = [{"size": "Int64", "price": "Null"}, {"size": "Int32", "price": "Float64"}, {"size": "String"}]
    assert changed_types(files, Thing) == {"size": "Int32, Int64 -> Int64", "price": "Float64, Null -> Float64"}


def test_reasons_with_a_cell_of_their_own_are_of_one_kind() -> None:
    assert reason_kind("size: not a Int64: 'two'") == reason_kind("size: not a Int64: ': '") == "size: not a Int64"
    assert reason_kind("label: isin(['a: ', 'b'])") == "label: isin(['a: ', 'b'])"


CELLS = st.one_of(
    st.none(), st.integers(-5, 5).map(str), st.floats(width=32).map(str), st.text("0 .x-e\"'", max_size=4)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(CELLS, CELLS, st.sampled_from([None, None, None, "2 cells instead of 3"])), max_size=12))
def test_rows_in_are_rows_accepted_plus_rows_quarantined(rows: list[tuple[str | None, str | None, str | None]]) -> None:
    schema = {"size": pl.String, "price": pl.String, PROBLEM: pl.String}
    raw = pl.DataFrame(rows, schema=schema, orient="row").with_columns(_line=PROBLEM).with_row_index(ROW, offset=1)
    checked = check_rows(raw, Thing)
    seen = [*checked.accepted[ROW], *checked.quarantined[ROW]]
    assert sorted(seen) == raw[ROW].to_list()
    assert all(told for told in checked.quarantined["reasons"].to_list())
    assert checked.quarantined["raw"].null_count() == 0
    assert checked.accepted["size"].null_count() == 0


def test_rules_that_warn_refuse_nothing_and_are_counted() -> None:
    class Warned(pa.DataFrameModel):
        size: pl.Int64 = Field(ge=0, raise_warning=True)
        price: pl.Float64 = Field(le=100)

    checked = check_rows(numbered(size=[-1, -2, 3], price=[1.0, 200.0, 1.0]), Warned)
    assert checked.accepted["size"].to_list() == [-1, 3]
    assert checked.warnings == {"size: greater_than_or_equal_to(0)": 2}


def test_personal_values_are_told_neither_in_reasons_nor_in_the_raw_text() -> None:
    raw = numbered(size=["secret", "-1"], price=["1", "2"]).with_columns(
        pl.Series(PROBLEM, [None, None, "1 cells instead of 2"][:2]), pl.Series("_line", [None, None], dtype=pl.String)
    )
    broken = pl.DataFrame({ROW: [3], "size": [None], "price": [None], PROBLEM: ["1 cell"], "_line": ["secret"]})
    both = pl.concat([raw, broken], how="vertical_relaxed")
    told = check_rows(both, Thing, personal=["size"]).quarantined
    assert told["reasons"].to_list()[0] == ["size: not a Int64: '***'"]
    assert told["raw"].to_list() == ['{"size":"***","price":"1"}', '{"size":"***","price":"2"}', '{"line":"***"}']


class Person(pa.DataFrameModel):
    email: pl.String


class Judged(Person):
    @pa.check("email", element_wise=True)
    def is_number(cls, cell: str) -> bool:
        return int(cell) > 0


class JudgedWhole(Person):
    @pa.check("email")
    def is_number(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return pl.LazyFrame({"ok": [int(cell) > 0 for cell in data.lazyframe.collect()["email"]]})


class Numbered(Person):
    number: pl.Int64


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        (Judged, "Column 'email': is_number fails as a whole: ValueError"),
        (JudgedWhole, "Column 'email': is_number fails as a whole: ValueError"),
        (Numbered, "InvalidOperationError: conversion from `str` to `i64` failed in column 'email'. Mend"),
    ],
)
def test_error_of_a_check_or_of_derive_quotes_no_personal_value(schema: type, told: str) -> None:
    def derive(rows: pl.LazyFrame, _: object) -> pl.LazyFrame:
        return rows.with_columns(number=pl.col("email").cast(pl.Int64)) if schema is Numbered else rows

    rows = numbered(email=["bob@secret.org", "eve@secret.org"])
    with pytest.raises(SchemaError) as raised:
        check_rows(rows, schema, derive=derive, personal=["email"])
    assert told in str(raised.value)
    assert "secret" not in "".join(traceback.format_exception(raised.value))
    with pytest.raises(SchemaError, match=r"(bob|eve)@secret\.org"):  # where nothing is personal the value helps
        check_rows(rows, schema, derive=derive)


def test_row_with_lost_cells_is_told_all_of_them_and_no_rule() -> None:
    checked = check_rows(numbered(size=["x", "x", "-1"], price=["y", "200", "200"]), Thing)
    assert reasons(checked) == {
        1: ["price: not a Float64: 'y'", "size: not a Int64: 'x'"],
        2: ["size: not a Int64: 'x'"],
        3: ["price: less_than_or_equal_to(100)", "size: greater_than_or_equal_to(0)"],
    }


def test_first_of_equal_rows_is_kept_before_the_rules_judge() -> None:
    checked = check_rows(numbered(size=["1", "1"], price=["200", "2"]), Thing, cleaning=(Deduplicate(("size",)),))
    assert reasons(checked) == {1: ["price: less_than_or_equal_to(100)"], 2: ["row: duplicate of row 1"]}


def test_columns_that_match_a_pattern_are_all_accepted_in_the_schemas_place() -> None:
    class Sensors(pa.DataFrameModel):
        sensors: pl.Float64 = Field(alias="^s_.*$", regex=True, ge=0)
        place: pl.String

    checked = check_rows(numbered(place=["a", "b"], s_1=["1", "-1"], s_2=["2", "?"]), Sensors)
    assert checked.accepted.columns == [ROW, "s_1", "s_2", "place"]
    assert reasons(checked) == {2: ["s_2: not a Float64: '?'"]}


def test_raw_cells_are_told_as_they_came_though_derive_changes_them_all() -> None:
    checked = check_rows(
        numbered(size=[1, -1], price=[1.0, 2.0]),
        Thing,
        derive=lambda rows, _: rows.with_columns(pl.selectors.numeric().exclude(ROW) * 10),
    )
    assert checked.accepted.rows() == [(1, 10, 10.0)]
    assert checked.quarantined["raw"].to_list() == ['{"size":-1,"price":2.0}']


def test_refused_rows_get_their_own_raw_cells_in_whatever_order_rows_come() -> None:
    raw = numbered(size=["3", "-1", "two", "-4", "5"], price=["1", "2", "3", "4", "x"])
    for rows in (raw, raw.reverse()):
        told = check_rows(rows, Thing, derive=lambda rows, _: rows.sort("size")).quarantined
        assert dict(told.select(ROW, "raw").rows()) == {
            2: '{"size":"-1","price":"2"}',
            3: '{"size":"two","price":"3"}',
            4: '{"size":"-4","price":"4"}',
            5: '{"size":"5","price":"x"}',
        }


def test_derive_that_drops_one_row_and_doubles_another_is_refused() -> None:
    def swap(rows: pl.LazyFrame, _: object) -> pl.LazyFrame:
        return pl.concat([rows.head(1), rows.head(1)])

    with pytest.raises(SpecError, match="neither drop nor multiply"):
        check_rows(numbered(size=[1, 2], price=[1.0, 2.0]), Thing, derive=swap)


def test_check_that_means_nothing_for_its_columns_type_stops_everything() -> None:
    class Confused(pa.DataFrameModel):
        size: pl.Int64 = Field(isin=[0.5])

    with pytest.raises(SchemaError, match="cannot be cast, derived or checked"):
        check_rows(numbered(size=[1]), Confused)


def test_plan_computes_nothing_before_it_is_collected() -> None:
    seen: list[int] = []

    def noted(rows: pl.LazyFrame, _: object) -> pl.LazyFrame:
        return rows.map_batches(lambda frame: (seen.append(frame.height), frame)[1], schema=rows.collect_schema())

    plan = plan_rows(numbered(size=[1], price=[1.0]).lazy(), Thing, derive=noted)
    assert seen == []
    assert plan.collect().accepted.height == 1
    assert seen == [1]  # once, though three frames come of it


def test_strict_and_ordered_schema_is_met_by_leaving_out_and_ordering() -> None:
    class Tidy(pa.DataFrameModel):
        a: pl.Int64
        b: pl.Int64

        class Config:
            strict = True
            ordered = True

    assert check_rows(numbered(stray=[0], b=[2], a=[1]), Tidy).accepted.columns == [ROW, "a", "b"]
