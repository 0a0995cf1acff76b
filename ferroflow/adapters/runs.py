"""MLflow runs: one for each trained model, its trials below it, and a registered version with everything in its tags.

All of it can be repeated: what a killed process left is completed, never doubled.
"""

from __future__ import annotations

import json
import logging
import math
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import polars as pl

from ferroflow.adapters.champion import TAG_FINGERPRINT
from ferroflow.adapters.home import Home
from ferroflow.adapters.registry import TAG_UNUSABLE, load_mlflow, told
from ferroflow.core.errors import VersionUnusable
from ferroflow.core.records import Split, TrainedModel

logger = logging.getLogger(__name__)

TAG_TRIAL = "ferroflow.trial"
TAG_LOGGED = "ferroflow.logged"
_PARENT = "mlflow.parentRunId"
_SAMPLE_ROWS = 200
_LONGEST = 500  # characters of a parameter's value
_REQUIREMENTS = ("mlflow", "numpy", "onnx", "onnxruntime")
_ENDED = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}


@dataclass(frozen=True)
class Log:
    """All that a model's run tells."""

    model: TrainedModel
    metrics: dict[str, float]
    params: dict[str, str]
    tags: dict[str, str]
    split: Split
    files: dict[str, bytes]  # artifact path -> content
    folders: dict[str, Path]  # artifact folder -> a local folder whose files go there
    description: str
    at: datetime
    trials: list[dict[str, Any]] = field(default_factory=list)


def registered_version(pipeline: str, fingerprint: str, home: Home) -> tuple[str, str] | None:
    """Number and run of the usable version of a trained model, or None."""
    mlflow = load_mlflow(home)
    with told("search versions"):
        found = mlflow.MlflowClient().search_model_versions(f"name = '{pipeline}'", max_results=10_000)
    for entry in found:
        if entry.tags.get(TAG_FINGERPRINT) == fingerprint and TAG_UNUSABLE not in entry.tags:
            return str(entry.version), entry.run_id or ""
    return None


def log_run(log: Log, home: Home) -> str:
    """Write the run with its trials, metrics, files and data sets, or complete the one that was begun; its id.

    Raises:
        RegistryError: MLflow refuses.
    """
    mlflow = load_mlflow(home)
    with told(f"keep the run of model {log.model.fingerprint}"):
        client = mlflow.MlflowClient()
        experiment = _experiment(client, log.model.pipeline, home)
        found = _runs(client, experiment, log.model.fingerprint)
        _bury(client, experiment, log.model.fingerprint)
        run_id = found.info.run_id if found else _start(client, experiment, log)
        if found is None or found.data.tags.get(TAG_LOGGED) != "true":
            client.update_run(run_id, status="RUNNING")
            _trials(client, experiment, run_id, log)
            _contents(mlflow, client, run_id, log, home)
            client.set_tag(run_id, TAG_LOGGED, "true")
        client.set_terminated(run_id, "FINISHED")
        return str(run_id)


def log_version(log: Log, run_id: str, graph: Path, home: Home) -> str:
    """Log the graph into the run and register it with all tags at once; the version's number.

    Raises:
        RegistryError: MLflow refuses.
    """
    import onnx

    mlflow = load_mlflow(home)
    name = log.model.pipeline
    with told(f"register model {log.model.fingerprint}"):
        client = mlflow.MlflowClient()
        experiment = client.get_run(run_id).info.experiment_id
        _forget_models(client, experiment, run_id)
        with mlflow.start_run(run_id=run_id):
            # External data (MLflow's default) would change the proto in memory and register a model that cannot load.
            info = mlflow.onnx.log_model(
                onnx.load(graph),
                name="model",
                signature=_signature(log.model),
                pip_requirements=[f"{name}=={installed(name)}" for name in _REQUIREMENTS],
                onnx_execution_providers=["CPUExecutionProvider"],
                save_as_external_data=False,
                tags={TAG_FINGERPRINT: log.model.fingerprint},
            )
        _registered_model(client, name)
        version = client.create_model_version(
            name, info.model_uri, run_id, tags=log.tags, description=log.description, model_id=info.model_id
        )
        return str(version.version)


