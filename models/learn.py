"""Train a network with Lightning: one seed, one time bound, the best epoch kept."""

from __future__ import annotations

import logging
import time
import warnings
from typing import Any

import lightning
import torch
from torch.nn import functional

from ferroflow.core.metrics import score
from ferroflow.core.spec import MLP, TabM
from models import threads
from models.feed import Batch, Batches
from models.material import Material, Params, Report
from models.network import Architecture, Network, Tabular, build, predict

DEFAULTS: Params = {
    "width": 192,
    "depth": 2,
    "dropout": 0.1,
    "embedding": 8,
    "learning_rate": 3e-3,
    "weight_decay": 1e-3,
}
TABM_DEFAULTS: Params = {**DEFAULTS, "width": 96, "embedding": 4}
"""Each member costs what an MLP of that width does."""

_EPOCHS = 30
_PATIENCE = 4
_DECAY = 0.85  # of the learning rate, an epoch
_CLIP = 1.0  # of the gradient's norm


def defaults(candidate: MLP | TabM) -> Params:
    """The parameters of the first trial."""
    return TABM_DEFAULTS if isinstance(candidate, TabM) else DEFAULTS


def suggest(trial: Any) -> Params:
    """Draw parameters from the search space."""
    return {
        "width": trial.suggest_int("width", 64, 320, step=32),
        "depth": trial.suggest_int("depth", 1, 3),
        "dropout": trial.suggest_float("dropout", 0.0, 0.4),
        "embedding": trial.suggest_int("embedding", 4, 16, step=4),
        "learning_rate": trial.suggest_float("learning_rate", 5e-4, 1e-2, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-5, 1e-1, log=True),
    }


def fit(
    candidate: MLP | TabM, params: Params, material: Material, *, seed: int, seconds: float, report: Report
) -> Network:
    """Train until the validation error stops falling, or for about ``seconds``.

    Args:
        report: told the epoch and the validation error; it may raise.
    """
    torch.set_num_threads(threads.count())
    lightning.seed_everything(seed, workers=True, verbose=False)
    chosen = {**defaults(candidate), **params}
    architecture = Architecture(
        task=material.task,
        numbers=material.numbers,
        sizes=material.sizes,
        members=candidate.members if isinstance(candidate, TabM) else 1,
        **{name: chosen[name] for name in ("width", "depth", "dropout", "embedding")},
    )
    learner = Learner(build(architecture, material), chosen["learning_rate"], chosen["weight_decay"])
    watch = Watch(material, seconds, report)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        _trainer(watch).fit(learner, _feed(material, seed))
    learner.network.load_state_dict(watch.best)
    return Network(learner.network)


class Learner(lightning.LightningModule):
    """A tabular network with its loss: squared error of the standardised target, or log loss, of each member."""

    def __init__(self, network: Tabular, learning_rate: float, weight_decay: float) -> None:
        """``learning_rate`` is that of the first epoch."""
        super().__init__()
        self.network = network
        self._learning_rate = learning_rate
        self._weight_decay = weight_decay

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        """The weighted mean loss over rows and members."""
        matrix, target, weight = batch
        found = self.network.raw(matrix)
        if self.network.architecture.task == "classification":
            wanted = target.unsqueeze(1).expand_as(found)
            loss = functional.binary_cross_entropy_with_logits(found, wanted, reduction="none")
        else:
            wanted = (target - self.network.target_mean) / self.network.target_scale
            loss = torch.square(found - wanted.unsqueeze(1))
        return (loss.mean(dim=1) * weight).sum() / weight.sum()

    def configure_optimizers(self) -> Any:
        """AdamW; weight decay on matrices only."""
        named = [entry for entry in self.named_parameters() if entry[1].requires_grad]
        matrices = [value for name, value in named if name.endswith("linear.weight")]
        others = [value for name, value in named if not name.endswith("linear.weight")]
        groups = [{"params": matrices, "weight_decay": self._weight_decay}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=self._learning_rate, fused=True)
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, _DECAY)]


class Watch(lightning.Callback):
    """After each epoch: the validation error, the best weights so far, and whether to go on."""

    def __init__(self, material: Material, seconds: float, report: Report) -> None:
        """The clock starts here."""
        self.best: dict[str, torch.Tensor] = {}
        self._material = material
        self._matrix = torch.from_numpy(material.validation)
        self._metric = "rmse" if material.task == "regression" else "log_loss"
        self._until = time.monotonic() + seconds
        self._report = report
        self._lowest = float("inf")
        self._since = 0

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Stop when the time is over."""
        if time.monotonic() > self._until:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """Judge the epoch."""
        found = predict(module.network, self._matrix.to(module.device))
        error = score(self._material.task, self._material.validation_target, found)[self._metric]
        self._since += 1
        if error < self._lowest or not self.best:
            self._lowest, self._since = error, 0
            self.best = {name: value.detach().clone() for name, value in module.network.state_dict().items()}
        self._report(trainer.current_epoch + 1, error)
        if self._since >= _PATIENCE:
            trainer.should_stop = True


def _trainer(watch: Watch) -> Any:
    return lightning.Trainer(
        accelerator="auto",
        devices=1,
        max_epochs=_EPOCHS,
        gradient_clip_val=_CLIP,
        callbacks=[watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _feed(material: Material, seed: int) -> Batches:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    matrix = torch.from_numpy(material.train).to(device)
    target = torch.from_numpy(material.target).float().to(device)
    weight = torch.from_numpy(material.weights()).float().to(device)
    size = min(max(len(target) // 64, 64), 1024)
    return Batches(matrix, target, weight, size=size, seed=seed)
