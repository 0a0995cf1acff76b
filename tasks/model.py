"""Tasks from a split to a version that serves, or does not."""

from __future__ import annotations

from datetime import datetime

from prefect import task

from ferroflow.adapters import registry
from ferroflow.adapters.ledger import Ledger
from ferroflow.core.records import Deployment, Evaluation, ModelVersion, Split, TrainedModel, Verdict
from ferroflow.stations import bento as bento_station
from ferroflow.stations import evaluate as evaluate_station
from ferroflow.stations import gate as gate_station
from ferroflow.stations import package as package_station
from ferroflow.stations import register as register_station
from ferroflow.stations import train as train_station
from tasks import artifacts, assets
from tasks.policy import KEPT, OUTSIDE, carry_out, home, judge_by, record_of, say


@task(name="train", task_run_name="train {pipeline}", **KEPT)
def train(pipeline: str, split: Split, seconds: float | None) -> TrainedModel:
    """Search and train all candidates; the best one is exported."""
    model = carry_out(train_station.train, pipeline, split, seconds=seconds, progress=say)
    artifacts.leaderboard(record_of(model))
    return model


@task(name="champion", task_run_name="champion of {pipeline}", **OUTSIDE)
def rival(pipeline: str, model: TrainedModel) -> ModelVersion | None:
    """The champion to be compared with.

    When a run is made again after its own model was promoted, this is the champion of before, so that evaluation and
    verdict come out as they did.
    """
    folder = home()
    champion = registry.champion(pipeline, folder)
    if champion is None or champion.fingerprint != model.fingerprint:
        return champion
    lines = [line for line in Ledger(folder.ledger).history(pipeline) if line.version == champion.version]
    previous = next((line.previous for line in lines if line.action == "promoted"), None)
    return None if previous is None else registry.version(pipeline, previous, folder)


@task(name="evaluate", task_run_name="evaluate {pipeline}", **KEPT)
def evaluate(pipeline: str, split: Split, model: TrainedModel, champion: ModelVersion | None) -> Evaluation:
    """Errors on rows that took no part in training, beside the baseline and the champion."""
    return carry_out(evaluate_station.evaluate, pipeline, split, model, champion)


@task(name="gate", task_run_name="gate of {pipeline}", **KEPT)
def judge(pipeline: str, evaluation: Evaluation) -> Verdict:
    """What every gate says, with its numbers."""
    verdict = judge_by(gate_station.judge, pipeline, evaluation)
    artifacts.judgement(verdict, evaluation)
    return verdict


@task(name="package", task_run_name="package {pipeline}", **KEPT)
def package(pipeline: str, model: TrainedModel, lineage: dict[str, str]) -> str:
    """What the service loads, in one folder; its path relative to the home."""
    return home().relative(carry_out(package_station.write_package, pipeline, model, lineage))


@task(name="register", task_run_name="register {pipeline}", **OUTSIDE)
def register(
    pipeline: str,
    model: TrainedModel,
    evaluation: Evaluation,
    verdict: Verdict,
    split: Split,
    package: str,
    at: datetime,
) -> ModelVersion:
    """Register a version as challenger, load-verified."""
    folder = home().absolute(package)
    version = carry_out(register_station.register, pipeline, model, evaluation, verdict, split, folder, at=at)
    artifacts.registered(version, home())
    assets.registered(version)
    return version


@task(name="bento", task_run_name="bento of {pipeline}", **KEPT)
def bento(pipeline: str, version: ModelVersion) -> str:
    """Build the Bento that answers alone; its tag."""
    return carry_out(bento_station.build_bento, pipeline, version)


@task(name="promote", task_run_name="promote {pipeline}", **OUTSIDE)
def promote(pipeline: str, version: ModelVersion, verdict: Verdict, at: datetime) -> Deployment:
    """Move the champion's alias when the verdict passed; write a line in the ledger either way."""
    deployment = carry_out(register_station.promote, pipeline, version, verdict, at=at)
    assets.promoted(deployment, home())
    return deployment
