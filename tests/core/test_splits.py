from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from ferroflow.core.errors import DataError, SpecError
from ferroflow.core.spec import ByColumn, ByTime, Holdout, Retrain
from ferroflow.core.splits import before, by_column, by_hash, check_filled, check_time, retrain_protocol, weigh, windows

NEW_YORK = "America/New_York"


def test_a_day_before_midnight_is_midnight_although_the_clocks_changed():
    monday = datetime(2023, 3, 13, 4, tzinfo=UTC)  # midnight in summer time; the Sunday before had 23 hours
    assert before(monday, "1d", NEW_YORK) == datetime(2023, 3, 12, 5, tzinfo=UTC)
    assert before(monday, "6h", NEW_YORK) == monday - timedelta(hours=6)


def test_windows_touch_each_other_and_leave_no_gap():
    as_of = datetime(2023, 4, 1, 4, tzinfo=UTC)
    found = windows(ByTime(train="31d", validation="28d", test="31d"), as_of, NEW_YORK)
    assert found["test"] == (datetime(2023, 3, 1, 5, tzinfo=UTC), as_of)
    assert found["validation"] == (datetime(2023, 2, 1, 5, tzinfo=UTC), found["test"][0])
    assert found["train"] == (datetime(2023, 1, 1, 5, tzinfo=UTC), found["validation"][0])


def test_training_without_a_bound_has_no_start():
    found = windows(ByTime(validation="1d", test="1d"), datetime(2023, 4, 1, tzinfo=UTC), "UTC")
    assert found["train"][0] is None


def test_a_row_keeps_its_side_when_other_rows_come_or_go():
    rows = pl.DataFrame({"row_id": [f"a:{n}" for n in range(4_000)], "label": ["train", "test"] * 2_000})
    protocol = ByColumn(column="label", test="test", validation=0.25)
    whole, part = by_column(rows, protocol), by_column(rows.tail(1_000), protocol)
    assert set(part["validation"]["row_id"]) == set(whole["validation"]["row_id"]) & set(rows.tail(1_000)["row_id"])
    assert whole["test"]["label"].unique().to_list() == ["test"]
    assert sum(frame.height for frame in whole.values()) == rows.height
    assert whole["validation"].height / 2_000 == pytest.approx(0.25, abs=0.03)


def test_another_seed_draws_other_validation_rows():
    rows = pl.DataFrame({"row_id": [f"a:{n}" for n in range(500)], "label": ["train"] * 500})
    protocol = ByColumn(column="label", test="test")
    drawn = [by_column(rows, protocol, seed)["validation"]["row_id"].to_list() for seed in (0, 1)]
    assert drawn[0] != drawn[1]


def test_a_row_one_half_life_old_counts_half():
    end = datetime(2023, 4, 1, tzinfo=UTC)
    rows = pl.DataFrame(
        {"at": [end, end - timedelta(days=3), end - timedelta(days=6)]}, schema={"at": pl.Datetime("us", "UTC")}
    )
    assert weigh(rows, "at", end, "3d")["weight"].to_list() == pytest.approx([1.0, 0.5, 0.25])


def test_an_empty_part_is_told_with_the_window_the_rows_there_are_and_the_way_out():
    asked = {"train": "a", "validation": "b", "test": "time in [2023-03-01, 2023-04-01)"}
    with pytest.raises(DataError, match=r"no row to test on: none with time in \[2023-03-01.*holds 12 rows.*--as-of"):
        check_filled("toy", {"train": 9, "validation": 3, "test": 0}, asked, "12 rows")


def test_splitting_by_time_without_a_time_column_is_an_error_of_the_description():
    with pytest.raises(SpecError, match="'toy' is to be split or weighted by time"):
        check_time("toy", None)


def test_a_retraining_judges_on_the_holdout_and_keeps_an_official_test_split():
    found = retrain_protocol(Retrain(window="9d", validation="2d", holdout="1d"), ByTime(validation="28d", test="31d"))
    assert (found.train, found.validation, found.test) == ("9d", "2d", "1d")
    official = ByColumn(column="label", test="test")
    assert retrain_protocol(Retrain(), official) is official


def test_a_holdout_takes_its_shares_and_keeps_a_row_on_its_side_when_others_come() -> None:
    rows = pl.DataFrame({"row_id": [f"part:{row}" for row in range(4_000)]})
    protocol = Holdout(validation=0.1, test=0.3)
    whole, half = by_hash(rows, protocol), by_hash(rows.head(2_000), protocol)
    assert sum(frame.height for frame in whole.values()) == rows.height
    assert whole["test"].height / rows.height == pytest.approx(0.3, abs=0.03)
    assert whole["validation"].height / rows.height == pytest.approx(0.1, abs=0.02)
    for part, frame in half.items():
        assert set(frame["row_id"]) == set(whole[part]["row_id"]) & set(rows.head(2_000)["row_id"])
    assert by_hash(rows, protocol, seed=1)["test"]["row_id"].to_list() != whole["test"]["row_id"].to_list()


def test_a_holdout_that_leaves_nothing_to_train_on_is_no_split() -> None:
    with pytest.raises(SpecError, match="leave rows to train on"):
        Holdout(validation=0.5, test=0.5)


def test_a_retraining_keeps_a_holdout() -> None:
    assert retrain_protocol(Retrain(), Holdout()) == Holdout()
