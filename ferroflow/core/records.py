"""The record types, one for each station: frozen, JSON-like, each carrying its predecessor's fingerprint.

Snapshot → Validated → Quality → FeatureTable → Split → TrainedModel → Evaluation → Verdict → ModelVersion → Deployment
→ Prediction → SkewReport → MonitorReport → Decision. Paths are relative to the home folder.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator


class Record(BaseModel):
    """What every station gives: ``fingerprint`` names the content, ``parent`` is the predecessor's."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    pipeline: str
    fingerprint: str
    parent: str | None = None


class Part(BaseModel):
    """One source file, read without loss into one Parquet file."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    fingerprint: str
    file: str  # the file's own name
    origin: str  # "mirror", "url", "cache", "local", "simulator", "landing", "table" or "stream"
    address: str  # where it was read from, without credentials
    sha256: str
    rows: int
    columns: dict[str, str]  # raw column -> raw type
    path: str
    ingested_at: datetime
    label: str = ""
    digest: str = ""  # SHA-256 of the Parquet file at ``path``
    blank_lines: int = 0  # of a text file: no row was made of them
    since: str | None = None  # of an incremental batch: the watermark it began above
    upto: str | None = None  # of an incremental batch: the watermark it moved to


class Unreadable(BaseModel):
    """A file that makes no table, quarantined whole: its bytes lie at ``path``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    origin: str
    address: str
    sha256: str
    size: int  # bytes
    reason: str
    path: str
    seen_at: datetime


class Snapshot(Record):
    """Raw rows, content-addressed: the same files give the same snapshot."""

    as_of: datetime
    parts: tuple[Part, ...]
    references: dict[str, str]  # reference name -> path of its Parquet file
    rows: int
    made_at: datetime | None = None  # when these bytes were first put together
    unreadable: tuple[Unreadable, ...] = ()
    corrections: str = ""  # fingerprint of the corrections that are laid over the raw rows; "": none
    repeated: tuple[str, ...] = ()  # names of files that hold the bytes of another one: taken once


class Validated(Record):
    """Accepted rows go on; every other row is in quarantine with its reasons and raw values."""

    as_of: datetime
    accepted: tuple[str, ...]
    quarantined: tuple[str, ...]
    rows_in: int
    rows_accepted: int
    rows_quarantined: int
    reasons: dict[str, int]  # rows for each reason; a row may have several
    casts: dict[str, str]  # column -> "Int64, Int32 -> Int64": types that had to be changed
    warnings: dict[str, int] = {}  # rule that only warns -> rows it would have refused
    cleaned: dict[str, int] = {}  # "column: rule" of the declared cleaning -> cells (or rows) it changed


class RuleResult(BaseModel):
    """What one rule about all rows says, with its number."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    rule: str
    severity: Literal["error", "warning"]
    passed: bool
    value: float | None
    reason: str


class Quality(Record):
    """How good the accepted rows are, and whether a run may go on with them."""

    as_of: datetime
    passed: bool
    reason: str  # the failed rules in one line; what was looked at when all passed
    score: float  # 0 to 1: the mean of its parts
    parts: dict[str, float]  # completeness, validity, uniqueness, timeliness, consistency: each 0 to 1
    rules: tuple[RuleResult, ...]
    anomalies: tuple[str, ...]  # figures unlike those of earlier snapshots
    profile: str  # path of the columns' profile (JSON)
    page: str  # path of the page people look at (HTML)


class FeatureTable(Record):
    """Model inputs and target of each labelled row, joined as of the moment of prediction."""

    as_of: datetime
    path: str
    rows: int
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    target: str
    time: str | None
    slices: tuple[str, ...]
    views: dict[str, int]  # stored view -> rows in the offline store


class Split(Record):
    """Three Parquet files: who trains, validates and tests is fixed here and nowhere else."""

    as_of: datetime
    paths: dict[Literal["train", "validation", "test"], str]
    rows: dict[Literal["train", "validation", "test"], int]
    boundaries: dict[str, str]
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    target: str
    time: str | None
    slices: tuple[str, ...]
    weighted: bool = False  # the train file has a column "weight"


class Standing(BaseModel):
    """One line of the leaderboard: a candidate's best trial, errors on the validation rows."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    candidate: str
    metrics: dict[str, float]
    trials: int
    pruned: int
    seconds: float
    params: dict[str, Any]


class TrainedModel(Record):
    """The best candidate, exported: ``path`` holds model.onnx, weights, preprocess.json, baseline.json, trials.json."""

    path: str
    candidate: str
    metric: str
    leaderboard: tuple[Standing, ...]  # best first; the baseline is in it
    inputs: dict[str, Literal["float", "int", "text"]]  # of the ONNX graph, each (batch, 1)
    seed: int
    device: str
    seconds: float


