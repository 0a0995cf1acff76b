"""Package: the folder that the prediction service loads, made of a trained model and the pipeline's description."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

import polars as pl

from ferroflow.adapters.contracts import class_names, serving_contract
from ferroflow.adapters.home import Home
from ferroflow.adapters.modelcard import model_card
from ferroflow.adapters.storage import atomic_bytes, read_record
from ferroflow.core.errors import ModelError
from ferroflow.core.records import Evaluation, TrainedModel
from ferroflow.core.spec import Classification, PipelineSpec

GRAPH = "model.onnx"
CONTRACT = "serving.json"
CARD = "model_card.md"
_LEFT_BEHIND = {"manifest.json"}  # of the models' folder; the package has its own truth in serving.json


def write_package(spec: PipelineSpec, model: TrainedModel, lineage: dict[str, str], home: Home) -> Path:
    """Write the package of a model: graph, contract, weights, baseline and model card.

    The folder is named by the model's fingerprint and appears whole. When it is there already, its contract and card
    are brought up to date (the feature code may have moved), and nothing else is touched.

    Args:
        lineage: station -> fingerprint; the evaluation's, if given, brings its numbers into the card.

    Returns:
        The folder.

    Raises:
        ModelError: the trained model has no graph.
        SpecError: an input cannot be carried by a request.
    """
    source = home.absolute(model.path)
    if not (source / GRAPH).is_file():
        raise ModelError(f"Model {model.fingerprint} has no {GRAPH} below {model.path}. Train it again.")
    told = {"model": model.fingerprint, **({"split": model.parent} if model.parent else {}), **lineage}
    contract = serving_contract(spec, model, told, seen=_classes(spec, told, home))
    folder = home.packages(spec.name) / model.fingerprint
    if not folder.is_dir():
        _copy(source, folder)
    _write(folder / CONTRACT, contract.model_dump_json(indent=1).encode())
    _write(folder / CARD, model_card(spec, model, _evaluation(spec, told, home), told, home).encode())
    return folder


def write_card(
    spec: PipelineSpec, model: TrainedModel, evaluation: Evaluation, lineage: dict[str, str], package: Path, home: Home
) -> str:
    """Write the card again, with the numbers of an evaluation; returns it."""
    card = model_card(spec, model, evaluation, {**lineage, "evaluation": evaluation.fingerprint}, home)
    _write(package / CARD, card.encode())
    return card


def _copy(source: Path, folder: Path) -> None:
    """Copy the model's files, links and folders of checkpoints left out, to a folder that appears whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.mkdir()
    try:
        for entry in sorted(source.iterdir()):
            if entry.is_file() and entry.name not in _LEFT_BEHIND and not entry.name.startswith("."):
                atomic_bytes(temporary / entry.name, entry.read_bytes())
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():  # another process was first otherwise, with the same content
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    if not path.is_file() or path.read_bytes() != data:
        atomic_bytes(path, data)


def _classes(spec: PipelineSpec, lineage: dict[str, str], home: Home) -> tuple[str, ...]:
    """The classes among the training rows; empty for a quantity, or where the split is gone."""
    path = home.data(spec.name) / "splits" / lineage.get("split", "") / "train.parquet"
    if not isinstance(spec.target, Classification) or not path.is_file():
        return ()
    return class_names(pl.read_parquet(path, columns=[spec.target.column]).to_series())


def _evaluation(spec: PipelineSpec, lineage: dict[str, str], home: Home) -> Evaluation | None:
    name = lineage.get("evaluation")
    if name is None:
        return None
    return read_record(home.data(spec.name) / "evaluations" / name / "manifest.json", Evaluation)
