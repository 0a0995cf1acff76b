"""Gradient-boosted trees by LightGBM: trained with early stopping, kept as LightGBM's text, converted to ONNX."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import numpy as np

from models import threads
from models.material import MATRIX, Floats, Material, Matrix, Params, Report

WEIGHTS = "model.lgb.txt"

DEFAULTS: Params = {
    "learning_rate": 0.08,
    "num_leaves": 63,
    "min_data_in_leaf": 40,
    "feature_fraction": 0.8,
    "bagging_fraction": 0.9,
    "lambda_l2": 5.0,
    "cat_smooth": 20.0,
}
_ROUNDS = 1500
_PATIENCE = 40
_REPORT_EVERY = 25
_THRESHOLDS = re.compile(r"^threshold=(.*)$", re.MULTILINE)
_SIZES = re.compile(r"^tree_sizes=.*\n", re.MULTILINE)


def suggest(trial: Any) -> Params:
    """Draw parameters from the search space."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 0.03, 0.2, log=True),
        "num_leaves": trial.suggest_int("num_leaves", 15, 127, log=True),
        "min_data_in_leaf": trial.suggest_int("min_data_in_leaf", 10, 200, log=True),
        "feature_fraction": trial.suggest_float("feature_fraction", 0.5, 1.0),
        "bagging_fraction": trial.suggest_float("bagging_fraction", 0.6, 1.0),
        "lambda_l2": trial.suggest_float("lambda_l2", 0.1, 30.0, log=True),
        "cat_smooth": trial.suggest_float("cat_smooth", 1.0, 100.0, log=True),
    }


class Boosted:
    """A trained booster as a :class:`models.material.Body`."""

    def __init__(self, text: str) -> None:
        """``text`` is LightGBM's own format."""
        import lightgbm

        self.text = text
        self._booster = lightgbm.Booster(model_str=text)

    @classmethod
    def load(cls, folder: Path) -> Boosted:
        """Read what :meth:`save` wrote."""
        return cls((folder / WEIGHTS).read_text())

    def predict(self, matrix: Matrix) -> Floats:
        """The target's value, or the probability of the positive class (rows,)."""
        predictions: Floats = np.asarray(self._booster.predict(matrix, num_threads=threads.count()), dtype=np.float64)
        return predictions

    def save(self, folder: Path) -> None:
        """Write ``model.lgb.txt``."""
        (folder / WEIGHTS).write_text(self.text)

    def graph(self) -> Any:
        """``matrix`` (rows, width) → ``prediction`` (rows, 1)."""
        from onnxmltools.convert import convert_lightgbm
        from onnxmltools.convert.common.data_types import FloatTensorType

        width = self._booster.num_feature()
        kinds = [(MATRIX, FloatTensorType([None, width]))]
        model = convert_lightgbm(self._booster, initial_types=kinds, target_opset=15, zipmap=False)
        classifies = len(model.graph.output) == 2
        return _one_column(model, model.graph.output[-1].name, 1 if classifies else 0)


def fit(params: Params, material: Material, *, seed: int, seconds: float, report: Report) -> Boosted:
    """Train until the validation error stops falling, or for about ``seconds``.

    Args:
        report: told every 25 rounds their number divided by 25, and the validation error; it may raise.
    """
    import lightgbm

    train, validation = _datasets(material)
    regression = material.task == "regression"
    settings = {
        **DEFAULTS,
        **params,
        "objective": "regression" if regression else "binary",
        "metric": "rmse" if regression else "binary_logloss",
        "bagging_freq": 1,
        "cat_l2": 20.0,
        "num_threads": threads.count(),
        "seed": seed,
        "deterministic": True,
        "verbose": -1,
    }
    booster = lightgbm.train(
        settings,
        train,
        _ROUNDS,
        [validation],
        callbacks=[
            lightgbm.early_stopping(_PATIENCE, verbose=False),
            _reporting(report),
            _bounded(seconds),
        ],
    )
    return Boosted(_float32_thresholds(booster.model_to_string(num_iteration=booster.best_iteration)))


def _datasets(material: Material) -> tuple[Any, Any]:
    import lightgbm

    # A column whose missing values fall out of the sample for the bins would read a missing value as 0 later.
    common = {"verbose": -1, "bin_construct_sample_cnt": max(200_000, len(material.target)), "max_cat_threshold": 32}
    codes = list(range(material.numbers, len(material.names)))
    train = lightgbm.Dataset(
        material.train, material.target, weight=material.weights(), categorical_feature=codes, params=common
    )
    return train, lightgbm.Dataset(material.validation, material.validation_target, reference=train, params=common)


def _reporting(report: Report) -> Any:
    def callback(env: Any) -> None:
        done = env.iteration + 1
        if done % _REPORT_EVERY == 0:
            report(done // _REPORT_EVERY, float(env.evaluation_result_list[0][2]))

    return callback


def _bounded(seconds: float) -> Any:
    import lightgbm

    started = time.monotonic()
    best = [float("inf"), 0]

    def callback(env: Any) -> None:
        error = float(env.evaluation_result_list[0][2])
        if error < best[0]:
            best[:] = [error, env.iteration]
        if time.monotonic() - started > seconds:
            raise lightgbm.callback.EarlyStopException(int(best[1]), env.evaluation_result_list)

    return callback


def _float32_thresholds(text: str) -> str:
    """Round each threshold down to float32: the same branches for float32 inputs, here and in the ONNX graph."""

    def lowered(match: re.Match[str]) -> str:
        values = np.array(match[1].split(), dtype=np.float64)
        with np.errstate(over="ignore"):
            near = values.astype(np.float32)
        down = np.where(near > values, np.nextafter(near, np.float32(-np.inf)), near)
        return "threshold=" + " ".join(repr(float(value)) for value in down)

    # The sizes of the trees in bytes are optional, and no longer right.
    return _THRESHOLDS.sub(lowered, _SIZES.sub("", text))


def _one_column(model: Any, output: str, column: int) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.array([column], dtype=np.int64), "wanted_column"))
    graph.node.append(helper.make_node("Gather", [output, "wanted_column"], ["prediction"], axis=1))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("prediction", TensorProto.FLOAT, [None, 1]))
    return model
