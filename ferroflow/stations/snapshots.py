"""A snapshot is named by what it is put together of, whoever does it: ingestion, or a replay."""

from __future__ import annotations

from datetime import datetime

from ferroflow.adapters.home import Home
from ferroflow.adapters.storage import read_record, write_record
from ferroflow.core.fingerprint import fingerprint
from ferroflow.core.records import Snapshot


def with_corrections(snapshot: Snapshot, corrections: str, home: Home, now: datetime) -> Snapshot:
    """The snapshot of the same files under other corrections: found, or made as a child of this one.

    Args:
        corrections: the fingerprint of those that are laid over.
        now: kept as the moment of a snapshot that is new.
    """
    parts = [part.fingerprint for part in snapshot.parts]
    unreadable = [file.sha256 for file in snapshot.unreadable]
    name = fingerprint(snapshot.pipeline, parts, snapshot.references, unreadable, corrections)
    if name == snapshot.fingerprint:
        return snapshot
    path = home.data(snapshot.pipeline) / "snapshots" / f"{name}.json"
    known = read_record(path, Snapshot)
    made = snapshot.model_copy(
        update={
            "fingerprint": name,
            "corrections": corrections,
            "parent": snapshot.fingerprint if known is None else known.parent,
            "made_at": now if known is None else known.made_at,
        }
    )
    if made != known:
        write_record(path, made)
    return made
