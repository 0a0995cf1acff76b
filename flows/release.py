"""The second half of training and of retraining: from a split to a version that serves, or to the reason why not."""

from __future__ import annotations

from typing import Any

from ferroflow.adapters.events import emit
from ferroflow.core.records import FeatureTable, Snapshot, Split, Validated
from flows.run import Run, quality
from tasks import model as tasks


def release(
    run: Run, snapshot: Snapshot, validated: Validated, table: FeatureTable, split: Split, seconds: float | None
) -> dict[str, Any]:
    """Train, judge, register, and promote when all gates pass; gives what a report says of it."""
    model = run(tasks.train, split, seconds)
    emit("ferroflow.model.trained", run.pipeline, {"model": model.fingerprint, "candidate": model.candidate})
    champion = run(tasks.rival, model)
    evaluation = run(tasks.evaluate, split, model, champion)
    verdict = run(tasks.judge, evaluation)
    stations = {"snapshot": snapshot, "validated": validated, "features": table, "split": split, "model": model}
    lineage = {name: record.fingerprint for name, record in (stations | {"evaluation": evaluation}).items()}
    lineage |= {"as_of": run.as_of.isoformat(), "rows": str(validated.rows_accepted)}
    package = run(tasks.package, model, lineage)
    version = run(tasks.register, model, evaluation, verdict, split, package, run.now)
    bento = run(tasks.bento, version)
    deployment = run(tasks.promote, version, verdict, run.clock())
    promoted = deployment.action == "promoted"
    if promoted:
        emit("ferroflow.model.deployed", run.pipeline, {"version": version.version, "why": verdict.reason})
    return {
        "candidate": model.candidate,
        "leaderboard": model.leaderboard,
        "quality": quality(evaluation, model),
        "verdict": verdict,
        "version": version.version,
        "bento": bento,
        "promoted": promoted,
    }
