"""What a run makes, as Prefect's assets: where it came from, whose it is, how much of it there is and how new.

An asset is named ``ferroflow://<pipeline>/...``. Its events are those that ``@materialize`` sends. They are sent from
inside the tasks, because the names depend on the pipeline and one task makes several assets of different origins.
Outside a run nothing is sent, and what was reused is not told again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from prefect.artifacts import create_table_artifact
from prefect.assets import Asset, AssetProperties
from prefect.context import AssetContext, TaskRunContext
from prefect.states import Completed, State

from ferroflow.adapters import pipelines, processes
from ferroflow.adapters.catalogue_page import PAGE, write_catalogue_page
from ferroflow.adapters.home import Home
from ferroflow.adapters.settings import load_settings
from ferroflow.core.catalogue import FeatureEntry, PipelineFeatures, spoken
from ferroflow.core.errors import FerroflowError
from ferroflow.core.records import Deployment, FeatureTable, ModelVersion, Snapshot, Validated
from ferroflow.core.spec import PipelineSpec
from ferroflow.stations import catalogue as station
from ferroflow.stations.offline import hold
from tasks.policy import record_of, warn

Name = tuple[str, ...]


def key(pipeline: str, *parts: str) -> str:
    """An asset's key: ``ferroflow://taxi/features/zone_hour``."""
    return "/".join((f"ferroflow://{pipeline}", *parts))


def ingested(result: Any) -> None:
    """A snapshot of raw rows."""
    made: Snapshot = record_of(result)
    told = {"fingerprint": made.fingerprint, "rows": made.rows, "files": len(made.parts)}
    _materialized(result, made.pipeline, ("snapshot",), "Raw rows of all files.", [("source",)], told)


def checked(result: Any) -> None:
    """Accepted rows."""
    made: Validated = record_of(result)
    told = {"fingerprint": made.fingerprint, "rows": made.rows_accepted, "quarantined": made.rows_quarantined}
    _materialized(result, made.pipeline, ("validated",), "Rows that the schema accepts.", [("snapshot",)], told)


def written_at(pipeline: str, home: Home) -> int | None:
    """When the offline store's files were last put in place (ns since 1970); None: nothing vouches for any."""
    try:
        return (home.offline(pipeline) / "manifest.json").stat().st_mtime_ns
    except FileNotFoundError:
        return None


def stored(pipeline: str, as_of: datetime, home: Home, before: int | None = None) -> None:
    """The stored features of each view, with their age and how much of them is missing; nothing of the online store.

    Args:
        before: ``written_at`` of before the task's work; a store that was not written since is not told again.
    """
    spec = pipelines.load(pipeline)
    if not spec.stored or (before is not None and written_at(pipeline, home) == before):
        return
    with hold(spec, home):  # another run may be replacing the files
        found = station.freshness(spec, as_of, home, online=False)
        missing = {view.name: station.null_rates(spec, view, home) for view in spec.stored}
    for view in spec.stored:
        fresh = found[view.name]
        told = {
            "rows": fresh.rows,
            "available_at": _written(fresh.available_at),
            "ingested_at": _written(fresh.ingested_at),
            "age_seconds": fresh.age_seconds,
            "ttl_seconds": view.ttl.total_seconds(),
            "null_rate": missing[view.name],
            "as_of": as_of.isoformat(),
        }
        described = (view.function.__doc__ or "").strip().partition("\n")[0]
        _materialized(None, pipeline, ("features", view.name), described, [("validated",)], told)


def joined(result: Any, home: Home) -> None:
    """The training table, with how much of each input is missing."""
    made: FeatureTable = record_of(result)
    spec = pipelines.load(made.pipeline)
    origins: list[Name] = [("validated",), *(("features", view.name) for view in spec.stored)]
    told = {
        "fingerprint": made.fingerprint,
        "rows": made.rows,
        "null_rate": station.table_null_rates(made, home),
        "as_of": made.as_of.isoformat(),
    }
    described = "Model inputs and target of every labelled row, as of its own moment."
    _materialized(result, made.pipeline, ("training_table",), described, origins, told)


