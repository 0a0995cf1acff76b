"""Tasks from raw files to a split."""

from __future__ import annotations

from datetime import datetime

from prefect import task

from ferroflow.adapters import pipelines
from ferroflow.adapters.settings import load_settings
from ferroflow.core.records import FeatureTable, Snapshot, Split, Validated
from ferroflow.core.splits import retrain_protocol
from ferroflow.stations import features as feature_station
from ferroflow.stations import ingest as ingest_station
from ferroflow.stations import split as split_station
from ferroflow.stations import validate as validate_station
from tasks import artifacts, downloads
from tasks.policy import KEPT, OUTSIDE, carry_out, record_of, say


@task(name="ingest", task_run_name="ingest {pipeline}", **OUTSIDE)
def ingest(pipeline: str, as_of: datetime, now: datetime) -> Snapshot:
    """Read the source's files of before ``as_of``."""
    progress = downloads.told_by(say)
    return carry_out(ingest_station.ingest, pipeline, as_of, now=now, settings=load_settings(), progress=progress)


@task(name="validate", task_run_name="validate {pipeline}", **KEPT)
def validate(pipeline: str, snapshot: Snapshot) -> Validated:
    """Accept rows, or put them in quarantine with their reasons."""
    validated = carry_out(validate_station.validate, pipeline, snapshot)
    artifacts.quarantine(record_of(validated))
    return validated


@task(name="features", task_run_name="features {pipeline}", **KEPT)
def features(pipeline: str, validated: Validated, as_of: datetime) -> FeatureTable:
    """Write the stored features and join them to each row as of its moment of prediction."""
    return carry_out(feature_station.build_features, pipeline, validated, as_of)


@task(name="stored features", task_run_name="stored features {pipeline}", **KEPT)
def refresh(pipeline: str, validated: Validated, as_of: datetime) -> dict[str, int]:
    """Write the stored features, without a training table: rows of each view."""
    return carry_out(feature_station.refresh_offline, pipeline, validated, as_of)


@task(name="materialize", task_run_name="materialize {pipeline}", **KEPT)
def materialize(pipeline: str, as_of: datetime) -> dict[str, int]:
    """Bring the stored features of before ``as_of`` to the online store: rows of each view."""
    return carry_out(feature_station.materialize, pipeline, as_of)


@task(name="split", task_run_name="split {pipeline}", **KEPT)
def split(pipeline: str, table: FeatureTable) -> Split:
    """Fix who trains, validates and tests."""
    return carry_out(split_station.split, pipeline, table)


@task(name="split for retraining", task_run_name="split {pipeline} for retraining", **KEPT)
def split_for_retraining(pipeline: str, table: FeatureTable) -> Split:
    """The same for a retraining: recent labelled rows judge, and older ones weigh less."""
    spec = pipelines.load(pipeline)
    protocol = retrain_protocol(spec.retrain, spec.split)
    return carry_out(split_station.split, pipeline, table, protocol=protocol, half_life=spec.retrain.half_life)
