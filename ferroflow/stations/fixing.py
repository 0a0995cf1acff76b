"""From "these refused rows, these values" to a correction: which raw cells of which rows become what."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from ferroflow.adapters import corrections
from ferroflow.adapters.corrections import Change, Correction
from ferroflow.adapters.home import Home
from ferroflow.core.columns import LINE, RESERVED, ROW
from ferroflow.core.errors import NotFound, UsageError
from ferroflow.core.records import Part
from ferroflow.core.refusals import MASK
from ferroflow.core.spec import PipelineSpec
from ferroflow.stations.checked import Checking, corrected_rows, row_id
from ferroflow.stations.replay import Replayed, judged_last, newest_snapshot, refused, rehearsal, replay

_FORMULA = re.compile(r"[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Fix:
    """What is to become of refused rows; ``sets``: column -> new text (None: empty); ``maps``: (column, old, new)."""

    sets: Mapping[str, str | None]
    maps: tuple[tuple[str, str, str | None], ...] = ()
    line: str | None = None


def refused_rows(
    spec: PipelineSpec, home: Home, *, reason: str | None = None, limit: int | None = None
) -> pl.DataFrame:
    """Refused rows of the newest snapshot, as their quarantine files hold them.

    Args:
        reason: only rows with this text in one of their reasons.
        limit: at most so many.

    Raises:
        NotFound: there is no snapshot yet.
    """
    rows = refused(judged_last(spec, newest_snapshot(spec.name, home), home), home)
    rows = with_reason(rows, reason)
    return (rows if limit is None else rows.head(limit)).collect()


def with_reason(rows: pl.LazyFrame, reason: str | None) -> pl.LazyFrame:
    """Those of quarantined rows that have this text in one of their reasons; None: all."""
    told = pl.element().str.contains(reason or "", literal=True)
    return rows.filter(pl.col("reasons").list.eval(told).list.any()) if reason else rows


def raw_rows(spec: PipelineSpec, home: Home, row_ids: Iterable[str], *, masked: bool) -> pl.DataFrame:
    """Raw cells as text, in the raw columns' own names, under the present corrections.

    Args:
        masked: personal cells (and lines that may hold one) are told as ``***``.

    Returns:
        ``row_id``, the raw columns of all these rows' files, and ``_line`` where one of them came as text: the line of
        a row that is none.

    Raises:
        NotFound: no such row.
    """
    snapshot = newest_snapshot(spec.name, home)
    changes = corrections.changes(home, spec.name, corrections.current(home, spec.name))
    checking = Checking(spec, snapshot, home, "", changes)
    wanted: dict[str, list[int]] = {}
    names = list(row_ids)
    for name in names:
        part, row = corrections.parsed(name)
        wanted.setdefault(part, []).append(row)
    known = {part.fingerprint: part for part in snapshot.parts}
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise NotFound(f"The newest snapshot of {spec.name!r} ({snapshot.fingerprint}) has no part {unknown[0]!r}.")
    frames = [_texts(checking, part, wanted[name], masked) for name, part in known.items() if name in wanted]
    there = {row_id for frame in frames for row_id in frame["row_id"]}
    gone = next((name for name in names if name not in there), None)
    if gone is not None:
        raise NotFound(f"No row {gone!r} in the newest snapshot of {spec.name!r}. See ferroflow quarantine show.")
    return pl.concat(frames, how="diagonal") if frames else pl.DataFrame(schema={"row_id": pl.String})


def changes_of(spec: PipelineSpec, home: Home, row_ids: Iterable[str], fix: Fix) -> dict[str, Change]:
    """What the fix changes: a ``sets`` column in each of the rows, a ``maps`` column where it holds the old value."""
    found: dict[str, Change] = {}
    for row in raw_rows(spec, home, row_ids, masked=False).iter_rows(named=True):
        cells = dict(fix.sets)
        for column, old, new in fix.maps:
            if column not in row:
                raise NotFound(f"No raw column {column!r} in these rows. They have: {', '.join(_columns(row))}.")
            if (row[column] or "").strip() == old.strip():
                cells[column] = new
        if cells or fix.line is not None:
            found[row["row_id"]] = Change(cells=cells, line=fix.line)
    return found


def changes_in(spec: PipelineSpec, home: Home, edited: Path) -> dict[str, Change]:
    """What was changed in a CSV file that ``quarantine show --csv`` wrote; a cell made empty is missing then.

    Raises:
        NotFound: the file is not there, or names a row that is not.
        UsageError: it is no such CSV.
    """
    try:
        after = pl.read_csv(edited, infer_schema=False)
    except FileNotFoundError as error:
        raise NotFound(f"{edited} is not there. Write it first: ferroflow quarantine show --csv {edited}") from error
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UsageError(f"{edited} is no readable CSV file: {error}") from error
    if "row_id" not in after.columns or not after["row_id"].is_unique().all():
        raise UsageError(f"{edited} needs the column row_id, with each row once, as quarantine show --csv writes it.")
    before = raw_rows(spec, home, after["row_id"], masked=True)
    unknown = [name for name in after.columns if name not in before.columns]
    if unknown:
        raise NotFound(f"{edited} has columns that the raw rows have not: {', '.join(unknown)}.")
    old = {row["row_id"]: row for row in before.iter_rows(named=True)}
    found = {}
    for row in after.iter_rows(named=True):
        was = old[row["row_id"]]
        texts = {name: _unguarded(text, was[name]) for name, text in row.items()}
        edits = {name: text for name, text in texts.items() if (text or "") != (was[name] or "") and text != MASK}
        line = edits.pop(LINE, None)
        if edits or line is not None:
            found[row["row_id"]] = Change(cells={name: text or None for name, text in edits.items()}, line=line)
    return found


def guarded(text: str) -> str:
    """Text that a spreadsheet does not take for a formula: with an apostrophe before it where it would."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def _unguarded(text: str | None, was: str | None) -> str | None:
    """Without the apostrophe, exactly where ``guarded`` put one before the cell that was."""
    added = was is not None and guarded(was) != was
    return text.removeprefix("'") if added and text is not None else text


