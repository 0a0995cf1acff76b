"""Station 1: raw files → ``Snapshot``, without loss and named by content."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path

import polars as pl

from ferroflow.adapters.home import Home
from ferroflow.adapters.settings import Settings
from ferroflow.adapters.sources.download import NotPublished, Progress
from ferroflow.adapters.sources.files import ReadOptions, read_raw
from ferroflow.adapters.sources.locate import Located, locate
from ferroflow.adapters.storage import atomic_parquet, is_whole, read_record, write_record
from ferroflow.core.durations import duration
from ferroflow.core.errors import EmptySource, SchemaError, SpecError, UnreadableFile
from ferroflow.core.fingerprint import file_digest, fingerprint
from ferroflow.core.records import Part, Snapshot
from ferroflow.core.spec import FixedFiles, MonthlyFiles, PipelineSpec, Reference, SourceFile
from ferroflow.core.validation import LINE, PROBLEM, ROW

logger = logging.getLogger(__name__)

_READER = 1  # raised when the same bytes are to be read differently
_ENDINGS = (".parquet", ".csv")
LANDED = "landing"
"""The label of landed files, where the source's own files have labels."""


def ingest(
    spec: PipelineSpec,
    as_of: datetime,
    home: Home,
    *,
    now: datetime,
    settings: Settings,
    progress: Progress | None = None,
) -> Snapshot:
    """Read the source's files up to ``as_of`` (and back by its ``history``), then those of the landing folder.

    A file that was read before is not read again; the same files give the same snapshot.

    Args:
        spec: whose source is read.
        as_of: files of later months are left out.
        home: where parts and snapshots are kept.
        now: kept as ``ingested_at`` of parts that are new.
        settings: the mirror, and whether to simulate.
        progress: told as files are fetched: name, bytes so far, bytes in all.

    Raises:
        SourceUnavailable: a file can be had from nowhere.
        EmptySource: there is no file, or one holds no row.
        UnreadableFile: a file's bytes make no table.
        DataError: a file's bytes are not those of its first time.
    """
    parts: dict[str, Part] = {}
    for file, located in _located(spec, as_of, home, settings, progress):
        part = _part(spec, file, located, home, now)
        if part.fingerprint in parts:
            logger.info("%s holds the same bytes as %s: taken once", part.file, parts[part.fingerprint].file)
        parts.setdefault(part.fingerprint, part)
    if not parts:
        raise EmptySource(_no_file(spec, as_of, home))
    references = {entry.name: _reference(spec, entry, home, settings, progress) for entry in spec.references}
    return _snapshot(spec, as_of, list(parts.values()), references, home)


def _no_file(spec: PipelineSpec, as_of: datetime, home: Home) -> str:
    return (
        f"{spec.name!r} has no file for {as_of:%Y-%m-%d} and {spec.source.history} back. Choose another --as-of, or "
        f"put a file into {home.landing(spec.name)}."
    )


def _snapshot(
    spec: PipelineSpec, as_of: datetime, parts: list[Part], references: dict[str, str], home: Home
) -> Snapshot:
    name = fingerprint(spec.name, [part.fingerprint for part in parts], references)
    path = home.data(spec.name) / "snapshots" / f"{name}.json"
    known = read_record(path, Snapshot)
    if known is not None:
        return known.model_copy(update={"as_of": as_of})
    snapshot = Snapshot(
        pipeline=spec.name,
        fingerprint=name,
        as_of=as_of,
        parts=tuple(parts),
        references=references,
        rows=sum(part.rows for part in parts),
    )
    write_record(path, snapshot)
    return snapshot


# -------------------------------------------------------------------------------------------------------------- files


def _located(
    spec: PipelineSpec, as_of: datetime, home: Home, settings: Settings, progress: Progress | None
) -> list[tuple[SourceFile, Located]]:
    """The source's own files in their order, then the landed ones by name."""
    files = spec.source.files
    if not isinstance(files, MonthlyFiles | FixedFiles):
        raise SpecError(f"Pipeline {spec.name!r} reads no files by name.")
    wanted = files.files(as_of - duration(spec.source.history), as_of)
    found: list[tuple[SourceFile, Located]] = []
    missing: NotPublished | None = None
    for file in wanted:
        try:
            located = locate(spec, file, home.downloads, settings, progress)
        except NotPublished as error:
            if not found or not isinstance(spec.source.files, MonthlyFiles):
                raise
            missing = missing or error
            logger.warning("not published yet, left out: %s", file.name)
            continue
        if missing is not None:  # only the latest months can be late: this one is there, so the gap is a fault
            raise missing
        found.append((file, located))
    landing = home.landing(spec.name)
    label = LANDED if any(file.label for file in wanted) else ""
    for path in sorted(landing.glob("[!.]*")) if landing.is_dir() else []:
        if path.suffix in _ENDINGS:
            file = SourceFile(str(path), path.name, label=label)
            found.append((file, Located(path, "landing", str(path), file_digest(path))))
        else:
            logger.warning("%s is left out: the landing folder takes %s", path, " and ".join(_ENDINGS))
    return found


