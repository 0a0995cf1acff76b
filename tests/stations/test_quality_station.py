from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ferroflow.adapters.home import Home
from ferroflow.adapters.storage import atomic_parquet, parse_record
from ferroflow.core.errors import SpecError
from ferroflow.core.profile import Profile
from ferroflow.core.records import Quality, Snapshot, Unreadable, Validated
from ferroflow.core.spec import Fresh, Known, LikeBefore, NullShare, PipelineSpec, RowCount, UniqueShare
from ferroflow.stations.quality import assess
from serving.reports import page_of
from tests.parcels import AS_OF, NOW, parcels

Judged = Callable[..., Quality]


def a_batch(number: int, home: Home, kilos: float = 2.5, bad: int = 2, missing: int = 4) -> tuple[Snapshot, Validated]:
    """Forty parcels, of which ``bad`` are refused; written as the stations before would."""
    folder = home.data("parcels") / "validated" / str(number)
    rows = 40 - bad
    days = [datetime(2024, 3, 1, tzinfo=UTC) + timedelta(hours=12 * row) for row in range(rows)]
    accepted = pl.DataFrame(
        {
            "id": range(rows),
            "sent": [day.replace(tzinfo=None) for day in days],
            "city": [1 + row % 2 for row in range(rows)],
            "kilos": [None if row < missing else kilos + row % 7 / 10 for row in range(rows)],
            "days": [2.0 + row % 3 for row in range(rows)],
            "sent_at": days,
            "country": [("IS", "NO")[row % 2] for row in range(rows)],
            "row_id": [f"p{number}:{row}" for row in range(rows)],
            "ingested_at": [NOW] * rows,
        }
    )
    atomic_parquet(folder / "accepted.parquet", accepted)
    reasons = pl.Series("reasons", [["days: above 30"]] * bad, dtype=pl.List(pl.String))
    atomic_parquet(folder / "quarantined.parquet", pl.DataFrame({"reasons": reasons}))
    cities = home.data("parcels") / "references" / "cities.parquet"
    atomic_parquet(cities, pl.DataFrame({"city": ["1", "2"], "country": ["IS", "NO"]}))
    common: dict[str, Any] = {"pipeline": "parcels", "as_of": AS_OF}
    snapshot = Snapshot(
        **common, fingerprint=f"s{number}", parts=(), references={"cities": home.relative(cities)}, rows=40
    )
    validated = Validated(
        **common,
        fingerprint=f"v{number}",
        parent=snapshot.fingerprint,
        accepted=(home.relative(folder / "accepted.parquet"),),
        quarantined=(home.relative(folder / "quarantined.parquet"),),
        rows_in=40,
        rows_accepted=rows,
        rows_quarantined=bad,
        reasons={"days: above 30": bad} if bad else {},
        casts={},
    )
    return snapshot, validated


@pytest.fixture
def judged(home: Home) -> Judged:
    """Judge the batch of a number: ``judged(1, spec, kilos=9)``."""

    def call(number: int, spec: PipelineSpec | None = None, as_of: datetime = AS_OF, **batch: Any) -> Quality:
        return assess(spec or parcels(), *a_batch(number, home, **batch), as_of, home)

    return call


def with_rules(*rules: Any, **given: Any) -> PipelineSpec:
    return replace(parcels(), rules=rules, **given)


def test_good_rows_pass_with_a_score_a_profile_and_a_page_that_the_service_shows(home: Home, judged: Judged) -> None:
    rules = (
        RowCount(at_least=38),
        Fresh(within="31d"),
        NullShare(column="kilos", at_most=0.11),
        UniqueShare(columns=("id", "sent")),
        Known(column="city", reference="cities", key="city"),
    )
    told = judged(1, with_rules(*rules))
    assert told.passed and told.reason == "7 rules were looked at, all hold"
    assert (told.parent, told.parts["validity"], told.anomalies) == ("v1", 0.95, ())
    assert told.parts["completeness"] == pytest.approx(1 - 4 / 38, abs=1e-6), "of kilos alone, which may be missing"
    kept = parse_record(home.absolute(told.profile).read_bytes(), Profile)
    assert [column.name for column in kept.columns] == ["id", "sent", "city", "kilos", "days", "sent_at", "country"]
    page = page_of(home, f"/reports/parcels/{Path(told.page).name}")
    assert page is not None and b"Good enough" in page


def test_batch_with_too_many_refused_rows_does_not_pass_and_its_page_says_why(home: Home, judged: Judged) -> None:
    told = judged(1, bad=11)
    assert not told.passed
    assert told.reason == "11 of 40 rows were refused (27.5%), at most 25.0% may be, most of all 'days: above 30'"
    assert "most of all" in home.absolute(told.page).read_text()


def test_same_rows_are_judged_once_and_a_lost_page_is_drawn_again(home: Home, judged: Judged) -> None:
    first = judged(1)
    files = {path: path.stat().st_mtime_ns for path in home.root.rglob("quality*") if path.is_file()}
    assert judged(1, as_of=AS_OF + timedelta(days=1)).fingerprint == first.fingerprint
    assert {path: path.stat().st_mtime_ns for path in files} == files
    page = home.absolute(first.page)
    drawn = page.read_bytes()
    page.unlink()
    assert judged(1) == first and page.read_bytes() == drawn


def test_judgement_that_was_killed_before_its_record_comes_out_the_same(home: Home, judged: Judged) -> None:
    judged(1)
    spec = with_rules(LikeBefore(columns=("kilos", "country")))
    first = judged(2, spec, kilos=3.0)
    record = home.data("parcels") / "quality" / f"{first.fingerprint}.json"
    files = [record, home.absolute(first.page), home.absolute(first.profile)]
    before = [file.read_bytes() for file in files]
    record.unlink()
    assert judged(2, spec, kilos=3.0) == first
    assert [file.read_bytes() for file in files] == before


