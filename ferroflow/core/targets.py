"""The target as numbers: a quantity as it is, a class as 1 (the positive one) or 0."""

from __future__ import annotations

import numpy as np
import polars as pl

from ferroflow.core.metrics import Array
from ferroflow.core.spec import Classification, Regression


def target_values(target: Regression | Classification, values: pl.Series) -> Array:
    """A target column (n,) as float64; for a class that is a text, 1 where it is ``positive``."""
    if isinstance(target, Classification) and not values.dtype.is_numeric() and values.dtype != pl.Boolean:
        return (values.cast(pl.String) == target.positive).cast(pl.Float64).to_numpy()
    numbers: Array = values.cast(pl.Float64).to_numpy().astype(np.float64)
    return numbers
