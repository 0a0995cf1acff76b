"""Build a Bento of a registered version: the service, the model and the online store of one pipeline, on their own."""

from __future__ import annotations

import importlib
import importlib.util
import json
import shutil
import tempfile
from importlib.metadata import version as installed
from pathlib import Path

from ferroflow.adapters import bento, pipelines
from ferroflow.adapters.home import Home
from ferroflow.core.errors import ModelError
from ferroflow.core.records import ModelVersion
from ferroflow.core.spec import PipelineSpec

_BUNDLED = ("model.onnx", "serving.json", "model_card.md")
_NEEDED = (
    "bentoml",
    "httpx",
    "msgspec",
    "numpy",
    "onnxruntime",
    "orjson",
    "polars",
    "prometheus-client",
    "pydantic",
    "pydantic-settings",
    "tzdata",
)


def build_bento(spec: PipelineSpec, version: ModelVersion, home: Home) -> str:
    """Build the Bento ``ferroflow_<pipeline>``, its version being the model's fingerprint, or find it built.

    ``bentoml serve <tag>`` answers by itself: the bundle lies beside the service's sources.

    Returns:
        The tag.

    Raises:
        ModelError: the version's package is not whole.
        ServiceError: BentoML refuses.
    """
    name = f"ferroflow_{spec.name}"
    if tag := bento.built(home.bentos, name, version.fingerprint):
        return tag
    with tempfile.TemporaryDirectory(prefix="ferroflow-bento-") as temporary:
        context = Path(temporary).resolve()
        _sources(spec, context)
        _bundle(spec, version, context / "bundle" / spec.name, home)
        return bento.build(context, name, version.fingerprint, _requirements(), home.bentos)


def _sources(spec: PipelineSpec, context: Path) -> None:
    """The framework, the service and this one pipeline."""
    for name in ("ferroflow", "serving"):
        bento.copy_sources(_folder(name), context / name)
    pipelines.folders()  # those of FERROFLOW_PIPELINES too
    own = importlib.import_module(f"pipelines.{spec.name}")
    (context / "pipelines").mkdir()
    (context / "pipelines" / "__init__.py").write_text("")
    bento.copy_sources(Path(own.__path__[0]), context / "pipelines" / spec.name)


def _bundle(spec: PipelineSpec, version: ModelVersion, folder: Path, home: Home) -> None:
    folder.mkdir(parents=True)
    package = home.absolute(version.package)
    for file in _BUNDLED:
        if (package / file).is_file():
            shutil.copyfile(package / file, folder / file)
        elif not file.endswith(".md"):
            raise ModelError(f"Version {version.version} of {spec.name} has no {file} in {version.package}.")
    note = {"version": version.version, "fingerprint": version.fingerprint}
    (folder / "version.json").write_text(json.dumps(note))
    if home.online(spec.name).is_file():
        bento.copy_database(home.online(spec.name), folder / "online.db")


def _folder(name: str) -> Path:
    """Where a package of ours lies; it is found, not imported: this room does not know the service."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise ModelError(f"The package {name!r} is not installed: a Bento cannot be built without it.")
    return Path(found.origin).parent


def _requirements() -> list[str]:
    return [f"{name}=={installed(name)}" for name in _NEEDED]
