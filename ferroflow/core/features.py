"""Feature definitions: pure Polars functions with a name, used by training and serving alike.

Two kinds. A *request* feature is computed from the fields of the request itself. A *stored* feature is computed in
batch for an entity, stamped with the moment it became available, and looked up at prediction time.
This module is imported by the prediction service: Polars and the standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from ferroflow.core.durations import duration

AVAILABLE_AT = "available_at"
"""Column of a stored feature: from which moment on (UTC, microseconds) the row may be used."""


@dataclass(frozen=True)
class RequestFeatures:
    """Features of the request's own fields: ``function()`` returns one named expression a feature."""

    function: Callable[[], Sequence[pl.Expr]]

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.__name__

    @property
    def path(self) -> str:
        """Where the prediction service imports it from: ``module:name``."""
        return f"{self.function.__module__}:{self.name}"

    def expressions(self) -> list[pl.Expr]:
        """One expression for each feature, named as the feature."""
        return list(self.function())


@dataclass(frozen=True)
class StoredFeatures:
    """Features of an entity, computed in batch from accepted rows.

    ``function(rows)`` takes the accepted rows (lazy; the source's time column in UTC) and returns the entity's
    column, ``available_at`` and one Float64 column for each feature. ``on`` names the request field that holds the
    entity; a value older than ``ttl`` at the moment of prediction counts as missing.
    """

    function: Callable[[pl.LazyFrame], pl.LazyFrame]
    entity: str
    on: str
    ttl: timedelta

    @property
    def name(self) -> str:
        """The function's name; Feast's view is called so."""
        return self.function.__name__

    def compute(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """The view's rows, unsorted."""
        return self.function(rows)

    def outputs(self, columns: Mapping[str, pl.DataType]) -> dict[str, pl.DataType]:
        """Names and types of the features, for accepted rows with these columns; nothing is computed."""
        empty = pl.LazyFrame(schema=dict(columns))
        found = self.function(empty).collect_schema()
        return {name: kind for name, kind in found.items() if name not in (self.entity, AVAILABLE_AT)}

    def full_name(self, feature: str) -> str:
        """The column of a training table, as Feast writes it: ``view__feature``."""
        return f"{self.name}__{feature}"


def request(function: Callable[[], Sequence[pl.Expr]]) -> RequestFeatures:
    """Declare request-time features."""
    return RequestFeatures(function)


def stored(*, entity: str, on: str, ttl: str) -> Callable[[Callable[[pl.LazyFrame], pl.LazyFrame]], StoredFeatures]:
    """Declare stored features of an entity; ``ttl`` is a duration such as ``"2h"``."""

    def declare(function: Callable[[pl.LazyFrame], pl.LazyFrame]) -> StoredFeatures:
        return StoredFeatures(function, entity=entity, on=on, ttl=duration(ttl))

    return declare
