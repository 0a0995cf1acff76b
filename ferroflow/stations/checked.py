"""One raw part, checked: two Parquet files and a manifest that vouches for them, named by what the verdicts depend on.

The rows are read, corrected, cast, cleaned, derived, judged and written in one stream; only their numbers are held.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import polars as pl
from pydantic import BaseModel, ConfigDict

from ferroflow.adapters.corrections import Change, laid_over
from ferroflow.adapters.home import Home
from ferroflow.adapters.sources.files import ReadOptions, format_of
from ferroflow.adapters.sources.messages import MESSAGE_ID
from ferroflow.adapters.storage import atomic_parquet, is_whole, read_record, write_record
from ferroflow.core.columns import LABEL, LINE, PROBLEM, RESERVED, ROW, schema_columns
from ferroflow.core.errors import SchemaError, SpecError, UnreadableFile
from ferroflow.core.evolution import Evolved, judge
from ferroflow.core.fingerprint import file_digest, fingerprint
from ferroflow.core.records import Part, Snapshot
from ferroflow.core.refusals import RAW, Explanation
from ferroflow.core.spec import PipelineSpec
from ferroflow.core.validation import judging, plan_rows
from ferroflow.stations.accounted import height, sink, writing

logger = logging.getLogger(__name__)

SUPERSEDED = "row: superseded by "
"""How the reason of a row begins whose key came again; the ``row_id`` of the last one follows."""
_ONE_PASS = 1_000_000  # rows; beyond them memory counts more than time
_FOLLOWING = "quarantined.next.parquet"
_TOLD = {ROW: pl.UInt32(), "reasons": pl.List(pl.String), "raw": pl.String()}


class CheckedPart(BaseModel):
    """One part's manifest: digests vouch for the two files beside it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: str
    part: str
    rows_in: int
    rows_accepted: int
    rows_quarantined: int
    reasons: dict[str, int]
    warnings: dict[str, int]
    cleaned: dict[str, int]
    accepted_digest: str
    quarantined_digest: str


@dataclass(frozen=True)
class Checking:
    """What all parts of a snapshot are checked with. ``rules`` names everything a verdict depends on but the row."""

    spec: PipelineSpec
    snapshot: Snapshot
    home: Home
    rules: str
    changes: Mapping[str, Mapping[int, Change]]
    derived: dict[tuple[str, ...], frozenset[str]] = field(default_factory=dict)  # what was found for such columns

    @property
    def references(self) -> dict[str, pl.LazyFrame]:
        """The reference tables by name."""
        return {name: pl.scan_parquet(self.home.absolute(path)) for name, path in self.snapshot.references.items()}

    def folder(self, name: str) -> Path:
        """Where the files of that name lie."""
        return self.home.data(self.spec.name) / "validated" / name


def checked_part(checking: Checking, part: Part) -> CheckedPart:
    """The part's files: found whole, or made.

    Raises:
        SchemaError: a column is missing or has the wrong type, or the declared policy stops at a difference.
        SpecError: ``derive`` drops or multiplies rows.
        UnreadableFile: the raw part is missing or damaged.
        RowsLost: rows in are not rows accepted plus rows quarantined.
    """
    changed = checking.changes.get(part.fingerprint, {})
    laid = {row: change.name for row, change in changed.items()}
    name = fingerprint(part.fingerprint, checking.rules, laid)
    known = whole(checking.folder(name), part)
    if known is not None:
        return known
    path = checking.home.absolute(part.path)
    if not is_whole(path, part.digest):
        raise UnreadableFile(f"{path} ({part.file}) is missing or damaged. Ingest again: it is made anew.")
    raw, evolved = evolved_rows(checking, part)
    try:
        if evolved.stop is not None:
            raise SchemaError(evolved.stop)
        return _made(checking, part, name, raw, evolved)
    except (SchemaError, SpecError) as error:
        raise type(error)(f"{part.file} ({checking.spec.name}): {error}") from error


def whole(folder: Path, part: Part) -> CheckedPart | None:
    """The manifest in a folder, where it and the files it vouches for are what was written."""
    known = read_record(folder / "manifest.json", CheckedPart)
    if known is None:
        return None
    _complete(folder, known)
    if (known.fingerprint, known.part) != (folder.name, part.fingerprint):
        logger.warning("%s is not what was written and is made again", folder / "manifest.json")
        return None
    wanted = {"accepted.parquet": known.accepted_digest, "quarantined.parquet": known.quarantined_digest}
    return known if all(is_whole(folder / name, digest) for name, digest in wanted.items()) else None


def rewrite_quarantined(folder: Path, known: CheckedPart, rows: pl.DataFrame) -> None:
    """Give a part's folder another quarantine file of as many rows; a kill in between leaves what ``whole`` completes.

    The new file lies ready before the manifest that vouches for it is written, and takes its place after that.
    """
    following = folder / _FOLLOWING
    atomic_parquet(following, rows)
    manifest = known.model_copy(update={"quarantined_digest": file_digest(following)})
    write_record(folder / "manifest.json", manifest)
    _complete(folder, manifest)


