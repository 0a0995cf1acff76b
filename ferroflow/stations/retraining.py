"""The decision to retrain, kept: a killed retraining goes on, and the next one knows of it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import polars as pl

from ferroflow.adapters import registry
from ferroflow.adapters.home import Home
from ferroflow.adapters.storage import read_record, write_record
from ferroflow.core.contract import ServingContract
from ferroflow.core.fingerprint import fingerprint
from ferroflow.core.records import Decision, ModelVersion, MonitorReport, Validated
from ferroflow.core.spec import PipelineSpec


def decide(
    spec: PipelineSpec,
    report: MonitorReport,
    validated: Validated,
    home: Home,
    *,
    force: bool = False,
    reason: str = "",
) -> Decision:
    """Decide as of the report's moment; a retraining that was already decided for that moment stays decided.

    Args:
        force: retrain whatever the policy says.
        reason: who asked, kept in the decision when ``force`` is true.
    """
    from ferroflow.stations import monitor

    kept = {decision.as_of: decision for decision in decisions(spec.name, home)}
    if report.as_of in kept:
        return kept[report.as_of]
    if force:
        why = f"asked for: {reason or 'no reason given'}"
        name = fingerprint(spec.name, report.as_of, why)
        decision = Decision(pipeline=spec.name, fingerprint=name, retrain=True, reason=why, as_of=report.as_of)
    else:
        fresh = new_rows(spec, validated, registry.champion(spec.name, home), report.as_of, home)
        decision = monitor.decide(spec, report, sorted(kept), report.as_of, fresh)
    if decision.retrain:
        write_record(_folder(spec.name, home) / f"{decision.fingerprint}.json", decision)
    return decision


def decisions(pipeline: str, home: Home) -> list[Decision]:
    """Every decision that was to retrain, oldest first."""
    found = (read_record(path, Decision) for path in _folder(pipeline, home).glob("*.json"))
    return sorted((decision for decision in found if decision is not None), key=lambda decision: decision.as_of)


def new_rows(
    spec: PipelineSpec, validated: Validated, champion: ModelVersion | None, as_of: datetime, home: Home
) -> int:
    """Accepted rows, known before ``as_of``, that the champion cannot have seen: later than the moment of its training.

    Without a time column: how many more there are than it was trained on.
    """
    lineage = {} if champion is None else _lineage(home.absolute(champion.package))
    if spec.time is None or "as_of" not in lineage:
        return validated.rows_accepted - int(lineage.get("rows", "0"))
    since = datetime.fromisoformat(lineage["as_of"])
    known = spec.target.known_at or spec.time
    rows = pl.scan_parquet([home.absolute(path) for path in validated.accepted])
    inside = pl.col(known).is_between(since, as_of, closed="left")
    return int(rows.select(inside.sum()).collect().item())


def _lineage(package: Path) -> dict[str, str]:
    return ServingContract.model_validate_json((package / "serving.json").read_bytes()).lineage


def _folder(pipeline: str, home: Home) -> Path:
    return home.data(pipeline) / "decisions"
