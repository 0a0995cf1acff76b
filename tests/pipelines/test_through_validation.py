"""Pipelines' own data through the house's validation."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from ferroflow.adapters.home import Home
from ferroflow.adapters.pipelines import load
from ferroflow.adapters.settings import load_settings
from ferroflow.core.records import Validated
from ferroflow.stations import ingest, validate
from pipelines.taxi.simulator import planted

NOW = datetime(2024, 1, 1, tzinfo=UTC)


def validated(name: str, as_of: datetime, home: Home, **given: object) -> Validated:
    spec = load(name)
    snapshot = ingest.ingest(spec, as_of, home, now=NOW, settings=load_settings(home=home.root, **given))
    return validate.validate(spec, snapshot, home)


def test_simulated_month_loses_exactly_the_planted_rows(home: Home) -> None:
    found = validated("taxi", datetime(2023, 2, 1, 5, tzinfo=UTC), home, simulate=True, seed=3)
    faults = planted("green_tripdata_2023-01.parquet", 3)
    assert found.rows_quarantined == sum(faults.values())
    assert found.reasons["borough: not_nullable"] == faults["zone"]


@pytest.mark.data
def test_real_trips_are_refused_for_their_length_and_hardly_anything_else(home: Home, mirror: Path) -> None:
    found = validated("taxi", datetime(2023, 2, 1, 5, tzinfo=UTC), home, mirror=str(mirror))
    assert (found.rows_in, found.rows_quarantined) == (68_211, 2_301)
    assert found.reasons["duration_minutes: in_range(1, 60)"] == 2_265


@pytest.mark.data
@pytest.mark.parametrize(("name", "accepted"), [("bikes", 17_379), ("income", 48_842)])
def test_real_rows_of_fixed_files_are_all_accepted(name: str, accepted: int, home: Home, mirror: Path) -> None:
    found = validated(name, datetime(2013, 1, 1, tzinfo=UTC), home, mirror=str(mirror))
    assert found.rows_accepted == accepted