def _complete(folder: Path, known: CheckedPart) -> None:
    following = folder / _FOLLOWING
    if following.is_file():
        if file_digest(following) == known.quarantined_digest:
            following.replace(folder / "quarantined.parquet")
        else:
            following.unlink(missing_ok=True)


def corrected_rows(checking: Checking, part: Part) -> pl.LazyFrame:
    """The part's raw rows with its corrections, in the raw columns' own names."""
    raw = pl.scan_parquet(checking.home.absolute(part.path))
    changed = checking.changes.get(part.fingerprint, {})
    return laid_over(raw, changed, _line_options(checking.spec, part), part.file) if changed else raw


def evolved_rows(checking: Checking, part: Part) -> tuple[pl.LazyFrame, Evolved]:
    """The part's raw rows, corrected and with the schema's names, and what its columns mean."""
    spec = checking.spec
    raw = corrected_rows(checking, part)
    renamed = {old: new for old, new in spec.source.evolution.renamed.items() if old in part.columns}
    came = (*(renamed.get(name, name) for name in part.columns), *([LABEL] if part.label else []))
    if came not in checking.derived:
        checking.derived[came] = frozenset(_derived(checking, part, raw, renamed))
    # The id that a stream gives each message is ours: no schema has to name it.
    own = {name: kind for name, kind in part.columns.items() if part.origin != "stream" or name != MESSAGE_ID}
    evolved = judge(own, spec.schema, checking.derived[came], spec.source.evolution)
    for difference in evolved.differences:
        logger.info("%s: %s", part.file, difference)
    return raw.rename(evolved.rename), evolved


def extra_columns(checking: Checking, part: Part) -> list[pl.Expr]:
    """What accepted rows get: their id, when they came, the label of their file."""
    extra = [row_id(part), pl.lit(part.ingested_at).cast(pl.Datetime("us", "UTC")).alias("ingested_at")]
    if any(entry.label for entry in checking.snapshot.parts):
        extra.append(pl.lit(part.label).alias(LABEL))
    return extra


def row_id(part: Part) -> pl.Expr:
    """The name of a row for ever."""
    return pl.concat_str(pl.lit(f"{part.fingerprint}:"), pl.col(ROW).cast(pl.String)).alias("row_id")


def quarantine_columns(part: Part) -> list[pl.Expr]:
    """The columns of a quarantine file, of rows that were explained."""
    return [
        row_id(part),
        pl.lit(part.file).alias("file"),
        pl.col(ROW).cast(pl.Int64).alias("row"),
        pl.col("reasons", "raw"),
    ]


def raw_cells(checking: Checking, raw: pl.LazyFrame, reason: str) -> tuple[pl.LazyFrame, Explanation]:
    """Raw rows that are all refused for one reason, and what explains them."""
    names = [name for name in raw.collect_schema().names() if name not in RESERVED]
    marks = [name for name in (PROBLEM, LINE) if name in raw.collect_schema()]
    cells = (pl.col(name).alias(RAW + name) for name in names)
    refused = raw.select(pl.col(ROW).cast(pl.UInt32), *marks, pl.lit(1, pl.UInt64).alias("_word0"), *cells)
    return refused, Explanation((), (reason,), tuple(names), personal(checking.spec))


def personal(spec: PipelineSpec) -> frozenset[str]:
    """The personal columns by all names that they have."""
    renamed = spec.source.evolution.renamed
    return frozenset(spec.personal) | {renamed[name] for name in spec.personal if name in renamed}


def reason_kinds(quarantined: pl.LazyFrame) -> dict[str, int]:
    """Rows for each kind of reason, most frequent first: reasons without cells' values and other rows' names."""
    rows = quarantined.select("row_id", "reasons").explode("reasons")
    kinds = rows.select("row_id", kind_of(pl.col("reasons")).alias("kind")).unique()
    counted = kinds.group_by("kind").len().sort("len", "kind", descending=[True, False]).collect()
    return dict(counted.iter_rows())


def kind_of(reason: pl.Expr) -> pl.Expr:
    """A reason without the cell's own value or the other row's name, so that equal kinds can be counted."""
    head = reason.str.splitn(": '", 2).struct.field("field_0")
    return (
        pl.when(head.str.contains(": not a ", literal=True))
        .then(head)
        .when(reason.str.starts_with(SUPERSEDED))
        .then(pl.lit("row: superseded"))
        .when(reason.str.starts_with("row: duplicate of row "))
        .then(pl.lit("row: duplicate"))
        .otherwise(reason)
    )


