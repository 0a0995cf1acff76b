"""The flow ``monitor``: what serves is looked at, and an alarm becomes an event."""

from __future__ import annotations

from datetime import datetime

from prefect import flow

from ferroflow.adapters.events import ALARMS, emit
from ferroflow.core.records import MonitorReport
from flows.run import Run
from tasks import watch as tasks


@flow(name="monitor", flow_run_name="monitor {pipeline}", persist_result=True, result_serializer="json")
def monitor(pipeline: str, as_of: datetime | None = None) -> MonitorReport:
    """Join late labels to predictions, judge drift and error, and emit an event when something has to be done.

    Args:
        pipeline: its folder's name below pipelines/.
        as_of: the moment to run for (UTC unless an offset is given). Empty: the pipeline's clock, which is the present
            hour, or in a replay the hour that the predictions have come to.
    """
    run = Run(pipeline, as_of)
    report = run(tasks.monitor, run.as_of)
    if report.alarm != "none":
        payload = {"as_of": report.as_of.isoformat(), "why": report.why, "ratio": report.ratio}
        emit(ALARMS[report.alarm], pipeline, payload)
    return report
