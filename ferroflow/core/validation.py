"""Split raw rows into accepted and quarantined ones: nothing is dropped, nothing passes unseen.

Pure functions on frames. Pandera's ways of failing open are closed here: types are cast and compared before it is
asked, it sees an eager frame only, NaN counts as missing, and whatever it says about a whole column stops everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ferroflow.core.errors import RowsLost, SchemaError, SpecError

ROW = "_row"
"""Number of a row (or line) in its file, from 1."""
PROBLEM = "_problem"
"""Why a line of a CSV file is no row; null otherwise."""
LINE = "_line"
"""That line as it stands; null otherwise."""
LABEL = "source_label"
"""The label of the file that a row came in, where the source's files have labels."""
_RESERVED = (ROW, PROBLEM, LINE)
_INDEX = "_index"

Derive = Callable[[pl.LazyFrame, Mapping[str, pl.LazyFrame]], pl.LazyFrame]

_MOMENTS = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M")
_ZONED = ("%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z")


@dataclass(frozen=True)
class Column:
    """One column of the schema."""

    name: str
    dtype: pl.DataType
    nullable: bool
    required: bool


@dataclass(frozen=True)
class Checked:
    """``accepted``: ``_row`` and the schema's columns. ``quarantined``: ``_row``, ``reasons``, ``raw`` (JSON text)."""

    accepted: pl.DataFrame
    quarantined: pl.DataFrame


def schema_columns(schema: Any) -> dict[str, Column]:
    """The columns of a ``pandera.polars.DataFrameModel``, in its order.

    Raises:
        SpecError: a column has no type, or its name is a pattern.
    """
    found = {}
    for name, column in schema.to_schema().columns.items():
        dtype = getattr(column.dtype, "type", None)
        if dtype is None or column.regex:
            raise SpecError(f"Column {name!r} of {schema.__name__} needs one name and one Polars type.")
        kind = dtype() if isinstance(dtype, type) else dtype
        found[name] = Column(name, kind, bool(column.nullable), bool(column.required))
    return found


def check_rows(
    raw: pl.DataFrame,
    schema: Any,
    *,
    derive: Derive | None = None,
    references: Mapping[str, pl.LazyFrame] | None = None,
    null_values: Sequence[str] = ("",),
    label: str = "",
) -> Checked:
    """Cast, derive and check the raw rows of one file.

    Args:
        raw: rows with ``_row``, and with ``_problem`` and ``_line`` where they come from text.
        schema: a ``pandera.polars.DataFrameModel``; raw columns of its names are cast to its types before ``derive``.
        derive: adds columns; may neither drop nor add rows.
        references: handed to ``derive``.
        null_values: what a text cell says (without the blanks around it) when it is empty.
        label: of the file; given to ``derive`` and the schema as the column ``source_label``, unless it is empty.

    Raises:
        SchemaError: a column is missing, or cannot be of its type at all.
        SpecError: ``derive`` changed the number of rows.
        RowsLost: rows in are not rows accepted plus rows quarantined (never seen).
    """
    columns = schema_columns(schema)
    broken, whole = _unbroken(raw)
    if label:
        whole = whole.with_columns(pl.lit(label).alias(LABEL))
    typed, failed = cast_rows(whole, columns, null_values)
    castable = typed.filter(~pl.col(ROW).is_in(failed[ROW].implode()))
    derived = _derived(castable, derive, references or {}, columns)
    refused = _refused(derived, schema, columns)
    reasons = pl.concat([broken, failed, refused]).group_by(ROW).agg(pl.col("reason").unique().sort().alias("reasons"))
    quarantined = reasons.sort(ROW).join(_raw_text(raw, reasons), on=ROW, how="left", maintain_order="left")
    accepted = derived.filter(~pl.col(ROW).is_in(reasons[ROW].implode())).select(ROW, *columns)
    if accepted.height + quarantined.height != raw.height or quarantined[ROW].n_unique() != quarantined.height:
        raise RowsLost(f"{raw.height} rows in, {accepted.height} accepted and {quarantined.height} quarantined.")
    return Checked(accepted, quarantined)


