"""Input drift: an effect (PSI) and significance (adjusted p-value), both needed, on enough rows.

Numbers are compared in quantile bins of the reference, so one outlier moves one row and not the bins. Missing values
have a bin of their own. A column that is gone, a rise of the missing share and new categories are checks of their own.

Rows of two days are no random sample of two months: they share weekdays, weather and the values of stored features.
So an effect also has to exceed what stretches of the reference, as long as the live one, reach against the whole.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ferroflow.core.records import ColumnDrift
from ferroflow.core.spec import InputDrift

BINS = 10
MISSING_RISE = 0.1  # share of the live rows
NEW_SHARE = 0.05  # share of the live rows whose category the reference never saw
USUAL_MARGIN = 1.5  # times the strongest effect that a stretch of the reference has
_FEW_VALUES = 10  # a number with so few values is compared value by value
_EXPECTED = 5.0  # live rows that a category's bin must expect, else it is pooled (Cochran's rule)
_HALF = 0.5  # rows put into each bin, so that an empty one does not give an infinite PSI

Counts = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class _Finding:
    column: str
    psi: float
    p: float
    missing_rise: float
    new_share: float
    usual: float = 0.0  # the strongest effect of a stretch of the reference
    absent: bool = False

    def limit(self, threshold: float) -> float:
        """The PSI from which on the column's effect counts."""
        return max(threshold, USUAL_MARGIN * self.usual)


def column_drift(
    reference: pl.DataFrame,
    live: pl.DataFrame,
    monitor: InputDrift,
    *,
    categorical: Collection[str] = (),
    calendar: Collection[str] = (),
    stretches: Sequence[pl.DataFrame] = (),
) -> tuple[ColumnDrift, ...]:
    """Judge each column of ``reference``; the strongest effect first.

    Args:
        categorical: columns of names, not quantities (text is always taken as such).
        calendar: columns made of the time alone: they move with the calendar, and are never said to drift.
        stretches: parts of the reference that span as much time as the live rows.
    """
    enough = live.height >= monitor.min_rows and reference.height >= monitor.min_rows
    findings = [
        _look(name, reference[name], live, name in categorical, [stretch[name] for stretch in stretches])
        for name in reference.columns
    ]
    adjusted = dict(zip([found.column for found in findings], benjamini_hochberg([f.p for f in findings]), strict=True))
    rows = min(live.height, reference.height)
    judged = [
        _judge(found, adjusted[found.column], monitor, rows if not enough else None, found.column in calendar)
        for found in findings
    ]
    strength = {found.column: _strength(found, monitor, found.column in calendar) for found in findings}
    return tuple(sorted(judged, key=lambda entry: (not entry.drifted, -strength[entry.column], entry.column)))


def _strength(found: _Finding, monitor: InputDrift, is_calendar: bool) -> float:
    """The effect in units of what is needed; what is gone comes first, the calendar last."""
    if found.absent or is_calendar:
        return math.inf if found.absent else -1.0
    return found.psi / found.limit(monitor.psi)


def benjamini_hochberg(p: list[float]) -> list[float]:
    """Adjusted p-values that bound the false discovery rate (Benjamini and Hochberg 1995)."""
    if not p:
        return []
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values)[::-1]
    scaled = values[order] * len(p) / np.arange(len(p), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled), 1.0)
    return [float(value) for value in adjusted]


def psi(reference: Counts, live: Counts) -> float:
    """The population stability index of two histograms (k,), less what chance alone gives for so many rows.

    Two samples of one distribution have a PSI of about (k − 1) (1/n + 1/m) (Yurdakul 2018): with many categories and
    few rows that alone passes any threshold.
    """
    reference, live = _used(reference, live)
    bins = reference.size
    if bins < 2 or reference.sum() == 0 or live.sum() == 0:
        return 0.0
    before = (reference + _HALF) / (reference + _HALF).sum()
    after = (live + _HALF) / (live + _HALF).sum()
    raw = float(((after - before) * np.log(after / before)).sum())
    return max(0.0, raw - (bins - 1) * (1 / float(reference.sum()) + 1 / float(live.sum())))


