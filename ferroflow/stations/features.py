"""From accepted rows to model inputs: stored features by entity, request features by row, joined as of each row's time.

Three functions. ``refresh_offline`` computes the stored features, ``build_features`` makes the training table (Feast
joins the stored features point in time), ``materialize`` (of its own module) puts the latest stored rows where the
service reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from datetime import datetime

import polars as pl

from ferroflow.adapters.home import Home
from ferroflow.adapters.storage import atomic_parquet, read_record, write_record
from ferroflow.adapters.vectors import one_missing
from ferroflow.core.errors import EmptySource, LeakageError, RowsLost, SpecError
from ferroflow.core.features import RequestFeatures
from ferroflow.core.fingerprint import fingerprint
from ferroflow.core.leakage import find_leaks
from ferroflow.core.records import FeatureTable, Validated
from ferroflow.core.spec import ByColumn, Classification, NoWorseSlice, PipelineSpec
from ferroflow.stations import offline
from ferroflow.stations.materialize import materialize

__all__ = ["build_features", "materialize", "refresh_offline", "request_inputs"]

ROW = "row_id"
_TABLE = "table/2"  # changes when the code here makes another table of the same rows and description
_EVENT_TIMESTAMP = "event_timestamp"

# ------------------------------------------------------------------------------------------------------- offline store


def refresh_offline(spec: PipelineSpec, validated: Validated, as_of: datetime, home: Home) -> dict[str, int]:
    """Compute every stored view from the rows known at ``as_of`` and keep what was available by then.

    Returns:
        View -> rows in its Parquet file, which is sorted by ``available_at`` and replaced as a whole.
    """
    if not spec.stored:
        return {}
    with offline.hold(spec, home):
        return offline.refresh(spec, validated, as_of, home)


# ------------------------------------------------------------------------------------------------------ training table


def build_features(spec: PipelineSpec, validated: Validated, as_of: datetime, home: Home) -> FeatureTable:
    """Model inputs and target of every row labelled by ``as_of``, each joined as of its own event time.

    Returns:
        The table's record; the one made before when rows, description and ``as_of`` are the same.

    Raises:
        LeakageError: a feature asks for what no request has, or an input reproduces the target.
        SpecError: inputs of the same name, or of a type that no model takes.
        EmptySource: no row is labelled by then.
    """
    name = _table_fingerprint(spec, validated, as_of)
    place = home.data(spec.name) / "tables"
    made = read_record(place / f"{name}.json", FeatureTable)
    with offline.hold(spec, home) if spec.stored else nullcontext():  # nobody swaps the files before they are joined
        views = offline.refresh(spec, validated, as_of, home) if spec.stored else {}
        if made is not None and home.absolute(made.path).is_file():
            return made
        rows = _labelled(spec, validated, as_of, home)
        inputs = _typed(spec, _model_inputs(spec, rows, home))
    table = _assemble(spec, rows, inputs)
    _refuse_leaks(spec, table, inputs.columns)
    atomic_parquet(place / f"{name}.parquet", table)
    record = _record(spec, validated, as_of, inputs).model_copy(
        update={"fingerprint": name, "path": home.relative(place / f"{name}.parquet"), "views": views}
    )
    write_record(place / f"{name}.json", record)
    return record


def request_inputs(spec: PipelineSpec, fields: pl.DataFrame) -> pl.DataFrame:
    """The request's own fields without the event time, then the request features; nothing else can be seen.

    Raises:
        LeakageError: a feature asks for a column that is no field of a request.
    """
    seen = fields.select(spec.inputs)
    return pl.concat(
        [seen.drop(spec.time or [], strict=False), *(_computed(part, seen, spec) for part in spec.request)],
        how="horizontal",
    )


def _computed(features: RequestFeatures, seen: pl.DataFrame, spec: PipelineSpec) -> pl.DataFrame:
    try:
        return seen.select(features.expressions())
    except pl.exceptions.ColumnNotFoundError as error:
        asked = {name for part in features.expressions() for name in part.meta.root_names()} - set(seen.columns)
        raise LeakageError(
            f"Request features {features.name!r} of {spec.name!r} ask for {', '.join(sorted(asked)) or error}, which "
            f"is not known when a prediction is asked for. Inputs are: {', '.join(spec.inputs)}."
        ) from error


def _labelled(spec: PipelineSpec, validated: Validated, as_of: datetime, home: Home) -> pl.DataFrame:
    rows = offline.known(offline.accepted(validated, home), spec, as_of)
    rows = rows.filter(pl.col(spec.target.column).is_not_null())
    known = rows.collect_schema().names()
    wanted = [ROW, spec.target.column, *([spec.time] if spec.time else []), *spec.inputs]
    missing = [column for column in wanted if column not in known]
    if missing:
        raise SpecError(f"Pipeline {spec.name!r} names {', '.join(missing)}, which its accepted rows do not have.")
    beside = [column for column in _beside(spec) if column in known]
    frame = rows.select(list(dict.fromkeys([*wanted, *beside]))).collect()
    if frame.is_empty():
        raise EmptySource(
            f"Pipeline {spec.name!r} has no row whose target was known by {offline.moment(as_of)}. "
            "Give a later --as-of."
        )
    return frame


def _model_inputs(spec: PipelineSpec, rows: pl.DataFrame, home: Home) -> pl.DataFrame:
    try:
        own = request_inputs(spec, rows)
    except pl.exceptions.DuplicateError as error:
        raise SpecError(f"Pipeline {spec.name!r} has two inputs of one name: {error}. Rename one.") from error
    return pl.concat([own, _joined(spec, rows, home)], how="horizontal") if spec.stored else own


def _joined(spec: PipelineSpec, rows: pl.DataFrame, home: Home) -> pl.DataFrame:
    """Stored features as ``view__feature``, by Feast's point-in-time join."""
    from ferroflow.adapters.feast.store import store

    feast = store(home, [spec])
    keys = dict.fromkeys(view.on for view in spec.stored)
    entities = rows.select(*keys, pl.col(str(spec.time)).alias(_EVENT_TIMESTAMP))
    job = feast.get_historical_features(
        entity_df=entities, features=feast.get_feature_service(spec.name), full_feature_names=True
    )
    joined: pl.DataFrame = job.to_polars().drop(*keys, _EVENT_TIMESTAMP)
    if joined.height != rows.height:
        raise RowsLost(f"The feature join of {spec.name!r} made {joined.height} rows of {rows.height}.")
    return joined


