"""Casts: what is accepted is what came."""

from __future__ import annotations

import math
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pandera.polars as pa
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ferroflow.core.errors import SchemaError
from ferroflow.core.validation import ROW, Checked, check_rows

NOON, MIDNIGHT = datetime(2024, 1, 1, 12, 5), datetime(2024, 1, 1)


def checked(wanted: Any, values: list[Any], came: Any) -> Checked:
    columns = {"x": pa.Column(wanted, nullable=True)}
    schema = type("S", (), {"__name__": "S", "to_schema": staticmethod(lambda: pa.DataFrameSchema(columns))})
    rows = pl.DataFrame({"x": pl.Series(values, dtype=came)}).with_row_index(ROW, offset=1)
    return check_rows(rows, schema)


@pytest.mark.parametrize(
    ("came", "wanted", "kept", "lost"),
    [
        (
            pl.String,
            pl.Float64,
            ["9007199254740992", "1e22", "inf", "0.1"],
            ["9007199254740993", "-9007199254740993.0"],
        ),
        (pl.String, pl.Float64, ["1.7976931348623157e308"], ["1e400", "-1e400", "nan", "1" * 40]),
        (pl.String, pl.Float32, ["16777216", "0.1"], ["16777217", "1e300"]),
        (
            pl.String,
            pl.Decimal(10, 2),
            ["1.2", "1.200", "12e-1", "-5."],
            ["1.239", "-0.001", "1.239e0", "123456789012"],
        ),
        (pl.String, pl.Datetime("us"), ["2024-01-01 10:00:00.123456000"], ["2024-01-01 10:00:00.1234561"]),
        (pl.String, pl.Datetime("ms", "UTC"), ["2024-01-01 10:00:00.120000Z"], ["2024-01-01 10:00:00.1201Z"]),
        (pl.String, pl.Time, ["10:00:00.123456789"], ["10:00:00.1234567891"]),
        (pl.Float64, pl.Float32, [0.1, 16777216.0, 6.02214076e23, math.inf], [1e300, 16777217.0]),
        (pl.Float32, pl.Float64, [0.5, math.inf, 2.0**25], []),
        (pl.Float64, pl.Decimal(10, 2), [1.2, 0.1], [1.239, 1e30, math.inf]),
        (pl.String, pl.Decimal(20, 2), ["1e+16", "5e-1"], ["5e-324", "1e-20", "1e18"]),
        (pl.Float64, pl.Boolean, [0.0, 1.0], [0.5, 2.0]),
        (pl.Decimal(10, 2), pl.Boolean, [Decimal("1.00")], [Decimal("0.50")]),
        (pl.Int64, pl.Boolean, [0, 1], [2, -5]),
        (pl.Int64, pl.Float64, [2**53], [2**53 + 1, 2**63 - 1]),
        (pl.UInt64, pl.Int64, [5], [2**63 + 5]),
        (pl.Datetime("us"), pl.Date, [MIDNIGHT], [NOON]),
        (pl.Datetime("ns"), pl.Datetime("us"), [1000], [1, 1001]),
        (pl.Datetime("us"), pl.Datetime("ns"), [NOON], [datetime(2500, 1, 1)]),
        (pl.Decimal(10, 2), pl.Int64, [Decimal("2.00")], [Decimal("1.50")]),
        (pl.List(pl.Float64), pl.List(pl.Int64), [[2.0]], [[1.5]]),
        (pl.Binary, pl.String, [b"a", "ä".encode(), b""], [b"\xff", b"a\xc3"]),
    ],
)
def test_cell_that_its_cast_would_change_is_refused_and_no_other(came: Any, wanted: Any, kept: Any, lost: Any) -> None:
    told = checked(wanted, [*kept, None, *lost], came)
    assert told.accepted[ROW].to_list() == list(range(1, len(kept) + 2))
    assert [len(reasons) for reasons in told.quarantined["reasons"]] == [1] * len(lost)
    assert all(reasons[0].startswith("x: not a ") for reasons in told.quarantined["reasons"])


