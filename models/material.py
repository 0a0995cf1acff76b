"""What every candidate is given to train on, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

Task = Literal["regression", "classification"]
Matrix = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Params = dict[str, Any]
Report = Callable[[int, float], None]
"""Told after each step of training (rounds, epochs): the step and the validation error. May raise to stop it."""

MATRIX = "matrix"
"""The input of a body's graph, float32 (rows, width)."""


@dataclass(frozen=True)
class Material:
    """Matrices of a fitted :class:`models.preprocess.Preprocessor` and their targets.

    ``sizes`` are the numbers of codes of the last ``len(sizes)`` columns; the others are numbers. Targets are in the
    target's units, or 0 and 1.
    """

    task: Task
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    train: Matrix
    target: Floats
    weight: Floats | None
    validation: Matrix
    validation_target: Floats

    @property
    def numbers(self) -> int:
        """How many of the matrix's columns are numbers."""
        return len(self.names) - len(self.sizes)

    def weights(self) -> Floats:
        """Weights of the training rows with mean 1 (rows,)."""
        if self.weight is None:
            return np.ones(self.target.size)
        scaled: Floats = self.weight / self.weight.mean()
        return scaled


class Body(Protocol):
    """A trained model on matrices; its preprocessing is apart."""

    def predict(self, matrix: Matrix) -> Floats:
        """The target's value, or the probability of the positive class (rows,)."""
        ...

    def save(self, folder: Path) -> None:
        """Write the weights: readable again by the class's ``load(folder)``, without pickle."""
        ...

    def graph(self) -> Any:
        """The ``onnx.ModelProto``: ``matrix`` (rows, width) → ``prediction`` (rows, 1), both float32."""
        ...
