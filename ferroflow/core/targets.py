"""The target as numbers: a quantity as it is, a class as 1 (the positive one) or 0."""

from __future__ import annotations

import numpy as np
import polars as pl

from ferroflow.core.errors import ModelError
from ferroflow.core.metrics import Array
from ferroflow.core.spec import Classification, Regression


def target_values(target: Regression | Classification, values: pl.Series) -> Array:
    """A target column (n,) as float64: in its own units, or 1 where its text is ``positive`` and 0 elsewhere.

    Classes may be numbers, texts or booleans (``true`` and ``false``): they are compared as text.

    Raises:
        ModelError: it has gaps.
    """
    if isinstance(target, Classification):
        numbers = (values.cast(pl.String) == target.positive).cast(pl.Float64)
    else:
        numbers = values.cast(pl.Float64)
    if missing := int((numbers.is_null() | numbers.is_nan()).sum()):
        raise ModelError(
            f"{missing:,} of {values.len():,} rows have no {target.column!r}: make the schema quarantine them."
        )
    found: Array = numbers.to_numpy().astype(np.float64)
    return found
