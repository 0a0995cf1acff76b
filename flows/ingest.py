"""The flow ``ingest``: new files, checked, and their features brought to the online store."""

from __future__ import annotations

from datetime import datetime

from prefect import flow

from ferroflow.adapters.events import emit
from flows.run import Run, RunReport
from tasks import data as tasks


@flow(name="ingest", flow_run_name="ingest {pipeline}", persist_result=True, result_serializer="json")
def ingest(pipeline: str, as_of: datetime | None = None) -> RunReport:
    """Read the source's files, put bad rows in quarantine, and refresh the features that the service looks up.

    Args:
        pipeline: its folder's name below pipelines/.
        as_of: the moment to run for (UTC unless an offset is given). Empty: the pipeline's clock, which is the present
            hour, or in a replay the hour that the predictions have come to.
    """
    run = Run(pipeline, as_of)
    snapshot = run(tasks.ingest, run.as_of, run.now)
    emit("ferroflow.data.ingested", pipeline, {"snapshot": snapshot.fingerprint, "rows": snapshot.rows})
    validated = run(tasks.validate, snapshot)
    assessed = run(tasks.quality, snapshot, validated, run.as_of)
    run(tasks.refresh, validated, run.as_of)
    written = run(tasks.materialize, run.as_of)
    emit("ferroflow.features.materialized", pipeline, {"rows": written, "as_of": run.as_of.isoformat()})
    return run.report(snapshot, validated, assessed)
