"""The model card: what a model was made of, how well it does, where it does worse, and where it must not be trusted.

Every number comes from a record of the home folder; what no record tells is said to be unknown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ferroflow.adapters.home import Home
from ferroflow.adapters.storage import read_record
from ferroflow.core.records import (
    Evaluation,
    FeatureTable,
    Interval,
    Snapshot,
    Split,
    Standing,
    TrainedModel,
    Validated,
)
from ferroflow.core.spec import Classification, PipelineSpec

_SLICES_SHOWN = 12
_COMPARED = ("candidate", "baseline", "champion")


def model_card(
    spec: PipelineSpec, model: TrainedModel, evaluation: Evaluation | None, lineage: dict[str, str], home: Home
) -> str:
    """The card as Markdown."""
    split, table, validated, snapshot = _chain(spec, model, home)
    sections = (
        _head(spec, model),
        _data(spec, snapshot, validated, table, split),
        _protocol(split),
        _errors(model, evaluation),
        _leaderboard(model),
        _slices(model, evaluation),
        _limits(spec, evaluation),
        _lineage(lineage),
    )
    return "\n".join(line for section in sections for line in section).rstrip() + "\n"


def summary(spec: PipelineSpec, model: TrainedModel, evaluation: Evaluation) -> str:
    """One paragraph: the registry's description of a version."""
    metric = model.metric
    parts = [f"{spec.description} Candidate {model.candidate}, chosen by {metric} on validation rows."]
    for part, scores in evaluation.metrics.items():
        theirs = evaluation.baseline.get(part, {}).get(metric)
        beside = "" if theirs is None else f" (baseline {_shown(theirs)})"
        parts.append(f"{part.capitalize()} {metric} {_shown(scores.get(metric))}{beside}.")
    return " ".join(parts)


def _head(spec: PipelineSpec, model: TrainedModel) -> Iterator[str]:
    yield from (f"# Model card: {spec.name} `{model.fingerprint}`", "", spec.description, "")
    kind = "probability of " + repr(spec.target.positive) if isinstance(spec.target, Classification) else "number"
    yield f"- **Predicts** `{spec.target.column}` ({spec.target.task}: {kind})"
    yield f"- **Candidate** {model.candidate}, chosen by {model.metric} on validation rows"
    yield f"- **Trained** with seed {model.seed} on {model.device} in {model.seconds:.1f} s"
    yield f"- **Owner** {spec.owner or 'not given'}"
    yield f"- **Request fields** {', '.join(f'`{name}`' for name in spec.inputs)}"
    yield f"- **Model inputs** {', '.join(f'`{name}` ({kind})' for name, kind in model.inputs.items())}"
    yield ""


def _data(
    spec: PipelineSpec,
    snapshot: Snapshot | None,
    validated: Validated | None,
    table: FeatureTable | None,
    split: Split | None,
) -> Iterator[str]:
    yield from ("## Data", "")
    if snapshot is not None:
        yield f"As of {snapshot.as_of.isoformat()}: {snapshot.rows:,} raw rows in {len(snapshot.parts)} files."
        files = [[part.file, part.origin, f"{part.rows:,}", part.sha256[:16]] for part in snapshot.parts]
        yield from ("", *_table(("file", "from", "rows", "SHA-256 begins"), files))
    if validated is not None:
        yield (
            f"{validated.rows_in:,} rows in = {validated.rows_accepted:,} accepted + "
            f"{validated.rows_quarantined:,} in quarantine."
        )
        common = sorted(validated.reasons.items(), key=lambda entry: -entry[1])[:5]
        yield from (f"- {rows:,} × {reason}" for reason, rows in common)
        yield ""
    if table is not None:
        yield f"{table.rows:,} labelled rows with {len(table.numeric) + len(table.categorical)} model inputs."
        yield ""
    if snapshot is None and validated is None and table is None:
        yield from (f"The records of this model's data are not in this home (split {split and split.fingerprint}).", "")


def _protocol(split: Split | None) -> Iterator[str]:
    yield from ("## Protocol", "")
    if split is None:
        yield from ("The record of the split is not in this home.", "")
        return
    yield ", ".join(f"{part} {rows:,} rows" for part, rows in split.rows.items()) + "."
    yield from (f"- {name}: {value}" for name, value in split.boundaries.items())
    if split.weighted:
        yield "- training rows are weighted by age: recent ones count more"
    yield ""


