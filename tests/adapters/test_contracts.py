from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pandera.polars as pa
import polars as pl
import pytest
from pandera.polars import Field

from ferroflow.adapters.contracts import feature_code, serving_contract
from ferroflow.adapters.home import Home
from ferroflow.core.cells import BadValue, cell
from ferroflow.core.contract import ServingContract
from ferroflow.core.errors import SpecError
from ferroflow.core.spec import Classification, Clip, Deduplicate, Default, PipelineSpec, Replace, Trim
from ferroflow.core.validation import ROW, check_rows
from tests.toy_model import INPUTS, Trip, trained

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)


def contract_of(home: Home) -> ServingContract:
    made = trained(home)
    return serving_contract(made.spec, made.model, {"model": "m"})


def test_request_bounds_are_the_schemas_made_inclusive(home: Home) -> None:
    fields = {entry.name: entry for entry in contract_of(home).fields}
    assert (fields["zone"].type, fields["zone"].minimum, fields["zone"].maximum) == ("integer", 1, 265)
    assert fields["distance"].minimum == math.nextafter(0, 1)
    assert fields["distance"].maximum == 50
    assert fields["distance"].nullable and not fields["zone"].nullable
    assert fields["colour"].choices == ("red", "green")
    assert fields["colour"].description == "Colour"
    assert (fields["asked_at"].type, fields["asked_at"].minimum) == ("time", None)


def test_targets_bounds_are_the_schemas_and_in_range_counts(home: Home) -> None:
    assert (contract_of(home).target_minimum, contract_of(home).target_maximum) == (0, None)

    class Bounded(Trip):
        minutes: pl.Float64 = Field(in_range={"min_value": 1, "max_value": 60})

    made = trained(home)
    found = serving_contract(replace(made.spec, schema=Bounded), made.model, {})
    assert (found.target_minimum, found.target_maximum, found.classes) == (1, 60, ())


def test_classes_are_the_schemas_and_else_those_of_the_training_rows(home: Home) -> None:
    made = trained(home)
    listed = replace(made.spec, target=Classification("colour", positive="red"), inputs=("zone", "asked_at"))
    assert serving_contract(listed, made.model, {}, seen=("x", "y")).classes == ("green", "red")

    class Free(Trip):
        colour: pl.String

    found = serving_contract(replace(listed, schema=Free), made.model, {}, seen=("x", "y"))
    assert (found.classes, found.positive) == (("x", "y"), "red")


def test_the_target_is_never_asked_for(home: Home) -> None:
    contract = contract_of(home)
    assert [entry.name for entry in contract.fields] == ["zone", "distance", "colour", "asked_at"]
    assert contract.target == "minutes"
    assert contract.time == "asked_at"


def test_features_are_named_as_the_model_takes_them(home: Home) -> None:
    contract = contract_of(home)
    assert contract.request_features == ("tests.toy_model:clock",)
    [view] = contract.stored
    assert (view.on, view.ttl_seconds, view.features) == ("zone", 7200, ("mean",))
    assert list(contract.inputs) == list(INPUTS)
    assert f"{view.view}__{view.features[0]}" in contract.inputs


def test_contract_survives_its_file(home: Home) -> None:
    contract = contract_of(home)
    assert ServingContract.model_validate_json(contract.model_dump_json()) == contract


def test_feature_code_changes_with_the_code(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "some_features.py").write_text("a = 1")
    before = feature_code(["some_features:a"])
    (tmp_path / "some_features.py").write_text("a = 2")
    assert feature_code(["some_features:a"]) != before
    assert feature_code([]) == ""


def test_an_input_that_no_request_can_carry_is_told(home: Home) -> None:
    class Listed(Trip):
        zone: pl.List = Field()

    class Shorter(pa.DataFrameModel):
        distance: pl.Float64

    made = trained(home)
    with pytest.raises(SpecError, match=r"'zone' .* is List"):
        serving_contract(replace(made.spec, schema=Listed), made.model, {})
    with pytest.raises(SpecError, match="'zone' of pipeline 'toy' is no column of Shorter"):
        serving_contract(replace(made.spec, schema=Shorter), made.model, {})


@pytest.mark.parametrize(
    ("name", "rules", "values"),
    [
        (
            "zone",
            (Replace("zone", {-1: None, 7: 8}), Default("zone", 3), Clip("zone", high=265)),
            [-1, 7, None, 999, 4, -5],
        ),
        ("distance", (Clip("distance", low=1, high=40),), [0.0, 1e9, 5.5, None]),
        ("colour", (Trim("colour", "*"), Replace("colour", {"rot": "red"})), ["*red*", " rot", "* *", "green", "blue"]),
        (
            "asked_at",
            (Default("asked_at", datetime(2024, 1, 1, tzinfo=UTC)),),
            [None, datetime(2023, 5, 1, tzinfo=UTC)],
        ),
    ],
)
def test_request_gets_the_values_that_training_got(home: Home, name: str, rules: Any, values: list[Any]) -> None:
    made = trained(home)
    spec: PipelineSpec = replace(made.spec, cleaning=(*rules, Deduplicate()))
    field = next(f for f in serving_contract(spec, made.model, {}).fields if f.name == name)

    class Only(Trip):
        @classmethod
        def to_schema(cls) -> pa.DataFrameSchema:
            return pa.DataFrameSchema({name: Trip.to_schema().columns[name]})

    raw = pl.DataFrame({name: pl.Series(values)}).with_row_index(ROW, 1)
    checked = check_rows(raw, Only, cleaning=rules)
    trained_on = dict(checked.accepted.rows())
    for row, value in enumerate(values, start=1):
        try:
            served = cell(field, value)
        except BadValue:
            assert row not in trained_on
            continue
        assert served == trained_on[row]