def test_freshness_is_judged_anew_at_each_moment(judged: Judged) -> None:
    spec = with_rules(Fresh(within="15d"))
    soon, late = judged(1, spec), judged(1, spec, as_of=AS_OF + timedelta(days=30))
    assert (soon.passed, late.passed) == (True, False)
    assert soon.parts["timeliness"] == 1 > late.parts["timeliness"]


def test_changed_rule_is_a_new_judgement_of_the_same_rows(judged: Judged) -> None:
    assert judged(1, with_rules(RowCount(at_least=38))).passed
    assert not judged(1, with_rules(RowCount(at_least=39))).passed


def test_rows_are_held_against_the_last_good_snapshot_and_never_against_a_refused_one(judged: Judged) -> None:
    spec = with_rules(LikeBefore(columns=("kilos",)), RowCount(at_least=1))
    assert "no earlier good snapshot" in judged(1, spec).rules[-2].reason
    refused = judged(2, spec, kilos=50.0)
    assert not refused.passed and "kilos has moved by PSI" in refused.reason
    again = judged(3, spec, kilos=50.0)
    assert not again.passed, "what was refused yesterday is no measure for today"
    assert judged(4, spec).passed


def test_judgement_of_the_past_knows_nothing_of_later_snapshots(judged: Judged) -> None:
    spec = with_rules(LikeBefore(columns=("kilos",)))
    judged(1, spec, kilos=50.0, as_of=AS_OF + timedelta(days=1))
    assert judged(2, spec).passed


def test_share_that_a_reference_does_not_know_is_measured_across_types(judged: Judged, home: Home) -> None:
    snapshot, validated = a_batch(1, home)
    atomic_parquet(home.absolute(snapshot.references["cities"]), pl.DataFrame({"city": ["2", "x"]}))
    rule = Known(column="city", reference="cities", key="city", at_least=0.6)
    told = assess(with_rules(rule), snapshot, validated, AS_OF, home)
    assert (told.passed, told.rules[-1].value) == (False, 0.5)


def test_warning_does_not_stop_a_batch(judged: Judged) -> None:
    told = judged(1, with_rules(NullShare(column="kilos", at_most=0.0, severity="warning")))
    assert told.passed and not told.rules[-1].passed
    assert "1 warn: 10.53% of kilos is missing" in told.reason


def test_unreadable_file_stops_a_batch_unless_the_pipeline_allows_it(home: Home) -> None:
    snapshot, validated = a_batch(1, home)
    fields: dict[str, Any] = {"origin": "landing", "address": "a", "sha256": "0", "size": 3, "path": "p"}
    broken = Unreadable(file="broken.csv", reason="no table: <zip> bytes", seen_at=NOW, **fields)
    snapshot = snapshot.model_copy(update={"unreadable": (broken,)})
    told = assess(parcels(), snapshot, validated, AS_OF, home)
    assert not told.passed and told.reason == "1 file could not be read, at most 0 may be"
    assert "no table: &lt;zip&gt; bytes" in home.absolute(told.page).read_text()
    assert assess(replace(parcels(), max_unreadable=1), snapshot, validated, AS_OF, home).passed


def test_rows_that_are_only_there_again_cost_uniqueness_and_not_validity(home: Home) -> None:
    snapshot, validated = a_batch(1, home, bad=20)
    again = ["row: superseded by p2:1"]
    rows = [again] * 15 + [["row: duplicate of row 3"]] * 3 + [[*again, "days: above 30"], ["days: above 30"]]
    atomic_parquet(home.absolute(validated.quarantined[0]), pl.DataFrame({"reasons": rows}))
    reasons = {"row: superseded": 16, "row: duplicate": 3, "days: above 30": 2}
    told = assess(parcels(), snapshot, validated.model_copy(update={"reasons": reasons}), AS_OF, home)
    assert told.passed, told.reason
    assert told.rules[0].value == pytest.approx(2 / 22)
    assert told.parts["uniqueness"] == pytest.approx(1 - 18 / 40)


def test_figure_unlike_six_earlier_snapshots_is_told_and_stops_nothing(judged: Judged) -> None:
    for number in range(6):
        judged(number, bad=number % 2, missing=3 + number % 2)
    told = judged(9, bad=1, missing=30)
    assert told.passed
    assert told.anomalies[0].startswith("missing kilos: 76.9%, the median of 6 earlier snapshots is 8.9%")


def test_rule_about_a_column_that_is_not_there_is_an_error_of_the_spec_and_leaves_nothing(
    home: Home, judged: Judged
) -> None:
    with pytest.raises(SpecError, match="'weight', which is no column"):
        judged(1, with_rules(NullShare(column="weight", at_most=0.1)))
    assert not (home.data("parcels") / "quality").exists() and not home.reports("parcels").exists()


def test_no_value_of_a_personal_column_is_in_record_profile_or_page(home: Home, judged: Judged) -> None:
    told = judged(1, with_rules(NullShare(column="kilos", at_most=0.5), personal=("kilos", "country")), kilos=71.25)
    written = home.absolute(told.profile).read_text() + home.absolute(told.page).read_text() + told.model_dump_json()
    assert "71.2" not in written and "NO" not in written.replace("NOT", "")
    assert "Personal: no value is kept or shown." in written


def test_batch_without_a_single_accepted_row_is_judged_too(judged: Judged) -> None:
    assert not judged(1, bad=40, missing=0).passed
