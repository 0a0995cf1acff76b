"""Request features as functions."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest

from ferroflow.adapters.contracts import feature_code
from ferroflow.adapters.vectors import load_request_features
from ferroflow.core.aggregates import Aggregate, count
from ferroflow.core.contract import ServingContract
from ferroflow.core.definitions import Feature, feature, features
from ferroflow.core.errors import SpecError
from ferroflow.core.features import RequestFeatures


@feature
def log_distance(trip_distance: pl.Expr) -> pl.Expr:
    """Distance on a logarithmic scale."""
    return trip_distance.log1p()


@feature(owner="dispatch")
def late(local_hour: pl.Expr) -> pl.Expr:
    """Whether it is night."""
    return (local_hour >= 22).cast(pl.Float64)


@feature
def local_hour(pickup_at: pl.Expr) -> pl.Expr:
    return pickup_at.dt.convert_time_zone("America/New_York").dt.hour()


@feature
def late_distance(late: pl.Expr, log_distance: pl.Expr) -> pl.Expr:
    return late * log_distance


trip = features("trip", late_distance, late, log_distance, intermediate=[local_hour], description="A trip's own.")
FRAME = pl.DataFrame(
    {
        "trip_distance": [0.0, 3.0],
        "pickup_at": [datetime(2023, 1, 2, 12, tzinfo=UTC), datetime(2023, 1, 2, 3, tzinfo=UTC)],
    }
)


def test_columns_are_named_as_the_functions_and_come_in_their_order() -> None:
    assert trip.evaluate(FRAME).columns == ["late_distance", "late", "log_distance"]


def test_a_function_that_depends_on_another_is_computed_in_one_select() -> None:
    assert FRAME.select(trip.expressions())["late_distance"].to_list() == [0.0, pytest.approx(1.3862943611)]
    assert trip.fields == ("pickup_at", "trip_distance")


def test_a_function_is_tested_alone_on_its_arguments() -> None:
    assert late.evaluate(pl.DataFrame({"local_hour": [21, 22]})).to_list() == [0.0, 1.0]
    assert pl.select(log_distance(pl.lit(0.0))).item() == 0.0
    with pytest.raises(SpecError, match="'late' needs local_hour"):
        late.evaluate(pl.DataFrame({"hour": [21]}))


def test_name_description_and_owner_are_kept_for_the_catalogue() -> None:
    assert [(part.name, part.description, part.owner) for part in trip.parts] == [
        ("late_distance", "", ""),
        ("late", "Whether it is night.", "dispatch"),
        ("log_distance", "Distance on a logarithmic scale.", ""),
    ]


def test_the_service_imports_the_set_by_its_path_and_fingerprints_this_file() -> None:
    assert isinstance(trip, RequestFeatures)
    assert (trip.path, trip.function.__doc__) == (f"{__name__}:trip", "A trip's own.")
    assert inspect.getfile(trip.function) == __file__
    assert feature_code([trip.path]) != ""


def test_the_service_loads_the_set_from_a_pipelines_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
from ferroflow.core.definitions import feature, features

@feature
def double(x):
    return x * 2

@feature
def quadruple(double):
    return double * 2

own = features("own", quadruple, intermediate=[double])
"""
    (tmp_path / "written_for_a_test.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    contract = SimpleNamespace(request_features=("written_for_a_test:own",))
    [loaded] = load_request_features(cast(ServingContract, contract))
    assert loaded.path == "written_for_a_test:own"
    assert pl.DataFrame({"x": [3]}).select(loaded.expressions()).to_dicts() == [{"quadruple": 12}]


def function(name: str, arguments: str, gives: str) -> Feature:
    """A feature of that name."""
    namespace: dict[str, Any] = {"pl": pl, "count": count}
    exec(f"def {name}({arguments}): return {gives}", namespace)
    return feature(namespace[name])


A_FEATURE = function("a", "x", "x")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            [("a", "b", "b"), ("b", "c", "c"), ("c", "a", "a")],
            "need each other: a -> b -> c -> a|b -> c -> a -> b|c -> a",
        ),
        ([("a", "x", "x"), ("a", "y", "y")], "two functions named 'a'"),
        ([("a", "x", "3")], "'a' gives int, not a Polars expression"),
        ([("a", "x", "count()")], "'a' gives Aggregate"),
        ([("a", "x", "pl.col('x', 'y')")], "'a' gives several columns"),
        ([("a", "x", "x + pl.col('y')")], "'a' reads y, which is none of its arguments"),
        ([], "have no function"),
    ],
)
def test_a_set_that_contradicts_itself_is_refused_with_the_names(
    parts: list[tuple[str, str, str]], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        features("odd", *(function(*part) for part in parts))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("a", "named as its own argument"),
        ("x, y=1", "argument y is no dependency"),
        ("*x", "argument x"),
        ("**x", "x is no"),
    ],
)
def test_a_function_whose_arguments_are_no_dependencies_is_refused(arguments: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        function("a", arguments, "pl.lit(1)")


def test_what_is_no_named_function_is_refused() -> None:
    with pytest.raises(SpecError, match="Write it with def"):
        feature(lambda x: x)
    with pytest.raises(SpecError, match="Declare the function with @feature"):
        features("odd", Aggregate)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="name of the variable"):
        features("a trip", A_FEATURE)
