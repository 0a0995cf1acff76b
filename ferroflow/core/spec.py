"""What a pipeline *is*: one frozen description, from which everything else follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Literal

import polars as pl

from ferroflow.core.cleaning import Clip, Deduplicate, Default, Replace, Trim
from ferroflow.core.dataset_rules import Fresh, Known, LikeBefore, NullShare, RowCount, UniqueShare
from ferroflow.core.durations import duration
from ferroflow.core.errors import LeakageError, SpecError
from ferroflow.core.features import RequestFeatures, StoredFeatures
from ferroflow.core.sources import (
    Evolution,
    FixedFiles,
    Glob,
    MonthlyFiles,
    Reference,
    Source,
    SourceFile,
    Stream,
    Table,
)

__all__ = [
    "MLP",
    "Baseline",
    "BeatsBaseline",
    "BeatsChampion",
    "Boosting",
    "ByColumn",
    "ByTime",
    "Candidate",
    "Classification",
    "Clip",
    "Deduplicate",
    "Default",
    "Evolution",
    "FixedFiles",
    "Fresh",
    "Gate",
    "Glob",
    "Holdout",
    "InputDrift",
    "Known",
    "LikeBefore",
    "Monitor",
    "MonthlyFiles",
    "NoWorseSlice",
    "NullShare",
    "Performance",
    "PipelineSpec",
    "Reference",
    "Regression",
    "Replace",
    "Retrain",
    "RowCount",
    "Schedules",
    "Skew",
    "Source",
    "SourceFile",
    "Staleness",
    "Stream",
    "TabM",
    "Table",
    "TargetEncoding",
    "Trim",
    "Tuning",
    "UniqueShare",
]

# ------------------------------------------------------------------------------------------------------ what is learnt


@dataclass(frozen=True)
class Regression:
    """Predict a number.

    ``known_with`` are columns that are only known together with the target; ``known_at`` is the column (UTC) that says
    when the target was known (None: at the event time).
    """

    column: str
    known_at: str | None = None
    known_with: tuple[str, ...] = ()
    metric: ClassVar[str] = "rmse"
    task: ClassVar[Literal["regression"]] = "regression"


@dataclass(frozen=True)
class Classification:
    """Predict the probability of ``positive``, one of the two values of a column; the rest as for Regression."""

    column: str
    positive: str
    known_at: str | None = None
    known_with: tuple[str, ...] = ()
    metric: ClassVar[str] = "log_loss"
    task: ClassVar[Literal["classification"]] = "classification"


@dataclass(frozen=True)
class TargetEncoding:
    """The target's mean for a combination of columns, shrunk towards the overall mean by ``smoothing`` rows.

    Fitted out of fold for the training rows; the table lives in the exported graph.
    """

    columns: tuple[str, ...]
    smoothing: float = 20.0

    @property
    def name(self) -> str:
        """The model input it makes."""
        return "mean_by_" + "_".join(self.columns)


@dataclass(frozen=True)
class MLP:
    """A plain multi-layer perceptron with embeddings."""

    name: ClassVar[str] = "mlp"


@dataclass(frozen=True)
class TabM:
    """TabM: an ensemble of MLPs that share most weights (Gorishniy et al. 2024, arXiv 2410.24210)."""

    members: int = 8
    name: ClassVar[str] = "tabm"


@dataclass(frozen=True)
class Boosting:
    """Gradient-boosted trees by LightGBM."""

    name: ClassVar[str] = "boosting"


Candidate = MLP | TabM | Boosting


@dataclass(frozen=True)
class Baseline:
    """The naive answer: the target's mean for a combination of model inputs, else the overall mean."""

    by: tuple[str, ...] = ()
    name: ClassVar[str] = "baseline"


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How long to search. ``seconds`` bounds one search over all candidates."""

    trials: int = 12
    seconds: float = 60.0
    seed: int = 0


# --------------------------------------------------------------------------------------------------------- the protocol


@dataclass(frozen=True, kw_only=True)
class ByTime:
    """The last ``test`` before ``as_of`` tests, the ``validation`` before it validates, the rest (or ``train``) trains.

    With ``validation_share`` below 1 only that share of the validation window's rows (drawn by a hash of the row's id)
    validates and the others train: how a retraining learns from the very days on which the world changed.
    """

    validation: str
    test: str
    train: str | None = None
    validation_share: float = 1.0


@dataclass(frozen=True, kw_only=True)
class ByColumn:
    """An official test split: rows whose ``column`` equals ``test``; a seeded share of the others validates."""

    column: str
    test: str
    validation: float = 0.2


@dataclass(frozen=True, kw_only=True)
class Holdout:
    """Seeded shares of the rows validate and test, drawn by a hash of the row's id: for rows without a time."""

    validation: float = 0.2
    test: float = 0.2

    def __post_init__(self) -> None:
        if not (self.validation > 0 and self.test > 0 and self.validation + self.test < 1):
            raise SpecError(
                f"Holdout(validation={self.validation:g}, test={self.test:g}): both are shares above 0, and together "
                "they leave rows to train on."
            )


