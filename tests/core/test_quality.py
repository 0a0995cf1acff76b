from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ferroflow.core.errors import SpecError
from ferroflow.core.profile import ColumnProfile, Profile
from ferroflow.core.quality import (
    Measured,
    anomalies,
    check_rules,
    figures_of,
    judge,
    parts_of,
    reason_of,
    score_of,
)
from ferroflow.core.records import RuleResult, Validated
from ferroflow.core.spec import Fresh, Known, LikeBefore, NullShare, RowCount, UniqueShare
from tests.parcels import AS_OF, parcels

SPEC = parcels()
COLUMNS = ("id", "sent", "city", "kilos", "days", "sent_at", "country")
REFERENCES = {"cities": ("city", "country")}


def a_profile(missing: int = 0, shift: float | None = None, newest: datetime = AS_OF) -> Profile:
    """Ninety parcels: ``kilos`` may be missing, ``sent_at`` is the time."""
    high = (newest - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1)
    columns = (
        ColumnProfile(name="id", dtype="Int64", kind="number", rows=90, missing=0, mean=4.0),
        ColumnProfile(name="kilos", dtype="Float64", kind="number", rows=90, missing=missing, shift=shift, mean=2.0),
        ColumnProfile(name="sent_at", dtype="Datetime", kind="time", rows=90, missing=0, high=high),
    )
    return Profile(rows=90, columns=columns)


def a_validation(**given: Any) -> Validated:
    """A hundred rows in, ninety accepted."""
    counts = {"rows_in": 100, "rows_accepted": 90, "rows_quarantined": 10, "reasons": {"days: above 30": 10}}
    fields = {"accepted": ("a", "b"), "quarantined": (), "casts": {}}
    return Validated(pipeline="parcels", fingerprint="v", as_of=AS_OF, **(counts | fields | given))


def measured(profile: Profile | None = None, validated: Validated | None = None, **given: Any) -> Measured:
    return Measured(profile or a_profile(), validated or a_validation(), AS_OF, **given)


def only(rule: Any, **given: Any) -> RuleResult:
    """What one declared rule says."""
    return judge(replace(SPEC, rules=(rule,)), measured(**given))[-1]


@pytest.mark.parametrize(("limit", "passed"), [(0.10, True), (0.0999, False)])
def test_batch_passes_up_to_the_declared_share_of_refused_rows(limit: float, passed: bool) -> None:
    told = judge(replace(SPEC, max_quarantined=limit), measured())[0]
    assert (told.passed, told.value) == (passed, 0.1)
    assert ("most of all 'days: above 30'" in told.reason) is not passed


def test_repeated_rows_are_no_sign_of_a_bad_batch() -> None:
    reasons = {"row: superseded by a later one": 8, "days: above 30": 2}
    told, *_ = judge(replace(SPEC, max_quarantined=0.05), measured(validated=a_validation(reasons=reasons), repeated=8))
    assert told.passed and told.value == pytest.approx(2 / 92)


def test_one_unreadable_file_stops_a_pipeline_that_allows_none() -> None:
    assert not judge(SPEC, measured(unreadable=1))[1].passed
    assert judge(replace(SPEC, max_unreadable=1), measured(unreadable=1))[1].passed


