"""One loaded model: the package, its request features and its online store. Immutable; requests keep a reference."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from ferroflow.adapters.contracts import feature_code
from ferroflow.adapters.feast.plan import OnlineStoreAway
from ferroflow.adapters.graph import Graph
from ferroflow.adapters.vectors import FIELD_TYPES, Vectors, assemble, load_request_features
from ferroflow.core.contract import Field, ServingContract
from ferroflow.core.errors import ModelError
from ferroflow.core.features import RequestFeatures
from serving.online import Online

logger = logging.getLogger(__name__)

GRAPH = "model.onnx"
CONTRACT = "serving.json"
VERSION = "version.json"
_WARM = (1, 8, 100)


class VersionNote(BaseModel):
    """Which version a folder holds (``version.json``), where no registry can be asked."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: str
    fingerprint: str


@dataclass(frozen=True)
class Answer:
    """Predictions of one request, with what the log needs."""

    predictions: np.ndarray  # (rows,) float32
    vectors: Vectors
    reasons: tuple[str, ...]
    cache: Mapping[str, int]  # what became of look-ups since the process began; empty without a cache


@dataclass(frozen=True)
class Model:
    """What answers requests of one pipeline."""

    contract: ServingContract
    graph: Graph
    version: str
    source: str  # "registry", "last good" or "bundle"
    loaded_at: datetime
    request: tuple[RequestFeatures, ...]
    online: Online | None
    notes: tuple[str, ...] = ()  # what is not as it was when the model was packaged

    def answer(self, rows: pl.DataFrame, now: datetime) -> Answer:
        """Predict typed request rows; stored features of a store that is away are null, and said so.

        Raises:
            ModelError: the graph gave something that is no finite number.
        """
        reasons: tuple[str, ...] = ()
        store = self.online.open() if self.online else None
        if self.online and store is None:
            reasons = ("online store away",)
        try:
            vectors = assemble(self.contract, rows, store, self.request, now)
        except OnlineStoreAway as error:
            logger.warning("online store of %s cannot be read: %s", self.contract.pipeline, error)
            reasons = ("online store unreadable",)
            vectors = assemble(self.contract, rows, None, self.request, now)
        if _overflows(vectors.frame):
            raise ModelError("These values lead to features that are not finite as 32-bit numbers.")
        predictions = self.graph.predict(vectors.frame)
        if predictions.shape != (rows.height,) or not np.isfinite(predictions).all():
            raise ModelError(f"Version {self.version} gives no finite prediction for these values.")
        return Answer(predictions, vectors, reasons, self.online.cache() if self.online else {})


def load(
    folder: Path, *, version: str | None, source: str, online: Callable[[ServingContract], Online | None]
) -> Model:
    """Load a package, warm it, and see that it gives finite numbers; nothing is served before that.

    Args:
        folder: holds ``model.onnx`` and ``serving.json``.
        version: of the registry; None: what the folder's ``version.json`` says.
        online: gives what the contract's stored features are read from.

    Raises:
        ModelError: the package is not whole, or its model does not answer.
    """
    try:
        contract = ServingContract.model_validate_json((folder / CONTRACT).read_bytes())
        note = _note(folder, contract)
        request, code = request_features(contract)
        model = Model(
            contract=contract,
            graph=Graph(folder / GRAPH),
            version=note.version if version is None else version,
            source=source,
            loaded_at=datetime.now(UTC),
            request=request,
            online=online(contract),
            notes=() if code == contract.feature_code else ("request features changed since the model was packaged",),
        )
    except (OSError, ValidationError) as error:
        raise ModelError(f"The package {folder.name} cannot be loaded: {error}") from error
    _warm(model)
    return model


_imported: dict[tuple[str, ...], str] = {}


def request_features(contract: ServingContract) -> tuple[tuple[RequestFeatures, ...], str]:
    """The contract's request features as they are on the disk now, and the digest of their code.

    A process that runs on while a pipeline's features are edited and a new model is trained would otherwise compute
    the old features for the new model. Models loaded before keep the functions they were loaded with.
    """
    found = load_request_features(contract)
    code = feature_code(contract.request_features)
    before = _imported.setdefault(contract.request_features, code)
    if before != code:
        for module in sorted({path.partition(":")[0] for path in contract.request_features}):
            importlib.reload(sys.modules[module])
        _imported[contract.request_features] = code
        found = load_request_features(contract)
    return tuple(found), code


def example(entry: Field) -> Any:
    """A value that a field takes, as JSON."""
    if entry.choices:
        return entry.choices[0]
    if entry.type == "time":
        return "2023-03-01T08:30:00Z"
    if entry.type == "text":
        return "text"
    low = entry.minimum if entry.minimum is not None else min(0.0, entry.maximum or 0.0)
    middle = low + 2.5 if entry.maximum is None else (low + entry.maximum) / 2
    return round(middle) if entry.type == "integer" else round(max(low, min(middle, low + 2.5)), 3)


def _overflows(frame: pl.DataFrame) -> bool:
    numbers = frame.select(pl.selectors.float().cast(pl.Float32).is_infinite().any())
    return any(numbers.row(0)) if numbers.width else False


def _note(folder: Path, contract: ServingContract) -> VersionNote:
    path = folder / VERSION
    if path.is_file():
        return VersionNote.model_validate_json(path.read_bytes())
    return VersionNote(version=contract.fingerprint[:8], fingerprint=contract.fingerprint)


def _warm(model: Model) -> None:
    """Answer 1, 8 and 100 rows of examples: the first real request then finds everything in place."""
    now = datetime.now(UTC)
    for rows in _WARM:
        columns = [_examples(entry, rows) for entry in model.contract.fields]
        model.answer(pl.DataFrame(columns), now)


def _examples(entry: Field, rows: int) -> pl.Series:
    value = example(entry)
    if entry.type == "time":
        value = datetime.fromisoformat(value)
    return pl.Series(entry.name, [value] * rows, dtype=FIELD_TYPES[entry.type])