def reason_kind(reason: str) -> str:
    """A reason without the cell's own value, so that equal kinds can be counted."""
    head, found, _ = reason.partition(": '")
    return head if found and ": not a " in head else reason


def changed_types(files: Sequence[Mapping[str, str]], schema: Any) -> dict[str, str]:
    """Columns whose type in some file is not the schema's: ``"Int32, Int64 -> Int64"``; text cells are not told.

    Args:
        files: one mapping a file, raw column -> raw type.
        schema: as for ``check_rows``.
    """
    changed = {}
    for name, column in schema_columns(schema).items():
        wanted = str(column.dtype)
        raw = sorted({file[name] for file in files if name in file and file[name] != "String"})
        if raw and raw != [wanted]:
            changed[name] = f"{', '.join(raw)} -> {wanted}"
    return changed


# ----------------------------------------------------------------------------------------------------------- raw rows


def _unbroken(raw: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The reasons of lines that are no rows, and the rows that are left."""
    if PROBLEM not in raw.columns:
        return _no_reasons(), raw
    broken = raw.filter(pl.col(PROBLEM).is_not_null())
    return broken.select(_row(), reason=pl.lit("line: ") + pl.col(PROBLEM)), raw.filter(pl.col(PROBLEM).is_null())


def _row() -> pl.Expr:
    return pl.col(ROW).cast(pl.UInt32)


def _no_reasons() -> pl.DataFrame:
    return pl.DataFrame(schema={ROW: pl.UInt32, "reason": pl.String})


def _raw_text(raw: pl.DataFrame, reasons: pl.DataFrame) -> pl.DataFrame:
    """``_row`` and ``raw``: the cells as JSON text, or the line where there are no cells."""
    rows = raw.filter(pl.col(ROW).is_in(reasons[ROW].implode()))
    cells = [_tellable(rows[name]) for name in raw.columns if name not in _RESERVED]
    text = pl.struct(cells).struct.json_encode()
    if LINE in raw.columns:
        line = pl.struct(pl.col(LINE).alias("line")).struct.json_encode()
        text = pl.when(pl.col(LINE).is_not_null()).then(line).otherwise(text)
    return rows.select(_row(), text.alias("raw"))


def _tellable(cells: pl.Series) -> pl.Series:
    """Cells that JSON can hold: bytes as hexadecimal digits; numbers as text where one is infinite or not a number."""
    if cells.dtype == pl.Binary:
        return cells.bin.encode("hex")
    if cells.dtype.is_float() and not cells.is_finite().fill_null(True).all():
        return cells.cast(pl.String)
    return cells


# -------------------------------------------------------------------------------------------------------------- types


def cast_rows(
    raw: pl.DataFrame, columns: Mapping[str, Column], null_values: Sequence[str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Cast raw columns to the schema's types; every cell that is lost by it is told as ``_row`` and ``reason``.

    Text cells lose the blanks around them. NaN becomes null. Columns that the schema does not name keep their type.

    Raises:
        SchemaError: a whole column cannot be cast.
    """
    given = [name for name in raw.columns if name not in _RESERVED]
    text = [name for name in given if raw.schema[name] in (pl.String, pl.Categorical) or raw.schema[name] == pl.Enum]
    stripped = raw.with_columns(_stripped(name, null_values) for name in text)
    wanted = [columns[name] for name in given if name in columns]
    typed = stripped.with_columns(_cast(stripped, column) for column in wanted)
    failed = [_lost(stripped, typed, column) for column in wanted if stripped.schema[column.name] != column.dtype]
    clean = typed.with_columns(pl.col(pl.Float32, pl.Float64).fill_nan(None)).drop(PROBLEM, LINE, strict=False)
    return clean.with_columns(_row()), pl.concat([_no_reasons(), *failed])


def _stripped(name: str, null_values: Sequence[str]) -> pl.Expr:
    cell = pl.col(name).cast(pl.String).str.strip_chars()
    return pl.when(cell.is_in(list(null_values))).then(None).otherwise(cell).alias(name)


def _cast(raw: pl.DataFrame, column: Column) -> pl.Series:
    cells = raw[column.name]
    try:
        if cells.dtype == pl.String:
            return _from_text(cells, column.dtype)
        if (
            isinstance(cells.dtype, pl.Datetime)
            and isinstance(column.dtype, pl.Datetime)
            and bool(cells.dtype.time_zone) != bool(column.dtype.time_zone)
        ):
            raise SchemaError(
                f"Column {column.name!r} came as {cells.dtype}, the schema wants {column.dtype}: a time zone cannot be "
                f"guessed. Give the raw column the type it has, and convert it in derive under another name."
            )
        return cells.cast(column.dtype, strict=False)
    except pl.exceptions.PolarsError as error:
        raise SchemaError(
            f"Column {column.name!r} came as {cells.dtype} and cannot be made {column.dtype}: {error}. Mend the file, "
            f"or the column's type in the schema."
        ) from error


def _from_text(cells: pl.Series, dtype: pl.DataType) -> pl.Series:
    if isinstance(dtype, pl.Datetime):
        return _moments(cells, dtype)
    if dtype == pl.Date:
        return cells.str.to_date("%Y-%m-%d", strict=False)
    if dtype == pl.Time:
        return cells.str.to_time("%H:%M:%S%.f", strict=False)
    if dtype == pl.Boolean:
        known = {"true": True, "1": True, "false": False, "0": False}
        return cells.str.to_lowercase().replace_strict(known, default=None, return_dtype=pl.Boolean)
    return cells.cast(dtype, strict=False)


def _moments(cells: pl.Series, dtype: pl.Datetime) -> pl.Series:
    """ISO 8601 with or without seconds; a lone date is its midnight; with an offset where the type has a zone."""
    name, unit = cells.name, dtype.time_unit
    text = pl.col(name)
    naive = [text.str.to_datetime(form, time_unit=unit, strict=False) for form in _MOMENTS]
    naive.append(text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime(unit)))
    if dtype.time_zone is None:
        return cells.to_frame().select(pl.coalesce(naive)).to_series()
    utc = text.str.replace("[Zz]$", "+00:00")
    zoned = [utc.str.to_datetime(form, time_unit=unit, time_zone="UTC", strict=False) for form in _ZONED]
    return cells.to_frame().select(pl.coalesce(zoned).dt.convert_time_zone(dtype.time_zone).alias(name)).to_series()


