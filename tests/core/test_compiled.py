from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

import pandera.polars as pa
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandera.config import ValidationDepth, config_context
from pandera.constants import CHECK_OUTPUT_KEY
from pandera.errors import SchemaErrors
from pandera.polars import Check

from ferroflow.core.compiled import once
from ferroflow.core.errors import SchemaError, SpecError
from ferroflow.core.validation import ROW, check_rows, plan_rows

Verdicts = set[tuple[int, str]]


@dataclass(frozen=True)
class Schema:
    """Stands for a model: a schema that was put together at run time."""

    inner: pa.DataFrameSchema
    __name__ = "Random"

    def to_schema(self) -> pa.DataFrameSchema:
        return self.inner


def pandera_says(schema: pa.DataFrameSchema, rows: pl.DataFrame) -> Verdicts:
    """Every (row from 1, "column: check") of ``validate(lazy=True)``; none may be about a whole column."""
    try:
        with config_context(validation_enabled=True, validation_depth=ValidationDepth.SCHEMA_AND_DATA):
            schema.validate(rows, lazy=True)
    except SchemaErrors as errors:
        return {verdict for error in errors.schema_errors for verdict in _row_verdicts(error)}
    return set()


def _row_verdicts(error: Any) -> Verdicts:
    """As ``failure_cases`` tells them, but with the column's own name where a pattern found it."""
    assert isinstance(error.failure_cases, pl.DataFrame), error
    name = error.check if isinstance(error.check, str) else error.check.error or error.check.name
    subject = error.column_name if type(error.schema) is pa.Column else "row"
    failed = (~error.check_output[CHECK_OUTPUT_KEY]).arg_true().head(error.failure_cases.height)
    return {(row + 1, f"{subject}: {name}") for row in failed}


def ours(schema: pa.DataFrameSchema, rows: pl.DataFrame) -> tuple[Verdicts, dict[str, int]]:
    checked = check_rows(rows.with_row_index(ROW, offset=1), Schema(schema))
    told = checked.quarantined.explode("reasons").select(ROW, "reasons").rows()
    return set(told), checked.warnings


# ------------------------------------------------------------------------------------------- random schemas and data


@dataclass(frozen=True)
class Rule:
    """One check to be: made twice, as it is and with its warning turned into an error."""

    make: Any
    name: str
    warns: bool
    ignore_na: bool
    window: bool = False

    def check(self, *, warns: bool) -> Check:
        return self.make(error=self.name, raise_warning=warns, ignore_na=self.ignore_na)


NUMBERS = {
    "ge": lambda k: lambda **kw: Check.ge(k, **kw),
    "gt": lambda k: lambda **kw: Check.gt(k, **kw),
    "le": lambda k: lambda **kw: Check.le(k, **kw),
    "lt": lambda k: lambda **kw: Check.lt(k, **kw),
    "ne": lambda k: lambda **kw: Check.ne(k, **kw),
    "range": lambda k: lambda **kw: Check.in_range(k, k + 2, include_max=False, **kw),
    "vector": lambda k: lambda **kw: Check(lambda d: d.lazyframe.select(pl.col(d.key) * 2 > k), **kw),
    "cell": lambda k: lambda **kw: Check(lambda x: x > k, element_wise=True, **kw),
    "window": lambda k: (
        lambda **kw: Check(lambda d: d.lazyframe.select(pl.col(d.key) <= pl.col(d.key).max() - k), **kw)
    ),
    "steps": lambda k: (
        lambda **kw: Check(lambda d: d.lazyframe.with_columns(x=pl.col(d.key) + 1).select(pl.col("x") > k), **kw)
    ),
}
WHOLE = {
    "isin": lambda k: lambda **kw: Check.isin([k, k + 1], **kw),
    "notin": lambda k: lambda **kw: Check.notin([k], **kw),
}
TEXTS = {
    "matches": lambda k: lambda **kw: Check.str_matches("[ab]+$", **kw),
    "contains": lambda k: lambda **kw: Check.str_contains("b", **kw),
    "starts": lambda k: lambda **kw: Check.str_startswith("a", **kw),
    "ends": lambda k: lambda **kw: Check.str_endswith("b", **kw),
    "length": lambda k: lambda **kw: Check.str_length(1, 2, **kw),
    "isin": lambda k: lambda **kw: Check.isin(["a", "ab"], **kw),
    "cell": lambda k: lambda **kw: Check(lambda x: x != "b", element_wise=True, **kw),
    "vector": lambda k: lambda **kw: Check(lambda d: d.lazyframe.select(pl.col(d.key).str.len_chars() > 1), **kw),
}
DAY = date(2024, 1, 2)
DAYS = {"ge": lambda k: lambda **kw: Check.ge(DAY, **kw), "lt": lambda k: lambda **kw: Check.lt(DAY, **kw)}
NOON = datetime(2024, 1, 2, 12)
MOMENTS = {"gt": lambda k: lambda **kw: Check.gt(NOON, **kw), "le": lambda k: lambda **kw: Check.le(NOON, **kw)}
TRUTHS = {"eq": lambda k: lambda **kw: Check.eq(True, **kw)}
KINDS: dict[Any, tuple[dict[str, Any], st.SearchStrategy[Any]]] = {
    pl.Int64: (NUMBERS | WHOLE, st.integers(-3, 3)),
    pl.Int32: (NUMBERS | WHOLE, st.integers(-3, 3)),
    pl.Float64: (NUMBERS, st.sampled_from([-2.0, -0.5, 0.0, 1.0, 2.5, math.nan, math.inf])),
    pl.Float32: (NUMBERS, st.sampled_from([-2.0, 0.0, 1.0, math.nan])),
    pl.String: (TEXTS, st.sampled_from(["a", "b", "ab", "bba", "ca"])),
    pl.Boolean: (TRUTHS, st.booleans()),
    pl.Date: (DAYS, st.integers(0, 3).map(lambda n: date(2024, 1, 1) + timedelta(n))),
    pl.Datetime("us"): (MOMENTS, st.integers(0, 3).map(lambda n: datetime(2024, 1, 1) + timedelta(hours=18 * n))),
}
WIDER = {pl.Int32: pl.Int64, pl.Int64: pl.Float64, pl.Float32: pl.Float64}


