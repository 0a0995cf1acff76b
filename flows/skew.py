"""The flow ``skew``: what models were fed is compared with a recomputation, and a difference becomes an event."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from prefect import flow
from pydantic import Field

from ferroflow.adapters.events import ALARMS, emit
from ferroflow.core.records import SkewReport
from ferroflow.core.skew import judge
from ferroflow.core.spec import Skew
from flows.parameters import utc
from flows.run import Run
from tasks import watch as tasks


@flow(name="skew", flow_run_name="skew of {pipeline}", persist_result=True, result_serializer="json")
def skew(
    pipeline: str,
    as_of: datetime | None = None,
    since: datetime | None = None,
    newest: Annotated[int | None, Field(gt=0)] = None,
) -> SkewReport:
    """Recompute the model inputs of logged predictions point in time, and count what differs, by feature.

    Args:
        pipeline: its folder's name below pipelines/.
        as_of: predictions for moments before it are looked at (UTC unless an offset is given). Empty: the pipeline's
            clock, which is the present hour, or in a replay the hour that the predictions have come to.
        since: and not before this moment. Empty: the windows that the monitor looks at.
        newest: at most so many predictions, the newest of them. Empty: all.
    """
    run = Run(pipeline, as_of)
    report: SkewReport = run(tasks.skew, run.as_of, utc(since) if since else None, newest)
    alarmed, why = judge(report, run.spec.monitor(Skew) or Skew())
    if alarmed:
        emit(ALARMS["skew"], pipeline, {"as_of": report.as_of.isoformat(), "why": why, "ratio": None})
    return report
