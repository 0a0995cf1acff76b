"""One run of a flow: its pipeline and moment, how long each station took, and what it gives at the end."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from prefect import State, Task
from pydantic import BaseModel, ConfigDict

from ferroflow.adapters import pipelines
from ferroflow.core.records import Decision, Evaluation, Quality, Snapshot, Standing, TrainedModel, Validated, Verdict
from flows.parameters import Clock, clock, utc
from tasks import artifacts


class RunReport(BaseModel):
    """What ``train`` and ``retrain`` give, and ``ferroflow run --json`` prints."""

    model_config = ConfigDict(frozen=True)

    pipeline: str
    as_of: datetime
    snapshot: str
    rows: dict[str, int]  # in, accepted, quarantined
    data_quality: float  # the score of the accepted rows, 0 to 1
    candidate: str | None = None
    leaderboard: tuple[Standing, ...] = ()  # errors on the validation rows, best first
    quality: dict[str, float] = {}  # [baseline_ | champion_](validation | test)_<metric>
    verdict: Verdict | None = None  # None: not retrained
    version: str | None = None
    bento: str | None = None  # of a promoted version, when it could be built
    promoted: bool = False
    decision: Decision | None = None  # of a retraining
    seconds: dict[str, float] = {}
    reused: tuple[str, ...] = ()  # stations that had done this work before


class Run:
    """Call it with a task and what it needs besides the pipeline: ``snapshot = run(ingest, run.as_of)``."""

    def __init__(self, pipeline: str, as_of: datetime | None, otherwise: Clock = clock) -> None:
        """``otherwise`` tells the moment when ``as_of`` is not given."""
        self.spec = pipelines.load(pipeline)
        self.now = datetime.now(UTC)
        self.as_of = utc(as_of) if as_of else otherwise(self.spec, self.now)
        self.seconds: dict[str, float] = {}
        self.reused: list[str] = []

    @property
    def pipeline(self) -> str:
        """The pipeline's name."""
        return self.spec.name

    def __call__(self, task: Task[..., Any], *arguments: Any) -> Any:
        """Run a task for this pipeline, and keep its seconds and whether it had been done before."""
        begun = time.perf_counter()
        result = task(self.pipeline, *arguments)
        if isinstance(result, State):
            self.reused.append(task.name)
            result = result.result()
        self.seconds[task.name] = round(time.perf_counter() - begun, 3)
        return result

    def present(self) -> datetime:
        """The present moment: a promotion is dated when it happens, not when its run began."""
        return datetime.now(UTC)

    def report(self, snapshot: Snapshot, validated: Validated, assessed: Quality, **more: Any) -> RunReport:
        """The report of a run that ends here."""
        artifacts.stations(self.pipeline, self.seconds, tuple(self.reused))
        rows = {
            "in": validated.rows_in,
            "accepted": validated.rows_accepted,
            "quarantined": validated.rows_quarantined,
        }
        return RunReport(
            pipeline=self.pipeline,
            as_of=self.as_of,
            snapshot=snapshot.fingerprint,
            rows=rows,
            data_quality=assessed.score,
            seconds=self.seconds,
            reused=tuple(self.reused),
            **more,
        )


def quality(evaluation: Evaluation, model: TrainedModel) -> dict[str, float]:
    """The metric that counts, of candidate, baseline and champion, on validation and test rows."""
    measured = {"": evaluation.metrics, "baseline_": evaluation.baseline, "champion_": evaluation.champion}
    return {
        f"{who}{rows}_{model.metric}": metrics[model.metric]
        for who, parts in measured.items()
        for rows, metrics in parts.items()
        if model.metric in metrics
    }