@dataclass(frozen=True)
class Case:
    columns: dict[str, dict[str, Any]]  # name (or pattern) -> arguments of pa.Column
    rules: dict[str, list[Rule]]
    frame_rules: list[Rule]
    unique: list[str] | None
    rows: pl.DataFrame

    def schema(self, *, warns: bool) -> pa.DataFrameSchema:
        made = {
            name: pa.Column(
                checks=[rule.check(warns=warns and rule.warns) for rule in self.rules[name]],
                regex=name.startswith("^"),
                **arguments,
            )
            for name, arguments in self.columns.items()
        }
        checks = [rule.check(warns=warns and rule.warns) for rule in self.frame_rules]
        return pa.DataFrameSchema(made, checks=checks, unique=self.unique)

    @property
    def all_rules(self) -> list[Rule]:
        return [rule for rules in self.rules.values() for rule in rules] + self.frame_rules


@st.composite
def cases(draw: st.DrawFn) -> Case:
    height = draw(st.integers(1, 7))
    columns: dict[str, dict[str, Any]] = {}
    rules: dict[str, list[Rule]] = {}
    data: dict[str, pl.Series] = {}
    number = 0
    for place in range(draw(st.integers(1, 4))):
        dtype = draw(st.sampled_from(list(KINDS)))
        cells = KINDS[dtype][1]
        pattern = place == 0 and draw(st.booleans())
        names = ["x_1", "x_2"] if pattern else [f"c{place}"]
        key = "^x_.*$" if pattern else names[0]
        wider = WIDER.get(dtype) if draw(st.booleans()) else None
        makers = KINDS[wider or dtype][0]
        columns[key] = {
            "dtype": wider or dtype,
            "coerce": wider is not None,
            "nullable": draw(st.booleans()),
            "unique": draw(st.booleans()),
        }
        rules[key] = []
        for kind in draw(st.lists(st.sampled_from(list(makers)), max_size=3)):
            make = makers[kind](draw(st.integers(-2, 2)))
            rules[key].append(
                Rule(
                    make,
                    f"rule {number}",
                    draw(st.sampled_from([False, False, True])),
                    draw(st.booleans()),
                    kind == "window",
                )
            )
            number += 1
        for name in names:
            values = draw(st.lists(st.none() | cells, min_size=height, max_size=height))
            data[name] = pl.Series(name, values, dtype=dtype)
    plain = [name for name in data if not name.startswith("x_")]
    unique = draw(st.none() | st.lists(st.sampled_from(plain), min_size=2, unique=True)) if len(plain) > 1 else None
    frame_rules = []
    counted = [name for name in plain if data[name].dtype.is_numeric()]
    if len(counted) > 1:
        one, other = counted[:2]
        make = lambda **kw: Check(lambda d: d.lazyframe.select(pl.col(one) <= pl.col(other)), **kw)  # noqa: E731
        frame_rules.append(Rule(make, "across", draw(st.booleans()), draw(st.booleans())))
    if draw(st.booleans()):
        make = lambda **kw: Check(lambda x: x != 1, element_wise=True, **kw)  # noqa: E731
        frame_rules.append(Rule(make, "each cell", False, draw(st.booleans())))
    return Case(columns, rules, frame_rules, unique, pl.DataFrame(data))


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(cases())
def test_every_verdict_is_panderas_own(case: Case) -> None:
    judge = case.schema(warns=False)
    missing = case.rows.with_columns(pl.col(pl.Float32, pl.Float64).fill_nan(None))
    told = pandera_says(judge, missing)
    # First difference: repeated nulls of a column that may have some are no duplicates.
    repeated = {
        (row, f"{name}: field_uniqueness")
        for name in missing.columns
        for row, cell in enumerate(missing[name], start=1)
        if cell is None and case.columns.get(name, case.columns.get("^x_.*$", {}))["nullable"]
    }
    warned = {rule.name for rule in case.all_rules if rule.warns}
    expected = {(row, reason) for row, reason in told - repeated if reason.partition(": ")[2] not in warned}
    verdicts, warnings = ours(case.schema(warns=True), case.rows)
    assert verdicts == expected
    counted = {
        reason: sum(1 for _, each in told if each == reason)
        for _, reason in told
        if reason.partition(": ")[2] in warned
    }
    assert {reason: rows for reason, rows in warnings.items() if rows} == counted
    # Second difference: NaN is missing. It changes no verdict on rows that have none.
    if not any(rule.window for rule in case.all_rules):
        floats = [name for name in case.rows.columns if case.rows[name].dtype.is_float()]
        nans = {
            row for name in floats for row, cell in enumerate(case.rows[name], 1) if cell is not None and cell != cell
        }
        raw = pandera_says(judge, case.rows)
        shared = {verdict for verdict in raw if not verdict[1].endswith("uniqueness")}
        assert {v for v in shared if v[0] not in nans} == {
            v for v in told if v[0] not in nans and not v[1].endswith("uniqueness")
        }


