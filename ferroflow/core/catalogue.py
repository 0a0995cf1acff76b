"""The feature catalogue's records, and what a pipeline's description alone says of its model inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict

from ferroflow.core.columns import schema_columns
from ferroflow.core.definitions import Feature, FeatureSet
from ferroflow.core.errors import SpecError
from ferroflow.core.features import RequestFeatures, StoredFeatures
from ferroflow.core.spans import TimeSpan
from ferroflow.core.spec import PipelineSpec
from ferroflow.core.windows import WindowFeatures

Kind = Literal["field", "request", "stored", "window"]

_META: dict[str, pl.DataType] = {"row_id": pl.String(), "ingested_at": pl.Datetime("us", "UTC")}
"""Columns of accepted rows that no schema declares."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Declared(_Part):
    """What the description says of a model input."""

    name: str  # as the model sees it: ``view__feature`` where it is stored
    kind: Kind
    view: str = ""  # the set or view it is in; "": a field of the request
    entity: str = ""  # of a stored one
    on: str = ""  # the request field that the entity is looked up by
    dtype: str = ""
    owner: str = ""
    description: str = ""
    depends_on: tuple[str, ...] = ()  # the function's arguments
    reads: tuple[str, ...] | None = None  # columns it is made of in the end; None: its function does not tell
    ttl_seconds: float | None = None
    window: str = ""


class Freshness(_Part):
    """How new a stored view is: times in UTC, ages in seconds before the moment that was asked about."""

    rows: int | None = None  # offline, available by then; None: never computed
    available_at: datetime | None = None  # of the newest of them
    ingested_at: datetime | None = None
    age_seconds: float | None = None
    online_until: datetime | None = None  # up to when the online store is complete
    online_ingested: datetime | None = None
    online_age_seconds: float | None = None
    stale: str = ""  # why a look-up would find nothing; "": it finds something
    problem: str = ""  # why the online store could not be asked


class Values(_Part):
    """What a column of the last training table holds; of a personal one only how much is missing."""

    rows: int
    missing: int
    low: float | None = None
    mean: float | None = None
    high: float | None = None
    top: str | None = None  # the most frequent value of a category
    top_rows: int = 0
    hidden: bool = False

    @property
    def missing_share(self) -> float:
        """Missing cells, as a share of the rows."""
        return self.missing / self.rows if self.rows else 0.0


class Logged(_Part):
    """How much was missing in predictions that were logged lately."""

    rows: int
    missing: int

    @property
    def missing_share(self) -> float:
        """Missing values, as a share of the predictions."""
        return self.missing / self.rows if self.rows else 0.0


class FeatureEntry(Declared):
    """A model input with all that is known of it."""

    pipeline: str
    freshness: Freshness | None = None  # None: computed at each request
    training: Values | None = None  # None: in no training table yet
    logged: Logged | None = None  # None: not among the logged inputs
    importance: float | None = None  # None: not measured, or no input of the model that was
    used_by: tuple[str, ...] = ()  # "champion 3"


class ModelUse(_Part):
    """A version that serves or stands to be judged, and its inputs; ``problem`` says why they are not known."""

    alias: str
    version: str
    fingerprint: str
    inputs: tuple[str, ...] = ()
    problem: str = ""


class Importances(_Part):
    """How much a model's error grows when the values of one input are shuffled among the rows.

    Inputs that tell the same share what they do: each alone may look idle.
    """

    pipeline: str
    version: str
    fingerprint: str  # of the model
    metric: str  # rmse or log_loss
    error: float  # of the rows as they are
    rows: int
    repeats: int
    seed: int
    growth: dict[str, float]  # input -> mean growth of the error over the repeats


class PipelineFeatures(_Part):
    """The features of one pipeline as of a moment."""

    pipeline: str
    description: str
    owner: str
    as_of: datetime
    table: str = ""  # fingerprint of the last training table; "": there is none
    table_as_of: datetime | None = None
    logged: int = 0  # predictions looked at
    logged_since: datetime | None = None
    models: tuple[ModelUse, ...] = ()
    models_problem: str = ""  # why it is not known which models use what
    importances: Importances | None = None  # of the champion
    features: tuple[FeatureEntry, ...]

    @property
    def uses_known(self) -> bool:
        """Whether a feature that no model is said to use is used by none."""
        return not self.models_problem and not any(model.problem for model in self.models)


class Catalogue(_Part):
    """The features of several pipelines."""

    pipelines: tuple[PipelineFeatures, ...]

    @property
    def features(self) -> tuple[FeatureEntry, ...]:
        """All of them, pipeline by pipeline in the order of a model's inputs."""
        return tuple(entry for part in self.pipelines for entry in part.features)


