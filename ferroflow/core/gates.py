"""Gates: whether a challenger may serve. They judge with data and never raise."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ferroflow.core.metrics import shown
from ferroflow.core.records import Evaluation, GateResult, Interval
from ferroflow.core.spec import BeatsBaseline, BeatsChampion, Gate, NoWorseSlice


def judge(gates: Sequence[Gate], evaluation: Evaluation, metric: str) -> tuple[GateResult, ...]:
    """What each gate says about the test rows, by the headline ``metric`` (lower is better)."""
    return tuple(_judge(gate, evaluation, metric) for gate in gates)


def _judge(gate: Gate, evaluation: Evaluation, metric: str) -> GateResult:
    if isinstance(gate, BeatsBaseline):
        passed, reason = _beats(
            metric, evaluation.metrics, evaluation.baseline, "the baseline", evaluation.against_baseline
        )
    elif isinstance(gate, BeatsChampion):
        passed, reason = _beats_champion(evaluation, metric)
    else:
        passed, reason = _no_worse_slice(gate, evaluation, metric)
    return GateResult(gate=gate.name, passed=passed, reason=reason)


def _beats_champion(evaluation: Evaluation, metric: str) -> tuple[bool, str]:
    if evaluation.champion_version is None:
        return True, "first model: no champion to beat"
    name = f"champion {evaluation.champion_version}"
    if evaluation.against_champion is None:
        return False, f"cannot be compared with {name}: {evaluation.champion_problem}"
    return _beats(metric, evaluation.metrics, evaluation.champion, name, evaluation.against_champion)


def _beats(
    metric: str,
    candidate: dict[str, dict[str, float]],
    other: dict[str, dict[str, float]],
    name: str,
    interval: Interval,
) -> tuple[bool, str]:
    mine, theirs = candidate["test"][metric], other["test"][metric]
    text = f"{metric} {shown(mine)} against {name} {shown(theirs)}: {_difference(interval)}"
    if interval.low > 0:
        return True, text
    return False, f"{text}; the whole {interval.confidence:.0%} interval has to be better"


def _difference(interval: Interval) -> str:
    if math.isnan(interval.difference):
        return "no difference could be measured"
    if interval.difference >= 0:
        return f"better by {shown(interval.difference)} [{shown(interval.low)}, {shown(interval.high)}]"
    return f"worse by {shown(-interval.difference)} [{shown(-interval.high)}, {shown(-interval.low)}]"


def _no_worse_slice(gate: NoWorseSlice, evaluation: Evaluation, metric: str) -> tuple[bool, str]:
    """A slice is lost when it is worse by more than the tolerance, and when chance alone does not explain that.

    ``high`` of a slice is the upper bound (95 %) of the champion's error minus the candidate's: below zero, the
    candidate is worse.
    """
    if evaluation.champion_version is None:
        return True, f"first model: no champion to compare slices of {gate.column} with"
    if gate.column not in evaluation.slices:
        known = ", ".join(sorted(evaluation.slices)) or "none"
        return False, f"slices of {gate.column} were not measured (measured: {known})"
    if evaluation.against_champion is None:
        return False, f"slices of {gate.column} cannot be compared: {evaluation.champion_problem}"
    values = evaluation.slices[gate.column]
    judged = {value: row for value, row in values.items() if row["rows"] >= gate.min_rows and "champion" in row}
    lost = [
        f"{value} {shown(row['candidate'])} against {shown(row['champion'])} "
        f"({_worse(row):+.1%}, {row['rows']:.0f} rows)"
        for value, row in judged.items()
        if _worse(row) > gate.tolerance and row["high"] < 0
    ]
    allowed = f"{metric} by {gate.column} may be {gate.tolerance:.0%} above the champion's"
    if lost:
        return False, f"{allowed}; lost: {', '.join(lost)}"
    return True, f"{allowed}: {_widest(judged)}{_skipped(len(values) - len(judged), gate.min_rows)}"


def _worse(row: dict[str, float]) -> float:
    return row["candidate"] / row["champion"] - 1 if row["champion"] > 0 else math.inf * (row["candidate"] > 0)


def _widest(judged: dict[str, dict[str, float]]) -> str:
    if not judged:
        return "no slice is large enough to judge"
    worst = max(judged, key=lambda value: _worse(judged[value]))
    return f"none of {len(judged)} is lost (the worst is {worst}, {_worse(judged[worst]):+.1%})"


def _skipped(count: int, rows: int) -> str:
    return f"; {count} with fewer than {rows} rows not judged" if count else ""