def _errors(model: TrainedModel, evaluation: Evaluation | None) -> Iterator[str]:
    yield from ("## Errors", "")
    if evaluation is None:
        yield from ("Not evaluated yet.", "")
        return
    names = list(dict.fromkeys(name for scores in evaluation.metrics.values() for name in scores))
    rows = []
    for part, scores in evaluation.metrics.items():
        rows.append([part, model.candidate, *(_shown(scores.get(name)) for name in names)])
        for who, theirs in (("baseline", evaluation.baseline), ("champion", evaluation.champion)):
            if part in theirs:
                rows.append([part, who, *(_shown(theirs[part].get(name)) for name in names)])
    yield from _table(("rows", "model", *names), rows)
    yield _interval("baseline", evaluation.against_baseline)
    if evaluation.against_champion is not None:
        yield _interval(f"champion (version {evaluation.champion_version})", evaluation.against_champion)
    elif evaluation.champion_problem:
        yield f"- The champion was not compared: {evaluation.champion_problem}"
    yield ""


def _leaderboard(model: TrainedModel) -> Iterator[str]:
    yield from ("## Leaderboard", "", "Validation rows, best first.", "")
    names = list(dict.fromkeys(name for standing in model.leaderboard for name in standing.metrics))
    rows = [_standing(standing, names) for standing in model.leaderboard]
    yield from _table(("candidate", *names, "trials", "pruned", "seconds"), rows)


def _standing(standing: Standing, names: Sequence[str]) -> list[str]:
    scores = [_shown(standing.metrics.get(name)) for name in names]
    return [standing.candidate, *scores, str(standing.trials), str(standing.pruned), f"{standing.seconds:.1f}"]


def _slices(model: TrainedModel, evaluation: Evaluation | None) -> Iterator[str]:
    for column, values in (evaluation.slices if evaluation else {}).items():
        yield from (f"## Slices by {column}", "", f"{model.metric} on test rows; the largest slices first.", "")
        ordered = sorted(values.items(), key=lambda entry: -entry[1]["rows"])
        rows = [
            [value, f"{scores['rows']:,.0f}", *(_shown(scores.get(who)) for who in _COMPARED)]
            for value, scores in ordered[:_SLICES_SHOWN]
        ]
        yield from _table((column, "rows", model.candidate, "baseline", "champion"), rows)
        if len(ordered) > _SLICES_SHOWN:
            yield from (f"{len(ordered) - _SLICES_SHOWN} smaller slices are not shown.", "")


def _limits(spec: PipelineSpec, evaluation: Evaluation | None) -> Iterator[str]:
    yield from ("## Limits", "")
    yield "- The service refuses values outside the schema's bounds; missing stored features are imputed, and said so."
    for view in spec.stored:
        yield f"- `{view.name}` counts as missing when it is older than {view.ttl}."
    worse = [
        f"{column} {value}"
        for column, values in (evaluation.slices if evaluation else {}).items()
        for value, scores in values.items()
        if scores.get("candidate", 0) > scores.get("baseline", math.inf)
    ]
    if worse:
        yield f"- Worse than the naive baseline on test rows: {', '.join(worse[:_SLICES_SHOWN])}."
    if spec.time is not None:
        yield "- Tested on later rows than it was trained on; what changes after them is the monitors' to notice."
    yield ""


def _lineage(lineage: dict[str, str]) -> Iterator[str]:
    yield from ("## Lineage", "")
    yield from _table(("station", "fingerprint"), [[station, f"`{name}`"] for station, name in lineage.items()])


def _chain(
    spec: PipelineSpec, model: TrainedModel, home: Home
) -> tuple[Split | None, FeatureTable | None, Validated | None, Snapshot | None]:
    """The model's ancestors, as far as their records are here."""
    data = home.data(spec.name)
    split = read_record(_place(data / "splits", model.parent) / "manifest.json", Split)
    table = read_record(_place(data / "tables", split.parent if split else None).with_suffix(".json"), FeatureTable)
    validated = read_record(_place(data / "validated", table.parent if table else None).with_suffix(".json"), Validated)
    snapshot = read_record(
        _place(data / "snapshots", validated.parent if validated else None).with_suffix(".json"), Snapshot
    )
    return split, table, validated, snapshot


def _place(folder: Path, name: str | None) -> Path:
    return folder / (name or "missing")


def _interval(other: str, interval: Interval) -> str:
    return (
        f"- Error of the {other} minus the candidate's, on the same {interval.rows:,} test rows: "
        f"{_shown(interval.difference)} ({interval.confidence:.0%} interval {_shown(interval.low)} to "
        f"{_shown(interval.high)}; positive: the candidate is better)."
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
    yield ""


def _shown(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.4g}" if abs(value) < 1e5 else f"{value:,.0f}"
