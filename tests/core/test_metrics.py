from __future__ import annotations

import math

import numpy as np
import pytest

from ferroflow.core.metrics import error, losses, paired, score


def test_regression_scores_are_those_of_a_hand_calculation():
    found = score("regression", np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 5.0]))
    assert found == pytest.approx({"rmse": (5 / 3) ** 0.5, "mae": 1.0, "bias": 1.0, "r2": 1 - 5 / 2})


def test_auc_counts_ties_half_and_agrees_with_all_pairs():
    random = np.random.default_rng(1)
    truth, chance = (random.random(300) < 0.3).astype(float), np.round(random.random(300), 1)
    pairs = chance[truth == 1][:, None] - chance[truth == 0][None, :]
    assert score("classification", truth, chance)["auc"] == pytest.approx(((pairs > 0) + (pairs == 0) / 2).mean())


def test_a_certain_mistake_costs_much_but_not_infinitely():
    found = score("classification", np.array([1.0]), np.array([0.0]))
    assert 10 < found["log_loss"] < 20
    assert math.isnan(found["auc"])


def test_a_weight_of_two_is_a_row_given_twice():
    target, guess = np.array([1.0, 0.0, 1.0]), np.array([0.7, 0.4, 0.2])
    twice = np.array([0, 1, 2, 2])
    weighted = score("classification", target, guess, np.array([1.0, 1.0, 2.0]))
    assert weighted == pytest.approx(score("classification", target[twice], guess[twice]))


def test_targets_and_predictions_of_different_length_are_refused():
    with pytest.raises(ValueError, match="2 targets against 1 predictions"):
        score("regression", np.zeros(2), np.zeros(1))


def test_the_paired_interval_covers_the_true_difference_about_as_often_as_it_says():
    random = np.random.default_rng(2)
    truth = 2.0 - 1.9
    covered = 0
    for seed in range(120):
        shared = random.normal(size=1_000)
        other, candidate = (2.0 * shared) ** 2, (1.9 * shared) ** 2
        _, low, high = paired("regression", other, candidate, 0.9, seed)
        covered += low <= truth <= high
    assert 0.82 <= covered / 120 <= 0.97


def test_pairing_sees_a_difference_that_the_spread_of_hard_rows_would_hide():
    random = np.random.default_rng(3)
    hard = random.pareto(2.5, 4_000)
    _, low, _ = paired("regression", hard * 1.02 + 0.01, hard, 0.99)
    assert low > 0


def test_the_interval_of_more_rows_than_blocks_is_as_wide_as_theory_says():
    random = np.random.default_rng(4)
    loss = random.exponential(size=50_000)
    difference, low, high = paired("classification", loss, np.zeros(50_000), 0.95)
    assert difference == pytest.approx(1, abs=0.02)
    assert (high - low) == pytest.approx(2 * 1.96 / 50_000**0.5, rel=0.12)


def test_headline_error_is_the_root_of_squared_losses_and_log_loss_itself():
    target, guess = np.array([1.0, 0.0]), np.array([0.8, 0.4])
    assert error("regression", losses("regression", target, guess).mean()) == score("regression", target, guess)["rmse"]
    found = error("classification", losses("classification", target, guess).mean())
    assert found == pytest.approx(score("classification", target, guess)["log_loss"])
