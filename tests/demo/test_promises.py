"""The scorecard fails when a number says so."""

from __future__ import annotations

from typing import Any

import pytest

from ferroflow.demo.show import promises


def told() -> dict[str, Any]:
    return {
        "rows": {"in": 100, "accepted": 90, "quarantined": 10},
        "quality": {"test_rmse": 4.5, "baseline_test_rmse": 5.5},
        "served": {"requests": 10, "failed": 0},
        "harmless": {"alerted": False, "why": "the error does not", "drifted": ["zone"]},
        "harm": {"alerted": True, "alerts": 1},
        "retrain": {"promoted": True, "why": "better", "rmse_before": 6.5, "rmse_after": 5.0},
        "swap": {"requests": 50, "failed": 0, "versions": {"1": 20, "2": 30}},
        "skew": {"compared": 1000, "mismatched": 0, "left_out": 0},
    }


def failed(numbers: dict[str, Any]) -> list[str]:
    return [name for name, (passed, _) in promises(numbers).items() if not passed]


def test_a_good_run_keeps_every_promise() -> None:
    assert failed(told()) == []


@pytest.mark.parametrize(
    ("beat", "key", "value", "promise"),
    [
        ("rows", "quarantined", 9, "every row is accounted for"),
        ("quality", "test_rmse", 5.6, "the model beats the baseline"),
        ("served", "failed", 1, "no request failed"),
        ("served", "requests", 0, "no request failed"),
        ("harmless", "alerted", True, "harmless drift was seen and raised no alarm"),
        ("harmless", "drifted", [], "harmless drift was seen and raised no alarm"),
        ("harm", "alerts", 2, "harm raised one alarm"),
        ("harm", "alerted", False, "harm raised one alarm"),
        ("retrain", "promoted", False, "a challenger was promoted"),
        ("retrain", "rmse_after", 6.6, "the error recovered on the same rows"),
        ("swap", "failed", 1, "the swap lost no request"),
        ("swap", "versions", {"1": 50}, "the swap lost no request"),
        ("skew", "mismatched", 1, "training and serving saw the same"),
        ("skew", "compared", 0, "training and serving saw the same"),
        ("skew", "left_out", 1, "training and serving saw the same"),
    ],
)
def test_one_bad_number_breaks_its_promise(beat: str, key: str, value: Any, promise: str) -> None:
    numbers = told()
    numbers[beat][key] = value
    assert failed(numbers) == [promise]


def test_a_run_without_a_retraining_breaks_what_depends_on_it() -> None:
    numbers = told()
    del numbers["retrain"], numbers["swap"]
    assert failed(numbers) == [
        "a challenger was promoted",
        "the error recovered on the same rows",
        "the swap lost no request",
    ]
