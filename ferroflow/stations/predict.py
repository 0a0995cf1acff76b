"""Batch prediction: a file or a snapshot's rows in, a Parquet file of predictions out, as the endpoint would answer.

Stored features come from the online store as they are now, in time-to-live at each row's event time: as the endpoint
would answer the same rows at this moment. For what was known in the past there is the feature table.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import polars as pl
from pydantic import ValidationError

from ferroflow.adapters.feast.online_rows import rows_of
from ferroflow.adapters.feast.plan import Rows
from ferroflow.adapters.graph import Graph
from ferroflow.adapters.home import Home
from ferroflow.adapters.storage import atomic_bytes, atomic_parquet, read_record
from ferroflow.adapters.vectors import FIELD_TYPES, assemble, load_request_features
from ferroflow.core.cells import BadValue, cell
from ferroflow.core.contract import Field, ServingContract
from ferroflow.core.errors import (
    EmptySource,
    NotFound,
    RegistryError,
    RowsLost,
    SchemaError,
    UnreadableFile,
)
from ferroflow.core.fingerprint import file_digest, fingerprint
from ferroflow.core.records import ModelVersion, Snapshot
from ferroflow.core.spec import PipelineSpec
from ferroflow.stations.validate import validate

_CHUNK = 50_000  # rows that are turned into vectors at once
_ROW = "row"
_ROW_ID = "row_id"
_BEGINNING = re.compile("[0-9a-f]{4,64}")


@dataclass(frozen=True)
class _Asked:
    """Where rows come from: files of one form, by a name to be told and a digest of what is in them."""

    name: str
    paths: tuple[Path, ...]
    digest: str


def predict_file(
    spec: PipelineSpec, rows: Path | str, home: Home, *, version: ModelVersion | None = None, at: datetime
) -> Path:
    """Predict every row of a file or snapshot.

    Args:
        rows: Parquet or CSV (with a header) with the request's fields as columns; others are left out, ``row_id``
            excepted. Where there is no such file: the fingerprint of a snapshot of this pipeline, or its beginning
            (at least four digits); its rows are those that validation accepts.
        version: of the registry; None: the champion.
        at: the clock (UTC) where rows have no event time.

    Returns:
        The Parquet file: ``prediction_id``, ``row`` (position in the file), ``row_id`` where given, the fields,
        ``prediction``, ``version``. Beside it ``.rejected.parquet`` (``row``, ``reasons``, ``raw``) and ``.json`` with
        the counts. The same file, model and store give the same path, and nothing is done twice.

    Raises:
        NotFound: there is no champion, or neither such a file nor such a snapshot. DataError: the file cannot be used.
    """
    version = version or _champion(spec, home)
    contract = _contract(version, home)
    asked = _asked(spec, rows, home)
    raw = _read(asked, contract)
    graph = Graph(home.absolute(version.package) / "model.onnx")
    with _closing(rows_of(contract, home)) as store:
        out = home.data(spec.name) / "batch" / f"{_name(asked, version, contract, store, at)}.parquet"
        if out.is_file():
            return out
        typed, rejected = _checked(contract, raw)
        if typed.height + rejected.height != raw.height:
            told = f"{raw.height} rows in, {typed.height} to predict and {rejected.height} rejected"
            raise RowsLost(f"{asked.name}: {told}.")
        predictions = _predictions(contract, typed, graph, store, at)
    found = typed.with_columns(
        pl.format(f"{out.stem}{{}}", pl.col(_ROW).cast(pl.String).str.zfill(16)).alias("prediction_id"),
        predictions,
        pl.lit(version.version).alias("version"),
    )
    atomic_parquet(out.with_suffix(".rejected.parquet"), rejected)
    counts = {"rows": raw.height, "predicted": found.height, "rejected": rejected.height, "version": version.version}
    degraded = bool(contract.stored) and store is None
    atomic_bytes(out.with_suffix(".json"), orjson.dumps(counts | {"file": asked.name, "degraded": degraded}))
    # Last: a file of predictions that can be read vouches for what lies beside it.
    atomic_parquet(out, found.select("prediction_id", pl.exclude("prediction_id")))
    return out


def counts(predicted: Path) -> dict[str, Any]:
    """``rows``, ``predicted``, ``rejected``, ``version``, ``file`` and ``degraded`` of a file that was predicted."""
    found: dict[str, Any] = orjson.loads(predicted.with_suffix(".json").read_bytes())
    return found


def _champion(spec: PipelineSpec, home: Home) -> ModelVersion:
    from ferroflow.adapters import registry

    found: ModelVersion | None = registry.champion(spec.name, home)
    if found is None:
        raise NotFound(f"Pipeline {spec.name!r} has no champion. Train one: ferroflow run {spec.name}")
    return found


def _contract(version: ModelVersion, home: Home) -> ServingContract:
    path = home.absolute(version.package) / "serving.json"
    try:
        return ServingContract.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise RegistryError(f"Version {version.version} of {version.name!r} has no usable package: {error}") from error


def _asked(spec: PipelineSpec, rows: Path | str, home: Home) -> _Asked:
    """The file of that path, or else the accepted rows of the snapshot whose fingerprint begins so."""
    path = Path(rows)
    if path.is_file():
        return _Asked(path.name, (path,), file_digest(path))
    beginning, folder = str(rows), home.data(spec.name) / "snapshots"
    found = sorted(folder.glob(f"{beginning}*.json")) if _BEGINNING.fullmatch(beginning) else []
    if len(found) > 1:
        names = ", ".join(entry.stem for entry in found)
        raise NotFound(f"{len(found)} snapshots of {spec.name!r} begin with {beginning!r}: {names}. Give more digits.")
    snapshot = read_record(found[0], Snapshot) if found else None
    if snapshot is None:
        raise NotFound(
            f"There is neither a file {beginning!r} nor a snapshot of {spec.name!r} whose fingerprint begins so. "
            f"See the snapshots: ferroflow datasets list -p {spec.name}"
        )
    validated = validate(spec, snapshot, home)
    accepted = tuple(home.absolute(part) for part in validated.accepted)
    return _Asked(f"snapshot {snapshot.fingerprint}", accepted, validated.fingerprint)


def _read(asked: _Asked, contract: ServingContract) -> pl.DataFrame:
    """The fields of all rows, as they are in the files, with their position."""
    name = asked.name
    try:
        if asked.paths and asked.paths[0].suffix == ".csv":
            raw = pl.read_csv(asked.paths[0], infer_schema=False)
        else:
            raw = pl.concat([pl.read_parquet(path) for path in asked.paths])
    except pl.exceptions.NoDataError as error:
        raise EmptySource(f"{name} is empty; rows with a header are expected.") from error
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise UnreadableFile(f"{name} is neither Parquet nor, by its name, CSV: {error}") from error
    names = [field.name for field in contract.fields]
    if missing := [field for field in names if field not in raw.columns]:
        raise SchemaError(f"{name} has no column {', '.join(missing)}; there are {', '.join(raw.columns)}.")
    if raw.is_empty():
        raise EmptySource(f"{name} has no row.")
    kept = [_ROW_ID] if _ROW_ID in raw.columns else []
    return raw.select(*kept, *names).with_row_index(_ROW).with_columns(pl.col(_ROW).cast(pl.Int64))


@contextmanager
def _closing(store: Rows | None) -> Iterator[Rows | None]:
    try:
        yield store
    finally:
        if store is not None:
            store.close()


def _name(asked: _Asked, version: ModelVersion, contract: ServingContract, store: Rows | None, at: datetime) -> str:
    """One name for the same rows, model and stored features."""
    seen = {} if store is None else {view.view: store.watermark(view.view) for view in contract.stored}
    clock = at.isoformat() if contract.stored and contract.time is None else None
    return fingerprint("batch", asked.digest, version.fingerprint, version.version, seen, clock, contract.null_values)


def _checked(contract: ServingContract, raw: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Typed rows, and those that are not what the contract says with their reasons."""
    reasons: dict[int, list[str]] = {}
    columns = {}
    for field in contract.fields:
        columns[field.name] = _column(field, raw[field.name].to_list(), contract.null_values, reasons)
    typed = raw.select(pl.exclude(*columns)).with_columns(
        pl.Series(name, values, dtype=FIELD_TYPES[_field(contract, name).type]) for name, values in columns.items()
    )
    bad = pl.Series(_ROW, sorted(reasons), dtype=pl.Int64)
    cells = raw.filter(pl.col(_ROW).is_in(bad.implode()))
    rejected = pl.DataFrame(
        {
            _ROW: bad,
            "reasons": pl.Series([reasons[row] for row in bad], dtype=pl.List(pl.String)),
            "raw": pl.Series([orjson.dumps(row, default=str).decode() for row in cells.to_dicts()], dtype=pl.String),
        }
    )
    return typed.filter(~pl.col(_ROW).is_in(bad.implode())), rejected


