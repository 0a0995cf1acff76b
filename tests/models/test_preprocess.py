"""Category tables and target encodings: no row sees its own target, and what is unseen has a place."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from ferroflow.core.errors import SpecError
from ferroflow.core.spec import TargetEncoding
from models import preprocess


def rows(count: int = 400, seed: int = 0) -> tuple[pl.DataFrame, np.ndarray]:
    random = np.random.default_rng(seed)
    zone, kind = random.integers(1, 9, count), random.choice(["a", "b", "c"], count)
    number = random.normal(size=count)
    frame = pl.DataFrame({"number": number, "gaps": np.where(random.random(count) < 0.2, np.nan, number)})
    frame = frame.with_columns(pl.Series("zone", zone), pl.Series("kind", kind), pl.col("gaps").fill_nan(None))
    return frame, zone * 2.0 + number


def fitted(frame: pl.DataFrame, target: np.ndarray, **options: object) -> tuple[preprocess.Preprocessor, np.ndarray]:
    given = {"encodings": [TargetEncoding(("zone", "kind"), smoothing=5.0)], **options}
    return preprocess.fit(frame, target, numeric=("number", "gaps"), categorical=("zone", "kind"), **given)


def test_matrix_is_numbers_then_encodings_then_codes() -> None:
    preprocessor, matrix = fitted(*rows())
    assert preprocessor.names == ("number", "gaps", "mean_by_zone_kind", "zone", "kind")
    assert preprocessor.kinds == {"number": "float", "gaps": "float", "zone": "int", "kind": "text"}
    assert matrix.shape == (400, preprocessor.width)
    assert matrix.dtype == np.float32


def test_a_training_row_never_sees_its_own_target() -> None:
    random = np.random.default_rng(1)
    frame = pl.DataFrame({"key": np.arange(1000) // 6})
    noise = random.normal(size=1000)
    options = {"numeric": (), "categorical": ("key",), "encodings": [TargetEncoding(("key",), smoothing=0.5)]}
    preprocessor, own = preprocess.fit(frame, noise, **options)
    leaking = preprocessor.transform(frame)
    assert np.corrcoef(leaking[:, 0], noise)[0, 1] > 0.3
    assert np.corrcoef(own[:, 0], noise)[0, 1] < 0.05


def test_encoding_of_other_rows_is_the_shrunken_mean_of_training() -> None:
    frame, target = rows()
    preprocessor, _ = fitted(frame, target)
    mine = ((frame["zone"] == 3) & (frame["kind"] == "b")).to_numpy()
    expected = (target[mine].sum() + 5.0 * target.mean()) / (mine.sum() + 5.0)
    found = preprocessor.transform(pl.DataFrame({"number": [0.0], "gaps": [0.0], "zone": [3], "kind": ["b"]}))
    assert found[0, 2] == pytest.approx(expected, rel=1e-6)


def test_weights_decide_an_encoding() -> None:
    frame = pl.DataFrame({"key": ["a"] * 200})
    target = np.repeat([0.0, 10.0], 100)
    weight = np.repeat([1e-6, 1.0], 100)
    options = {"numeric": (), "categorical": ("key",), "encodings": [TargetEncoding(("key",), smoothing=1.0)]}
    preprocessor, _ = preprocess.fit(frame, target, weight=weight, **options)
    assert preprocessor.transform(frame)[0, 0] == pytest.approx(10.0, abs=1e-3)


def test_weights_of_zero_do_not_empty_a_table() -> None:
    frame, target = rows()
    weight = np.where(np.arange(400) < 200, 0.0, 1.0)
    preprocessor, matrix = fitted(frame, target, weight=weight)
    assert preprocessor.sizes == (9, 4)
    assert np.isfinite(matrix[:, 2:]).all()


def test_unseen_rare_and_missing_categories_have_a_place() -> None:
    frame, target = rows()
    frame = frame.with_columns(
        zone=pl.when(pl.int_range(pl.len()) < 2).then(77).otherwise("zone"),
        kind=pl.when(pl.int_range(pl.len()) >= 380).then(None).otherwise("kind"),
    )
    preprocessor, _ = fitted(frame, target)
    zone, kind = preprocessor.categories
    probe = pl.DataFrame({"zone": [77, 12345, None], "kind": ["never", "a", None]}, schema_overrides={"zone": pl.Int64})
    assert zone.codes(probe).tolist() == [preprocess.OTHER] * 3
    assert kind.codes(probe)[0] == preprocess.OTHER
    assert kind.codes(probe)[2] != preprocess.OTHER, "missing was frequent in training: a category of its own"


def test_a_number_never_missing_in_training_is_filled_later() -> None:
    frame, target = rows()
    preprocessor, _ = fitted(frame, target)
    probe = pl.DataFrame({"number": [None], "gaps": [None], "zone": [1], "kind": ["a"]}, strict=False)
    found = preprocessor.transform(probe.cast({"number": pl.Float64, "gaps": pl.Float64}))
    assert found[0, 0] == pytest.approx(frame["number"].median(), rel=1e-5)
    assert np.isnan(found[0, 1])


def test_json_gives_the_same_matrix() -> None:
    frame, target = rows()
    preprocessor, _ = fitted(frame, target)
    again = preprocess.Preprocessor.model_validate_json(preprocessor.model_dump_json())
    np.testing.assert_array_equal(again.transform(frame), preprocessor.transform(frame))


def test_same_seed_same_matrix_and_another_seed_another() -> None:
    frame, target = rows()
    first, same, other = (fitted(frame, target, seed=seed)[1] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first[:, 2], other[:, 2])


def test_encoding_of_a_number_is_refused_with_the_way_out() -> None:
    frame, target = rows()
    with pytest.raises(SpecError, match="'number' to be categorical; categorical are zone, kind"):
        fitted(frame, target, encodings=[TargetEncoding(("number",))])


def test_encoding_that_would_need_too_many_cells_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocess, "_CELLS", 20)
    with pytest.raises(SpecError, match="36 cells; the most is 20"):
        fitted(*rows())
