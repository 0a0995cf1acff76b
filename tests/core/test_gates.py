from __future__ import annotations

from typing import Any

import pytest

from ferroflow.core.gates import judge
from ferroflow.core.records import Evaluation, GateResult, Interval
from ferroflow.core.spec import BeatsBaseline, BeatsChampion, Gate, NoWorseSlice


def interval(difference: float, low: float, high: float) -> Interval:
    return Interval(difference=difference, low=low, high=high, confidence=0.95, rows=1_000)


def evaluation(**changes: Any) -> Evaluation:
    values: dict[str, Any] = {
        "pipeline": "toy",
        "fingerprint": "e",
        "metrics": {"test": {"rmse": 4.46}},
        "baseline": {"test": {"rmse": 5.61}},
        "champion": {"test": {"rmse": 4.70}},
        "champion_version": "3",
        "against_baseline": interval(1.15, 1.10, 1.21),
        "against_champion": interval(0.24, 0.20, 0.28),
        "slices": {"zone": {"east": row(4.0, 4.2, 900), "west": row(5.0, 5.1, 800)}},
        "reference": "r.parquet",
    }
    return Evaluation(**(values | changes))


def row(candidate: float, champion: float, rows: int, high: float | None = None) -> dict[str, float]:
    gap = champion - candidate
    return {
        "rows": rows,
        "candidate": candidate,
        "baseline": 9.0,
        "champion": champion,
        "low": gap - 0.1,
        "high": gap + 0.1 if high is None else high,
    }


def one(gate: Gate, **changes: Any) -> GateResult:
    [result] = judge((gate,), evaluation(**changes), "rmse")
    return result


def test_a_reason_holds_both_errors_and_the_interval():
    found = one(BeatsBaseline())
    assert found.passed
    assert found.reason == "rmse 4.46 against the baseline 5.61: better by 1.15 [1.10, 1.21]"


def test_a_challenger_that_is_better_only_by_chance_is_rejected():
    found = one(BeatsChampion(), against_champion=interval(0.05, -0.02, 0.12))
    assert not found.passed
    assert "better by 0.050 [-0.020, 0.120]; the whole 95% interval has to be better" in found.reason


def test_a_worse_challenger_is_told_by_how_much_it_is_worse():
    found = one(BeatsChampion(), metrics={"test": {"rmse": 5.9}}, against_champion=interval(-1.2, -1.4, -1.1))
    assert not found.passed
    assert "rmse 5.90 against champion 3 4.70: worse by 1.20 [1.10, 1.40]" in found.reason


@pytest.mark.parametrize("gate", [BeatsChampion(), NoWorseSlice("zone")])
def test_the_first_model_has_no_champion_to_beat(gate: Gate):
    found = one(gate, champion={}, champion_version=None, against_champion=None)
    assert found.passed
    assert "first model" in found.reason


@pytest.mark.parametrize("gate", [BeatsChampion(), NoWorseSlice("zone")])
def test_a_champion_that_cannot_be_scored_is_not_taken_as_beaten(gate: Gate):
    found = one(gate, champion={}, against_champion=None, champion_problem="it needs the column speed")
    assert not found.passed
    assert "it needs the column speed" in found.reason


def test_challenger_that_loses_a_slice_is_rejected():
    slices = {"zone": {"east": row(4.0, 4.4, 900), "west": row(5.5, 5.0, 400)}}
    found = one(NoWorseSlice("zone"), slices=slices)
    assert not found.passed
    assert "lost: west 5.50 against 5.00 (+10.0%, 400 rows)" in found.reason


def test_a_slice_that_is_worse_within_the_tolerance_or_by_chance_is_not_lost():
    slices = {"zone": {"east": row(5.1, 5.0, 900), "west": row(5.5, 5.0, 400, high=0.2)}}
    assert one(NoWorseSlice("zone", tolerance=0.05), slices=slices).passed


def test_a_small_slice_is_not_judged_and_this_is_told():
    slices = {"zone": {"east": row(4.0, 4.2, 900), "west": row(9.0, 5.0, 150)}}
    found = one(NoWorseSlice("zone"), slices=slices)
    assert found.passed
    assert "1 with fewer than 200 rows not judged" in found.reason


def test_a_slice_column_that_was_not_measured_stops_promotion():
    found = one(NoWorseSlice("borough"))
    assert not found.passed
    assert "slices of borough were not measured (measured: zone)" in found.reason
