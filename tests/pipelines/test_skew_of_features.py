"""Exactness can be asked for: request features have the same bits in whatever batch they are computed."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from ferroflow.adapters import pipelines
from ferroflow.stations.features import request_inputs
from tests.rides import START

ROWS = 5_000


def requests(name: str) -> pl.DataFrame:
    """Seeded requests: whatever numbers and times the fields may hold."""
    spec = pipelines.load(name)
    random = np.random.default_rng(1)
    schema = spec.schema.to_schema().columns
    columns = []
    for field in spec.inputs:
        dtype = schema[field].dtype.type
        if dtype.is_temporal():
            values = [START + timedelta(seconds=float(second)) for second in random.random(ROWS) * 3e7]
            columns.append(pl.Series(field, values, dtype=pl.Datetime("us", "UTC")))
        elif dtype.is_numeric():
            columns.append(pl.Series(field, random.gamma(1, 20, ROWS)).cast(pl.Int64 if dtype.is_integer() else dtype))
        else:
            columns.append(pl.Series(field, random.choice(["a", "b"], ROWS)))
    return pl.DataFrame(columns)


@pytest.mark.parametrize("name", ["taxi", "bikes", "income"])
@pytest.mark.parametrize("batch", [1, 7, 50])
def test_a_requests_features_are_those_of_the_whole_table(name: str, batch: int) -> None:
    spec, rows = pipelines.load(name), requests(name)
    whole = request_inputs(spec, rows)
    some = rows.head(300 if batch == 1 else ROWS)
    pieces = pl.concat([request_inputs(spec, piece) for piece in some.iter_slices(batch)])
    assert len(whole.columns) > len(rows.columns) - 1, "there are features"
    for column in whole.columns:
        left, right = whole[column].head(some.height), pieces[column]
        if left.dtype.is_float():
            bits = [np.ascontiguousarray(side.fill_null(float("nan")).to_numpy()).tobytes() for side in (left, right)]
            assert bits[0] == bits[1], column
        else:
            assert left.equals(right), column
