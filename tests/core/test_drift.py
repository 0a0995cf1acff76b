from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from ferroflow.core.drift import benjamini_hochberg, column_drift, psi
from ferroflow.core.records import ColumnDrift
from ferroflow.core.spec import InputDrift

MONITOR = InputDrift()


def numbers(rows: int, seed: int, columns: int = 20, shift: float = 0.0, shifted: int = 0) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    return pl.DataFrame({f"x{n}": random.normal(shift if n < shifted else 0.0, 1.0, rows) for n in range(columns)})


def names(rows: int, seed: int, categories: int = 200, power: float = 1.0) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    share = np.arange(1, categories + 1.0) ** -power
    return pl.DataFrame({"zone": random.choice(categories, rows, p=share / share.sum())})


def only(found: tuple[ColumnDrift, ...]) -> ColumnDrift:
    [entry] = found
    return entry


def drifted(found: tuple[ColumnDrift, ...]) -> list[str]:
    return [entry.column for entry in found if entry.drifted]


def test_twenty_columns_without_drift_hardly_ever_alarm():
    reference = numbers(20_000, 0)
    alarms = sum(bool(drifted(column_drift(reference, numbers(600, seed), MONITOR))) for seed in range(1, 41))
    assert alarms <= 1


def test_many_categories_on_few_rows_do_not_alarm_without_drift():
    reference = names(20_000, 0)
    found = [only(column_drift(reference, names(500, seed), MONITOR, categorical=["zone"])) for seed in range(1, 31)]
    assert not any(entry.drifted for entry in found)
    assert np.mean([entry.psi for entry in found]) < 0.05


def test_three_shifted_columns_of_twenty_are_found_and_only_they():
    found = column_drift(numbers(20_000, 0), numbers(1_000, 1, shift=0.6, shifted=3), MONITOR)
    assert sorted(drifted(found)) == ["x0", "x1", "x2"]
    assert {entry.column for entry in found[:3]} == {"x0", "x1", "x2"}


def test_a_significant_shift_that_does_not_matter_is_no_drift():
    found = only(column_drift(numbers(50_000, 0, 1), numbers(50_000, 1, 1, shift=0.05, shifted=1), MONITOR))
    assert found.p < 0.001
    assert not found.drifted
    assert found.reason.startswith("PSI 0.00, needs 0.20")


def test_one_outlier_does_not_hide_a_shift():
    live = numbers(1_000, 1, 1, shift=1.0, shifted=1)
    spoilt = pl.concat([live, pl.DataFrame({"x0": [1e6]})])
    reference = pl.concat([numbers(20_000, 0, 1), pl.DataFrame({"x0": [-1e6]})])
    assert only(column_drift(reference, spoilt, MONITOR)).drifted


def test_too_few_rows_are_told_and_never_alarm():
    found = only(column_drift(numbers(5_000, 0, 1), numbers(120, 1, 1, shift=9, shifted=1), MONITOR))
    assert not found.drifted
    assert found.reason == "not enough rows (120 of 500)"


def test_half_of_the_values_gone_is_drift():
    live = numbers(1_000, 1, 1).with_columns(pl.when(pl.int_range(pl.len()) % 2 == 0).then("x0").alias("x0"))
    found = only(column_drift(numbers(5_000, 0, 1), live, MONITOR))
    assert found.drifted
    assert "missing values up by 50%" in found.reason


def test_a_column_that_is_gone_is_drift_even_on_few_rows():
    found = column_drift(numbers(5_000, 0, 2), numbers(50, 1, 1), MONITOR)
    assert (found[0].column, found[0].drifted, found[0].reason) == ("x1", True, "missing from the live rows")


def test_new_categories_are_drift_and_counted():
    live = names(1_000, 1, 20).with_columns(
        pl.when(pl.int_range(pl.len()) < 80).then(999).otherwise("zone").alias("zone")
    )
    found = only(column_drift(names(5_000, 0, 20), live, MONITOR, categorical=["zone"]))
    assert found.drifted
    assert "8% of the rows have a category never seen" in found.reason


def test_an_all_null_column_is_compared_without_an_error():
    nothing = pl.DataFrame({"x0": pl.Series([None] * 1_000, dtype=pl.Float64)})
    assert not only(column_drift(nothing, nothing, MONITOR)).drifted
    assert only(column_drift(numbers(1_000, 0, 1), nothing, MONITOR)).drifted


def test_the_calendar_moves_and_is_not_said_to_drift():
    reference = pl.DataFrame({"weekday": list(range(7)) * 1_000})
    live = pl.DataFrame({"weekday": [5, 6] * 500})
    assert only(column_drift(reference, live, MONITOR)).drifted
    found = only(column_drift(reference, live, MONITOR, calendar=["weekday"]))
    assert not found.drifted
    assert "moves with the calendar" in found.reason


def test_an_effect_that_stretches_of_the_reference_have_as_well_is_no_drift():
    days = [numbers(1_000, day, 1, shift=(-1) ** day * 0.8, shifted=1) for day in range(10)]
    live = numbers(1_000, 99, 1, shift=0.8, shifted=1)
    assert only(column_drift(pl.concat(days), live, MONITOR)).drifted
    found = only(column_drift(pl.concat(days), live, MONITOR, stretches=days))
    assert not found.drifted
    assert "a stretch of the reference reaches" in found.reason


def test_adjusted_p_values_are_those_of_the_paper():
    assert benjamini_hochberg([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.04 * 4 / 3, 0.04 * 4 / 3, 0.5])
    assert benjamini_hochberg([]) == []


def test_psi_of_a_known_shift_is_its_formula():
    before, after = np.array([5e6, 5e6]), np.array([8e6, 2e6])
    expected = 0.3 * np.log(0.8 / 0.5) - 0.3 * np.log(0.2 / 0.5)
    assert psi(before, after) == pytest.approx(expected, abs=1e-4)


def test_an_effect_that_chance_explains_is_no_drift():
    cautious, reference = InputDrift(min_rows=30), numbers(5_000, 0, 1)
    found = [only(column_drift(reference, numbers(30, seed, 1), cautious)) for seed in range(1, 60)]
    by_chance = [entry for entry in found if entry.psi >= cautious.psi]
    assert by_chance
    assert not any(entry.drifted for entry in by_chance)
    assert "needs to be below 0.01" in by_chance[0].reason
