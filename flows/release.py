"""The second half of training and of retraining: from a split to a version that serves, or to the reason why not."""

from __future__ import annotations

from typing import Any

from ferroflow.adapters.events import emit
from ferroflow.core.errors import FerroflowError
from ferroflow.core.records import FeatureTable, ModelVersion, Snapshot, Split, Validated
from flows.run import Run, quality
from tasks import model as tasks
from tasks.policy import warn


def release(
    run: Run, snapshot: Snapshot, validated: Validated, table: FeatureTable, split: Split, seconds: float | None
) -> dict[str, Any]:
    """Train, judge, register, and promote when all gates pass; gives what a report says of it.

    The Bento comes last and for a promoted version alone: a model that passed serves, whatever becomes of the Bento.
    """
    model = run(tasks.train, split, seconds)
    emit("ferroflow.model.trained", run.pipeline, {"model": model.fingerprint, "candidate": model.candidate})
    champion = run(tasks.rival, model)
    evaluation = run(tasks.evaluate, split, model, champion)
    verdict = run(tasks.judge, evaluation)
    stations = {"snapshot": snapshot, "validated": validated, "features": table, "split": split, "model": model}
    lineage = {name: record.fingerprint for name, record in (stations | {"evaluation": evaluation}).items()}
    lineage["rows"] = str(validated.rows_accepted)
    if run.spec.timed:  # otherwise the same rows make the same package at any moment
        lineage["as_of"] = run.as_of.isoformat()
    package = run(tasks.package, model, lineage)
    version = run(tasks.register, model, evaluation, verdict, split, package, run.now)
    deployment = run(tasks.promote, version, verdict, run.present())
    promoted = deployment.action == "promoted"
    if promoted:
        emit("ferroflow.model.deployed", run.pipeline, {"version": version.version, "why": verdict.reason})
    return {
        "candidate": model.candidate,
        "leaderboard": model.leaderboard,
        "quality": quality(evaluation, model),
        "verdict": verdict,
        "version": version.version,
        "bento": _bento(run, version) if promoted else None,
        "promoted": promoted,
    }


def _bento(run: Run, version: ModelVersion) -> str | None:
    """The Bento's tag; None when it could not be built, which the run's log and the failed task tell."""
    try:
        return str(run(tasks.bento, version))
    except (FerroflowError, OSError) as error:
        warn("version %s serves, but its Bento could not be built: %s", version.version, error)
        return None