def online(pipeline: str, written: dict[str, int], as_of: datetime) -> None:
    """What the service looks up, view by view."""
    for view, rows in written.items():
        told = {"rows": rows, "as_of": as_of.isoformat()}
        described = "Each entity's latest row, for look-ups by the service."
        _materialized(None, pipeline, ("online", view), described, [("features", view)], told)


def registered(version: ModelVersion) -> None:
    """A version in the registry, as challenger."""
    told = {"version": version.version, "fingerprint": version.fingerprint, **version.metrics}
    described = "The version that the gates judge."
    _materialized(None, version.pipeline, ("models", "challenger"), described, [("training_table",)], told)


def promoted(deployment: Deployment, home: Home) -> None:
    """The version that serves, and the catalogue that now names it; nothing when the gates rejected it."""
    if deployment.action == "rejected":
        return
    told = {"version": deployment.version, "previous": deployment.previous, "why": deployment.why}
    origins: list[Name] = [("models", "challenger")]
    _materialized(None, deployment.pipeline, ("models", "champion"), "The version that serves.", origins, told)
    if (table := station.last_table(deployment.pipeline, home)) is not None:
        catalogued(deployment.pipeline, table.as_of, home)


def catalogued(pipeline: str, as_of: datetime, home: Home) -> None:
    """The catalogue of a pipeline, drawn as its page and as a table with the way there.

    It is a look at what was made: a catalogue that cannot be drawn is told in the log and stops nothing.
    """
    try:
        found = station.catalogue([pipelines.load(pipeline)], as_of, home)
        write_catalogue_page(home.reports(pipeline) / PAGE, found)
    except (FerroflowError, OSError) as error:
        warn("the feature catalogue of %s could not be drawn: %s", pipeline, error)
        return
    part = found.pipelines[0]
    create_table_artifact(
        [_line(entry) for entry in part.features],
        key=f"{pipeline.replace('_', '-')}-features",
        description=_said(part, home),
    )


def _said(part: PipelineFeatures, home: Home) -> str:
    stale = sum(bool(entry.freshness and entry.freshness.stale) for entry in part.features)
    port = load_settings().service_port
    address = processes.addresses(home).get("service") or f"http://127.0.0.1:{port}"
    return (
        f"{len(part.features)} features as of {part.as_of:%Y-%m-%d %H:%M} UTC, {stale} stale. "
        f"[The page]({address}/reports/{part.pipeline}/{PAGE})"
    )


def _line(entry: FeatureEntry) -> dict[str, Any]:
    fresh = entry.freshness
    age = "" if fresh is None or fresh.age_seconds is None else spoken(fresh.age_seconds)
    return {
        "feature": entry.name,
        "kind": entry.kind,
        "owner": entry.owner,
        "description": entry.description,
        "age": f"stale: {fresh.stale}" if fresh and fresh.stale else age,
        "missing": None if entry.training is None else round(entry.training.missing_share, 4),
        "missing lately": None if entry.logged is None else round(entry.logged.missing_share, 4),
        "importance": entry.importance,
        "used by": ", ".join(entry.used_by),
    }


def _materialized(
    result: Any, pipeline: str, name: Name, description: str, origins: Sequence[Name], metadata: dict[str, Any]
) -> None:
    """Send the events of one asset, made of others."""
    if TaskRunContext.get() is None or (isinstance(result, State) and result.name == "Reused"):
        return
    asset = _asset(pipelines.load(pipeline), name, description)
    context = AssetContext(
        direct_asset_dependencies={Asset(key=key(pipeline, *origin)) for origin in origins},
        downstream_assets={asset},
        materialized_by="ferroflow",
        materialization_metadata={asset.key: metadata},
    )
    context.emit_events(Completed())


def _asset(spec: PipelineSpec, name: Name, description: str) -> Asset:
    told: dict[str, Any] = {"name": f"{spec.name}: {' '.join(name)}", "description": description[:2500]}
    if spec.owner:
        told["owners"] = [spec.owner]
    return Asset(key=key(spec.name, *name), properties=AssetProperties(**told))


def _written(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