def vouch(
    checking: Checking, part: Part, name: str, *, warnings: dict[str, int], cleaned: dict[str, int]
) -> CheckedPart:
    """Write the manifest of the two files in their places."""
    folder = checking.folder(name)
    accepted, quarantined = folder / "accepted.parquet", folder / "quarantined.parquet"
    manifest = CheckedPart(
        fingerprint=name,
        part=part.fingerprint,
        rows_in=part.rows,
        rows_accepted=height(accepted),
        rows_quarantined=height(quarantined),
        reasons=reason_kinds(pl.scan_parquet(quarantined)),
        warnings=warnings,
        cleaned=cleaned,
        accepted_digest=file_digest(accepted),
        quarantined_digest=file_digest(quarantined),
    )
    write_record(folder / "manifest.json", manifest)
    return manifest


# -------------------------------------------------------------------------------------------------------------- making


def _made(checking: Checking, part: Part, name: str, raw: pl.LazyFrame, evolved: Evolved) -> CheckedPart:
    if evolved.quarantine is not None:
        return _refused_whole(checking, part, name, raw, f"file: {evolved.quarantine}")
    spec = checking.spec
    plan = plan_rows(
        raw,
        spec.schema,
        derive=spec.derive,
        references=checking.references,
        null_values=spec.source.null_values,
        label=part.label,
        cleaning=spec.cleaning,
        absent=evolved.absent,
        personal=sorted(personal(spec)),
    )
    accepted = plan.accepted.with_columns(extra_columns(checking, part)).drop(ROW)
    with writing(checking.folder(name), part) as (good, bad), judging(hidden=bool(spec.personal)):
        _, early, before, late, after = _collected([sink(accepted, good)], plan.early, plan.late, rows=part.rows)
        tally = plan.tally(before, after)
        quarantined = plan.refused(early, late).select(quarantine_columns(part))
        sink(quarantined, bad).collect(engine="streaming")
    return vouch(checking, part, name, warnings=tally.warnings, cleaned=tally.cleaned)


def _collected(*ends: Sequence[pl.LazyFrame], rows: int) -> list[pl.DataFrame]:
    """All in one pass, or one pass each: while a file is written, Polars keeps what it has not taken yet."""
    passes = [list(chain(*ends))] if rows <= _ONE_PASS else ends
    return [frame for together in passes for frame in pl.collect_all(list(together), engine="streaming")]


def _refused_whole(checking: Checking, part: Part, name: str, raw: pl.LazyFrame, why: str) -> CheckedPart:
    """All rows in quarantine; a line that makes no row says so too."""
    refused, explanation = raw_cells(checking, raw, why)
    told = refused.map_batches(explanation.told, schema=pl.Schema(_TOLD), streamable=True)
    reasons = pl.concat_list("reasons", pl.lit(why)).list.unique().list.sort()
    with writing(checking.folder(name), part) as (good, bad):
        columns = {column: entry.dtype for column, entry in schema_columns(checking.spec.schema).items()}
        nothing = pl.LazyFrame(schema={ROW: pl.UInt32(), **columns}).with_columns(extra_columns(checking, part))
        bad_rows = told.with_columns(reasons).select(quarantine_columns(part))
        pl.collect_all([sink(nothing.drop(ROW), good), sink(bad_rows, bad)], engine="streaming")
    return vouch(checking, part, name, warnings={}, cleaned={})


def _derived(checking: Checking, part: Part, raw: pl.LazyFrame, renamed: Mapping[str, str]) -> set[str]:
    """The columns of the schema that ``derive`` (or the file's label) makes of what came, found without a row.

    Where it cannot be told what ``derive`` lacks, all that did not come: then judging the rows tells the fault.
    """
    spec = checking.spec
    labelled = {LABEL} if part.label else set()
    if spec.derive is None:
        return labelled
    columns = schema_columns(spec.schema)
    came = {renamed.get(name, name): dtype for name, dtype in raw.collect_schema().items() if name in part.columns}
    given = {name: columns[name].dtype if name in columns else dtype for name, dtype in came.items()}
    if part.label:
        given[LABEL] = pl.String()
    absent = {name for name in columns if name not in given} | labelled
    while True:
        try:
            made = spec.derive(pl.LazyFrame(schema={ROW: pl.UInt32(), **given}), checking.references).collect_schema()
        except pl.exceptions.ColumnNotFoundError as error:
            lacked = next((name for name in absent - given.keys() if _names(error, name)), None)
            if lacked is None:
                return absent
            given[lacked] = columns[lacked].dtype
        except pl.exceptions.PolarsError:
            return absent
        else:
            return {name for name in made.names() if name in absent and name not in given} | labelled


def _names(error: Exception, column: str) -> bool:
    """Whether the error's first words are about that column (a list of the valid ones may follow)."""
    head = re.split(r"[;\n]", str(error), maxsplit=1)[0]
    return column == head or f'"{column}"' in head or f"`{column}`" in head


def _line_options(spec: PipelineSpec, part: Part) -> ReadOptions:
    """How one line of the part's file is read."""
    form = "ndjson" if spec.source.stream is not None else format_of(part.file, spec.source.format)
    return ReadOptions(form or "csv", separator=spec.source.separator)