def _look(
    name: str, reference: pl.Series, live: pl.DataFrame, is_category: bool, stretches: Sequence[pl.Series]
) -> _Finding:
    if name not in live.columns:
        return _Finding(name, 0.0, 0.0, 0.0, 0.0, absent=True)
    now = live[name]
    if reference.len() == 0 or now.len() == 0:
        return _Finding(name, 0.0, 1.0, 0.0, 0.0)
    named = is_category or not reference.dtype.is_numeric()
    by_value = named or reference.n_unique() <= _FEW_VALUES
    before, after, new = _histograms(reference, now, by_value)
    p = _chi_square(before, after) if by_value else _kolmogorov_smirnov(_numbers(reference), _numbers(now))
    rise = float(after[-1] / after.sum() - before[-1] / before.sum())
    missing = _two_shares(before[-1], before.sum(), after[-1], after.sum())
    return _Finding(
        name,
        psi(before, after),
        min(1.0, 2 * min(p, missing)),  # two looks at one column
        rise,
        new if named else 0.0,
        max((psi(*_histograms(reference, stretch, by_value)[:2]) for stretch in stretches), default=0.0),
    )


def _judge(found: _Finding, p: float, monitor: InputDrift, too_few: int | None, is_calendar: bool) -> ColumnDrift:
    effect = max(0.0, found.psi)
    reasons = _effects(found, monitor)
    drifted = False
    if found.absent:
        drifted, reason = True, "missing from the live rows"
    elif too_few is not None:
        reason = f"not enough rows ({too_few} of {monitor.min_rows})"
    elif is_calendar:
        reason = f"made of the time alone, moves with the calendar (PSI {effect:.2f})"
    elif not reasons:
        reason = f"PSI {effect:.2f}, needs {_needed(found, monitor)}"
    elif p >= monitor.p:
        reason = f"{', '.join(reasons)}, but p {p:.2g} needs to be below {monitor.p:g}"
    else:
        drifted, reason = True, f"{', '.join(reasons)}, p {p:.2g}"
    return ColumnDrift(column=found.column, psi=round(effect, 6), p=p, drifted=drifted, reason=reason)


def _effects(found: _Finding, monitor: InputDrift) -> list[str]:
    reasons = []
    if found.psi >= found.limit(monitor.psi):
        reasons.append(f"PSI {found.psi:.2f}, needs {_needed(found, monitor)}")
    if found.missing_rise >= MISSING_RISE:
        reasons.append(f"missing values up by {found.missing_rise:.0%}")
    if found.new_share >= NEW_SHARE:
        reasons.append(f"{found.new_share:.0%} of the rows have a category never seen")
    return reasons


def _needed(found: _Finding, monitor: InputDrift) -> str:
    limit = found.limit(monitor.psi)
    return (
        f"{limit:.2f}"
        if limit == monitor.psi
        else f"{limit:.2f} (a stretch of the reference reaches {found.usual:.2f})"
    )


def _histograms(reference: pl.Series, live: pl.Series, by_value: bool) -> tuple[Counts, Counts, float]:
    """Counts of both sides in the same bins, and the share of live rows in categories never seen."""
    if by_value:
        return _by_category(reference, live)
    before, after = _by_quantile(_numbers(reference), _numbers(live), reference.len(), live.len())
    return before, after, 0.0


