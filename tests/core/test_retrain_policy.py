from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ferroflow.core.retrain import decide
from ferroflow.core.spec import Retrain

NOW = datetime(2023, 4, 10, 12, tzinfo=UTC)
POLICY = Retrain(cooldown="6h", per_week=3, min_new_rows=1_000)


def hours_ago(*hours: float) -> list[datetime]:
    return [NOW - timedelta(hours=each) for each in hours]


def test_without_an_alarm_nothing_is_retrained_however_many_rows_there_are():
    assert decide(POLICY, "none", "all is well", [], NOW, 10**6) == (False, "no alarm: all is well")


def test_an_alarm_with_rows_and_budget_retrains():
    assert decide(POLICY, "performance", "ratio 1.3", hours_ago(7), NOW, 1_000) == (
        True,
        "performance alarm: ratio 1.3",
    )


def test_staleness_is_an_alarm_as_well():
    assert decide(POLICY, "staleness", "40 days", [], NOW, 5_000)[0]


def test_skew_never_retrains_and_says_why():
    go, reason = decide(POLICY, "skew", "3 of 10 values differ", [], NOW, 10**6)
    assert (go, reason) == (False, "skew alarm, but retraining cannot mend inputs that differ: 3 of 10 values differ")


def test_the_cooldown_holds_until_its_last_minute():
    go, reason = decide(POLICY, "performance", "", hours_ago(5.9), NOW, 5_000)
    assert (go, reason) == (False, "performance alarm, but the cool-down of 6h lasts until 2023-04-10 12:06 UTC")
    assert decide(POLICY, "performance", "", hours_ago(6), NOW, 5_000)[0]


def test_the_budget_of_a_week_is_kept_and_comes_back():
    go, reason = decide(POLICY, "performance", "", hours_ago(160, 100, 50), NOW, 5_000)
    assert not go
    assert "3 of 3 retrainings of this week are used; the next one may start 2023-04-10 20:00 UTC" in reason
    assert decide(POLICY, "performance", "", hours_ago(168, 100, 50), NOW, 5_000)[0]


def test_too_few_new_rows_are_told_with_both_numbers():
    go, reason = decide(POLICY, "drift", "", [], NOW, 999)
    assert (go, reason) == (False, "drift alarm, but only 999 new labelled rows (needs 1,000)")


def test_retrainings_after_the_moment_asked_for_do_not_count_in_a_replay():
    assert decide(POLICY, "performance", "", hours_ago(-1, -2, -3), NOW, 5_000)[0]
