"""An exported graph, run: columns by name, gaps as agreed, nothing that is no number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import polars as pl
import pytest
from onnx import TensorProto, helper

from ferroflow.adapters.graph import Graph
from ferroflow.core.errors import ModelError

FRAME = pl.DataFrame({"kind": ["a", None], "zone": [7, None], "more": [0, 0], "distance": [1.5, 2.5]})


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., Path]:
    """A graph: distance · scale + zone + (100 where the kind is "a", 1 where it is missing)."""

    def write(scale: float = 2.0, output: str = "prediction") -> Path:
        coded = {"keys_strings": ["a", ""], "values_floats": [100.0, 1.0], "default_float": 0.0}
        nodes = [
            helper.make_node("Constant", [], ["scale"], value_float=scale),
            helper.make_node("Mul", ["distance", "scale"], ["scaled"]),
            helper.make_node("Cast", ["zone"], ["zone_number"], to=TensorProto.FLOAT),
            helper.make_node("LabelEncoder", ["kind"], ["kind_number"], domain="ai.onnx.ml", **coded),
            helper.make_node("Sum", ["scaled", "zone_number", "kind_number"], [output]),
        ]
        types = {"distance": TensorProto.FLOAT, "zone": TensorProto.INT64, "kind": TensorProto.STRING}
        inputs = [helper.make_tensor_value_info(name, kind, ["batch", 1]) for name, kind in types.items()]
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", 1])]
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)]
        made = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs), opset_imports=opsets, ir_version=10)
        path = tmp_path / "model.onnx"
        onnx.save(made, path)
        return path

    return write


def test_columns_are_found_by_name_and_gaps_are_minus_one_and_empty_text(model: Callable[..., Path]) -> None:
    graph = Graph(model())
    assert graph.inputs == {"distance": "float", "zone": "int", "kind": "text"}
    found = graph.predict(FRAME)
    assert found.dtype == np.float32
    assert found.tolist() == [1.5 * 2 + 7 + 100, 2.5 * 2 - 1 + 1]


def test_missing_numbers_reach_the_graph_as_nan(model: Callable[..., Path]) -> None:
    fed = Graph(model()).feed(FRAME.with_columns(distance=pl.lit(None, dtype=pl.Float64)))
    assert np.isnan(fed["distance"]).all()
    assert fed["distance"].shape == (2, 1)


def test_whole_numbers_and_flags_are_taken_as_numbers(model: Callable[..., Path]) -> None:
    graph = Graph(model())
    assert graph.predict(FRAME.with_columns(distance=pl.Series([1, 2])))[0] == 109
    assert graph.predict(FRAME.with_columns(distance=pl.Series([True, False])))[0] == 109


def test_no_rows_give_no_predictions(model: Callable[..., Path]) -> None:
    assert Graph(model()).predict(FRAME.head(0)).shape == (0,)


def test_a_missing_column_is_named(model: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match=r"needs the columns zone; given: kind, more, distance"):
        Graph(model()).predict(FRAME.drop("zone"))


def test_a_column_of_the_wrong_kind_is_named(model: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match="'zone' of type String is no model input 'int'"):
        Graph(model()).predict(FRAME.with_columns(zone=pl.lit("north")))


def test_an_answer_that_is_no_number_is_an_error_with_its_row(model: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match="gave nan for row 1"):
        Graph(model()).predict(FRAME.with_columns(distance=pl.Series([1.0, None])))
    with pytest.raises(ModelError, match="gave inf for row 0"):
        Graph(model(scale=3e38)).predict(FRAME.with_columns(distance=pl.lit(1e3)))


def test_what_is_no_model_is_refused(model: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"missing\.onnx cannot be loaded"):
        Graph(tmp_path / "missing.onnx")
    (tmp_path / "torn.onnx").write_bytes(model().read_bytes()[:100])
    with pytest.raises(ModelError, match=r"torn\.onnx cannot be loaded"):
        Graph(tmp_path / "torn.onnx")
    with pytest.raises(ModelError, match="no output 'prediction', only answer"):
        Graph(model(output="answer"))


def test_threads_give_the_same_answers(model: Callable[..., Path]) -> None:
    path = model()
    assert Graph(path, threads=2).predict(FRAME).tolist() == Graph(path).predict(FRAME).tolist()
