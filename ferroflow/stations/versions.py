"""Snapshots as versions of the data: their history, what differs between two, what was current when, and whether the
bytes are still those that were written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from ferroflow.adapters.home import Home
from ferroflow.adapters.storage import read_record, seal_problem
from ferroflow.core.drift import column_drift
from ferroflow.core.errors import NotFound, RegistryError
from ferroflow.core.fingerprint import file_digest
from ferroflow.core.records import ColumnDrift, ModelVersion, Part, Snapshot, Validated
from ferroflow.core.spec import InputDrift
from ferroflow.stations.references import ReferenceFile

_SAMPLE = 200_000
"""Rows of each snapshot that distributions are compared on, taken at equal distances."""
_UNSEALED = ("studies", "batch")
"""Folders without records: of trainings under way, and of batch predictions."""
_META = ("row_id", "ingested_at", "source_label")


@dataclass(frozen=True)
class Kept:
    """A snapshot and the moment since when it lies there (that of its record's file)."""

    snapshot: Snapshot
    since: datetime


@dataclass(frozen=True)
class Difference:
    """What differs between two snapshots of a pipeline."""

    old: str
    new: str
    rows: tuple[int, int]
    accepted: tuple[int | None, int | None]
    files: tuple[str, ...]  # "+ name" and "- name"
    schema: tuple[str, ...]  # "+ column (type)", "- column", "~ column: type -> type", of the raw columns
    reasons: dict[str, tuple[int, int]]  # reason -> rows refused in each, where they differ
    columns: tuple[ColumnDrift, ...]  # accepted rows, strongest effect first


@dataclass(frozen=True)
class Damage:
    """A file that is not what its record says."""

    path: str
    problem: str


def history(pipeline: str, home: Home) -> list[Kept]:
    """All snapshots of a pipeline, the one that was made or met again last at the end."""
    found = []
    for path in (home.data(pipeline) / "snapshots").glob("[!.]*.json"):
        snapshot = read_record(path, Snapshot)
        if snapshot is not None:
            found.append(Kept(snapshot, datetime.fromtimestamp(path.stat().st_mtime, UTC)))
    return sorted(found, key=lambda kept: (kept.since, kept.snapshot.fingerprint))


def find(pipeline: str, beginning: str, home: Home) -> Snapshot:
    """The snapshot whose fingerprint begins so; ``latest`` is the last of the history.

    Raises:
        NotFound: there is none, or several.
    """
    every = [kept.snapshot for kept in history(pipeline, home)]
    if beginning == "latest" and every:
        return every[-1]
    found = [snapshot for snapshot in every if snapshot.fingerprint.startswith(beginning)]
    if len(found) == 1:
        return found[0]
    have = ", ".join(snapshot.fingerprint for snapshot in every) or "none"
    problem = f"{len(found)} snapshots of {pipeline!r} begin" if found else f"No snapshot of {pipeline!r} begins"
    raise NotFound(f"{problem} with {beginning!r}. There are: {have}. See them: ferroflow datasets list -p {pipeline}")


def validated(snapshot: Snapshot, home: Home) -> Validated | None:
    """The rows of a snapshot as they were validated last; None when they never were."""
    found = []
    for path in (home.data(snapshot.pipeline) / "validated").glob("[!.]*.json"):
        record = read_record(path, Validated)
        if record is not None and record.parent == snapshot.fingerprint:
            found.append((path.stat().st_mtime, record))
    return max(found, key=lambda entry: entry[0])[1] if found else None


def lineages(pipeline: str, home: Home) -> list[tuple[ModelVersion, dict[str, str]]]:
    """Each registered version with what it was made of: station -> fingerprint.

    Raises:
        RegistryError: the registry does not answer, or a version's package cannot be read.
    """
    from ferroflow.adapters import registry

    return [(version, _lineage(version, home)) for version in registry.versions(pipeline, home)]


def _lineage(version: ModelVersion, home: Home) -> dict[str, str]:
    path = home.absolute(version.package) / "serving.json"
    try:
        return dict(json.loads(path.read_bytes())["lineage"])
    except (OSError, ValueError, KeyError) as error:
        raise RegistryError(
            f"What version {version.version} of {version.name!r} was trained on cannot be told: {path} cannot be read "
            f"({error}). Put the package back, or delete the version in MLflow."
        ) from error


def trained_on(pipeline: str, home: Home) -> dict[str, list[str]]:
    """Snapshot -> the registered versions that were trained on it."""
    found: dict[str, list[str]] = {}
    for version, lineage in lineages(pipeline, home):
        found.setdefault(lineage.get("snapshot", ""), []).append(version.version)
    return found


def current(pipeline: str, moment: datetime, home: Home) -> Snapshot:
    """The snapshot that was the newest at ``moment``: of each the moments when it was first made and last met count.

    Raises:
        NotFound: there was none yet.
    """
    every = history(pipeline, home)
    made = [(at, kept.snapshot) for kept in every for at in (kept.snapshot.made_at or kept.since, kept.since)]
    before = [entry for entry in made if entry[0] <= moment]
    if before:
        return max(before, key=lambda entry: entry[0])[1]
    first = min((entry[0] for entry in made), default=None)
    told = f"the first was made {first:%Y-%m-%d %H:%M} UTC" if first else "there is none"
    raise NotFound(f"Pipeline {pipeline!r} had no snapshot at {moment:%Y-%m-%d %H:%M} UTC: {told}.")


def accepted(record: Validated, home: Home) -> pl.LazyFrame:
    """The accepted rows of all parts, in their order."""
    return pl.scan_parquet([home.absolute(path) for path in record.accepted])


# --------------------------------------------------------------------------------------------------------- differences


def difference(old: Snapshot, new: Snapshot, home: Home) -> Difference:
    """Compare files, raw columns, refusals and the distributions of accepted rows."""
    before, after = validated(old, home), validated(new, home)
    return Difference(
        old=old.fingerprint,
        new=new.fingerprint,
        rows=(old.rows, new.rows),
        accepted=(before.rows_accepted if before else None, after.rows_accepted if after else None),
        files=tuple(_files(old.parts, new.parts)),
        schema=tuple(_schema(_columns(old), _columns(new))),
        reasons=_reasons(before, after),
        columns=_distributions(before, after, home) if before and after else (),
    )


def _files(old: Sequence[Part], new: Sequence[Part]) -> Iterator[str]:
    before = {part.fingerprint: part.file for part in old}
    after = {part.fingerprint: part.file for part in new}
    yield from (f"- {name}" for key, name in before.items() if key not in after)
    yield from (f"+ {name}" for key, name in after.items() if key not in before)


def _columns(snapshot: Snapshot) -> dict[str, str]:
    found: dict[str, set[str]] = {}
    for part in snapshot.parts:
        for name, kind in part.columns.items():
            found.setdefault(name, set()).add(kind)
    return {name: " and ".join(sorted(kinds)) for name, kinds in found.items()}


def _schema(old: dict[str, str], new: dict[str, str]) -> Iterator[str]:
    yield from (f"- {name} ({kind})" for name, kind in old.items() if name not in new)
    yield from (f"+ {name} ({kind})" for name, kind in new.items() if name not in old)
    yield from (f"~ {name}: {kind} -> {new[name]}" for name, kind in old.items() if new.get(name, kind) != kind)


def _reasons(before: Validated | None, after: Validated | None) -> dict[str, tuple[int, int]]:
    old, new = before.reasons if before else {}, after.reasons if after else {}
    both = {name: (old.get(name, 0), new.get(name, 0)) for name in sorted({*old, *new})}
    return {name: counts for name, counts in both.items() if counts[0] != counts[1]}


def _distributions(before: Validated, after: Validated, home: Home) -> tuple[ColumnDrift, ...]:
    old, new = _sample(before, home), _sample(after, home)
    both = [name for name in old.columns if name in new.columns and name not in _META and _comparable(old[name].dtype)]
    return column_drift(old.select(both), new.select(both), InputDrift(min_rows=1)) if both else ()


def _comparable(dtype: pl.DataType) -> bool:
    return dtype.is_numeric() or dtype in (pl.Boolean, pl.String)


def _sample(record: Validated, home: Home) -> pl.DataFrame:
    step = max(1, record.rows_accepted // _SAMPLE)
    return accepted(record, home).gather_every(step).collect()


# ----------------------------------------------------------------------------------------------------------- integrity


def verify(pipeline: str, home: Home) -> tuple[int, list[Damage]]:
    """Read every file that has a digest or a seal: the number of files, and those that are not what was written."""
    records = list(_sealed(pipeline, home))
    damaged = [Damage(home.relative(path), told) for path in records if (told := seal_problem(path)) is not None]
    checked = len(records)
    for path, digest in dict(_vouched(pipeline, home)).items():
        checked += 1
        if not path.is_file():
            damaged.append(Damage(home.relative(path), "is missing"))
        elif (found := file_digest(path)) != digest:
            damaged.append(Damage(home.relative(path), f"has SHA-256 {found[:16]}…, {digest[:16]}… was written"))
    return checked, damaged


def _sealed(pipeline: str, home: Home) -> Iterator[Path]:
    """Records."""
    folder = home.data(pipeline)
    for path in sorted(folder.rglob("[!.]*.json")):
        place = path.relative_to(folder).parts[0]
        if place not in _UNSEALED and (place != "models" or path.name == "manifest.json"):
            yield path


def _vouched(pipeline: str, home: Home) -> Iterator[tuple[Path, str]]:
    """Files and their digests: raw parts, references, unreadable files, accepted and quarantined rows."""
    folder = home.data(pipeline)
    for kept in history(pipeline, home):
        yield from ((home.absolute(part.path), part.digest) for part in kept.snapshot.parts)
        for file in kept.snapshot.unreadable:
            if not home.absolute(f"{file.path}.expired").is_file():
                yield home.absolute(file.path), file.sha256
        for reference in kept.snapshot.references.values():
            vouched = read_record(home.absolute(reference).with_suffix(".json"), ReferenceFile)
            yield home.absolute(reference), vouched.digest if vouched else ""
    for path in (folder / "parts").glob("[!.]*.json"):
        part = read_record(path, Part)
        if part is not None:
            yield home.absolute(part.path), part.digest
    for path in folder.glob("*/*/manifest.json"):
        if seal_problem(path) is not None:  # told for itself: nothing it says can be compared
            continue
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        for name, digest in manifest.items():
            if name.endswith("_digest") and digest:
                yield path.parent / f"{name.removesuffix('_digest')}.parquet", digest