# ------------------------------------------------------------------------------------------------ the differences, told


def typed(**columns: Any) -> pl.DataFrame:
    return pl.DataFrame(columns)


def test_not_a_number_is_no_value_that_could_pass_or_fail() -> None:
    schema = pa.DataFrameSchema({"x": pa.Column(float, [Check.ge(0), Check.le(9)], nullable=True)})
    rows = typed(x=[math.nan, 10.0])
    assert (1, "x: less_than_or_equal_to(9)") in pandera_says(schema, rows)
    assert ours(schema, rows)[0] == {(2, "x: less_than_or_equal_to(9)")}


def test_all_rows_are_refused_where_pandera_reports_the_first_few() -> None:
    schema = pa.DataFrameSchema({"x": pa.Column(int, Check.ge(0, n_failure_cases=1))})
    rows = typed(x=[-1, -2, 1])
    assert len(pandera_says(schema, rows)) == 1
    assert {row for row, _ in ours(schema, rows)[0]} == {1, 2}


def test_coercing_cuts_no_fraction() -> None:
    schema = pa.DataFrameSchema({"x": pa.Column(int, Check.ge(0), coerce=True)})
    rows = typed(x=[1.0, 1.9, -1.0])
    assert pandera_says(schema, rows) == {(3, "x: greater_than_or_equal_to(0)")}
    assert ours(schema, rows)[0] == {(2, "x: not a Int64: '1.9'"), (3, "x: greater_than_or_equal_to(0)")}


def test_several_unique_sets_are_all_judged() -> None:
    schema = pa.DataFrameSchema({"a": pa.Column(int), "b": pa.Column(int)}, unique=["a", "b"])
    both = replace(Schema(schema))
    both.inner.unique = [["a"], ["b"]]
    assert ours(both.inner, typed(a=[1, 1, 2], b=[5, 6, 6]))[0] == {
        (row, "row: multiple_fields_uniqueness") for row in (1, 2, 3)
    }


def test_a_verdict_about_a_whole_column_stops_everything() -> None:
    for check in (
        Check(lambda d: d.lazyframe.select(pl.col(d.key).mean() > 5)),
        Check(lambda d: d.lazyframe.collect().height > 5),
        Check(lambda d: d.lazyframe.select(pl.col("elsewhere") > 5)),
        Check(lambda d: d.lazyframe.filter(pl.col(d.key) > 1).select(pl.col(d.key) > 0)),
        Check(lambda x: 1 / 0, element_wise=True),
        Check.unique_values_eq({7}),
    ):
        schema = pa.DataFrameSchema({"x": pa.Column(int, check)})
        with pytest.raises(SchemaError, match="as a whole"):
            ours(schema, typed(x=[1, 2, 3]))


