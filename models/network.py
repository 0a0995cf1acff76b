"""Tabular networks on matrices: a plain MLP, and TabM, which is one with more than one member.

Numbers enter by piecewise-linear embeddings (Gorishniy et al. 2022, arXiv 2203.05556), categories by tables.
Imputation, clipping and scaling are buffers of the module, so the exported graph holds them.
TabM (Gorishniy et al. 2024, arXiv 2410.24210): k members share each weight matrix W and differ by vectors r, s and b,
``l_i(x) = s_i * (W (r_i * x)) + b_i``; each member is trained on its own loss, their answers are averaged.
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from models.material import MATRIX, Floats, Material, Matrix, Task

WEIGHTS = "model.safetensors"
CONFIG = "config.json"

_BINS = 16
_CLIP = 0.001  # the share of each number's tail that is clipped
_PREDICT_ROWS = 16_384


@dataclass(frozen=True)
class Architecture:
    """All that is needed to build the module again before its weights are read."""

    task: Task
    numbers: int
    sizes: tuple[int, ...]
    members: int
    width: int
    depth: int
    dropout: float
    embedding: int  # of each number
    bins: int = _BINS

    @property
    def category_widths(self) -> tuple[int, ...]:
        """Width of each category's embedding."""
        return tuple(min(24, 2 + math.ceil(math.sqrt(size))) for size in self.sizes)

    @property
    def inputs(self) -> int:
        """Width of everything embedded."""
        return self.numbers * (self.embedding + 1) + sum(self.category_widths)


class Shared(nn.Module):
    """A linear layer that k members share: (rows, k, inputs) → (rows, k, outputs)."""

    def __init__(self, inputs: int, outputs: int, members: int, *, first: bool) -> None:
        """``first`` draws r from ±1, so that members differ from the start; elsewhere r = s = 1."""
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        signs = torch.randint(0, 2, (members, inputs)).float() * 2 - 1
        self.r = nn.Parameter(signs if first and members > 1 else torch.ones(members, inputs))
        self.s = nn.Parameter(torch.ones(members, outputs))
        bound = 1 / math.sqrt(inputs)
        self.b = nn.Parameter(torch.empty(members, outputs).uniform_(-bound, bound))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply it."""
        return self.s * self.linear(self.r * x) + self.b


class Numbers(nn.Module):
    """Numbers with gaps → embeddings: clip, impute, bin piecewise linearly, and one linear map a column."""

    def __init__(self, columns: int, bins: int, width: int) -> None:
        """Statistics are zero until :meth:`fit`, or until a state is loaded."""
        super().__init__()
        for name, shape in {
            "low": (),
            "high": (),
            "mean": (),
            "scale": (),
            "start": (bins,),
            "inverse": (bins,),
        }.items():
            self.register_buffer(name, torch.zeros((columns, *shape)))
        bound = 1 / math.sqrt(bins)
        self.weight = nn.Parameter(torch.empty(columns, bins + 1, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(columns, width))

    def fit(self, matrix: Matrix) -> None:
        """Take bounds, mean, spread and bins' edges from training rows (rows, columns)."""
        bins = self.start.shape[1]
        for place in range(matrix.shape[1]):
            values = matrix[:, place].astype(np.float64)
            values = values[np.isfinite(values)]
            if values.size == 0:
                continue
            low, high = np.quantile(values, [_CLIP, 1 - _CLIP])
            edges = np.unique(np.quantile(np.clip(values, low, high), np.linspace(0, 1, bins + 1)))
            clipped = np.clip(values, low, high)
            for name, value in (
                ("low", low),
                ("high", high),
                ("mean", clipped.mean()),
                ("scale", clipped.std() or 1.0),
            ):
                getattr(self, name)[place] = float(value)
            widths = np.diff(edges)
            self.start[place, : widths.size] = torch.from_numpy(edges[:-1]).float()
            self.inverse[place, : widths.size] = torch.from_numpy(1 / widths).float()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, columns) → (rows, columns · (width + 1)): embeddings and an indicator of what was missing."""
        missing = torch.isnan(x)
        filled = torch.where(missing, self.mean, x)
        filled = torch.maximum(torch.minimum(filled, self.high), self.low)
        linear = (filled - self.mean) / (self.scale + 1e-12)
        steps = torch.clamp((filled.unsqueeze(2) - self.start) * self.inverse, 0.0, 1.0)
        known = (~missing).to(x.dtype).unsqueeze(2)
        parts = torch.cat([steps, linear.unsqueeze(2)], dim=2) * known
        embedded = torch.relu(torch.matmul(parts.transpose(0, 1), self.weight).transpose(0, 1) + self.bias)
        return torch.cat([embedded, 1 - known], dim=2).flatten(1)


class Tabular(nn.Module):
    """Matrix (rows, width) → members' raw answers; ``forward`` gives the prediction (rows, 1)."""

    def __init__(self, architecture: Architecture) -> None:
        """Weights are drawn from torch's global generator."""
        super().__init__()
        self.architecture = architecture
        self.numbers = Numbers(architecture.numbers, architecture.bins, architecture.embedding)
        widths = zip(architecture.sizes, architecture.category_widths, strict=True)
        self.tables = nn.ModuleList([nn.Embedding(size, width) for size, width in widths])
        layers, inputs = [], architecture.inputs
        for place in range(architecture.depth):
            layers.append(Shared(inputs, architecture.width, architecture.members, first=place == 0))
            inputs = architecture.width
        self.layers = nn.ModuleList(layers)
        self.dropout = nn.Dropout(architecture.dropout)
        self.head = nn.Parameter(torch.empty(architecture.members, inputs).uniform_(-0.05, 0.05))
        self.head_bias = nn.Parameter(torch.zeros(architecture.members))
        self.register_buffer("target_mean", torch.zeros(()))
        self.register_buffer("target_scale", torch.ones(()))

    def raw(self, matrix: torch.Tensor) -> torch.Tensor:
        """Each member's answer (rows, k): standardised target, or logit."""
        count = self.architecture.numbers
        parts = [self.numbers(matrix[:, :count])]
        for place, table in enumerate(self.tables):
            parts.append(table(matrix[:, count + place].long()))
        x = torch.cat(parts, dim=1).unsqueeze(1)
        for layer in self.layers:
            x = self.dropout(torch.relu(layer(x)))
        return (x * self.head).sum(dim=2) + self.head_bias

    def forward(self, matrix: torch.Tensor) -> torch.Tensor:
        """The members' mean answer (rows, 1): in the target's units, or a probability."""
        found = self.raw(matrix)
        if self.architecture.task == "classification":
            return torch.sigmoid(found).mean(dim=1, keepdim=True)
        return found.mean(dim=1, keepdim=True) * self.target_scale + self.target_mean


