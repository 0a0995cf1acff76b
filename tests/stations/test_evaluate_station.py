from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from ferroflow.adapters.home import Home
from ferroflow.core.records import Evaluation, Split
from ferroflow.core.spec import Classification, PipelineSpec
from ferroflow.stations.evaluate import evaluate
from ferroflow.stations.gate import judge
from ferroflow.stations.split import split
from tests.stations.judging import AS_OF, INPUTS, NOISE, table, toy, trained, trips, version

FLOOR = (0.7 * NOISE["calm"] ** 2 + 0.3 * NOISE["wild"] ** 2) ** 0.5


def parts(home: Home, spec: PipelineSpec | None = None, rows: pl.DataFrame | None = None) -> Split:
    spec = spec or toy()
    return split(spec, table(spec, trips(6_000, AS_OF, 30) if rows is None else rows, home), home)


def test_the_right_line_reaches_the_noise_floor_and_beats_the_baseline(home: Home):
    found = evaluate(toy(), parts(home), trained(home, "right"), None, home)
    assert found.metrics["test"]["rmse"] == pytest.approx(FLOOR, rel=0.08)
    assert found.metrics["validation"]["rmse"] == pytest.approx(FLOOR, rel=0.08)
    assert found.against_baseline.low > 5
    assert found.slices["zone"]["wild"]["candidate"] == pytest.approx(NOISE["wild"], rel=0.1)
    verdict = judge(toy(), found)
    assert verdict.passed
    assert verdict.parent == found.fingerprint


def test_a_better_challenger_beats_the_champion_and_the_same_line_does_not(home: Home):
    rows = parts(home)
    better = evaluate(toy(), rows, trained(home, "right"), version(home, "1", slope=2.8), home)
    assert better.champion_version == "1"
    assert better.against_champion is not None
    assert better.against_champion.low > 0
    assert judge(toy(), better).passed
    same = evaluate(toy(), rows, trained(home, "right"), version(home, "2"), home)
    verdict = judge(toy(), same)
    assert not verdict.passed
    assert [gate.gate for gate in verdict.gates if not gate.passed] == ["beats_champion"]
    assert "against champion 2" in verdict.reason


def test_challenger_that_loses_a_slice_is_rejected(home: Home):
    rows = trips(6_000, AS_OF, 30, wild=0.2).with_columns(
        minutes=pl.when(pl.col("zone") == "wild").then(pl.col("minutes")).otherwise(pl.col("minutes") + 5)
    )
    shifted = trained(home, "shifted", intercept=10)  # right for the calm zone, wrong for the wild one
    found = evaluate(toy(), parts(home, rows=rows), shifted, version(home, "1"), home)
    gates = {gate.gate: gate for gate in judge(toy(), found).gates}
    assert gates["beats_champion"].passed
    assert not gates["no_worse_slice"].passed
    assert "lost: wild" in gates["no_worse_slice"].reason


def first_reference(home: Home, rows: Split) -> Evaluation:
    return evaluate(toy(), rows, trained(home, "slow", slope=2.8), None, home)


def test_a_champion_whose_input_is_gone_is_compared_by_its_kept_predictions(home: Home):
    rows = parts(home)
    reference = first_reference(home, rows).reference
    champion = version(home, "1", reference, inputs={**INPUTS, "speed": "float"})
    found = evaluate(toy(), rows, trained(home, "right"), champion, home)
    graph = evaluate(toy(), rows, trained(home, "right"), version(home, "2", slope=2.8), home)
    assert found.champion["test"]["rmse"] == pytest.approx(graph.champion["test"]["rmse"], rel=1e-5)
    assert judge(toy(), found).passed


@pytest.mark.parametrize("lost", ["inputs", "package"])
def test_a_champion_that_cannot_be_scored_stops_promotion_with_the_way_out(home: Home, lost: str):
    champion = version(home, "1", "gone.parquet", inputs={**INPUTS, "speed": "float"} if lost == "inputs" else INPUTS)
    if lost == "package":
        home.absolute(champion.package).joinpath("model.onnx").unlink()
    found = evaluate(toy(), parts(home), trained(home, "right"), champion, home)
    assert found.champion == {}
    assert "Train once as of the moment the champion was trained for" in found.champion_problem
    assert not judge(toy(), found).passed


def test_the_reference_holds_inputs_prediction_target_row_and_time_of_unseen_rows_only(home: Home):
    rows = parts(home)
    found = evaluate(toy(), rows, trained(home, "right"), None, home)
    reference = pl.read_parquet(home.absolute(found.reference))
    assert set(reference.columns) == {"row_id", "happened_at", *INPUTS, "prediction", "target", "part"}
    assert reference.height == rows.rows["validation"] + rows.rows["test"]
    train = pl.read_parquet(home.absolute(rows.paths["train"]))
    assert not set(train["row_id"]) & set(reference["row_id"])
    assert reference["prediction"].to_list() == pytest.approx((5 + 3 * reference["distance"]).to_list(), rel=1e-5)


def test_evaluating_twice_computes_once(home: Home):
    rows, model = parts(home), trained(home, "right")
    first = evaluate(toy(), rows, model, None, home)
    home.absolute(model.path).joinpath("model.onnx").unlink()
    assert evaluate(toy(), rows, model, None, home) == first


def test_classes_are_scored_as_the_probability_of_the_positive_one(home: Home):
    spec = toy(target=Classification("late", positive="yes"), gates=())
    rows = trips(3_000, AS_OF, 30).with_columns(
        late=pl.when(pl.col("distance") > 4).then(pl.lit("yes")).otherwise(pl.lit("no"))
    )
    model = trained(home, "chance", intercept=0.02, slope=0.05)
    found = evaluate(spec, parts(home, spec, rows), model, None, home)
    assert set(found.metrics["test"]) == {"log_loss", "accuracy", "auc", "brier"}
    assert found.metrics["test"]["auc"] == 1.0
    target = pl.read_parquet(home.absolute(found.reference))["target"]
    assert set(target.unique()) == {0.0, 1.0}


def test_a_metric_that_is_not_defined_does_not_spoil_the_record(home: Home):
    spec = toy(target=Classification("late", positive="yes"), gates=())
    rows = trips(2_000, AS_OF, 30).with_columns(late=pl.lit("no"))
    split_ = parts(home, spec, rows)
    model = trained(home, "chance", intercept=0.02, slope=0.01)
    first = evaluate(spec, split_, model, None, home)
    assert "auc" not in first.metrics["test"]
    Path(home.absolute(model.path) / "model.onnx").unlink()
    assert evaluate(spec, split_, model, None, home) == first
