"""``ferroflow explain``: one logged prediction, from the request to the deployment that answered it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson
import typer

from ferroflow.adapters.home import Home
from ferroflow.core.errors import FerroflowError, NotFound

if TYPE_CHECKING:
    import polars as pl

    from ferroflow.core.contract import ServingContract, StoredView
    from ferroflow.core.records import ModelVersion


def explain(home: Home, prediction_id: str, as_json: bool) -> None:
    """Show a prediction: what was asked, what the model was fed and where that came from, and who answered.

    Raises:
        NotFound: no log knows the id.
    """
    told = explanation(home, prediction_id)
    if as_json:
        typer.echo(orjson.dumps(told, option=orjson.OPT_INDENT_2, default=str).decode())
        return
    _show(told)


def explanation(home: Home, prediction_id: str) -> dict[str, Any]:
    """All that is known about a prediction, JSON-like.

    Raises:
        NotFound: no log knows the id.
    """
    pipeline, row = _find(home, prediction_id)
    inputs, features = orjson.loads(row["inputs"]), orjson.loads(row["features"])
    told: dict[str, Any] = {
        "prediction_id": prediction_id,
        "pipeline": pipeline,
        **{name: row[name] for name in ("at", "event_time", "version", "prediction", "degraded")},
        **{name: row[name] for name in ("label", "labelled_at")},
        "request": inputs,
        "features": [{"name": name, "value": value, "from": "the request"} for name, value in features.items()],
        "attribution": [],
        "deployment": _deployment(home, pipeline, row["version"]),
        "lineage": {},
    }
    version = _version(home, pipeline, row["version"])
    contract = _contract(home, version) if version else None
    if version is None or contract is None:
        return told | {"note": f"The package of version {row['version']} is gone: origins and attribution are unknown."}
    told["lineage"] = contract.lineage | {"model": contract.fingerprint}
    told["features"] = [_origin(home, contract, name, value, row, inputs) for name, value in features.items()]
    told["attribution"] = _attribution(home, version, features)
    return told


def _find(home: Home, prediction_id: str) -> tuple[str, dict[str, Any]]:
    from ferroflow.adapters.predictions import PredictionLog

    logs = sorted(home.predictions("x").parent.glob("*.db"))
    for path in logs:
        if (row := PredictionLog(path).get(prediction_id)) is not None:
            return path.stem, row
    known = ", ".join(path.stem for path in logs) or "none"
    raise NotFound(
        f"No prediction {prediction_id!r} in {home.root} (logs: {known}). Ids are in an answer's 'prediction_ids'."
    )


def _deployment(home: Home, pipeline: str, version: str) -> dict[str, Any] | None:
    """The ledger's last line that put this version in place."""
    from ferroflow.adapters.ledger import Ledger

    lines = [entry for entry in Ledger(home.ledger).history(pipeline) if entry.version == version]
    placed = [entry for entry in lines if entry.action != "rejected"]
    return max(placed, key=lambda entry: entry.entry).model_dump(mode="json") if placed else None


def _version(home: Home, pipeline: str, version: str) -> ModelVersion | None:
    from ferroflow.adapters import registry

    try:
        return registry.version(pipeline, version, home)
    except FerroflowError:
        return None  # told as a note: the log outlives the registry


def _contract(home: Home, version: ModelVersion) -> ServingContract | None:
    from pydantic import ValidationError

    from ferroflow.core.contract import ServingContract

    try:
        return ServingContract.model_validate_json((home.absolute(version.package) / "serving.json").read_bytes())
    except (OSError, ValidationError):
        return None  # told as a note


def _origin(
    home: Home, contract: ServingContract, name: str, value: Any, row: dict[str, Any], inputs: dict[str, Any]
) -> dict[str, Any]:
    """Where a model input came from, and how old it was."""
    found: dict[str, Any] = {"name": name, "value": value}
    view = next((view for view in contract.stored if name.startswith(f"{view.view}__")), None)
    if view is None:
        computed = name not in {field.name for field in contract.fields}
        return found | {"from": "computed from the request" if computed else "the request"}
    found["from"] = f"{view.view} of {view.entity} {inputs.get(view.on)}"
    clock = row["event_time"] or row["at"]
    available = _available(home, contract.pipeline, view, inputs.get(view.on), clock, orjson.loads(row["watermarks"]))
    if available is not None:
        found |= {"available_at": available.isoformat(), "age_seconds": (clock - available).total_seconds()}
        found["within_ttl"] = timedelta(0) <= clock - available <= timedelta(seconds=view.ttl_seconds)
    return found


def _available(
    home: Home, pipeline: str, view: StoredView, key: Any, clock: datetime, watermarks: dict[str, int | None]
) -> datetime | None:
    """Since when the entity's value that the service saw had been available, by the offline store."""
    import polars as pl

    path = home.offline(pipeline) / f"{view.view}.parquet"
    watermark = watermarks.get(view.view)
    if watermark is None or not path.is_file():
        return None
    seen = min(clock, datetime.fromtimestamp(0, UTC) + timedelta(microseconds=watermark))
    rows = pl.scan_parquet(path).filter(pl.col(view.entity) == key, pl.col("available_at") <= seen)
    found = rows.select(pl.col("available_at").max()).collect().item()
    return found.astimezone(UTC) if isinstance(found, datetime) else None


def _attribution(home: Home, version: ModelVersion, features: dict[str, Any]) -> list[dict[str, Any]]:
    """How far the prediction moves when one input is what it typically is: median, or most frequent value.

    A look at one input at a time; inputs that move together share what they do.
    """
    import polars as pl

    from ferroflow.adapters.graph import Graph
    from ferroflow.adapters.vectors import INPUT_TYPES

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


def _show(told: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(
        f"[bold]{told['pipeline']}[/] version {told['version']} answered [bold]{told['prediction']:.4g}[/]", end=""
    )
    console.print(f" at {_moment(told['at'])}" + (" [yellow](degraded)[/]" if told["degraded"] else ""))
    if told["label"] is not None:
        difference = told["prediction"] - told["label"]
        console.print(
            f"It turned out to be {told['label']:.4g} (told {_moment(told['labelled_at'])}): off by {difference:+.4g}."
        )
    else:
        console.print("What it turned out to be is not known yet.")
    moves = {line["input"]: line for line in told["attribution"]}
    table = Table(title="What the model was fed")
    for column in ("input", "value", "from", "typical", "moves it by"):
        table.add_column(column, justify="left" if column in ("input", "from") else "right", overflow="fold")
    for feature in told["features"]:
        move = moves.get(feature["name"])
        age = f", {_age(feature['age_seconds'])} old" if "age_seconds" in feature else ""
        table.add_row(
            feature["name"],
            _value(feature["value"]),
            feature["from"] + age,
            _value(move["typical"]) if move else "",
            f"{move['change']:+.3g}" if move else "",
        )
    console.print(table)
    if told["deployment"]:
        entry = told["deployment"]
        console.print(f"{str(entry['action']).capitalize()} {entry['at']}: {entry['why']}")
    if told["lineage"]:
        console.print("Lineage: " + " ← ".join(f"{name} {value}" for name, value in reversed(told["lineage"].items())))
    if "note" in told:
        console.print(f"[yellow]{told['note']}[/]")


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _age(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _value(value: Any) -> str:
    if value is None:
        return "missing"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
