"""Errors of predictions: overall, row by row, and the difference between two models on the same rows.

Regression is in the target's units. Classification scores the probability of the positive class against 0 and 1.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]
Task = Literal["regression", "classification"]

_EDGE = 1e-7  # probabilities are clipped, so that one certain mistake does not cost infinitely much
_DRAWS = 1_000
_BLOCKS = 400  # rows are summed in at most so many blocks before they are drawn: the same spread, far less work


def score(task: Task, target: Array, prediction: Array, weight: Array | None = None) -> dict[str, float]:
    """All metrics of a task, for vectors of n rows.

    Returns:
        regression: rmse, mae, bias (prediction − target) and r2; classification: log_loss, accuracy, auc and brier.
        What is not defined (no rows, one class) is NaN.
    """
    truth, guess = _vector(target), _vector(prediction)
    if truth.size != guess.size:
        raise ValueError(f"{truth.size} targets against {guess.size} predictions: score needs one for each row.")
    weights = np.ones(truth.size) if weight is None else _vector(weight)
    if truth.size == 0:
        names = ("rmse", "mae", "bias", "r2") if task == "regression" else ("log_loss", "accuracy", "auc", "brier")
        return dict.fromkeys(names, float("nan"))
    return _regression(truth, guess, weights) if task == "regression" else _classification(truth, guess, weights)


def losses(task: Task, target: Array, prediction: Array) -> Array:
    """The loss of each row: squared error, or log loss."""
    truth, guess = _vector(target), _vector(prediction)
    if task == "regression":
        return np.square(guess - truth)
    chance = np.clip(guess, _EDGE, 1 - _EDGE)
    return -(truth * np.log(chance) + (1 - truth) * np.log(1 - chance))


def error(task: Task, mean_loss: Array | float) -> Any:
    """The headline error for a mean of losses: its root for regression (rmse), itself for classification."""
    return np.sqrt(mean_loss) if task == "regression" else mean_loss


def paired(
    task: Task, other: Array, candidate: Array, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """The other's error minus the candidate's (positive: the candidate is better) and its interval.

    A paired percentile bootstrap: both models' losses (n,) are drawn together, so what makes a row hard for both
    cancels out.

    Returns:
        difference, low, high; all NaN without rows.
    """
    if other.size == 0:
        return float("nan"), float("nan"), float("nan")
    means = resampled_means(np.random.default_rng(seed), other, candidate)
    drawn = [error(task, side) for side in means]
    low, high = np.quantile(drawn[0] - drawn[1], [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(error(task, other.mean()) - error(task, candidate.mean())), float(low), float(high)


def resampled_means(random: np.random.Generator, *columns: Array) -> list[Array]:
    """Bootstrap means (draws,) of columns (n,), n > 0, that are drawn together.

    Rows are pooled at random into at most 400 blocks first, and a block is drawn as a whole.
    """
    order = random.permutation(columns[0].size)
    sizes = np.array([block.size for block in np.array_split(order, min(order.size, _BLOCKS))])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    counts = random.multinomial(sizes.size, np.full(sizes.size, 1 / sizes.size), size=_DRAWS).astype(np.float64)
    rows = counts @ sizes
    return [counts @ np.add.reduceat(column[order], starts) / rows for column in columns]


def _regression(truth: Array, guess: Array, weight: Array) -> dict[str, float]:
    missed = guess - truth
    squared = float(np.average(missed**2, weights=weight))
    spread = float(np.average((truth - np.average(truth, weights=weight)) ** 2, weights=weight))
    return {
        "rmse": squared**0.5,
        "mae": float(np.average(np.abs(missed), weights=weight)),
        "bias": float(np.average(missed, weights=weight)),
        "r2": 1 - squared / spread if spread > 0 else float("nan"),
    }


def _classification(truth: Array, guess: Array, weight: Array) -> dict[str, float]:
    return {
        "log_loss": float(np.average(losses("classification", truth, guess), weights=weight)),
        "accuracy": float(np.average((guess >= 0.5) == (truth >= 0.5), weights=weight)),
        "auc": _auc(truth, guess, weight),
        "brier": float(np.average((guess - truth) ** 2, weights=weight)),
    }


def _auc(truth: Array, guess: Array, weight: Array) -> float:
    """The chance that a positive row scores above a negative one, ties counted half (Mann and Whitney 1947)."""
    _, place = np.unique(guess, return_inverse=True)
    positive = np.bincount(place, weights=weight * truth)
    negative = np.bincount(place, weights=weight * (1 - truth))
    pairs = positive.sum() * negative.sum()
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2)).sum() / pairs) if pairs > 0 else float("nan")


def _vector(values: Array) -> Array:
    return np.asarray(values, dtype=np.float64).reshape(-1)


def shown(value: float) -> str:
    """An error as a message prints it: two decimals, or three below one."""
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"