class Network:
    """A trained network as a :class:`models.material.Body`."""

    def __init__(self, module: Tabular) -> None:
        """``module`` is on the CPU from here on."""
        self.module = module.cpu().eval()

    @classmethod
    def load(cls, folder: Path) -> Network:
        """Read what :meth:`save` wrote."""
        found = json.loads((folder / CONFIG).read_text())
        module = Tabular(Architecture(**{**found, "sizes": tuple(found["sizes"])}))
        module.load_state_dict(load_file(folder / WEIGHTS))
        return cls(module)

    def predict(self, matrix: Matrix) -> Floats:
        """The target's value, or the probability of the positive class (rows,)."""
        return predict(self.module, torch.from_numpy(matrix))

    def save(self, folder: Path) -> None:
        """Write ``model.safetensors`` and ``config.json``."""
        save_file({name: value.contiguous() for name, value in self.module.state_dict().items()}, folder / WEIGHTS)
        (folder / CONFIG).write_text(json.dumps(asdict(self.module.architecture), indent=1))

    def graph(self) -> Any:
        """``matrix`` (rows, width) → ``prediction`` (rows, 1)."""
        architecture = self.module.architecture
        example = torch.zeros(3, architecture.numbers + len(architecture.sizes))
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells of libraries that are not needed
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                self.module,
                (example,),
                input_names=[MATRIX],
                output_names=["prediction"],
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=20,
                verbose=False,
            )
        return program.model_proto


def build(architecture: Architecture, material: Material) -> Tabular:
    """A fresh network with the statistics of the training rows."""
    module = Tabular(architecture)
    module.numbers.fit(material.train[:, : material.numbers])
    if material.task == "regression":
        module.target_mean.fill_(float(material.target.mean()))
        module.target_scale.fill_(float(material.target.std()) or 1.0)
    else:
        share = min(max(float(material.target.mean()), 1e-3), 1 - 1e-3)
        nn.init.constant_(module.head_bias, math.log(share / (1 - share)))
    return module


def predict(module: Tabular, matrix: torch.Tensor) -> Floats:
    """Predictions (rows,) of a module in evaluation mode, piece by piece."""
    training = module.training
    module.eval()
    pieces: Sequence[torch.Tensor]
    with torch.inference_mode():
        pieces = [module(piece).squeeze(1) for piece in matrix.split(_PREDICT_ROWS)]
        found: Floats = torch.cat(pieces).double().cpu().numpy()
    module.train(training)
    return found
