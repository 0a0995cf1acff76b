"""References: small tables that ``derive`` joins, read whole and kept as Parquet, named by content."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from pydantic import BaseModel, ConfigDict

from ferroflow.adapters.home import Home
from ferroflow.adapters.settings import Settings
from ferroflow.adapters.sources.download import Progress
from ferroflow.adapters.sources.files import ReadOptions, format_of, read_frame
from ferroflow.adapters.sources.locate import Located, locate
from ferroflow.adapters.storage import atomic_parquet, is_whole, read_record, write_record
from ferroflow.core.errors import SchemaError, UnreadableFile
from ferroflow.core.fingerprint import file_digest, fingerprint
from ferroflow.core.spec import PipelineSpec, Reference
from ferroflow.core.validation import LINE, PROBLEM, ROW

_READER = 2  # raised when the same bytes are to be read differently


class ReferenceFile(BaseModel):
    """What vouches for a reference's Parquet file, beside it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str  # SHA-256


def reference_table(
    spec: PipelineSpec, reference: Reference, home: Home, settings: Settings, progress: Progress | None
) -> str:
    """The reference's table as Parquet: its path relative to the home.

    Raises:
        SourceUnavailable: its file can be had from nowhere.
        UnreadableFile: its bytes make no table, or one of its lines is no row: it is joined whole or not at all.
        SchemaError: it lacks a column of its ``dtypes``, or a cell does not fit.
    """
    located = locate(spec, reference.file, home.downloads, settings, progress)
    kind = format_of(reference.file.name, "csv") or "csv"
    options = ReadOptions(kind, skip_rows=reference.file.skip_rows)
    dtypes = {name: str(dtype) for name, dtype in reference.dtypes.items()}
    name = fingerprint(_READER, located.sha256, options, dtypes)
    path = home.data(spec.name) / "references" / f"{name}.parquet"
    if not reference_is_whole(path):
        atomic_parquet(path, _table(reference, located, options))
        write_record(path.with_suffix(".json"), ReferenceFile(digest=file_digest(path)))
    return home.relative(path)


def reference_is_whole(path: Path) -> bool:
    """Whether the reference's Parquet file is there, byte by byte as it was written."""
    known = read_record(path.with_suffix(".json"), ReferenceFile)
    return known is not None and is_whole(path, known.digest)


def _table(reference: Reference, located: Located, options: ReadOptions) -> pl.DataFrame:
    raw = read_frame(located.path, options, reference.file.name)
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
