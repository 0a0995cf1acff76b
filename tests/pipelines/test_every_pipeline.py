"""What holds for every folder below pipelines/."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from ferroflow.adapters import pipelines
from ferroflow.core.errors import LeakageError
from ferroflow.core.features import AVAILABLE_AT
from ferroflow.core.spec import NoWorseSlice, PipelineSpec

HEAVY = ("pandera", "pandas", "torch", "lightning", "mlflow", "feast", "prefect", "lightgbm", "ferroflow.core.spec")

every = pytest.mark.parametrize("name", pipelines.names())


def columns(spec: PipelineSpec) -> dict[str, pl.DataType]:
    return {name: column.dtype.type for name, column in spec.schema.to_schema().columns.items()}


def folder(name: str) -> Path:
    return Path(pipelines.load(name).schema.__module__.replace(".", "/")).parent


@every
def test_folder_describes_a_pipeline_of_its_own_name(name: str) -> None:
    assert pipelines.load(name).name == name


@every
def test_init_is_empty(name: str) -> None:
    root = Path(__file__).parents[2]
    assert (root / folder(name) / "__init__.py").read_bytes() == b""


@every
def test_what_a_spec_names_is_a_column_of_the_schema(name: str) -> None:
    spec = pipelines.load(name)
    known = set(columns(spec))
    slices = [gate.column for gate in spec.gates if isinstance(gate, NoWorseSlice)]
    named = {*spec.inputs, spec.target.column, *spec.target.known_with, *slices}
    named |= {column for column in (spec.time, spec.target.known_at) if column}
    assert named <= known


@every
def test_model_inputs_hold_all_that_encodings_and_baseline_use(name: str) -> None:
    spec = pipelines.load(name)
    made = {expression.meta.output_name() for view in spec.request for expression in view.expressions()}
    used = set(spec.categorical) | set(spec.baseline.by)
    used |= {column for encoding in spec.encodings for column in encoding.columns}
    assert used <= set(spec.inputs) | made


@every
def test_request_features_need_nothing_but_the_request(name: str) -> None:
    spec = pipelines.load(name)
    asked = pl.LazyFrame(schema={column: columns(spec)[column] for column in spec.inputs})
    for view in spec.request:
        found = asked.select(view.expressions()).collect_schema()
        assert set(found.dtypes()) == {pl.Float64()}
        assert not set(found) & set(columns(spec))


@every
def test_stored_features_are_float64_by_entity_and_moment_of_availability(name: str) -> None:
    spec = pipelines.load(name)
    for view in spec.stored:
        found = view.compute(pl.LazyFrame(schema=columns(spec))).collect_schema()
        assert found[AVAILABLE_AT] == pl.Datetime("us", "UTC")
        assert found[view.entity] == columns(spec)[view.on]
        assert set(view.outputs(columns(spec)).values()) == {pl.Float64()}


@every
def test_every_request_field_is_described(name: str) -> None:
    spec = pipelines.load(name)
    described = spec.schema.to_schema().columns
    assert all(described[field].description and described[field].title for field in spec.inputs)


@every
def test_what_is_known_with_the_target_is_refused_as_an_input(name: str) -> None:
    spec = pipelines.load(name)
    for told in (spec.target.column, *spec.target.known_with):
        with pytest.raises(LeakageError, match=told):
            replace(spec, inputs=(*spec.inputs, told))


@every
def test_features_load_nothing_heavy(name: str) -> None:
    code = f"import sys, pipelines.{name}.features; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "[]", done.stderr


@every
def test_request_features_of_a_row_do_not_depend_on_how_many_are_asked(name: str) -> None:
    spec = pipelines.load(name)
    kinds = {column: columns(spec)[column] for column in spec.inputs}
    moment = datetime(2023, 3, 11, 17, 23, 45, tzinfo=UTC)
    samples = {pl.String: lambda at: f"Married {at}", pl.Int64: lambda at: at % 7 + 1, pl.Float64: lambda at: at / 7}
    many = pl.DataFrame(
        {
            column: [samples[kind](at) if kind in samples else moment + timedelta(minutes=at * 97) for at in range(200)]
            for column, kind in kinds.items()
        },
        schema=kinds,
    )
    made = [expression for view in spec.request for expression in view.expressions()]
    one_by_one = pl.concat(row.select(made) for row in many.iter_slices(1))
    assert one_by_one.equals(many.select(made))
