"""The flow ``retrain``: a challenger from recent rows, when the policy allows one."""

from __future__ import annotations

from datetime import datetime

from prefect import flow

from flows.parameters import Minutes, budget
from flows.release import release
from flows.run import Run, RunReport
from tasks import data, watch


@flow(name="retrain", flow_run_name="retrain {pipeline}", persist_result=True, result_serializer="json")
def retrain(
    pipeline: str, as_of: datetime | None = None, reason: str = "", minutes: Minutes = None, force: bool = False
) -> RunReport:
    """Decide by alarm, cool-down, budget and new rows; then train a challenger and let the gates judge it.

    Args:
        pipeline: its folder's name below pipelines/.
        as_of: the moment to run for (UTC unless an offset is given). Empty: the pipeline's clock, which is the present
            hour, or in a replay the hour that the predictions have come to.
        reason: who or what asks for a retraining; kept with the decision.
        minutes: time for tuning and training. Empty: what the pipeline says.
        force: retrain whatever alarm, cool-down, budget and new rows say.
    """
    run = Run(pipeline, as_of)
    report = run(watch.monitor, run.as_of, False)
    snapshot = run(data.ingest, run.as_of, run.now)
    validated = run(data.validate, snapshot)
    assessed = run(data.quality, snapshot, validated, run.as_of)
    decision = run(watch.decide, report, validated, force, reason)
    if not decision.retrain:
        return run.report(snapshot, validated, assessed, decision=decision)
    table = run(data.features, validated, run.as_of)
    run(data.materialize, run.as_of)
    split = run(data.split_for_retraining, table)
    released = release(run, snapshot, validated, table, split, budget(minutes))
    return run.report(snapshot, validated, assessed, decision=decision, **released)