def declared(spec: PipelineSpec) -> list[Declared]:
    """Every model input of a pipeline: fields of the request, then request features, then stored ones.

    Raises:
        SpecError: a feature asks for a column that the schema does not have.
    """
    columns = row_types(spec)
    try:
        computed = [entry for part in spec.request for entry in _request(part, columns, spec)]
        stored = [entry for view in spec.stored for entry in _stored(view, columns, spec)]
    except pl.exceptions.PolarsError as error:
        raise SpecError(f"The features of {spec.name!r} do not fit {spec.schema.__name__}: {error}") from error
    return [*_fields(spec, columns), *computed, *stored]


def row_types(spec: PipelineSpec) -> dict[str, pl.DataType]:
    """Column types of accepted rows, by the pipeline's schema; nothing is read."""
    return {name: column.dtype for name, column in schema_columns(spec.schema).items()} | _META


def personal(entry: Declared, spec: PipelineSpec) -> bool:
    """Whether its values may be those of a personal column, or of one person; where that cannot be told, yes."""
    if not spec.personal:
        return False
    renamed = spec.source.evolution.renamed
    hidden = {*spec.personal, *(renamed[name] for name in spec.personal if name in renamed)}
    if not hidden.isdisjoint((entry.name, entry.on, entry.entity)):
        return True
    return entry.kind != "field" and (entry.reads is None or not hidden.isdisjoint(entry.reads))


def spoken(seconds: float) -> str:
    """A duration as people write it: ``90s``, ``2h``, ``1d 6h``."""
    left, told = round(abs(seconds)), []
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            told.append(f"{count}{unit}")
    return ("-" if seconds < 0 and told else "") + (" ".join(told[:2]) or "0s")


def _fields(spec: PipelineSpec, columns: Mapping[str, pl.DataType]) -> Iterator[Declared]:
    told = spec.schema.to_schema().columns
    for name in spec.inputs:
        if name == spec.time:
            continue  # the model never sees it: what it says comes as request features
        column = told.get(name)
        if column is None or name not in columns:
            raise SpecError(
                f"Input {name!r} of pipeline {spec.name!r} is no column of {spec.schema.__name__}. Add it there."
            )
        said = column.description or column.title or ""
        kind = str(columns[name])
        yield Declared(name=name, kind="field", dtype=kind, owner=spec.owner, description=said, reads=(name,))


def _request(part: RequestFeatures, columns: Mapping[str, pl.DataType], spec: PipelineSpec) -> Iterator[Declared]:
    made = part.expressions()
    types = pl.LazyFrame(schema=dict(columns)).select(made).collect_schema()
    functions = _functions(part)
    for name, expression in zip(types, made, strict=True):
        reads = tuple(dict.fromkeys(expression.meta.root_names()))
        yield Declared(
            name=name,
            kind="request",
            view=part.name,
            dtype=str(types[name]),
            reads=reads,
            **_told(part, functions.get(name), spec, reads),
        )


def _stored(view: StoredFeatures, columns: Mapping[str, pl.DataType], spec: PipelineSpec) -> Iterator[Declared]:
    functions = _functions(view)
    for name, kind in view.outputs(columns).items():
        reads = _read_by_window(view, name)
        yield Declared(
            name=view.full_name(name),
            kind="window" if isinstance(view, WindowFeatures) else "stored",
            view=view.name,
            entity=view.entity,
            on=view.on,
            dtype=str(kind),
            reads=reads,
            ttl_seconds=view.ttl.total_seconds(),
            window=_window(view),
            **_told(view, functions.get(name), spec, reads or ()),
        )


def _functions(part: RequestFeatures | StoredFeatures) -> dict[str, Feature]:
    """Column -> its function; empty where one function makes all columns."""
    return {one.name: one for one in part.parts} if isinstance(part, FeatureSet | WindowFeatures) else {}


def _told(
    part: RequestFeatures | StoredFeatures, function: Feature | None, spec: PipelineSpec, reads: tuple[str, ...]
) -> dict[str, Any]:
    """Owner, description and dependencies: the function's own, else those of the set it is in."""
    whole = (part.function.__doc__ or "").strip().partition("\n")[0]
    own = function.description if function else ""
    return {
        "owner": (function.owner if function else "") or spec.owner,
        "description": " ".join(filter(None, (own, whole))),
        "depends_on": function.arguments if function else reads,
    }


def _read_by_window(view: StoredFeatures, name: str) -> tuple[str, ...] | None:
    """The columns of events that a window feature is made of, beside entity and time."""
    if not isinstance(view, WindowFeatures):
        return None
    rows = [part.row for part in view.window.aggregates[name].parts.values()]
    found = dict.fromkeys(column for row in rows for column in row.meta.root_names())
    return tuple(column for column in found if not column.startswith("__"))


def _window(view: StoredFeatures) -> str:
    if not isinstance(view, WindowFeatures):
        return ""
    span = view.window.span
    if not isinstance(span, TimeSpan):
        return f"last {span.events} events" if span.events > 1 else "last event"
    last, every = (timedelta(microseconds=each).total_seconds() for each in (span.last, span.every))
    return f"last {spoken(last)}, every {spoken(every)}"
