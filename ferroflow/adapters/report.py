"""Evidently's page about live rows: one self-contained HTML file, drawn only when there is something to look at.

Evidently shows; it does not decide. It loads thousands of modules and draws slowly, so everything is imported inside
the function, and it gets a seeded sample of rows and the columns with the strongest effect.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ferroflow.adapters.storage import replacing

ROWS = 2_000
COLUMNS = 12
_LABELLED = 50  # live labels from which on the page also shows errors


def write_drift_page(
    reference: pl.DataFrame,
    live: pl.DataFrame,
    path: Path,
    *,
    columns: Sequence[str],
    categorical: Collection[str] = (),
    threshold: float = 0.2,
    regression: bool = False,
    seed: int = 0,
) -> Path | None:
    """Draw ``columns`` (the first twelve that both sides have values of) of live rows against reference rows.

    Args:
        threshold: the PSI that the page marks as drift.
        regression: also draw errors, when enough live rows have a ``target`` beside their ``prediction``.

    Returns:
        The page, or None when no column can be drawn: Evidently aborts on empty and all-null columns.
    """
    errors = regression and all(side["target"].count() >= _LABELLED for side in (reference, live))
    some = [_sample(side, errors, seed) for side in (reference, live)]
    shown = [name for name in columns if all(_drawable(side, name) for side in some)][:COLUMNS]
    if not shown:
        return None
    names = [name for name in shown if name in categorical or not reference[name].dtype.is_numeric()]
    sides = [_as_pandas(side, [*shown, *(_ERRORS if errors else [])], names) for side in some]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        _draw(sides[1], sides[0], temporary, shown, names, threshold, errors)
    return path


_ERRORS = ("prediction", "target")


def _drawable(frame: pl.DataFrame, name: str) -> bool:
    return name in frame.columns and frame[name].count() > 0


def _sample(frame: pl.DataFrame, labelled: bool, seed: int) -> pl.DataFrame:
    rows = frame.drop_nulls("target") if labelled else frame
    return rows.sample(min(ROWS, rows.height), seed=seed)


def _as_pandas(frame: pl.DataFrame, columns: list[str], categorical: list[str]) -> Any:
    """Names as text, numbers as floats."""
    unique = list(dict.fromkeys(columns))
    return frame.select(
        pl.col(name).cast(pl.String if name in categorical else pl.Float64) for name in unique
    ).to_pandas()


def _draw(
    live: Any, reference: Any, path: Path, columns: list[str], categorical: list[str], threshold: float, errors: bool
) -> None:
    import warnings

    # Recorded, and left there: its imports warn of other libraries' changes, its statistics of bins without rows.
    with warnings.catch_warnings(record=True):
        from evidently import DataDefinition, Dataset, Regression, Report
        from evidently.presets import DataDriftPreset, RegressionPreset

        definition = DataDefinition(
            numerical_columns=[name for name in columns if name not in categorical],
            categorical_columns=categorical,
            regression=[Regression(target="target", prediction="prediction")] if errors else None,
        )
        drift = DataDriftPreset(
            columns=columns, num_method="psi", cat_method="psi", num_threshold=threshold, cat_threshold=threshold
        )
        page = Report([drift, *([RegressionPreset()] if errors else [])]).run(
            Dataset.from_pandas(live, definition), Dataset.from_pandas(reference, definition)
        )
        page.save_html(str(path))