class Interval(BaseModel):
    """A paired difference of errors (other − candidate; positive: the candidate is better) with its bounds."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    difference: float
    low: float
    high: float
    confidence: float
    rows: int


class Evaluation(Record):
    """Errors overall and by slice, on rows that took no part in training."""

    metrics: dict[str, dict[str, float]]  # "validation" | "test" -> metric -> value, of the candidate
    baseline: dict[str, dict[str, float]]
    champion: dict[str, dict[str, float]]  # empty when there is none
    champion_version: str | None
    against_baseline: Interval
    against_champion: Interval | None
    # column -> value -> {"rows", "candidate", "baseline"} and, where the champion is known, {"champion", "low", "high"}
    slices: dict[str, dict[str, dict[str, float]]]
    reference: str  # Parquet: model inputs, "prediction", "target", row_id, time of validation and test rows
    champion_problem: str = ""  # why the champion could not be scored on these rows


class GateResult(BaseModel):
    """What one gate says, with its numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    gate: str
    passed: bool
    reason: str


class Verdict(Record):
    """All gates; one that fails stops promotion and nothing else."""

    passed: bool
    gates: tuple[GateResult, ...]
    against: str | None = None  # the champion's version then; "": there was none; None: not said

    @property
    def reason(self) -> str:
        """The gates' reasons in one line; the failed ones when it failed."""
        return "; ".join(gate.reason for gate in self.gates if gate.passed == self.passed)


class ModelVersion(Record):
    """A version in the registry, load-verified."""

    name: str
    version: str
    run_id: str
    package: str  # folder with model.onnx and serving.json
    reference: str
    metrics: dict[str, float]
    candidate: str


class Deployment(Record):
    """One line of the ledger: what serves since when, and why."""

    entry: int
    version: str
    previous: str | None
    action: Literal["promoted", "rejected", "rolled back"]
    at: datetime
    why: str


class Prediction(Record):
    """One logged answer of the service; ``fingerprint`` is its id, ``parent`` the model's."""

    version: str
    at: datetime
    event_time: datetime | None
    inputs: dict[str, Any]
    features: dict[str, Any]
    prediction: float
    degraded: bool
    watermarks: dict[str, tuple[int, int | None] | None]  # stored view -> how far (µs) it was complete: event, ingested
    label: float | None = None
    labelled_at: datetime | None = None

    @field_validator("watermarks", mode="before")
    @classmethod
    def _pairs(cls, marks: Any) -> Any:
        """Older lines of the log say the event's watermark alone."""
        if not isinstance(marks, dict):
            return marks
        return {view: (mark, None) if isinstance(mark, int) else mark for view, mark in marks.items()}


class SkewExample(BaseModel):
    """One value that the service fed to a model, and what a recomputation gives for it."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    prediction: str  # its id
    version: str
    logged: float | int | str | None
    recomputed: float | int | str | None


class FeatureSkew(BaseModel):
    """One model input: how many values were compared, and how many differ."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    feature: str
    compared: int
    mismatched: int
    corrected: int  # differ because the stored row was written after the service read it
    late: int  # were fed as missing because the online store had only a value of after the row's moment
    degraded: int  # not compared: the online store was away, so that the model was fed nothing
    examples: tuple[SkewExample, ...]  # the first that mismatch
    corrections: tuple[SkewExample, ...]  # the first that were corrected since


class SkewReport(Record):
    """Logged model inputs against a point-in-time recomputation; ``read = compared + degraded + not_comparable``."""

    as_of: datetime
    since: datetime
    predictions: int  # in the log between the two moments
    read: int  # the newest of them
    compared: int  # rows of which every model input was compared
    degraded: int  # rows whose stored features could not be read; the others were compared
    not_comparable: dict[str, int]  # reason -> rows
    differing: int  # rows with a mismatch
    features: tuple[FeatureSkew, ...]  # those that differ most first

    @property
    def values(self) -> int:
        """Values that were compared."""
        return sum(entry.compared for entry in self.features)

    @property
    def mismatched(self) -> int:
        """Values that differ."""
        return sum(entry.mismatched for entry in self.features)

    @property
    def corrected(self) -> int:
        """Values that differ because they were corrected after the service read them."""
        return sum(entry.corrected for entry in self.features)

    @property
    def late(self) -> int:
        """Values that were missing because their row was asked for after a later value had taken the place."""
        return sum(entry.late for entry in self.features)


class ColumnDrift(BaseModel):
    """One input's drift: effect, adjusted p-value, and whether both say so."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    column: str
    psi: float
    p: float
    drifted: bool
    reason: str


class MonitorReport(Record):
    """What was looked at, and what was found; ``alarm`` says whether anything has to be done."""

    as_of: datetime
    version: str | None
    predictions: int
    labelled: int
    drift: tuple[ColumnDrift, ...]
    live: float | None  # error of the labelled predictions
    expected: float | None  # error expected for these inputs
    ratio: float | None
    ratio_low: float | None
    windows: tuple[dict[str, Any], ...]  # each window's start, rows, live, expected, ratio, worse
    alarm: Literal["none", "skew", "performance", "drift", "staleness"]
    why: str
    skew: SkewReport | None = None  # None: not monitored
    labels_outside: int = (
        0  # labels outside the target's bounds: in the log, not in ``labelled``, and judged by nothing
    )
    html: str | None = None  # the Evidently report, when there was something to look at


class Decision(Record):
    """To retrain or not, and why."""

    retrain: bool
    reason: str
    as_of: datetime