def _typed(spec: PipelineSpec, inputs: pl.DataFrame) -> pl.DataFrame:
    """Numbers as Float64, finite or null; categories as Int64 or String."""
    unknown = set(spec.categorical) - set(inputs.columns)
    if unknown:
        raise SpecError(
            f"Pipeline {spec.name!r} calls {', '.join(sorted(unknown))} categorical, which is no model input. "
            f"Model inputs are: {', '.join(inputs.columns)}."
        )
    typed = inputs.with_columns(
        pl.col(name).cast(_input_type(name, kind, name in spec.categorical)) for name, kind in inputs.schema.items()
    )
    return one_missing(typed)


def _input_type(name: str, kind: pl.DataType, categorical: bool) -> pl.DataType:
    if kind in (pl.String, pl.Categorical, pl.Enum):
        return pl.String()
    if categorical and (kind.is_integer() or kind == pl.Boolean):
        return pl.Int64()
    if not categorical and (kind.is_numeric() or kind == pl.Boolean):
        return pl.Float64()
    remedy = "a category is a text or a whole number" if categorical else "make a number or a text of it"
    raise SpecError(f"Model input {name!r} is {kind}; {remedy}, in a request feature.")


def _assemble(spec: PipelineSpec, rows: pl.DataFrame, inputs: pl.DataFrame) -> pl.DataFrame:
    beside = dict.fromkeys([ROW, *([spec.time] if spec.time else []), spec.target.column, *_beside(spec)])
    taken = {spec.target.column, ROW, spec.time} & set(inputs.columns)
    if taken:
        raise SpecError(f"Pipeline {spec.name!r} has features named {', '.join(map(str, taken))}. Rename them.")
    missing = [column for column in beside if column not in rows.columns and column not in inputs.columns]
    if missing:
        raise SpecError(
            f"Pipeline {spec.name!r} slices or splits by {', '.join(missing)}, which neither its rows nor inputs have."
        )
    return pl.concat(
        [rows.select(column for column in beside if column not in inputs.columns), inputs], how="horizontal"
    )


def _refuse_leaks(spec: PipelineSpec, table: pl.DataFrame, inputs: Sequence[str]) -> None:
    positive = spec.target.positive if isinstance(spec.target, Classification) else None
    leaks = find_leaks(table, spec.target.column, inputs, positive)
    if leaks:
        raise LeakageError(
            f"Pipeline {spec.name!r}: {'; '.join(leaks)} ({spec.target.column!r}) on every row. It cannot be known "
            f"before the target: remove it from inputs or features."
        )


def _record(spec: PipelineSpec, validated: Validated, as_of: datetime, inputs: pl.DataFrame) -> FeatureTable:
    numeric = tuple(name for name, kind in inputs.schema.items() if kind == pl.Float64)
    return FeatureTable(
        pipeline=spec.name,
        fingerprint="",
        parent=validated.fingerprint,
        as_of=as_of,
        path="",
        rows=inputs.height,
        numeric=numeric,
        categorical=tuple(name for name in inputs.columns if name not in numeric),
        target=spec.target.column,
        time=spec.time,
        slices=_slices(spec),
        views={},
    )


def _slices(spec: PipelineSpec) -> tuple[str, ...]:
    return tuple(dict.fromkeys(gate.column for gate in spec.gates if isinstance(gate, NoWorseSlice)))


def _beside(spec: PipelineSpec) -> list[str]:
    """Columns that judge or split, whether or not the model sees them."""
    return [*_slices(spec), *([spec.split.column] if isinstance(spec.split, ByColumn) else [])]


# ---------------------------------------------------------------------------------------------------------- their name


def _table_fingerprint(spec: PipelineSpec, validated: Validated, as_of: datetime) -> str:
    return fingerprint(
        offline.VERSION,
        _TABLE,
        validated.fingerprint,
        offline.moment(as_of) if spec.timed else None,
        spec.inputs,
        spec.categorical,
        [spec.target.column, spec.target.known_at, spec.time],
        _beside(spec),
        offline.definitions(spec),
    )
