"""When an alarm leads to a retraining: a cool-down, a weekly budget, and enough new labelled rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from ferroflow.core.durations import duration
from ferroflow.core.spec import Retrain

_WEEK = timedelta(days=7)


def decide(
    policy: Retrain, alarm: str, why: str, retrains: Sequence[datetime], as_of: datetime, new_rows: int
) -> tuple[bool, str]:
    """Whether to retrain, and the reason, with the numbers that decided.

    Args:
        alarm: the monitor's alarm; "none" and "skew" never retrain.
        why: the monitor's own reason.
        retrains: moments (UTC) of earlier retrainings; later ones than ``as_of`` do not count.
        new_rows: labelled rows since the champion was trained.
    """
    if alarm == "none":
        return False, f"no alarm: {why}"
    if alarm == "skew":
        return False, f"skew alarm, but retraining cannot mend inputs that differ: {why}"
    earlier = sorted(moment for moment in retrains if moment <= as_of)
    if earlier and as_of - earlier[-1] < duration(policy.cooldown):
        until = earlier[-1] + duration(policy.cooldown)
        return False, f"{alarm} alarm, but the cool-down of {policy.cooldown} lasts until {until:%Y-%m-%d %H:%M} UTC"
    recent = [moment for moment in earlier if as_of - moment < _WEEK]
    if len(recent) >= policy.per_week:
        free = recent[-policy.per_week] + _WEEK
        return False, (
            f"{alarm} alarm, but {len(recent)} of {policy.per_week} retrainings of this week are used; "
            f"the next one may start {free:%Y-%m-%d %H:%M} UTC"
        )
    if new_rows < policy.min_new_rows:
        return False, f"{alarm} alarm, but only {new_rows:,} new labelled rows (needs {policy.min_new_rows:,})"
    return True, f"{alarm} alarm: {why}"
