"""The beats of the demonstration, in order: each does real work and keeps the numbers it saw."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from ferroflow.adapters import run_log
from ferroflow.adapters.home import Home
from ferroflow.adapters.ledger import Ledger, serving
from ferroflow.adapters.settings import Settings
from ferroflow.core.errors import ServiceError
from ferroflow.core.metrics import score
from ferroflow.core.records import Deployment, MonitorReport, Validated
from ferroflow.core.skew import sentence
from ferroflow.core.spec import PipelineSpec
from ferroflow.demo.replay import Load, Replay, wait_until_served
from ferroflow.demo.screen import Screen
from ferroflow.demo.world import World
from ferroflow.stations import features, ingest, skew, validate
from tasks.downloads import told_by

HOUR = timedelta(hours=1)
RETRAIN_PATIENCE = 240.0  # seconds from the event to a line in the ledger


@dataclass
class Story:
    """State of one demonstration; ``told`` becomes ``demo.json``."""

    spec: PipelineSpec
    world: World
    home: Home
    settings: Settings
    screen: Screen
    told: dict[str, Any] = field(default_factory=dict)
    replay: Replay | None = None
    validated: Validated | None = None
    alerts: int = 0
    days: int = 0

    # ------------------------------------------------------------------------------------------------- data and model
    def data(self) -> None:
        """Dirty files arrive; every row is accounted for."""
        as_of = self.world.story.start
        told = told_by(self.screen.say)
        now = datetime.now(UTC)
        snapshot = ingest.ingest(self.spec, as_of, self.home, now=now, settings=self.settings, progress=told)
        self.validated = checked = validate.validate(self.spec, snapshot, self.home)
        origins = sorted({part.origin for part in snapshot.parts})
        self.told["data"] = {"source": "+".join(origins), "files": [part.file for part in snapshot.parts]}
        self.screen.say(f"{len(snapshot.parts)} files from {', '.join(origins)}: {snapshot.rows:,} rows")
        worst = sorted(checked.reasons.items(), key=lambda entry: -entry[1])[:6]
        self.screen.table("Quarantined, with the reason and the raw values", ["reason", "rows"], worst)
        self.screen.say(
            f"[bold]{checked.rows_in:,} in = {checked.rows_accepted:,} accepted + "
            f"{checked.rows_quarantined:,} quarantined[/bold]"
        )

    def train(self) -> None:
        """The flow ``train``, in this process: features, search, gate, registry, package."""
        from flows.train import train

        with run_log.on_screen(self.screen.console):
            report = train(pipeline=self.spec.name, as_of=self.world.story.start)
        metric = self.spec.target.metric
        lines = [[entry.candidate, entry.metrics[metric], entry.trials, entry.seconds] for entry in report.leaderboard]
        self.screen.table("Leaderboard (validation)", ["candidate", metric, "trials", "seconds"], lines)
        for gate in report.verdict.gates:
            self.screen.say(f"{'[green]✓[/green]' if gate.passed else '[red]✗[/red]'} {gate.gate}: {gate.reason}")
        if not report.promoted:
            raise ServiceError(f"The first model was not promoted: {report.verdict.reason}. Nothing can be served.")
        self.told["quality"] = dict(report.quality)
        self.screen.say(
            f"version {report.version} is registered, champion{', and packaged as a Bento' * bool(report.bento)}"
        )

    def serve(self, address: str) -> None:
        """The service takes the champion up by itself."""
        version = self.champion_version()
        if not wait_until_served(address, self.spec.name, version, time.monotonic() + 60, time.monotonic):
            raise ServiceError(f"The service at {address} did not take up version {version} within 60 s.")
        self.replay = Replay(self.spec, address)
        self.screen.say(f"version {version} answers at {address}/v1/{self.spec.name}/predict")

    def champion_version(self) -> str:
        """The version that the ledger says serves now."""
        line = serving(self._ledger())
        if line is None:
            raise ServiceError(f"No version of {self.spec.name!r} was ever promoted in {self.home.root}.")
        return line.version

    def _ledger(self) -> list[Deployment]:
        return Ledger(self.home.ledger).history(self.spec.name)

    # ---------------------------------------------------------------------------------------------------- days go by
    def live(self, count: int, mood: str) -> None:
        """Days of traffic: requests in time order, labels in the evening."""
        for _ in range(count):
            rows, answers, labels = self._day(mood)
            error = self._error(answers, rows)
            self.screen.say(
                f"day {self.days}: {rows.height:,} rows, {labels['accepted']:,} labels back, "
                f"{self.spec.target.metric} {error:.2f} {self.world.story.unit}"
            )

    def _day(self, mood: str) -> tuple[pl.DataFrame, pl.DataFrame, Counter[str]]:
        """One day: its rows in order, the service's answers, what the service said of the labels."""
        assert self.replay is not None
        story, rows = self.world.story, self._arrive(mood)
        begin, end = story.midnight(self.days), story.midnight(self.days + 1)
        answers = []
        for hour in range((end - begin) // HOUR):  # 23 or 25 of them when the clock changes
            now = begin + hour * HOUR
            self._materialize(now)
            asked = pl.col(str(self.spec.time)).is_between(now, now + HOUR, closed="left")
            answers.append(self.replay.predict(rows.filter(asked)))
        told = pl.concat(answers)
        self.days += 1
        return rows, told, self.replay.feedback(told, rows)

    def _arrive(self, mood: str) -> pl.DataFrame:
        """A day's file lands, is ingested and validated; gives its accepted rows."""
        self.world.arrive(self.days, mood)
        midnight = self.world.story.midnight(self.days)
        snapshot = ingest.ingest(self.spec, midnight, self.home, now=datetime.now(UTC), settings=self.settings)
        self.validated = validate.validate(self.spec, snapshot, self.home)
        return self.world.accepted(self.validated, self.days)

    def _materialize(self, now: datetime) -> None:
        """Stored features as they were known at that hour: rows that ended later are left out."""
        assert self.validated is not None
        features.refresh_offline(self.spec, self.validated, now, self.home)
        features.materialize(self.spec, now, self.home)

    def _error(self, answers: pl.DataFrame, rows: pl.DataFrame) -> float:
        joined = answers.join(rows.select("row_id", self.spec.target.column), on="row_id")
        target = joined[self.spec.target.column].cast(pl.Float64).to_numpy()
        return score(self.spec.target.task, target, joined["prediction"].to_numpy())[self.spec.target.metric]

    def watch(self) -> MonitorReport:
        """The flow ``monitor`` as of the present midnight: whether it alarmed, and why or why not."""
        from flows.monitor import monitor as flow

        report: MonitorReport = flow(pipeline=self.spec.name, as_of=self.world.story.midnight(self.days))
        alarmed = report.alarm != "none"
        self.alerts += alarmed
        colour = "bold red" if alarmed else "green"
        self.screen.say(f"[{colour}]{'ALARM' if alarmed else 'no alarm'}[/{colour}]: {report.why}")
        if report.html:
            self.screen.say(f"[dim]report: {self.home.absolute(report.html)}[/dim]")
        return report

    # -------------------------------------------------------------------------------------------------------- repair
    def repaired(self, address: str) -> None:
        """The event has started ``retrain`` on the worker; wait for its verdict while requests keep coming."""
        before = self.champion_version()
        rows = self._present_rows()
        with Load(self.spec, address, rows) as load:
            line = self._wait_for_ledger(before)
            if line.action == "promoted":
                wait_until_served(address, self.spec.name, line.version, time.monotonic() + 30, time.monotonic)
                time.sleep(1)  # a second of requests to the new version, under the same load
        self.told["swap"] = {"requests": load.requests, "failed": load.failed, "versions": dict(load.versions)}
        if load.errors:
            self.screen.say(f"[red]{load.errors[0]}[/red]")
        self.told["retrain"] = {"promoted": line.action == "promoted", "why": line.why, "version": line.version}
        self.screen.say(f"version {line.version} {line.action}: {line.why}")
        self.screen.say(f"{load.requests:,} requests during the retraining and the swap, {load.failed} failed")

    def _present_rows(self) -> pl.DataFrame:
        assert self.validated is not None
        return self.world.accepted(self.validated, self.days - 1).head(1000)

    def _wait_for_ledger(self, before: str) -> Deployment:
        seen = len(self._ledger())
        deadline = time.monotonic() + RETRAIN_PATIENCE
        while time.monotonic() < deadline:
            lines = self._ledger()
            if len(lines) > seen:
                return lines[-1]
            time.sleep(0.5)
        raise ServiceError(
            f"No retraining finished within {RETRAIN_PATIENCE:.0f} s of the event (champion is still {before}). "
            f"Look at {self.home.logs} and at the runs in Prefect."
        )

    def recovered(self, before: str) -> None:
        """The same rows from after the change, predicted by both versions."""
        rows, answers, _ = self._day("harm")
        after = self._error(answers, rows)
        earlier = self._by_version(before, answers, rows)
        self.told["retrain"] |= {"rmse_before": round(earlier, 4), "rmse_after": round(after, 4), "rows": rows.height}
        self.screen.say(
            f"{rows.height:,} rows nobody trained on: [bold]{earlier:.2f} → {after:.2f} {self.world.story.unit}[/bold] "
            f"({self.spec.target.metric}, version {before} → {answers['version'][-1]})"
        )

    def _by_version(self, version: str, answers: pl.DataFrame, rows: pl.DataFrame) -> float:
        """What the earlier version answers to the very vectors that were logged."""
        from ferroflow.adapters import registry
        from ferroflow.adapters.graph import Graph
        from ferroflow.adapters.predictions import PredictionLog

        known = registry.version(self.spec.name, version, self.home)
        graph = Graph(self.home.absolute(known.package) / "model.onnx")
        log = PredictionLog(self.home.predictions(self.spec.name)).read()
        log = answers.select("prediction_id").join(log, left_on="prediction_id", right_on="id", maintain_order="left")
        vectors = log["features"].str.json_decode(_dtype(graph.inputs)).struct.unnest()
        again = answers.with_columns(pl.Series("prediction", graph.predict(vectors), dtype=pl.Float64))
        return self._error(again, rows)

    # ---------------------------------------------------------------------------------------------------- accounting
    def compared(self) -> None:
        """Every logged vector against a point-in-time recomputation."""
        assert self.replay is not None and self.validated is not None
        accepted = pl.concat([pl.scan_parquet(self.home.absolute(path)) for path in self.validated.accepted])
        asked = pl.LazyFrame({"prediction_id": list(self.replay.rows), "row_id": list(self.replay.rows.values())})
        found = skew.measure_skew(
            self.spec,
            self.world.story.midnight(self.days),
            self.home,
            self.world.story.start,
            newest=None,
            accepted=asked.join(accepted, on="row_id"),
        )
        left_out = len(self.replay.rows) - found.compared
        self.told["skew"] = {"compared": found.values, "mismatched": found.mismatched, "left_out": left_out}
        self.screen.say(f"{found.values:,} values of {found.compared:,} vectors, {found.mismatched} differ")
        if left_out or found.mismatched:
            self.screen.say(f"[red]{sentence(found)}[/red]")
        for entry in found.features:
            for example in entry.examples:
                self.screen.say(f"[red]{entry.feature}: {example.model_dump()}[/red]")

    def counted(self) -> None:
        """What was asked of the service, and the rows of everything that arrived."""
        assert self.replay is not None and self.validated is not None
        self.told["served"] = {"requests": self.replay.requests, "failed": self.replay.failed}
        checked = self.validated
        self.told["rows"] = {
            "in": checked.rows_in,
            "accepted": checked.rows_accepted,
            "quarantined": checked.rows_quarantined,
        }
        for why in self.replay.errors[:3]:
            self.screen.say(f"[red]{why}[/red]")


def _dtype(inputs: Mapping[str, str]) -> pl.Struct:
    kinds: dict[str, Any] = {"float": pl.Float64, "int": pl.Int64, "text": pl.String}
    return pl.Struct({name: kinds[kind] for name, kind in inputs.items()})
