from __future__ import annotations

import itertools
from typing import Any

import pandera.polars as pa
import polars as pl
import pytest
from pandera.polars import Field

from ferroflow.core.errors import SpecError
from ferroflow.core.evolution import Evolved, judge
from ferroflow.core.sources import Evolution


class Ride(pa.DataFrameModel):
    """Raw columns zone, fare_amount and perhaps fee; day and sensors are made or matched."""

    zone: pl.Int32
    fare_amount: pl.Float64 = Field(nullable=True)
    fee: pl.Float64 | None = Field(nullable=True)
    day: pl.Date


AS_IT_SHOULD = {"zone": "Int32", "fare_amount": "Float64", "fee": "Float64"}


def judged(columns: dict[str, str], schema: Any = Ride, **policy: Any) -> Evolved:
    return judge(columns, schema, {"day"}, Evolution(**policy))


def test_columns_of_the_schema_differ_in_nothing_whatever_the_policy() -> None:
    strict = judged(AS_IT_SHOULD, added="stop", missing="stop", retyped="stop")
    assert strict == Evolved({}, (), None, None, ())
    assert judged({"zone": "Int32", "fare_amount": "Float64"}, missing="stop") == strict  # fee may be absent


CHANGED = {
    "added": (AS_IT_SHOULD | {"tip": "Float64"}, "+ tip (Float64)"),
    "missing": ({"zone": "Int32"}, "- fare_amount"),
    "retyped": (AS_IT_SHOULD | {"zone": "Int64"}, "~ zone: Int64 -> Int32"),
}


@pytest.mark.parametrize(
    ("kind", "policy"), [*itertools.product(CHANGED, ["accept", "quarantine", "stop"]), ("retyped", "cast")]
)
def test_each_kind_of_change_does_what_its_policy_says_and_is_always_told(kind: str, policy: str) -> None:
    columns, line = CHANGED[kind]
    calm = dict.fromkeys(CHANGED, "accept")
    found = judged(columns, **calm | {kind: policy})
    assert found.differences == (line,)
    assert found.absent == (("fare_amount",) if kind == "missing" and policy in ("accept", "cast") else ())
    assert found.quarantine == (f"columns: {line}" if policy == "quarantine" else None)
    if policy == "stop":
        assert found.stop is not None
        assert line in found.stop
        assert f"{kind}='stop'" in found.stop
        assert "Ways out: " in found.stop
    else:
        assert found.stop is None


def test_defaults_stop_for_a_missing_column_only_and_tell_what_came() -> None:
    found = judged({"zone": "Int64", "tip": "Float64"})
    assert found.stop is not None
    assert "Ride: - fare_amount. These came: zone, tip." in found.stop
    assert "+ tip" not in found.stop
    assert found.differences == ("- fare_amount", "+ tip (Float64)", "~ zone: Int64 -> Int32")


def test_stop_goes_before_quarantine_and_both_before_nulls() -> None:
    columns = {"zone": "Int64", "tip": "Float64"}
    found = judged(columns, missing="accept", added="quarantine", retyped="stop")
    assert (found.quarantine, found.absent) == (None, ())
    assert found.stop is not None
    assert found.stop.startswith("The columns are not those of Ride: ~ zone: Int64 -> Int32.")
    refused = judged(columns, missing="quarantine", added="quarantine", retyped="cast")
    assert refused.quarantine == "columns: - fare_amount; + tip (Float64)"


def test_text_is_never_retyped_and_a_column_without_values_is_told_only() -> None:
    assert judged(dict.fromkeys(AS_IT_SHOULD, "String"), retyped="stop").differences == ()
    assert judged(AS_IT_SHOULD | {"fee": "Categorical"}, retyped="stop").stop is None
    empty = judged(AS_IT_SHOULD | {"fee": "Null"}, retyped="stop")  # real taxi months: Null, later Float64
    assert empty == Evolved({}, (), None, None, ("~ fee: Null -> Float64",))


@pytest.mark.parametrize("spelt", ["FareAmount", "fare amount", "Fare_Amount", "fare_amout", "FARE-AMOUNT "])
def test_missing_column_that_came_under_a_like_name_suggests_the_renaming(spelt: str) -> None:
    found = judged({"zone": "Int32", spelt: "Float64"})
    assert found.stop is not None
    assert f"Evolution(renamed={{{spelt!r}: 'fare_amount'}})" in found.stop


def test_unlike_names_are_not_suggested() -> None:
    found = judged({"zone": "Int32", "tip_total": "Float64"})
    assert found.differences == ("- fare_amount", "+ tip_total (Float64)")


def test_declared_renaming_is_neither_missing_nor_added_and_its_type_is_judged() -> None:
    policy = {"renamed": {"fare": "fare_amount"}, "added": "stop", "missing": "stop"}
    found = judged({"zone": "Int32", "fare": "Int64"}, **policy)
    assert (found.rename, found.stop) == ({"fare": "fare_amount"}, None)
    assert found.differences == ("= fare -> fare_amount", "~ fare_amount: Int64 -> Float64")
    assert judged(AS_IT_SHOULD, **policy).rename == {}


def test_old_name_beside_the_new_one_is_an_added_column() -> None:
    found = judged(AS_IT_SHOULD | {"fare": "Float64"}, renamed={"fare": "fare_amount"})
    assert (found.rename, found.differences) == ({}, ("+ fare (Float64)",))


def test_two_old_names_of_one_column_stop_whatever_the_policy() -> None:
    columns = {"zone": "Int32", "fare": "Float64", "price": "Float64"}
    found = judged(columns, renamed={"fare": "fare_amount", "price": "fare_amount"}, missing="accept")
    assert found.stop is not None
    assert "'fare' and 'price' came both" in found.stop
    one = judged({"zone": "Int32", "price": "Float64"}, renamed={"fare": "fare_amount", "price": "fare_amount"})
    assert one.rename == {"price": "fare_amount"}


class Sensors(pa.DataFrameModel):
    """One column for each sensor."""

    at: pl.Int64
    readings: pl.Float64 = Field(alias="^sensor_\\d+$", regex=True)


def test_columns_of_a_pattern_are_named_by_the_schema_and_one_of_them_has_to_come() -> None:
    found = judged({"at": "Int64", "sensor_1": "Float64", "sensor_2": "Int64", "sensor_x": "Float64"}, Sensors)
    assert found.differences == ("+ sensor_x (Float64)", "~ sensor_2: Int64 -> Float64")
    none = judged({"at": "Int64"}, Sensors, missing="accept")
    assert (none.differences, none.absent) == (("- ^sensor_\\d+$",), ())


@pytest.mark.parametrize(
    "policy", [{"missing": "quarantined"}, {"added": "stopp"}, {"retyped": ""}, {"added": "cast"}, {"missing": "cast"}]
)
def test_policy_that_is_no_word_or_casts_what_has_no_cell_is_refused_with_the_words(policy: dict[str, Any]) -> None:
    ((kind, word),) = policy.items()
    words = "'accept', 'cast', 'quarantine', 'stop'" if kind == "retyped" else "'accept', 'quarantine', 'stop'"
    with pytest.raises(SpecError) as refused:
        Evolution(**policy)
    assert f"Evolution({kind}={word!r}) is no policy: write one of {words}. Of the words" in str(refused.value)
    assert "'accept', 'cast', 'quarantine' and 'stop', 'cast' is for retyped= only" in str(refused.value)
