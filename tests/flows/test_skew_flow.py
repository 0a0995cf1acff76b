"""The flow ``skew``: a difference becomes an event about its pipeline, and nothing else does."""

from __future__ import annotations

from typing import Any

import pytest

import flows.skew
from ferroflow.adapters import pipelines
from ferroflow.core.records import SkewReport
from tests.core.test_skew import parts, report
from tests.rides import START


@pytest.mark.parametrize("wrong", [0, 2])
def test_values_that_differ_become_an_event(monkeypatch: pytest.MonkeyPatch, wrong: int) -> None:
    measured, told = report(parts(wrong)), []

    class Run:
        spec, as_of = pipelines.load("taxi"), START

        def __init__(self, *_: Any) -> None: ...

        def __call__(self, *_: Any) -> SkewReport:
            return measured

    monkeypatch.setattr(flows.skew, "Run", Run)
    monkeypatch.setattr(flows.skew, "emit", lambda *event: told.append(event))
    assert flows.skew.skew.fn("taxi") == measured
    payload = {
        "as_of": START.isoformat(),
        "why": "2 of 10 logged values differ from a recomputation (x 2); 10 predictions",
        "ratio": None,
    }
    assert told == ([("ferroflow.skew.detected", "taxi", payload)] if wrong else [])
