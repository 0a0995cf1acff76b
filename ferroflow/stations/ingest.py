"""Station 1: raw files, tables and streams → ``Snapshot``, without loss and named by content."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from ferroflow.adapters import corrections
from ferroflow.adapters.home import Home
from ferroflow.adapters.settings import Settings
from ferroflow.adapters.sources import batches
from ferroflow.adapters.sources.download import NotPublished, Progress
from ferroflow.adapters.sources.files import format_of
from ferroflow.adapters.sources.globs import located, looked_in, matched
from ferroflow.adapters.sources.locate import in_place, locate
from ferroflow.core.durations import duration
from ferroflow.core.errors import EmptySource, UnreadableFile
from ferroflow.core.records import Part, Snapshot, Unreadable
from ferroflow.core.spec import FixedFiles, Glob, MonthlyFiles, PipelineSpec, SourceFile
from ferroflow.stations.parts import FileChanged, Found, part_of
from ferroflow.stations.references import reference_table
from ferroflow.stations.snapshots import kept, newest

logger = logging.getLogger(__name__)

LANDED = "landing"
"""The label of landed files, where the source's own files have labels."""
_NO_FORMAT = "its name does not tell a format, as .csv or .parquet do"


@dataclass
class _Taken:
    """What was read so far, each once: by the name of its content."""

    parts: dict[str, Part] = field(default_factory=dict)
    unreadable: dict[str, Unreadable] = field(default_factory=dict)
    repeated: list[str] = field(default_factory=list)

    def add(self, taken: Part | Unreadable, name: str) -> None:
        """Keep it, or the file's name alone where the same bytes came before."""
        known = self.parts.get(taken.fingerprint) if isinstance(taken, Part) else self.unreadable.get(taken.sha256)
        if known is not None:
            logger.warning("%s holds the bytes of another file: taken once", name)
            self.repeated.append(name)
        elif isinstance(taken, Part):
            self.parts[taken.fingerprint] = taken
        else:
            self.unreadable[taken.sha256] = taken


def ingest(
    spec: PipelineSpec,
    as_of: datetime,
    home: Home,
    *,
    now: datetime,
    settings: Settings,
    progress: Progress | None = None,
) -> Snapshot:
    """Read the source up to ``as_of`` (and back by its ``history``), then the files of the landing folder.

    A file that was read before is not read again; the same files give the same snapshot. A file that makes no table is
    kept whole in quarantine and listed in the snapshot; so is the name of one that holds the bytes of another one.

    Args:
        spec: whose source is read.
        as_of: files of later months are left out.
        home: where parts and snapshots are kept.
        now: kept as the moment of parts, verdicts and snapshots that are new.
        settings: the mirror, and whether to simulate.
        progress: told as files are fetched: name, bytes so far, bytes in all.

    Raises:
        SourceUnavailable: a file can be had from nowhere, or a database or stream does not answer.
        EmptySource: there is no file and no row.
        UnreadableFile: there are files, and none of them makes a table.
        DataError: a file's bytes are not those of its first time, or changed while they were read.
    """
    taken = _Taken()
    for part in _batches(spec, home, settings, now, progress):
        taken.add(part, part.file)
    for found in (*_own(spec, as_of, home, settings, progress), *_landed(spec, home)):
        try:
            taken.add(part_of(spec, found, home, now), found.name)
        except FileChanged as error:
            if found.located.origin != LANDED:
                raise
            logger.warning("%s It is left for the next run.", error)
    if not any(part.rows for part in taken.parts.values()):
        if taken.parts and not taken.unreadable:
            raise EmptySource(
                f"No file of {spec.name!r} holds a row ({len(taken.parts)} came). Put one with rows into "
                f"{home.landing(spec.name)}."
            )
        _refuse(spec, as_of, home, settings, list(taken.unreadable.values()))
    references = {entry.name: reference_table(spec, entry, home, settings, progress) for entry in spec.references}
    return _snapshot(spec, as_of, taken, references, home, now)


def _refuse(
    spec: PipelineSpec, as_of: datetime, home: Home, settings: Settings, unreadable: Sequence[Unreadable]
) -> None:
    if unreadable:
        told = "; ".join(file.reason for file in unreadable)
        raise UnreadableFile(f"No file of {spec.name!r} can be read ({len(unreadable)} came). {told}")
    landing = home.landing(spec.name)
    source = spec.source
    if isinstance(source.files, Glob):
        looked = " and ".join(looked_in(source.files, settings))
        raise EmptySource(
            f"No file matches {source.files.pattern!r} ({spec.name!r}): looked in {looked}. Mend it, or use {landing}."
        )
    if source.files is None:
        raise EmptySource(
            f"{spec.name!r} has no row yet: its table or stream gave none. Run again when there are, or put a file "
            f"into {landing}."
        )
    raise EmptySource(
        f"{spec.name!r} has no file for {as_of:%Y-%m-%d} and {source.history} back. Choose another --as-of, or "
        f"put a file into {landing}."
    )


