from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from ferroflow.core import profile as module
from ferroflow.core.profile import ColumnProfile, Profile, profile

ROWS = 5_000


def frame(seed: int = 0, shift: float = 0.0, rows: int = ROWS) -> pl.LazyFrame:
    """Numbers, whole numbers, names, flags, times and lists, some of them missing."""
    dice = np.random.default_rng(seed)
    numbers = dice.normal(10 + shift, 2, rows)
    return pl.LazyFrame(
        {
            "size": numbers,
            "count": dice.integers(0, 5, rows),
            "city": dice.choice(["Oslo", "Bergen", "Ås"], rows, p=[0.5 - shift / 10, 0.3 + shift / 10, 0.2]),
            "open": dice.random(rows) < 0.25,
            "at": [datetime(2024, 1, 1) + timedelta(hours=hour % 720) for hour in range(rows)],
            "list": [[1]] * rows,
        }
    ).with_columns(size=pl.when(pl.int_range(pl.len()) % 10 == 0).then(float("nan")).otherwise("size"))


def column(found: Profile, name: str) -> ColumnProfile:
    entry = found.column(name)
    assert entry is not None
    return entry


@pytest.mark.parametrize("sample", [200, 50_000])
def test_every_present_cell_lies_in_one_bin_however_small_the_sample(
    sample: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAMPLE", sample)
    rows = frame().collect()
    found = profile(rows.lazy(), time="at")
    for entry in found.columns:
        for bins in (entry.histogram, entry.deciles):
            if bins is not None:
                assert sum(bins.rows) == entry.rows - entry.missing
                values = rows[entry.name].fill_nan(None) if entry.name == "size" else rows[entry.name]
                numbers = values.drop_nulls().to_physical().cast(pl.Float64).to_numpy()
                edges = [-np.inf, *bins.edges, np.inf]
                expected = [int(((numbers >= a) & (numbers < b)).sum()) for a, b in pairwise(edges)]
                assert list(bins.rows) == expected
    assert sum(found.by_time.values()) == ROWS


def test_profile_says_what_polars_says_of_the_whole_column() -> None:
    rows = frame().collect()
    size, at = column(profile(rows.lazy()), "size"), column(profile(rows.lazy()), "at")
    present = rows["size"].fill_nan(None).drop_nulls()
    assert (size.missing, size.rows) == (ROWS // 10, ROWS)
    assert (size.low, size.high) == (present.min(), present.max())
    assert size.mean == pytest.approx(present.mean()) and size.std == pytest.approx(present.std())
    assert size.quantiles["p50"] == pytest.approx(present.median())
    assert module.moment(at.high or 0).replace(tzinfo=None) == rows["at"].max()
    assert (at.distinct, at.distinct_exact) == (720, True)


def test_frequent_values_are_counted_exactly_even_where_too_many_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FEW", 100)
    names = [f"only-{number}" for number in range(3_000)] + ["twice told"] * 700 + ["often"] * 900
    entry = column(profile(pl.LazyFrame({"name": names})), "name")
    assert list(entry.top.items())[:2] == [("often", 900), ("twice told", 700)]
    assert not entry.distinct_exact and entry.distinct == pytest.approx(3_002, rel=0.15)


def test_one_outlier_does_not_squeeze_the_histogram_into_one_bin() -> None:
    numbers = [*np.random.default_rng(0).normal(0, 1, 2_000).tolist(), 1e9]
    entry = column(profile(pl.LazyFrame({"x": numbers})), "x")
    assert entry.high == 1e9
    assert entry.span is not None and entry.span[1] < 5
    assert entry.histogram is not None and max(entry.histogram.rows) < 400 and sum(entry.histogram.rows) == 2_001


def test_nothing_of_a_personal_column_is_kept_but_counts() -> None:
    rows = pl.LazyFrame({"salary": [31_337.5, 71_773.25, None], "name": ["Ada L.", "Grace H.", "Ada L."]})
    found = profile(rows, personal=("salary", "name"))
    told = found.model_dump_json()
    assert not any(secret in told for secret in ("31337", "71773", "Ada", "Grace"))
    assert [(entry.missing, entry.distinct) for entry in found.columns] == [(1, 2), (0, 2)]
    assert column(profile(rows, before=found), "name").shift is None


def test_shift_is_nothing_for_rows_of_the_same_kind_and_large_for_others() -> None:
    before = profile(frame(seed=0))
    same, moved = profile(frame(seed=1), before=before), profile(frame(seed=2, shift=2.0), before=before)
    for name in ("size", "count", "city", "open"):
        assert (column(same, name).shift or 0.0) < 0.01
    assert (column(moved, "size").shift or 0) > 0.25
    assert 0.1 < (column(moved, "city").shift or 0) < 1
    assert (column(moved, "count").shift or 0) < 0.01
    assert column(moved, "at").shift is None and column(moved, "list").shift is None


def test_cells_that_go_missing_shift_a_column() -> None:
    before = profile(frame())
    emptied = frame().with_columns(city=pl.when(pl.int_range(pl.len()) % 3 == 0).then(None).otherwise("city"))
    assert (column(profile(emptied, before=before), "city").shift or 0) > 0.25


def test_shift_needs_only_the_kept_profile_after_a_way_through_json() -> None:
    before = profile(frame(shift=1.0))
    kept = Profile.model_validate_json(before.model_dump_json())
    assert profile(frame(), before=kept) == profile(frame(), before=before)


def test_empty_and_wholly_missing_columns_have_a_profile() -> None:
    nothing = profile(frame().head(0), time="at", before=profile(frame()))
    assert nothing.rows == 0 and nothing.by_time == {}
    holes = profile(pl.LazyFrame({"x": [None, None], "t": [None, None]}, schema={"x": pl.Float64, "t": pl.String}))
    assert [(entry.missing, entry.distinct, entry.mean, entry.top) for entry in holes.columns] == [(2, 0, None, {})] * 2
    odd = profile(pl.LazyFrame({"x": [float("inf"), 1.0, 2.0, float("-inf")]}))
    kept = odd.model_dump_json()
    assert Profile.model_validate_json(kept).model_dump_json() == kept and column(odd, "x").high == float("inf")


@pytest.mark.parametrize(("days", "unit"), [(30, "day"), (400, "week"), (3_000, "month")])
def test_rows_are_counted_along_the_time_by_what_can_be_seen(days: int, unit: str) -> None:
    stray = [datetime(1999, 1, 1)]
    rows = pl.LazyFrame({"at": stray + [datetime(2015, 1, 1) + timedelta(days=day % days) for day in range(9_000)]})
    found = profile(rows, time="at")
    assert found.unit == unit and sum(found.by_time.values()) == 9_001