def fix(
    spec: PipelineSpec, home: Home, changes: Mapping[str, Change], *, why: str, made_at: datetime
) -> Correction | None:
    """Record a correction of raw rows; None where it changes nothing. ``replay`` brings it to bear.

    Raises:
        NotFound: no such row or column.
        UsageError: a value cannot be of its column's type, or a row can only be corrected as a line, or not at all.
    """
    parts = {part.fingerprint: part for part in newest_snapshot(spec.name, home).parts}
    return corrections.record(home, spec.name, changes, parts, why=why, made_at=made_at)


def rehearse(spec: PipelineSpec, home: Home, changes: Mapping[str, Change], *, why: str, made_at: datetime) -> Replayed:
    """What a replay would tell if this correction were recorded; nothing is kept. Raises as ``fix`` does."""
    with rehearsal(spec.name, home) as scratch:
        fix(spec, scratch, changes, why=why, made_at=made_at)
        return replay(spec, scratch, now=made_at)


def _texts(checking: Checking, part: Part, rows: list[int], masked: bool) -> pl.DataFrame:
    raw = corrected_rows(checking, part)
    schema = raw.collect_schema()
    names = [name for name in schema.names() if name not in RESERVED]
    hidden = set(checking.spec.personal) if masked else set()
    cells = [_text(name, schema[name], name in hidden) for name in names]
    if LINE in schema:
        line = pl.when(pl.col(LINE).is_not_null()).then(pl.lit(MASK)) if hidden else pl.col(LINE)
        cells.append(line.alias(LINE))
    return raw.filter(pl.col(ROW).is_in(rows)).select(row_id(part), *cells).collect()


def _text(name: str, dtype: pl.DataType, hidden: bool) -> pl.Expr:
    cell = pl.col(name)
    if hidden:
        return pl.when(cell.is_not_null()).then(pl.lit(MASK)).alias(name)
    if dtype == pl.Binary:
        return cell.bin.encode("hex")
    return cell.struct.json_encode() if isinstance(dtype, pl.Struct) else _listed(cell, dtype)


def _listed(cell: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Lists are shown, and cannot be edited: they have no plain text."""
    if isinstance(dtype, pl.List | pl.Array):
        items = cell.cast(pl.List(pl.String)).list.join(", ")
        return pl.concat_str(pl.lit("["), items, pl.lit("]"))
    return cell.cast(pl.String)


def _columns(row: Mapping[str, object]) -> list[str]:
    return [name for name in row if name not in ("row_id", LINE)]