def _lost(raw: pl.DataFrame, typed: pl.DataFrame, column: Column) -> pl.DataFrame:
    """The cells that are there and are not the same, or nothing, after the cast."""
    before, after = raw[column.name], typed[column.name]
    lost = before.is_not_null() & after.is_null()
    to_integer = before.dtype.is_numeric() and column.dtype.is_integer()
    if to_integer or (before.dtype.is_integer() and column.dtype.is_float()):
        # 1.9 is not 1, and an integer beyond 2**53 is no float. NaN is only missing.
        same = (before == after.cast(before.dtype, strict=False)).fill_null(False)
        lost = before.is_not_null() & ~same
    if before.dtype.is_float():
        lost = lost & before.is_not_nan().fill_null(False)
    told = (
        f"{column.name}: not a {type(column.dtype).__name__}: '"
        + before.filter(lost).cast(pl.String).str.slice(0, 80)
        + "'"
    )
    return pl.DataFrame({ROW: raw[ROW].filter(lost).cast(pl.UInt32), "reason": told})


# ------------------------------------------------------------------------------------------------- derived and checked


def _derived(
    rows: pl.DataFrame, derive: Derive | None, references: Mapping[str, pl.LazyFrame], columns: Mapping[str, Column]
) -> pl.DataFrame:
    """The derived rows in the order they came, with every column of the schema in its type."""
    if derive is None:
        return _complete(rows, columns, rows.columns)
    try:
        derived = derive(rows.with_row_index(_INDEX).lazy(), references).collect()
    except pl.exceptions.ColumnNotFoundError as error:
        name = str(error).split("\n", 1)[0]
        raise SchemaError(_missing(name, rows.columns)) from error
    if _INDEX not in derived.columns or ROW not in derived.columns:
        raise SpecError("derive must keep the columns it is given: add columns by with_columns, and do not select.")
    index = derived[_INDEX]
    if derived.height != rows.height or index.n_unique() != rows.height:
        raise SpecError(
            f"derive made {derived.height} rows of {rows.height}. It may neither drop nor multiply rows: join unique "
            f"keys from the left, and leave refusing to the schema."
        )
    return _complete(derived if index.is_sorted() else derived.sort(_INDEX), columns, rows.columns)


