"""Where one logged prediction came from: its inputs, its features with their age, its model, its lineage."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import polars as pl
from pydantic import ValidationError

from ferroflow.adapters import registry
from ferroflow.adapters.graph import Graph
from ferroflow.adapters.home import Home
from ferroflow.adapters.ledger import Ledger
from ferroflow.adapters.predictions import PredictionLog
from ferroflow.adapters.vectors import INPUT_TYPES
from ferroflow.core.contract import ServingContract, StoredView
from ferroflow.core.errors import FerroflowError, NotFound
from ferroflow.core.records import ModelVersion, Prediction


def explanation(home: Home, prediction_id: str) -> dict[str, Any]:
    """All that is known about a prediction, JSON-like.

    Raises:
        NotFound: no log knows the id.
    """
    logged = find(home, prediction_id)
    told: dict[str, Any] = {
        "prediction_id": logged.fingerprint,
        **logged.model_dump(include={"pipeline", "at", "event_time", "version", "prediction", "degraded"}),
        **logged.model_dump(include={"label", "labelled_at"}),
        "request": logged.inputs,
        "features": [{"name": name, "value": value, "from": "the request"} for name, value in logged.features.items()],
        "attribution": [],
        "deployment": _deployment(home, logged),
        "lineage": {},
    }
    version = _version(home, logged.pipeline, logged.version)
    contract = _contract(home, version) if version else None
    if version is None or contract is None:
        note = f"The package of version {logged.version} is gone: origins and attribution are unknown."
        return told | {"note": note}
    told["lineage"] = contract.lineage | {"model": contract.fingerprint}
    told["features"] = [_origin(home, contract, name, value, logged) for name, value in logged.features.items()]
    told["attribution"] = _attribution(home, version, logged.features)
    return told


def find(home: Home, prediction_id: str) -> Prediction:
    """One logged prediction, looked for in the logs of all pipelines; ``parent`` is the model's fingerprint.

    Raises:
        NotFound: no log knows the id.
    """
    logs = sorted(home.predictions("x").parent.glob("*.db"))
    for path in logs:
        if (row := PredictionLog(path).get(prediction_id)) is not None:
            version = _version(home, path.stem, row["version"])
            texts = {name: orjson.loads(row.pop(name)) for name in ("inputs", "features", "watermarks")}
            model = None if version is None else version.fingerprint
            return Prediction(pipeline=path.stem, fingerprint=row.pop("id"), parent=model, **row, **texts)
    known = ", ".join(path.stem for path in logs) or "none"
    raise NotFound(
        f"No prediction {prediction_id!r} in {home.root} (logs: {known}). Ids are in an answer's 'prediction_ids'."
    )


def _deployment(home: Home, logged: Prediction) -> dict[str, Any] | None:
    """The ledger's last line that put the version that answered in place."""
    lines = [entry for entry in Ledger(home.ledger).history(logged.pipeline) if entry.version == logged.version]
    placed = [entry for entry in lines if entry.action != "rejected"]
    return max(placed, key=lambda entry: entry.entry).model_dump(mode="json") if placed else None


def _version(home: Home, pipeline: str, version: str) -> ModelVersion | None:
    try:
        return registry.version(pipeline, version, home)
    except FerroflowError:
        return None  # told as a note: the log outlives the registry


def _contract(home: Home, version: ModelVersion) -> ServingContract | None:
    try:
        return ServingContract.model_validate_json((home.absolute(version.package) / "serving.json").read_bytes())
    except (OSError, ValidationError):
        return None  # told as a note


def _origin(home: Home, contract: ServingContract, name: str, value: Any, logged: Prediction) -> dict[str, Any]:
    """Where a model input came from, and how old it was."""
    found: dict[str, Any] = {"name": name, "value": value}
    view = next((view for view in contract.stored if name.startswith(f"{view.view}__")), None)
    if view is None:
        computed = name not in {field.name for field in contract.fields}
        return found | {"from": "computed from the request" if computed else "the request"}
    key = logged.inputs.get(view.on)
    found["from"] = f"{view.view} of {view.entity} {key}"
    clock = logged.event_time or logged.at
    available = _available(home, contract.pipeline, view, key, clock, logged.watermarks)
    if available is not None:
        found |= {"available_at": available.isoformat(), "age_seconds": (clock - available).total_seconds()}
        found["within_ttl"] = timedelta(0) <= clock - available <= timedelta(seconds=view.ttl_seconds)
    return found


def _available(
    home: Home,
    pipeline: str,
    view: StoredView,
    key: Any,
    clock: datetime,
    watermarks: Mapping[str, tuple[int, int | None] | None],
) -> datetime | None:
    """Since when the entity's value that the service saw had been available, by the offline store."""
    path = home.offline(pipeline) / f"{view.view}.parquet"
    watermark = watermarks.get(view.view)
    if watermark is None or not path.is_file():
        return None
    seen = min(clock, datetime.fromtimestamp(0, UTC) + timedelta(microseconds=watermark[0]))
    rows = pl.scan_parquet(path).filter(pl.col(view.entity) == key, pl.col("available_at") <= seen)
    found = rows.select(pl.col("available_at").max()).collect().item()
    return found.astimezone(UTC) if isinstance(found, datetime) else None


def _attribution(home: Home, version: ModelVersion, features: dict[str, Any]) -> list[dict[str, Any]]:
    """How far the prediction moves when one input is what it typically is: median, or most frequent value.

    A look at one input at a time; inputs that move together share what they do.
    """
    reference = home.absolute(version.reference)
    path = home.absolute(version.package) / "model.onnx"
    if not version.reference or not reference.is_file() or not path.is_file():
        return []
    graph = Graph(path)
    known = pl.read_parquet(reference)
    typical = {name: _typical(known[name]) for name in graph.inputs if name in known.columns}
    types = {name: INPUT_TYPES[kind] for name, kind in graph.inputs.items()}
    rows = [features] + [{**features, name: value} for name, value in typical.items()]
    base, *others = graph.predict(pl.DataFrame(rows, schema=types)).tolist()
    found = [
        {"input": name, "value": features.get(name), "typical": value, "change": base - other}
        for (name, value), other in zip(typical.items(), others, strict=True)
    ]
    return sorted(found, key=lambda line: -abs(line["change"]))


def _typical(values: pl.Series) -> Any:
    if values.dtype.is_float():
        return values.fill_nan(None).median()
    counts = values.drop_nulls().value_counts(sort=True)
    return counts[values.name][0] if counts.height else None
