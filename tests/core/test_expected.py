from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from ferroflow.core.errors import DataError
from ferroflow.core.expected import Expectation, Ratio, persistently_worse, told, worse


def world(rows: int, seed: int, hard: float = 0.3, harm: float = 1.0, east: float = 0.5) -> pl.DataFrame:
    """Predictions are right on average; the noise grows with the prediction, and doubles in the east."""
    random = np.random.default_rng(seed)
    prediction = np.where(random.random(rows) < hard, random.uniform(20, 40, rows), random.uniform(5, 15, rows))
    is_east = random.random(rows) < east
    noise = random.normal(size=rows) * prediction * 0.2 * np.where(is_east, 2, 1) * harm
    zone = np.where(is_east, "east", "west")
    return pl.DataFrame({"prediction": prediction, "target": prediction + noise, "zone": zone})


def coins(rows: int, seed: int, harm: float = 0.0) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    chance = random.uniform(0.05, 0.6, rows)
    truth = random.random(rows) < np.clip(chance + harm, 0, 1)
    return pl.DataFrame({"prediction": chance, "target": truth.astype(float)})


REFERENCE = Expectation.fit("regression", world(20_000, 0), ["zone"])


def test_harder_inputs_raise_the_error_and_its_expectation_alike():
    easy, harder = (REFERENCE.compare(world(4_000, 1, hard), 0.99) for hard in (0.3, 0.9))
    assert harder.live > 1.5 * easy.live
    assert harder.ratio == pytest.approx(1, abs=0.06)


def test_another_mix_of_categories_is_expected_too():
    found = REFERENCE.compare(world(4_000, 2, east=0.95), 0.99)
    assert found.ratio == pytest.approx(1, abs=0.06)
    blind = Expectation.fit("regression", world(20_000, 0)).compare(world(4_000, 2, east=0.95), 0.99)
    assert blind.ratio > 1.15


def test_harm_is_seen_although_the_error_fell_because_inputs_got_easier():
    usual = REFERENCE.compare(world(4_000, 3, hard=0.3), 0.99)
    harmed = REFERENCE.compare(world(4_000, 3, hard=0.02, harm=1.4), 0.99)
    assert harmed.live < usual.live  # a threshold on the error itself would be content
    assert harmed.ratio > 1.3
    assert harmed.low > 1.15


def test_the_lower_bound_is_passed_by_chance_about_as_often_as_it_says():
    above = 0
    for seed in range(80):
        model = Expectation.fit("regression", world(1_500, 1_000 + seed), ["zone"])
        above += model.compare(world(600, 5_000 + seed), 0.95, seed).low > 1
    assert above / 80 <= 0.11


def test_a_category_never_seen_is_expected_to_be_as_its_prediction_says():
    rows = world(1_000, 4).with_columns(zone=pl.lit("north"))
    assert np.isfinite(REFERENCE.of(rows)).all()


def test_probabilities_are_judged_by_log_loss():
    model = Expectation.fit("classification", coins(10_000, 0))
    assert model.compare(coins(3_000, 1), 0.99).ratio == pytest.approx(1, abs=0.06)
    assert model.compare(coins(3_000, 2, harm=0.35), 0.99).low > 1


def test_no_reference_rows_is_an_error_and_no_live_rows_is_none():
    with pytest.raises(DataError, match="holds no row"):
        Expectation.fit("regression", world(0, 0))
    assert REFERENCE.compare(world(0, 0), 0.99).rows == 0


def test_a_perfect_reference_does_not_divide_by_nothing():
    exact = world(500, 5).with_columns(target=pl.col("prediction"))
    assert Expectation.fit("regression", exact, ["zone"]).compare(exact, 0.99).ratio == 0


def ratio(value: float, rows: int = 500, low: float = 1.1) -> Ratio:
    return Ratio(rows, 5.0 * value, 5.0, value, low, value + 0.1)


def test_one_bad_window_is_no_alarm():
    assert not persistently_worse([ratio(1.0), ratio(1.6)], ratio(1.3), 0.15, 2, 200)
    assert persistently_worse([ratio(1.2), ratio(1.6)], ratio(1.4), 0.15, 2, 200)


def test_windows_with_few_rows_or_without_certainty_are_no_alarm():
    assert not worse(ratio(1.6, rows=199), 0.15, 200)
    assert not persistently_worse([ratio(1.6), ratio(1.6, rows=50)], ratio(1.6), 0.15, 2, 200)
    assert not persistently_worse([ratio(1.6), ratio(1.6)], ratio(1.6, low=0.97), 0.15, 2, 200)
    assert not persistently_worse([ratio(1.6)], ratio(1.6), 0.15, 2, 200)


def test_both_numbers_are_told():
    text = told("rmse", Ratio(500, 4.71, 4.68, 1.006, 0.97, 1.05), 0.15)
    assert text == "rmse 4.71 where 4.68 was expected for these inputs (ratio 1.01, at least 0.97; alarm at 1.15)"