def _missing(name: str, came: Sequence[str]) -> str:
    known = ", ".join(column for column in came if column not in (*_RESERVED, _INDEX))
    return (
        f"Column {name!r} is missing. These came: {known}. Mend the file, or the schema (there a column that "
        f"may be absent is Optional[...])."
    )


def _complete(rows: pl.DataFrame, columns: Mapping[str, Column], came: Sequence[str]) -> pl.DataFrame:
    absent = [column for column in columns.values() if column.name not in rows.columns]
    for column in absent:
        if column.required:
            raise SchemaError(_missing(column.name, came))
    full = rows.with_columns(pl.lit(None, column.dtype).alias(column.name) for column in absent)
    full = full.with_columns(pl.col(pl.Float32, pl.Float64).fill_nan(None))
    # Constants and joins without a match come as Null: no value is touched by giving them their type.
    nulls = [column for column in columns.values() if full.schema[column.name] == pl.Null]
    full = full.with_columns(pl.col(column.name).cast(column.dtype) for column in nulls)
    for column in columns.values():
        if full.schema[column.name] != column.dtype:
            raise SchemaError(
                f"Column {column.name!r} is {full.schema[column.name]} after derive, the schema wants {column.dtype}. "
                f"Cast it in derive, or change the schema."
            )
    return full


def _refused(rows: pl.DataFrame, schema: Any, columns: Mapping[str, Column]) -> pl.DataFrame:
    """What pandera says against single rows: ``_row`` and ``reason``."""
    if rows.is_empty():
        return _no_reasons()
    cases = _failure_cases(rows.select(list(columns)), schema)
    if cases is None:
        return pl.concat([_no_reasons(), *_nulls(rows, columns)])
    whole = cases.filter(pl.col("index").is_null())
    if not whole.is_empty():
        first = whole.row(0, named=True)
        raise SchemaError(
            f"Column {first['column']!r} fails {first['check']} as a whole: {first['failure_case']}. Mend the schema's "
            f"check or the file."
        )
    nullable = [column.name for column in columns.values() if column.nullable]
    # Pandera counts repeated nulls as duplicates, also where null is allowed.
    repeated = pl.col("check").str.contains("uniqueness") & pl.col("failure_case").is_null()
    cases = cases.filter(~(repeated & pl.col("column").is_in(nullable)))
    subject = pl.when(pl.col("schema_context") == "Column").then(pl.col("column")).otherwise(pl.lit("row"))
    numbers = rows[ROW].gather(cases["index"].cast(pl.UInt32))
    told = cases.select(numbers.alias(ROW), reason=subject + ": " + pl.col("check"))
    return pl.concat([_no_reasons(), told, *_nulls(rows, columns)])


def _nulls(rows: pl.DataFrame, columns: Mapping[str, Column]) -> list[pl.DataFrame]:
    """Missing cells of columns that have none: looked for here too, whatever pandera sees."""
    needed = [column.name for column in columns.values() if not column.nullable and column.required]
    empty = [name for name in needed if rows[name].null_count()]
    return [rows.filter(pl.col(name).is_null()).select(ROW, reason=pl.lit(f"{name}: not_nullable")) for name in empty]


def _failure_cases(rows: pl.DataFrame, schema: Any) -> pl.DataFrame | None:
    """Pandera's failure cases (None: no failure), with all its switches that skip checks turned off."""
    from pandera.config import ValidationDepth, config_context
    from pandera.errors import SchemaErrors

    judge = schema.to_schema()
    judge.drop_invalid_rows = False
    try:
        with config_context(validation_enabled=True, validation_depth=ValidationDepth.SCHEMA_AND_DATA):
            judge.validate(rows, lazy=True)
    except SchemaErrors as error:
        cases: pl.DataFrame = error.failure_cases
        return cases.with_columns(pl.col("check", "column", "failure_case").cast(pl.String))
    return None
