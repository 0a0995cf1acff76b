"""Tasks from raw files to a split."""

from __future__ import annotations

from datetime import datetime

from prefect import task

from ferroflow.adapters import pipelines
from ferroflow.adapters.settings import load_settings
from ferroflow.core.errors import BatchRefused
from ferroflow.core.records import FeatureTable, Quality, Snapshot, Split, Validated
from ferroflow.core.splits import retrain_protocol
from ferroflow.stations import features as feature_station
from ferroflow.stations import ingest as ingest_station
from ferroflow.stations import quality as quality_station
from ferroflow.stations import split as split_station
from ferroflow.stations import validate as validate_station
from tasks import artifacts, assets, downloads
from tasks.policy import KEPT, OUTSIDE, carry_out, home, record_of, say


@task(name="ingest", task_run_name="ingest {pipeline}", **OUTSIDE)
def ingest(pipeline: str, as_of: datetime, now: datetime) -> Snapshot:
    """Read the source's files of before ``as_of``."""
    progress = downloads.told_by(say)
    snapshot = carry_out(ingest_station.ingest, pipeline, as_of, now=now, settings=load_settings(), progress=progress)
    assets.ingested(snapshot)
    return snapshot


@task(name="validate", task_run_name="validate {pipeline}", **KEPT)
def validate(pipeline: str, snapshot: Snapshot) -> Validated:
    """Accept rows, or put them in quarantine with their reasons."""
    validated = carry_out(validate_station.validate, pipeline, snapshot)
    artifacts.quarantine(record_of(validated))
    assets.checked(validated)
    return validated


@task(name="quality", task_run_name="quality of {pipeline}", **KEPT)
def quality(pipeline: str, snapshot: Snapshot, validated: Validated, as_of: datetime) -> Quality:
    """Judge the accepted rows together; a batch that is too bad ends the run here, with its page already drawn.

    Raises:
        BatchRefused: an error among the rules failed, too many rows were refused, or files could not be read.
    """
    result = carry_out(quality_station.assess, pipeline, snapshot, validated, as_of)
    judged: Quality = record_of(result)
    artifacts.assessed(judged, home())
    if not judged.passed:
        raise BatchRefused(
            f"{pipeline}: {judged.reason}. Nothing is trained on these rows and no feature is refreshed. Look at "
            f"{home().absolute(judged.page)} and `ferroflow quarantine show {pipeline}`; then mend the source, or what "
            f"pipelines/{pipeline}/spec.py asks for: rules, max_quarantined, max_unreadable."
        )
    return result


@task(name="features", task_run_name="features {pipeline}", **KEPT)
def features(pipeline: str, validated: Validated, as_of: datetime) -> FeatureTable:
    """Write the stored features and join them to each row as of its moment of prediction."""
    before = assets.written_at(pipeline, home())
    table = carry_out(feature_station.build_features, pipeline, validated, as_of)
    assets.stored(pipeline, as_of, home(), before)
    assets.joined(table, home())
    return table


@task(name="stored features", task_run_name="stored features {pipeline}", **KEPT)
def refresh(pipeline: str, validated: Validated, as_of: datetime) -> dict[str, int]:
    """Write the stored features, without a training table: rows of each view."""
    before = assets.written_at(pipeline, home())
    rows = carry_out(feature_station.refresh_offline, pipeline, validated, as_of)
    assets.stored(pipeline, as_of, home(), before)
    return rows


@task(name="materialize", task_run_name="materialize {pipeline}", **KEPT)
def materialize(pipeline: str, as_of: datetime) -> dict[str, int]:
    """Bring the stored features of before ``as_of`` to the online store: rows of each view."""
    written = carry_out(feature_station.materialize, pipeline, as_of)
    assets.online(pipeline, written, as_of)
    assets.catalogued(pipeline, as_of, home())
    return written


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
