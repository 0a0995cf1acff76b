"""The flow ``train``: from raw files to a version that serves."""

from __future__ import annotations

from datetime import datetime

from prefect import flow

from ferroflow.adapters.events import emit
from flows.parameters import Minutes, budget, start
from flows.release import release
from flows.run import Run, RunReport
from tasks import data as tasks


@flow(name="train", flow_run_name="train {pipeline}", persist_result=True, result_serializer="json")
def train(pipeline: str, as_of: datetime | None = None, minutes: Minutes = None) -> RunReport:
    """Ingest, validate, judge the data, make features, search, train, judge, register; promote when every gate passes.

    Args:
        pipeline: its folder's name below pipelines/.
        as_of: the moment to run for (UTC unless an offset is given). Empty: where the pipeline's replay starts, or the
            present hour.
        minutes: time for tuning and training. Empty: what the pipeline says.
    """
    run = Run(pipeline, as_of, start)
    snapshot = run(tasks.ingest, run.as_of, run.now)
    emit("ferroflow.data.ingested", pipeline, {"snapshot": snapshot.fingerprint, "rows": snapshot.rows})
    validated = run(tasks.validate, snapshot)
    assessed = run(tasks.quality, snapshot, validated, run.as_of)
    table = run(tasks.features, validated, run.as_of)
    written = run(tasks.materialize, run.as_of)
    emit("ferroflow.features.materialized", pipeline, {"rows": written, "as_of": run.as_of.isoformat()})
    split = run(tasks.split, table)
    released = release(run, snapshot, validated, table, split, budget(minutes))
    return run.report(snapshot, validated, assessed, **released)
