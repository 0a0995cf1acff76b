from __future__ import annotations

import polars as pl
import pytest

from ferroflow.core.errors import ModelError
from ferroflow.core.spec import Classification, Regression
from ferroflow.core.targets import target_values


@pytest.mark.parametrize(
    ("values", "positive"),
    [([1, 2, 2], "2"), ([0, 1, 1], "1"), ([False, True, True], "true"), (["no", "yes", "yes"], "yes")],
)
def test_the_positive_class_is_one_however_it_is_coded(values: list[object], positive: str) -> None:
    told = target_values(Classification("paid", positive=positive), pl.Series(values))
    assert told.tolist() == [0.0, 1.0, 1.0]


def test_a_quantity_keeps_its_units() -> None:
    assert target_values(Regression("minutes"), pl.Series([1, 7])).tolist() == [1.0, 7.0]


@pytest.mark.parametrize(
    ("target", "values"),
    [
        (Regression("paid"), [1.0, None]),
        (Regression("paid"), [1.0, float("nan")]),
        (Classification("paid", "1"), [1, None]),
    ],
)
def test_a_gap_in_the_target_is_refused(target: Regression | Classification, values: list[object]) -> None:
    with pytest.raises(ModelError, match="1 of 2 rows have no 'paid'"):
        target_values(target, pl.Series(values))
