"""What declared cleaning makes of a cell, as expressions; and whether a declaration fits the column at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

import polars as pl

from ferroflow.core.casting import is_text
from ferroflow.core.cleaning import BLANKS, Clip, Deduplicate, Default, Replace, Trim
from ferroflow.core.errors import SpecError

CellRule = Default | Clip | Trim | Replace


def told(rule: CellRule | Deduplicate) -> str:
    """What a rule's changes are counted under: ``"column: clip"``, ``"row: deduplicate"``."""
    return f"row: {rule.name}" if isinstance(rule, Deduplicate) else f"{rule.column}: {rule.name}"


def cleaned(rule: CellRule, dtype: pl.DataType, null_values: Sequence[str] = ("",)) -> pl.Expr:
    """The column's cells after the rule, in the same type.

    Raises:
        SpecError: the rule means nothing for the type, or has a value that is not of it.
    """
    cell = pl.col(rule.column)
    if isinstance(rule, Default):
        return cell.fill_null(_literal(rule, rule.value, dtype))
    if isinstance(rule, Clip):
        return _clipped(rule, cell, dtype)
    if isinstance(rule, Trim):
        return _trimmed(rule, cell, dtype, null_values)
    return _replaced(rule, cell, dtype)


def duplicates(rule: Deduplicate, given: Mapping[str, pl.DataType], raw: Sequence[str]) -> list[str]:
    """The columns in which duplicates are equal.

    Args:
        given: all columns that are there.
        raw: those of them that the schema names.

    Raises:
        SpecError: a column of the rule is not there.
    """
    for name in rule.columns:
        known(rule, name, given)
    return list(rule.columns or raw)


def known(rule: CellRule | Deduplicate, name: str, given: Mapping[str, pl.DataType]) -> pl.DataType:
    """The type of a rule's column.

    Raises:
        SpecError: there is no such column before ``derive``.
    """
    if name not in given:
        raise SpecError(
            f"cleaning: {type(rule).__name__} names the column {name!r}, which is not there before derive. "
            f"These are: {', '.join(given)}."
        )
    return given[name]


def _clipped(rule: Clip, cell: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if not dtype.is_numeric():
        raise SpecError(f"cleaning: Clip({rule.column!r}) is for numbers; the column is {dtype}.")
    if rule.low is None and rule.high is None:
        raise SpecError(f"cleaning: Clip({rule.column!r}) needs low=, high= or both.")
    if rule.low is not None and rule.high is not None and rule.low > rule.high:
        raise SpecError(f"cleaning: Clip({rule.column!r}) has low={rule.low} above high={rule.high}.")
    low = None if rule.low is None else _literal(rule, rule.low, dtype)
    high = None if rule.high is None else _literal(rule, rule.high, dtype)
    return cell.clip(low, high)


def _trimmed(rule: Trim, cell: pl.Expr, dtype: pl.DataType, null_values: Sequence[str]) -> pl.Expr:
    if not is_text(dtype):
        raise SpecError(f"cleaning: Trim({rule.column!r}) is for texts; the column is {dtype}.")
    text = cell.cast(pl.String).str.strip_chars(rule.characters + BLANKS)
    empty = text.is_in(["", *null_values])
    # A text of an Enum that is none of its values stays as it was: the schema says what it thinks of it.
    return pl.when(empty).then(None).otherwise(text.cast(dtype, strict=False).fill_null(cell)).cast(dtype)


def _replaced(rule: Replace, cell: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    after = cell
    for key, value in rule.values.items():
        new = pl.lit(None, dtype) if value is None else _literal(rule, value, dtype)
        after = pl.when(cell == _literal(rule, key, dtype)).then(new).otherwise(after)
    return after


def _literal(rule: CellRule, value: Any, dtype: pl.DataType) -> pl.Expr:
    """A value of a declaration in the column's type.

    Raises:
        SpecError: it is not of that type.
    """
    try:
        if not _fits(value, dtype):
            raise TypeError(f"{type(value).__name__} given")
        cells = pl.Series([value], dtype=pl.String if is_text(dtype) else None).cast(dtype)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
        raise SpecError(
            f"cleaning: {type(rule).__name__}({rule.column!r}) has the value {value!r}, and the column is {dtype}: "
            f"{error}. Give a value of that type."
        ) from error
    return pl.lit(cells.item(), dtype)


def _fits(value: Any, dtype: pl.DataType) -> bool:
    if is_text(dtype):
        return isinstance(value, str)
    if dtype == pl.Boolean:
        return isinstance(value, bool)
    if dtype.is_numeric():
        number = isinstance(value, int | float) and not isinstance(value, bool) and value == value
        return number and (not dtype.is_integer() or value == int(value))
    if isinstance(dtype, pl.Datetime):
        return isinstance(value, datetime) and bool(value.tzinfo) == bool(dtype.time_zone)
    if dtype == pl.Date:
        return isinstance(value, date) and not isinstance(value, datetime)
    return value is not None
