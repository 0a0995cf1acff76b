"""The prediction log: durable, once, and read back as it was written."""

from __future__ import annotations

import sqlite3
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ferroflow.adapters.predictions import PredictionLog, microseconds

NOON = datetime(2023, 3, 1, 12, tzinfo=UTC)


def row(name: str, **changes: Any) -> dict[str, Any]:
    values = {
        "id": name,
        "at": NOON,
        "version": "1",
        "event_time": None,
        "inputs": '{"a":1}',
        "features": '{"a":1.0}',
        "prediction": 0.1,
        "degraded": False,
        "watermarks": '{"v":5}',
    }
    return values | changes


def test_newest_event_time_is_the_latest_that_is_not_still_to_come(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path / "log.db")
    assert log.newest(NOON) is None
    log.append([row("without an event time")])
    assert log.newest(NOON) is None
    hours = {"old": -9, "newest": -2, "to come": 5}
    log.append([row(name, event_time=NOON + timedelta(hours=shift)) for name, shift in hours.items()])
    assert log.newest(NOON) == NOON - timedelta(hours=2)
    assert log.newest(NOON + timedelta(hours=5)) == NOON + timedelta(hours=5)


def test_asking_makes_no_file(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path / "log.db")
    assert log.read().height == 0
    assert log.get("x") is None
    assert log.add_labels([("x", 1.0)], NOON) == (0, ["x"], [])
    assert list(tmp_path.iterdir()) == []


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path / "deep" / "log.db")
    log.append([row("a", event_time=NOON - timedelta(microseconds=1), degraded=True)])
    found = PredictionLog(log.path).read()
    assert found.schema["at"] == found.schema["event_time"] == found.schema["labelled_at"] == pl.Datetime("us", "UTC")
    expected = row("a", event_time=NOON - timedelta(microseconds=1), degraded=True, label=None, labelled_at=None)
    assert found.row(0, named=True) == expected == log.get("a")
    assert log.read().schema == PredictionLog(tmp_path / "none.db").read().schema


def test_a_repeated_id_keeps_none_of_its_batch(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path / "log.db")
    log.append([row("a")])
    with pytest.raises(sqlite3.IntegrityError):
        log.append([row("b"), row("a")])
    assert log.read()["id"].to_list() == ["a"]
    log.append([row("b")])
    assert log.read()["id"].to_list() == ["a", "b"]


def test_window_goes_by_event_time_and_else_by_the_clock_and_leaves_its_end_out(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path / "log.db")
    early = NOON - timedelta(days=9)
    log.append([row("now"), row("replayed", event_time=early), row("end", event_time=NOON)])
    assert log.read(until=NOON)["id"].to_list() == ["replayed"]
    assert log.read(since=NOON)["id"].to_list() == ["end", "now"]
    assert log.read(since=early, until=early + timedelta(seconds=1))["id"].to_list() == ["replayed"]


def test_first_label_stays(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path / "log.db")
    log.append([row("a"), row("b")])
    assert log.add_labels([("a", 2.0), ("x", 1.0), ("a", 3.0)], NOON) == (1, ["x"], ["a"])
    assert log.add_labels([("a", 2.0), ("b", 4.0)], NOON) == (1, [], ["a"])
    assert log.read().select("id", "label").rows() == [("a", 2.0), ("b", 4.0)]


@pytest.mark.parametrize("folder", ["a#b", "a?mode=rwc", "100%25 home"])
def test_home_of_any_name_opens_its_own_log(tmp_path: Path, folder: str) -> None:
    log = PredictionLog(tmp_path / folder / "log.db")
    log.append([row("a")])
    assert PredictionLog(log.path).read()["id"].to_list() == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == [folder]


def test_deleted_file_is_noticed_instead_of_written_to_unseen(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path / "log.db")
    log.append([row("a")])
    for path in tmp_path.iterdir():
        path.unlink()
    log.append([row("b")])
    assert log.read()["id"].to_list() == ["b"]


def test_threads_and_readers_share_one_log(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path / "log.db")
    other = PredictionLog(log.path)

    def write(writer: PredictionLog, name: str) -> None:
        for number in range(20):
            writer.append([row(f"{name}{number}")])

    threads = [threading.Thread(target=write, args=(log if i % 2 else other, f"{i}-")) for i in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        log.read()
    assert log.read()["id"].n_unique() == 80


def test_microseconds_are_exact() -> None:
    assert microseconds(datetime(2023, 3, 1, 12, 0, 0, 1, tzinfo=UTC)) == 1_677_672_000_000_001