def _options(spec: PipelineSpec, file: SourceFile, located: Located) -> ReadOptions:
    source = spec.source
    kind = located.path.suffix.removeprefix(".") if located.origin == "landing" else source.format
    if kind == "parquet":
        return ReadOptions("parquet")
    return ReadOptions("csv", source.columns, source.separator, file.skip_rows)


def _part(spec: PipelineSpec, file: SourceFile, located: Located, home: Home, now: datetime) -> Part:
    """The part made of these bytes read this way: found, or made."""
    options = _options(spec, file, located)
    name = fingerprint(_READER, located.sha256, options, file.label)
    folder = home.data(spec.name) / "parts"
    known = read_record(folder / f"{name}.json", Part)
    if known is not None and is_whole(home.absolute(known.path), known.digest):
        return known
    path = folder / f"{name}.parquet"
    table = read_raw(located.path, options, file.name)
    atomic_parquet(path, table.frame)
    part = Part(
        fingerprint=name,
        file=file.name,
        origin=located.origin,
        address=located.address,
        sha256=located.sha256,
        rows=table.frame.height,
        columns={
            column: str(dtype) for column, dtype in table.frame.schema.items() if column not in (ROW, PROBLEM, LINE)
        },
        path=home.relative(path),
        ingested_at=now if known is None else known.ingested_at,
        label=file.label,
        digest=file_digest(path),
        blank_lines=table.blank_lines,
    )
    _read_back(path, part)
    write_record(folder / f"{name}.json", part)
    return part


def _read_back(path: Path, part: Part) -> None:
    rows = pl.scan_parquet(path).select(pl.len()).collect().item()
    if rows != part.rows:
        raise UnreadableFile(f"{path} holds {rows} rows, {part.rows} were written. Check the disk and run again.")


# --------------------------------------------------------------------------------------------------------- references


def _reference(
    spec: PipelineSpec, reference: Reference, home: Home, settings: Settings, progress: Progress | None
) -> str:
    """The reference's table as Parquet, named by content: its path relative to the home."""
    located = locate(spec, reference.file, home.downloads, settings, progress)
    kind = "parquet" if reference.file.name.endswith(".parquet") else "csv"
    options = ReadOptions(kind, skip_rows=reference.file.skip_rows)
    dtypes = {name: str(dtype) for name, dtype in reference.dtypes.items()}
    name = fingerprint(_READER, located.sha256, options, dtypes)
    path = home.data(spec.name) / "references" / f"{name}.parquet"
    if not path.is_file():
        atomic_parquet(path, _reference_table(reference, located, options))
    return home.relative(path)


def _reference_table(reference: Reference, located: Located, options: ReadOptions) -> pl.DataFrame:
    raw = read_raw(located.path, options, reference.file.name).frame
    if PROBLEM in raw.columns:
        broken = raw.filter(pl.col(PROBLEM).is_not_null())
        if not broken.is_empty():
            line, problem = broken[ROW][0], broken[PROBLEM][0]
            raise UnreadableFile(
                f"Line {line} of the reference {reference.file.name} has {problem}. A reference is joined "
                f"whole: mend it."
            )
    frame = raw.drop(ROW, PROBLEM, LINE, strict=False)
    missing = sorted(set(reference.dtypes) - set(frame.columns))
    if missing:
        raise SchemaError(
            f"The reference {reference.name!r} has no column {', '.join(missing)}. These came: "
            f"{', '.join(frame.columns)}. Mend its dtypes in the spec, or the file."
        )
    try:
        return frame.cast(pl.Schema(reference.dtypes))
    except pl.exceptions.PolarsError as error:
        raise SchemaError(f"The reference {reference.name!r} does not fit its dtypes: {error}") from error
