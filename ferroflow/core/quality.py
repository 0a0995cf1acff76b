"""How good the accepted rows are: rules about all of them, a score with its parts, and figures unlike earlier ones.

Pure judgements on measured numbers; nothing here reads a row. The dimensions are those of DAMA UK, *The Six Primary
Dimensions for Data Quality Assessment* (2013), and of ISO/IEC 25012: completeness, validity, uniqueness, timeliness and
consistency. The sixth, accuracy, needs the truth to compare with, and is left to the model's own errors.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from ferroflow.core.dataset_rules import DatasetRule, Fresh, Known, LikeBefore, NullShare, RowCount, UniqueShare
from ferroflow.core.durations import duration
from ferroflow.core.errors import SpecError
from ferroflow.core.profile import Profile, moment
from ferroflow.core.records import RuleResult, Validated
from ferroflow.core.spec import PipelineSpec

REPEATED = ("row: superseded", "row: duplicate")
"""How the reasons of rows begin that are there a second time: normal, and no sign of bad rows."""
HISTORY = 5  # earlier snapshots from which on a figure may be called unusual
UNUSUAL = 3.5  # robust z (Iglewicz and Hoaglin 1993)
_SPREAD = 1.4826  # of a normal distribution: standard deviation over median absolute deviation
_LEAST_SHARE, _LEAST_RATIO = 0.005, 0.05  # spread that is always granted: of shares, and of other figures
_LEAST_MOVE = 0.1  # the same of a mean, in standard deviations of its column
_MEAN, _DEVIATION = "mean of ", "standard deviation of "


@dataclass(frozen=True)
class Measured:
    """What the rules and the score are about.

    ``unique`` and ``known`` hold the measured share of each such rule; ``repeated`` are the quarantined rows of which
    every reason says that the row is there a second time.
    """

    profile: Profile
    validated: Validated
    as_of: datetime
    repeated: int = 0
    unreadable: int = 0
    unique: Mapping[UniqueShare, float] = field(default_factory=dict)
    known: Mapping[Known, float] = field(default_factory=dict)
    before: str | None = None  # fingerprint of the last good snapshot's quality

    @property
    def judged(self) -> int:
        """Rows that were accepted or refused for what they say; repeated ones are neither."""
        return self.validated.rows_in - self.repeated

    @property
    def refused(self) -> int:
        """Rows quarantined for what they say."""
        return self.validated.rows_quarantined - self.repeated


def check_rules(spec: PipelineSpec, columns: Collection[str], references: Mapping[str, Collection[str]]) -> None:
    """See that every rule can be measured.

    Args:
        columns: those of the accepted rows.
        references: each reference's columns.

    Raises:
        SpecError: a rule names a column or reference that is not there, or a personal column's values.
    """
    for rule in spec.rules:
        if isinstance(rule, Fresh):
            duration(rule.within)
            if spec.time is None:
                raise SpecError(f"{spec.name!r}: Fresh needs the event time. Name it: Source(time=...).")
        for column in _columns(rule):
            if column not in columns:
                raise SpecError(
                    f"{spec.name!r}: {type(rule).__name__} names {column!r}, which is no column of the accepted rows. "
                    f"They have: {', '.join(columns)}."
                )
            if isinstance(rule, LikeBefore) and column in spec.personal:
                raise SpecError(
                    f"{spec.name!r}: LikeBefore names {column!r}, a personal column: of its values nothing is kept to "
                    f"compare with. Leave it out of the rule."
                )
        if isinstance(rule, Known):
            known_key(spec, rule, references)


def known_key(spec: PipelineSpec, rule: Known, references: Mapping[str, Collection[str]]) -> str:
    """The column of the reference that is meant: the very name, or the only one spelt so but for case and underscores.

    Raises:
        SpecError: no such reference, or no such column.
    """
    if rule.reference not in references:
        told = ", ".join(references) or "none"
        raise SpecError(f"{spec.name!r}: Known names the reference {rule.reference!r}. References: {told}.")
    columns = references[rule.reference]
    alike = [name for name in columns if _plain(name) == _plain(rule.key)]
    if rule.key in columns or len(alike) == 1:
        return rule.key if rule.key in columns else alike[0]
    raise SpecError(
        f"{spec.name!r}: Known names the key {rule.key!r}; the reference {rule.reference!r} has "
        f"{', '.join(columns)}. Correct key= in the spec."
    )


def _plain(name: str) -> str:
    return name.lower().replace("_", "")


def _columns(rule: DatasetRule) -> tuple[str, ...]:
    if isinstance(rule, NullShare | Known):
        return (rule.column,)
    return rule.columns if isinstance(rule, UniqueShare | LikeBefore) else ()


# --------------------------------------------------------------------------------------------------------------- rules


def judge(spec: PipelineSpec, measured: Measured) -> tuple[RuleResult, ...]:
    """The word of the two rules that every pipeline has, then of its own, in their order."""
    found = [_quarantined(spec, measured), _unreadable(spec, measured)]
    for rule in spec.rules:
        found += _judged(rule, spec, measured)
    return tuple(found)


def reason_of(rules: Sequence[RuleResult]) -> str:
    """The failed errors in one line; what was looked at when there is none."""
    failed = [rule for rule in rules if not rule.passed]
    errors = "; ".join(rule.reason for rule in failed if rule.severity == "error")
    warned = "; ".join(rule.reason for rule in failed)
    told = f"{len(rules)} rules were looked at"
    return errors or (f"{told}, {len(failed)} warn: {warned}" if failed else f"{told}, all hold")


def _quarantined(spec: PipelineSpec, measured: Measured) -> RuleResult:
    """The share of refused rows among those that were judged: repeated rows count on neither side."""
    share = measured.refused / measured.judged if measured.judged else 0.0
    worst = next((f", most of all {reason!r}" for reason in _by_rows(measured.validated.reasons)), "")
    told = (
        f"{measured.refused:,} of {measured.judged:,} rows were refused ({share:.1%}), at most "
        f"{spec.max_quarantined:.1%} may be{worst if share > spec.max_quarantined else ''}"
    )
    return _result("max_quarantined", "error", share <= spec.max_quarantined, share, told)


def _by_rows(reasons: Mapping[str, int]) -> list[str]:
    named = [reason for reason in reasons if not reason.startswith(REPEATED)]
    return sorted(named, key=lambda reason: -reasons[reason])


def _unreadable(spec: PipelineSpec, measured: Measured) -> RuleResult:
    count = measured.unreadable
    files = "file" if count == 1 else "files"
    told = f"{count} {files} could not be read, at most {spec.max_unreadable} may be"
    return _result("max_unreadable", "error", count <= spec.max_unreadable, float(count), told)


def _judged(rule: DatasetRule, spec: PipelineSpec, measured: Measured) -> list[RuleResult]:
    if isinstance(rule, RowCount):
        return [_row_count(rule, measured.profile.rows)]
    if isinstance(rule, Fresh):
        return [_fresh(rule, newest(spec, measured.profile), measured.as_of)]
    if isinstance(rule, NullShare):
        return [_null_share(rule, measured.profile)]
    if isinstance(rule, UniqueShare):
        share, what = measured.unique[rule], ", ".join(rule.columns)
        told = f"{_percent(share, rule.at_least)} of the rows have their own {what}, at least {rule.at_least:.2%} must"
        return [_result(f"unique_share {what}", rule.severity, share >= rule.at_least, share, told)]
    if isinstance(rule, Known):
        share = measured.known[rule]
        told = f"{_percent(share, rule.at_least)} of {rule.column} are in {rule.reference}.{rule.key}"
        told += f", at least {rule.at_least:.2%} must"
        return [_result(f"known {rule.column}", rule.severity, share >= rule.at_least, share, told)]
    return [_like_before(rule, column, measured) for column in rule.columns]


def _row_count(rule: RowCount, rows: int) -> RuleResult:
    bounds = f"at least {rule.at_least:,}" + (f" and at most {rule.at_most:,}" if rule.at_most is not None else "")
    passed = rows >= rule.at_least and (rule.at_most is None or rows <= rule.at_most)
    return _result(rule.name, rule.severity, passed, float(rows), f"{rows:,} accepted rows, needs {bounds}")


def _fresh(rule: Fresh, newest_at: datetime | None, as_of: datetime) -> RuleResult:
    if newest_at is None:
        return _result(rule.name, rule.severity, False, None, f"no event time at all, needs one within {rule.within}")
    age = as_of - newest_at
    told = f"the newest event is of {newest_at:%Y-%m-%d %H:%M}, {_span(age)} before {as_of:%Y-%m-%d %H:%M}"
    passed = age <= duration(rule.within)
    return _result(rule.name, rule.severity, passed, age / timedelta(hours=1), f"{told}; at most {rule.within}")


def _null_share(rule: NullShare, profile: Profile) -> RuleResult:
    column = profile.column(rule.column)
    share = column.missing_share if column is not None else 1.0
    told = f"{_percent(share, rule.at_most)} of {rule.column} is missing, at most {rule.at_most:.2%} may be"
    return _result(f"null_share {rule.column}", rule.severity, share <= rule.at_most, share, told)


def _like_before(rule: LikeBefore, name: str, measured: Measured) -> RuleResult:
    column = measured.profile.column(name)
    shift = column.shift if column is not None else None
    label = f"like_before {name}"
    if measured.before is None:
        return _result(label, rule.severity, True, None, f"{name}: no earlier good snapshot to compare with")
    if shift is None:
        return _result(label, rule.severity, True, None, f"{name}: the last good snapshot has no such values")
    told = f"{name} has moved by PSI {shift:.3f} since the last good snapshot, at most {rule.psi:g}"
    return _result(label, rule.severity, shift <= rule.psi, shift, told)


def _result(rule: str, severity: Any, passed: bool, value: float | None, reason: str) -> RuleResult:
    return RuleResult(rule=rule, severity=severity, passed=passed, value=value, reason=reason)


def _percent(share: float, limit: float) -> str:
    """A share in per cent, in more digits where two would make it look like its limit."""
    told = f"{share:.2%}"
    return f"{share:.6%}" if told == f"{limit:.2%}" and share != limit else told


def newest(spec: PipelineSpec, profile: Profile) -> datetime | None:
    """The latest event time of the accepted rows; None when they have none."""
    column = profile.column(spec.time) if spec.time is not None else None
    return moment(column.high) if column is not None and column.high is not None else None


def _span(span: timedelta) -> str:
    hours = span / timedelta(hours=1)
    return f"{hours / 24:,.1f} days" if abs(hours) >= 48 else f"{hours:,.1f} hours"


# --------------------------------------------------------------------------------------------------------------- score


def parts_of(spec: PipelineSpec, measured: Measured, required: Collection[str]) -> dict[str, float]:
    """The five parts of the score, each 0 to 1; the score is their mean.

    * completeness = present cells / cells of the accepted rows in columns that may be missing. A cell that must be
      there and is not has its row refused: that is a matter of validity.
    * validity = accepted rows / (accepted + refused rows). Repeated rows are neither.
    * uniqueness = 1 − repeated rows / rows in: superseded by a later row of the same key, or declared duplicates.
    * timeliness = min(1, ``within`` / age of the newest event at ``as_of``), by the rule Fresh; 1 without such a rule.
    * consistency = the mean of 1 − warned rows / accepted rows, and 1 − columns whose type differs between files /
      columns. A row with several warnings counts for each of them: never better than it is.

    Args:
        required: columns that the schema does not let be missing.
    """
    checked, columns = measured.validated, measured.profile.columns
    optional = [column for column in columns if column.name not in required]
    cells, missing = sum(entry.rows for entry in optional), sum(entry.missing for entry in optional)
    fresh = next((rule for rule in spec.rules if isinstance(rule, Fresh)), None)
    mixed = sum("," in told.partition(" -> ")[0] for told in checked.casts.values())
    agreeing = 1 - _share(sum(checked.warnings.values()), checked.rows_accepted)
    parts = {
        "completeness": 1 - _share(missing, cells),
        "validity": 1 - _share(measured.refused, measured.judged),
        "uniqueness": 1 - _share(measured.repeated, checked.rows_in),
        "timeliness": _timeliness(fresh, newest(spec, measured.profile), measured.as_of),
        "consistency": (agreeing + 1 - _share(mixed, len(columns))) / 2,
    }
    return {name: round(value, 6) for name, value in parts.items()}


def score_of(parts: Mapping[str, float]) -> float:
    """The mean of the parts, 0 to 1."""
    return round(statistics.fmean(parts.values()), 6)


def _share(part: float, whole: float) -> float:
    return min(1.0, part / whole) if whole else 0.0


def _timeliness(fresh: Fresh | None, newest_at: datetime | None, as_of: datetime) -> float:
    if fresh is None:
        return 1.0
    if newest_at is None:
        return 0.0
    within, age = duration(fresh.within), as_of - newest_at
    return 1.0 if age <= within else within / age


# ----------------------------------------------------------------------------------------------------------- anomalies


def figures_of(measured: Measured) -> dict[str, float]:
    """What later snapshots are held against, each under the words that tell of it; those that are shares end so."""
    checked, rows = measured.validated, measured.profile.rows
    figures = {
        "accepted rows": float(rows),
        "rows for each file": checked.rows_in / max(len(checked.accepted), 1),
        "repeated rows, as a share": _share(measured.repeated, checked.rows_in),
    }
    for reason in _by_rows(checked.reasons):
        figures[f"rows refused by {reason!r}, as a share"] = _share(checked.reasons[reason], measured.judged)
    for told, counts in (("warnings of", checked.warnings), ("cells cleaned by", checked.cleaned)):
        figures |= {f"{told} {rule!r}, as a share": _share(count, rows) for rule, count in counts.items()}
    for column in measured.profile.columns:
        figures[f"missing {column.name}, as a share"] = column.missing_share
        if column.kind == "number" and column.mean is not None and math.isfinite(column.mean):
            figures[_MEAN + column.name] = column.mean
            figures[_DEVIATION + column.name] = column.std or 0.0
    return figures


def anomalies(figures: Mapping[str, float], history: Sequence[Mapping[str, float]]) -> tuple[str, ...]:
    """The figures that lie far from those of earlier good snapshots, the farthest first, in words.

    The distance is the robust z: (figure − median) / (1.4826 × median absolute deviation), where the spread is at least
    half a percentage point of a share, 5 % of the median of any other figure, and a tenth of its column's standard
    deviation for a mean. A share that is not told counts as 0. Fewer than five earlier figures say nothing.
    """
    found = []
    for name in sorted({*figures, *(name for earlier in history for name in earlier)}):
        share = name.endswith("as a share")
        past = [earlier.get(name, 0.0) for earlier in history if share or name in earlier]
        if len(past) < HISTORY or not (share or name in figures):
            continue
        value, usual = figures.get(name, 0.0), statistics.median(past)
        least = _LEAST_SHARE if share else _LEAST_RATIO * abs(usual)
        if name.startswith(_MEAN):  # a mean near zero would have next to none
            least = max(least, _LEAST_MOVE * figures.get(_DEVIATION + name.removeprefix(_MEAN), 0.0))
        spread = max(_SPREAD * statistics.median(abs(entry - usual) for entry in past), least) or 1e-12
        z = (value - usual) / spread
        if abs(z) > UNUSUAL:
            found.append((abs(z), _told(name.removesuffix(", as a share"), value, usual, len(past), z, share)))
    return tuple(told for _, told in sorted(found, key=lambda entry: (-entry[0], entry[1])))


def _told(name: str, value: float, usual: float, snapshots: int, z: float, share: bool) -> str:
    now, then = (f"{number:.1%}" if share else f"{number:,.4g}" for number in (value, usual))
    if not share and abs(value) >= 1000:
        now, then = f"{value:,.0f}", f"{usual:,.0f}"
    return f"{name}: {now}, the median of {snapshots} earlier snapshots is {then} (robust z {z:+.1f})"
