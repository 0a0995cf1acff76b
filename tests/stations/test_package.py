from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from ferroflow.adapters.home import Home
from ferroflow.core.contract import ServingContract
from ferroflow.core.errors import ModelError
from ferroflow.core.spec import Classification
from ferroflow.stations.package import write_card, write_package
from tests.toy_model import Trip, trained


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_package_holds_all_that_serving_and_retraining_need(home: Home) -> None:
    made = trained(home)
    package = write_package(made.spec, made.model, {"snapshot": "5a"}, home)
    assert package == home.packages("toy") / made.model.fingerprint
    assert {"model.onnx", "serving.json", "baseline.json", "model.txt", "model_card.md"} <= set(files(package))
    contract = ServingContract.model_validate_json((package / "serving.json").read_bytes())
    assert contract.fingerprint == made.model.fingerprint
    assert contract.lineage == {"model": made.model.fingerprint, "split": "5p1it", "snapshot": "5a"}


def test_classes_that_the_schema_does_not_list_come_from_the_training_rows(home: Home) -> None:
    class Free(Trip):
        colour: pl.String

    made = trained(home)
    spec = replace(made.spec, schema=Free, target=Classification("colour", positive="red"), inputs=("zone", "asked_at"))
    package = write_package(spec, made.model, {}, home)
    assert json.loads((package / "serving.json").read_text())["classes"] == ["green", "red"]


def test_packaging_again_changes_no_byte_and_leaves_no_temporary_folder(home: Home) -> None:
    made = trained(home)
    package = write_package(made.spec, made.model, {}, home)
    before, stamp = files(package), (package / "serving.json").stat().st_mtime_ns
    assert write_package(made.spec, made.model, {}, home) == package
    assert files(package) == before
    assert (package / "serving.json").stat().st_mtime_ns == stamp
    assert [path.name for path in home.packages("toy").iterdir()] == [made.model.fingerprint]


def test_a_package_is_renewed_when_the_feature_code_has_moved(home: Home) -> None:
    made = trained(home)
    package = write_package(made.spec, made.model, {}, home)
    contract = json.loads((package / "serving.json").read_text())
    (package / "serving.json").write_text(json.dumps({**contract, "feature_code": "old"}))
    write_package(made.spec, made.model, {}, home)
    assert json.loads((package / "serving.json").read_text())["feature_code"] == contract["feature_code"]


def test_a_model_without_a_graph_is_not_packaged(home: Home) -> None:
    made = trained(home)
    (home.absolute(made.model.path) / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"has no model\.onnx"):
        write_package(made.spec, made.model, {}, home)
    assert not home.packages("toy").exists()


def test_a_copy_that_fails_leaves_nothing_that_looks_like_a_package(home: Home) -> None:
    made = trained(home)
    source = home.absolute(made.model.path)
    (source / "zz.loop").symlink_to(source)  # a folder: left out, not followed
    package = write_package(made.spec, made.model, {}, home)
    assert not (package / "zz.loop").exists()
    assert not list(home.packages("toy").glob(".*"))


def test_the_card_tells_errors_slices_leaderboard_and_where_it_is_worse_than_naive(home: Home) -> None:
    made = trained(home)
    package = write_package(made.spec, made.model, {}, home)
    assert "Not evaluated yet." in (package / "model_card.md").read_text()
    card = write_card(made.spec, made.model, made.evaluation, {"split": "5p1it"}, package, home)
    assert (package / "model_card.md").read_text() == card
    assert "| test | boosting | 1.25 | 0.9 |" in card
    assert "| test | baseline | 5.5 | – |" in card
    assert "4.25 (95% interval 4 to 4.5; positive: the candidate is better)" in card
    assert "| green | 100 | 6.5 | 6 | – |" in card
    assert "Worse than the naive baseline on test rows: colour green." in card
    assert "| split | `5p1it` |" in card


def test_an_evaluation_named_in_the_lineage_is_in_the_card_at_once(home: Home) -> None:
    made = trained(home)
    package = write_package(made.spec, made.model, {"evaluation": made.evaluation.fingerprint}, home)
    assert "| validation | boosting | 1 | 0.8 |" in (package / "model_card.md").read_text()
