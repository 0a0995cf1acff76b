"""Validate the newest snapshot's rows again, under the present corrections and the present schema.

Nothing is moved by hand: the same raw parts with other corrections are another snapshot, and its verdicts are computed
as any other's. So a row is accepted once, however often this is done.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from ferroflow.adapters import corrections
from ferroflow.adapters.home import Home
from ferroflow.core.errors import NotFound
from ferroflow.core.records import Snapshot, Validated
from ferroflow.core.spec import PipelineSpec
from ferroflow.stations import versions
from ferroflow.stations.checked import reason_kinds
from ferroflow.stations.snapshots import with_corrections
from ferroflow.stations.validate import validate

_NAMED = 20
"""So many moved rows are named."""


@dataclass(frozen=True)
class Replayed:
    """What a replay did (or would do), against the verdicts before it."""

    snapshot: str
    parent: str | None
    rows_in: int
    rows_accepted: int
    rows_quarantined: int
    moved: int  # rows that were refused and are accepted now
    moved_rows: tuple[str, ...]  # the row_ids of the first of them
    newly_refused: dict[str, int]  # reason -> rows that were accepted before
    still_refused: dict[str, int]  # reason -> rows


def replay(spec: PipelineSpec, home: Home, *, now: datetime) -> Replayed:
    """Put the newest snapshot's parts together with the present corrections, and validate them.

    Args:
        now: kept as the moment of a snapshot that is new.

    Raises:
        NotFound: there is no snapshot yet.
        FerroflowError: as ``validate`` raises.
    """
    newest = newest_snapshot(spec.name, home)
    before = judged_last(spec, newest, home)
    after = with_corrections(newest, corrections.current(home, spec.name), home, now)
    return _compared(before, after, validate(spec, after, home), home)


def newest_snapshot(pipeline: str, home: Home) -> Snapshot:
    """The snapshot that was made last.

    Raises:
        NotFound: there is none.
    """
    every = versions.history(pipeline, home)
    if not every:
        raise NotFound(f"Pipeline {pipeline!r} has no snapshot yet. Make one: ferroflow run {pipeline}")
    return every[-1].snapshot


def judged_last(spec: PipelineSpec, snapshot: Snapshot, home: Home) -> Validated:
    """The last verdicts on these raw rows: those that are known, else new ones."""
    return known_verdicts(snapshot, home) or validate(spec, snapshot, home)


def known_verdicts(snapshot: Snapshot, home: Home) -> Validated | None:
    """The last verdicts on these raw rows: the snapshot's own, else an ancestor's of the same parts; None: no such.

    (A replay that was killed leaves a snapshot without verdicts.)
    """
    known = {kept.snapshot.fingerprint: kept.snapshot for kept in versions.history(snapshot.pipeline, home)}
    one: Snapshot | None = snapshot
    while one is not None and one.parts == snapshot.parts:
        verdicts = versions.validated(one, home)
        if verdicts is not None:
            return verdicts
        one = known.get(one.parent or "")
    return None


@contextmanager
def rehearsal(pipeline: str, home: Home) -> Iterator[Home]:
    """A home folder for a try: it sees everything that is there, and what is written to it is thrown away."""
    with tempfile.TemporaryDirectory(prefix=".rehearsal-", dir=home.root) as folder:
        scratch = Home(Path(folder))
        real, data = home.data(pipeline), scratch.data(pipeline)
        for name in ("parts", "references", "batches", "unreadable"):
            data.mkdir(parents=True, exist_ok=True)
            (data / name).symlink_to((real / name).resolve())
        for name in ("snapshots", "corrections"):
            if (real / name).is_dir():
                shutil.copytree(real / name, data / name)  # with the moments of the files
        (data / "validated").mkdir()
        for path in (real / "validated").glob("[!.]*"):
            (data / "validated" / path.name).symlink_to(path.resolve())
        yield scratch


def refused(validated: Validated, home: Home) -> pl.LazyFrame:
    """The rows in quarantine: ``row_id``, ``file``, ``row``, ``reasons``, ``raw`` (JSON text)."""
    return pl.scan_parquet([home.absolute(path) for path in validated.quarantined])


def _compared(before: Validated, snapshot: Snapshot, after: Validated, home: Home) -> Replayed:
    old, new = refused(before, home), refused(after, home)
    gone = old.join(new, on="row_id", how="anti", maintain_order="left").select("row_id").collect()["row_id"]
    return Replayed(
        snapshot=snapshot.fingerprint,
        parent=snapshot.parent,
        rows_in=after.rows_in,
        rows_accepted=after.rows_accepted,
        rows_quarantined=after.rows_quarantined,
        moved=gone.len(),
        moved_rows=tuple(gone.head(_NAMED)),
        newly_refused=reason_kinds(new.join(old, on="row_id", how="anti")),
        still_refused=reason_kinds(new.join(old, on="row_id", how="semi")),
    )
