"""Corrections of raw rows: append-only files below ``data/<pipeline>/corrections/``, laid over the rows before casting.

Each file vouches for itself and for the one before it, so one that is damaged, or gone from between others, is an
error and never another result. Raw parts stay as they are.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import polars as pl
from pydantic import BaseModel, ConfigDict

from ferroflow.adapters.home import Home
from ferroflow.adapters.locks import locked
from ferroflow.adapters.sources.files import ReadOptions, read_frame
from ferroflow.adapters.storage import parse_record, write_record
from ferroflow.core.casting import Cast
from ferroflow.core.columns import LINE, PROBLEM, RESERVED, ROW, Column
from ferroflow.core.errors import DataError, FerroflowError, NotFound, UsageError
from ferroflow.core.fingerprint import fingerprint
from ferroflow.core.records import Part

EXPIRED = "expired"
"""The problem of a row whose raw values were removed for good: nothing corrects it."""

_FILE = re.compile(r"\d{6}\.json")


class Change(BaseModel):
    """What becomes of one raw row: its line anew (of text formats), and then single cells (None: empty).

    ``digest`` names values that are not here: those removed for good with the row's own, and, of several changes put
    together, each of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cells: dict[str, str | None] = {}
    line: str | None = None
    digest: str = ""

    @property
    def name(self) -> str:
        """The fingerprint of its values, the same after they were removed."""
        return self.digest or fingerprint(self.cells, self.line)

    def same_values(self, other: Change) -> bool:
        """Whether a row is the same after either."""
        return (self.cells, self.line) == (other.cells, other.line)

    def then(self, later: Change) -> Change:
        """Both, one after the other: a new line undoes all cells before it."""
        anew = later.line is not None
        return Change(
            cells=later.cells if anew else self.cells | later.cells,
            line=later.line if anew else self.line,
            digest=fingerprint(self.name, later.name),
        )