def _by_category(reference: pl.Series, live: pl.Series) -> tuple[Counts, Counts, float]:
    """Counts by category, rare ones pooled; the last two bins are new categories and missing values."""
    before, after = _tally(reference), _tally(live)
    known = [value for value in before if value is not None]
    scale = live.len() / reference.len()
    kept = [value for value in known if before[value] * scale >= _EXPECTED]
    rare = [value for value in known if before[value] * scale < _EXPECTED]
    new = sum(count for value, count in after.items() if value is not None and value not in before)
    rows = [
        [float(side.get(value, 0)) for value in kept]
        + [float(sum(side.get(value, 0) for value in rare)), unseen, float(side.get(None, 0))]
        for side, unseen in ((before, 0.0), (after, float(new)))
    ]
    return np.array(rows[0]), np.array(rows[1]), new / live.len()


def _tally(values: pl.Series) -> dict[str | None, int]:
    text = values.fill_nan(None) if values.dtype.is_float() else values
    counted = text.cast(pl.String).rename("value").value_counts(name="rows")
    return dict(zip(counted["value"].to_list(), counted["rows"].to_list(), strict=True))


def _by_quantile(old: Counts, fresh: Counts, rows: int, live_rows: int) -> tuple[Counts, Counts]:
    """Counts between quantiles of the reference; the last bin is for missing values."""
    edges = np.unique(np.quantile(old, np.linspace(0, 1, BINS + 1)[1:-1])) if old.size else np.empty(0)
    sides = []
    for values, height in ((old, rows), (fresh, live_rows)):
        inside = np.bincount(np.searchsorted(edges, values, side="right"), minlength=edges.size + 1)
        sides.append(np.append(inside, height - values.size).astype(np.float64))
    return sides[0], sides[1]


def _numbers(values: pl.Series) -> Counts:
    numbers = values.cast(pl.Float64, strict=False).to_numpy()
    return np.asarray(numbers[~np.isnan(numbers)], dtype=np.float64)


def _used(before: Counts, after: Counts) -> tuple[Counts, Counts]:
    used = (before + after) > 0
    return before[used], after[used]


def _kolmogorov_smirnov(old: Counts, fresh: Counts) -> float:
    """The two-sample test's asymptotic p-value (Smirnov 1948); ties make it conservative."""
    if old.size == 0 or fresh.size == 0:
        return 1.0
    old, fresh = np.sort(old), np.sort(fresh)
    every = np.concatenate([old, fresh])
    before, after = (np.searchsorted(side, every, side="right") / side.size for side in (old, fresh))
    root = math.sqrt(old.size * fresh.size / (old.size + fresh.size))
    reach = (root + 0.12 + 0.11 / root) * float(np.abs(before - after).max())
    if reach < 0.2:
        return 1.0
    terms: list[float] = [(-1.0) ** (k - 1) * math.exp(-2 * (k * reach) ** 2) for k in range(1, 101)]
    return min(1.0, max(0.0, 2 * sum(terms)))


def _chi_square(before: Counts, after: Counts) -> float:
    """Pearson's test of two histograms; its p-value by the cube-root approximation (Wilson and Hilferty 1931)."""
    before, after = _used(before, after)
    if before.size < 2 or before.sum() == 0 or after.sum() == 0:
        return 1.0
    together = before + after
    total = together.sum()
    expected = [together * side.sum() / total for side in (before, after)]
    terms = [(side - mean) ** 2 / mean for side, mean in zip((before, after), expected, strict=True)]
    statistic = float(np.concatenate(terms).sum())
    freedom = before.size - 1
    part = 2 / (9 * freedom)
    return _upper_tail(((statistic / freedom) ** (1 / 3) - (1 - part)) / math.sqrt(part))


def _two_shares(before: float, rows: float, after: float, live: float) -> float:
    """The p-value of a difference between two shares, by the normal approximation; two-sided."""
    share = (before + after) / (rows + live)
    spread = math.sqrt(share * (1 - share) * (1 / rows + 1 / live))
    return 1.0 if spread == 0 else min(1.0, 2 * _upper_tail(abs(before / rows - after / live) / spread))


def _upper_tail(z: float) -> float:
    return math.erfc(z / math.sqrt(2)) / 2
