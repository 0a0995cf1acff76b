"""Logged model inputs against recomputed ones: exact counts, no tolerance.

Both sides are compared as the graph is fed them: numbers as float32, bit by bit; categories by value; missing equals
missing, and what is no finite number is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ferroflow.core.records import FeatureSkew, SkewExample, SkewReport
from ferroflow.core.refusals import MASK
from ferroflow.core.spec import Skew

EXAMPLES = 5
"""How many differing values a feature shows."""

WAITING = "read after a push; its features are not refreshed yet"
"""Why a prediction is not compared that soon can be: a push is ahead of the offline store until its next refresh."""

_NAMED = 3  # features that a reason names


@dataclass(frozen=True)
class Column:
    """One model input of some predictions, twice.

    Attributes:
        logged: what the service fed to the graph.
        again: what was recomputed, of the same type.
        unread: rows whose online store was away, so that nothing could be fed; None: none.
        corrected: rows whose stored row was written after the service read it; None: none.
        late: rows for which the online store had only a value of after their moment; None: none.
    """

    name: str
    logged: pl.Series
    again: pl.Series
    unread: pl.Series | None = None
    corrected: pl.Series | None = None
    late: pl.Series | None = None


def different(logged: pl.Series, again: pl.Series) -> pl.Series:
    """Which rows differ (Boolean): neither equal as the graph is fed them nor both missing."""
    if again.dtype.is_float():
        bits = [np.ascontiguousarray(_numbers(side)).view(np.uint32) for side in (logged, again)]
        return pl.Series(bits[0] != bits[1], dtype=pl.Boolean)
    return ~logged.eq_missing(again)


def _numbers(side: pl.Series) -> np.ndarray:
    """Numbers as the graph is fed them, float32: one NaN where there is none that is finite."""
    given = side.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    with np.errstate(over="ignore"):
        return np.where(np.isfinite(given), given, np.nan).astype(np.float32)


def counted(
    column: Column, names: pl.Series, versions: pl.Series, *, shown: bool = True
) -> tuple[FeatureSkew, pl.Series]:
    """Count one feature's differences.

    Args:
        names: prediction ids of the rows.
        versions: which version answered each of them.
        shown: whether values may be shown; else the examples name predictions alone.

    Returns:
        The counts, and which rows have a mismatch.
    """
    nowhere = pl.Series([False], dtype=pl.Boolean).new_from_index(0, names.len())
    differs = different(column.logged, column.again)
    # A value that was fed although nothing could be read did not come from the store: that is a mismatch.
    unread = nowhere if column.unread is None else column.unread & column.logged.is_null()
    differs = differs & ~unread
    # An online store keeps the newest value alone: what was asked for too late can be missing, and nothing else.
    late = nowhere if column.late is None else differs & column.logged.is_null() & column.late
    corrected = nowhere if column.corrected is None else differs & ~late & column.corrected
    wrong = differs & ~late & ~corrected
    counts = FeatureSkew(
        feature=column.name,
        compared=names.len() - int(unread.sum()),
        mismatched=int(wrong.sum()),
        corrected=int(corrected.sum()),
        late=int(late.sum()),
        degraded=int(unread.sum()),
        examples=tuple(_examples(column, wrong, names, versions, shown)),
        corrections=tuple(_examples(column, corrected, names, versions, shown)),
    )
    return counts, wrong


def _examples(
    column: Column, chosen: pl.Series, names: pl.Series, versions: pl.Series, shown: bool
) -> Iterable[SkewExample]:
    for row in chosen.arg_true().head(EXAMPLES):
        values = (_fed(column.logged[row]), _fed(column.again[row])) if shown else (MASK, MASK)
        yield SkewExample(prediction=names[row], version=versions[row], logged=values[0], recomputed=values[1])


def _fed(value: float | int | str | None) -> float | int | str | None:
    """A value as the graph is fed it."""
    if not isinstance(value, float):
        return value
    with np.errstate(over="ignore"):
        return float(np.float32(value)) if np.isfinite(value) else None


def merged(parts: Iterable[FeatureSkew]) -> tuple[FeatureSkew, ...]:
    """The counts of several groups of predictions, by feature: those that differ most come first."""
    found: dict[str, list[FeatureSkew]] = {}
    for part in parts:
        found.setdefault(part.feature, []).append(part)
    sums = (_sum(name, entries) for name, entries in found.items())
    return tuple(sorted(sums, key=lambda entry: (-entry.mismatched, -entry.corrected)))


def _sum(name: str, entries: Sequence[FeatureSkew]) -> FeatureSkew:
    return FeatureSkew(
        feature=name,
        compared=sum(entry.compared for entry in entries),
        mismatched=sum(entry.mismatched for entry in entries),
        corrected=sum(entry.corrected for entry in entries),
        late=sum(entry.late for entry in entries),
        degraded=sum(entry.degraded for entry in entries),
        examples=tuple(example for entry in entries for example in entry.examples)[:EXAMPLES],
        corrections=tuple(example for entry in entries for example in entry.corrections)[:EXAMPLES],
    )


def judge(report: SkewReport, policy: Skew) -> tuple[bool, str]:
    """Whether a model is fed other inputs than it would be trained on, or nobody can tell; and the numbers of it."""
    told = sentence(report)
    wrong, rewritten = _beyond(report, policy)
    if rewritten and not wrong:
        listed = _few([f"{entry.feature} {_share(entry.corrected, entry):.0%}" for entry in rewritten])
        told += f"; more was rewritten than corrections explain ({listed}; limit {policy.max_corrected:.0%})"
    if unseen := blind(report, policy):
        told += f"; more cannot be compared than the limit of {policy.max_not_comparable:.0%}"
    return bool(wrong or rewritten or unseen), told


def differing(report: SkewReport, policy: Skew) -> bool:
    """Whether more values differ than the policy allows: what was fed is not what training would feed."""
    return any(_beyond(report, policy))


def blind(report: SkewReport, policy: Skew) -> bool:
    """Whether too few of the predictions could be compared to say anything.

    Those that wait for a refresh are on neither side of the share: no fault keeps them from being compared, and they
    will be.
    """
    waiting = report.not_comparable.get(WAITING, 0)
    due = report.read - waiting
    unseen = sum(report.not_comparable.values()) - waiting
    return due >= policy.min_rows and unseen > policy.max_not_comparable * due


def _beyond(report: SkewReport, policy: Skew) -> tuple[list[FeatureSkew], list[FeatureSkew]]:
    """Features with more mismatches, and with more corrections, than the policy allows."""
    if report.compared + report.degraded < policy.min_rows:
        return [], []
    wrong = [entry for entry in report.features if _share(entry.mismatched, entry) > policy.max_share]
    return wrong, [entry for entry in report.features if _share(entry.corrected, entry) > policy.max_corrected]


def sentence(report: SkewReport) -> str:
    """What was compared and what came of it, in one line."""
    of = "" if report.read == report.predictions else f" (the newest of {report.predictions:,})"
    if report.not_comparable and report.compared + report.degraded == 0:
        reasons = "; ".join(f"{rows:,}: {reason}" for reason, rows in report.not_comparable.items())
        return f"nothing could be compared ({reasons}); {report.read:,} predictions{of}"
    told = f"{report.mismatched:,} of {report.values:,} logged values differ from a recomputation"
    if wrong := [entry for entry in report.features if entry.mismatched]:
        told += f" ({_few([f'{entry.feature} {entry.mismatched:,}' for entry in wrong])})"
    told += f"; {report.read:,} predictions{of}"
    if report.degraded:
        told += f", {report.degraded:,} of them without stored features (online store away or empty)"
    told += f"; {report.corrected:,} values were corrected since" if report.corrected else ""
    told += f"; {report.late:,} were missing since their rows were asked for too late" if report.late else ""
    for reason, rows in report.not_comparable.items():
        told += f"; {rows:,} not comparable: {reason}"
    return told


def _share(count: int, entry: FeatureSkew) -> float:
    return count / entry.compared if entry.compared else 0.0


def _few(named: Sequence[str]) -> str:
    rest = len(named) - _NAMED
    return ", ".join(named[:_NAMED]) + (f", {rest} more" if rest > 0 else "")
