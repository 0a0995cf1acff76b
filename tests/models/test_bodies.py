"""Every candidate learns, is the same again from its file and from its seed, and exports to the same answers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ferroflow.adapters.graph import Graph
from ferroflow.core.errors import ModelError
from ferroflow.core.metrics import score
from ferroflow.core.spec import MLP, Boosting, Candidate, TabM
from models import boosting, export, search
from tests.models.learnable import fitted, table

CANDIDATES = [pytest.param(candidate, id=candidate.name) for candidate in (Boosting(), MLP(), TabM(members=3))]
SMALL: dict[str, dict[str, Any]] = {"boosting": {}, "mlp": {"width": 48}, "tabm": {"width": 32}}


def quiet(step: int, error: float) -> None:
    """Nobody listens."""


def body(candidate: Candidate, material: Any, *, seconds: float = 30, seed: int = 0, report: Any = quiet) -> Any:
    return search.train(candidate, SMALL[candidate.name], material, seed=seed, seconds=seconds, report=report)


@pytest.mark.parametrize("candidate", CANDIDATES)
@pytest.mark.parametrize("classes", [False, True], ids=["regression", "classification"])
def test_candidate_learns_and_its_graph_gives_the_same_answers(
    candidate: Candidate, classes: bool, tmp_path: Path
) -> None:
    preprocessor, material = fitted(classes=classes)
    found = body(candidate, material)
    metrics = score(material.task, material.validation_target, found.predict(material.validation))
    if classes:
        assert metrics["accuracy"] > 0.85
        assert found.predict(material.validation).min() >= 0
        assert found.predict(material.validation).max() <= 1
    else:
        assert metrics["r2"] > 0.85
    export.write_graph(preprocessor, found, tmp_path / "model.onnx")
    graph = Graph(tmp_path / "model.onnx")
    assert graph.inputs == preprocessor.kinds
    assert export.check(preprocessor, found, graph.predict, table(300, 7, classes=classes)) < 1e-3
    found.save(tmp_path)
    again = search.load(candidate, tmp_path)
    np.testing.assert_allclose(again.predict(material.validation), found.predict(material.validation), rtol=1e-6)


@pytest.mark.parametrize("candidate", CANDIDATES)
def test_same_seed_gives_the_same_model(candidate: Candidate) -> None:
    _, material = fitted(400)
    first, second = (body(candidate, material, seed=4).predict(material.validation) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("candidate", CANDIDATES)
def test_training_ends_when_its_time_is_over(candidate: Candidate) -> None:
    _, material = fitted(3000)
    body(candidate, fitted(200)[1], seconds=0.1)  # what is imported on first use is no training
    started = time.monotonic()
    found = body(candidate, material, seconds=0.2)
    assert time.monotonic() - started < 6
    assert np.isfinite(found.predict(material.validation)).all()


@pytest.mark.parametrize("candidate", CANDIDATES)
def test_weights_decide_what_is_learnt(candidate: Candidate) -> None:
    weight = np.where(np.arange(1500) < 750, 1e-4, 1.0)
    _, material = fitted(weight=weight)
    shifted = material.target + np.where(np.arange(1500) < 750, 20.0, 0.0)
    material = type(material)(**{**vars(material), "target": shifted})
    found = body(candidate, material).predict(material.validation)
    assert abs(found.mean() - material.validation_target.mean()) < 2.0


@pytest.mark.parametrize("candidate", CANDIDATES)
def test_a_report_that_raises_stops_training(candidate: Candidate) -> None:
    def stop(step: int, error: float) -> None:
        raise InterruptedError(f"{step}")

    with pytest.raises(InterruptedError, match="1"):
        body(candidate, fitted(300)[1], report=stop)


def test_thresholds_between_neighbouring_numbers_branch_alike_in_the_graph(tmp_path: Path) -> None:
    low = np.float32(7.123456)
    high = np.nextafter(low, np.float32(np.inf))
    frame = pl.DataFrame({"x": np.tile([low, high], 200).astype(np.float64)})
    target = np.tile([0.0, 10.0], 200)
    from models import preprocess
    from models.material import Material

    preprocessor, matrix = preprocess.fit(frame, target, numeric=("x",), categorical=(), encodings=())
    material = Material("regression", ("x",), (), matrix, target, None, matrix, target)
    found = boosting.fit({"learning_rate": 0.2, "lambda_l2": 0.1}, material, seed=0, seconds=9, report=quiet)
    export.write_graph(preprocessor, found, tmp_path / "model.onnx")
    np.testing.assert_allclose(Graph(tmp_path / "model.onnx").predict(frame), found.predict(matrix), atol=1e-4)


def test_a_graph_that_differs_from_its_model_is_refused() -> None:
    preprocessor, material = fitted(400)
    found = body(Boosting(), material)

    def off_by_one(frame: pl.DataFrame) -> np.ndarray:
        return found.predict(preprocessor.transform(frame)) + 1

    with pytest.raises(ModelError, match="exported graph gives"):
        export.check(preprocessor, found, off_by_one, table(50))
