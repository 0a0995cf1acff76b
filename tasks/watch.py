"""Tasks about what serves: monitoring, the decision to retrain, and predictions for files."""

from __future__ import annotations

from datetime import datetime

from prefect import task

from ferroflow.core.records import Decision, MonitorReport, SkewReport, Validated
from ferroflow.stations import monitor as monitor_station
from ferroflow.stations import predict as predict_station
from ferroflow.stations import retraining
from ferroflow.stations import skew as skew_station
from tasks import artifacts
from tasks.policy import KEPT, OUTSIDE, carry_out, home, record_of


@task(name="monitor", task_run_name="monitor {pipeline}", **OUTSIDE)
def monitor(pipeline: str, as_of: datetime, html: bool = True) -> MonitorReport:
    """Judge the predictions of before ``as_of``; ``html`` asks for Evidently's page when there is something to see."""
    report = carry_out(monitor_station.monitor, pipeline, as_of, report=html)
    found = record_of(report)
    artifacts.monitored(found, home())
    if found.skew is not None:
        artifacts.skewed(found.skew)
    return report


@task(name="skew", task_run_name="skew of {pipeline}", **OUTSIDE)
def skew(pipeline: str, as_of: datetime, since: datetime | None = None, newest: int | None = None) -> SkewReport:
    """Compare the model inputs logged before ``as_of`` with a point-in-time recomputation, of every version."""
    report = carry_out(skew_station.measure_skew, pipeline, as_of, since=since, newest=newest)
    artifacts.skewed(record_of(report))
    return report


@task(name="decide", task_run_name="decide for {pipeline}", **KEPT)
def decide(pipeline: str, report: MonitorReport, validated: Validated, force: bool, reason: str) -> Decision:
    """Whether to retrain, by the policy; ``force`` passes it by, and says so."""
    return carry_out(retraining.decide, pipeline, report, validated, force=force, reason=reason)


@task(name="batch-predict", task_run_name="predict rows of {pipeline}", **KEPT)
def predict(pipeline: str, rows: str, at: datetime) -> str:
    """Predict the rows of a file or snapshot as the endpoint would; the path of the file with the predictions."""
    return str(carry_out(predict_station.predict_file, pipeline, rows, at=at))
