from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ferroflow.adapters.home import Home
from ferroflow.adapters.ledger import Ledger, before, serving
from ferroflow.core.errors import RegistryError
from ferroflow.core.records import Deployment

REST = "pipeline, '2', previous, action, model, cause, at_us, why FROM deployments"
AT = datetime(2023, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def line(ledger: Ledger, version: str, action: Any = "promoted", cause: str = "verdict") -> Deployment:
    return ledger.append("toy", version, action, model="m", previous=None, cause=cause, at=AT, why="because")


def test_promoting_twice_for_the_same_verdict_is_one_line(home: Home) -> None:
    ledger = Ledger(home.ledger)
    first = line(ledger, "1")
    again = ledger.append(
        "toy", "1", "promoted", model="m", previous="9", cause="verdict", at=AT + timedelta(days=1), why="otherwise"
    )
    assert again == first
    assert ledger.history("toy") == [first]
    assert first.at == AT


def test_the_same_version_judged_again_is_another_line(home: Home) -> None:
    ledger = Ledger(home.ledger)
    assert [line(ledger, "1", "rejected", cause).entry for cause in ("a", "b")] == [1, 2]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE deployments SET why = 'nothing happened'",
        "DELETE FROM deployments",
        f"INSERT OR REPLACE INTO deployments SELECT entry, {REST}",
        f"INSERT OR REPLACE INTO deployments SELECT entry + 9, {REST}",
    ],
)
def test_what_is_written_cannot_be_changed_or_removed(home: Home, statement: str) -> None:
    ledger = Ledger(home.ledger)
    written = line(ledger, "1")
    with closing(sqlite3.connect(home.ledger)) as file, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        file.execute(statement)
    assert ledger.history("toy") == [written]


def test_a_second_rollback_goes_further_back_and_not_forth(home: Home) -> None:
    ledger = Ledger(home.ledger)
    for version in ("1", "2", "3"):
        line(ledger, version)
    line(ledger, "4", "rejected")
    told = before(ledger.history("toy"))
    assert told is not None and told.version == "2"
    line(ledger, "2", "rolled back")
    now, told = serving(ledger.history("toy")), before(ledger.history("toy"))
    assert now is not None and told is not None
    assert (now.version, told.version) == ("2", "1")
    line(ledger, "1", "rolled back")
    assert before(ledger.history("toy")) is None


def test_a_rejected_version_never_served(home: Home) -> None:
    ledger = Ledger(home.ledger)
    line(ledger, "1", "rejected")
    assert serving(ledger.history("toy")) is None
    assert before(ledger.history("toy")) is None


def test_pipelines_have_their_own_histories_and_reading_makes_no_file(home: Home) -> None:
    assert Ledger(home.ledger).history("toy") == []
    assert not home.ledger.exists()
    line(Ledger(home.ledger), "1")
    assert Ledger(home.ledger).history("other") == []


def test_a_damaged_ledger_is_told_by_name(home: Home) -> None:
    home.root.mkdir(parents=True)
    home.ledger.write_bytes(b"no database at all" * 100)
    with pytest.raises(RegistryError, match=r"ledger\.db"):
        Ledger(home.ledger).history("toy")