def _column(
    field: Field, values: Sequence[Any], null_values: Sequence[str], reasons: dict[int, list[str]]
) -> list[Any]:
    checked = []
    for row, value in enumerate(values):
        try:
            checked.append(cell(field, _meant(field, value, null_values), null_values))
        except BadValue as error:
            reasons.setdefault(row, []).append(f"{field.name}: {error}")
            checked.append(None)
    return checked


def _meant(field: Field, value: Any, null_values: Sequence[str]) -> Any:
    """A file's cell as a request would have it: NaN is missing, and all cells of a CSV file are text."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, str):
        value = value.strip()
        value = None if value in null_values else value
    if isinstance(value, str) and field.type in ("number", "integer"):
        try:
            return int(value) if field.type == "integer" and value.lstrip("-").isdigit() else float(value)
        except ValueError:
            return value  # refused, with the value's own text
    return value


def _field(contract: ServingContract, name: str) -> Field:
    return next(field for field in contract.fields if field.name == name)


def _predictions(
    contract: ServingContract, typed: pl.DataFrame, graph: Graph, store: Rows | None, at: datetime
) -> pl.Series:
    request = load_request_features(contract)
    found: list[float] = []
    for chunk in typed.iter_slices(_CHUNK):
        vectors = assemble(contract, chunk, store, request, at)
        found += graph.predict(vectors.frame).tolist()
    return pl.Series("prediction", found, dtype=pl.Float64)
