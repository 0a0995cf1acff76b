"""Equal means equal: as the graph is fed them, bit by bit."""

from __future__ import annotations

import math
import struct

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ferroflow.core.records import FeatureSkew, SkewReport
from ferroflow.core.skew import EXAMPLES, WAITING, Column, counted, different, judge, merged, sentence
from ferroflow.core.spec import Skew
from tests.rides import START

NUMBERS = st.one_of(st.none(), st.floats(width=64, allow_infinity=True), st.sampled_from([0.0, -0.0, 1e-50, 0.1]))


def fed(value: float | None) -> bytes:
    """The four bytes that the graph gets; missing values are one, and what is not finite is missing."""
    if value is None or not math.isfinite(value):
        return b"missing"
    try:
        return struct.pack("<f", value)
    except OverflowError:
        return struct.pack("<f", math.copysign(math.inf, value))


@settings(max_examples=60)
@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=20))
def test_numbers_differ_when_their_four_bytes_do(pairs: list[tuple[float | None, float | None]]) -> None:
    pairs += [(left, left) for left, _ in pairs]
    logged, again = (pl.Series([pair[side] for pair in pairs], dtype=pl.Float64) for side in (0, 1))
    assert different(logged, again).to_list() == [fed(left) != fed(right) for left, right in pairs]


@pytest.mark.parametrize(("dtype", "values"), [(pl.Int64, (1, 2)), (pl.String, ("a", "A"))])
def test_categories_differ_by_value_and_missing_ones_do_not(dtype: pl.DataType, values: tuple[object, object]) -> None:
    one, other = values
    logged, again = (pl.Series(row, dtype=dtype) for row in ([one, one, None, None], [one, other, one, None]))
    assert different(logged, again).to_list() == [False, True, True, False]


def test_no_row_is_no_difference() -> None:
    empty = pl.Series([], dtype=pl.Float64)
    counts, differs = counted(Column("x", empty, empty), pl.Series([], dtype=pl.String), pl.Series([], dtype=pl.String))
    assert (counts.compared, counts.mismatched, differs.len()) == (0, 0, 0)


def parts(wrong: int, rows: int = 10) -> FeatureSkew:
    names = pl.Series([f"p{row}" for row in range(rows)])
    logged = pl.Series([1.0] * rows)
    again = pl.Series([2.0] * wrong + [1.0] * (rows - wrong))
    return counted(Column("x", logged, again), names, pl.Series(["1"] * rows))[0]


def test_counts_of_versions_add_up_and_examples_stay_few() -> None:
    quiet = parts(0).model_copy(update={"feature": "y"})
    [first, last] = merged([quiet, parts(4), parts(3)])
    assert (first.feature, first.compared, first.mismatched) == ("x", 20, 7)
    assert len(first.examples) == EXAMPLES
    assert last == quiet


def test_a_number_that_is_not_finite_is_missing_on_both_sides_and_is_shown_so() -> None:
    endless = pl.Series([math.inf, -math.inf, math.inf, 1.0])
    logged = pl.Series([None, None, 1.0, 1.0])
    names = pl.Series([f"p{row}" for row in range(4)])
    counts, differs = counted(Column("x", logged, endless), names, pl.Series(["1"] * 4))
    assert differs.to_list() == [False, False, True, False]
    assert (counts.examples[0].logged, counts.examples[0].recomputed) == (1.0, None)


def report(*features: FeatureSkew, rows: int = 10, unseen: int = 0) -> SkewReport:
    return SkewReport(
        pipeline="toy",
        fingerprint="f",
        as_of=START,
        since=START,
        predictions=rows,
        read=rows,
        compared=rows - unseen,
        degraded=0,
        not_comparable={"another feature code": unseen} if unseen else {},
        differing=0,
        features=features,
    )


def test_one_value_is_an_alarm_unless_the_pipeline_allows_a_share() -> None:
    one = report(parts(1))
    assert judge(one, Skew()) == (True, "1 of 10 logged values differ from a recomputation (x 1); 10 predictions")
    assert not judge(one, Skew(max_share=0.1))[0]
    assert not judge(one, Skew(min_rows=11))[0]
    assert not judge(report(parts(0)), Skew())[0]


def test_a_share_is_one_features_and_not_all_features_together() -> None:
    others = [parts(0).model_copy(update={"feature": f"y{number}"}) for number in range(50)]
    assert judge(report(parts(2), *others), Skew(max_share=0.1))[0]


def test_nothing_logged_is_said_as_such() -> None:
    assert sentence(report(rows=0)) == "0 of 0 logged values differ from a recomputation; 0 predictions"
    assert not judge(report(rows=0), Skew())[0]


def test_that_nothing_could_be_compared_is_an_alarm_and_never_told_as_no_difference() -> None:
    told = "nothing could be compared (10: another feature code); 10 predictions"
    limit = "more cannot be compared than the limit of 90%"
    assert judge(report(rows=10, unseen=10), Skew()) == (True, f"{told}; {limit}")
    assert judge(report(rows=10, unseen=10), Skew(max_not_comparable=1.0)) == (False, told)
    assert not judge(report(rows=10, unseen=10), Skew(min_rows=11))[0]


def test_a_few_predictions_that_cannot_be_compared_are_told_and_no_alarm() -> None:
    alarmed, told = judge(report(parts(0, rows=2), rows=20, unseen=18), Skew())
    assert not alarmed and told.endswith("18 not comparable: another feature code")
    alarmed, told = judge(report(parts(0, rows=1), rows=20, unseen=19), Skew())
    assert alarmed and told.startswith("0 of 1 logged values differ") and "limit of 90%" in told


def test_what_waits_for_a_refresh_is_on_neither_side_of_the_share() -> None:
    def waiting(rows: int, wait: int, unseen: int = 0) -> SkewReport:
        reasons = {WAITING: wait} | ({"another feature code": unseen} if unseen else {})
        compared = rows - wait - unseen
        return report(parts(0, rows=compared), rows=rows).model_copy(
            update={"compared": compared, "not_comparable": reasons}
        )

    assert not judge(waiting(20, wait=19), Skew())[0]
    assert not judge(waiting(20, wait=20), Skew(max_not_comparable=0.0))[0]
    assert not judge(waiting(20, wait=10, unseen=9), Skew())[0]
    assert judge(waiting(20, wait=9, unseen=11), Skew())[0]
    assert not judge(waiting(20, wait=9, unseen=11), Skew(min_rows=12))[0]
