"""The model registry (MLflow): versions and aliases of each pipeline's registered model, which bears its name.

By default it lives in the home folder (SQLite and files, no server); ``FERROFLOW_TRACKING_URI`` names another.
What a version is, is in its tags: they are given together with the version, so there is no version without them.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ferroflow.adapters.champion import TAG_FINGERPRINT, TAG_PACKAGE, TAG_REFERENCE, default_uri
from ferroflow.adapters.home import Home
from ferroflow.adapters.locks import locked
from ferroflow.core.errors import NotFound, RegistryError
from ferroflow.core.records import ModelVersion

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

CHAMPION = "champion"
CHALLENGER = "challenger"
TAG_CANDIDATE = "ferroflow.candidate"
TAG_METRICS = "ferroflow.metrics"
TAG_VERDICT = "ferroflow.verdict"
TAG_UNUSABLE = "ferroflow.unusable"

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MPLBACKEND": "Agg",
}


def tracking_uri(home: Home) -> str:
    """The registry's address: the setting, or the home's own SQLite file."""
    from ferroflow.adapters.settings import load_settings

    return load_settings().tracking_uri or default_uri(home)


def load_mlflow(home: Home) -> Any:
    """Import MLflow, quiet and without pickle, speaking to this home's registry, which is made when it is not there."""
    os.environ.update(_QUIET)
    import logging

    import mlflow

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    uri = tracking_uri(home)
    if uri == default_uri(home):
        _create(home)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return mlflow


def client(home: Home) -> MlflowClient:
    """MLflow's client for this home's registry, which is made when it is not there."""
    load_mlflow(home)
    from mlflow.tracking import MlflowClient

    uri = tracking_uri(home)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def versions(pipeline: str, home: Home) -> list[ModelVersion]:
    """All versions of a pipeline, oldest first; those that did not load are left out.

    Raises:
        RegistryError: the registry does not answer.
    """
    if _absent(home):
        return []
    with told("list versions"):
        found = client(home).search_model_versions(f"name = '{pipeline}'", max_results=10_000)
    known = [_record(entry) for entry in found if TAG_FINGERPRINT in entry.tags and TAG_UNUSABLE not in entry.tags]
    return sorted(known, key=lambda entry: int(entry.version))


def version(pipeline: str, number: str, home: Home) -> ModelVersion:
    """One version by its number.

    Raises:
        NotFound: the pipeline has no such version.
        RegistryError: the registry does not answer.
    """
    known = versions(pipeline, home)
    for entry in known:
        if entry.version == str(number):
            return entry
    listed = ", ".join(entry.version for entry in known) or "none"
    raise NotFound(f"No version {number} of {pipeline!r}. Known: {listed}. See: ferroflow models list -p {pipeline}")


def aliases(pipeline: str, home: Home) -> dict[str, str]:
    """Alias -> version number; empty where nothing is registered.

    Raises:
        RegistryError: the registry does not answer.
    """
    if _absent(home):
        return {}
    with told("read aliases"):
        found = client(home).search_registered_models(f"name = '{pipeline}'")
    return {alias: str(number) for model in found for alias, number in model.aliases.items()}


def champion(pipeline: str, home: Home) -> ModelVersion | None:
    """The version that serves, or None."""
    number = aliases(pipeline, home).get(CHAMPION)
    return None if number is None else version(pipeline, number, home)


def set_alias(pipeline: str, alias: str, number: str, home: Home) -> None:
    """Move an alias.

    Raises:
        RegistryError: the registry refuses.
    """
    with told(f"move the alias {alias}"):
        client(home).set_registered_model_alias(pipeline, alias, number)


def drop_alias(pipeline: str, alias: str, home: Home) -> None:
    """Take an alias away; nothing happens where there is none.

    Raises:
        RegistryError: the registry refuses.
    """
    with told(f"drop the alias {alias}"):
        client(home).delete_registered_model_alias(pipeline, alias)


@contextmanager
def told(what: str) -> Iterator[None]:
    """Turn MLflow's errors into ours.

    Raises:
        RegistryError: MLflow, or the database below it, refused.
    """
    os.environ.update(_QUIET)
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise RegistryError(f"The model registry could not {what}: {error}") from error


def _absent(home: Home) -> bool:
    """There is no registry yet, and asking shall not make one."""
    uri = default_uri(home)
    return tracking_uri(home) == uri and not (home.mlflow / "mlflow.db").exists()


def _create(home: Home) -> None:
    """Make MLflow's database under another name and move it into place: killed half-way, there is none.

    MLflow's own migration takes seconds, is no transaction, and can race with another process's.
    """
    path = home.mlflow / "mlflow.db"
    if path.exists():
        return
    with locked(path):
        if path.exists():
            return
        for left in home.mlflow.glob(".mlflow-*.tmp*"):
            left.unlink()
        temporary = home.mlflow / f".mlflow-{uuid.uuid4().hex[:8]}.tmp"
        _migrate(temporary, home.mlflow / "artifacts")
        temporary.replace(path)


def _migrate(path: Path, artifacts: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with told("be created"):
        store = SqlAlchemyStore(f"sqlite:///{path}", artifacts.absolute().as_uri())
        store.engine.dispose()


def _record(entry: Any) -> ModelVersion:
    tags = entry.tags
    return ModelVersion(
        pipeline=entry.name,
        fingerprint=tags[TAG_FINGERPRINT],
        parent=tags.get(TAG_VERDICT),
        name=entry.name,
        version=str(entry.version),
        run_id=entry.run_id or "",
        package=tags.get(TAG_PACKAGE, ""),
        reference=tags.get(TAG_REFERENCE, ""),
        metrics=json.loads(tags.get(TAG_METRICS, "{}")),
        candidate=tags.get(TAG_CANDIDATE, ""),
    )
