"""Run an exported model: named columns in, one number a row out. ONNX Runtime, NumPy and Polars only.

Every input of a graph is a column of shape (rows, 1); missing is NaN for numbers, -1 for integer categories and the
empty text for text categories. The only output is ``prediction``, float32 of shape (rows, 1).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from ferroflow.core.errors import ModelError

Kind = Literal["float", "int", "text"]

OUTPUT = "prediction"
_KINDS: dict[str, Kind] = {"tensor(float)": "float", "tensor(int64)": "int", "tensor(string)": "text"}


class Graph:
    """An ONNX file, loaded; calls may come from several threads."""

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        """Load it; ``threads`` work on one call.

        Raises:
            ModelError: the file is not there, is no graph, or is not one of ours.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ModelError(
                f"{path.name} cannot be loaded as a model: {error}. Train and package it again."
            ) from error
        self.inputs: dict[str, Kind] = {entry.name: _kind(entry) for entry in self._session.get_inputs()}
        if OUTPUT not in (names := [entry.name for entry in self._session.get_outputs()]):
            raise ModelError(f"{path.name} has no output {OUTPUT!r}, only {', '.join(names)}.")

    def feed(self, frame: pl.DataFrame) -> dict[str, npt.NDArray[Any]]:
        """The graph's inputs, each (rows, 1); other columns of the frame are left out.

        Raises:
            ModelError: a column is missing, or its values are not of the input's kind.
        """
        missing = [name for name in self.inputs if name not in frame.columns]
        if missing:
            raise ModelError(f"The model needs the columns {', '.join(missing)}; given: {', '.join(frame.columns)}.")
        return {name: _column(frame[name], kind) for name, kind in self.inputs.items()}

    def predict(self, frame: pl.DataFrame) -> npt.NDArray[np.float32]:
        """One prediction a row, float32 (rows,): in the target's units, or the probability of the positive class.

        Raises:
            ModelError: a column is missing or of the wrong kind, or a prediction is not finite.
        """
        if frame.height == 0:
            return np.empty(0, dtype=np.float32)
        [found] = self._session.run([OUTPUT], self.feed(frame))
        predictions: npt.NDArray[np.float32] = found.reshape(-1)
        finite = np.isfinite(predictions)
        if not finite.all():
            row = int(np.argmin(finite))
            given = frame.select(*self.inputs).row(row, named=True)
            raise ModelError(f"The model gave {predictions[row]} for row {row}: {given}.")
        return predictions


def _kind(entry: Any) -> Kind:
    if entry.type not in _KINDS:
        raise ModelError(f"Input {entry.name!r} has the type {entry.type}; known: {', '.join(_KINDS)}.")
    return _KINDS[entry.type]


def _column(values: pl.Series, kind: Kind) -> npt.NDArray[Any]:
    try:
        if kind == "text":
            return values.cast(pl.String).fill_null("").to_numpy().astype(object).reshape(-1, 1)
        if kind == "int":
            return values.cast(pl.Int64).fill_null(-1).to_numpy().reshape(-1, 1)
        return values.cast(pl.Float32).fill_null(float("nan")).to_numpy().reshape(-1, 1)
    except pl.exceptions.PolarsError as error:
        raise ModelError(
            f"Column {values.name!r} of type {values.dtype} is no model input {kind!r}: {error}"
        ) from error
