from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ferroflow.adapters.profile_charts import number, share
from ferroflow.adapters.profile_page import write_quality_page
from ferroflow.core.profile import profile
from ferroflow.core.records import Quality, RuleResult, Snapshot, Validated
from tests.parcels import AS_OF, parcels

HOSTILE = "<script>alert('x')</script>&\"><img src=x onerror=1>"
VOID = {"meta", "link", "rect", "circle", "polyline"}


class Balance(HTMLParser):
    """Which elements a page has, and those that were never closed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag in VOID or self.open.pop() == tag


def rows(value: str = HOSTILE) -> pl.LazyFrame:
    return pl.LazyFrame(
        {
            "kilos": [1.0, 2.0, None, 4.0],
            "name": [value, value, "", None],
            "sent_at": [datetime(2024, 3, day + 1, tzinfo=UTC) for day in range(4)],
        }
    )


def drawn(path: Path, value: str = HOSTILE, before: bool = True, **given: Any) -> str:
    """The page about four rows that say ``value`` wherever something can be said."""
    common: dict[str, Any] = {"pipeline": "parcels", "as_of": AS_OF}
    snapshot = Snapshot(**common, fingerprint=value, parts=(), references={}, rows=5)
    counts = {"reasons": {value: 1}, "warnings": {value: 2}, "cleaned": {value: 3}}
    files: dict[str, Any] = {"accepted": (), "quarantined": (), "casts": {}}
    sizes = {"rows_in": 5, "rows_accepted": 4, "rows_quarantined": 1}
    validated = Validated(**common, fingerprint="v", **files, **sizes, **counts)
    rule = RuleResult(rule=value, severity="error", passed=False, value=None, reason=value)
    parts = dict.fromkeys(("completeness", "validity", "uniqueness", "timeliness", "consistency"), 0.5)
    fields = {"passed": False, "reason": value, "score": 0.5, "parts": parts, "rules": (rule,), "anomalies": (value,)}
    quality = Quality(**common, fingerprint="q", profile="p", page="q", **(fields | given))
    found = profile(rows(value), time="sent_at", before=profile(rows("b")))
    spec = replace(parcels(), description=value)
    write_quality_page(path, spec, snapshot, validated, quality, found, profile(rows("b")) if before else None)
    return path.read_text()


def test_page_is_whole_and_loads_nothing(tmp_path: Path) -> None:
    page = drawn(tmp_path / "reports" / "q.html", "plain")
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert "script" not in parser.seen and "img" not in parser.seen
    assert "http" not in page.replace("http-equiv", "")


def test_nothing_that_a_file_says_becomes_markup(tmp_path: Path) -> None:
    page = drawn(tmp_path / "q.html")
    assert "<script" not in page and "<img" not in page
    assert page.count("&lt;script&gt;") >= 8
    parser = Balance()
    parser.feed(page)
    assert parser.open == []


def test_page_tells_verdict_rule_anomaly_and_counts(tmp_path: Path) -> None:
    page = drawn(tmp_path / "q.html", "plain")
    assert ">Refused<" in page and ">fails<" in page
    assert "5 rows = 4 accepted + 1 quarantined" in page
    passed = drawn(tmp_path / "q.html", "plain", passed=True, rules=(), anomalies=())
    assert ">Good enough to go on<" in passed and "earlier good snapshots have it" in passed


def test_outline_of_the_last_good_snapshot_is_drawn_only_where_there_is_one(tmp_path: Path) -> None:
    assert "<polyline" in drawn(tmp_path / "q.html")
    alone = drawn(tmp_path / "q.html", before=False)
    assert "<polyline" not in alone and "the last good one" not in alone


@pytest.mark.parametrize(
    ("value", "told"), [(0.0004, "&lt; 0.1 %"), (0.99997, "&gt; 99.9 %"), (1.0, "100 %"), (0, "0 %")]
)
def test_share_never_hides_a_single_row(value: float, told: str) -> None:
    assert share(value) == told


@pytest.mark.parametrize(
    ("value", "kind", "told"),
    [
        (1_490_400.0, "number", "1,490,400"),
        (0.058312, "number", "0.05831"),
        (float("inf"), "number", "inf"),
        (1.7e14 * 10, "time", "2023-11-14 22:13"),
        (None, "number", "–"),
    ],
)
def test_number_reads_as_people_write_it(value: float | None, kind: str, told: str) -> None:
    assert number(value, kind) == told
