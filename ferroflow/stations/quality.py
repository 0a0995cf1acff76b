"""Station 3: ``Validated`` → ``Quality``: are the accepted rows together good enough to go on with?

The judgement stops nothing by itself: the task that asks for it does. Profile and page are written before the record,
so that a run which ends here leaves everything one needs to see why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import polars as pl

from ferroflow.adapters.home import Home
from ferroflow.adapters.profile_page import write_quality_page
from ferroflow.adapters.storage import read_record, write_record
from ferroflow.core.columns import schema_columns
from ferroflow.core.dataset_rules import Fresh, Known, UniqueShare
from ferroflow.core.fingerprint import fingerprint
from ferroflow.core.profile import Profile, profile
from ferroflow.core.quality import (
    REPEATED,
    Measured,
    anomalies,
    check_rules,
    figures_of,
    judge,
    known_key,
    parts_of,
    reason_of,
    score_of,
)
from ferroflow.core.records import Quality, Snapshot, Validated
from ferroflow.core.spec import PipelineSpec

_JUDGE = 1  # raised when the same rows are to be judged differently
_REMEMBERED = 30  # earlier snapshots that figures are held against
_OURS = ("row_id", "ingested_at")  # columns that validation adds: they say nothing about the data


def assess(spec: PipelineSpec, snapshot: Snapshot, validated: Validated, as_of: datetime, home: Home) -> Quality:
    """Judge the accepted rows together, and draw the page about them.

    The same rows, judged by the same rules, are not judged again. What went before are the pipeline's good records of
    other rows, of moments up to ``as_of``.

    Args:
        spec: whose rules and limits are looked at.
        snapshot: of these rows; its references, and its files that could not be read.
        validated: the rows.
        as_of: the moment of the run, against which freshness is judged.
        home: where record, profile and page are kept.

    Raises:
        SpecError: a rule names a column or a reference that is not there.
    """
    name = _name(spec, snapshot, validated, as_of)
    path = home.data(spec.name) / "quality" / f"{name}.json"
    known = read_record(path, Quality)
    if known is not None and all(home.absolute(file).is_file() for file in (known.profile, known.page)):
        return known.model_copy(update={"as_of": as_of})
    history = _history(spec, validated, as_of, home)
    measured = _measured(spec, snapshot, validated, as_of, home, history)
    profiled = measured.profile.model_copy(update={"figures": figures_of(measured)})
    quality = _judgement(spec, name, measured, profiled, [earlier.figures for earlier in history.values()], home)
    write_record(home.absolute(quality.profile), profiled)
    before = next(iter(history.values()), None)
    write_quality_page(home.absolute(quality.page), spec, snapshot, validated, quality, profiled, before)
    write_record(path, quality)
    return quality


def _judgement(
    spec: PipelineSpec,
    name: str,
    measured: Measured,
    profiled: Profile,
    history: Sequence[Mapping[str, float]],
    home: Home,
) -> Quality:
    rules = judge(spec, measured)
    columns = schema_columns(spec.schema, [column.name for column in profiled.columns]).items()
    parts = parts_of(spec, measured, {name for name, column in columns if not column.nullable})
    return Quality(
        pipeline=spec.name,
        fingerprint=name,
        parent=measured.validated.fingerprint,
        as_of=measured.as_of,
        passed=all(rule.passed for rule in rules if rule.severity == "error"),
        reason=reason_of(rules),
        score=score_of(parts),
        parts=parts,
        rules=rules,
        anomalies=anomalies(profiled.figures, history),
        profile=home.relative(home.data(spec.name) / "profiles" / f"{name}.json"),
        page=home.relative(home.reports(spec.name) / f"quality-{name}.html"),
    )


def _name(spec: PipelineSpec, snapshot: Snapshot, validated: Validated, as_of: datetime) -> str:
    """By what the judgement depends on; the moment is part of it only where freshness is asked for."""
    limits = [spec.max_quarantined, spec.max_unreadable, spec.personal]
    unreadable = sorted(file.sha256 for file in snapshot.unreadable)
    timed = any(isinstance(rule, Fresh) for rule in spec.rules)
    moment = as_of.astimezone(UTC).isoformat() if timed else ""
    return fingerprint(_JUDGE, validated.fingerprint, [repr(rule) for rule in spec.rules], limits, unreadable, moment)


# ------------------------------------------------------------------------------------------------------------ measured


def _measured(
    spec: PipelineSpec,
    snapshot: Snapshot,
    validated: Validated,
    as_of: datetime,
    home: Home,
    history: Mapping[str, Profile],
) -> Measured:
    rows = pl.scan_parquet([home.absolute(path) for path in validated.accepted]).drop(_OURS, strict=False)
    references = {name: pl.scan_parquet(home.absolute(path)) for name, path in snapshot.references.items()}
    columns = {name: table.collect_schema().names() for name, table in references.items()}
    check_rules(spec, rows.collect_schema().names(), columns)
    return Measured(
        profile=profile(rows, time=spec.time, personal=spec.personal, before=next(iter(history.values()), None)),
        validated=validated,
        as_of=as_of,
        repeated=_repeated(validated, home),
        unreadable=len(snapshot.unreadable),
        unique={rule: _unique(rule, rows) for rule in spec.rules if isinstance(rule, UniqueShare)},
        known={
            rule: _known(rule, rows, references[rule.reference], known_key(spec, rule, columns))
            for rule in spec.rules
            if isinstance(rule, Known)
        },
        before=next(iter(history), None),
    )


def _unique(rule: UniqueShare, rows: pl.LazyFrame) -> float:
    """Distinct combinations, as a share of the rows."""
    combinations = rows.select(rule.columns).unique()
    found = [int(table.select(pl.len()).collect(engine="streaming").item()) for table in (combinations, rows)]
    return found[0] / found[1] if found[1] else 1.0


def _known(rule: Known, rows: pl.LazyFrame, reference: pl.LazyFrame, key: str) -> float:
    """The share of present values that the reference has; the reference's keys are read as the column's type."""
    dtype = rows.collect_schema()[rule.column]
    keys = reference.select(pl.col(key).cast(dtype, strict=False)).drop_nulls().unique().collect().to_series()
    column = pl.col(rule.column).drop_nulls()
    share = rows.select(column.is_in(keys.implode()).mean()).collect(engine="streaming").item()
    return 1.0 if share is None else float(share)


def _repeated(validated: Validated, home: Home) -> int:
    """Quarantined rows of which every reason says that they are there a second time."""
    if not any(reason.startswith(REPEATED) for reason in validated.reasons):
        return 0
    quarantined = pl.scan_parquet([home.absolute(path) for path in validated.quarantined])
    repeated = pl.any_horizontal(pl.element().str.starts_with(begin) for begin in REPEATED)
    every = pl.col("reasons").list.eval(repeated).list.all()
    return int(quarantined.select(every.sum()).collect(engine="streaming").item())


# ------------------------------------------------------------------------------------------------------------- history


def _history(spec: PipelineSpec, validated: Validated, as_of: datetime, home: Home) -> dict[str, Profile]:
    """Quality → profile of the good records of other rows, the last good one first; one for each set of rows."""
    found = []
    for path in (home.data(spec.name) / "quality").glob("*.json"):
        record = read_record(path, Quality)
        if record is not None and record.passed and record.parent != validated.fingerprint and record.as_of <= as_of:
            found.append((record.as_of, path.stat().st_mtime_ns, record.fingerprint, record))
    latest: dict[str | None, Quality] = {}
    for *_, record in sorted(found, key=lambda entry: entry[:3], reverse=True):
        latest.setdefault(record.parent, record)
    profiles: dict[str, Profile] = {}
    for record in list(latest.values())[:_REMEMBERED]:
        profiled = read_record(home.absolute(record.profile), Profile)
        if profiled is not None:
            profiles[record.fingerprint] = profiled
    return profiles
