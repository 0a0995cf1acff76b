"""The simulated city: seeded, dirty by plan, and with a floor nobody beats."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from ferroflow.core.errors import NotFound
from pipelines.taxi.derive import derive
from pipelines.taxi.schema import GreenTrip
from pipelines.taxi.simulator import (
    FAULTS,
    LOOKUP,
    best_prediction,
    expected_minutes,
    noise_floor,
    planted,
    simulate,
)

JANUARY = "green_tripdata_2023-01.parquet"


def judged(raw: pl.DataFrame) -> pl.DataFrame:
    """Derived rows with ``ok``: whether pandera, in its own eager mode, has nothing against the row."""
    import pandera.errors

    types = {name: column.dtype.type for name, column in GreenTrip.to_schema().columns.items()}
    cast = raw.lazy().with_columns(pl.col(name).cast(types[name], strict=False) for name in raw.columns)
    rows = derive(cast, {"zones": simulate(LOOKUP, 0).lazy().cast(pl.String)}).collect().with_row_index("at")
    try:
        GreenTrip.validate(rows, lazy=True)
    except pandera.errors.SchemaErrors as errors:
        cases = errors.failure_cases
        assert cases["index"].null_count() == 0, cases
        return rows.with_columns(ok=~pl.col("at").is_in(cases["index"].unique().cast(pl.UInt32).implode()))
    return rows.with_columns(ok=True)


@pytest.fixture(scope="module")
def january() -> pl.DataFrame:
    return judged(simulate(JANUARY, 3))


def test_same_seed_gives_the_same_month_and_another_seed_another() -> None:
    once, again, other = (simulate(JANUARY, seed, rows=500) for seed in (1, 1, 2))
    assert once.equals(again)
    assert not once.equals(other)


def test_one_seed_gives_different_months() -> None:
    january, february = (simulate(f"green_tripdata_2023-{month}.parquet", 1, rows=500) for month in ("01", "02"))
    assert january["trip_distance"].to_list() != february["trip_distance"].to_list()


def test_planted_faults_are_exactly_what_is_quarantined(january: pl.DataFrame) -> None:
    assert (~january["ok"]).sum() == sum(planted(JANUARY, 3).values())


@pytest.mark.parametrize("month", ["2023-03", "2023-11"])
def test_planted_faults_are_exactly_what_is_quarantined_when_the_clock_changes(month: str) -> None:
    name = f"green_tripdata_{month}.parquet"
    rows = judged(simulate(name, 5, rows=20_000))
    assert (~rows["ok"]).sum() == sum(planted(name, 5, rows=20_000).values())


def test_every_kind_of_fault_is_planted() -> None:
    assert set(planted(JANUARY, 0)) == set(FAULTS)
    assert min(planted(JANUARY, 0).values()) > 0


def test_best_predictor_reaches_the_noise_floor_and_no_more(january: pl.DataFrame) -> None:
    clean = january.filter("ok")
    minutes = clean["duration_minutes"].to_numpy()
    best = best_prediction(expected_minutes(clean))
    error = float(np.sqrt(((minutes - best) ** 2).mean()))
    assert error == pytest.approx(noise_floor(), rel=0.02)
    for worse in (best * 1.05, best * 0.95, best + 0.5, np.full_like(best, minutes.mean())):
        assert np.sqrt(((minutes - worse) ** 2).mean()) > error


def test_there_is_much_to_learn_above_the_floor(january: pl.DataFrame) -> None:
    assert float(january.filter("ok")["duration_minutes"].std()) > 2.5 * noise_floor()  # type: ignore[arg-type]


@pytest.mark.parametrize("month", ["01", "02", "03", "04"])
def test_simulated_columns_and_types_are_those_of_the_real_month(month: str, mirror) -> None:
    name = f"green_tripdata_2023-{month}.parquet"
    assert simulate(name, 0, rows=50).schema == pl.read_parquet_schema(mirror / "nyc_tlc_green" / name)


def test_a_month_is_as_large_as_a_real_one_and_lies_in_it() -> None:
    month = simulate(JANUARY, 0)
    assert 40_000 <= len(month) <= 70_000
    in_month = (month["lpep_pickup_datetime"].dt.strftime("%Y-%m") == "2023-01").sum()
    assert in_month == len(month) - planted(JANUARY, 0)["date"]


@pytest.mark.parametrize("name", ["green_tripdata_2023-13.parquet", "yellow_tripdata_2023-01.parquet", ""])
def test_unknown_file_is_told_with_what_can_be_made(name: str) -> None:
    with pytest.raises(NotFound, match="green_tripdata_YYYY-MM"):
        simulate(name, 0)
