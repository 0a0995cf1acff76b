from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from ferroflow.core.leakage import find_leaks
from ferroflow.core.leakage import leaks as leaking

ROWS = 5_000
NUMBERS = pl.DataFrame({"i": range(ROWS)}).select(
    part=(pl.col("i") * 7 % 101).cast(pl.Float64),
    rest=(pl.col("i") * 13 % 97).cast(pl.Float64),
    noise=(pl.col("i") * 31 % 89).cast(pl.Float64),
)


def leaks(target: pl.Expr, *inputs: pl.Expr, positive: str | None = None) -> list[str]:
    frame = NUMBERS.select(target.alias("target"), *inputs)
    return find_leaks(frame, "target", frame.columns[1:], positive)


def test_parts_of_a_total_are_found_among_others() -> None:
    found = leaks(pl.col("part") + pl.col("rest"), pl.col("part", "noise", "rest"))
    assert found == ["'part' + 'rest' is the target"]


def test_a_sum_that_misses_on_one_row_is_no_leak() -> None:
    total = pl.col("part") + pl.col("rest")
    almost = pl.when(pl.int_range(pl.len()) == 1_234).then(total + 1).otherwise(total)
    assert leaks(almost, pl.col("part", "rest")) == []


@pytest.mark.parametrize("copy", [pl.col("part") * 60, 32 - pl.col("part") * 1.8, pl.col("part").cast(pl.Int64)])
def test_a_number_in_other_units_is_found(copy: pl.Expr) -> None:
    assert leaks(pl.col("part"), copy.alias("copy")) == ["'copy' is a linear function of the target"]


def test_a_leak_with_gaps_is_found() -> None:
    gaps = pl.when(pl.col("noise") > 40).then(pl.col("part"))
    assert leaks(pl.col("part"), gaps.alias("copy")) == ["'copy' is a linear function of the target"]


def test_a_strong_but_inexact_feature_is_no_leak() -> None:
    assert leaks(pl.col("part"), (pl.col("part") + pl.col("noise") / 1e6).alias("near")) == []


def test_a_class_told_by_a_text_or_by_a_number_is_found() -> None:
    label = pl.when(pl.col("part") > 50).then(pl.lit("yes")).otherwise(pl.lit("no"))
    assert leaks(label, label.alias("copy"), positive="yes") == ["'copy' equals the target"]
    number = (pl.col("part") <= 50).cast(pl.Int64)
    assert leaks(label, number.alias("flag"), positive="yes") == ["'flag' is a linear function of the target"]


def test_a_constant_input_tells_nothing() -> None:
    assert leaks(pl.col("part"), pl.lit(1.0).alias("one"), pl.lit(None, dtype=pl.Float64).alias("none")) == []


def test_few_rows_or_one_value_prove_nothing() -> None:
    frame = pl.DataFrame({"target": [1.0, 2.0], "copy": [1.0, 2.0]})
    assert find_leaks(frame, "target", ["copy"]) == []
    assert leaks(pl.lit(3.0), pl.lit(3.0).alias("copy")) == []


def test_the_parts_of_a_total_are_found_among_hundreds_of_columns() -> None:
    many = [(pl.col("i") * (place + 3) % (place + 211)).alias(f"n{place}") for place in range(400)]
    frame = pl.DataFrame({"i": range(ROWS)}).select(*many).with_columns(total=pl.col("n7") + pl.col("n311"))
    [leak] = leaking(frame, "total", [f"n{place}" for place in range(400)])
    assert leak.columns == ("n7", "n311")


def test_parts_that_are_added_and_taken_away_are_found() -> None:
    profit = pl.col("part") + pl.col("rest") - pl.col("noise")
    assert leaks(profit, pl.col("part", "noise", "rest")) == ["'part' + 'rest' - 'noise' is the target"]
    assert leaks(pl.col("part") - pl.col("noise"), pl.col("part", "noise", "rest")) == [
        "'part' - 'noise' is the target"
    ]
    assert leaks(profit + pl.col("noise") / 1e5, pl.col("part", "noise", "rest")) == []


def test_a_sum_that_misses_on_some_rows_leaks_only_where_exceptions_are_allowed() -> None:
    profit = pl.col("part") + pl.col("rest") - pl.col("noise")
    late = pl.when(pl.int_range(pl.len()) % 8 == 0).then(profit + 2.5).otherwise(profit)
    frame = NUMBERS.with_columns(target=late)
    assert leaking(frame, "target", ["part", "rest", "noise"]) == []
    [leak] = leaking(frame, "target", ["part", "rest", "noise"], exceptions=0.2)
    assert str(leak).endswith("is the target in 87% of the rows")


def test_zeros_on_both_sides_are_no_sum() -> None:
    rare = pl.when(pl.int_range(pl.len()) % 50 == 0)
    frame = NUMBERS.select(
        one=rare.then("part").otherwise(0.0),
        two=rare.then("rest").otherwise(0.0),
        target=rare.then("noise").otherwise(0.0),
    )
    assert leaking(frame, "target", ["one", "two"], exceptions=0.2) == []


def test_the_parts_of_a_real_total_are_found_among_all_columns(mirror: Path) -> None:
    rides = pl.read_parquet(mirror / "nyc_tlc_green" / "green_tripdata_2023-01.parquet").drop("ehail_fee")
    parts = ("fare_amount", "extra", "mta_tax", "tip_amount", "tolls_amount", "improvement_surcharge")
    wanted = {*parts, "congestion_surcharge"}
    others = [name for name in rides.columns if name not in ("total_amount", "VendorID")]
    [leak] = leaking(rides, "total_amount", others, exceptions=0.2)
    assert set(leak.columns) | {"mta_tax"} == wanted  # the tax is a constant but for the airport's rates
    exact = rides.drop_nulls().with_columns(total_amount=pl.sum_horizontal(wanted))
    [leak] = leaking(exact, "total_amount", others)
    assert set(leak.columns) == wanted