@pytest.mark.parametrize(
    ("rule", "given", "passed", "said"),
    [
        (RowCount(at_least=90, at_most=90), {}, True, "90 accepted rows, needs at least 90 and at most 90"),
        (RowCount(at_least=91), {}, False, "needs at least 91"),
        (Fresh(within="2d"), {"profile": a_profile(newest=AS_OF - timedelta(days=2))}, True, "2.0 days before"),
        (Fresh(within="1h"), {"profile": a_profile(newest=AS_OF - timedelta(hours=3))}, False, "3.0 hours before"),
        (NullShare(column="kilos", at_most=0.2), {"profile": a_profile(missing=18)}, True, "20.00% of kilos"),
        (NullShare(column="kilos", at_most=0.19), {"profile": a_profile(missing=18)}, False, "at most 19.00%"),
        (LikeBefore(columns=("kilos",)), {"profile": a_profile(shift=0.26), "before": "q"}, False, "PSI 0.260"),
        (LikeBefore(columns=("kilos",)), {"profile": a_profile(shift=0.24), "before": "q"}, True, "PSI 0.240"),
        (LikeBefore(columns=("kilos",)), {"profile": a_profile()}, True, "no earlier good snapshot"),
        (LikeBefore(columns=("kilos",)), {"profile": a_profile(), "before": "q"}, True, "has no such values"),
    ],
)
def test_rule_says_its_number_and_what_it_needs(rule: Any, given: dict[str, Any], passed: bool, said: str) -> None:
    told = only(rule, **given)
    assert told.passed is passed
    assert said in told.reason


def test_shares_that_were_measured_are_held_against_their_own_rule() -> None:
    unique = UniqueShare(columns=("id",), at_least=0.9)
    known = Known(column="city", reference="cities", key="city", at_least=0.9, severity="warning")
    spec = replace(SPEC, rules=(unique, known))
    *_, first, second = judge(spec, measured(unique={unique: 0.91}, known={known: 0.89}))
    assert (first.passed, second.passed, second.severity) == (True, False, "warning")


def test_share_that_just_fails_does_not_read_like_its_limit() -> None:
    unique = UniqueShare(columns=("id",))
    told = judge(replace(SPEC, rules=(unique,)), measured(unique={unique: 0.999_999}))[-1]
    assert not told.passed and told.reason.startswith("99.999900% of the rows")


