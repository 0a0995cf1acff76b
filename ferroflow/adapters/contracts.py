"""The serving contract, made from a pipeline's description: nothing about a request is declared twice."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

import polars as pl

from ferroflow.core.cleaning import BLANKS, Clip, Deduplicate, Default, Trim
from ferroflow.core.contract import CellRule, Field, ServingContract, StoredView
from ferroflow.core.errors import SpecError
from ferroflow.core.features import StoredFeatures
from ferroflow.core.fingerprint import file_digest, fingerprint
from ferroflow.core.records import TrainedModel
from ferroflow.core.spec import Classification, PipelineSpec

FieldType = Literal["number", "integer", "text", "time"]


def serving_contract(
    spec: PipelineSpec, model: TrainedModel, lineage: dict[str, str], *, seen: Sequence[str] = ()
) -> ServingContract:
    """What the service has to know about a trained model.

    Args:
        seen: the classes among the training rows, for a target whose values the schema does not list.

    Raises:
        SpecError: an input is no column of the schema, or of a type that a request cannot carry.
    """
    schema = spec.schema.to_schema()
    fields = tuple(_field(spec, name, schema.columns.get(name)) for name in spec.inputs)
    dtypes = {name: column.dtype.type for name, column in schema.columns.items()}
    stored = [stored_view(view, dtypes) for view in spec.stored]
    paths = tuple(entry.path for entry in spec.request)
    low, high, classes = _target(spec, schema.columns.get(spec.target.column))
    return ServingContract(
        pipeline=spec.name,
        model=model.candidate,
        fingerprint=model.fingerprint,
        task=spec.target.task,
        target=spec.target.column,
        target_minimum=low,
        target_maximum=high,
        positive=spec.target.positive if isinstance(spec.target, Classification) else None,
        classes=(classes or tuple(seen)) if isinstance(spec.target, Classification) else (),
        time=spec.time if spec.time in spec.inputs else None,
        fields=fields,
        null_values=spec.source.null_values,
        request_features=paths,
        stored=tuple(stored),
        inputs=model.inputs,
        lineage=lineage,
        feature_code=feature_code(paths),
    )


def stored_view(view: StoredFeatures, columns: Mapping[str, Any]) -> StoredView:
    """How stored features are looked up, for accepted rows with these columns."""
    return StoredView(
        view=view.name,
        entity=view.entity,
        on=view.on,
        ttl_seconds=view.ttl.total_seconds(),
        features=tuple(view.outputs(columns)),
    )


def feature_code(paths: Iterable[str]) -> str:
    """Digest of the source of the modules that hold request features (``module:name``); empty without any."""
    modules = sorted({path.partition(":")[0] for path in paths})
    sources = [Path(found.origin) for name in modules if (found := importlib.util.find_spec(name)) and found.origin]
    return fingerprint(*(file_digest(source) for source in sources)) if sources else ""


def _field(spec: PipelineSpec, name: str, column: Any) -> Field:
    if column is None:
        where = spec.schema.__name__
        raise SpecError(f"Input {name!r} of pipeline {spec.name!r} is no column of {where}. Add it there.")
    dtype = column.dtype.type
    kind = _type(spec, name, dtype)
    low, high, choices = _limits(column.checks, kind)
    if dtype == pl.Boolean:
        low, high = 0, 1
    return Field(
        name=name,
        type=kind,
        nullable=column.nullable,
        minimum=low,
        maximum=high,
        choices=choices,
        description=column.description or column.title or "",
        cleaning=_cleaning(spec, name),
    )


def _cleaning(spec: PipelineSpec, name: str) -> tuple[CellRule, ...]:
    """What is done to the column's cells before training sees them: the same is done to a request's."""
    found = []
    for rule in spec.cleaning:
        if isinstance(rule, Deduplicate) or rule.column != name:
            continue
        if isinstance(rule, Default):
            found.append(CellRule(rule="default", value=_as_json(rule.value)))
        elif isinstance(rule, Clip):
            found.append(CellRule(rule="clip", low=rule.low, high=rule.high))
        elif isinstance(rule, Trim):
            found.append(CellRule(rule="trim", characters=rule.characters + BLANKS))
        else:
            pairs = tuple((_as_json(key), _as_json(value)) for key, value in rule.values.items())
            found.append(CellRule(rule="replace", values=pairs))
    return tuple(found)


def _as_json(value: Any) -> Any:
    """A declared value as a request would carry it."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return f"{value.isoformat()}T00:00:00" if isinstance(value, date) else value


def _target(spec: PipelineSpec, column: Any) -> tuple[float | None, float | None, tuple[str, ...]]:
    """Bounds of a quantity, or the classes; what the schema does not say is None and empty."""
    if column is None:
        return None, None, ()
    dtype = column.dtype.type
    if isinstance(spec.target, Classification):
        _, _, choices = _limits(column.checks, "text")
        return None, None, class_names(pl.Series(choices or (), dtype=dtype))
    low, high, _ = _limits(column.checks, "integer" if dtype.is_integer() else "number")
    return low, high, ()


def class_names(values: pl.Series) -> tuple[str, ...]:
    """The values of a target column as feedback names them: text, each once, in order."""
    return tuple(values.drop_nulls().cast(pl.String).unique().sort())


def _type(spec: PipelineSpec, name: str, dtype: Any) -> FieldType:
    if dtype.is_integer() or dtype == pl.Boolean:
        return "integer"
    if dtype.is_numeric():
        return "number"
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return "text"
    if dtype in (pl.Datetime, pl.Date):
        return "time"
    raise SpecError(f"Input {name!r} of pipeline {spec.name!r} is {dtype}: a request carries numbers, text and times.")


def _limits(checks: list[Any], kind: FieldType) -> tuple[float | None, float | None, tuple[str | int, ...] | None]:
    """The narrowest inclusive bounds, and the values allowed, of all checks; times have none."""
    lows: list[float] = []
    highs: list[float] = []
    choices: tuple[str | int, ...] | None = None
    for check in checks:
        told = check.statistics or {}
        if check.name == "isin":
            choices = tuple(told["allowed_values"])
        elif kind in ("number", "integer"):
            if "min_value" in told:
                outside = check.name == "greater_than" or not told.get("include_min", True)
                lows.append(_inclusive(told["min_value"], kind, 1 if outside else 0))
            if "max_value" in told:
                outside = check.name == "less_than" or not told.get("include_max", True)
                highs.append(_inclusive(told["max_value"], kind, -1 if outside else 0))
    return max(lows, default=None), min(highs, default=None), choices


def _inclusive(bound: float, kind: FieldType, step: int) -> float:
    """The outermost value allowed by a bound, which is itself allowed when ``step`` is 0."""
    if step == 0:
        return bound
    return bound + step if kind == "integer" else math.nextafter(bound, step * math.inf)