@pytest.mark.parametrize(
    ("came", "wanted", "value"),
    [
        (pl.Int64, pl.Date, 20240101),
        (pl.Int64, pl.Datetime("us"), 5),
        (pl.Float64, pl.Time, 5.0),
        (pl.Datetime("us"), pl.Time, NOON),
        (pl.Struct({"a": pl.Int64}), pl.String, {"a": 1}),
        (pl.List(pl.Int64), pl.String, [1]),
    ],
)
def test_column_whose_cast_would_be_a_guess_stops_everything(came: Any, wanted: Any, value: Any) -> None:
    with pytest.raises(SchemaError, match=r"'x' came as .*, the schema wants .*convert it in derive"):
        checked(wanted, [value], came)


@pytest.mark.parametrize("wanted", [pl.Boolean, pl.Int64, pl.Float32, pl.Decimal(10, 2), pl.String])
def test_a_float_that_is_not_a_number_is_missing_in_every_type(wanted: Any) -> None:
    assert checked(wanted, [math.nan, 1.0], pl.Float64).accepted["x"].is_null().to_list() == [True, False]


RAW: dict[Any, st.SearchStrategy[Any]] = {
    pl.Int64: st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3),
    pl.UInt64: st.integers(0, 2**64 - 1),
    pl.Int16: st.integers(-(2**15), 2**15 - 1),
    pl.Float64: st.floats() | st.integers(-(2**60), 2**60).map(float),
    pl.Boolean: st.booleans(),
    pl.Decimal(18, 4): st.decimals(-(10**13), 10**13, places=4),
}
NUMBERS = [pl.Int8, pl.Int64, pl.UInt64, pl.Float64, pl.Boolean, pl.Decimal(10, 2), pl.Decimal(38, 6)]
MOMENTS = [pl.Date, pl.Datetime("ms"), pl.Datetime("us"), pl.Datetime("ns")]


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_what_is_accepted_casts_back_to_what_came(data: st.DataObject) -> None:
    if data.draw(st.booleans()):
        came, wanted = data.draw(st.sampled_from(list(RAW))), data.draw(st.sampled_from(NUMBERS))
        assume(
            pl.Boolean not in (came, wanted) or not (came.is_decimal() or wanted.is_decimal())
        )  # Polars has no such cast
        values = data.draw(st.lists(st.none() | RAW[came], max_size=8))
    else:
        came, wanted = data.draw(st.sampled_from(MOMENTS)), data.draw(st.sampled_from(MOMENTS))
        moments = st.dates().map(lambda day: datetime(day.year, day.month, day.day)) | st.datetimes()
        cells = st.dates(date(1, 1, 1)) if came == pl.Date else moments
        if came == pl.Datetime("ns"):
            cells = st.integers(-(2**62), 2**62)
        values = data.draw(st.lists(st.none() | cells, max_size=8))
    raw = pl.Series("x", values, dtype=came)
    told = checked(wanted, values, came)
    assert told.accepted.height + told.quarantined.height == len(values)
    before = raw.gather(told.accepted[ROW].cast(pl.Int64) - 1)
    before = before.fill_nan(None) if before.dtype.is_float() else before
    assert before.eq_missing(told.accepted["x"].cast(raw.dtype)).all()


@settings(max_examples=120, deadline=None)
@given(
    st.lists(
        st.integers(-(2**70), 2**70).map(str) | st.floats().map(str) | st.decimals(places=3, allow_nan=False).map(str),
        max_size=8,
    ),
    st.sampled_from([pl.Int64, pl.Float64, pl.Decimal(20, 2)]),
)
def test_a_number_that_is_accepted_says_what_its_text_said(texts: list[str], wanted: Any) -> None:
    told = checked(wanted, texts, pl.String).accepted
    for row, number in told.rows():
        exact = Decimal(texts[row - 1])
        # The nearest float of a fraction, or of a number written with an exponent, is that number.
        same = float(exact) if wanted == pl.Float64 and not texts[row - 1].lstrip("-").isdigit() else exact
        assert number == same
