"""Model inputs from request rows: the one way they are made, for the endpoint and for batch prediction alike.

Imported by the prediction service: Polars and the standard library only.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

import polars as pl

from ferroflow.adapters import pipelines
from ferroflow.adapters.feast.rows import Value, Watermark
from ferroflow.core.contract import ServingContract, StoredView
from ferroflow.core.errors import SpecError
from ferroflow.core.features import RequestFeatures

FIELD_TYPES: dict[str, pl.DataType] = {
    "number": pl.Float64(),
    "integer": pl.Int64(),
    "text": pl.String(),
    "time": pl.Datetime("us", "UTC"),
}
"""Polars' type of each type of a request field."""

INPUT_TYPES = {"float": pl.Float64(), "int": pl.Int64(), "text": pl.String()}
"""Polars' type of each kind of a model input."""

_MICROSECOND = timedelta(microseconds=1)


class Store(Protocol):
    """What is needed of the online store."""

    def read(
        self, view: str, keys: Sequence[int | str], features: Sequence[str]
    ) -> Mapping[Any, tuple[int, Sequence[Value | None]]]:
        """Newest row of each key that is there: when it became available (microseconds UTC), and its values."""
        ...

    def watermark(self, view: str) -> Watermark | None:
        """How far a view is complete."""
        ...


@dataclass(frozen=True)
class Vectors:
    """Model inputs with what was noticed while they were made."""

    frame: pl.DataFrame
    """One column a model input, in the contract's order; null where unknown."""
    watermarks: dict[str, Watermark | None] = field(default_factory=dict)
    """View -> up to when what was read can be: the store's watermark, or a newer row that was met above it."""
    complete: dict[str, int | None] = field(default_factory=dict)
    """View -> the store's own watermark of event time (microseconds UTC); None: it has none, or is away."""
    missing: dict[str, int] = field(default_factory=dict)
    """View -> rows whose entity is not in the store."""
    stale: dict[str, int] = field(default_factory=dict)
    """View -> rows whose entity's values are older than the time-to-live, or from the future."""


def assemble(
    contract: ServingContract,
    rows: pl.DataFrame,
    store: Store | None,
    request: Sequence[RequestFeatures] | None = None,
    now: datetime | None = None,
) -> Vectors:
    """Make model inputs.

    Args:
        contract: what the model was packaged with.
        rows: one column a request field, in ``FIELD_TYPES``.
        store: the online store; None when it is away: stored features are then null.
        request: the contract's request features, if already loaded.
        now: the clock where rows have no event time.

    Raises:
        SpecError: an input comes from nowhere, or stored features have no clock.
    """
    features = load_request_features(contract) if request is None else request
    asked = rows.select(entry.name for entry in contract.fields)
    frame = asked.with_columns(expression for entry in features for expression in entry.expressions())
    found = Vectors(frame)
    if contract.stored:
        clocks = _clocks(contract, rows, now)
        columns = [column for view in contract.stored for column in _look_up(view, rows, clocks, store, found)]
        frame = frame.with_columns(columns)
    if unknown := [name for name in contract.inputs if name not in frame.columns]:
        raise SpecError(
            f"Model {contract.fingerprint} of {contract.pipeline!r} needs {', '.join(unknown)}, which neither the "
            f"request nor its features give. Package the model again: ferroflow run {contract.pipeline}"
        )
    inputs = frame.select(pl.col(name).cast(INPUT_TYPES[kind]) for name, kind in contract.inputs.items())
    return replace(found, frame=one_missing(inputs))


def one_missing(inputs: pl.DataFrame) -> pl.DataFrame:
    """Model inputs in which missing has one form: null where a number (Float64) is not finite.

    Training's table and the service's vectors both go through it. A finite number beyond float32 stays what it is.
    """
    numbers = [pl.col(name) for name, kind in inputs.schema.items() if kind == pl.Float64]
    return inputs.with_columns(pl.when(number.is_finite()).then(number) for number in numbers)


def load_request_features(contract: ServingContract) -> list[RequestFeatures]:
    """Import the contract's request features by their ``module:name``.

    Raises:
        SpecError: there is no such feature.
    """
    pipelines.folders()  # makes pipelines outside the package importable
    found = []
    for path in contract.request_features:
        module, _, name = path.partition(":")
        try:
            entry = getattr(importlib.import_module(module), name, None)
        except ImportError as error:
            raise SpecError(f"Request features {path!r} cannot be imported: {error}") from error
        if not isinstance(entry, RequestFeatures):
            raise SpecError(f"{path!r} is {type(entry).__name__}, no request features. Declare it with @request.")
        found.append(entry)
    return found


def _clocks(contract: ServingContract, rows: pl.DataFrame, now: datetime | None) -> list[int | None]:
    """The moment of prediction of each row, microseconds UTC: its event time, so that a replay sees what was known."""
    if contract.time is not None and contract.time in rows.columns:
        return rows[contract.time].dt.epoch("us").to_list()
    if now is None:
        raise SpecError(f"Stored features of {contract.pipeline!r} need a clock: rows have no event time, give 'now'.")
    epoch = datetime.fromtimestamp(0, tz=now.tzinfo)
    return [(now - epoch) // _MICROSECOND] * rows.height


def _look_up(
    view: StoredView, rows: pl.DataFrame, clocks: Sequence[int | None], store: Store | None, found: Vectors
) -> list[pl.Series]:
    """The view's features of each row, null where absent or outside the time-to-live; counts go into ``found``."""
    keys = rows[view.on].to_list()
    entries = _read(view, [key for key in dict.fromkeys(keys) if key is not None], store, found)
    longest = int(view.ttl_seconds * 1_000_000)
    nothing: Sequence[Value | None] = [None] * len(view.features)
    values: list[Sequence[Value | None]] = []
    for key, clock in zip(keys, clocks, strict=True):
        entry = entries.get(key)
        if entry is None:
            found.missing[view.view] = found.missing.get(view.view, 0) + 1
        elif clock is None or not 0 <= clock - entry[0] <= longest:
            found.stale[view.view] = found.stale.get(view.view, 0) + 1
            entry = None
        values.append(nothing if entry is None else entry[1])
    columns = zip(*values, strict=True) if values else ([] for _ in view.features)
    return [
        pl.Series(f"{view.view}__{name}", column, dtype=pl.Float64, strict=False).fill_nan(None)
        for name, column in zip(view.features, columns, strict=True)
    ]


def _read(
    view: StoredView, keys: list[int | str], store: Store | None, found: Vectors
) -> Mapping[Any, tuple[int, Sequence[Value | None]]]:
    """Rows of the store with the watermark they belong to: read again when a materialization came in between."""
    if store is None:
        found.watermarks[view.view] = found.complete[view.view] = None
        return {}
    before = store.watermark(view.view)
    for _ in range(5):
        entries = store.read(view.view, keys, view.features)
        after = store.watermark(view.view)
        if after == before:
            break
        before = after
    # A materialization writes its rows first and its watermark afterwards: what was read counts as seen.
    seen = [event for event, _ in entries.values()] + ([] if before is None else [before.event])
    event, ingested = (None, None) if before is None else before
    found.complete[view.view] = event
    found.watermarks[view.view] = Watermark(max(seen), ingested) if seen else None
    return entries