def test_a_verdict_that_holds_for_a_whole_column_refuses_no_row() -> None:
    for check in (Check(lambda d: d.lazyframe.select(pl.col(d.key).mean() > 1)), Check.unique_values_eq({1, 2, 3})):
        assert ours(pa.DataFrameSchema({"x": pa.Column(int, check)}), typed(x=[1, 2, 3]))[0] == set()


def test_check_on_all_columns_sees_the_schemas_and_no_others() -> None:
    check = Check(lambda d: d.lazyframe.select(pl.all() > 0), error="positive")
    schema = pa.DataFrameSchema({"a": pa.Column(int), "b": pa.Column(int)}, checks=check)
    assert ours(schema, typed(a=[1, 1], b=[1, -1], stray=["-", "-"]))[0] == {(2, "row: positive")}


def test_pattern_that_no_column_fits_is_a_missing_column() -> None:
    schema = pa.DataFrameSchema({"^x_.*$": pa.Column(int, regex=True)})
    with pytest.raises(SchemaError, match=r"'\^x_\.\*\$' is missing\. These came: y"):
        ours(schema, typed(y=[1]))
    optional = pa.DataFrameSchema({"^x_.*$": pa.Column(int, regex=True, required=False), "y": pa.Column(int)})
    assert ours(optional, typed(y=[1]))[0] == set()


def test_parts_of_a_schema_that_pandera_leaves_out_are_refused_by_name() -> None:
    filled = pa.DataFrameSchema({"x": pa.Column(int, default=3)})
    with pytest.raises(SpecError, match=r"Declare Default\('x', 3\)"):
        ours(filled, typed(x=[None, 1]))
    grouped = pa.DataFrameSchema({"x": pa.Column(int, Check(lambda d: True, groupby="y")), "y": pa.Column(int)})
    with pytest.raises(SpecError, match="groupby"):
        ours(grouped, typed(x=[1], y=[1]))


def test_more_rules_than_a_mask_has_bits_are_all_told() -> None:
    schema = pa.DataFrameSchema({f"c{n}": pa.Column(int, [Check.ge(0), Check.le(9)]) for n in range(50)})
    rows = pl.DataFrame({f"c{n}": [1, -1, 10 if n % 2 else 1] for n in range(50)})
    assert ours(schema, rows)[0] == pandera_says(schema, rows)


@given(st.lists(st.tuples(st.sampled_from([None, "a", "b"]), st.sampled_from([None, 1, 2])), max_size=9))
def test_rows_without_an_equal_are_those_polars_calls_unique(rows: list[tuple[str | None, int | None]]) -> None:
    frame = pl.DataFrame(rows, schema={"a": pl.String, "b": pl.Int64}, orient="row")
    assert once(frame).to_list() == frame.is_unique().to_list()


def test_judging_as_a_stream_gives_the_same_rows_in_their_order() -> None:
    rows = 300_000
    schema = pa.DataFrameSchema(
        {
            "x": pa.Column(
                int, [Check.le(rows - 5), Check(lambda d: d.lazyframe.collect().lazy().select(pl.col("x") != 7))]
            ),
            "key": pa.Column(int, unique=True),
        }
    )
    index = pl.int_range(rows, eager=True)
    text = index.cast(pl.String).set(index == 1000, "?")
    raw = pl.DataFrame({ROW: index + 1, "x": text, "key": index.clip(0, rows - 3)})
    plan = plan_rows(raw.lazy(), Schema(schema))
    ends = [plan.accepted, *plan.early, *plan.late]
    accepted, early, before, late, after = pl.collect_all(ends, engine="streaming")
    refused = plan.refused(early, late).collect(engine="streaming")
    assert refused[ROW].to_list() == [8, 1001, rows - 3, rows - 2, rows - 1, rows]
    assert accepted[ROW].to_list() == sorted(set(range(1, rows + 1)) - set(refused[ROW]))
    assert plan.tally(before, after).rows == rows
    told = dict(refused.select(ROW, "reasons").rows())
    assert told[1001] == ["x: not a Int64: '?'"]
    assert told[rows] == ["key: field_uniqueness", f"x: less_than_or_equal_to({rows - 5})"]
