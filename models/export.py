"""One ONNX graph from raw columns to the prediction: the fitted preprocessing joined with a model's body."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ferroflow.core.errors import ModelError
from models.material import MATRIX, Body, Floats
from models.preprocess import Categories, Encoding, Preprocessor

GRAPH = "model.onnx"

_OPSET = 20
_ML_OPSET = 3
_IR = 10
_TOLERANCE = 1e-4
_SAMPLE = 600


def write_graph(preprocessor: Preprocessor, body: Body, path: Path) -> None:
    """Write the whole graph: an input (rows, 1) for each column, the output ``prediction`` float32 (rows, 1)."""
    import onnx

    model = joined(preprocess_graph(preprocessor), body.graph())
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def joined(first: Any, body: Any) -> Any:
    """Both graphs as one; the body's names get a prefix, its ``matrix`` is the first one's."""
    from onnx import compose, helper

    body = compose.add_prefix(_unified(body), "body/")
    found = compose.merge_models(_unified(first), body, io_map=[(f"pre/{MATRIX}", f"body/{MATRIX}")])
    found.graph.node.append(helper.make_node("Identity", ["body/prediction"], ["prediction"]))
    del found.graph.output[:]
    found.graph.output.append(helper.make_tensor_value_info("prediction", 1, ["batch", 1]))
    return found


def preprocess_graph(preprocessor: Preprocessor) -> Any:
    """Raw columns → ``pre/matrix`` float32 (rows, width), as :meth:`Preprocessor.transform` computes it."""
    from onnx import TensorProto, helper

    types = {"float": TensorProto.FLOAT, "int": TensorProto.INT64, "text": TensorProto.STRING}
    graph = _Nodes()
    for place, name in enumerate(preprocessor.numeric):
        graph.number(place, name, preprocessor.fills.get(name))
    codes = {table.column: graph.codes(place, table) for place, table in enumerate(preprocessor.categories)}
    for place, encoding in enumerate(preprocessor.encodings):
        graph.encode(place, encoding, codes)
    for column in codes:
        graph.parts.append(graph.node("Cast", [codes[column]], f"{codes[column]}/float", to=TensorProto.FLOAT))
    graph.node("Concat", graph.parts, f"pre/{MATRIX}", axis=1)
    inputs = [
        helper.make_tensor_value_info(name, types[kind], ["batch", 1]) for name, kind in preprocessor.kinds.items()
    ]
    output = helper.make_tensor_value_info(f"pre/{MATRIX}", TensorProto.FLOAT, ["batch", preprocessor.width])
    made = helper.make_graph(graph.nodes, "preprocess", inputs, [output], graph.constants)
    return helper.make_model(made, producer_name="ferroflow")


def check(preprocessor: Preprocessor, body: Body, answer: Callable[[pl.DataFrame], Any], rows: pl.DataFrame) -> float:
    """Compare an exported graph with the model in memory, also on missing values and categories never seen.

    Returns:
        The largest difference, in the target's units.

    Raises:
        ModelError: they differ.
    """
    sample = _harder(preprocessor, rows.head(_SAMPLE).select(*preprocessor.kinds))
    expected: Floats = body.predict(preprocessor.transform(sample))
    found = np.asarray(answer(sample), dtype=np.float64)
    scale = max(1.0, float(np.abs(expected).max()))
    worst = int(np.argmax(np.abs(found - expected)))
    difference = float(abs(found[worst] - expected[worst]))
    if not difference <= _TOLERANCE * scale:
        raise ModelError(
            f"The exported graph gives {found[worst]:.6g} where the trained model gives {expected[worst]:.6g}, for "
            f"{sample.row(worst, named=True)}. Nothing was kept; report it with the candidate's name."
        )
    return difference


def _harder(preprocessor: Preprocessor, rows: pl.DataFrame) -> pl.DataFrame:
    frames = [rows]
    unseen: dict[str, Any] = {"float": None, "int": -987_654_321, "text": "never seen before"}
    some = rows.head(8)
    for name, kind in preprocessor.kinds.items():
        dtype = rows.schema[name]
        frames.append(some.with_columns(pl.lit(None, dtype=dtype).alias(name)))
        frames.append(some.with_columns(pl.lit(unseen[kind]).cast(dtype).alias(name)))
    return pl.concat(frames)


def _unified(model: Any) -> Any:
    from onnx import helper

    domains = {entry.domain for entry in model.opset_import} - {"", "ai.onnx.ml", "ai.onnx"}
    used = {node.domain for node in model.graph.node}
    if domains & used:
        raise ModelError(f"The exported model uses operators of {', '.join(sorted(domains & used))}: not servable.")
    del model.opset_import[:]
    model.opset_import.extend([helper.make_opsetid("", _OPSET), helper.make_opsetid("ai.onnx.ml", _ML_OPSET)])
    model.ir_version = _IR
    return model


class _Nodes:
    """Nodes and constants of a graph in the making; ``parts`` are the matrix's columns so far."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.parts: list[str] = []

    def node(self, operator: str, inputs: list[str], output: str, *, domain: str = "", **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [output], domain=domain, **attributes))
        return output

    def constant(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def number(self, place: int, name: str, fill: float | None) -> None:
        """A number as it is, or filled where training never saw a gap."""
        if fill is None:
            self.parts.append(name)
            return
        value = self.constant(f"pre/fill_{place}", np.array([[fill]], dtype=np.float32))
        missing = self.node("IsNaN", [name], f"pre/missing_{place}")
        self.parts.append(self.node("Where", [missing, value, name], f"pre/number_{place}"))

    def codes(self, place: int, table: Categories) -> str:
        """Keys → codes int64 (rows, 1)."""
        kind = "int64s" if table.kind == "int" else "strings"
        keys = list(table.keys) or ([-(2**62)] if table.kind == "int" else ["\x00"])
        codes = list(range(1, len(keys) + 1)) if table.keys else [0]
        attributes = {f"keys_{kind}": keys, "values_int64s": codes, "default_int64": 0}
        return self.node("LabelEncoder", [table.column], f"pre/code_{place}", domain="ai.onnx.ml", **attributes)

    def encode(self, place: int, encoding: Encoding, codes: dict[str, str]) -> None:
        """The mean of a combination of codes, float32 (rows, 1)."""
        cell = codes[encoding.columns[0]]
        for step, (column, size) in enumerate(zip(encoding.columns[1:], encoding.sizes[1:], strict=True)):
            factor = self.constant(f"pre/size_{place}_{step}", np.array([[size]], dtype=np.int64))
            scaled = self.node("Mul", [cell, factor], f"pre/scaled_{place}_{step}")
            cell = self.node("Add", [scaled, codes[column]], f"pre/cell_{place}_{step}")
        table = self.constant(f"pre/table_{place}", encoding.table())
        self.parts.append(self.node("Gather", [table, cell], f"pre/mean_{place}", axis=0))