def update_version(log: Log, number: str, home: Home) -> None:
    """Bring a version's tags and description up to date (the same model, evaluated again)."""
    mlflow = load_mlflow(home)
    with told(f"describe version {number}"):
        client = mlflow.MlflowClient()
        name = log.model.pipeline
        entry = client.get_model_version(name, number)
        for key, value in log.tags.items():
            if entry.tags.get(key) != value:
                client.set_model_version_tag(name, number, key, value)
        if entry.description != log.description:
            client.update_model_version(name, number, log.description)


def mark_unusable(pipeline: str, number: str, why: str, home: Home) -> None:
    """Set a version aside: it is not listed, found or promoted any more."""
    mlflow = load_mlflow(home)
    with told(f"set version {number} aside"):
        mlflow.MlflowClient().set_model_version_tag(pipeline, number, TAG_UNUSABLE, why)


def download(pipeline: str, number: str, folder: Path, home: Home) -> Path:
    """Fetch a version's graph as a stranger would; its path below ``folder``.

    Raises:
        RegistryError: the registry does not give it back.
        VersionUnusable: it has no graph.
    """
    mlflow = load_mlflow(home)
    with told(f"give back version {number} of {pipeline}"):
        fetched = Path(mlflow.artifacts.download_artifacts(f"models:/{pipeline}/{number}", dst_path=str(folder)))
    if not (found := sorted(fetched.rglob("*.onnx"))):
        raise VersionUnusable(
            f"Version {number} of {pipeline} has no ONNX file among its {len(list(fetched.rglob('*')))} artifacts."
        )
    return found[0]


def _experiment(client: Any, pipeline: str, home: Home) -> str:
    from mlflow.exceptions import MlflowException

    if found := client.get_experiment_by_name(pipeline):
        return str(found.experiment_id)
    local = client.tracking_uri.startswith("sqlite")
    place = (home.mlflow.absolute() / "artifacts" / pipeline).as_uri() if local else None
    try:
        return str(client.create_experiment(pipeline, artifact_location=place))
    except MlflowException:
        if found := client.get_experiment_by_name(pipeline):  # another process was first
            return str(found.experiment_id)
        raise


def _runs(client: Any, experiment: str, fingerprint: str) -> Any:
    wanted = f"tags.`{TAG_FINGERPRINT}` = '{fingerprint}'"
    found = client.search_runs([experiment], wanted, order_by=["attributes.start_time ASC"])
    return next((run for run in found if _PARENT not in run.data.tags), None)


def _bury(client: Any, experiment: str, fingerprint: str) -> None:
    """End runs of other models that still say RUNNING: registering is locked, so their processes were killed."""
    for run in client.search_runs([experiment], "attributes.status = 'RUNNING'"):
        tags = run.data.tags
        if TAG_FINGERPRINT in tags and tags[TAG_FINGERPRINT] != fingerprint:
            client.set_terminated(run.info.run_id, "KILLED")


def _start(client: Any, experiment: str, log: Log) -> str:
    run = client.create_run(
        experiment,
        start_time=_milliseconds(log.at),
        run_name=f"{log.model.candidate}-{log.model.fingerprint[:8]}",
        tags={TAG_FINGERPRINT: log.model.fingerprint},
    )
    return str(run.info.run_id)


def _trials(client: Any, experiment: str, parent: str, log: Log) -> None:
    """One run for each trial, those left out that are whole already."""
    known = {
        run.data.tags.get(TAG_TRIAL): run
        for run in client.search_runs([experiment], f"tags.`{_PARENT}` = '{parent}'", max_results=5_000)
    }
    for trial in log.trials:
        name = str(trial["number"])
        run = known.get(name)
        if run is not None and run.info.status != "RUNNING":
            continue
        begun = _milliseconds(log.at)
        run_id = (run or _create_trial(client, experiment, parent, log, trial, begun)).info.run_id
        _batch(client, run_id, _numbers(log.model.metric, trial), _texts(trial.get("params") or {}), begun)
        ended = begun + round(1000 * float(trial.get("seconds") or 0))
        client.set_terminated(run_id, _ENDED.get(str(trial.get("state")).upper(), "FINISHED"), ended)