class Correction(BaseModel):
    """One file: rows that were corrected at one moment for one reason."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: str  # of everything below
    parent: str  # the correction's before it; "" for the first
    made_at: datetime
    why: str
    rows: dict[str, Change]  # row_id -> what becomes of it

    @property
    def content(self) -> str:
        """The fingerprint that it should have."""
        rows = {row_id: change.name for row_id, change in self.rows.items()}
        return fingerprint(self.parent, self.made_at.isoformat(), self.why, rows)


Changes = dict[str, dict[int, Change]]
"""Part -> row -> its change, all corrections of it put together."""


def current(home: Home, pipeline: str) -> str:
    """The fingerprint of all corrections of a pipeline; "" when there is none.

    Raises:
        DataError: a file of them is damaged or missing.
    """
    every = history(home, pipeline)
    return every[-1].fingerprint if every else ""


def history(home: Home, pipeline: str) -> list[Correction]:
    """All corrections, the first one first.

    Raises:
        DataError: a file of them is damaged or missing.
    """
    folder = _folder(home, pipeline)
    found: list[Correction] = []
    for number, path in enumerate(sorted(path for path in folder.glob("*.json") if _FILE.fullmatch(path.name)), 1):
        if path.name != _name(number):
            raise DataError(f"{folder / _name(number)} is missing: corrections are never removed. Put the file back.")
        try:
            correction = parse_record(path.read_bytes(), Correction)
        except ValueError as error:
            raise DataError(f"{path} is no correction that was written here ({error}). Put the file back.") from error
        if correction.fingerprint != correction.content or correction.parent != (
            found[-1].fingerprint if found else ""
        ):
            raise DataError(f"{path} is not what was written. Put the file back.")
        found.append(correction)
    return found


def changes(home: Home, pipeline: str, upto: str) -> Changes:
    """All corrections up to the one with the fingerprint ``upto`` ("": none), put together.

    Raises:
        DataError: there is none of that fingerprint, or a file is damaged or missing.
    """
    every = history(home, pipeline) if upto else []
    names = [correction.fingerprint for correction in every]
    if upto and upto not in names:
        raise DataError(
            f"The corrections up to {upto} are not in {_folder(home, pipeline)}: a file was removed. Put it back, or "
            f"make a new snapshot: ferroflow quarantine replay {pipeline}"
        )
    together: Changes = {}
    for correction in every[: names.index(upto) + 1] if upto else []:
        for row_id, change in correction.rows.items():
            part, row = parsed(row_id)
            rows = together.setdefault(part, {})
            rows[row] = rows[row].then(change) if row in rows else change
    return together


def record(
    home: Home, pipeline: str, rows: Mapping[str, Change], parts: Mapping[str, Part], *, why: str, made_at: datetime
) -> Correction | None:
    """Write a correction; None, and nothing is written, where it changes nothing that the earlier ones did not.

    Args:
        rows: row_id -> its change.
        parts: the pipeline's raw parts by fingerprint.
        why: kept with it.
        made_at: kept with it.

    Raises:
        NotFound: no such row or column.
        UsageError: a value cannot be of its column's type, or the row can only be corrected as a line (or not at all).
        DataError: an earlier correction is damaged or missing.
    """
    with locked(_folder(home, pipeline) / "corrections"):
        every = history(home, pipeline)
        parent = every[-1].fingerprint if every else ""
        before = changes(home, pipeline, parent)
        known = {row_id: _known(before, row_id) for row_id in rows}
        together = {row_id: known[row_id].then(change) for row_id, change in rows.items()}
        _check(home, together, parts)
        new = {row_id: change for row_id, change in rows.items() if not together[row_id].same_values(known[row_id])}
        if not new:
            return None
        correction = Correction(fingerprint="", parent=parent, made_at=made_at, why=why, rows=dict(sorted(new.items())))
        correction = correction.model_copy(update={"fingerprint": correction.content})
        write_record(_folder(home, pipeline) / _name(len(every) + 1), correction)
    return correction


def expire(home: Home, pipeline: str, row_ids: Collection[str]) -> None:
    """Remove the values that these rows were corrected to; that they were corrected stays known.

    Raises:
        DataError: a correction is damaged or missing.
    """
    folder = _folder(home, pipeline)
    if not folder.is_dir():
        return
    with locked(folder / "corrections"):
        for number, correction in enumerate(history(home, pipeline), 1):
            rows = {
                row_id: Change(digest=change.name) if row_id in row_ids else change
                for row_id, change in correction.rows.items()
            }
            if rows != correction.rows:
                write_record(folder / _name(number), correction.model_copy(update={"rows": rows}))


def laid_over(raw: pl.LazyFrame, rows: Mapping[int, Change], options: ReadOptions, file: str) -> pl.LazyFrame:
    """The raw rows of a part with its corrections; an expired row stays as it is.

    Args:
        raw: the part's rows with ``_row``.
        rows: the part's changes.
        options: how one line of the file is read; its columns are those of the part.
        file: what errors call it.

    Raises:
        UsageError: a value cannot be of its column's type.
    """
    schema = raw.collect_schema()
    cells: dict[str, dict[int, object]] = {}
    for row, change in rows.items():
        for name, value in _new_cells(change, schema, options, file).items():
            cells.setdefault(name, {})[row] = value
    expired = pl.col(PROBLEM).eq_missing(pl.lit(EXPIRED)) if PROBLEM in schema else pl.lit(False)
    return raw.with_columns(_replaced(name, new, schema[name], expired) for name, new in cells.items())


def parsed(row_id: str) -> tuple[str, int]:
    """The part and the row of a ``row_id``.

    Raises:
        NotFound: it has not that form.
    """
    part, _, row = row_id.rpartition(":")
    if not part or not row.isdecimal():
        raise NotFound(f"{row_id!r} is no row_id: it is <part>:<row>, as ferroflow quarantine show --json tells it.")
    return part, int(row)


def from_text(text: str | None, name: str, dtype: pl.DataType) -> object:
    """A cell's new value in the raw column's type; bytes are given as hexadecimal digits.

    Raises:
        UsageError: the text is no value of that type.
    """
    if text is None or dtype == pl.String:
        return text
    try:
        if dtype == pl.Binary:
            return bytes.fromhex(text)
        cast = Cast(name, pl.String(), Column(name, dtype, nullable=True, required=True)).typed()
        value = pl.DataFrame({name: [text.strip()]}).select(cast).item()
    except (pl.exceptions.PolarsError, ValueError):
        value = None
    if value is None:
        raise UsageError(f"{name}={text!r}: column {name!r} came as {dtype}, and that is no {dtype}.")
    return value


# ------------------------------------------------------------------------------------------------------------ checking


def _check(home: Home, rows: Mapping[str, Change], parts: Mapping[str, Part]) -> None:
    by_part: dict[str, dict[int, Change]] = {}
    for row_id, change in rows.items():
        part, row = parsed(row_id)
        if part not in parts:
            raise NotFound(f"No row {row_id!r}: no raw part is named {part!r}. See ferroflow quarantine show.")
        by_part.setdefault(part, {})[row] = change
    for name, wanted in by_part.items():
        _check_part(home, parts[name], wanted)


def _check_part(home: Home, part: Part, wanted: Mapping[int, Change]) -> None:
    raw = pl.scan_parquet(home.absolute(part.path))
    schema = raw.collect_schema()
    columns = [name for name in schema.names() if name not in RESERVED]
    is_text = LINE in schema and all(schema[name] == pl.String for name in columns)
    keep = [ROW, PROBLEM] if PROBLEM in schema else [ROW]
    there = raw.select(keep).filter(pl.col(ROW).is_in(list(wanted))).collect()
    problems = dict(zip(there[ROW], there[PROBLEM] if PROBLEM in schema else [None] * there.height, strict=True))
    for row, change in wanted.items():
        where = f"Row {part.fingerprint}:{row} ({part.file})"
        if row not in problems:
            raise NotFound(f"{where} is not there.")
        if problems[row] == EXPIRED:
            raise UsageError(f"{where} has expired: its raw values were removed, nothing can be corrected.")
        if change.line is not None and not is_text:
            raise UsageError(f"{where} did not come as a line of text: set its columns.")
        if change.line is None and problems[row] is not None:
            raise UsageError(f"{where} is no row ({problems[row]}): give its whole line.")
        for name, text in change.cells.items():
            if name not in columns:
                raise NotFound(f"{where} has no raw column {name!r}. It has: {', '.join(columns)}.")
            from_text(text, name, schema[name])


def _known(before: Changes, row_id: str) -> Change:
    part, row = parsed(row_id)
    return before.get(part, {}).get(row, Change())


# ---------------------------------------------------------------------------------------------------------- laying over


def _new_cells(change: Change, schema: pl.Schema, options: ReadOptions, file: str) -> dict[str, object]:
    cells = {} if change.line is None else _read_line(change.line, schema, options, file)
    typed = {name: from_text(text, name, schema[name]) for name, text in change.cells.items()}
    return cells | typed


def _read_line(line: str, schema: pl.Schema, options: ReadOptions, file: str) -> dict[str, object]:
    """The cells, the problem and the line itself as the source's reader sees them."""
    # Columns after these come from the names of the file's folders: no line changes them.
    columns = schema.names()[1 : schema.names().index(PROBLEM)]
    nothing: dict[str, object] = dict.fromkeys((*columns, PROBLEM, LINE))
    if options.format in ("csv", "tsv"):
        options = replace(options, columns=tuple(columns))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "line"
        path.write_text(line + "\n", encoding="utf-8", newline="")
        try:
            frame = read_frame(path, options, file)
        except FerroflowError as error:
            return nothing | {PROBLEM: f"corrected to what is no row: {error}", LINE: line}
    if frame.height != 1:
        return nothing | {PROBLEM: f"corrected to {frame.height} rows instead of one", LINE: line}
    unknown = [name for name in frame.columns if name not in schema]
    if unknown:
        return nothing | {PROBLEM: f"corrected to a line with other columns: {', '.join(unknown)}", LINE: line}
    return nothing | {name: value for name, value in frame.row(0, named=True).items() if name in nothing}


def _replaced(name: str, new: Mapping[int, object], dtype: pl.DataType, expired: pl.Expr) -> pl.Expr:
    rows = pl.Series(list(new), dtype=pl.UInt32)
    values = pl.Series(list(new.values()), dtype=dtype)
    cell = pl.col(ROW).replace_strict(rows, values, default=None, return_dtype=dtype)
    return pl.when(pl.col(ROW).is_in(rows.implode()) & ~expired).then(cell).otherwise(pl.col(name)).alias(name)


def _folder(home: Home, pipeline: str) -> Path:
    return home.data(pipeline) / "corrections"


def _name(number: int) -> str:
    return f"{number:06}.json"
