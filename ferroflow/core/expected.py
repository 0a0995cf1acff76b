"""Live errors against the error that is to be expected *for these inputs*.

A fixed threshold misses harm when inputs get easier, and alarms when they get harder. So the reference rows (out of
sample for the model that serves) say how large the loss is at each level of the prediction and for each category; the
live inputs then say what loss the model would have if it were as good as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from ferroflow.core.errors import DataError
from ferroflow.core.metrics import Array, Task, error, losses, resampled_means, shown

_BINS = 20
_ROWS_A_BIN = 100  # a mean of squared errors needs so many rows to mean something
_SMOOTHING = 50.0  # rows by which a category's factor is shrunk towards 1


@dataclass(frozen=True)
class Ratio:
    """Live error over expected error, with its interval; all in the metric's own unit but the ratio."""

    rows: int
    live: float
    expected: float
    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Expectation:
    """What loss to expect of a row: the mean in its prediction's bin times a factor for each of its categories."""

    task: Task
    edges: Array  # (bins - 1,)
    means: Array  # (bins,)
    factors: dict[str, dict[str | None, float]]
    scale: float
    reference: Array  # the reference rows' losses (n,)

    @classmethod
    def fit(cls, task: Task, reference: pl.DataFrame, categorical: Sequence[str] = ()) -> Expectation:
        """Learn it from reference rows with ``prediction``, ``target`` and the categorical columns.

        Raises:
            DataError: there is no reference row.
        """
        if reference.height == 0:
            raise DataError("The reference of the champion holds no row: evaluate and register the model again.")
        prediction = reference["prediction"].to_numpy()
        loss = losses(task, reference["target"].to_numpy(), prediction)
        bins = int(np.clip(reference.height // _ROWS_A_BIN, 1, _BINS))
        edges = np.unique(np.quantile(prediction, np.linspace(0, 1, bins + 1)[1:-1]))
        place = np.searchsorted(edges, prediction, side="right")
        rows = np.bincount(place, minlength=edges.size + 1)
        overall = float(loss.mean())
        total = np.bincount(place, weights=loss, minlength=edges.size + 1)
        means = np.where(rows > 0, total / np.maximum(rows, 1), overall)
        expected = means[place]
        factors: dict[str, dict[str | None, float]] = {}
        for column in categorical:
            factors[column] = _factors(reference[column], loss, expected, overall)
            expected = expected * _looked_up(reference[column], factors[column])
        scale = overall / float(expected.mean()) if expected.mean() > 0 else 1.0
        return cls(task, edges, means, factors, scale, loss)

    def of(self, rows: pl.DataFrame) -> Array:
        """The expected loss of each row (n,); needs ``prediction`` and the categorical columns."""
        expected = self.scale * self.means[np.searchsorted(self.edges, rows["prediction"].to_numpy(), side="right")]
        for column, factors in self.factors.items():
            if column in rows.columns:
                expected = expected * _looked_up(rows[column], factors)
        return np.asarray(expected, dtype=np.float64)

    def compare(self, rows: pl.DataFrame, confidence: float, seed: int = 0) -> Ratio:
        """Live rows (with ``prediction`` and ``target``) against what is expected of them.

        The interval holds with the given confidence on each side. It is a bootstrap of both the live and the reference
        rows: a small reference does not know exactly what to expect.
        """
        if rows.height == 0:
            nan = float("nan")
            return Ratio(0, nan, nan, nan, nan, nan)
        live = losses(self.task, rows["target"].to_numpy(), rows["prediction"].to_numpy())
        expected = self.of(rows)
        random = np.random.default_rng(seed)
        drawn_live, drawn_expected = resampled_means(random, live, expected)
        [drawn_reference] = resampled_means(random, self.reference)
        unit = _positive(drawn_expected) * _positive(drawn_reference) / _positive(self.reference.mean())
        low, high = np.quantile(error(self.task, drawn_live / unit), [1 - confidence, confidence])
        return Ratio(
            rows.height,
            float(error(self.task, live.mean())),
            float(error(self.task, expected.mean())),
            float(error(self.task, live.mean() / _positive(expected.mean()))),
            float(low),
            float(high),
        )


def worse(window: Ratio, worse_by: float, min_rows: int) -> bool:
    """Whether one window alone speaks against the model: enough rows, and an effect."""
    return window.rows >= min_rows and window.ratio > 1 + worse_by


def persistently_worse(windows: Sequence[Ratio], pooled: Ratio, worse_by: float, needed: int, min_rows: int) -> bool:
    """An alarm needs an effect in every one of the windows, enough rows in each, and certainty over all of them."""
    last = windows[-needed:]
    return len(last) == needed and all(worse(one, worse_by, min_rows) for one in last) and pooled.low > 1


def told(metric: str, ratio: Ratio, worse_by: float) -> str:
    """Both numbers, in words."""
    return (
        f"{metric} {shown(ratio.live)} where {shown(ratio.expected)} was expected for these inputs "
        f"(ratio {ratio.ratio:.2f}, at least {ratio.low:.2f}; alarm at {1 + worse_by:.2f})"
    )


def _factors(values: pl.Series, loss: Array, expected: Array, overall: float) -> dict[str | None, float]:
    """Each category's loss over what the bins expect of it, shrunk towards 1."""
    frame = pl.DataFrame({"value": values.cast(pl.String), "loss": loss, "expected": expected})
    sums = frame.group_by("value").agg(pl.col("loss").sum(), pl.col("expected").sum())
    extra = _SMOOTHING * overall
    if extra <= 0:
        return {}
    return {value: (lost + extra) / (due + extra) for value, lost, due in sums.iter_rows()}


def _looked_up(values: pl.Series, factors: dict[str | None, float]) -> Array:
    """Factors of a column's values (n,); 1 for a category that the reference never saw."""
    if not factors:
        return np.ones(values.len())
    text = values.cast(pl.String)
    found: Any = text.replace_strict(list(factors), list(factors.values()), default=1.0, return_dtype=pl.Float64)
    return np.asarray(found.to_numpy(), dtype=np.float64)


def _positive(value: Any) -> Any:
    return np.maximum(value, 1e-12)