def _create_trial(client: Any, experiment: str, parent: str, log: Log, trial: dict[str, Any], begun: int) -> Any:
    return client.create_run(
        experiment,
        start_time=begun,
        run_name=f"trial {trial['number']} {trial.get('candidate', '')}".strip(),
        tags={
            _PARENT: parent,
            TAG_TRIAL: str(trial["number"]),
            TAG_FINGERPRINT: log.model.fingerprint,
            "ferroflow.candidate": str(trial.get("candidate", "")),
        },
    )


def _contents(mlflow: Any, client: Any, run_id: str, log: Log, home: Home) -> None:
    _batch(client, run_id, log.metrics, log.params, _milliseconds(log.at))
    for key, value in {**log.tags, "mlflow.note.content": log.description}.items():
        client.set_tag(run_id, key, value)
    with tempfile.TemporaryDirectory() as temporary:
        for path, content in log.files.items():
            file = Path(temporary) / Path(path).name
            file.write_bytes(content)
            client.log_artifact(run_id, str(file), str(Path(path).parent) if "/" in path else None)
    for place, folder in log.folders.items():
        for file in sorted(folder.iterdir()):
            if file.is_file() and file.suffix != ".onnx":  # the graph is the registered model itself
                client.log_artifact(run_id, str(file), place)
    with mlflow.start_run(run_id=run_id):
        _data_sets(mlflow, log.split, home)


def _data_sets(mlflow: Any, split: Split, home: Home) -> None:
    from mlflow.data.sources import LocalArtifactDatasetSource

    for part, relative in split.paths.items():
        path = home.absolute(relative)
        if not path.is_file():
            continue
        columns = [*split.numeric, *split.categorical, split.target]
        sample = pl.read_parquet(path, columns=columns, n_rows=_SAMPLE_ROWS)
        data = mlflow.data.from_polars(
            sample,
            source=LocalArtifactDatasetSource(path.absolute().as_uri()),
            targets=split.target,
            name=f"{split.pipeline} {part}",
            digest=split.fingerprint,
        )
        mlflow.log_input(data, context=part, tags={"rows": str(split.rows[part])})


def _signature(model: TrainedModel) -> Any:
    """Named columns of shape (rows, 1), as the graph takes them."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    kinds = {"float": np.dtype(np.float32), "int": np.dtype(np.int64), "text": np.dtype(object)}
    inputs = [TensorSpec(kinds[kind], (-1, 1), name) for name, kind in model.inputs.items()]
    return ModelSignature(Schema(inputs), Schema([TensorSpec(kinds["float"], (-1, 1), "prediction")]))


def _registered_model(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _forget_models(client: Any, experiment: str, run_id: str) -> None:
    """Graphs that a killed process logged into the run without registering them."""
    for found in client.search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'"):
        client.delete_logged_model(found.model_id)


def _batch(client: Any, run_id: str, metrics: Mapping[str, float], params: Mapping[str, str], at: int) -> None:
    from mlflow.entities import Metric, Param

    client.log_batch(
        run_id,
        metrics=[Metric(name, value, at, 0) for name, value in metrics.items() if math.isfinite(value)],
        params=[Param(name, value) for name, value in params.items()],
    )


def _numbers(metric: str, trial: dict[str, Any]) -> dict[str, float]:
    named = {f"validation_{metric}": trial.get("value"), "seconds": trial.get("seconds")}
    return {name: float(value) for name, value in named.items() if value is not None}


def _texts(params: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): text(value) for name, value in params.items()}


def text(value: Any) -> str:
    """A parameter as MLflow keeps it."""
    return (value if isinstance(value, str) else json.dumps(value, default=str))[:_LONGEST]


def flat(scores: Mapping[str, Mapping[str, float]], before: str = "") -> Iterable[tuple[str, float]]:
    """``{"test": {"rmse": 1.0}}`` as ``("test_rmse", 1.0)``; what is not finite is left out."""
    for part, values in scores.items():
        for name, value in values.items():
            if math.isfinite(value):
                yield f"{before}{part}_{name}", value


def _milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)
