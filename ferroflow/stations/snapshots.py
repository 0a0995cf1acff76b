"""A snapshot is named by what it is put together of, whoever does it: ingestion, or a replay."""

from __future__ import annotations

from datetime import datetime

from ferroflow.adapters.home import Home
from ferroflow.adapters.storage import read_record, write_record
from ferroflow.core.fingerprint import fingerprint
from ferroflow.core.records import Snapshot


def kept(draft: Snapshot, home: Home) -> Snapshot:
    """The snapshot under the name of its content: written, or met again with the parent and moment of its first time.

    Args:
        draft: everything but the name; its parent and ``made_at`` count when it is new.
    """
    parts = [part.fingerprint for part in draft.parts]
    unreadable = [file.sha256 for file in draft.unreadable]
    name = fingerprint(draft.pipeline, parts, draft.references, unreadable, draft.corrections)
    path = home.data(draft.pipeline) / "snapshots" / f"{name}.json"
    known = read_record(path, Snapshot)
    made = draft.model_copy(update={"fingerprint": name})
    if known is None:
        write_record(path, made)
        return made
    made = made.model_copy(update={"parent": known.parent, "made_at": known.made_at})
    # A part made again after damage may have another digest: the record follows.
    if made.model_copy(update={"as_of": known.as_of}) != known:
        write_record(path, made)
    else:
        path.touch()  # the newest is the one that was met last
    return made


def with_corrections(snapshot: Snapshot, corrections: str, home: Home, now: datetime) -> Snapshot:
    """The snapshot of the same files under other corrections: found, or made as a child of this one.

    Args:
        corrections: the fingerprint of those that are laid over.
        now: kept as the moment of a snapshot that is new.
    """
    if corrections == snapshot.corrections:
        return snapshot
    child = {"corrections": corrections, "parent": snapshot.fingerprint, "made_at": now}
    return kept(snapshot.model_copy(update=child), home)


def newest(pipeline: str, home: Home) -> str | None:
    """The fingerprint of the snapshot that was made last; None: there is none."""
    folder = home.data(pipeline) / "snapshots"
    every = [read_record(path, Snapshot) for path in folder.glob("[!.]*.json")]
    dated = [(one.made_at, one.fingerprint) for one in every if one is not None and one.made_at is not None]
    return max(dated)[1] if dated else None