# ----------------------------------------------------------------------------------------------------------- snapshot


def _snapshot(
    spec: PipelineSpec, as_of: datetime, taken: _Taken, references: dict[str, str], home: Home, now: datetime
) -> Snapshot:
    parts = tuple(taken.parts.values())
    draft = Snapshot(
        pipeline=spec.name,
        fingerprint="",
        parent=newest(spec.name, home),
        as_of=as_of,
        parts=parts,
        references=references,
        rows=sum(part.rows for part in parts),
        made_at=now,
        unreadable=tuple(taken.unreadable.values()),
        corrections=corrections.current(home, spec.name),
        repeated=tuple(taken.repeated),
    )
    return kept(draft, home)


# ------------------------------------------------------------------------------------------------------------ sources


def _batches(
    spec: PipelineSpec, home: Home, settings: Settings, now: datetime, progress: Progress | None
) -> list[Part]:
    """What a table or stream gave up to now, this run's new rows last."""
    if spec.source.files is not None or _is_simulated(spec, settings):
        return []
    return batches.taken(spec, home, now=now, progress=progress)


def _own(spec: PipelineSpec, as_of: datetime, home: Home, settings: Settings, progress: Progress | None) -> list[Found]:
    """The source's own files in their order."""
    files = spec.source.files
    if isinstance(files, MonthlyFiles | FixedFiles):
        wanted = files.files(as_of - duration(spec.source.history), as_of)
        return _named(spec, wanted, home, settings, progress)
    if _is_simulated(spec, settings):
        file = simulated_file(spec)
        return [Found(file.name, locate(spec, file, home.downloads, settings, progress))]
    if files is None:
        return []
    matches = matched(files, settings)
    told = [match for match in matches if format_of(match.name, spec.source.format) is not None]
    for match in matches:
        if told and match not in told:
            logger.warning("%s is left out: %s", match.address, _NO_FORMAT)
    # Where none tells its format, the first one's error says the way out.
    chosen = told or matches
    return [Found(match.name, located(match, home.downloads, progress), hive=match.hive) for match in chosen]


def _is_simulated(spec: PipelineSpec, settings: Settings) -> bool:
    return settings.simulate and spec.source.simulator is not None


def simulated_file(spec: PipelineSpec) -> SourceFile:
    """The one file that stands in for a pattern, a table or a stream when the source is simulated."""
    files = spec.source.files
    kind = format_of(files.pattern, spec.source.format) if isinstance(files, Glob) else "parquet"
    name = f"{spec.name}.{'parquet' if kind in (None, 'excel') else kind}"
    return SourceFile(name, name)


def _named(
    spec: PipelineSpec, wanted: Sequence[SourceFile], home: Home, settings: Settings, progress: Progress | None
) -> list[Found]:
    found: list[Found] = []
    missing: NotPublished | None = None
    for file in wanted:
        try:
            place = locate(spec, file, home.downloads, settings, progress)
        except NotPublished as error:
            if not found or not isinstance(spec.source.files, MonthlyFiles):
                raise
            missing = missing or error
            logger.warning("not published yet, left out: %s", file.name)
            continue
        if missing is not None:  # only the latest months can be late: this one is there, so the gap is a fault
            raise missing
        found.append(Found(file.name, place, file.skip_rows, file.label))
    return found


def _landed(spec: PipelineSpec, home: Home) -> list[Found]:
    """The landing folder's files by name, in every format that a name can tell."""
    landing = home.landing(spec.name)
    files = spec.source.files
    label = LANDED if isinstance(files, FixedFiles) and any(file.label for file in files.entries) else ""
    found = []
    for path in sorted(landing.glob("[!.]*")) if landing.is_dir() else []:
        if path.is_file() and format_of(path.name, None) is not None:
            found.append(Found(path.name, in_place(path, LANDED), label=label))
        else:
            logger.warning("%s is left out: %s", path, _why_left_out(path))
    return found


def _why_left_out(path: Path) -> str:
    return "it is no file" if not path.is_file() else _NO_FORMAT
