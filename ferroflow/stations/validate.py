"""Station 2: ``Snapshot`` → ``Validated``: accepted rows go on, every other one is in quarantine with its reasons."""

from __future__ import annotations

import inspect
import logging
import re
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict

from ferroflow.adapters.home import Home
from ferroflow.adapters.storage import atomic_parquet, is_whole, read_record, read_table, write_record
from ferroflow.core.errors import RowsLost, SchemaError, UnreadableFile
from ferroflow.core.fingerprint import file_digest, fingerprint
from ferroflow.core.records import Part, Snapshot, Validated
from ferroflow.core.spec import PipelineSpec
from ferroflow.core.validation import LABEL, ROW, changed_types, check_rows, reason_kind

logger = logging.getLogger(__name__)

_RULES = 1  # raised when the same rows are to be judged differently


class _CheckedPart(BaseModel):
    """One part's manifest: digests vouch for the two files beside it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: str
    part: str
    rows_in: int
    rows_accepted: int
    rows_quarantined: int
    reasons: dict[str, int]
    accepted_digest: str
    quarantined_digest: str


def validate(spec: PipelineSpec, snapshot: Snapshot, home: Home) -> Validated:
    """Check every part against the schema; parts that were checked by the same rules before are not checked again.

    Uniqueness is judged within a part.

    Raises:
        SchemaError: a column is missing, or a whole column has the wrong type.
        RowsLost: rows in are not rows accepted plus rows quarantined.
    """
    rules = _rules(spec, snapshot)
    checked = [_checked(spec, part, snapshot, home, rules) for part in snapshot.parts]
    name = fingerprint(snapshot.fingerprint, [entry.fingerprint for entry in checked])
    path = home.data(spec.name) / "validated" / f"{name}.json"
    known = read_record(path, Validated)
    if known is not None:
        return known.model_copy(update={"as_of": snapshot.as_of})
    validated = _merged(spec, snapshot, name, checked, home)
    write_record(path, validated)
    return validated


def _merged(spec: PipelineSpec, snapshot: Snapshot, name: str, checked: list[_CheckedPart], home: Home) -> Validated:
    folders = [home.relative(_folder(spec, entry.fingerprint, home)) for entry in checked]
    reasons: Counter[str] = Counter()
    for entry in checked:
        reasons.update(entry.reasons)
    validated = Validated(
        pipeline=spec.name,
        fingerprint=name,
        parent=snapshot.fingerprint,
        as_of=snapshot.as_of,
        accepted=tuple(f"{folder}/accepted.parquet" for folder in folders),
        quarantined=tuple(f"{folder}/quarantined.parquet" for folder in folders),
        rows_in=snapshot.rows,
        rows_accepted=sum(entry.rows_accepted for entry in checked),
        rows_quarantined=sum(entry.rows_quarantined for entry in checked),
        reasons=dict(reasons.most_common()),
        casts=changed_types([part.columns for part in snapshot.parts], spec.schema),
    )
    _count(validated.rows_in, validated.rows_accepted, validated.rows_quarantined, f"snapshot {snapshot.fingerprint}")
    return validated


def _count(rows_in: int, accepted: int, quarantined: int, what: str) -> None:
    if rows_in != accepted + quarantined:
        raise RowsLost(
            f"{what}: {rows_in} rows came in, {accepted} were accepted and {quarantined} quarantined. Remove the "
            f"pipeline's validated/ folder and run again; if it stays so, this is a bug of ours."
        )


def _folder(spec: PipelineSpec, name: str, home: Home) -> Path:
    return home.data(spec.name) / "validated" / name


def _rules(spec: PipelineSpec, snapshot: Snapshot) -> str:
    """What the verdict on a row depends on beside the row: schema, derive (their files' text), references."""
    code = [_code(spec.schema), _code(spec.derive) if spec.derive is not None else ""]
    labelled = any(part.label for part in snapshot.parts)
    # The text of a schema may hold addresses of functions: those change with every process.
    schema = re.sub(r" at 0x[0-9a-f]+", "", str(spec.schema.to_schema()))
    return fingerprint(_RULES, schema, code, snapshot.references, spec.source.null_values, labelled)


def _code(thing: Any) -> str:
    try:
        return file_digest(Path(inspect.getfile(thing)))
    except (TypeError, OSError):  # made in a shell: its name must do
        return repr(thing)


# ------------------------------------------------------------------------------------------------------------ one part


def _checked(spec: PipelineSpec, part: Part, snapshot: Snapshot, home: Home, rules: str) -> _CheckedPart:
    name = fingerprint(part.fingerprint, rules)
    folder = _folder(spec, name, home)
    known = read_record(folder / "manifest.json", _CheckedPart)
    if known is not None and _is_whole(folder, known):
        return known
    accepted, quarantined = _split(spec, part, snapshot, home)
    atomic_parquet(folder / "accepted.parquet", accepted)
    atomic_parquet(folder / "quarantined.parquet", quarantined)
    kinds = Counter(kind for row in quarantined["reasons"].to_list() for kind in set(map(reason_kind, row)))
    checked = _CheckedPart(
        fingerprint=name,
        part=part.fingerprint,
        rows_in=part.rows,
        rows_accepted=accepted.height,
        rows_quarantined=quarantined.height,
        reasons=dict(kinds.most_common()),
        accepted_digest=file_digest(folder / "accepted.parquet"),
        quarantined_digest=file_digest(folder / "quarantined.parquet"),
    )
    _count(checked.rows_in, checked.rows_accepted, checked.rows_quarantined, part.file)
    write_record(folder / "manifest.json", checked)
    return checked


def _is_whole(folder: Path, known: _CheckedPart) -> bool:
    wanted = {"accepted.parquet": known.accepted_digest, "quarantined.parquet": known.quarantined_digest}
    return all(is_whole(folder / name, digest) for name, digest in wanted.items())


def _split(spec: PipelineSpec, part: Part, snapshot: Snapshot, home: Home) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The part's accepted and quarantined rows, each with ``row_id``."""
    raw = read_table(home.absolute(part.path))
    if raw is None:
        raise UnreadableFile(
            f"{home.absolute(part.path)} ({part.file}) is missing or damaged. Ingest again: it is made anew."
        )
    references = {name: pl.scan_parquet(home.absolute(path)) for name, path in snapshot.references.items()}
    try:
        checked = check_rows(
            raw,
            spec.schema,
            derive=spec.derive,
            references=references,
            null_values=spec.source.null_values,
            label=part.label,
        )
    except SchemaError as error:
        raise SchemaError(f"{part.file} ({spec.name}): {error}") from error
    row_id = pl.concat_str(pl.lit(f"{part.fingerprint}:"), pl.col(ROW).cast(pl.String)).alias("row_id")
    extra = [row_id, pl.lit(part.ingested_at).cast(pl.Datetime("us", "UTC")).alias("ingested_at")]
    if any(entry.label for entry in snapshot.parts):
        extra.append(pl.lit(part.label).alias(LABEL))
    accepted = checked.accepted.with_columns(extra).drop(ROW)
    quarantined = checked.quarantined.select(
        row_id, pl.lit(part.file).alias("file"), pl.col(ROW).cast(pl.Int64).alias("row"), "reasons", "raw"
    )
    return accepted, quarantined
