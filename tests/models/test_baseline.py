"""Group means: what the naive answer says for known and for unknown groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ferroflow.core.errors import SpecError
from models import baseline

FRAME = pl.DataFrame({"zone": [1, 1, 2, 2], "kind": ["a", "b", "a", "a"], "free": [0.0, 1.0, 0.0, None]})
TARGET = np.array([1.0, 3.0, 5.0, 9.0])
KINDS: dict[str, baseline.Kind] = {"free": "float", "zone": "int", "kind": "text"}


def test_known_groups_get_their_mean_and_unknown_ones_the_overall_mean() -> None:
    means = baseline.fit(FRAME, TARGET, by=("zone", "kind"), kinds=KINDS)
    probe = pl.DataFrame({"zone": [2, 1, 9], "kind": ["a", "b", "a"]})
    assert means.predict(probe).tolist() == [7.0, 3.0, 4.5]


def test_without_groups_everything_gets_the_overall_mean() -> None:
    assert baseline.fit(FRAME, TARGET, by=(), kinds=KINDS).predict(FRAME).tolist() == [4.5] * 4


def test_missing_numbers_are_a_group_of_their_own() -> None:
    means = baseline.fit(FRAME, TARGET, by=("free",), kinds=KINDS)
    assert means.predict(FRAME).tolist() == [3.0, 3.0, 3.0, 9.0]


def test_weights_count() -> None:
    means = baseline.fit(FRAME, TARGET, by=("zone",), kinds=KINDS, weight=np.array([1.0, 0.0, 1.0, 3.0]))
    assert means.predict(FRAME).tolist() == [1.0, 1.0, 8.0, 8.0]


def test_a_file_gives_the_same_answers(tmp_path: Path) -> None:
    means = baseline.fit(FRAME, TARGET, by=("zone", "kind"), kinds=KINDS)
    means.save(tmp_path)
    assert baseline.GroupMeans.load(tmp_path).predict(FRAME).tolist() == means.predict(FRAME).tolist()


def test_a_column_that_is_no_input_is_refused() -> None:
    with pytest.raises(SpecError, match="names colour"):
        baseline.fit(FRAME, TARGET, by=("colour",), kinds=KINDS)
