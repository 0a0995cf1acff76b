"""Remove old snapshots and what was made of them, never what a registered model or the offline store was made of.

What stays is found by walking from the snapshots that are kept, from the registered models and from the offline store's
rows; what no walk reaches is swept. The record goes before the files it vouches for, so a sweep that is killed leaves
files that the next one takes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ferroflow.adapters.home import Home
from ferroflow.adapters.storage import read_record
from ferroflow.core.records import (
    Evaluation,
    FeatureTable,
    Part,
    Record,
    Snapshot,
    Split,
    TrainedModel,
    Unreadable,
    Validated,
)
from ferroflow.stations import versions
from ferroflow.stations.expiry import MARK

_YOUNG = timedelta(hours=1)
"""A run that is under way may have written what no record reaches yet."""
_MADE_OF: dict[str, type[Record]] = {
    "validated": Validated,
    "tables": FeatureTable,
    "splits": Split,
    "models": TrainedModel,
    "evaluations": Evaluation,
}
"""Folder -> records, each made of the one before: its parent."""
_SWEPT = ("snapshots", *_MADE_OF, "parts", "references", "unreadable")


class _Offline(BaseModel):
    """What of the offline store's record matters here: the rows that it can be computed from again."""

    model_config = ConfigDict(frozen=True)

    validated: Validated


@dataclass(frozen=True)
class Pruned:
    """What went (or would go), and why the others stay."""

    removed: tuple[str, ...]  # snapshots
    kept: dict[str, str]  # snapshot -> why
    files: int
    bytes: int


def prune(
    pipeline: str, home: Home, *, keep: int, older_than: timedelta | None, now: datetime, dry_run: bool
) -> Pruned:
    """Keep the ``keep`` newest snapshots, those younger than ``older_than``, and all that a registered model needs.

    The accepted rows of the offline store's latest moment stay too: without them it cannot be computed again.
    Batches of tables and streams are never removed: they cannot be read a second time.

    Raises:
        RegistryError: what a registered model needs cannot be told; nothing is removed then.
    """
    lineages = versions.lineages(pipeline, home)
    needed = {name for _, lineage in lineages for name in lineage.values()}
    retained = _retained(pipeline, home, keep, older_than, now)
    kept = {lineage.get("snapshot", ""): f"version {one.version} was trained on it" for one, lineage in lineages}
    kept |= retained
    every = [entry.snapshot for entry in versions.history(pipeline, home)]
    staying = _staying(home, pipeline, [one for one in every if one.fingerprint in kept], set(retained), needed)
    doomed = [path for path in _candidates(home, pipeline, now) if not _reached(path, staying)]
    size = sum(path.stat().st_size for path in doomed)
    if not dry_run:
        for path in doomed:
            path.unlink(missing_ok=True)
        _remove_empty(home, pipeline)
    names = [one.fingerprint for one in every]
    removed = tuple(name for name in names if name not in kept)
    return Pruned(removed, {name: kept[name] for name in names if name in kept}, len(doomed), size)


def _retained(pipeline: str, home: Home, keep: int, older_than: timedelta | None, now: datetime) -> dict[str, str]:
    newest = list(reversed(versions.history(pipeline, home)))
    kept = {entry.snapshot.fingerprint: f"one of the {keep} newest" for entry in newest[: max(keep, 1)]}
    for entry in newest:
        age = now - entry.since
        if (older_than is not None and age <= older_than) or age < _YOUNG:
            kept.setdefault(entry.snapshot.fingerprint, f"{age.days} days old")
    return kept


def _staying(home: Home, pipeline: str, snapshots: list[Snapshot], retained: set[str], needed: set[str]) -> set[Path]:
    """Files and folders that stay: of the snapshots, and of all records made of them."""
    data = home.data(pipeline)
    staying = {data / "snapshots" / f"{snapshot.fingerprint}.json" for snapshot in snapshots}
    for snapshot in snapshots:
        for part in snapshot.parts:
            staying |= {home.absolute(part.path), data / "parts" / f"{part.fingerprint}.json"}
        for reference in snapshot.references.values():
            staying |= {home.absolute(reference), home.absolute(reference).with_suffix(".json")}
        staying |= {Path(f"{home.absolute(file.path)}{end}") for file in snapshot.unreadable for end in ("", MARK)}
    staying |= {path for path, file in _unreadable(data / "unreadable") if home.absolute(file.path) in staying}
    staying |= set(_batches(home, pipeline))
    alive = set(retained)
    latest = read_record(home.offline(pipeline) / "latest.json", _Offline)
    if latest is not None:
        needed = needed | {latest.validated.fingerprint}
        staying |= {home.absolute(name).parent for name in latest.validated.accepted}
    for folder, kind in _MADE_OF.items():
        for path, record in _records(data / folder, kind):
            if record.parent in alive:
                alive.add(record.fingerprint)
            if record.fingerprint in alive | needed:
                staying |= {path, data / folder / record.fingerprint, data / folder / f"{record.fingerprint}.parquet"}
                if isinstance(record, Validated):
                    staying |= {home.absolute(name).parent for name in (*record.accepted, *record.quarantined)}
    return staying


def _batches(home: Home, pipeline: str) -> Iterator[Path]:
    """Parts of incremental sources, with their records."""
    for path in home.data(pipeline).glob("*/[!.]*.json"):
        if path.parent.name in ("parts", "batches"):
            part = read_record(path, Part)
            if part is not None and part.upto is not None:
                yield from (path, home.absolute(part.path))


def _unreadable(folder: Path) -> Iterator[tuple[Path, Unreadable]]:
    """The verdicts that a file makes no table: one for each way of reading its bytes."""
    for path in folder.glob("[!.]*.json"):
        file = read_record(path, Unreadable)
        if file is not None:
            yield path, file


def _records(folder: Path, kind: type[Record]) -> Iterator[tuple[Path, Record]]:
    for path in [*folder.glob("[!.]*.json"), *folder.glob("[!.]*/manifest.json")]:
        record = read_record(path, kind) if _is_record(path, kind) else None
        if record is not None:
            yield path, record


def _is_record(path: Path, kind: type[Record]) -> bool:
    """The manifests below ``validated/`` are those of parts."""
    return kind is not Validated or path.name != "manifest.json"


def _candidates(home: Home, pipeline: str, now: datetime) -> list[Path]:
    """All files that could go, records first; young ones are left alone."""
    limit = (now - _YOUNG).timestamp()
    files = [path for name in _SWEPT for path in (home.data(pipeline) / name).rglob("*") if path.is_file()]
    old = [path for path in files if path.stat().st_mtime < limit and not path.name.endswith(".lock")]
    return sorted(old, key=lambda path: (path.suffix != ".json", path))


def _reached(path: Path, staying: set[Path]) -> bool:
    return path in staying or not staying.isdisjoint(path.parents)


def _remove_empty(home: Home, pipeline: str) -> None:
    for name in _SWEPT:
        for folder in (home.data(pipeline) / name).glob("*"):
            if folder.is_dir() and not any(folder.rglob("*")):
                shutil.rmtree(folder)
