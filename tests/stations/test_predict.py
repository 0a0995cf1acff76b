"""Batch prediction: the endpoint's answers, for a file; what cannot be predicted leaves by a door, with its reason."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from ferroflow.adapters.home import Home
from ferroflow.core.contract import Field
from ferroflow.core.errors import DataError, EmptySource, NotFound, SchemaError, UnreadableFile
from ferroflow.core.records import ModelVersion
from ferroflow.stations.ingest import ingest
from ferroflow.stations.predict import counts, predict_file
from tests.parcels import AS_OF, HEADER, NOW, a_mirror, parcels, settings_for
from tests.serving_toy import NOON, ROW, contract, package, toy_home
from tests.stations.judging import line

SPEC: Any = SimpleNamespace(name="toy")
ROWS = [ROW, {**ROW, "zone": 2, "colour": None}, {**ROW, "distance": 0.0}]


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("FERROFLOW_PIPELINES", str(tmp_path / "more"))
    return toy_home(tmp_path)


def version(home: Home, number: int = 1) -> ModelVersion:
    fingerprint = package(home, number)
    return ModelVersion(
        pipeline="toy",
        fingerprint=fingerprint,
        name="toy",
        version=str(number),
        run_id="",
        package=home.relative(home.packages("toy") / fingerprint),
        reference="",
        metrics={},
        candidate="boosting",
    )


def predicted(home: Home, rows: Path, number: int = 1) -> Path:
    return predict_file(SPEC, rows, home, version=version(home, number), at=NOON)


def parquet(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "rows.parquet"
    pl.DataFrame(rows).with_columns(pl.col("asked_at").str.to_datetime(time_zone="UTC")).write_parquet(path)
    return path


def test_parquet_and_csv_are_predicted_as_the_endpoint_would(toy: Home, tmp_path: Path) -> None:
    from_parquet = pl.read_parquet(predicted(toy, parquet(tmp_path, ROWS)))
    text = tmp_path / "rows.csv"
    pl.DataFrame(ROWS).write_csv(text)
    from_csv = pl.read_parquet(predicted(toy, text))
    expected = [100 + 5 + 12 + 20, 100 + 5 + 12 + 10, 100 + 0 + 12 + 20]
    assert from_parquet["prediction"].to_list() == from_csv["prediction"].to_list() == expected
    assert from_parquet["prediction_id"].n_unique() == 3
    columns = ["prediction_id", "row", "zone", "distance", "colour", "asked_at", "prediction", "version"]
    assert from_parquet.columns == columns


def test_bad_rows_leave_with_every_reason_and_counts_reconcile(toy: Home, tmp_path: Path) -> None:
    rows = [ROW, {**ROW, "zone": 999, "distance": None}, {**ROW, "distance": float("nan")}, ROW]
    out = predicted(toy, parquet(tmp_path, rows))
    rejected = pl.read_parquet(out.with_suffix(".rejected.parquet"))
    assert pl.read_parquet(out)["row"].to_list() == [0, 3]
    assert rejected["row"].to_list() == [1, 2]
    assert [len(reasons) for reasons in rejected["reasons"]] == [2, 1]
    assert rejected["reasons"][0][0].startswith("zone: ")
    assert json.loads(rejected["raw"][0])["zone"] == 999
    told = counts(out)
    assert told["rows"] == told["predicted"] + told["rejected"] == 4


def test_second_time_nothing_is_done_and_another_model_gives_another_file(toy: Home, tmp_path: Path) -> None:
    rows = parquet(tmp_path, ROWS)
    first = predicted(toy, rows)
    written = first.stat().st_mtime_ns
    assert predicted(toy, rows) == first
    assert first.stat().st_mtime_ns == written
    assert predicted(toy, rows, number=2) != first


def test_row_ids_are_kept_and_other_columns_are_not(toy: Home, tmp_path: Path) -> None:
    path = parquet(tmp_path, ROWS)
    pl.read_parquet(path).with_columns(row_id=pl.Series(["a", "b", "c"]), tip=1.0).write_parquet(path)
    found = pl.read_parquet(predicted(toy, path))
    assert found["row_id"].to_list() == ["a", "b", "c"]
    assert "tip" not in found.columns


def test_online_store_away_is_told(toy: Home, tmp_path: Path) -> None:
    for path in toy.online("toy").parent.iterdir():
        path.unlink()
    out = predicted(toy, parquet(tmp_path, ROWS[:1]))
    assert counts(out)["degraded"] is True
    assert pl.read_parquet(out)["prediction"].to_list() == [100 + 5 + 12 + 10]


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("torn.parquet", b"PAR1 and no more", UnreadableFile),
        ("rows.csv", b"", EmptySource),
        ("header.csv", b"zone,distance,colour,asked_at\n", EmptySource),
        ("other.csv", b"zone,distance\n1,2\n", SchemaError),
    ],
)
def test_file_that_cannot_be_used_is_named(
    toy: Home, tmp_path: Path, name: str, content: bytes, error: type[DataError]
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=name):
        predicted(toy, tmp_path / name)


def test_cells_are_cleaned_as_validation_cleans_them(toy: Home, tmp_path: Path) -> None:
    served = version(toy)
    path = toy.absolute(served.package) / "serving.json"
    path.write_text(contract(served.fingerprint, null_values=("", "?")).model_dump_json())
    text = tmp_path / "rows.csv"
    told = ("1, 2.5, red ,2023-03-01T12:30:00Z", "1,2.5, ?,2023-03-01T12:30:00Z", "1,?,red,2023-03-01T12:30:00Z")
    text.write_text("\n".join(("zone,distance,colour,asked_at", *told)))
    out = predict_file(SPEC, text, toy, version=served, at=NOON)
    assert pl.read_parquet(out)["colour"].to_list() == ["red", None]
    assert pl.read_parquet(out.with_suffix(".rejected.parquet"))["row"].to_list() == [2]


# ------------------------------------------------------------------------------------------------------------ snapshots


def parcels_served(home: Home) -> ModelVersion:
    """A model of the parcels, which says ``5 + 3 · kilos``."""
    inputs = {"city": "int", "kilos": "float"}
    folder = home.packages("parcels") / "line"
    line(folder / "model.onnx", 5, 3, inputs, of="kilos")
    fields = (
        Field(name="city", type="integer"),
        Field(name="kilos", type="number", nullable=True),
        Field(name="sent_at", type="time"),
    )
    told = contract("line", "parcels", fields=fields, request_features=(), stored=(), inputs=inputs, time="sent_at")
    (folder / "serving.json").write_text(told.model_dump_json())
    changes = {"pipeline": "parcels", "name": "parcels", "package": home.relative(folder)}
    return version(home).model_copy(update=changes)


def test_snapshots_accepted_rows_are_predicted_by_the_beginning_of_its_name(toy: Home, tmp_path: Path) -> None:
    refused, good = "3,2024-01-03 10:00,1,-1,3\n", "1,2024-01-01 10:00,1,2.5,3\n2,2024-01-02 11:00,2,4,4\n"
    mirror = a_mirror(tmp_path / "m", parcels=HEADER + refused + good)
    snapshot = ingest(parcels(), AS_OF, toy, now=NOW, settings=settings_for(toy, mirror=str(mirror)))
    served = parcels_served(toy)
    out = predict_file(parcels(), snapshot.fingerprint[:6], toy, version=served, at=NOON)
    found = pl.read_parquet(out)
    assert found["prediction"].to_list() == [5 + 3 * 2.5, 5 + 3 * 4]
    assert found["row_id"].to_list() == [f"{snapshot.parts[0].fingerprint}:{row}" for row in (3, 4)]
    assert (counts(out)["file"], counts(out)["rows"]) == (f"snapshot {snapshot.fingerprint}", 2)
    assert predict_file(parcels(), Path(snapshot.fingerprint), toy, version=served, at=NOON) == out


@pytest.mark.parametrize("rows", ["none.parquet", "abcd", "", "..", "abc", "*"])
def test_neither_file_nor_snapshot_is_told_as_both(toy: Home, rows: str) -> None:
    with pytest.raises(NotFound, match=r"neither a file .* nor a snapshot of 'toy'.*ferroflow datasets list"):
        predict_file(SPEC, rows, toy, version=version(toy), at=NOON)


def test_beginning_of_several_snapshots_is_refused_with_their_names(toy: Home) -> None:
    folder = toy.data("toy") / "snapshots"
    folder.mkdir(parents=True)
    for name in ("abcd1", "abcd2"):
        (folder / f"{name}.json").write_text("{}")
    with pytest.raises(NotFound, match="abcd1, abcd2"):
        predict_file(SPEC, "abcd", toy, version=version(toy), at=NOON)


def test_without_a_champion_the_way_out_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="ferroflow run toy"):
        predict_file(SPEC, tmp_path / "x.csv", Home(tmp_path / "empty"), at=datetime(2023, 1, 1, tzinfo=UTC))