@dataclass(frozen=True)
class BeatsBaseline:
    """The candidate's error must be below the naive baseline's, with the whole paired interval."""

    confidence: float = 0.95
    name: ClassVar[str] = "beats_baseline"


@dataclass(frozen=True)
class BeatsChampion:
    """The candidate must be better than the champion on the same rows; passes when there is none."""

    confidence: float = 0.95
    name: ClassVar[str] = "beats_champion"


@dataclass(frozen=True)
class NoWorseSlice:
    """No slice of at least ``min_rows`` may be worse than the champion's by more than ``tolerance`` (a share)."""

    column: str
    tolerance: float = 0.05
    min_rows: int = 200
    name: ClassVar[str] = "no_worse_slice"


Gate = BeatsBaseline | BeatsChampion | NoWorseSlice


@dataclass(frozen=True, kw_only=True)
class InputDrift:
    """A column drifts when its effect (PSI) and its adjusted p-value both say so, on enough rows."""

    psi: float = 0.2
    p: float = 0.01
    min_rows: int = 500
    name: ClassVar[str] = "input_drift"


@dataclass(frozen=True, kw_only=True)
class Performance:
    """Live error against the error expected *for these inputs*; alarms after ``windows`` windows in a row."""

    worse_by: float = 0.15
    confidence: float = 0.99
    window: str = "1d"
    windows: int = 2
    min_rows: int = 200
    name: ClassVar[str] = "performance"


@dataclass(frozen=True)
class Staleness:
    """The champion is too old."""

    after: str
    name: ClassVar[str] = "staleness"


@dataclass(frozen=True, kw_only=True)
class Skew:
    """The model was fed other inputs than training would see: shares of a feature's values that may differ.

    ``max_corrected`` bounds what is explained by stored rows that were written after the service had read them.
    ``max_not_comparable`` is the share of the predictions that may be left out because nothing can be said of them; 1:
    all of them. Those that wait for a refresh, because a push was ahead of it, do not count.
    """

    max_share: float = 0.0
    max_corrected: float = 0.1
    max_not_comparable: float = 0.9
    min_rows: int = 1
    name: ClassVar[str] = "skew"


Monitor = InputDrift | Performance | Staleness | Skew


@dataclass(frozen=True, kw_only=True)
class Retrain:
    """When to retrain, and on what.

    The last ``holdout`` of labelled rows judges; of the ``validation`` before it a ``validation_share`` tunes and the
    rest trains together with the ``window`` before that, weighted by an exponential of ``half_life``.
    """

    cooldown: str = "6h"
    per_week: int = 3
    min_new_rows: int = 5_000
    window: str = "60d"
    validation: str = "2d"
    validation_share: float = 0.3
    holdout: str = "1d"
    half_life: str | None = None


@dataclass(frozen=True, kw_only=True)
class Schedules:
    """Cron lines (UTC) of the flows that run by the clock; None: not scheduled."""

    ingest: str | None = "0 4 * * *"
    train: str | None = None
    monitor: str | None = "0 * * * *"


