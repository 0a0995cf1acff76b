"""Search for the best parameters of every candidate within a budget of trials and seconds.

Each candidate has an Optuna study (TPE, median pruning) in one SQLite file; a finished trial's weights lie beside it.
A search that was killed goes on: finished trials stay, the one that was running is failed and tried again.
"""

from __future__ import annotations

import logging
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ferroflow.core.errors import ModelError
from ferroflow.core.metrics import score
from ferroflow.core.records import Standing
from ferroflow.core.spec import Boosting, Candidate
from models.material import Body, Material, Params, Report

logger = logging.getLogger(__name__)

_METRIC = {"regression": "rmse", "classification": "log_loss"}
_FIRST_SHARE = 0.7  # of the time that is left for each candidate not tried yet
_LEAST = 1.0  # seconds: not worth beginning a trial for


@dataclass(frozen=True)
class Budget:
    """Trials and seconds of the whole search, and the seed of everything drawn in it."""

    trials: int
    seconds: float
    seed: int


@dataclass(frozen=True)
class Found:
    """A search's result: candidates that trained, best first, and every trial."""

    standings: tuple[Standing, ...]
    trials: tuple[dict[str, Any], ...]
    body: Body
    device: str


class Search:
    """One search; :meth:`run` may be called again after a kill, by another process."""

    def __init__(
        self,
        folder: Path,
        candidates: Sequence[Candidate],
        material: Material,
        budget: Budget,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        """``folder`` keeps the study and the weights."""
        self._folder = folder
        self._candidates = {candidate.name: candidate for candidate in candidates}
        self._material = material
        self._budget = budget
        self._progress = progress or logger.info
        self._metric = _METRIC[material.task]
        self._studies: dict[str, Any] = {}

    def run(self) -> Found:
        """Spend what is left of the budget; give the best.

        Raises:
            ModelError: no candidate trained.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._folder.mkdir(parents=True, exist_ok=True)
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{self._folder / 'study.db'}", engine_kwargs={"connect_args": {"timeout": 60}}
        )
        try:
            self._open(storage)
            while (name := self._next()) is not None:
                self._trial(name)
            return self._result()
        finally:
            storage.remove_session()
            storage.engine.dispose()

    # ------------------------------------------------------------------------------------------------------- studies
    def _open(self, storage: Any) -> None:
        import optuna

        for place, (name, candidate) in enumerate(self._candidates.items()):
            study = optuna.create_study(study_name=name, storage=storage, load_if_exists=True)
            known = study.get_trials(deepcopy=False)
            # A sampler begun anew must not repeat its draws: its seed depends on what is there already.
            study.sampler = optuna.samplers.TPESampler(seed=self._budget.seed + 101 * place + len(known))
            study.pruner = optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=2)
            orphans = [trial for trial in known if trial.state == optuna.trial.TrialState.RUNNING]
            for orphan in orphans:
                study.tell(orphan.number, state=optuna.trial.TrialState.FAIL)
                # Killed before anything was drawn, it has nothing to be done again: defaults were tried before.
                if given := orphan.system_attrs.get("fixed_params", {}) | orphan.params:
                    study.enqueue_trial(given)
            if not known:
                study.enqueue_trial(defaults(candidate))
            self._studies[name] = study

    def _judged(self, name: str) -> list[Any]:
        """Trials that ended by themselves: complete, pruned, or failed with an error."""
        trials = self._studies[name].get_trials(deepcopy=False)
        return [trial for trial in trials if "seconds" in trial.user_attrs]

    def _best(self, name: str) -> float:
        values = [trial.value for trial in self._judged(name) if trial.state.name == "COMPLETE"]
        return min(values, default=float("inf"))

    # -------------------------------------------------------------------------------------------------------- budget
    def _spent(self) -> tuple[int, float]:
        judged = [trial for name in self._candidates for trial in self._judged(name)]
        return len(judged), sum(trial.user_attrs["seconds"] for trial in judged)

    def _fresh(self) -> list[str]:
        return [name for name in self._candidates if not self._judged(name)]

    def _next(self) -> str | None:
        """Every candidate once; then the better ones more often, as long as a trial is likely to fit."""
        fresh = self._fresh()
        if fresh:
            return fresh[0]
        trials, seconds = self._spent()
        left = self._budget.seconds - seconds
        ranked = sorted(self._candidates, key=self._best)
        able = [name for name in ranked if self._best(name) < float("inf") and self._typical(name) <= left]
        if trials >= self._budget.trials or left < _LEAST or not able:
            return None
        return min(able, key=lambda name: len(self._judged(name)) * 2.0 ** ranked.index(name))

    def _typical(self, name: str) -> float:
        seconds = [trial.user_attrs["seconds"] for trial in self._judged(name)]
        return float(sum(seconds) / len(seconds))

    def _limit(self) -> float:
        fresh, left = self._fresh(), self._budget.seconds - self._spent()[1]
        return max(_LEAST, left * _FIRST_SHARE / len(fresh) if fresh else left)

    # -------------------------------------------------------------------------------------------------------- trials
    def _trial(self, name: str) -> None:
        import optuna

        study, candidate, limit = self._studies[name], self._candidates[name], self._limit()
        trial = study.ask()
        params = suggest(candidate, trial)
        started = time.monotonic()
        try:
            body = train(
                candidate, params, self._material, seed=self._budget.seed, seconds=limit, report=_asking(trial)
            )
            metrics = self._score(body)
            _keep(body, self._folder / f"{name}-{trial.number}")
        except optuna.TrialPruned:
            trial.set_user_attr("seconds", time.monotonic() - started)
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            self._say(name, "pruned")
        except Exception as error:
            logger.exception("candidate %s failed with %s", name, params)
            trial.set_user_attr("error", f"{type(error).__name__}: {error}"[:500])
            trial.set_user_attr("seconds", time.monotonic() - started)
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            self._say(name, f"failed: {error}")
        else:
            trial.set_user_attr("metrics", metrics)
            trial.set_user_attr("seconds", time.monotonic() - started)
            study.tell(trial, metrics[self._metric])
            self._say(name, f"{self._metric} {metrics[self._metric]:.4g}")

    def _score(self, body: Body) -> dict[str, float]:
        found = score(self._material.task, self._material.validation_target, body.predict(self._material.validation))
        if not found[self._metric] < float("inf"):
            raise ModelError(f"the validation {self._metric} is {found[self._metric]}")
        return found

    def _say(self, name: str, what: str) -> None:
        number, _ = self._spent()
        best = min(self._best(candidate) for candidate in self._candidates)
        total = max(self._budget.trials, len(self._candidates))
        self._progress(f"trial {number}/{total} {name} {what} (best {best:.4g})")

    # -------------------------------------------------------------------------------------------------------- result
    def _result(self) -> Found:
        trained = [name for name in self._candidates if self._best(name) < float("inf")]
        if not trained:
            raise ModelError(f"No candidate trained. {'; '.join(self._errors())}. Change candidates= or the data.")
        ranked = sorted(trained, key=self._best)
        winner = self._candidates[ranked[0]]
        folder = self._folder / f"{winner.name}-{self._studies[winner.name].best_trial.number}"
        return Found(
            standings=tuple(self._standing(name) for name in ranked),
            trials=tuple(self._log()),
            body=load(winner, folder),
            device="cpu" if isinstance(winner, Boosting) else _device(),
        )

    def _standing(self, name: str) -> Standing:
        judged, best = self._judged(name), self._studies[name].best_trial
        return Standing(
            candidate=name,
            metrics=best.user_attrs["metrics"],
            trials=len(judged),
            pruned=sum(trial.state.name == "PRUNED" for trial in judged),
            seconds=round(sum(trial.user_attrs["seconds"] for trial in judged), 3),
            params=best.params,
        )

    def _log(self) -> list[dict[str, Any]]:
        pairs = [(name, trial) for name in self._candidates for trial in self._judged(name)]
        pairs.sort(key=lambda pair: pair[1].datetime_start)
        return [
            {
                "number": number,
                "candidate": name,
                "params": trial.params,
                "value": trial.value,
                "state": trial.state.name.lower(),
                "seconds": round(trial.user_attrs["seconds"], 3),
                **({"error": trial.user_attrs["error"]} if "error" in trial.user_attrs else {}),
            }
            for number, (name, trial) in enumerate(pairs, start=1)
        ]

    def _errors(self) -> list[str]:
        return [
            f"{name}: {trial.user_attrs.get('error', trial.state.name.lower())}"
            for name in self._candidates
            for trial in self._judged(name)
        ]


def defaults(candidate: Candidate) -> Params:
    """The parameters of a candidate's first trial."""
    if isinstance(candidate, Boosting):
        from models import boosting

        return boosting.DEFAULTS
    from models import learn

    return learn.defaults(candidate)


def suggest(candidate: Candidate, trial: Any) -> Params:
    """Draw a candidate's parameters."""
    if isinstance(candidate, Boosting):
        from models import boosting

        return boosting.suggest(trial)
    from models import learn

    return learn.suggest(trial)


def train(
    candidate: Candidate, params: Params, material: Material, *, seed: int, seconds: float, report: Report
) -> Body:
    """Train one candidate; ``report`` may raise to stop it."""
    if isinstance(candidate, Boosting):
        from models import boosting

        return boosting.fit(params, material, seed=seed, seconds=seconds, report=report)
    from models import learn

    return learn.fit(candidate, params, material, seed=seed, seconds=seconds, report=report)


def load(candidate: Candidate, folder: Path) -> Body:
    """Read a candidate's weights."""
    if isinstance(candidate, Boosting):
        from models.boosting import Boosted

        return Boosted.load(folder)
    from models.network import Network

    return Network.load(folder)


def _asking(trial: Any) -> Report:
    import optuna

    def report(step: int, error: float) -> None:
        trial.report(error, step)
        if trial.should_prune():
            raise optuna.TrialPruned

    return report


def _keep(body: Body, folder: Path) -> None:
    """The weights' folder, whole or not at all."""
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.mkdir()
    body.save(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.replace(folder)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
