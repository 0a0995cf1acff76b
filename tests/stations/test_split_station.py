from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from ferroflow.adapters.home import Home
from ferroflow.core.errors import DataError, SpecError
from ferroflow.core.records import Split
from ferroflow.core.spec import ByColumn, ByTime, Holdout
from ferroflow.stations.split import split
from tests.stations.judging import AS_OF, table, toy, trips

PARTS = ("train", "validation", "test")


def read(found: Split, home: Home) -> dict[str, pl.DataFrame]:
    return {part: pl.read_parquet(home.absolute(found.paths[part])) for part in PARTS}


def test_parts_follow_each_other_in_time_and_hold_every_row(home: Home):
    rows = trips(2_000, AS_OF, 30)
    found = split(toy(), table(toy(), rows, home), home)
    parts = read(found, home)
    assert sum(found.rows.values()) == sum(part.height for part in parts.values()) == rows.height
    assert parts["train"]["happened_at"].max() < parts["validation"]["happened_at"].min()
    assert parts["validation"]["happened_at"].max() < parts["test"]["happened_at"].min()
    # Eight days ago New York changed its clocks: the validation window begins at five o'clock UTC.
    assert found.boundaries["test_until"] == "2023-03-20T04:00:00+00:00"
    assert found.boundaries["validation_until"] == "2023-03-13T04:00:00+00:00"
    assert found.boundaries["train_until"] == "2023-03-06T05:00:00+00:00"


def test_a_bounded_training_window_leaves_older_rows_out(home: Home):
    protocol = ByTime(train="5d", validation="2d", test="1d")
    found = split(toy(), table(toy(), trips(3_000, AS_OF, 30), home), home, protocol=protocol)
    train = read(found, home)["train"]
    assert train["happened_at"].min() >= datetime(2023, 3, 12, 5, tzinfo=UTC)
    assert found.boundaries["train_from"] == "2023-03-12T05:00:00+00:00"


def test_a_half_life_weights_the_training_rows_only(home: Home):
    found = split(toy(), table(toy(), trips(1_000, AS_OF, 30), home), home, half_life="3d")
    parts = read(found, home)
    assert found.weighted
    assert parts["train"].sort("happened_at")["weight"].is_sorted()
    assert 0 < parts["train"]["weight"].min() < parts["train"]["weight"].max() <= 1
    assert "weight" not in parts["test"].columns


def test_the_same_table_is_split_once_and_another_protocol_makes_another_split(home: Home):
    features = table(toy(), trips(1_000, AS_OF, 30), home)
    first = split(toy(), features, home)
    written = home.absolute(first.paths["train"]).stat().st_mtime_ns
    assert split(toy(), features, home) == first
    assert home.absolute(first.paths["train"]).stat().st_mtime_ns == written
    other = split(toy(), features, home, protocol=ByTime(validation="2d", test="2d"))
    assert other.fingerprint != first.fingerprint


def test_a_split_killed_before_its_manifest_is_made_again(home: Home):
    features = table(toy(), trips(1_000, AS_OF, 30), home)
    first = split(toy(), features, home)
    home.absolute(first.paths["train"]).write_bytes(b"half a file")
    (home.absolute(first.paths["train"]).parent / "manifest.json").unlink()
    assert split(toy(), features, home) == first
    assert read(first, home)["train"].height == first.rows["train"]


def test_a_table_that_ends_before_the_test_window_is_told_with_its_span(home: Home):
    old = trips(1_000, AS_OF - timedelta(days=10), 30)
    with pytest.raises(DataError, match=r"no row to test on.*\[2023-03-13 00:00, 2023-03-20 00:00\).*1,000 rows from"):
        split(toy(), table(toy(), old, home), home)


def test_an_official_test_split_needs_no_clock(home: Home):
    spec = toy(
        split=ByColumn(column="zone", test="wild"),
        source=toy().source.__class__(files=toy().source.files, format="csv"),
    )
    features = table(spec, trips(2_000, AS_OF, 30), home)
    parts = read(split(spec, features, home), home)
    assert parts["test"]["zone"].unique().to_list() == ["wild"]
    assert 0.15 < parts["validation"].height / (parts["train"].height + parts["validation"].height) < 0.25
    with pytest.raises(SpecError, match="no time column"):
        split(spec, features, home, half_life="3d")
    with pytest.raises(SpecError, match="no time column"):
        split(spec, features, home, protocol=ByTime(validation="1d", test="1d"))


def test_lent_validation_rows_train_and_are_the_youngest_rows_that_do(home: Home):
    protocol = ByTime(validation="4d", test="1d", validation_share=0.3)
    features = table(toy(), trips(6_000, AS_OF, 30), home)
    found = split(toy(), features, home, protocol=protocol, half_life="3d")
    parts = read(found, home)
    assert sum(found.rows.values()) == features.rows
    ids = [set(part["row_id"]) for part in parts.values()]
    assert not ids[0] & ids[1]
    assert found.rows["validation"] == pytest.approx(0.3 * 800, rel=0.2)
    assert parts["train"]["happened_at"].max() > parts["validation"]["happened_at"].min()
    assert parts["train"]["weight"].max() <= 1


def test_another_seed_draws_another_split(home: Home):
    spec = toy(split=ByColumn(column="zone", test="wild"))
    features = table(spec, trips(1_000, AS_OF, 30), home)
    other = replace(spec, tuning=replace(spec.tuning, seed=spec.tuning.seed + 1))
    first, second = split(spec, features, home), split(other, features, home)
    assert read(first, home)["validation"]["row_id"].to_list() != read(second, home)["validation"]["row_id"].to_list()


def test_rows_without_a_time_are_split_once_whatever_the_moment(home: Home):
    source = toy().source.__class__(files=toy().source.files, format="csv")
    spec = toy(split=ByColumn(column="zone", test="wild"), source=source)
    rows = trips(1_000, AS_OF, 30)
    first = split(spec, table(spec, rows, home), home)
    assert split(spec, table(spec, rows, home, AS_OF + timedelta(days=1)), home) == first
    timed = toy(split=ByColumn(column="zone", test="wild"))
    names = {split(timed, table(timed, rows, home, AS_OF + timedelta(days=day)), home).fingerprint for day in (0, 1)}
    assert len(names) == 2


def test_a_holdout_splits_rows_without_a_time_and_never_weighs_them(home: Home):
    source = toy().source.__class__(files=toy().source.files, format="csv")
    spec = toy(split=Holdout(validation=0.1, test=0.3), source=source)
    features = table(spec, trips(3_000, AS_OF, 30), home)
    found = split(spec, features, home)
    assert sum(found.rows.values()) == features.rows
    assert found.rows["test"] == pytest.approx(900, rel=0.15)
    assert found.boundaries == {"test": "0.3 of the rows", "validation": "0.1 of the rows"}
    with pytest.raises(SpecError, match="no time column"):
        split(spec, features, home, half_life="3d")
