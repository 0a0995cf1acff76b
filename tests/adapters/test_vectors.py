"""Model inputs: each from where the contract says, and missing when it was not known."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferroflow.adapters.feast.rows import Watermark
from ferroflow.adapters.vectors import FIELD_TYPES, assemble, load_request_features
from ferroflow.core.contract import Field, ServingContract, StoredView
from ferroflow.core.errors import SpecError
from ferroflow.core.features import RequestFeatures

NOON = datetime(2023, 3, 1, 12, tzinfo=UTC)
TTL = 3600


def contract(**changes: Any) -> ServingContract:
    values: dict[str, Any] = {
        "pipeline": "toy",
        "model": "boosting",
        "fingerprint": "f",
        "task": "regression",
        "target": "y",
        "time": "t",
        "fields": (Field(name="zone", type="integer"), Field(name="t", type="time"), Field(name="x", type="number")),
        "stored": (StoredView(view="v", entity="zone", on="zone", ttl_seconds=TTL, features=("a", "b")),),
        "inputs": {"v__b": "float", "zone": "int", "x": "float", "twice": "float", "v__a": "float"},
    }
    return ServingContract(**(values | changes))


def twice() -> Sequence[pl.Expr]:
    return [(pl.col("x") * 2).alias("twice")]


REQUEST = [RequestFeatures(twice)]


class Store:
    """An online store in memory."""

    def __init__(
        self, entries: dict[int, tuple[int, list[float | None]]], watermarks: Sequence[int | None] = (5,)
    ) -> None:
        self.entries, self.watermarks, self.reads = entries, list(watermarks), 0

    def read(
        self, view: str, keys: Sequence[Any], features: Sequence[str]
    ) -> dict[Any, tuple[int, list[float | None]]]:
        self.reads += 1
        return {key: self.entries[key] for key in keys if key in self.entries}

    def watermark(self, view: str) -> Watermark | None:
        event = self.watermarks.pop(0) if len(self.watermarks) > 1 else self.watermarks[0]
        return None if event is None else Watermark(event, 7)


def us(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000


def rows(*given: tuple[int | None, datetime | None, float | None]) -> pl.DataFrame:
    schema = {"zone": FIELD_TYPES["integer"], "t": FIELD_TYPES["time"], "x": FIELD_TYPES["number"]}
    return pl.DataFrame(given, schema=schema, orient="row")


def test_inputs_come_in_the_contracts_order_and_types() -> None:
    frame = assemble(contract(), rows((1, NOON, 2.0)), Store({1: (us(NOON), [3.0, float("nan")])}), REQUEST).frame
    assert frame.rows() == [(None, 1, 2.0, 4.0, 3.0)]
    assert frame.columns == list(contract().inputs)
    assert frame.dtypes == [pl.Float64, pl.Int64, pl.Float64, pl.Float64, pl.Float64]


@given(st.integers(-2 * TTL, 2 * TTL))
def test_value_counts_from_its_moment_until_its_time_to_live_both_inclusive(age: int) -> None:
    store = Store({1: (us(NOON) - age * 1_000_000, [3.0, 4.0])})
    [value] = assemble(contract(), rows((1, NOON, 2.0)), store, REQUEST).frame["v__a"]
    assert (value == 3.0) == (0 <= age <= TTL)
    assert (value is None) == (not 0 <= age <= TTL)


def test_missing_and_stale_rows_are_counted_apart() -> None:
    store = Store({1: (us(NOON), [3.0, 4.0])})
    asked = rows(
        (1, NOON, 1.0), (2, NOON, 1.0), (1, NOON - timedelta(seconds=1), 1.0), (None, NOON, 1.0), (1, None, 1.0)
    )
    found = assemble(contract(), asked, store, REQUEST)
    assert found.frame["v__a"].to_list() == [3.0, None, None, None, None]
    assert (found.missing, found.stale) == ({"v": 2}, {"v": 2})


def test_store_that_is_away_gives_nulls_and_no_watermark() -> None:
    found = assemble(contract(), rows((1, NOON, 1.0)), None, REQUEST)
    assert found.frame["v__a"].to_list() == [None]
    assert found.watermarks == {"v": None}


def test_materialization_in_between_is_read_again() -> None:
    store = Store({1: (us(NOON), [3.0, 4.0])}, watermarks=[5, us(NOON), us(NOON)])
    found = assemble(contract(), rows((1, NOON, 1.0)), store, REQUEST)
    assert store.reads == 2
    assert found.watermarks == {"v": Watermark(us(NOON), 7)}


def test_rows_written_before_their_watermark_count_as_seen() -> None:
    found = assemble(contract(), rows((1, NOON, 1.0)), Store({1: (us(NOON), [3.0, 4.0])}, [5]), REQUEST)
    assert found.watermarks == {"v": Watermark(us(NOON), 7)}
    assert found.complete == {"v": 5}, "the store is complete no further than it says"


def test_a_view_that_is_complete_up_to_no_moment_says_so() -> None:
    found = assemble(contract(), rows((1, NOON, 1.0)), Store({1: (us(NOON), [3.0, 4.0])}, [None]), REQUEST)
    assert (found.watermarks, found.complete) == ({"v": Watermark(us(NOON), None)}, {"v": None})
    assert assemble(contract(), rows((1, NOON, 1.0)), None, REQUEST).complete == {"v": None}


def test_what_is_no_finite_number_is_missing_and_a_great_number_stays() -> None:
    endless = RequestFeatures(lambda: [(pl.col("x") / 0).alias("twice")])
    store = Store({1: (us(NOON), [float("inf"), 1e300])})
    frame = assemble(contract(), rows((1, NOON, 2.0), (1, NOON, -2.0), (1, NOON, 0.0)), store, [endless]).frame
    assert frame["twice"].to_list() == [None] * 3
    assert (frame["v__a"].to_list(), frame["v__b"].to_list()) == ([None] * 3, [1e300] * 3)


def test_without_an_event_time_the_clock_is_the_argument() -> None:
    timeless = contract(time=None, fields=(Field(name="zone", type="integer"), Field(name="x", type="number")))
    store = Store({1: (us(NOON), [3.0, 4.0])})
    asked = rows((1, None, 1.0)).drop("t")
    assert assemble(timeless, asked, store, REQUEST, now=NOON).frame["v__a"].to_list() == [3.0]
    assert assemble(timeless, asked, store, REQUEST, now=NOON - timedelta(seconds=1)).frame["v__a"].to_list() == [None]
    with pytest.raises(SpecError, match="need a clock"):
        assemble(timeless, asked, store, REQUEST)


def test_input_from_nowhere_is_named() -> None:
    with pytest.raises(SpecError, match="twice"):
        assemble(contract(), rows((1, NOON, 1.0)), None, [])


def test_feature_sees_the_requests_fields_and_nothing_else() -> None:
    peeking = RequestFeatures(lambda: [pl.col("label").alias("twice")])
    asked = rows((1, NOON, 1.0)).with_columns(label=pl.lit(1.0))
    with pytest.raises(pl.exceptions.ColumnNotFoundError):
        assemble(contract(), asked, None, [peeking])


def test_no_row_gives_no_row() -> None:
    assert assemble(contract(), rows(), Store({}), REQUEST).frame.shape == (0, 5)


@pytest.mark.parametrize("path", ["pipelines.nobody.features:x", "math:pi", "math:nothing"])
def test_request_features_that_are_not_there_are_told(path: str) -> None:
    with pytest.raises(SpecError, match=path.split(":")[0]):
        load_request_features(contract(request_features=(path,)))