def test_warning_is_told_but_does_not_hide_which_error_failed() -> None:
    spec = replace(SPEC, rules=(RowCount(at_least=95), NullShare(column="kilos", at_most=0, severity="warning")))
    told = judge(spec, measured(a_profile(missing=9)))
    assert reason_of(told) == "90 accepted rows, needs at least 95"
    assert "1 warn: 10.00% of kilos is missing" in reason_of([rule for rule in told if rule.rule != "row_count"])


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (NullShare(column="weight", at_most=0.1), "NullShare names 'weight'.*They have: id, sent"),
        (UniqueShare(columns=("id", "weight")), "UniqueShare names 'weight'"),
        (Known(column="city", reference="towns", key="city"), "the reference 'towns'. References: cities"),
        (Known(column="city", reference="cities", key="town"), "the key 'town'.*has city, country"),
        (LikeBefore(columns=("kilos",)), "LikeBefore names 'kilos', a personal column"),
    ],
)
def test_rule_about_what_is_not_there_is_an_error_of_the_spec(rule: Any, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        check_rules(replace(SPEC, rules=(rule,), personal=("kilos",)), COLUMNS, REFERENCES)


def test_key_of_a_reference_may_be_spelt_as_another_publisher_spells_it() -> None:
    spec = replace(SPEC, rules=(Known(column="city", reference="zones", key="LocationID"),))
    check_rules(spec, COLUMNS, {"zones": ("location_id", "zone")})
    with pytest.raises(SpecError):
        check_rules(spec, COLUMNS, {"zones": ("location_id", "locationid")})


# --------------------------------------------------------------------------------------------------------------- score


def test_each_part_of_the_score_falls_with_its_own_fault_alone() -> None:
    spec = replace(SPEC, rules=(Fresh(within="1d"),))

    def parts(**given: Any) -> dict[str, float]:
        return parts_of(spec, measured(**given), required={"id", "sent_at"})

    perfect = {"rows_in": 90, "rows_quarantined": 0, "reasons": {}}
    clean = parts(validated=a_validation(**perfect))
    assert set(clean.values()) == {1.0} and score_of(clean) == 1.0
    faults: dict[str, tuple[dict[str, Any], float]] = {
        "completeness": ({"profile": a_profile(missing=9), "validated": a_validation(**perfect)}, 0.9),
        "validity": ({}, 0.9),
        "uniqueness": ({"repeated": 10}, 0.9),
        "timeliness": (
            {"profile": a_profile(newest=AS_OF - timedelta(days=4)), "validated": a_validation(**perfect)},
            0.25,
        ),
        "consistency": ({"validated": a_validation(**perfect, warnings={"kilos: usual": 9})}, 0.95),
    }
    for name, (given, value) in faults.items():
        assert parts(**given) == clean | {name: value}
    assert score_of(parts()) == pytest.approx(0.98)


def test_column_of_two_types_costs_consistency_and_a_plain_cast_does_not() -> None:
    casts = {"id": "Int32, Int64 -> Int64", "kilos": "Int64 -> Float64"}
    parts = parts_of(SPEC, measured(validated=a_validation(casts=casts)), required=())
    assert parts["consistency"] == pytest.approx((1 + 2 / 3) / 2, abs=1e-6)


def test_empty_batch_has_a_score_and_no_division_by_nothing() -> None:
    empty = a_validation(rows_in=0, rows_accepted=0, rows_quarantined=0, reasons={}, accepted=())
    assert 0 <= score_of(parts_of(SPEC, measured(Profile(rows=0, columns=()), empty), required=())) <= 1


# ----------------------------------------------------------------------------------------------------------- anomalies


def test_figure_far_from_its_history_is_told_with_its_numbers() -> None:
    history = [{"missing kilos, as a share": share} for share in (0.05, 0.06, 0.05, 0.07, 0.06)]
    [told] = anomalies({"missing kilos, as a share": 0.42}, history)
    assert told.startswith("missing kilos: 42.0%, the median of 5 earlier snapshots is 6.0% (robust z +")
    assert anomalies({"missing kilos, as a share": 0.08}, history) == ()
    assert anomalies({"missing kilos, as a share": 0.42}, history[1:]) == (), "four snapshots are no history"


def test_history_that_never_moved_does_not_make_every_trifle_unusual() -> None:
    history = [{"accepted rows": 1000.0}] * 8
    assert anomalies({"accepted rows": 1100.0}, history) == ()
    assert len(anomalies({"accepted rows": 1300.0}, history)) == 1


def test_mean_near_zero_is_seen_against_the_spread_of_its_column() -> None:
    history = [{"mean of tilt": 0.001 * turn} for turn in range(6)]
    now = {"standard deviation of tilt": 1.0}
    assert anomalies(now | {"mean of tilt": 0.1}, history) == ()
    assert len(anomalies(now | {"mean of tilt": 0.5}, history)) == 1


def test_reason_that_was_never_there_counts_as_nothing_before_and_one_that_went_away_is_seen() -> None:
    fault = "rows refused by 'days: above 30', as a share"
    assert len(anomalies({fault: 0.1}, [{}] * 5)) == 1
    assert len(anomalies({}, [{fault: 0.1}] * 5)) == 1


def test_one_odd_snapshot_of_the_past_hides_no_odd_one_now() -> None:
    past = [1000.0, 1010.0, 990.0, 1005.0, 995.0, 50_000.0]
    assert len(anomalies({"accepted rows": 40_000.0}, [{"accepted rows": rows} for rows in past])) == 1


def test_figures_hold_every_count_that_can_go_wrong() -> None:
    figures = figures_of(measured(a_profile(missing=9), a_validation(warnings={"w": 9}, cleaned={"kilos: clip": 18})))
    assert figures == {
        "accepted rows": 90.0,
        "rows for each file": 50.0,
        "repeated rows, as a share": 0.0,
        "rows refused by 'days: above 30', as a share": 0.1,
        "warnings of 'w', as a share": 0.1,
        "cells cleaned by 'kilos: clip', as a share": 0.2,
        "missing id, as a share": 0.0,
        "mean of id": 4.0,
        "standard deviation of id": 0.0,
        "missing kilos, as a share": 0.1,
        "mean of kilos": 2.0,
        "standard deviation of kilos": 0.0,
        "missing sent_at, as a share": 0.0,
    }