@dataclass(frozen=True, kw_only=True)
class PipelineSpec:
    """One use case.

    ``derive(rows, references)`` adds columns (target, UTC time, joined reference data) and may neither drop nor
    reorder rows. ``inputs`` are the fields of a request: nothing else is known at prediction time, and features can
    see nothing else. ``categorical`` are those model inputs that are names, not quantities.
    ``cleaning`` changes raw cells before ``derive``, in its order, and counts each change. ``rules`` judge all rows
    together. A run ends before it trains when an error among them fails, when more than the share ``max_quarantined``
    of the rows is quarantined, or more than ``max_unreadable`` files could not be read. ``personal`` are raw columns
    whose values appear in no quarantine file, log, page or command's output.
    ``as_of`` makes the pipeline a replay of the past: training is made for that moment unless another is given, and its
    clock starts there and moves on with the event times that the service is asked for. None: the clock is the present
    hour.
    """

    name: str
    description: str
    source: Source
    schema: type[Any]  # pandera.polars.DataFrameModel
    inputs: tuple[str, ...]
    target: Regression | Classification
    categorical: tuple[str, ...] = ()
    references: tuple[Reference, ...] = ()
    cleaning: tuple[Default | Clip | Trim | Replace | Deduplicate, ...] = ()
    derive: Callable[[pl.LazyFrame, Mapping[str, pl.LazyFrame]], pl.LazyFrame] | None = None
    rules: tuple[RowCount | Fresh | NullShare | UniqueShare | Known | LikeBefore, ...] = ()
    max_quarantined: float = 0.25
    max_unreadable: int = 0
    personal: tuple[str, ...] = ()
    features: tuple[RequestFeatures | StoredFeatures, ...] = ()
    encodings: tuple[TargetEncoding, ...] = ()
    candidates: tuple[Candidate, ...] = (MLP(), Boosting())
    baseline: Baseline = Baseline()
    split: ByTime | ByColumn | Holdout = ByTime(validation="28d", test="28d")
    tuning: Tuning = Tuning()
    gates: tuple[Gate, ...] = (BeatsBaseline(), BeatsChampion())
    monitors: tuple[Monitor, ...] = (InputDrift(), Performance(), Staleness("35d"), Skew())
    retrain: Retrain = Retrain()
    schedules: Schedules = Schedules()
    as_of: datetime | None = None
    owner: str = ""

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or self.name != self.name.lower():
            raise SpecError(f"Pipeline name {self.name!r}: use lower-case letters, digits and underscores.")
        told = {self.target.column, *self.target.known_with} & set(self.inputs)
        if told:
            raise LeakageError(
                f"Pipeline {self.name!r}: {', '.join(sorted(told))} cannot be an input: it is known only together with "
                f"the target {self.target.column!r}. Remove it from inputs."
            )
        for view in self.stored:
            if view.on not in self.inputs:
                raise SpecError(
                    f"Stored features {view.name!r} look up {view.on!r}, which is no input of {self.name!r}."
                )
            if self.source.time is None:
                raise SpecError(f"Pipeline {self.name!r} has stored features {view.name!r} but its source has no time.")
        if not 0 <= self.max_quarantined <= 1:
            raise SpecError(
                f"Pipeline {self.name!r}: max_quarantined is {self.max_quarantined}; it is a share, 0 to 1."
            )
        for text in (self.retrain.cooldown, self.retrain.window):
            duration(text)

    @property
    def request(self) -> tuple[RequestFeatures, ...]:
        """Features computed from the request."""
        return tuple(entry for entry in self.features if isinstance(entry, RequestFeatures))

    @property
    def stored(self) -> tuple[StoredFeatures, ...]:
        """Features looked up by entity."""
        return tuple(entry for entry in self.features if isinstance(entry, StoredFeatures))

    @property
    def time(self) -> str | None:
        """The event-time column, if there is one."""
        return self.source.time

    @property
    def timed(self) -> bool:
        """Whether rows have a time, so that the moment of a run decides which of them are known."""
        return bool(self.target.known_at or self.source.time)

    def monitor(self, kind: type[Any]) -> Any:
        """The monitor of that class, or None."""
        return next((entry for entry in self.monitors if isinstance(entry, kind)), None)
